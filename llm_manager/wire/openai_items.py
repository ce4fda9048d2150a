"""The items that an answer of OpenAI's Responses API is made of, while they arrive."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ..messages import Delta, OpaquePart, PartDelta, ReasoningDelta, TextDelta, ToolCallDelta
from .loose import field, text
from .openai_responses_request import ORIGIN, PHASE, PLACE

# What a call is without its mark; anything else of it has to be kept.
_OF_A_CALL = frozenset({"type", "id", "call_id", "name", "arguments", "status"})
_NOT_KEPT = ("id", "arguments", "status")


class AnswerItems:
    """Turns items and their pieces into deltas.

    Text, reasoning that is shown, and calls of tools become deltas of their own.  Reasoning and
    whatever else there is are given out as an `OpaquePart` too, when they are complete: the
    service wants them back.  So is a mark of a call that something else follows, or of which there
    is more to keep than its name and arguments: it has to go back to its very place.

    Args:
        emit: takes each delta.
        request_id: for the ids of calls to which the server gives none.
    """

    def __init__(self, emit: Callable[[Delta], None], request_id: str) -> None:
        self.has_refused = False
        self._emit = emit
        self._request_id = request_id
        self._calls: dict[Hashable, _Call] = {}
        self._unplaced_calls: list[OpaquePart] = []
        self._shown: dict[Hashable, Any] = {}

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def begin(self, key: Hashable, item: Mapping[str, Any]) -> None:
        """Open an item, as far as it is known."""
        if item.get("type") == "function_call":
            self._call_of(key, item)
        elif item.get("type") == "message":
            self._mark_phase(key, item)

    def say(self, key: Hashable, said: str) -> None:
        """Take a piece of text."""
        self._place_calls()
        self._shown.setdefault(key, None)
        self._emit(TextDelta(said))

    def refuse(self, key: Hashable, said: str) -> None:
        """Take a piece of a refusal, which stands in place of the text."""
        self.has_refused = True
        self.say(key, said)

    def think(self, key: Hashable, thought: str, part: object) -> None:
        """Take a piece of the reasoning that is shown, of a numbered part of it."""
        if self._shown.setdefault(key, part) != part:
            self._shown[key] = part
            thought = f"\n\n{thought}"
        self._emit(ReasoningDelta(thought))

    def write_arguments(self, key: Hashable, arguments: str) -> None:
        """Take a piece of a call's arguments."""
        call = self._call_of(key, {})
        call.has_arguments = True
        self._emit(ToolCallDelta(call.index, arguments=arguments))

    def end(self, key: Hashable, item: Mapping[str, Any]) -> None:
        """Close an item, which is now known as a whole."""
        kind = text(item.get("type"))
        if kind == "function_call":
            self._end_call(key, item)
        elif kind == "message":
            self._mark_phase(key, item)
            if key not in self._shown:
                self._say_whole(key, item)
        elif kind:
            if kind == "reasoning" and key not in self._shown:
                self._think_whole(key, item)
            self._place_calls()
            self._emit(PartDelta(_part(kind, dict(item))))

    # ---- calls -----------------------------------------------------------------------------------

    def _call_of(self, key: Hashable, item: Mapping[str, Any]) -> _Call:
        call = self._calls.get(key)
        if call is None:
            index = len(self._calls)
            id = text(item.get("call_id")) or text(item.get("id"))
            call = self._calls[key] = _Call(index, id or f"call_{self._request_id}_{index}")
            self._emit(ToolCallDelta(index, call.id, text(item.get("name"))))
        return call

    def _end_call(self, key: Hashable, item: Mapping[str, Any]) -> None:
        call = self._call_of(key, item)
        arguments = text(item.get("arguments"))
        if arguments and not call.has_arguments:
            self._emit(ToolCallDelta(call.index, arguments=arguments))
        if call.is_ended:
            return
        call.is_ended = True
        kept = {name: value for name, value in item.items() if value is not None}
        has_more = not kept.keys() <= _OF_A_CALL
        for name in _NOT_KEPT:
            kept.pop(name, None)
        self._unplaced_calls.append(_part(PLACE, {**kept, "call_id": call.id}))
        if has_more:
            self._place_calls()

    def _place_calls(self) -> None:
        for mark in self._unplaced_calls:
            self._emit(PartDelta(mark))
        self._unplaced_calls.clear()

    # ---- messages and reasoning ------------------------------------------------------------------

    def _mark_phase(self, key: Hashable, item: Mapping[str, Any]) -> None:
        phase, mark = text(item.get("phase")), (PHASE, key)
        # A mark behind the text would count for the next one.
        if phase and mark not in self._shown and key not in self._shown:
            self._shown[mark] = None
            self._place_calls()
            self._emit(PartDelta(_part(PHASE, {"phase": phase})))

    def _say_whole(self, key: Hashable, item: Mapping[str, Any]) -> None:
        for part in _list(item.get("content")):
            if refusal := text(field(part, "refusal")):
                self.refuse(key, refusal)
            elif said := text(field(part, "text")):
                self.say(key, said)

    def _think_whole(self, key: Hashable, item: Mapping[str, Any]) -> None:
        for place, part in enumerate(_list(item.get("summary")) or _list(item.get("content"))):
            if thought := text(field(part, "text")):
                self.think(key, thought, place)


class _Call:
    """A call whose pieces are arriving."""

    def __init__(self, index: int, id: str) -> None:
        self.index = index
        self.id = id
        self.has_arguments = False
        self.is_ended = False


def _part(kind: str, data: dict[str, Any]) -> OpaquePart:
    return OpaquePart(origin=ORIGIN, kind=kind, data=data)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
