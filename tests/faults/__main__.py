"""``python -m tests.faults``: write the tables of the faults into their page."""

from __future__ import annotations

from pathlib import Path

from .table import with_tables

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
