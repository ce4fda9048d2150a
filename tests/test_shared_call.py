"""Callers share one running call, from any loop and thread, and can leave without harm."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from llm_manager import RequestCancelledError
from llm_manager.shared import SharedCall

WAIT_S = 20


class Call:
    """A call that counts what happens to it and goes on when it is told to."""

    def __init__(self, *, cleanup_turns: int = 0) -> None:
        self.begun = self.ended = self.cancelled = 0
        self.started, self.gate = threading.Event(), threading.Event()
        self.results: list[object] = []
        self._cleanup_turns = cleanup_turns

    async def __call__(self) -> object:
        self.begun += 1
        number = self.begun
        self.started.set()
        try:
            while not self.gate.is_set():
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            for _ in range(self._cleanup_turns):
                await asyncio.sleep(0)
            self.cancelled += 1
            raise
        self.ended += 1
        result = self.results.pop(0) if self.results else number
        if isinstance(result, BaseException):
            raise result
        return result

    async def until_started(self) -> None:
        assert await asyncio.to_thread(self.started.wait, WAIT_S)
        self.started.clear()


async def joined(shared: SharedCall, count: int = 1) -> list[asyncio.Task]:
    """Callers that are waiting already."""
    tasks = [asyncio.create_task(shared.join()) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


# ---- sharing -------------------------------------------------------------------------------------


async def test_callers_that_come_while_it_runs_get_the_same_outcome() -> None:
    call = Call()
    shared = SharedCall(call)
    assert not shared.running
    tasks = await joined(shared, 10)
    assert shared.running
    call.gate.set()
    assert await asyncio.gather(*tasks) == [1] * 10
    assert (call.begun, shared.running) == (1, False)


async def test_a_caller_that_comes_afterwards_begins_anew() -> None:
    call = Call()
    call.gate.set()
    shared = SharedCall(call)
    assert [await shared.join(), await shared.join()] == [1, 2]


async def test_all_callers_get_the_error_of_a_call_that_fails() -> None:
    call, error = Call(), ValueError("no")
    call.results = [error, "well"]
    shared = SharedCall(call)
    tasks = await joined(shared, 3)
    call.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes == [error] * 3
    assert await shared.join() == "well"


async def test_an_error_that_nobody_waits_for_any_more_makes_no_noise() -> None:
    call, noises = Call(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noises.append(context))
    call.results = [ValueError("no")]
    shared = SharedCall(call, keep_running=True)
    (task,) = await joined(shared)
    task.cancel()
    call.gate.set()
    await shared.settled()
    await asyncio.gather(task, return_exceptions=True)
    del task
    gc.collect()
    assert (call.ended, noises) == (1, [])


# ---- leaving -------------------------------------------------------------------------------------


async def test_cancelling_one_caller_does_not_disturb_the_others() -> None:
    call = Call()
    shared = SharedCall(call)
    first, second, third = await joined(shared, 3)
    first.cancel()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert shared.running
    call.gate.set()
    assert await third == 1
    assert (first.cancelled(), second.cancelled(), call.cancelled) == (True, True, 0)


async def test_cancelling_the_last_caller_cancels_the_call_and_waits_for_its_clean_up() -> None:
    call = Call(cleanup_turns=5)
    shared = SharedCall(call)
    tasks = await joined(shared, 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [t.cancelled() for t in tasks] == [True, True]
    assert (call.cancelled, call.ended, shared.running) == (1, 0, False)


async def test_cancelling_a_caller_twice_does_not_wait_for_the_clean_up() -> None:
    call = Call(cleanup_turns=50)
    shared = SharedCall(call)
    (task,) = await joined(shared)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (task.cancelled(), call.cancelled) == (True, 0)
    await shared.settled()
    assert call.cancelled == 1


async def test_a_call_that_is_cancelled_before_it_began_ends_all_the_same() -> None:
    call = Call()
    shared = SharedCall(call)
    task = asyncio.create_task(shared.join())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert not shared.running
    call.gate.set()
    assert await shared.join() == call.begun


async def test_who_comes_while_a_call_is_abandoned_gets_a_new_one_after_its_clean_up() -> None:
    call = Call(cleanup_turns=20)
    shared = SharedCall(call)
    (first,) = await joined(shared)
    first.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (call.cancelled, first.done()) == (0, False)  # it is cleaning up
    call.gate.set()
    assert await shared.join() == 2
    assert (call.cancelled, call.ended) == (1, 1)
    await asyncio.gather(first, return_exceptions=True)


async def test_a_call_may_be_kept_running_without_callers() -> None:
    call = Call()
    shared = SharedCall(call, keep_running=True)
    (task,) = await joined(shared)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert shared.running
    second = asyncio.create_task(shared.join())
    call.gate.set()
    assert await second == 1
    assert (call.begun, call.cancelled) == (1, 0)


async def test_settled_waits_for_the_end_whatever_the_outcome_is() -> None:
    call = Call()
    call.results = [ValueError("no")]
    shared = SharedCall(call)
    await shared.settled()
    (task,) = await joined(shared)
    settled = asyncio.create_task(shared.settled())
    await asyncio.sleep(0)
    assert not settled.done()
    call.gate.set()
    await settled
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], ValueError)


# ---- cancelling the call -------------------------------------------------------------------------


async def test_cancelling_the_call_tells_its_callers_and_waits_for_its_clean_up() -> None:
    call = Call(cleanup_turns=5)
    shared = SharedCall(call)
    tasks = await joined(shared, 2)
    await shared.cancel()
    assert call.cancelled == 1
    for task in tasks:
        with pytest.raises(RequestCancelledError):
            await task
    await shared.cancel()  # nothing runs: nothing to do
    call.gate.set()
    assert await shared.join() == 2


async def test_a_call_that_cancels_itself_is_an_error_for_its_callers() -> None:
    call = Call()
    call.results = [asyncio.CancelledError()]
    call.gate.set()
    with pytest.raises(RequestCancelledError):
        await SharedCall(call).join()
    assert not asyncio.current_task().cancelling()


async def test_a_call_that_will_not_be_cancelled_is_waited_for() -> None:
    begun = asyncio.Event()

    async def stubborn() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "done all the same"

    shared = SharedCall(stubborn)
    (task,) = await joined(shared)
    await begun.wait()
    await shared.cancel()
    assert await task == "done all the same"


async def test_the_call_is_begun_without_holding_a_lock() -> None:
    shared: SharedCall[str]
    others: list[str] = []
    thread = threading.Thread(target=lambda: others.append(asyncio.run(shared.join())))

    def call():
        thread.start()
        for _ in range(WAIT_S * 1000):
            if shared._run is not None and shared._run.callers == 2:
                return answer()
            time.sleep(0.001)
        raise AssertionError("the other caller could not join")

    async def answer() -> str:
        return "one answer"

    shared = SharedCall(call)
    assert await shared.join() == "one answer"
    await asyncio.to_thread(thread.join, WAIT_S)
    assert others == ["one answer"]


# ---- several loops and threads -------------------------------------------------------------------


class Elsewhere:
    """A caller on a loop in a thread of its own."""

    def __init__(self, shared: SharedCall) -> None:
        self.outcome: object = None
        self._shared = shared
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task | None = None
        self._waiting = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._join()))
        self._thread.start()
        assert self._waiting.wait(WAIT_S)

    async def _join(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._shared.join())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._waiting.set()
        try:
            self.outcome = await self._task
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.outcome = error

    def leave(self) -> None:
        """Cancel the caller; its loop ends then, and cancels whatever else runs on it."""
        self._loop.call_soon_threadsafe(self._task.cancel)

    async def ended(self) -> object:
        await asyncio.to_thread(self._thread.join, WAIT_S)
        assert not self._thread.is_alive()
        return self.outcome


async def test_callers_on_several_loops_share_one_call() -> None:
    call = Call()
    shared = SharedCall(call)
    others = [await asyncio.to_thread(Elsewhere, shared) for _ in range(3)]
    (mine,) = await joined(shared)
    call.gate.set()
    assert await mine == 1
    assert [await other.ended() for other in others] == [1, 1, 1]
    assert call.begun == 1


async def test_the_last_caller_on_another_loop_cancels_the_call_where_it_runs() -> None:
    call = Call(cleanup_turns=5)
    shared = SharedCall(call)
    (mine,) = await joined(shared)
    other = await asyncio.to_thread(Elsewhere, shared)
    mine.cancel()
    await asyncio.gather(mine, return_exceptions=True)
    assert shared.running
    other.leave()
    assert isinstance(await other.ended(), asyncio.CancelledError)
    assert (call.cancelled, shared.running) == (1, False)


async def test_a_caller_takes_over_when_the_loop_that_runs_the_call_ends() -> None:
    call = Call()
    shared = SharedCall(call)
    other = await asyncio.to_thread(Elsewhere, shared)
    await call.until_started()
    (mine,) = await joined(shared)
    other.leave()  # its loop ends, and the call that ran there is cancelled with it
    assert isinstance(await other.ended(), asyncio.CancelledError)
    await call.until_started()
    call.gate.set()
    assert await mine == 2
    assert (call.begun, call.cancelled) == (2, 1)


async def test_cancelling_reaches_a_call_on_another_loop() -> None:
    call = Call(cleanup_turns=5)
    shared = SharedCall(call)
    other = await asyncio.to_thread(Elsewhere, shared)
    await shared.cancel()
    assert isinstance(await other.ended(), RequestCancelledError)
    assert call.cancelled == 1


async def test_a_call_that_its_loop_left_behind_does_not_hold_up_others(recwarn) -> None:
    call = Call()
    shared = SharedCall(call)
    loop = asyncio.new_event_loop()

    def run_for_a_moment() -> None:
        task = loop.create_task(shared.join())
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        left_behind.append(task)

    left_behind: list[asyncio.Task] = []
    await asyncio.to_thread(run_for_a_moment)
    assert call.begun == 1
    assert not shared.running  # the loop exists, but it does not run
    async with asyncio.timeout(WAIT_S):
        await shared.settled()
        await shared.cancel()
        call.gate.set()
        assert await shared.join() == 2

    def tidy_up() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left_behind, return_exceptions=True))
        loop.close()

    await asyncio.to_thread(tidy_up)
    assert await shared.join() == 3


async def test_many_threads_that_come_and_go_leave_nothing_running() -> None:
    call = Call()
    shared = SharedCall(call)
    outcomes: list[object] = []

    async def visit(number: int) -> None:
        for turn in range(10):
            task = asyncio.create_task(shared.join())
            for _ in range((number + turn) % 4):
                await asyncio.sleep(0)
            if (number + turn) % 3:
                task.cancel()
            elif not call.gate.is_set():
                call.gate.set()
            outcomes.extend(await asyncio.gather(task, return_exceptions=True))
            call.gate.clear()

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(
            *(asyncio.to_thread(lambda n=n: asyncio.run(_opened(call, visit(n)))) for n in range(4))
        )
    assert not shared.running
    assert len(outcomes) == 40
    wrong = [o for o in outcomes if not isinstance(o, int | asyncio.CancelledError)]
    assert wrong == []


async def _opened(call: Call, work) -> None:
    """Run ``work`` while somebody opens the gate again and again."""

    async def open_gate() -> None:
        while True:
            call.gate.set()
            await asyncio.sleep(0)

    opener = asyncio.create_task(open_gate())
    try:
        await work
    finally:
        opener.cancel()
