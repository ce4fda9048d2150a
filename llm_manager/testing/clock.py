"""A clock for tests of what happens after a sleep, or when somebody sets the time of day."""

from __future__ import annotations

from ..clock import SYSTEM_CLOCK


class FakeClock:
    """Goes on like the clocks of this computer, and can be moved; see `llm_manager.clock.Clock`.

    ::

        clock = FakeClock()
        provider = EchoProvider(clock=clock)
        clock.suspend(8 * 3600)     # the computer slept for eight hours
    """

    def __init__(self) -> None:
        self._slept_s = self._passed_s = self._set_by_s = 0.0

    def suspend(self, seconds: float) -> None:
        """As after a sleep: the monotonic clock stood still, the others went on."""
        self._slept_s += seconds

    def advance(self, seconds: float) -> None:
        """As if time had passed: all clocks go ahead."""
        self._passed_s += seconds

    def set_wall(self, by_s: float) -> None:
        """As if somebody had set the time of day, by so many seconds."""
        self._set_by_s += by_s

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self._passed_s

    def since_boot(self) -> float | None:
        # Built on the monotonic clock, so that it can be tested on every system.
        return self.monotonic() + self._slept_s

    def wall(self) -> float:
        return SYSTEM_CLOCK.wall() + self._passed_s + self._slept_s + self._set_by_s
