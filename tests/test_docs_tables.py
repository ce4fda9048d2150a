"""The tables of the documentation say what the code says."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from llm_manager import EchoAnswer, LLMRequestOptions, LLMStreamEvent, ProviderStatus, Reason, Row
from llm_manager import events as events_module
from llm_manager.cli.arguments import COMMANDS, _parser
from llm_manager.errors import LLMError
from llm_manager.events import Event
from llm_manager.policy.deadline import DEFAULT_TIMEOUTS, LOCAL_TIMEOUTS
from llm_manager.policy.retry import DEFAULT_RETRIES
from llm_manager.providers.rows import _ALL as ROWS
from llm_manager.status import LEGAL_TRANSITIONS, LLMProviderStatus
from llm_manager.supervisor import LOCAL_BACKOFF, Backoff
from llm_manager.testing import Reply

from .test_layers import LAYERS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
QUOTED = re.compile(r"`([^`]+)`")


def table(page: str, *header: str) -> list[dict[str, str]]:
    """The rows of the one table of ``page`` whose header begins with these words."""
    lines = (DOCS / page).read_text().splitlines()
    starts = [i for i, line in enumerate(lines) if cells(line)[: len(header)] == list(header)]
    assert len(starts) == 1, f"{page} has {len(starts)} tables that begin with {header}"
    names = cells(lines[starts[0]])
    rows = []
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        assert len(cells(line)) == len(names), f"{page}: {line}"
        rows.append(dict(zip(names, cells(line), strict=True)))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def quoted(cell: str) -> list[str]:
    return QUOTED.findall(cell)


def column(rows: list[dict[str, str]], name: str) -> list[str]:
    """All that is quoted in one column, from top to bottom."""
    return [word for row in rows for word in quoted(row[name])]


def subclasses(kind: type) -> set[type]:
    return {kind for one in kind.__subclasses__() for kind in ({one} | subclasses(one))}


def seconds(cell: str) -> float:
    return math.inf if cell == "none" else float(cell)


# ---- status and events ---------------------------------------------------------------------------


def test_the_table_of_statuses_has_each_of_them_in_order() -> None:
    assert column(table("lifecycle.md", "status", "meaning"), "status") == list(ProviderStatus)


def test_the_table_of_steps_is_the_one_of_the_code() -> None:
    rows = table("lifecycle.md", "from", "to")
    steps = {quoted(row["from"])[0]: set(quoted(row["to"])) for row in rows}
    assert steps == {str(a): set(map(str, b)) for a, b in LEGAL_TRANSITIONS.items()}


def test_the_table_of_reasons_has_each_of_them_once() -> None:
    reasons = column(table("lifecycle.md", "reason", "status"), "reason")
    assert sorted(reasons) == sorted(Reason)


def test_a_reason_is_called_reserved_exactly_if_nothing_sets_it() -> None:
    code = "".join(
        path.read_text()
        for path in (ROOT / "llm_manager").rglob("*.py")
        if path.name != "status.py"
    )
    for row in table("lifecycle.md", "reason", "status"):
        word = quoted(row["reason"])[0]
        used = f"Reason.{word.upper()}" in code or f'"{word}"' in code or word == "initial"
        # Errors carry codes, and a code that is a reason becomes one.
        by_class = any(kind.code == word for kind in subclasses(LLMError))
        by_default = word in ("server_error", "reset", "timeout")
        assert (row["what happened"] == "reserved") is not (used or by_class or by_default), word


def test_the_table_of_fields_has_those_of_the_snapshot_in_order() -> None:
    fields = column(table("lifecycle.md", "field", "meaning"), "field")
    assert fields == list(LLMProviderStatus.__struct_fields__)


def test_the_table_of_events_has_each_event_with_its_type() -> None:
    rows = table("lifecycle.md", "event", "payload")
    written = {name: quoted(row["payload"]) for row in rows for name in quoted(row["event"])}
    kinds = [kind for kind in subclasses(Event) if kind.__module__ == events_module.__name__]
    real = {kind.name: [kind.__name__] for kind in kinds}
    real |= {str(word): ["StatusChanged"] for word in ProviderStatus}
    assert written == real


def test_the_changelog_counts_the_events_right() -> None:
    counted = re.search(r"(\d+) kinds of\s+events", (DOCS / "changelog.md").read_text())
    assert counted
    rows = table("lifecycle.md", "event", "payload")
    assert int(counted[1]) == len({row["payload"] for row in rows})


def test_the_table_of_waits_is_the_one_of_the_code() -> None:
    for row in table("lifecycle.md", "setting", "services on the network"):
        name = quoted(row["setting"])[0]
        assert float(row["services on the network"]) == getattr(Backoff(), name)
        assert float(row["servers on this machine"]) == getattr(LOCAL_BACKOFF, name)


# ---- asking --------------------------------------------------------------------------------------


def test_the_table_of_options_has_each_option_in_order() -> None:
    options = [quoted(row["option"])[0] for row in table("streams.md", "option", "values")]
    assert options == list(LLMRequestOptions.__struct_fields__)


@pytest.mark.parametrize(
    "row",
    [r for r in table("streams.md", "option", "values") if re.match(r"-?\d+ to ", r["values"])],
    ids=lambda row: row["option"],
)
def test_the_range_of_an_option_is_the_one_that_is_checked(row) -> None:
    name, (low, high) = quoted(row["option"])[0], map(float, row["values"].split(" to "))
    for allowed in (low, high):
        LLMRequestOptions(**{name: allowed})
    for refused in (low - 0.01, high + 0.01):
        with pytest.raises(LLMError, match=name):
            LLMRequestOptions(**{name: refused})


def test_the_table_of_clocks_has_the_defaults_of_the_code() -> None:
    rows = table("streams.md", "clock", "from")
    assert column(rows, "clock") == list(DEFAULT_TIMEOUTS.__struct_fields__)
    for row in rows:
        name = quoted(row["clock"])[0]
        assert seconds(row["network"]) == getattr(DEFAULT_TIMEOUTS, name)
        assert seconds(row["this machine"]) == getattr(LOCAL_TIMEOUTS, name)


def test_the_table_of_retries_has_the_defaults_of_the_code() -> None:
    rows = table("streams.md", "setting", "default", "meaning")
    written = {quoted(row["setting"])[0]: float(row["default"]) for row in rows}
    names = DEFAULT_RETRIES.__struct_fields__
    assert written == {name: getattr(DEFAULT_RETRIES, name) for name in names}


def test_the_table_of_stream_events_has_each_kind() -> None:
    rows = table("streams.md", "kind", "set field")
    assert column(rows, "kind") == list(get_args(get_type_hints(LLMStreamEvent)["kind"]))
    assert set(column(rows, "set field")) <= set(LLMStreamEvent.__struct_fields__)


def test_the_table_of_errors_has_each_class_with_its_code() -> None:
    rows = table("streams.md", "class", "code", "retryable")
    written = {
        quoted(row["class"])[0]: (quoted(row["code"])[0], row["retryable"] == "yes") for row in rows
    }
    kinds = [kind for kind in subclasses(LLMError) if kind.__module__ == LLMError.__module__]
    assert written == {kind.__name__: (kind.code, kind.retryable) for kind in kinds}


# ---- providers -----------------------------------------------------------------------------------


def _as_row(row) -> str:
    keys = ", ".join(f"`{name}`" for name in row.key_variables) or "none"
    if row.key_variables and not row.key_required:
        keys += " (optional)"
    facts = (
        f"`{row.id}`",
        row.name,
        f"`{row.base_url}`" if row.base_url else "you say it",
        keys,
        ", ".join(f"`{name}`" for name in row.base_url_variables) or "-",
        "yes" if row.models_path else "no",
    )
    return f"| {' | '.join(facts)} |"


def test_the_table_of_services_has_each_row_of_the_code_in_order() -> None:
    rows = table("providers.md", "kind", "what it is", "address")
    written = [f"| {' | '.join(row.values())} |" for row in rows]
    # What pytest shows when they differ can be pasted into the page.
    assert "\n".join(written) == "\n".join(map(_as_row, ROWS))


def test_the_table_of_row_fields_has_each_of_them_once() -> None:
    fields = column(table("providers.md", "field of a row", "meaning"), "field of a row")
    assert sorted([*fields, "id"]) == sorted(Row.__struct_fields__)


def test_the_table_of_who_fills_in_the_middle_is_complete() -> None:
    kinds = column(table("fim.md", "kind", "asks at"), "kind")
    assert sorted(kinds) == sorted(["ollama", *(row.id for row in ROWS if row.fim)])


def test_the_tables_about_testing_have_each_field() -> None:
    answer = table("testing.md", "field of `EchoAnswer`", "default")
    assert column(answer, "field of `EchoAnswer`") == list(EchoAnswer.__struct_fields__)
    reply = column(table("testing.md", "setting of `Reply`"), "setting of `Reply`")
    assert set(reply) == set(Reply.__dataclass_fields__)


# ---- the command line ----------------------------------------------------------------------------


def _commands():
    actions = _parser()._subparsers._group_actions
    return actions[0].choices


def _options(parser) -> set[str]:
    return {
        next(name for name in action.option_strings if name.startswith("--"))
        for action in parser._actions
        if action.option_strings
    } - {"--help"}


def test_the_table_of_commands_has_each_command_with_its_options() -> None:
    rows = table("cli.md", "command", "what it does")
    written = {quoted(row["command"])[0]: set(quoted(row["own options"])) for row in rows}
    common = set(column(table("cli.md", "common option", "meaning"), "common option")) - {"-v"}
    options = set(column(table("cli.md", "option", "meaning"), "option"))
    assert list(written) == list(COMMANDS)
    assert options == {option for own in written.values() for option in own}
    for name, parser in _commands().items():
        assert written[name] | common == _options(parser) | {"--version"}, name


# ---- how it is built -----------------------------------------------------------------------------


def test_the_table_of_layers_is_the_one_that_is_tested() -> None:
    rows = table("explanation/architecture.md", "layer", "modules")
    written = [set(quoted(row["modules"])) for row in rows]
    assert written == [layer for layer in LAYERS if layer != {"__init__", "__main__"}]


def test_the_table_of_owners_names_files_that_exist() -> None:
    for name in column(table("explanation/architecture.md", "question", "owner"), "owner"):
        assert (ROOT / "llm_manager" / name).exists(), name


def test_every_dependency_is_named_with_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def named(requirements: list[str]) -> set[str]:
        names = {re.match(r"[\w-]+", each)[0] for each in requirements}
        return names - {"llm_manager"}

    page = "explanation/dependencies.md"
    run_time = table(page, "package", "what for", "why this one")
    optional = table(page, "extra", "package")
    everything = [name for extra in extras.values() for name in named(extra)]
    text = (DOCS / page).read_text()

    assert set(column(run_time, "package")) == named(project["dependencies"])
    assert {quoted(row["extra"])[0] for row in optional} == set(extras) - {"dev"}
    for row in optional:
        extra = quoted(row["extra"])[0]
        if extra != "all":
            assert set(quoted(row["package"])) == named(extras[extra])
    assert not [
        name for name in everything if f"| `{name}`" not in text and f", `{name}`" not in text
    ]
    assert all(cell for row in [*run_time, *optional] for cell in row.values())
