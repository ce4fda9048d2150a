"""An answer as it is kept: its pieces, in their order, as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..errors import DependencyMissingError
from ..messages import (
    Delta,
    FinishDelta,
    KeepAliveDelta,
    LLMRequest,
    MetaDelta,
    PartDelta,
    RawDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageDelta,
    VectorsDelta,
)
from ..schemas import json_in, validator_of

# The place of a type in this row is what is written; see `cache_key.FORMAT`.
_TYPES: tuple[type[Delta], ...] = (
    TextDelta,
    ReasoningDelta,
    ToolCallDelta,
    PartDelta,
    VectorsDelta,
    UsageDelta,
    FinishDelta,
    MetaDelta,
    RawDelta,
)
_NUMBER = {kind: number for number, kind in enumerate(_TYPES)}
_DECODE = [msgspec.msgpack.Decoder(kind).decode for kind in _TYPES]
_encoder = msgspec.msgpack.Encoder()
_pieces = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]])


def packed(deltas: Iterable[Delta]) -> bytes | None:
    """``deltas`` as bytes, signs of life left out; None if one of them cannot be kept."""
    try:
        return _encoder.encode(
            [
                (_NUMBER[kind], delta)
                for delta in deltas
                if (kind := type(delta)) is not KeepAliveDelta
            ]
        )
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError):
        return None


def unpacked(body: bytes) -> list[Delta] | None:
    """The deltas in ``body``; None if it is damaged."""
    try:
        return [_DECODE[number](piece) for number, piece in _pieces.decode(body)]
    except (msgspec.MsgspecError, IndexError, UnicodeError, ValueError):
        return None


def is_worth_keeping(request: LLMRequest, deltas: Sequence[Delta]) -> bool:
    """Whether an answer that came to its end is to be given again.

    One that was filtered is not, nor one that does not say how it ended, nor one that was cut off,
    unless the caller chose its length.  One that comes from another cache would grow older than
    anybody allowed.
    """
    if not deltas:
        return False
    first = deltas[0]
    if type(first) is MetaDelta and first.cached:
        return False
    if request.operation == "embed":
        return True
    for delta in reversed(deltas):
        if type(delta) is FinishDelta:
            if delta.reason == "length":
                return request.options.max_tokens is not None
            return delta.reason in ("stop", "tool_calls")
    return False


def follows(schema: dict[str, Any], deltas: Sequence[Delta]) -> bool:
    """Whether an answer is JSON, and follows ``schema`` as far as that can be checked here.

    One that does not would fail for ever.  It takes long enough to do it in a thread.
    """
    if any(type(delta) is ToolCallDelta for delta in deltas):
        return True
    text = "".join(delta.text for delta in deltas if type(delta) is TextDelta)
    try:
        value = msgspec.json.decode(json_in(text))
        return not validator_of(schema).problems(value)
    except DependencyMissingError:
        return True
    except (ValueError, RecursionError):
        return False
