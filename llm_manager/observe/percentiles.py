"""`LogHistogram`: percentiles of any number of measurements, in memory of one size.

Values are counted in buckets that grow by the same factor, 18 of them to each doubling, so that
whatever lies in one is known to 1.93 % of itself.  The bounds of every 18th are the unit times a
power of two, exactly, which are the buckets that Prometheus is given.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from copy import copy
from itertools import accumulate
from math import log2
from typing import Self

from ..messages import Data

_PER_DOUBLING = 18
_FACTOR: float = 2.0 ** (1 / _PER_DOUBLING)
# From the unit divided by 16,384 to the unit times 16,777,216: of 10 ms that is 0.6 us to 46 hours.
_DOUBLINGS_BELOW, _DOUBLINGS_ABOVE = 14, 24
_OF_UNIT = _DOUBLINGS_BELOW * _PER_DOUBLING
_LAST = _OF_UNIT + _DOUBLINGS_ABOVE * _PER_DOUBLING
# What the logarithm of a bound, such as 0.64, may be too large by.
_ROUNDING = 1e-9

ERROR_FRACTION = (_FACTOR - 1) / (_FACTOR + 1)
"""By which part of itself a percentile may be wrong at most."""


class Distribution(Data, frozen=True, kw_only=True):
    """What is known of many measurements.

    A percentile is the smallest measurement that so many per cent do not exceed, to 2 % of itself;
    count, sum, minimum and maximum are exact.  All but the first two are None if there is nothing.

    Attributes:
        count: how many there are.
        total: their sum.
        minimum, maximum: the smallest and the largest.
        p50, p90, p95, p99: percentiles.
        buckets: upper bounds, and how many measurements do not exceed each.
    """

    count: int = 0
    total: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    buckets: tuple[tuple[float, int], ...] = ()

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


class LogHistogram:
    """Counts measurements by their size; not safe from several threads.

    Between a 16,384th of the unit and 16,777,216 times the unit, percentiles have an error of at
    most `ERROR_FRACTION`; what lies outside is known to lie outside.

    Args:
        unit: one of the bounds of the buckets.
        doublings: how many more bounds there are above it, each twice as large.
    """

    __slots__ = (
        "_bounds",
        "_counts",
        "_maximum",
        "_minimum",
        "_offset",
        "_total",
        "_unit",
        "count",
    )

    def __init__(self, *, unit: float, doublings: int) -> None:
        self._unit = unit
        # Rounding down with this is rounding up without it.
        self._offset = _OF_UNIT - log2(unit) * _PER_DOUBLING + 1 - _ROUNDING
        self._bounds = doublings + 1
        self._counts = array("Q", bytes(8 * (_LAST + 1)))
        self.count = 0
        self._total = 0.0
        self._minimum, self._maximum = math.inf, 0.0

    def add(self, value: float) -> None:
        """Count one measurement; what is negative or no number is none."""
        if not 0.0 <= value < math.inf:
            return
        place = int(log2(value) * _PER_DOUBLING + self._offset) if value else 0
        if not 0 <= place <= _LAST:
            place = 0 if place < 0 else _LAST
        self._counts[place] += 1
        self.count += 1
        self._total += value
        if value < self._minimum:
            self._minimum = value
        if value > self._maximum:
            self._maximum = value

    def copy(self) -> Self:
        """The same, to be looked at while this one goes on."""
        other = copy(self)
        other._counts = self._counts[:]
        return other

    def percentile(self, percent: float) -> float | None:
        """The smallest measurement that ``percent`` of them (0 to 100) do not exceed, or None."""
        return self._percentile(percent, list(accumulate(self._counts)))

    def distribution(self) -> Distribution:
        """Everything that is known."""
        up_to = list(accumulate(self._counts))
        buckets = tuple(
            (self._unit * 2**doubling, up_to[_OF_UNIT + doubling * _PER_DOUBLING])
            for doubling in range(self._bounds)
        )
        if not self.count:
            return Distribution(buckets=buckets)
        return Distribution(
            count=self.count,
            total=self._total,
            minimum=self._minimum,
            maximum=self._maximum,
            p50=self._percentile(50, up_to),
            p90=self._percentile(90, up_to),
            p95=self._percentile(95, up_to),
            p99=self._percentile(99, up_to),
            buckets=buckets,
        )

    def _percentile(self, percent: float, up_to: list[int]) -> float | None:
        if not self.count:
            return None
        rank = max(1, math.ceil(percent * self.count / 100 - _ROUNDING))
        place = bisect_left(up_to, rank)
        upper = self._unit * _FACTOR ** (place - _OF_UNIT)
        # The point of a bucket that is equally far, in proportion, from both of its ends.
        middle = upper * 2 / (1 + _FACTOR)
        if place == 0:
            middle = self._minimum
        elif place == _LAST:
            middle = self._maximum
        return min(max(middle, self._minimum), self._maximum)
