"""What each service around a provider costs, alone, against none.

The provider answers from memory, so that nothing but the path of a request is measured.  Each
service and the bare path take turns in one process; what counts is the difference of the least
that each took, since whatever else the machine does can only add.
"""

from __future__ import annotations

import asyncio
import gc
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
    per_request = asyncio.run(cost_us(put, 20, 1, turns * 40))
    long_answer = asyncio.run(cost_us(put, 1, 2_000, turns * 4))
    return per_request, (long_answer - per_request) / 2_000
