"""The clocks that decisions about time are made by; tests put others in their place.

Waiting is left to the event loop.  What is read here says how old evidence is, and whether the
computer has slept: a computer that sleeps stops some of its clocks and not others.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Three readings of the same time, in seconds."""

    def monotonic(self) -> float:
        """Never goes back; on Linux and macOS it stands still while the computer sleeps."""

    def since_boot(self) -> float | None:
        """Never goes back and goes on during sleep; None where the system has no such clock."""

    def wall(self) -> float:
        """The time of day since 1970, UTC; somebody may set it forward or back."""


class SystemClock:
    """The clocks of this computer."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def since_boot(self) -> float | None:
        clock_id = getattr(time, "CLOCK_BOOTTIME", None)
        return None if clock_id is None else time.clock_gettime(clock_id)


SYSTEM_CLOCK = SystemClock()


def utc_now(clock: Clock = SYSTEM_CLOCK) -> datetime:
    """The time of day."""
    return datetime.fromtimestamp(clock.wall(), UTC)
