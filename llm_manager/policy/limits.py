"""How many requests of one provider run at once, and who is next when there are too many.

There are three lanes, by ``priority`` of the request: ``interactive`` for what somebody waits for
at the cursor (autocomplete), ``normal`` for a conversation, ``background`` for what nobody waits
for (indexing).  In a lane, who came first goes first.  Between them:

* A free place goes to the first lane in which somebody waits.  A lane that was passed over four
  times in a row gets the next one: nobody starves.
* Where there are two places or more, ``interactive`` and ``background`` together never have all
  of them: however fast somebody types, a conversation finds a place that no autocomplete holds.
  The last place is kept by counting what runs in those lanes, not by keeping one place free:
  beside one long answer, an autocomplete still runs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

from ..checks import check_number
from ..events import RequestQueued
from ..messages import Delta, LLMRequest
from . import Exchange, Host
from .places import Place, Places


class ConcurrencyLimit:
    """Lets so many requests of a provider run at once; the others wait, visibly.

    A request that has to wait is announced as ``requestQueued`` and counted in the snapshot's
    ``queued``; cancelling it frees its place in the queue.  It waits outside the clocks of
    `DeadlinePolicy`.

    Args:
        max_running: requests that run at once, at least 1.
        max_waiting: requests that wait, at least 0; one more raises `QueueFullError`.

    Raises:
        InvalidParameterError: a number cannot be.
    """

    def __init__(self, max_running: int = 100, max_waiting: int = 1000) -> None:
        check_number("max_running", max_running, low=1, whole=True)
        check_number("max_waiting", max_waiting, low=0, whole=True)
        self.max_running = max_running
        self.max_waiting = max_waiting

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        places = Places(self.max_running, self.max_waiting)

        def limited(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            lane = request.options.priority or "normal"
            place = places.take(lane)
            if place is None:
                return queued(request, lane)
            return _held(exchange, request, place)

        async def queued(request: LLMRequest, lane: str) -> AsyncGenerator[Delta, None]:
            place = await wait_in_line(request, lane)
            async with aclosing(_held(exchange, request, place)) as deltas:
                async for delta in deltas:
                    yield delta

        async def wait_in_line(request: LLMRequest, lane: str) -> Place:
            counted = False

            def announce(position: int) -> None:
                nonlocal counted
                counted = True
                host.count_queued(+1)
                host.publish(
                    RequestQueued(request_id=request.id, reason="concurrency", position=position)
                )

            try:
                return await places.wait(lane, announce)
            finally:
                if counted:
                    host.count_queued(-1)

        return limited


def _held(exchange: Exchange, request: LLMRequest, place: Place) -> AsyncGenerator[Delta, None]:
    try:
        return cast(AsyncGenerator[Delta, None], _Held(exchange(request), place))
    except BaseException:  # whatever it is, the place must not be lost
        place.leave()
        raise


class _Held:
    """An answer that holds a place until it is closed.

    It advances by the answer's own method: a generator around it would cost each piece four times
    as much.
    """

    __slots__ = ("__anext__", "_deltas", "_place")

    __anext__: Callable[[], Awaitable[Delta]]

    def __init__(self, deltas: AsyncGenerator[Delta, None], place: Place) -> None:
        self._deltas, self._place = deltas, place
        self.__anext__ = deltas.__anext__

    def __aiter__(self) -> _Held:
        return self

    async def aclose(self) -> None:
        try:
            await self._deltas.aclose()
        finally:
            self._place.leave()
