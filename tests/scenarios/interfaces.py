"""The two ways to use a provider: from an event loop, and from threads without one."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from llm_manager import run_sync

PATIENCE_S = 15.0
"""What has not happened by then will not."""


class Interface(Protocol):
    """One of the two ways to use a provider."""

    async def call(self, work: Awaitable[Any]) -> Any:
        """Do ``work`` and wait for its end."""

    def begin(self, work: Callable[[], Awaitable[Any]]) -> concurrent.futures.Future[Any]:
        """Do ``work`` beside what follows."""

    async def result(self, begun: concurrent.futures.Future[Any]) -> Any:
        """Wait for the end of what was begun."""


class Asynchronous:
    """A program with an event loop."""

    async def call(self, work: Awaitable[Any]) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await work

    def begin(self, work: Callable[[], Awaitable[Any]]) -> concurrent.futures.Future[Any]:
        async def run() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), asyncio.get_running_loop())

    async def result(self, begun: concurrent.futures.Future[Any]) -> Any:
        return await self.call(asyncio.wrap_future(begun))


class Synchronous:
    """A program of threads without a loop; nothing here ever waits by ``await``."""

    def __init__(self, pool: concurrent.futures.Executor) -> None:
        self._pool = pool

    async def call(self, work: Awaitable[Any]) -> Any:
        return run_sync(work, PATIENCE_S)

    def begin(self, work: Callable[[], Awaitable[Any]]) -> concurrent.futures.Future[Any]:
        return self._pool.submit(lambda: run_sync(work(), PATIENCE_S))

    async def result(self, begun: concurrent.futures.Future[Any]) -> Any:
        return begun.result(PATIENCE_S)


def without_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise AssertionError("the synchronous interface has waited for a loop")
