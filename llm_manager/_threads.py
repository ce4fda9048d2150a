"""Daemon threads with an event loop of their own, started when they are first needed; and forks.

The library starts at most two threads: one delivers events to listeners that were registered where
no loop runs, the other runs the work behind synchronous calls.  They must be two, because a
listener may block the first one for as long as it likes.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from typing import Protocol


class Resettable(Protocol):
    """Something that a child process cannot use as its parent left it."""

    def _after_fork(self) -> None:
        """Begin anew; other threads of the parent may have held every lock."""


_resettable: weakref.WeakSet[Resettable] = weakref.WeakSet()
_abandoned: list[asyncio.AbstractEventLoop] = []


def reset_after_fork(thing: Resettable) -> None:
    """Call ``thing._after_fork()`` in every child process that is forked while it lives."""
    _resettable.add(thing)


class LoopThread:
    """One lazily started daemon thread that runs an event loop until the interpreter ends."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        reset_after_fork(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; starts the thread if it does not run yet.

        Raises:
            RuntimeError: no thread can be started, at the end of the interpreter for example.
        """
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run, args=(loop,), name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    loop.close()
                    raise
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

    def _after_fork(self) -> None:
        """Forget the thread: only the forking one exists in the child.

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
        while not _stopped(loop):
            pass  # somebody's sys.exit() must not end a thread that others need
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _stopped(loop: asyncio.AbstractEventLoop) -> bool:
    """Run ``loop``; says whether it was stopped, and not left by an exit."""
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt):
        return False
    return True


def _after_fork() -> None:
    for thing in list(_resettable):
        thing._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
