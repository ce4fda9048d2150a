"""What each service around a provider costs, alone, against none.

The provider answers from memory, so that nothing but the path of a request is measured.  Each
service and the bare path take turns in one process; what counts is the median of the differences.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from llm_manager import (
    BaseLLMProvider,
    FinishDelta,
    LLMModelInfo,
    MetaDelta,
    TextDelta,
    Usage,
    UsageDelta,
)
from llm_manager.messages import Delta, LLMRequest

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
    differences = []
    await _run(bare, requests // 4 + 1, pieces)
    await _run(with_it, requests // 4 + 1, pieces)
    for turn in range(turns):
        order = (bare, with_it) if turn % 2 else (with_it, bare)
        spent = {provider: await _run(provider, requests, pieces) for provider in order}
        differences.append(spent[with_it] - spent[bare])
    await bare.close()
    await with_it.close()
    return statistics.median(differences)


async def _run(provider: BaseLLMProvider, requests: int, pieces: int) -> float:
    options = {"max_tokens": pieces, "conversation_id": "bench", "temperature": 0.7}
    gc.collect()
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
    per_request = asyncio.run(cost_us(put, 300 if quick else 1000, 1, turns))
    long_answer = asyncio.run(cost_us(put, 3 if quick else 8, 2_000, turns))
    return per_request, (long_answer - per_request) / 2_000
