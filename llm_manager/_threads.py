"""A daemon thread with an event loop of its own, started when it is first needed.

The library starts at most two: one delivers events to listeners that were registered where no
loop runs, the other runs the work behind synchronous calls.  They must be two, because a listener
may block the first one for as long as it likes.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref

_all: weakref.WeakSet[LoopThread] = weakref.WeakSet()
_abandoned: list[asyncio.AbstractEventLoop] = []


class LoopThread:
    """One lazily started daemon thread that runs an event loop until the interpreter ends."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        _all.add(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; starts the thread if it does not run yet."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run, args=(loop,), name=self._name, daemon=True)
                thread.start()
                atexit.register(self.stop)
                self._loop, self._thread = loop, thread
            return self._loop

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return self._thread is threading.current_thread()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread; it starts again when it is needed again.

        A thread that is stuck in somebody's code for longer than ``timeout_s`` is left behind.
        """
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        atexit.unregister(self.stop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout_s)

    def _forget(self) -> None:
        """After a fork only the forking thread exists: begin anew, without touching old locks.

        The parent's loop is kept for ever: closing or collecting it here would take its wake-up
        socket out of the epoll set that parent and child still share.
        """
        if self._loop is not None:
            _abandoned.append(self._loop)
        self._lock = threading.Lock()
        self._loop = self._thread = None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _after_fork() -> None:
    for thread in list(_all):
        thread._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
