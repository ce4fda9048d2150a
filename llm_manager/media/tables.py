"""Reads tables in CSV and TSV, as much of them as shall be shown."""

from __future__ import annotations

import csv
import io
from itertools import islice

from ..errors import InvalidParameterError
from .inputs import TabularInput

_DELIMITERS = ",;\t|"


def table_of(text: str, *, filename: str | None, max_rows: int) -> TabularInput:
    """The table in ``text``; its delimiter is the most frequent one of the first line.

    Only the rows that are shown are read, so that a large file takes no longer than a small one.

    Raises:
        InvalidParameterError: it cannot be read as a table.
    """
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    problem = None
    try:
        read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [tuple(row) for row in islice((row for row in read if row), max_rows + 2)]
    except csv.Error as error:
        problem = str(error)
    if problem is not None:
        raise InvalidParameterError(
            f"{filename or 'the table'} cannot be read as a table: {problem}",
            code="media_damaged",
            hint="pass media_type='text' to send it as it is",
        )
    columns, shown = rows[0], rows[1 : max_rows + 1]
    count = len(shown)
    if len(rows) > max_rows + 1:
        lines = text.count("\n") + (not text.endswith("\n"))
        count = max(lines - 1, len(shown) + 1)
    return TabularInput(columns=columns, rows=tuple(shown), row_count=count, filename=filename)
