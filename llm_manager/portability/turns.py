"""Which tool result belongs to which call, and how both are brought into order.

Services refuse a call without a result, a result without a call, and anything between the two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

import msgspec

from ..messages import LLMMessage, TextPart, ToolCall

NO_RESULT = "(There is no result: this call was not carried out.)"

# What services accept that do not ask for a form of their own: OpenAI takes 40 characters,
# Anthropic these letters.  An id that is made here is so short that even Mistral takes it.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_MADE_ID_LENGTH = 9


def unanswered_calls(messages: Sequence[LLMMessage]) -> Iterator[tuple[int, ToolCall]]:
    """The calls to which no later message is the result, with the index of their message."""
    for place, results in _results(messages).items():
        for call, result in zip(messages[place].tool_calls, results, strict=True):
            if result is None:
                yield place, call


def orphaned_results(messages: Sequence[LLMMessage]) -> list[int]:
    """The indexes of the results that belong to no call before them."""
    found = {result for results in _results(messages).values() for result in results}
    return [
        place
        for place, message in enumerate(messages)
        if message.role == "tool" and place not in found
    ]


def in_order(messages: Sequence[LLMMessage]) -> list[LLMMessage]:
    """The messages with each result right behind its call, under an id that both share.

    An id keeps its form where that is plain and it was not used before.  A call without a result
    gets one that says so; a result without a call becomes a message of the user.
    """
    results = _results(messages)
    orphans = set(orphaned_results(messages))
    used: set[str] = set()
    ordered: list[LLMMessage] = []
    for place, message in enumerate(messages):
        if place in orphans:
            ordered.append(as_note(message))
        elif message.role != "tool":
            ids = [_new_id(call.id, used) for call in message.tool_calls]
            ordered.append(_with_ids(message, ids))
            answers = [None if r is None else messages[r] for r in results.get(place, ())]
            ordered += [_answer(a, id) for a, id in zip(answers, ids, strict=True)]
    return ordered


def as_note(result: LLMMessage) -> LLMMessage:
    """A result as a message of the user, with whatever else is in it."""
    head = TextPart(text="Result of an earlier tool call:\n")
    given = result.content
    parts = (TextPart(text=given),) if isinstance(given, str) else given
    return LLMMessage(role="user", content=(head, *parts), cache=result.cache)


def _results(messages: Sequence[LLMMessage]) -> dict[int, list[int | None]]:
    """For each message with calls: the indexes of their results, None where there is none."""
    waiting: dict[str, list[tuple[int, int]]] = {}
    results: dict[int, list[int | None]] = {}
    for place, message in enumerate(messages):
        if message.tool_calls:
            results[place] = [None] * len(message.tool_calls)
            # Some servers number their calls anew in each answer: a result is that of the last.
            for id in {call.id for call in message.tool_calls}:
                waiting[id] = []
            for number, call in enumerate(message.tool_calls):
                waiting[call.id].append((place, number))
        elif message.role == "tool" and waiting.get(message.tool_call_id or ""):
            asked_at, number = waiting[message.tool_call_id or ""].pop(0)
            results[asked_at][number] = place
    return results


def _new_id(id: str, used: set[str]) -> str:
    """``id``, or an id made of it, that is plain and not in ``used``; it is added there."""
    new, repeated = id, 0
    while new in used or not _PLAIN_ID.fullmatch(new):
        digest = hashlib.blake2s(f"{id}#{repeated}".encode(errors="replace")).hexdigest()
        new, repeated = digest[:_MADE_ID_LENGTH], repeated + 1
    used.add(new)
    return new


def _with_ids(message: LLMMessage, ids: list[str]) -> LLMMessage:
    if ids == [call.id for call in message.tool_calls]:
        return message
    calls = zip(message.tool_calls, ids, strict=True)
    renamed = tuple(msgspec.structs.replace(call, id=id) for call, id in calls)
    return msgspec.structs.replace(message, tool_calls=renamed)


def _answer(result: LLMMessage | None, id: str) -> LLMMessage:
    if result is None:
        return LLMMessage.tool(id, NO_RESULT)
    if result.tool_call_id == id:
        return result
    return msgspec.structs.replace(result, tool_call_id=id)
