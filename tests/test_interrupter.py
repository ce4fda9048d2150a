"""An await can be ended from outside with an error, and nothing else is ever cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llm_manager.interrupt import Interrupter

WAIT_S = 20


class Stopped(Exception):
    pass


async def wait_guarded(interrupter: Interrupter, started: asyncio.Event | None = None) -> None:
    with interrupter:
        if started is not None:
            started.set()
        async with asyncio.timeout(WAIT_S):
            await asyncio.Event().wait()


async def test_a_guarded_await_raises_the_error() -> None:
    interrupter, error = Interrupter(), Stopped("enough")
    asyncio.get_running_loop().call_soon(interrupter.interrupt, error)
    with pytest.raises(Stopped, match="enough") as caught:
        await wait_guarded(interrupter)
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert not asyncio.current_task().cancelling()
    await asyncio.sleep(0)  # and the task goes on as if nothing had happened


async def test_an_interruption_between_two_awaits_is_raised_by_the_next() -> None:
    interrupter = Interrupter()
    with interrupter:
        await asyncio.sleep(0)
    interrupter.interrupt(Stopped())
    await asyncio.sleep(0)  # what the caller does in between is not cancelled
    for _ in range(2):
        with pytest.raises(Stopped), interrupter:
            await asyncio.wait_for(asyncio.Event().wait(), WAIT_S)


async def test_an_interruption_before_the_first_await_is_raised_by_it() -> None:
    interrupter = Interrupter()
    interrupter.interrupt(Stopped())
    with pytest.raises(Stopped), interrupter:
        await asyncio.wait_for(asyncio.Event().wait(), WAIT_S)


async def test_only_the_first_error_counts() -> None:
    interrupter = Interrupter()
    loop = asyncio.get_running_loop()
    loop.call_soon(interrupter.interrupt, Stopped("first"))
    loop.call_soon(interrupter.interrupt, Stopped("second"))
    with pytest.raises(Stopped, match="first"):
        await wait_guarded(interrupter)
    assert str(interrupter.error) == "first"


async def test_an_interruption_from_another_thread_wakes_the_loop() -> None:
    interrupter, started = Interrupter(), asyncio.Event()
    task = asyncio.create_task(wait_guarded(interrupter, started))
    await started.wait()
    thread = threading.Thread(target=interrupter.interrupt, args=(Stopped(),))
    thread.start()
    with pytest.raises(Stopped):
        await task
    thread.join()


async def test_an_interruption_while_the_first_await_begins_is_not_lost() -> None:
    interrupter, beginning = Interrupter(), False

    class Interrupted(asyncio.Task):
        """Interrupted by another thread while it finds out which loop it is on."""

        def get_loop(self) -> asyncio.AbstractEventLoop:
            if beginning and interrupter.error is None:
                thread = threading.Thread(target=interrupter.interrupt, args=(Stopped(),))
                thread.start()
                thread.join(WAIT_S)
            return super().get_loop()

    async def begin() -> None:
        nonlocal beginning
        beginning = True
        await wait_guarded(interrupter)

    with pytest.raises(Stopped):
        await Interrupted(begin(), loop=asyncio.get_running_loop())


async def test_a_task_that_interrupts_itself_stops_at_its_next_wait() -> None:
    interrupter = Interrupter()
    with pytest.raises(Stopped), interrupter:
        interrupter.interrupt(Stopped())  # as a callback does that runs inside of the await
        async with asyncio.timeout(WAIT_S):
            await asyncio.Event().wait()
    await asyncio.sleep(0)


async def test_a_task_that_interrupts_itself_and_does_not_wait_is_not_cancelled() -> None:
    interrupter = Interrupter()
    with interrupter:
        interrupter.interrupt(Stopped())
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(Stopped), interrupter:
        await asyncio.wait_for(asyncio.Event().wait(), WAIT_S)


async def test_an_await_that_ends_at_the_same_time_keeps_its_result() -> None:
    interrupter, loop = Interrupter(), asyncio.get_running_loop()
    result: asyncio.Future[str] = loop.create_future()
    loop.call_soon(result.set_result, "done")
    with interrupter:
        found = await result
        interrupter.interrupt(Stopped())
    assert found == "done"
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_cancellation_of_the_task_stays_one() -> None:
    interrupter, started = Interrupter(), asyncio.Event()
    task = asyncio.create_task(wait_guarded(interrupter, started))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert interrupter.error is None
    assert not interrupter.waiting


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_cancellation_at_the_same_time_wins(cancelled_first) -> None:
    interrupter, started, loop = Interrupter(), asyncio.Event(), asyncio.get_running_loop()
    task = asyncio.create_task(wait_guarded(interrupter, started))
    await started.wait()
    if cancelled_first:
        task.cancel()
        interrupter.interrupt(Stopped())
    else:
        interrupter.interrupt(Stopped())
        loop.call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_guarded_code_passes_through() -> None:
    interrupter = Interrupter()
    with pytest.raises(KeyError), interrupter:
        raise KeyError("own")
    assert interrupter.error is None
    with interrupter:
        await asyncio.sleep(0)


async def test_a_clean_up_that_raises_something_else_is_not_hidden() -> None:
    interrupter, started = Interrupter(), asyncio.Event()

    async def work() -> None:
        with interrupter:
            try:
                await wait_guarded(Interrupter(), started)
            except asyncio.CancelledError:
                raise KeyError("from the clean-up") from None

    task = asyncio.create_task(work())
    await started.wait()
    interrupter.interrupt(Stopped())
    with pytest.raises(KeyError):
        await task
    assert not task.cancelled()


async def test_waiting_tells_whether_an_await_is_guarded_now() -> None:
    interrupter = Interrupter()
    assert (interrupter.waiting, interrupter.loop) == (False, None)
    with interrupter:
        assert interrupter.waiting
    assert not interrupter.waiting
    assert interrupter.loop is asyncio.get_running_loop()


def test_an_interruption_after_the_loop_has_closed_does_nothing_bad() -> None:
    interrupter = Interrupter()

    async def use() -> None:
        with interrupter:
            await asyncio.sleep(0)

    asyncio.run(use())
    interrupter.interrupt(Stopped("late"))
    assert str(interrupter.error) == "late"


# ---- steps that somebody else has begun ----------------------------------------------------------


async def test_a_step_that_was_begun_is_finished_with_its_result() -> None:
    async def step() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "done"

    begun = step()
    assert await Interrupter().rest(begun, begun.send(None)) == "done"


async def test_a_step_that_was_begun_is_ended_by_an_interruption_before_it_waits() -> None:
    cleaned_up = []

    async def step() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(True)

    interrupter, begun = Interrupter(), step()
    waiting = begun.send(None)
    interrupter.interrupt(Stopped())
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(Stopped):
            await interrupter.rest(begun, waiting)
    assert cleaned_up == [True]


async def test_a_step_whose_reader_is_dropped_is_closed() -> None:
    left = []

    async def step() -> None:
        try:
            await asyncio.Event().wait()
        except GeneratorExit:
            left.append(True)
            raise

    begun = step()
    reading = Interrupter().rest(begun, begun.send(None))
    reading.send(None)
    reading.close()
    assert left == [True]


async def test_an_error_that_is_thrown_in_reaches_the_step() -> None:
    async def step() -> str:
        try:
            await asyncio.Event().wait()
        except KeyError:
            return "mended"
        return "not reached"

    begun = step()
    reading = Interrupter().rest(begun, begun.send(None))
    reading.send(None)
    with pytest.raises(StopIteration) as stopped:
        reading.throw(KeyError())
    assert stopped.value.value == "mended"
