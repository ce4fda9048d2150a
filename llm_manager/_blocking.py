"""Synchronous calls: one background loop behind all of them.

Code without an event loop calls ``run_sync(provider.connect())``, and reads what comes piece by
piece with `SyncIterator`.  The work runs on one daemon thread that lives as long as the process, so
connections are kept from call to call.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing
from queue import SimpleQueue
from typing import Generic, Self, TypeVar

from ._threads import LoopThread
from .errors import RequestCancelledError, RequestTimeoutError
from .subscription import on_dispatcher_thread

T = TypeVar("T")

_worker = LoopThread("llm_manager-sync")
# How far reading runs ahead of the reader, in items, and when it goes on after that.  Waking the
# other thread costs more than a hundred items do, so it is not done for a few.
_AHEAD = 256
_GO_ON = 64


def run_sync(
    work: Awaitable[T], timeout_s: float | None = None, *, even_on_loop: bool = False
) -> T:
    """Run ``work`` to its end and return its result; for threads without an event loop.

    Args:
        work: a coroutine, or an `LLMStream`.
        timeout_s: cancel it after so many seconds; None waits for its own time limits.
        even_on_loop: also where an event loop runs, which stands still meanwhile: for a notebook.

    Raises:
        RuntimeError: called where waiting would freeze an event loop or wait for itself.
        RequestTimeoutError: ``timeout_s`` is over.
        RequestCancelledError: the interpreter ends.
    """
    problem = _why_not_here(even_on_loop)
    if problem is not None:
        if inspect.iscoroutine(work):
            work.close()
        raise RuntimeError(problem)

    async def run() -> T:
        return await work

    future = asyncio.run_coroutine_threadsafe(run(), _worker.loop)
    try:
        return future.result(timeout_s)
    except concurrent.futures.TimeoutError:
        if future.done():
            raise
        future.cancel()
        raise RequestTimeoutError(f"not done within {timeout_s:g} s") from None
    except concurrent.futures.CancelledError:
        raise RequestCancelledError("the interpreter is shutting down") from None
    except BaseException:  # Ctrl-C while waiting: the work must not go on alone
        future.cancel()
        raise


class SyncIterator(Iterator[T]):
    """The items of an asynchronous generator, for a thread that waits for each.

    It runs on the background loop, from the first `next` on, and at most some hundred items ahead
    of the reader: then it stands still, and whoever sends to it has to wait.  `close`, the end of
    a ``with`` block, and dropping the object close the generator.  An error that it raises is
    raised where the items before it have been read.

    Args:
        source: the generator; it must not refer to this object.

    Raises:
        RuntimeError: by `next`, where waiting would wait for itself.
        RequestCancelledError: by `next`, when the interpreter ends, and in a forked process, to
            which the work does not belong.
    """

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._source = source
        self._feed: _Feed[T] | None = None
        self._over = False
        self._lock = threading.Lock()  # two threads may begin to read at once

    def __next__(self) -> T:
        feed = self._feed or self._started()
        if self._over or feed is None:
            raise StopIteration
        try:
            item = feed.next()
        except BaseException:  # Ctrl-C while waiting: the work must not go on alone
            self.close()
            raise
        if type(item) is not _End:
            return item  # type: ignore[return-value]
        self._over = True
        feed.put_back(item)  # for another thread that waits
        if item.error is not None:
            raise item.error
        self._was_read()
        raise StopIteration

    def _started(self) -> _Feed[T] | None:
        problem = _why_not_here(even_on_loop=True)
        if problem is not None:
            raise RuntimeError(problem)
        with self._lock:
            if self._feed is None and not self._over:
                self._feed = _Feed(self._source)
            return self._feed

    def close(self) -> None:
        """Close the generator, from any thread; `next` has nothing more to give."""
        with self._lock:
            self._over, feed = True, self._feed
        if feed is not None:
            feed.stop()

    def _was_read(self) -> None:
        """All of it has been read, and not only been produced."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class _End:
    """Stands behind the last item."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Feed(Generic[T]):
    """What a reader and the loop share; it does not know the reader, who can thus be dropped."""

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._items: SimpleQueue[T | _End] = SimpleQueue()
        self._is_full = False
        self._stopped = False
        self._error: BaseException | None = None
        self._room = asyncio.Event()
        self._process = os.getpid()
        self._loop = _worker.loop
        self._filling = asyncio.run_coroutine_threadsafe(self._fill(source), self._loop)
        self._filling.add_done_callback(self._end)

    def next(self) -> T | _End:
        """The next item, as soon as there is one."""
        if self._items.empty():
            self._check_that_more_can_come()
        item = self._items.get()
        if self._is_full and self._items.qsize() <= _GO_ON:
            self._is_full = False
            self._loop.call_soon_threadsafe(self._room.set)
        return item

    def put_back(self, end: _End) -> None:
        """Let other readers see the end, too."""
        self._items.put(end)

    def stop(self) -> None:
        """End it, whatever it does."""
        self._stopped = True
        if os.getpid() == self._process:
            self._filling.cancel()

    def _check_that_more_can_come(self) -> None:
        if os.getpid() != self._process:
            raise RequestCancelledError("this was being read by the process that forked this one")
        if _worker.is_current:
            raise RuntimeError("this is read by work on the loop that feeds it; use a thread")

    async def _fill(self, source: AsyncGenerator[T, None]) -> None:
        items = self._items
        try:
            async with aclosing(source):
                async for item in source:
                    items.put(item)
                    if items.qsize() >= _AHEAD:
                        await self._room_for_more()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised at the reader
            self._error = error

    async def _room_for_more(self) -> None:
        self._room.clear()
        self._is_full = True
        # Only now does the reader know that we wait; it may have read everything before.
        if self._items.qsize() > _GO_ON:
            await self._room.wait()

    def _end(self, filling: concurrent.futures.Future[None]) -> None:
        if filling.cancelled():
            why = (
                "closed while it was read" if self._stopped else "the interpreter is shutting down"
            )
            self._error = RequestCancelledError(why)
        self._items.put(_End(self._error))


def _why_not_here(even_on_loop: bool) -> str | None:
    if _worker.is_current:
        return "run_sync() was called by work that run_sync() runs; it would wait for itself"
    if on_dispatcher_thread():
        return "run_sync() was called by a listener; it would hold up all events: use a thread"
    if not even_on_loop and asyncio._get_running_loop() is not None:
        return "run_sync() was called where an event loop runs; it would freeze it: use await"
    return None
