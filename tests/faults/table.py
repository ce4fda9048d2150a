"""The matrix as tables of Markdown, from the rows that the tests check."""

from __future__ import annotations

from .cases import SECTIONS
from .fault import Fault, Seen

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"

_HEADER = (
    "fault", "error", "HTTP", "sent", "text kept", "ends", "after `connect()`",
    "after a first request", "if it had worked before",
)  # fmt: skip
_LIMITS = {
    None: "at once",
    "connect_s": "`connect_s`",
    "first_token_s": "`first_token_s`",
    "idle_s": "`idle_s`",
    "content_idle_s": "`content_idle_s`",
    "total_s": "`total_s`",
}


def tables() -> str:
    """All sections with their tables."""
    return "\n".join(f"### {title}\n\n{_table(faults)}" for title, faults in SECTIONS.items())


def with_tables(page: str) -> str:
    """``page`` with the tables between its two markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, behind = rest.partition(END)
    assert begin, f"the page has no {BEGIN}"
    assert end, f"the page has no {END}"
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{behind}"


def _table(faults: tuple[Fault, ...]) -> str:
    lines = [_line(_HEADER), _line(["---"] * len(_HEADER))]
    for fault in faults:
        lines.append(_line(_cells(fault, fault.expected)))
    return "\n".join(lines) + "\n"


def _cells(fault: Fault, seen: Seen) -> list[str]:
    error = f"`{seen.error}` `{seen.code}`" if seen.error else "none"
    return [
        fault.what,
        error,
        str(seen.http_status or "-"),
        {1: "once", 2: "again"}[seen.attempts],
        _kept(seen),
        _LIMITS[fault.clock],
        *(_status(status) for status in (seen.connecting, seen.first, seen.worked)),
    ]


def _kept(seen: Seen) -> str:
    if not seen.text:
        return "-"
    return "all" if seen.error is None else "what came"


def _status(status: str | None) -> str:
    if status is None:
        return "-"
    word, _, reason = status.rstrip(")").partition(" (")
    return f"`{word}`" if reason == "recovered" else f"`{word}` `{reason}`"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
