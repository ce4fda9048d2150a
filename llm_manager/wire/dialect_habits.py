"""What some servers of the OpenAI dialect insist on, and most do not care about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import get_args

import msgspec

from ..errors import UnsupportedFeatureError
from ..messages import LLMMessage, ReasoningEffort

_ALPHANUMERIC_9 = re.compile(r"[A-Za-z0-9]{9}")
_EFFORTS: tuple[str, ...] = get_args(ReasoningEffort)


def alphanumeric_9(id: str) -> str:
    """``id``, or nine letters and digits that always stand for it."""
    if _ALPHANUMERIC_9.fullmatch(id):
        return id
    return sha256(id.encode(errors="surrogatepass")).hexdigest()[:9]


def with_one_system_message(messages: Sequence[LLMMessage]) -> list[LLMMessage]:
    """``messages`` with the text of all system messages in one, at the beginning."""
    rules = [message for message in messages if message.role == "system"]
    if len(rules) < 2 and (not rules or messages[0] is rules[0]):
        return list(messages)
    text = "\n\n".join(message.text for message in rules)
    first = msgspec.structs.replace(rules[0], content=text)
    return [first, *(message for message in messages if message.role != "system")]


def nearest_effort(effort: str, accepted: Sequence[str]) -> str:
    """The accepted word for ``effort``: itself, the next higher one, or the highest.

    Raises:
        UnsupportedFeatureError: the reasoning shall be switched off, and cannot be.
    """
    if effort in accepted:
        return effort
    if effort == "none":
        raise UnsupportedFeatureError(
            "this server cannot switch the reasoning off", hint="leave reasoning_effort out"
        )
    thinking = [word for word in accepted if word != "none"]
    rank = _EFFORTS.index(effort) if effort in _EFFORTS else len(_EFFORTS)
    higher = (word for word in thinking if word in _EFFORTS and _EFFORTS.index(word) > rank)
    return next(higher, thinking[-1])
