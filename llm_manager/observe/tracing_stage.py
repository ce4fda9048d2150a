"""The part of `Tracing` that runs in the caller's task: a policy stage that starts spans.

The span of a request is the current one while the first piece of the answer is awaited, because
what is sent is sent then.  It never is while the caller has the turn: a context variable that is
set inside a generator is set for whoever reads it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from time import perf_counter
from typing import cast

import msgspec

from ..manager import LLMProviderManager
from ..messages import Delta, LLMRequest, PartDelta, ReasoningDelta, TextDelta, ToolCallDelta
from ..policy import Exchange, Host
from ..provider import BaseLLMProvider
from .genai import TIME_PER_OUTPUT_CHUNK, Call, call_of, measured
from .trace_provider import TraceProvider, TraceSpan

_CHUNKS = (TextDelta, ReasoningDelta, ToolCallDelta, PartDelta)

StartSpan = Callable[
    [LLMRequest, Call, BaseLLMProvider | None, "TracingStage"], "RunningRequest | None"
]


class RunningRequest(msgspec.Struct, eq=False):
    """A request that has a span.

    Attributes:
        span: the span.
        call: what it has in common with others.
        request: what is asked.
        provider: who is asked; None if that is not known any more.
        deltas: what has come of the answer, if it is to be kept.
        stage: which stage has begun it; others that it goes through leave it alone.
    """

    span: TraceSpan
    call: Call
    request: LLMRequest
    provider: BaseLLMProvider | None
    deltas: list[Delta] | None
    stage: TracingStage


class _Answer:
    """An answer whose first piece is awaited with its span as the current one.

    The later pieces come by the answer's own method and cost nothing more.
    """

    __slots__ = ("__anext__", "_deltas", "_span", "_trace_provider")

    __anext__: Callable[[], Awaitable[Delta]]

    def __init__(
        self, deltas: AsyncGenerator[Delta, None], trace_provider: TraceProvider, span: TraceSpan
    ) -> None:
        self._deltas, self._trace_provider, self._span = deltas, trace_provider, span
        self.__anext__ = self._first

    def __aiter__(self) -> _Answer:
        return self

    async def _first(self) -> Delta:
        advance = self.__anext__ = self._deltas.__anext__
        with self._trace_provider.use(self._span):
            return await advance()

    async def aclose(self) -> None:
        self.__anext__ = self._deltas.__anext__
        await self._deltas.aclose()


class TracingStage:
    """Starts a span for each request of what it is added to.

    Args:
        emitter: the provider, or the manager of the providers.
        start: makes the span; None is given for a request that is not traced.
        trace_provider: whose spans they are.
        chunk_times: measure the time between pieces of an answer.
    """

    around_parts = True
    outermost = True
    only_announced = True  # whose ends would not be heard otherwise

    def __init__(
        self,
        emitter: BaseLLMProvider | LLMProviderManager,
        start: StartSpan,
        trace_provider: TraceProvider,
        *,
        chunk_times: bool,
    ) -> None:
        self._emitter = emitter
        self._start = start
        self._trace_provider = trace_provider
        self._chunk_times = chunk_times

    def provider(self, id: str) -> BaseLLMProvider | None:
        """The provider of that id, if it is one of those, or a part of one."""
        if not isinstance(self._emitter, LLMProviderManager):
            return _found([self._emitter], id)
        providers = self._emitter.providers
        return providers.get(id) or _found(providers.values(), id)

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        start, kind = self._start, host.kind
        # A member that no manager holds may have the id of somebody else.
        provider = getattr(host, "_provider", None) or self.provider(host.status.provider_id)

        def traced(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            address = getattr(provider, "base_url", None)
            call = call_of(kind, request.operation, request.model, address)
            running = start(request, call, provider, self)
            if running is None or running.stage is not self:
                return exchange(request)
            deltas = cast(
                AsyncGenerator[Delta, None],
                _Answer(exchange(request), self._trace_provider, running.span),
            )
            if self._chunk_times:
                deltas = _timed(deltas, self._trace_provider, call)
            return deltas if running.deltas is None else _kept(deltas, running.deltas)

        return traced


def _found(providers: Iterable[BaseLLMProvider], id: str) -> BaseLLMProvider | None:
    for provider in providers:
        found = provider if provider.id == id else _found(getattr(provider, "members", ()), id)
        if found is not None:
            return found
    return None


def base_url_of(provider: BaseLLMProvider | None) -> str | None:
    """Where a provider's service is; None if it has no address."""
    return getattr(provider, "base_url", None)


async def _timed(
    deltas: AsyncGenerator[Delta, None], trace_provider: TraceProvider, call: Call
) -> AsyncGenerator[Delta, None]:
    """The same pieces; the time from one to the next is measured."""
    record, attributes, last_s = trace_provider.record, measured(call).chunks, None
    async with aclosing(deltas):
        async for delta in deltas:
            if isinstance(delta, _CHUNKS):
                now_s = perf_counter()
                if last_s is not None:
                    record(TIME_PER_OUTPUT_CHUNK, now_s - last_s, attributes)
                last_s = now_s
            yield delta


async def _kept(
    deltas: AsyncGenerator[Delta, None], kept: list[Delta]
) -> AsyncGenerator[Delta, None]:
    """The same pieces; they are kept."""
    kept.clear()  # of a first round, which did not become the answer
    async with aclosing(deltas):
        async for delta in deltas:
            kept.append(delta)
            yield delta
