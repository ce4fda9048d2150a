"""Reads docstrings: what a thing does, and what its parameters or fields mean.

Understood are the Google style (``Args:`` and ``Attributes:``) and the NumPy style
(``Parameters`` over a line of dashes).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

# The patterns are compiled when first used, for most programs describe no functions.
_SECTION = (
    r"(args|arguments|parameters|params|keyword args|other parameters|attributes|returns?|yields?|"
    r"raises|examples?|notes?|see also|warnings?|references|todo)\s*(:?)"
)
_OF_PARAMETERS = (
    "args", "arguments", "parameters", "params", "keyword args", "other parameters", "attributes",
)  # fmt: skip
_GOOGLE_ENTRY = r"\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?:\([^)]*\))?\s*:\s*(.*)"
_NUMPY_ENTRY = r"\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?"


def read_docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """The description without its sections, and a description for each documented name."""
    lines = inspect.cleandoc(text or "").splitlines()
    sections = list(_sections(lines))
    end = sections[0][1] if sections else len(lines)
    meanings: dict[str, str] = {}
    for index, (title, begin, numpy) in enumerate(sections):
        stop = sections[index + 1][1] if index + 1 < len(sections) else len(lines)
        if title in _OF_PARAMETERS:
            body = lines[begin + (2 if numpy else 1) : stop]
            meanings.update(_entries(body, _NUMPY_ENTRY if numpy else _GOOGLE_ENTRY))
    return "\n".join(lines[:end]).strip(), meanings


def _sections(lines: list[str]) -> Iterator[tuple[str, int, bool]]:
    """The sections: title, number of the title's line, and whether it is of the NumPy style."""
    for number, line in enumerate(lines):
        match = re.fullmatch(_SECTION, line.rstrip(), re.IGNORECASE)
        if match is None:
            continue
        below = lines[number + 1].strip() if number + 1 < len(lines) else ""
        numpy = len(below) >= 3 and set(below) == {"-"}
        if numpy or match[2]:
            yield match[1].lower(), number, numpy


def _entries(body: list[str], pattern: str) -> dict[str, str]:
    """Names and texts of a section; what is indented deeper goes on with the entry above."""
    texts: dict[str, list[str]] = {}
    current: list[str] = []
    indent = next((_indent(line) for line in body if line.strip()), 0)
    for line in body:
        match = re.fullmatch(pattern, line.strip()) if _indent(line) <= indent else None
        if match is None:
            current.append(line.strip())
            continue
        current = list(match.groups()[1:])
        for name in match[1].split(","):
            texts[name.strip()] = current
    return {name: " ".join(filter(None, pieces)) for name, pieces in texts.items()}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
