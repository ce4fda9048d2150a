"""What each service around a provider costs, alone, against none.

The provider answers from memory, so that nothing but the path of a request is measured.  Each
service and the bare path take turns in one process; what counts is the difference of the least
that each took, since whatever else the machine does can only add.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from llm_manager import (
    BaseLLMProvider,
    BudgetPolicy,
    CachePolicy,
    CostTracker,
    EventEmitter,
    FinishDelta,
    InMemoryTraceProvider,
    LLMModelInfo,
    MetaDelta,
    ModelMetrics,
    PriceBook,
    ProviderHealth,
    RecentRequests,
    TextDelta,
    TokenManager,
    Tracing,
    Usage,
    UsageDelta,
    log_events,
)
from llm_manager.events import RequestFinished, RequestStarted
from llm_manager.messages import Delta, LLMRequest

REQUEST_GOAL_US, PIECE_GOAL_US = 5.0, 1.0
Put = Callable[[BaseLLMProvider], Any]
_PIECE = TextDelta("word ")


class Memory(BaseLLMProvider):
    """Answers at once with as many pieces as ``max_tokens`` says."""

    kind = "memory"
    capabilities = frozenset({"chat", "completion"})

    async def _open(self) -> None: ...

    async def _close(self) -> None: ...

    async def _list_models(self) -> list[LLMModelInfo]:
        return [LLMModelInfo(id="m")]

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield MetaDelta(request.model, "id")
        for _ in range(request.options.max_tokens or 1):
            yield _PIECE
        yield FinishDelta("stop", "stop")
        yield UsageDelta(Usage(prompt_tokens=10, completion_tokens=1))


async def cost_us(put: Put | None, requests: int, pieces: int, turns: int) -> float:
    """CPU microseconds that one request costs more with a service than without."""
    bare, with_it = Memory(policies=()), Memory(policies=())
    await bare.connect()
    await with_it.connect()
    if put is not None:
        put(with_it)
    least: dict[BaseLLMProvider, float] = {}
    await _run(bare, requests, pieces)
    await _run(with_it, requests, pieces)
    for turn in range(turns):
        for provider in (bare, with_it) if turn % 2 else (with_it, bare):
            spent = await _run(provider, requests, pieces)
            least[provider] = min(spent, least.get(provider, spent))
    await bare.close()
    await with_it.close()
    return least[with_it] - least[bare]


async def _run(provider: BaseLLMProvider, requests: int, pieces: int) -> float:
    options = {"max_tokens": pieces, "conversation_id": "bench", "temperature": 0.7}
    gc.disable()
    try:
        began = time.process_time()
        for _ in range(requests):
            await provider.generate_completion("m", "hello", options=options)
        return (time.process_time() - began) / requests * 1e6
    finally:
        gc.enable()


def measure(put: Put | None, *, quick: bool) -> tuple[float, float]:
    """Microseconds per request, and per piece of an answer."""
    turns = 5 if quick else 15
    # So many that what is done for several requests together falls into every turn.
    per_request = asyncio.run(cost_us(put, 128, 1, turns * 10))
    long_answer = asyncio.run(cost_us(put, 1, 2_000, turns * 4))
    return per_request, (long_answer - per_request) / 2_000


def request_us(*, quick: bool) -> float:
    """CPU microseconds of a whole request from memory with the usual policies, to compare with."""

    async def least() -> float:
        async with Memory() as provider:
            await _run(provider, 300, 1)
            return min([await _run(provider, 128, 1) for _ in range(20 if quick else 100)])

    return asyncio.run(least())


# ---- the services --------------------------------------------------------------------------------


def _prices() -> PriceBook:
    return PriceBook({"*/*": {"input_usd": 1.0, "output_usd": 2.0}}, public=False)


class Silent:
    """A tracing backend and its only span, which keeps nothing: what is left is this library's."""

    recording = True

    def start_span(self, *args: Any, **facts: Any) -> Silent:
        return self

    def use(self, span: object) -> contextlib.nullcontext[None]:
        return _NOTHING

    def record(self, *args: Any) -> None: ...

    set_attributes = add_event = set_error = end = record


_NOTHING = contextlib.nullcontext()

SERVICES: dict[str, Put] = {
    "metrics": lambda p: ModelMetrics().attach(p),
    "health": lambda p: ProviderHealth().attach(p),
    "recent requests": lambda p: RecentRequests().attach(p),
    "recent requests with content": lambda p: RecentRequests(content=True).attach(p),
    "cost": lambda p: CostTracker(_prices()).attach(p),
    "token manager": lambda p: TokenManager(p, "m", max_tokens=10**9).attach(p),
    "event log, quiet": log_events,
    "tracing, into nothing": lambda p: Tracing(Silent()).attach(p),
    "tracing, in memory": lambda p: Tracing(InMemoryTraceProvider()).attach(p),
    "budget in tokens": lambda p: p.add_policy(BudgetPolicy(max_tokens_per_day=10**12)),
    "budget in dollars": lambda p: p.add_policy(
        BudgetPolicy(max_usd_per_day=10**9, prices=_prices())
    ),
    "cache that may not keep the answer": lambda p: p.add_policy(CachePolicy()),
    "cache that keeps the answer": lambda p: p.add_policy(CachePolicy(only_deterministic=False)),
}


# ---- a million requests --------------------------------------------------------------------------


def memory_kib(requests: int) -> tuple[int, int]:
    """Resident memory in KiB after a tenth of ``requests`` and after all, with all listeners on.

    The events are those of three providers, 300 models and ever new conversations.
    """
    emitter = EventEmitter()
    kept = [ModelMetrics(), ProviderHealth(), CostTracker(_prices()), RecentRequests()]
    for listener in kept:
        listener.attach(emitter)
    after_a_tenth = 0
    for number in range(requests):
        _one_request(emitter, number)
        if number == requests // 10:
            after_a_tenth = _resident_kib()
    return after_a_tenth, _resident_kib()


def _one_request(emitter: EventEmitter, number: int) -> None:
    about: dict[str, Any] = {
        "provider_id": f"provider-{number % 3}",
        "request_id": f"req-{number}",
        "model": f"model-{number % 300}",
        "operation": "chat",
        "kind": "memory",
        "conversation_id": f"conversation-{number}",
    }
    emitter.publish(RequestStarted(**about))
    emitter.publish(
        RequestFinished(
            **about,
            outcome="ok",
            attempts=1,
            duration_s=0.001 * (number % 5000),
            first_token_s=0.0001 * (number % 5000),
            usage=Usage(prompt_tokens=number % 4000, completion_tokens=number % 900),
        )
    )


def _resident_kib() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4


logging.getLogger("llm_manager").setLevel(logging.WARNING)
