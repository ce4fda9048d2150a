"""The blocks that an answer of Anthropic's Messages API is made of, while they arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..messages import (
    Delta,
    OpaquePart,
    PartDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from .anthropic_content import ORIGIN
from .loose import document, text

_OF_A_CALL = frozenset({"type", "id", "name", "input"})


class AnswerBlocks:
    """Turns blocks and their pieces into deltas.

    Text and calls of tools become deltas of their own.  Every other block is given out as an
    `OpaquePart` when it is complete.  So is a call that something else follows, or of which there
    is more to keep than its name and arguments: it has to go back to its very place.

    Args:
        emit: takes each delta.
    """

    def __init__(self, emit: Callable[[Delta], None]) -> None:
        self.calls = 0
        self._emit = emit
        self._open: dict[int, _Block] = {}
        self._unplaced_calls: list[dict[str, Any]] = []

    def begin(self, index: int, data: dict[str, Any]) -> None:
        """Open a block."""
        block = self._open[index] = _Block(data)
        if block.kind == "tool_use":
            block.call, self.calls = self.calls, self.calls + 1
            self._emit(ToolCallDelta(block.call, text(data.get("id")), text(data.get("name"))))
            return
        self._place_calls()
        if block.kind == "text" and (said := text(data.get("text"))):
            self._emit(TextDelta(said))
        elif block.kind == "thinking" and (thought := text(data.get("thinking"))):
            self._emit(ReasoningDelta(thought))

    def add(self, index: int, piece: dict[str, Any]) -> bool:
        """Take a piece of a block; returns whether it was text of the answer."""
        block = self._open.get(index)
        # Some gateways send pieces of blocks that they never opened.
        kind = block.kind if block else text(piece.get("type")).removesuffix("_delta")
        if kind == "text":
            if said := text(piece.get("text")):
                self._emit(TextDelta(said))
            return bool(said)
        if kind == "thinking" and (thought := text(piece.get("thinking"))):
            self._emit(ReasoningDelta(thought))
        if block is not None:
            if block.call >= 0 and (arguments := text(piece.get("partial_json"))):
                self._emit(ToolCallDelta(block.call, arguments=arguments))
            block.add(piece)
        return False

    def end(self, index: int) -> None:
        """Close a block."""
        block = self._open.pop(index, None)
        if block is None or block.kind == "text":
            return
        whole = block.whole()
        if block.call < 0:
            self._emit(PartDelta(_kept(whole)))
            return
        if not block.has_json and whole.get("input"):
            arguments = msgspec.json.encode(whole["input"]).decode()
            self._emit(ToolCallDelta(block.call, arguments=arguments))
        self._unplaced_calls.append(whole)
        if not whole.keys() <= _OF_A_CALL:
            self._place_calls()

    def end_all(self) -> None:
        """Close the blocks that are still open."""
        for index in list(self._open):
            self.end(index)

    def _place_calls(self) -> None:
        for call in self._unplaced_calls:
            self._emit(PartDelta(_kept(call)))
        self._unplaced_calls.clear()


class _Block:
    """A block whose pieces are arriving."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.kind = text(data.get("type"))
        self.call = -1
        self._data = data
        self._pieces: dict[str, list[str]] = {}

    @property
    def has_json(self) -> bool:
        return "partial_json" in self._pieces

    def add(self, piece: dict[str, Any]) -> None:
        for name, value in piece.items():
            if name != "type" and type(value) is str:
                self._pieces.setdefault(name, []).append(value)

    def whole(self) -> dict[str, Any]:
        """The block as it would stand in an answer in one piece."""
        whole = dict(self._data)
        for name, pieces in self._pieces.items():
            joined = "".join(pieces)
            if name != "partial_json":
                whole[name] = text(whole.get(name)) + joined
            elif isinstance(given := document(joined.encode()), dict):
                whole["input"] = given
        return whole


def _kept(block: dict[str, Any]) -> OpaquePart:
    return OpaquePart(origin=ORIGIN, kind=text(block.get("type")), data=block)
