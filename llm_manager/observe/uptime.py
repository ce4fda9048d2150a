"""`Timeline`: for how long something was up and down, in memory of one size.

It reads no clock: it is told what time it is, in seconds on a clock that never goes back.
"""

from __future__ import annotations

from array import array

from ..messages import Data

HOUR_S, DAY_S = 3600.0, 86_400.0

_SLOT_S = 60
_SLOTS = int(DAY_S) // _SLOT_S + 1


class Uptime(Data, frozen=True, kw_only=True):
    """How a stretch of time was spent.

    Attributes:
        up_s: seconds up.
        down_s: seconds down; the rest was neither, or was not watched.
        fraction: the part of both that was up, 0 to 1; None if there is nothing of either.
    """

    up_s: float = 0.0
    down_s: float = 0.0
    fraction: float | None = None


class Timeline:
    """Adds up the seconds up and down, in all and for each minute of the last day.

    Not safe from several threads.

    Attributes:
        up: whether it is up now; None if it is neither up nor down.
    """

    def __init__(self, now_s: float) -> None:
        self.up: bool | None = None
        self._streak_began_s = now_s
        self._told_s = now_s
        self._slot = int(now_s // _SLOT_S)
        # Seconds down and up of each minute; and in all.
        self._slots = (array("d", bytes(8 * _SLOTS)), array("d", bytes(8 * _SLOTS)))
        self._totals_s = [0.0, 0.0]

    def change(self, up: bool | None, now_s: float) -> None:
        """It is this from now on."""
        self._go_on(now_s)
        if up is not self.up:
            self.up, self._streak_began_s = up, now_s

    def leave_out(self, seconds: float, now_s: float) -> None:
        """The last so many seconds were neither: nobody could have seen it."""
        self._go_on(max(now_s - seconds, self._told_s))
        self._streak_began_s += now_s - self._told_s
        self._told_s = now_s

    def streak_s(self, now_s: float) -> float | None:
        """For how long it has been up, or down, without a break; None if it is neither."""
        return None if self.up is None else now_s - self._streak_began_s

    def over(self, window_s: float, now_s: float) -> Uptime:
        """The last ``window_s`` seconds, a day at most, rounded up to minutes."""
        self._go_on(now_s)
        oldest = max(int((now_s - window_s) // _SLOT_S), self._slot - _SLOTS + 1)
        places = [slot % _SLOTS for slot in range(oldest, self._slot + 1)]
        down, up = (sum(seconds[place] for place in places) for seconds in self._slots)
        return _uptime(up, down)

    def in_all(self, now_s: float) -> Uptime:
        """The whole time."""
        self._go_on(now_s)
        down, up = self._totals_s
        return _uptime(up, down)

    def _go_on(self, now_s: float) -> None:
        """Put down what passed since the last time."""
        began_s, self._told_s = self._told_s, now_s
        self._clear_slots_until(int(now_s // _SLOT_S))
        if self.up is None or now_s <= began_s:
            return
        self._totals_s[self.up] += now_s - began_s
        oldest_s = (self._slot - _SLOTS + 1) * _SLOT_S
        slots, begin_s = self._slots[self.up], max(began_s, oldest_s)
        for slot in range(int(begin_s // _SLOT_S), self._slot + 1):
            seconds = min(now_s, (slot + 1) * _SLOT_S) - max(begin_s, slot * _SLOT_S)
            slots[slot % _SLOTS] += seconds

    def _clear_slots_until(self, slot: int) -> None:
        for passed in range(max(self._slot, slot - _SLOTS) + 1, slot + 1):
            for seconds in self._slots:
                seconds[passed % _SLOTS] = 0.0
        self._slot = max(self._slot, slot)


def _uptime(up_s: float, down_s: float) -> Uptime:
    known_s = up_s + down_s
    return Uptime(up_s=up_s, down_s=down_s, fraction=up_s / known_s if known_s > 0 else None)
