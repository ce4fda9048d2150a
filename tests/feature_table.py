"""The table of features in docs/providers.md, made from what the classes and rows say.

python -m tests.feature_table     writes it anew
"""

from __future__ import annotations

from pathlib import Path

from llm_manager import BaseLLMProvider, create_provider, kinds
from llm_manager.messages import Capability

PAGE = Path(__file__).parent.parent / "docs" / "providers.md"
BEGIN, END = "<!-- features: begin -->", "<!-- features: end -->"
NO_ADDRESS = ("compatible",)
# What they can do is what their members can.
COMPOSITES = frozenset({"balanced", "fallback", "multi", "switching"})
COLUMNS: tuple[Capability, ...] = (
    "chat", "tools", "vision", "files", "reasoning", "json_object", "json_schema", "fim",
    "embeddings",
)  # fmt: skip


def rendered() -> str:
    """The region of the page, its marks included."""
    header = ["kind", *COLUMNS, "model list", "count_tokens"]
    rows = [header, ["---"] * len(header), *map(_row, sorted({*kinds()} - COMPOSITES))]
    return "\n".join([BEGIN, *(f"| {' | '.join(row)} |" for row in rows), END])


def _row(kind: str) -> list[str]:
    address = {"base_url": "http://127.0.0.1:9/v1"} if kind in NO_ADDRESS else {}
    provider = create_provider(kind, **address)
    told = provider.get_capabilities().features
    cells = ["emulated" if told[name].source == "emulated" else _word(told[name].supported)
             for name in COLUMNS]  # fmt: skip
    row = getattr(provider, "row", None)
    listed = row is None or row.models_path is not None
    counts = type(provider)._count_tokens is not BaseLLMProvider._count_tokens
    return [f"`{kind}`", *cells, _word(listed), "yes" if counts else "estimate"]


def _word(supported: bool | None) -> str:
    return "yes" if supported else "-"


def region() -> str:
    """What the page has."""
    text = PAGE.read_text()
    return text[text.index(BEGIN) : text.index(END) + len(END)]


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().replace(region(), rendered()))
