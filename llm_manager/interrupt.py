"""Ends an await from outside, with an error of our choice.

What `asyncio.timeout` does for a clock, `Interrupter` does for anything: a Stop button in another
thread, a clock that may only run while we wait, a shutdown.  One object serves one request; only
the code between ``with`` is ever cancelled, never what the caller does in between.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Interrupter:
    """Guards awaits of one request::

    with interrupter:
        delta = await deltas.__anext__()     # `interrupt(error)` raises ``error`` here
    """

    __slots__ = ("_before", "_cancelled", "_task", "error", "loop")

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._task: asyncio.Task[Any] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop it was first used on, or None."""
        self._cancelled = False
        self._before = 0

    @property
    def waiting(self) -> bool:
        """Whether a guarded await is running now."""
        return self._task is not None

    def interrupt(self, error: Exception) -> None:
        """Make the running guarded await, or else the next one, raise ``error``.

        Safe from any thread; only the first error counts.
        """
        loop = self.loop
        if loop is None or asyncio._get_running_loop() is loop:
            self._interrupt(error)
            return
        try:
            loop.call_soon_threadsafe(self._interrupt, error)
        except RuntimeError:  # the loop is closed, and what ran on it has ended with it
            self.error = self.error or error

    def _interrupt(self, error: Exception) -> None:
        if self.error is not None:
            return
        self.error = error
        task = self._task
        # A task that interrupts itself is not waiting; it sees the error when it next waits.
        if task is not None and task is not asyncio.current_task():
            self._cancelled = True
            task.cancel()

    def __enter__(self) -> None:
        if self.error is not None:
            raise self.error
        task = asyncio.current_task()
        if self.loop is None and task is not None:
            self.loop = task.get_loop()
        if task is not None:
            self._before = task.cancelling()
        self._task = task

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        task, self._task = self._task, None
        if self._cancelled and task is not None:
            self._cancelled = False
            # Somebody else's cancellation, at the same time as ours, has to stay one.
            if task.uncancel() <= self._before and kind is asyncio.CancelledError:
                assert self.error is not None
                raise self.error from None
