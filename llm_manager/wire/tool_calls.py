"""Finds out which tool call a streamed piece belongs to."""

from __future__ import annotations

from typing import Any

import msgspec

from ..messages import ToolCallDelta
from .loose import document, field, text, whole_number


class _Call:
    """A call whose pieces are arriving."""

    def __init__(self, position: int, id: str, name: str) -> None:
        self.position = position
        self.id = id
        self.name = name
        self.arguments: list[str] = []

    @property
    def is_complete(self) -> bool:
        written = "".join(self.arguments[-1:]).rstrip()
        # Looking at the end first keeps this cheap for long arguments in small pieces.
        return written.endswith("}") and document("".join(self.arguments).encode()) is not None


class ToolCallPieces:
    """Numbers the calls of one answer in their order, and assigns each piece to its call.

    Servers disagree on everything: the index may be missing, or 0 for all; id and name may come
    once, in each piece, or never.  A piece opens a new call

    * if its index is new, and it has a name or an id,
    * if it has a name and an id, and the id is new,
    * if it has a name and neither index nor id, and the name differs from that of the call before,
      or that call is complete, or the piece stands behind another one in the same chunk.

    Args:
        request_id: for the ids of calls to which the server gives none.
    """

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def feed(self, pieces: object) -> list[ToolCallDelta]:
        """The deltas for the pieces of one chunk; what is no piece is left out."""
        deltas = []
        for place, piece in enumerate(pieces if isinstance(pieces, list) else ()):
            if isinstance(piece, dict):
                delta = self._take(piece, place)
                if delta is not None:
                    deltas.append(delta)
        return deltas

    def _take(self, piece: dict[str, Any], place: int) -> ToolCallDelta | None:
        index, id = whole_number(piece.get("index")), text(piece.get("id"))
        function = piece.get("function")
        name, arguments = text(field(function, "name")), _arguments(function)
        call = self._find(index, id, name, place)
        is_new = call is None
        if call is None:
            if not (name or id or arguments):
                return None
            # A call's result has to name its id: a call without one gets one.
            position = len(self._calls)
            call = _Call(position, id or f"call_{self._request_id}_{position}", name)
            self._calls.append(call)
        elif call.name:
            name = ""  # it is said again
        else:
            call.name = name
        if index is not None:
            self._by_index[index] = call
        elif arguments:
            call.arguments.append(arguments)
        if not (is_new or name or arguments):
            return None
        return ToolCallDelta(call.position, call.id if is_new else "", name, arguments)

    def _find(self, index: int | None, id: str, name: str, place: int) -> _Call | None:
        """The call that a piece goes on with; None if it opens one."""
        latest = self._calls[-1] if self._calls else None
        if index is not None:
            call = self._by_index.get(index)
            if call is None:
                return self._with_id(id) if name or id else latest
            return self._with_id(id) if name and id and id != call.id else call
        if id:
            return self._with_id(id) or (None if name else latest)
        if latest is None or not name:
            return latest
        return None if name != latest.name or place > 0 or latest.is_complete else latest

    def _with_id(self, id: str) -> _Call | None:
        return next((call for call in self._calls if call.id == id), None)


def _arguments(function: object) -> str:
    """The JSON text of the arguments; some servers send the object itself."""
    given = field(function, "arguments")
    if isinstance(given, dict):
        return msgspec.json.encode(given).decode()
    return text(given)
