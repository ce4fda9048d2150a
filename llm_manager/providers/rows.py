"""Servers that speak the OpenAI dialect, as rows of data.

What belongs here: addresses, names of environment variables, and quirks that `ChatDialect` can
express.  What does not: code.  A server that needs code gets a file of its own.
"""

from __future__ import annotations

from ..messages import Capability, Data

class Row(Data, frozen=True, kw_only=True):
    name: str

ROWS: dict[str, Row] = {}
