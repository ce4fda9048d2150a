"""Notices that the computer has slept, or that this process was stopped for a while.

Connections are dead after that, and nothing says so: the other end gave up long ago, and the clocks
that idle connections are aged by stood still.  Three signs tell:

* ``suspend``: the clock that counts sleep went ahead of the one that does not;
* ``wall_clock``: where there is no such clock, the time of day went ahead;
* ``late_timer``: a timer fired far too late, so process or event loop stood still.

Somebody who sets the time of day is no sign where there is a better one.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Literal, Protocol

from ._threads import reset_after_fork
from .clock import Clock

Detector = Literal["suspend", "wall_clock", "late_timer"]

TOLERATED_S = 5.0
"""Clocks drift and loops are busy; less than this is no sleep."""
BEAT_S = 5.0
"""How often each event loop looks, while something is connected."""


class Sleeper(Protocol):
    """Whoever has to know."""

    def resumed(self, suspended_for_s: float, detector: Detector) -> None:
        """It is over; safe to be called on any loop."""


class SleepWatch:
    """Compares the readings of one clock; see `watch_of`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_s = clock.monotonic()
        self._ahead_s = self._ahead()
        self._renew()
        reset_after_fork(self)

    def begin(self, sleeper: Sleeper) -> None:
        """Tell ``sleeper`` from now on, and let the running event loop look now and then."""
        with self._lock:
            self._sleepers.add(sleeper)
        self._beat_here()

    def end(self, sleeper: Sleeper) -> None:
        """Tell ``sleeper`` nothing more."""
        with self._lock:
            self._sleepers.discard(sleeper)

    def look(self) -> None:
        """Look whether there was a sleep since the last time; cheap enough for every request."""
        ahead_s = self._ahead()
        slept_s = ahead_s - self._ahead_s
        if not -TOLERATED_S < slept_s < TOLERATED_S:
            with self._lock:
                slept_s, self._ahead_s = ahead_s - self._ahead_s, ahead_s
            if slept_s >= TOLERATED_S:  # and not another thread, which has seen the same
                by_boot = self._clock.since_boot() is not None
                self._tell(slept_s, "suspend" if by_boot else "wall_clock")

    def _ahead(self) -> float:
        """How far the clock that goes on during sleep is ahead of the one that does not."""
        since_boot_s = self._clock.since_boot()
        other_s = self._clock.wall() if since_boot_s is None else since_boot_s
        return other_s - self._clock.monotonic()

    def _tell(self, slept_s: float, detector: Detector) -> None:
        self._told_s = self._clock.monotonic()
        with self._lock:
            sleepers = list(self._sleepers)
        for sleeper in sleepers:
            sleeper.resumed(slept_s, detector)

    # ---- the beat --------------------------------------------------------------------------------

    def _beat_here(self) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop in self._beating:
                return
            self._beating.add(loop)
        loop.call_later(BEAT_S, self._beat, loop, loop.time() + BEAT_S)

    def _beat(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        with self._lock:
            self._beating.discard(loop)
            needed = len(self._sleepers) > 0
        if not needed:
            return
        late_s = loop.time() - due_s
        self.look()
        # The loops of one process are late together; and a sleep that was noticed is enough.
        recently = self._clock.monotonic() - self._told_s < TOLERATED_S
        if late_s >= TOLERATED_S and not recently:
            self._tell(late_s, "late_timer")
        self._beat_here()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._sleepers: weakref.WeakSet[Sleeper] = weakref.WeakSet()
        self._beating: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    def _after_fork(self) -> None:
        """Nothing is connected in a child process."""
        self._renew()


_watches: weakref.WeakValueDictionary[int, SleepWatch] = weakref.WeakValueDictionary()
_making = threading.Lock()


def watch_of(clock: Clock) -> SleepWatch:
    """The one watch of that clock; all providers of a process share it."""
    with _making:
        # A watch holds its clock, so the number belongs to that as long as there is an entry.
        watch = _watches.get(id(clock))
        if watch is None:
            watch = _watches[id(clock)] = SleepWatch(clock)
        return watch
