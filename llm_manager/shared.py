"""One running call that all its callers share, whichever loop or thread they are on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from ._threads import reset_after_fork
from .errors import RequestCancelledError

T = TypeVar("T")


class _LoopEnded(Exception):
    """The loop that ran the call was shut down under it."""


class _Run(Generic[T]):
    """One execution: its task, its result, and how many wait for it."""

    def __init__(self) -> None:
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.task: asyncio.Task[T] | None = None
        self.callers = 0
        self.abandoned = False

    @property
    def dead(self) -> bool:
        """Whether the loop that runs the call does not run any more."""
        return self.task is not None and not self.task.get_loop().is_running()

    def start(self, work: Coroutine[Any, Any, T]) -> None:
        self.task = asyncio.get_running_loop().create_task(work)
        self.task.add_done_callback(functools.partial(_finish, self))
        if self.abandoned:  # by another thread, which could not see the task yet
            self.task.cancel()


class SharedCall(Generic[T]):
    """Runs ``call`` at most once at a time; who comes while it runs gets the same outcome.

    A caller that is cancelled does not disturb the others.  When the last one is, the call itself
    is cancelled and has cleaned up before the cancellation goes on (unless ``keep_running``).  If
    the loop that runs it is shut down, a caller on another loop begins it anew.
    """

    def __init__(
        self, call: Callable[[], Coroutine[Any, Any, T]], *, keep_running: bool = False
    ) -> None:
        self._call = call
        self._keep_running = keep_running
        self._lock = threading.Lock()
        self._run: _Run[T] | None = None
        reset_after_fork(self)

    @property
    def running(self) -> bool:
        run = self._run
        if run is None or run.ended.done() or run.dead:
            return False
        # The task may have ended a turn of the loop before that is told.
        return run.task is None or not run.task.done()

    async def join(self) -> T:
        """The outcome of the running call, or of a new one."""
        while True:
            run = self._enter()
            if run is None:
                await self.settled()
                continue
            try:
                return await _outcome(run.future)
            except _LoopEnded:
                pass
            finally:
                if self._leave(run):
                    await _stopped(run)

    async def settled(self) -> None:
        """Wait until nothing runs; whatever the outcome is."""
        run = self._run
        if run is not None and not run.dead:
            await _outcome(run.ended)

    async def cancel(self) -> None:
        """Cancel the running call, if there is one, and wait until it has cleaned up."""
        run = self._run
        if run is not None and not run.ended.done():
            run.abandoned = True
            await _stopped(run)

    def _enter(self) -> _Run[T] | None:
        """The run to wait for, or None if one is being abandoned and has to end first."""
        with self._lock:
            run = self._run
            begins = run is None or run.ended.done() or run.dead
            if begins:
                run = self._run = _Run()
            assert run is not None
            if run.abandoned:
                return None
            run.callers += 1
        if begins:
            run.start(self._call())
        return run

    def _leave(self, run: _Run[T]) -> bool:
        """Count a caller out; says whether the call has to be cancelled now."""
        with self._lock:
            run.callers -= 1
            if run.callers or run.future.done() or self._keep_running:
                return False
            run.abandoned = True
            return True

    def _after_fork(self) -> None:
        """In a child process the parent's loops do not run."""
        self._lock = threading.Lock()
        self._run = None


def _finish(run: _Run[T], task: asyncio.Task[T]) -> None:
    """Hand the outcome to all callers; a callback, because a task cancelled early never runs."""
    if task.cancelled() and task.cancelling() and not run.abandoned:
        run.future.set_exception(_LoopEnded())
    elif task.cancelled():
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


async def _stopped(run: _Run[Any]) -> None:
    if run.task is not None:
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended with it
            run.task.get_loop().call_soon_threadsafe(run.task.cancel)
    if not run.dead:
        await _outcome(run.ended)
