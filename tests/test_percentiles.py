"""Percentiles from buckets, against the exact ones."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_manager.observe.percentiles import ERROR_FRACTION, LogHistogram

# What the unit of 10 ms covers: from less than a microsecond to a day and more.
DURATIONS = st.lists(st.floats(1e-6, 1e5), min_size=1, max_size=300)
PERCENTS = st.one_of(st.sampled_from([0, 1, 50, 90, 95, 99, 99.9, 100]), st.floats(0, 100))


def histogram(values, unit: float = 0.01, doublings: int = 15) -> LogHistogram:
    made = LogHistogram(unit=unit, doublings=doublings)
    for value in values:
        made.add(value)
    return made


def exact(values, percent: float) -> float:
    rank = max(1, math.ceil(percent * len(values) / 100 - 1e-9))
    return sorted(values)[rank - 1]


def test_the_error_that_is_promised_is_below_two_per_cent() -> None:
    assert 0.019 < ERROR_FRACTION < 0.02


@given(DURATIONS, PERCENTS)
@example([0.01, 0.02, 0.64, 327.68], 50)
@example([1.0] * 100, 99)
@example([1e-6, 1e5], 100)
def test_a_percentile_is_as_near_to_the_exact_one_as_promised(values, percent) -> None:
    found = histogram(values).percentile(percent)
    assert found is not None
    assert found == pytest.approx(exact(values, percent), rel=ERROR_FRACTION * (1 + 1e-9))


@given(DURATIONS)
def test_sum_count_minimum_and_maximum_are_exact(values) -> None:
    known = histogram(values).distribution()
    assert known.count == len(values)
    assert known.total == pytest.approx(sum(values))
    assert (known.minimum, known.maximum) == (min(values), max(values))
    assert known.mean == pytest.approx(sum(values) / len(values))


@given(
    st.lists(
        st.one_of(st.floats(0.001, 1000), st.sampled_from([0.01 * 2**i for i in range(16)])),
        max_size=100,
    )
)
def test_the_counts_up_to_a_bound_are_exact_the_bound_included(values) -> None:
    known = histogram(values).distribution()
    assert [bound for bound, _ in known.buckets] == [0.01 * 2**i for i in range(16)]
    for bound, count in known.buckets:
        assert count == sum(value <= bound for value in values), bound


def test_the_percentiles_of_a_distribution_are_those_of_the_histogram() -> None:
    made = histogram([0.001 * i for i in range(1, 1001)])
    known = made.distribution()
    assert [known.p50, known.p90, known.p95, known.p99] == [
        made.percentile(p) for p in (50, 90, 95, 99)
    ]
    assert known.p50 == pytest.approx(0.5, rel=ERROR_FRACTION)


def test_nothing_measured_has_no_percentiles() -> None:
    known = histogram([]).distribution()
    assert (known.count, known.total, known.mean) == (0, 0.0, None)
    assert (known.minimum, known.maximum, known.p50, known.p99) == (None, None, None, None)
    assert all(count == 0 for _, count in known.buckets)


def test_what_is_too_small_or_too_large_for_the_buckets_is_counted_at_their_ends() -> None:
    made = histogram([0.0, 1e-12, 1.0, 1e9])
    assert made.percentile(50) == 0.0
    assert made.percentile(100) == 1e9
    assert made.distribution().buckets[-1][1] == 3


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, -math.inf])
def test_what_is_no_measurement_is_not_counted(value: float) -> None:
    assert histogram([value]).distribution().count == 0


def test_a_copy_stays_as_it_was() -> None:
    made = histogram([1.0])
    copied = made.copy()
    made.add(2.0)
    assert (copied.distribution().count, copied.percentile(100)) == (1, 1.0)
    assert made.distribution().count == 2


def test_a_hundred_thousand_values_take_no_more_memory_than_one() -> None:
    small, large = histogram([1.0]), histogram([1.0001**i for i in range(100_000)])
    assert sys.getsizeof(small._counts) == sys.getsizeof(large._counts) < 6000
