"""Cuts the middle out of the longest texts of a conversation."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..messages import LLMMessage, Part, TextPart

# What is left of a text at least; it would not tell anything otherwise.
_SHORTEST_CHARACTERS = 100


def shortened_texts(
    conversation: tuple[LLMMessage, ...], fits: Callable[[tuple[LLMMessage, ...]], bool]
) -> tuple[LLMMessage, ...]:
    """The conversation with its texts cut to the greatest length with which it fits.

    System messages and the last message of the user stay as they are; so do tool calls.  If it
    does not even fit then, the result has the shortest texts.
    """
    users = [i for i, message in enumerate(conversation) if message.role == "user"]
    last = users[-1] if users else len(conversation) - 1

    def cut_to(length: int) -> tuple[LLMMessage, ...]:
        return tuple(
            message if message.role == "system" or index == last else _cut(message, length)
            for index, message in enumerate(conversation)
        )

    low = _SHORTEST_CHARACTERS
    best = cut_to(low)
    if not fits(best):
        return best
    high = max((len(text) for message in conversation for text in _texts(message)), default=low)
    while low < high:
        middle = (low + high + 1) // 2
        result = cut_to(middle)
        if fits(result):
            low, best = middle, result
        else:
            high = middle - 1
    return best


def _texts(message: LLMMessage) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text for part in message.content if isinstance(part, TextPart)]


def _cut(message: LLMMessage, length: int) -> LLMMessage:
    """``message`` with no text longer than ``length``; itself if there is none."""
    if all(len(text) <= length for text in _texts(message)):
        return message
    content: str | tuple[Part, ...]
    if isinstance(message.content, str):
        content = _shorter(message.content, length)
    else:
        content = tuple(
            msgspec.structs.replace(part, text=_shorter(part.text, length))
            if isinstance(part, TextPart)
            else part
            for part in message.content
        )
    return msgspec.structs.replace(message, content=content)


def _shorter(text: str, length: int) -> str:
    """``text`` in ``length`` characters: its beginning, a remark, its end."""
    if len(text) <= length:
        return text
    remark = f"\n[… {len(text) - length} characters left out …]\n"
    kept = max(2, length - len(remark))
    end = kept // 2
    return text[: kept - end] + remark + text[-end:]
