"""The table of scenarios in the documentation names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def rows() -> list[tuple[int, str, list[str]]]:
    """Number, text and what shows it, of each row under the heading "Scenarios"."""
    section = PAGE.read_text().partition("\n## Scenarios\n")[2].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [
        (int(number), text.strip(), re.findall(r"`([^`]+)`", shown_by))
        for number, text, shown_by in cells[1:]
    ]


def test_every_scenario_has_one_row_and_something_that_shows_it() -> None:
    numbers = [number for number, _, _ in rows()]
    # Those in between belong to an editor bridge, which there is not yet.
    assert numbers == [*range(1, 75), 84, 85]
    assert all(text and shown_by for _, text, shown_by in rows())


@pytest.mark.parametrize("shown_by", sorted({name for _, _, names in rows() for name in names}))
def test_what_shows_a_scenario_exists(shown_by: str) -> None:
    path, _, name = shown_by.partition("::")
    assert (ROOT / path).is_file(), path
    if name:
        assert re.search(rf"^ *(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (
            f"{path} has no test {name}"
        )
    else:
        assert path.endswith(".json")
