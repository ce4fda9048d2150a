"""What goes on in the background of a connection: trying again, and telling what fails unseen.

Nothing here decides what a failure means; that is the connection's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import msgspec

from ._threads import reset_after_fork
from .checks import check_number
from .clock import SYSTEM_CLOCK, Clock, utc_now
from .emitter import EventEmitter
from .errors import RequestCancelledError, as_llm_error
from .events import ErrorOccurred, ReconnectScheduled
from .machine import StatusMachine
from .status import ErrorInfo, ProviderStatus, Reason

# Waits between attempts begin anew only after a connection has held for this long.
STABLE_S = 10.0


class Backoff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Waits between attempts to reconnect.

    Attributes:
        first_s: before the first attempt, in seconds.
        factor: by which it grows with each attempt.
        max_s: upper bound, in seconds.
        jitter: the share by which it is varied at random, so that many clients do not come at once.
    """

    first_s: float = 1.0
    factor: float = 1.6
    max_s: float = 60.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        check_number("first_s", self.first_s, low=0)
        check_number("factor", self.factor, low=1)
        check_number("max_s", self.max_s, low=0)
        check_number("jitter", self.jitter, low=0, high=1)

    def delay_s(self, attempt: int) -> float:
        """Seconds to wait before ``attempt``, counted from 1; never above ``max_s``."""
        # The exponent is bounded: after a weekend offline it would overflow.
        grown = self.first_s * self.factor ** min(attempt - 1, 64)
        spread = 1 + random.uniform(-self.jitter, self.jitter)
        return min(min(grown, self.max_s) * spread, self.max_s)


LOCAL_BACKOFF = Backoff(first_s=0.5, max_s=10.0)
"""For servers on this machine, which come back when somebody starts them."""


class Supervisor:
    """Background tasks of one connection, on the loops that they were started on.

    Args:
        emitter, machine: where things are announced.
        attempt: tries to connect once; raises an `LLMError` if it does not work.
        backoff: waits between attempts.
        clock: what time it is.
    """

    def __init__(
        self,
        emitter: EventEmitter,
        machine: StatusMachine,
        attempt: Callable[[], Coroutine[Any, Any, None]],
        backoff: Backoff,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._emitter = emitter
        self._machine = machine
        self._attempt = attempt
        self.backoff = backoff
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._healing: asyncio.Task[None] | None = None
        self._healing_epoch = -1
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._attempts = 0
        self._usable_since_s: float | None = None
        self._not_before_s = 0.0
        self._last_reported: ErrorInfo | None = None
        reset_after_fork(self)

    def usable(self) -> None:
        """The provider has become usable."""
        self._usable_since_s = self._clock.monotonic()
        self._last_reported = None

    def lost(self, epoch: int, *, wait_s: float = 0.0) -> None:
        """The provider cannot be used any more: try again until it can, or is stopped.

        Args:
            epoch: what this concerns.
            wait_s: leave it alone for at least so long, in seconds.
        """
        self._not_before_s = self._clock.monotonic() + wait_s
        healing = self._healing
        if healing is not None and not healing.done() and healing.get_loop().is_running():
            if self._healing_epoch == epoch:
                return
            _cancel(healing)
        since_s = self._usable_since_s
        if since_s is None or self._clock.monotonic() - since_s >= STABLE_S:
            self._attempts = 0
        self._healing, self._healing_epoch = self.run(self._heal(epoch), "reconnect"), epoch
        if self._healing is not None:
            self._healing.add_done_callback(lambda task: self._healed(task, epoch))

    def reconnect_now(self) -> None:
        """End the present wait and begin the waits anew; safe from any thread."""
        self._attempts, self._not_before_s = 0, 0.0
        if self._wake is not None:
            loop, event = self._wake
            with contextlib.suppress(RuntimeError):  # the loop is closed, nobody sleeps on it
                loop.call_soon_threadsafe(event.set)

    def run(self, work: Coroutine[Any, Any, None], operation: str) -> asyncio.Task[None] | None:
        """Run ``work`` beside everything else; what it raises becomes an ``error`` event."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                self.report(error, operation)

        try:
            task = asyncio.get_running_loop().create_task(work)
        except RuntimeError:  # called where no loop runs: the next request will tell
            work.close()
            return None
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task

    def report(self, error: Exception, operation: str) -> None:
        """Tell listeners about a background failure, once as long as it stays the same."""
        info = ErrorInfo.of(as_llm_error(error))
        if info != self._last_reported and not isinstance(error, RequestCancelledError):
            self._last_reported = info
            self._emitter.publish(
                ErrorOccurred(
                    provider_id=self._machine.state.provider_id, error=info, operation=operation
                )
            )

    def stop(self) -> None:
        """Cancel everything that runs in the background."""
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                _cancel(task)

    def _after_fork(self) -> None:
        """The parent's tasks do not run here, and asyncio need not complain that they never end."""
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks, self._healing, self._wake = set(), None, None

    async def _heal(self, epoch: int) -> None:
        """Try again and again, ever more rarely."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        wake = self._wake = (loop, event)
        try:
            while self._is_lost(epoch):
                self._attempts += 1
                to_wait_s = self._not_before_s - self._clock.monotonic()
                delay_s = max(self.backoff.delay_s(self._attempts), to_wait_s)
                self._announce(self._attempts, delay_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await event.wait()
                event.clear()
                if self._is_lost(epoch) and self._not_before_s <= self._clock.monotonic():
                    try:
                        await self._attempt()
                    except Exception as error:  # noqa: BLE001 - whatever it is, trying goes on
                        self.report(error, "reconnect")
        finally:
            if self._wake is wake:
                self._wake = None

    def _healed(self, task: asyncio.Task[None], epoch: int) -> None:
        """The loop ended and took the task with it: nobody tries any more."""
        if task.cancelled() and self._is_lost(epoch):
            self._machine.change(
                ProviderStatus.DISCONNECTED, Reason.SHUTDOWN, epoch=epoch, retry_at=None
            )

    def _is_lost(self, epoch: int) -> bool:
        state = self._machine.state
        return state.status is ProviderStatus.RECONNECTING and state.epoch == epoch

    def _announce(self, attempt: int, delay_s: float) -> None:
        retry_at = utc_now(self._clock) + timedelta(seconds=delay_s)
        with self._emitter.atomic():
            self._machine.change(attempt=attempt, retry_at=retry_at)
            self._emitter.publish(
                ReconnectScheduled(
                    provider_id=self._machine.state.provider_id,
                    attempt=attempt,
                    delay_s=delay_s,
                    retry_at=retry_at,
                    reason=self._machine.state.reason,
                )
            )


def _cancel(task: asyncio.Task[None]) -> None:
    with contextlib.suppress(RuntimeError):  # its loop is closed, and it with that
        task.get_loop().call_soon_threadsafe(task.cancel)
