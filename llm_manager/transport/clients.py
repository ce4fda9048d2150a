"""One client per event loop.

An HTTP client belongs to the loop that its connections were opened on: used from another one it
breaks, kept after its loop it leaks descriptors.  So each loop gets its own, which is closed
together with the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .._threads import reset_after_fork
from ..errors import LLMError, ProviderConnectionError

if TYPE_CHECKING:
    import httpx2

    from .pool import Pool

log = logging.getLogger("llm_manager.transport")

# Loops run in threads of their own; one that is stuck must not hold up the closing.
_CLOSING_ELSEWHERE_S = 1.0

NewClient: TypeAlias = "Callable[[], tuple[httpx2.AsyncClient, Pool | None]]"


class HeldClient(msgspec.Struct, eq=False):
    """The client of one loop; ``pool`` is None for a caller's own client, which is not closed.

    Attributes:
        idle_is_dead: whether connections that wait for their next use have to be closed first.
    """

    client: httpx2.AsyncClient
    pool: Pool | None
    guard: AsyncGenerator[None, None]
    idle_is_dead: bool = False

    async def close_forgotten(self) -> None:
        """Close what `ClientPerLoop.forget_idle` has called dead."""
        if self.idle_is_dead:
            self.idle_is_dead = False
            if self.pool is not None:
                await self.pool.close_idle()


class ClientPerLoop:
    """The clients of one transport.

    Args:
        prepare: called once, in a thread, before the first client is made; returns what makes one.
    """

    def __init__(self, prepare: Callable[[], NewClient]) -> None:
        self._prepare = prepare
        self._new_client: NewClient | None = None
        self._held: dict[asyncio.AbstractEventLoop, HeldClient] = {}
        self._of_parents: list[dict[asyncio.AbstractEventLoop, HeldClient]] = []
        self.closed = False
        reset_after_fork(self)

    async def here(self) -> HeldClient:
        """The client of the running loop.

        Raises:
            ProviderConnectionError: `aclose` was called.
            LLMError: what ``prepare`` raises.
        """
        if self.closed:
            raise closed_error()
        held = self._held.get(asyncio.get_running_loop())
        return await self._first_here() if held is None else held

    def forget_idle(self) -> None:
        """Connections that wait for their next use are dead; safe from any thread."""
        for held in list(self._held.values()):
            held.idle_is_dead = True

    async def aclose(self) -> None:
        """Close all clients, also those of other loops.  Idempotent."""
        self.closed = True
        here = asyncio.get_running_loop()
        elsewhere = []
        for loop, held in list(self._held.items()):
            if loop is here:
                await held.guard.aclose()
            elif closing := _run_on(loop, _finish(held.guard)):
                elsewhere.append(closing)
        self._held.clear()
        if elsewhere:
            await asyncio.wait(elsewhere, timeout=_CLOSING_ELSEWHERE_S)

    def _after_fork(self) -> None:
        """Begin anew: those connections are the parent's, which goes on using them.

        They are kept for ever: closing or collecting them here would write to them, or take them
        out of the epoll sets that parent and child share.
        """
        self._of_parents.append(self._held)
        self._held = {}

    async def _first_here(self) -> HeldClient:
        loop = asyncio.get_running_loop()
        self._drop_dead_loops()
        if self._new_client is None:
            self._new_client = await asyncio.to_thread(self._prepare)
        if self.closed:
            raise closed_error()
        if loop in self._held:  # another task on this loop was faster
            return self._held[loop]
        client, pool = self._new_client()
        held = self._held[loop] = HeldClient(client, pool, self._guard(loop, client, pool))
        # Once started, the guard is known to the loop, which closes it when it ends.
        await anext(held.guard)
        return held

    async def _guard(
        self, loop: asyncio.AbstractEventLoop, client: httpx2.AsyncClient, pool: Pool | None
    ) -> AsyncGenerator[None, None]:
        """Lives as long as the client does; `asyncio.run` closes it with its loop."""
        try:
            yield
        finally:
            self._held.pop(loop, None)
            if pool is not None:
                await client.aclose()
                # A socket is closed one turn of the loop after it was told to.
                await asyncio.sleep(0)

    def _drop_dead_loops(self) -> None:
        for loop in [loop for loop in self._held if loop.is_closed()]:
            log.debug("a loop was closed without closing its generators; its client is dropped")
            self._held.pop(loop, None)


def closed_error() -> LLMError:
    """The error of requests after the end."""
    return ProviderConnectionError("the transport is closed", code="closed", retryable=False)


async def _finish(guard: AsyncGenerator[None, None]) -> None:
    await guard.aclose()


def _run_on(
    loop: asyncio.AbstractEventLoop, work: Coroutine[None, None, None]
) -> asyncio.Future[None] | None:
    """``work``, running on another loop; None if that one stands still and will end by itself."""
    if loop.is_running():
        try:
            return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
        except RuntimeError:  # closed in this very moment
            log.debug("a loop was closed while a client on it was to be closed")
    work.close()
    return None
