"""One request passed on to one member: what it is asked, and what is done to its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import inf
from time import monotonic

import msgspec

from ..errors import RequestTimeoutError
from ..messages import (
    Delta,
    KeepAliveDelta,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    MetaDelta,
    OpaquePart,
    RawDelta,
    UsageDelta,
)
from ..portability.conversion import portable
from ..provider import BaseLLMProvider
from ..stream import LLMStream

# What comes before the answer itself, and is worth nothing if that does not follow.
_PRELUDE = frozenset({MetaDelta, RawDelta, UsageDelta})


def stream_of(
    member: BaseLLMProvider, model: str | None, request: LLMRequest, began_s: float
) -> LLMStream:
    """The stream of ``member`` for a request to a composite; nothing is sent yet.

    Args:
        model: the member's model; None: its active one.
        request: the request to the composite.
        began_s: when that one began, on the monotonic clock; its ``total_s`` holds over all parts.

    Raises:
        InvalidParameterError, UnsupportedFeatureError: the member does not take it.
        RequestTimeoutError: no time is left.
    """
    messages = request.messages
    if any(map(_may_not_fit, messages)):
        messages = portable(messages, member, model=model)
    return member._stream_for(
        model,
        _options_of(request.options, began_s),
        request.operation,
        None,
        parent_id=request.id,
        messages=messages,
        prefix=request.prefix,
        suffix=request.suffix,
        texts=request.texts,
    )


async def answer_of(member: BaseLLMProvider, stream: LLMStream) -> AsyncGenerator[Delta, None]:
    """The pieces of a member's answer, who has given it first.

    Nothing but signs of life comes before the first piece of the answer proper.
    """
    who = MetaDelta(stream.request.model, None, member.id)
    async with aclosing(stream.deltas()) as deltas:
        prelude: list[Delta] = []
        async for delta in deltas:
            if type(delta) is MetaDelta:
                who = _signed(delta, who)
            elif type(delta) in _PRELUDE:
                prelude.append(delta)
            elif type(delta) is KeepAliveDelta:
                yield delta
            else:
                prelude.append(delta)
                break
        yield who
        for delta in prelude:
            yield delta
        async for delta in deltas:
            yield _signed(delta, who) if type(delta) is MetaDelta else delta


def is_over(request: LLMRequest, began_s: float) -> bool:
    """Whether the whole time for a request has passed; a member may have less of its own."""
    timeouts = request.options.timeouts
    total_s = None if timeouts is None else timeouts.total_s
    return total_s is not None and monotonic() - began_s >= total_s


def _signed(delta: MetaDelta, who: MetaDelta) -> MetaDelta:
    """``delta`` with the provider that answers; of nested composites it is the innermost."""
    return MetaDelta(
        delta.model or who.model,
        delta.response_id or who.response_id,
        delta.provider_id or who.provider_id,
        delta.cached or who.cached,
    )


def _may_not_fit(message: LLMMessage) -> bool:
    """Whether another provider than the one that it comes from might refuse it."""
    if message.tool_calls or message.tool_call_id is not None:
        return True
    return not isinstance(message.content, str) and any(
        isinstance(part, OpaquePart) for part in message.content
    )


def _options_of(options: LLMRequestOptions, began_s: float) -> LLMRequestOptions:
    """The options for a part: in the time that is left, and nobody's place is taken."""
    timeouts = options.timeouts
    if timeouts is not None and timeouts.total_s not in (None, inf):
        timeouts = msgspec.structs.replace(timeouts, total_s=_left_s(timeouts.total_s, began_s))
    elif options.supersede_key is None:
        return options
    return msgspec.structs.replace(options, supersede_key=None, timeouts=timeouts)


def _left_s(total_s: float, began_s: float) -> float:
    left_s = total_s - (monotonic() - began_s)
    if left_s > 0:
        return left_s
    raise RequestTimeoutError(
        f"the request took longer than {total_s:g} s in total",
        code="total_timeout",
        retryable=False,
        hint="raise timeouts.total_s",
    )
