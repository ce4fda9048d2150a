"""All known services and servers that speak the OpenAI dialect, by id.

What belongs into a row: addresses, names of environment variables, and quirks that `ChatDialect`
can express.  What does not: code.  A server that needs code gets a file of its own.
"""

from __future__ import annotations

from .local_servers import LOCAL_SERVERS
from .row import CHAT, Row, row_from
from .services import SERVICES
from .services_hosting import HOSTING_SERVICES

__all__ = ["CHAT", "ROWS", "Row", "row_from"]

_ALL = (
    Row(
        id="compatible",
        name="OpenAI-compatible server",
        key_required=False,
    ),
    *SERVICES,
    *HOSTING_SERVICES,
    *LOCAL_SERVERS,
)

ROWS: dict[str, Row] = {row.id: row for row in _ALL}
"""All rows by id; `llm_manager.register_provider` adds to it."""
