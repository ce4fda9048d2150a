"""An event loop on which hours pass in no time: instead of waiting it sets its clock forward.

It counts how often it was woken, which is what an idle program costs.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from llm_manager.testing.clock import FakeClock

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose time stands still while something runs, and jumps when nothing does.

    Attributes:
        clock: goes with the time of the loop; for the providers that run on it.
        wake_ups: how often a timer has woken it.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.wake_ups = 0
        self.clock = LoopClock(self)
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now_s


class LoopClock(FakeClock):
    """The time of a loop, as a clock for providers."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop
        self._began_s = super().wall()

    def monotonic(self) -> float:
        return self._loop.now_s + self._passed_s

    def wall(self) -> float:
        return self._began_s + self.monotonic() + self._slept_s + self._set_by_s


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            return super().select(None)  # no timer: only another thread can have news
        found = super().select(0)
        if not found and timeout > 0:
            self._loop.now_s += timeout
            self._loop.wake_ups += 1
        return found


def here() -> VirtualTimeLoop:
    """The loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
