"""Ends an await from outside, with an error of our choice.

What `asyncio.timeout` does for a clock, `Interrupter` does for anything: a Stop button in another
thread, a clock that may only run while we wait, a shutdown.  One object serves one request; only
the code between ``with`` is ever cancelled, never what the caller does in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class Step(Protocol[R_co]):
    """What can be advanced like a coroutine; its result is the value of a `StopIteration`."""

    def send(self, value: Any, /) -> Any:
        """Go on until it has to wait."""

    def throw(self, error: BaseException, /) -> Any:
        """Go on with an error."""

    def close(self) -> None:
        """Leave it where it is."""

    def __await__(self) -> Generator[Any, Any, R_co]: ...


class Interrupter:
    """Guards awaits of one request::

    with interrupter:
        delta = await deltas.__anext__()     # `interrupt(error)` raises ``error`` here

    It is the await that raises: whoever guards again and again looks at ``error`` before.

    Attributes:
        error: what it was interrupted with, or None.
        loop: the loop it was first used on, or None.
    """

    __slots__ = ("_before", "_cancelled", "_task", "error", "loop")

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
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
        if self.error is not None:
            return
        # First the error, then a look at the loop; `__enter__` does it the other way round.  So
        # whichever thread is faster, one of them sees what the other has done.
        self.error = error
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, its awaits have ended
                self.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        """Runs between two steps of the task, so it never cancels one that does not wait."""
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()

    async def rest(self, step: Step[T], waiting: object) -> T:
        """The outcome of a step that was begun with ``step.send(None)`` and has to wait.

        A step that need not wait is over after that, and needs no guard: most pieces of an answer
        arrive together with the one before.

        Args:
            step: an awaitable whose first ``send`` has returned.
            waiting: what it returned.
        """
        with self:
            return await _Begun(step, waiting)

    def __enter__(self) -> None:
        # Asking for the running loop is what takes time in `current_task`, and it is known.
        task = asyncio.current_task(self.loop)
        if self.loop is None and task is not None:
            self.loop = task.get_loop()
        if task is not None:
            self._before = task.cancelling()
        self._task = task
        if self.error is not None and self.loop is not None:
            # What is guarded may have begun; it ends as if it had been waiting already.
            self.loop.call_soon(self._cancel)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        task, self._task = self._task, None
        if self._cancelled and task is not None:
            self._cancelled = False
            # Somebody else's cancellation, at the same time as ours, has to stay one.
            if task.uncancel() <= self._before and kind is asyncio.CancelledError:
                assert self.error is not None
                raise self.error from None


class _Begun(Generic[T]):
    """Awaits a step that somebody else has begun."""

    __slots__ = ("_step", "_waiting")

    def __init__(self, step: Step[T], waiting: object) -> None:
        self._step = step
        self._waiting = waiting

    def __await__(self) -> Generator[Any, Any, T]:
        step, waiting = self._step, self._waiting
        try:
            while True:
                try:
                    value = yield waiting
                except GeneratorExit:
                    step.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - it is the step's to deal with
                    waiting = step.throw(error)
                else:
                    waiting = step.send(value)
        except StopIteration as done:
            result: T = done.value
            return result
