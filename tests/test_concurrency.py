"""`gather_with_concurrency`: in order, not more than so many, and nothing is left running."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from llm_manager import InvalidParameterError, gather_with_concurrency


class Crowd:
    """Counts how many run at the same time."""

    def __init__(self) -> None:
        self.now = self.most = self.begun = 0

    async def member(self, result: int, error: Exception | None = None) -> int:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            if error is not None:
                raise error
            return result
        finally:
            self.now -= 1

    async def waits(self) -> None:
        self.begun += 1
        self.now += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.now -= 1


async def test_results_come_in_the_order_of_the_tasks_and_no_more_run_than_allowed() -> None:
    crowd = Crowd()
    tasks = [crowd.member(number) for number in range(10)]
    assert await gather_with_concurrency(3, tasks) == list(range(10))
    assert crowd.most == 3


async def test_a_function_is_asked_for_its_coroutine_when_its_turn_comes() -> None:
    crowd = Crowd()
    made = []

    def make(number: int):
        made.append(number)
        assert len(made) - crowd.begun <= 2
        return crowd.member(number)

    results = await gather_with_concurrency(limit=2, tasks=[partial(make, n) for n in range(6)])
    assert results == made == list(range(6))


async def test_the_first_error_ends_the_rest_and_is_raised() -> None:
    crowd = Crowd()
    tasks = [crowd.waits(), crowd.member(1, KeyError("lost")), crowd.waits(), crowd.waits()]
    with pytest.raises(KeyError, match="lost"):
        await gather_with_concurrency(3, tasks)
    assert crowd.now == 0
    assert crowd.begun == 3


async def test_errors_are_results_if_they_are_wanted() -> None:
    crowd = Crowd()
    tasks = [crowd.member(0), crowd.member(1, KeyError("lost")), crowd.member(2)]
    first, error, last = await gather_with_concurrency(1, tasks, return_exceptions=True)
    assert (first, last) == (0, 2)
    assert isinstance(error, KeyError)


async def test_cancelling_it_leaves_nothing_running() -> None:
    crowd = Crowd()
    work = gather_with_concurrency(2, [crowd.waits() for _ in range(4)])
    task = asyncio.create_task(work)
    while crowd.now < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert crowd.now == 0
    assert crowd.begun == 2


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
async def test_a_limit_below_one_is_refused(limit) -> None:
    with pytest.raises(InvalidParameterError, match="limit"):
        await gather_with_concurrency(limit, [])


async def test_what_cannot_be_awaited_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="awaitables"):
        await gather_with_concurrency(1, [7])
