"""One running call that all its callers share, whichever loop or thread they are on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from .errors import RequestCancelledError

T = TypeVar("T")


class _Run(Generic[T]):
    """One execution: its task, its result, and how many wait for it."""

    def __init__(self) -> None:
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.task: asyncio.Task[T] | None = None
        self.callers = 0
        self.abandoned = False


class SharedCall(Generic[T]):
    """Runs ``call`` at most once at a time; who comes while it runs gets the same outcome.

    A caller that is cancelled does not disturb the others.  When the last one is, the call itself
    is cancelled and has cleaned up before the cancellation goes on (unless ``keep_running``).
    """

    def __init__(
        self, call: Callable[[], Coroutine[Any, Any, T]], *, keep_running: bool = False
    ) -> None:
        self._call = call
        self._keep_running = keep_running
        self._lock = threading.Lock()
        self._run: _Run[T] | None = None

    @property
    def running(self) -> bool:
        run = self._run
        return run is not None and not run.ended.done()

    async def join(self) -> T:
        """The outcome of the running call, or of a new one."""
        while True:
            run = self._enter()
            if run is not None:
                break
            await self.settled()
        try:
            return await _outcome(run.future)
        finally:
            if self._leave(run):
                await _stopped(run)

    async def settled(self) -> None:
        """Wait until nothing runs; whatever the outcome is."""
        run = self._run
        if run is not None:
            await _outcome(run.ended)

    async def cancel(self) -> None:
        """Cancel the running call, if there is one, and wait until it has cleaned up."""
        run = self._run
        if run is not None and not run.ended.done():
            await _stopped(run)

    def _enter(self) -> _Run[T] | None:
        """The run to wait for, or None if one is being abandoned and has to end first."""
        with self._lock:
            run = self._run
            if run is None or run.ended.done() or _is_dead(run):
                run = self._run = _Run()
                run.task = asyncio.get_running_loop().create_task(self._call())
                run.task.add_done_callback(functools.partial(_finish, run))
            elif run.abandoned:
                return None
            run.callers += 1
            return run

    def _leave(self, run: _Run[T]) -> bool:
        """Count a caller out; says whether the call has to be cancelled now."""
        with self._lock:
            run.callers -= 1
            if run.callers or run.future.done() or self._keep_running:
                return False
            run.abandoned = True
            return True


def _finish(run: _Run[T], task: asyncio.Task[T]) -> None:
    """Hand the outcome to all callers; a callback, because a task cancelled early never runs."""
    if task.cancelled():
        run.future.set_exception(RequestCancelledError("the shared call was cancelled"))
    elif (error := task.exception()) is not None:
        run.future.set_exception(error)
    else:
        run.future.set_result(task.result())
    run.ended.set_result(None)


async def _outcome(future: concurrent.futures.Future[T]) -> T:
    """Wait for ``future`` without cancelling it when the waiting is cancelled."""
    waiter = asyncio.wrap_future(future)
    # A caller that has left does not look at the outcome; asyncio must not complain about that.
    waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(waiter)


def _is_dead(run: _Run[Any]) -> bool:
    """Whether the loop that ran the call was closed under it."""
    return run.task is not None and run.task.get_loop().is_closed()


async def _stopped(run: _Run[Any]) -> None:
    task = run.task
    if task is None:
        return
    with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended with it
        task.get_loop().call_soon_threadsafe(task.cancel)
        await _outcome(run.ended)
