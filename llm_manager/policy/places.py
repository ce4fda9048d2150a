"""The places in which requests run, and the queue for them; shared by all threads and loops.

See `limits` for the rules and the reasons.  Nothing here knows what a request is.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from .._threads import reset_after_fork
from ..errors import QueueFullError

LANES = ("interactive", "normal", "background")
_KEPT_A_PLACE_FOR = "normal"
# A lane that was passed over so often is next.
_PATIENCE = 4


class Place:
    """The right to run, until it is left or forgotten."""

    __slots__ = ("_lane", "_left", "_places")

    def __init__(self, lane: str, places: Places) -> None:
        self._lane, self._places = lane, places
        self._left: deque[str] | None = places.left

    def leave(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            # In a child process this is the parent's list, which nobody counts any more.
            left.append(self._lane)
            self._places.settle()

    def __del__(self) -> None:
        self.leave()


class Waiter:
    """Somebody who wants to run, on the loop it waits on."""

    __slots__ = ("called", "lane", "loop", "place")

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.loop = asyncio.get_running_loop()
        self.called: asyncio.Future[None] = self.loop.create_future()
        self.place: Place | None = None

    def call(self) -> None:
        if not self.called.done():
            self.called.set_result(None)


class Places:
    """The places of one provider and who waits for them, on any thread and loop."""

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._begin()
        reset_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._running = self._running_aside = 0
        self._waiting: dict[str, deque[Waiter]] = {lane: deque() for lane in LANES}
        self._passed_over = dict.fromkeys(LANES, 0)
        # Not counted at once: places may be left while this very thread holds the lock, by garbage
        # collection.
        self.left: deque[str] = deque()

    def _after_fork(self) -> None:
        """In a child process nothing runs, and whoever held the lock is not there."""
        self._begin()

    def take(self, lane: str) -> Place | None:
        """A place, if nobody has to be waited for."""
        with self._lock:
            place = self._given(lane) if self._is_free_for(lane) else None
        if self.left:
            self.settle()
        return place

    async def wait(self, lane: str, announce: Callable[[int], None]) -> Place:
        """A place, as soon as it is one's turn.

        Args:
            lane: one of `LANES`.
            announce: called, if one has to wait, with the number of those before.

        Raises:
            QueueFullError: too many wait already.
        """
        waiter = Waiter(lane)
        position = self._line_up(waiter)
        if waiter.place is not None:
            return waiter.place
        try:
            announce(position)
            await waiter.called
            assert waiter.place is not None  # who calls gives one
            return waiter.place
        except BaseException:  # also one that was called at the moment in which it was cancelled
            self._go_away(waiter)
            raise

    def settle(self) -> None:
        """Hand on what was left; never waits.

        Whoever finds the lock taken may go: the one who holds it looks here afterwards.
        """
        while self.left and self._lock.acquire(blocking=False):
            try:
                while self.left:
                    self._count(self.left.popleft(), -1)
                if any(self._waiting.values()):
                    self._call_next()
            finally:
                self._lock.release()

    def _line_up(self, waiter: Waiter) -> int:
        """Join the queue, or take a place that has become free; returns how many are before."""
        try:
            with self._lock:
                if self._is_free_for(waiter.lane):
                    waiter.place = self._given(waiter.lane)
                    return 0
                self._refuse_if_full()
                before = LANES[: LANES.index(waiter.lane) + 1]
                position = sum(len(self._waiting[lane]) for lane in before)
                self._waiting[waiter.lane].append(waiter)
                return position
        finally:
            self.settle()

    def _refuse_if_full(self) -> None:
        if self._count_waiting() >= self._max_waiting:
            self._forget_dead()
        if self._count_waiting() >= self._max_waiting:
            raise QueueFullError(
                f"the queue is full (waiting: {self._count_waiting()}, running: {self._running})"
            )

    def _go_away(self, waiter: Waiter) -> None:
        with self._lock:
            if waiter in self._waiting[waiter.lane]:
                self._waiting[waiter.lane].remove(waiter)
            if not self._waiting[waiter.lane]:
                self._passed_over[waiter.lane] = 0
        if waiter.place is not None:
            waiter.place.leave()
        self.settle()

    def _call_next(self) -> None:
        while (lane := self._next_lane()) is not None:
            waiter = self._waiting[lane].popleft()
            waiter.place = self._given(lane)
            try:
                waiter.loop.call_soon_threadsafe(waiter.call)
            except RuntimeError:  # its loop is closed
                waiter.place.leave()
                continue
            self._passed_over[lane] = 0
            for later in LANES[LANES.index(lane) + 1 :]:
                if self._waiting[later]:
                    self._passed_over[later] += 1

    def _next_lane(self) -> str | None:
        """Whose turn it is, if there is a place."""
        lanes = [lane for lane in LANES if self._waiting[lane] and self._is_free_for(lane)]
        patient = [lane for lane in lanes if self._passed_over[lane] >= _PATIENCE]
        return next(iter(patient + lanes), None)

    def _is_free_for(self, lane: str) -> bool:
        if lane != _KEPT_A_PLACE_FOR and self._running_aside >= max(self._max_running - 1, 1):
            return False
        return self._running < self._max_running

    def _given(self, lane: str) -> Place:
        self._count(lane, +1)
        return Place(lane, self)

    def _count(self, lane: str, change: int) -> None:
        self._running += change
        if lane != _KEPT_A_PLACE_FOR:
            self._running_aside += change

    def _count_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _forget_dead(self) -> None:
        """Take out who waits on a loop that was closed."""
        for lane, waiters in self._waiting.items():
            self._waiting[lane] = deque(w for w in waiters if not w.loop.is_closed())
