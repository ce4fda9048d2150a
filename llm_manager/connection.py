"""The connection of one provider: opening it, judging it by evidence, healing it, ending it.

Evidence decides the status.  Every answer and every failure of a real request counts, and so does
a probe; configuration alone proves nothing.  Evidence carries the epoch it was gathered in: what
an old request learns after a restart changes nothing.

What this file must not do: send requests of its own choice that cost money, or run anything in the
background while the provider is disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Literal

from .emitter import EventEmitter
from .errors import (
    LLMError,
    ProviderConnectionError,
    ProviderError,
    RateLimitError,
    RequestCancelledError,
    RequestTimeoutError,
    as_llm_error,
)
from .events import HealthCheck, StatusChanged
from .machine import StatusMachine
from .messages import LLMRequest
from .shared import SharedCall
from .status import (
    ErrorInfo,
    ProviderStatus,
    Reason,
    is_hard_failure,
    is_permanent,
    is_soft_failure,
    reason_of,
)
from .stream import LLMStream
from .supervisor import Backoff, Supervisor

Step = Callable[[], Coroutine[Any, Any, None]]
Wait = Literal["attempt", "ready", "none"]
S = ProviderStatus

# After this many soft failures (time-outs, 5xx) in a row a connection counts as lost.
FAILURE_THRESHOLD = 3
# Evidence younger than this is believed without asking again.
FRESH_S = 30.0
# Who asks whether a provider is available waits no longer than this.
AVAILABLE_S = 5.0


class Connection:
    """Keeps one provider's status true.

    Args:
        emitter, machine: where changes are written and announced.
        open: gets ready to send; called once per connection.
        close: releases what ``open`` took.
        probe: asks the provider something cheap; returns whether it has a model to offer, or None
            if that cannot be known.
        backoff: waits between attempts to reconnect.
        probe_timeout_s: how long a probe may take, in seconds.
    """

    def __init__(
        self,
        emitter: EventEmitter,
        machine: StatusMachine,
        *,
        open: Step,
        close: Step,
        probe: Callable[[], Coroutine[Any, Any, bool | None]],
        backoff: Backoff,
        probe_timeout_s: float = 10.0,
    ) -> None:
        self._emitter = emitter
        self._machine = machine
        self._open_provider = open
        self._close_provider = close
        self._probe_provider = probe
        self._probe_timeout_s = probe_timeout_s
        self._opened = False
        self._closing = self._tries_unseen = False
        self._opening: SharedCall[None] = SharedCall(self._open)
        self._attempt: SharedCall[None] = SharedCall(self._try_once)
        self._trial: SharedCall[None] = SharedCall(self._try_unseen)
        self._stopping: SharedCall[None] = SharedCall(self._stop, keep_running=True)
        self._drain_until_s = 0.0
        self._supervisor = Supervisor(emitter, machine, self._attempt.join, backoff)
        self._streams: weakref.WeakValueDictionary[str, LLMStream] = weakref.WeakValueDictionary()
        self._drained: list[asyncio.Future[None]] = []
        self._arriving = 0
        self._soft_failures = 0
        self._verified_s: float | None = None
        self._last_error: LLMError | None = None

    @property
    def status(self) -> ProviderStatus:
        return self._machine.state.status

    # ---- verbs -----------------------------------------------------------------------------------

    async def connect(self, *, wait: Wait = "attempt", timeout_s: float | None = None) -> None:
        """See `BaseLLMProvider.connect`."""
        await self._stopping.settled()
        self._refuse_if_closed()
        if self.status.usable:
            return
        if wait == "none":
            self._supervisor.run(self._attempt.join(), "connect")
            return
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    await self._attempt.join()
                except LLMError:
                    if wait == "attempt" or self.status is not S.RECONNECTING:
                        raise
                    await self._until_settled()
        except TimeoutError:
            raise RequestTimeoutError(
                f"not connected within {timeout_s:g} s", code="connect_timeout"
            ) from None
        finally:
            await self._emitter.flush(synchronous_only=True)

    async def is_available(self) -> bool:
        """See `BaseLLMProvider.is_available`."""
        if self.status in (S.CLOSED, S.DRAINING):
            return False
        self._end_cooldown_if_due()
        age_s = math.inf if self._verified_s is None else monotonic() - self._verified_s
        if self.status.usable and age_s < FRESH_S:
            return True
        seen = self.status.live and self.status is not S.FAILED
        epoch = self._machine.state.epoch
        try:
            async with asyncio.timeout(AVAILABLE_S):
                await (self._attempt if seen else self._trial).join()
        except TimeoutError:
            if seen:
                self.failed(RequestTimeoutError(f"no answer within {AVAILABLE_S:g} s"), epoch)
            return False
        except LLMError:
            return False
        return True

    async def disconnect(self, *, drain_timeout_s: float) -> None:
        """See `BaseLLMProvider.disconnect`."""
        if self.status in (S.DISCONNECTED, S.CLOSED) and not self._stopping.running:
            # It may have ended with the loop of its supervisor, which closed nothing.
            if self._opened:
                await self._undo_open()
            return
        until_s = monotonic() + drain_timeout_s
        self._drain_until_s = (
            min(self._drain_until_s, until_s) if self._stopping.running else until_s
        )
        self._notify_drained()
        await self._stopping.join()
        await self._emitter.flush(synchronous_only=True)

    async def close(self, *, drain_timeout_s: float) -> None:
        """See `BaseLLMProvider.close`."""
        # Nobody may connect between the one step and the other.
        self._closing = True
        try:
            await self.disconnect(drain_timeout_s=drain_timeout_s)
            self._machine.begin_epoch()
            if self.status is not S.CLOSED:
                self._machine.change(S.CLOSED, Reason.SHUTDOWN, error=None)
        finally:
            self._closing = False
        await self._emitter.flush(synchronous_only=True)

    def reconnect_now(self) -> None:
        """See `BaseLLMProvider.reconnect_now`."""
        self._supervisor.reconnect_now()

    # ---- requests --------------------------------------------------------------------------------

    def track(self, stream: LLMStream) -> None:
        """Remember a request so that a shutdown can end it; does not keep it alive."""
        self._streams[stream.request_id] = stream

    def supersede(self, request: LLMRequest) -> None:
        """End the running requests that ``request`` takes the place of."""
        key = request.options.supersede_key
        for stream in self._running_streams():
            if stream.request is not request and stream.request.options.supersede_key == key:
                stream.interrupt(
                    RequestCancelledError("a newer request took its place", code="superseded")
                )

    async def _arrive(self) -> None:
        """Wait until it is open; counted, so that nobody undoes the opening meanwhile."""
        self._arriving += 1
        try:
            await self._ensure_open()
        finally:
            self._arriving -= 1

    async def _ensure_open(self) -> None:
        """Open the provider if it is not open; proves nothing.

        Raises:
            ProviderConnectionError: it is draining or closed.
            LLMError: it cannot be opened.
        """
        # Looked at again after each wait, in which somebody may have disconnected or closed it.
        while True:
            self._refuse_if_closed()
            if self.status is S.DRAINING:
                raise ProviderConnectionError(
                    "it is shutting down and takes no new requests",
                    code="draining",
                    retryable=False,
                )
            if self._opened and self.status is not S.DISCONNECTED:
                return
            await self._trial.settled()
            await self._opening.join()

    async def begin_request(self) -> int:
        """Get ready for one request; returns the epoch that its evidence belongs to.

        A provider that is not connected is opened, and the request itself is the evidence.

        Raises:
            ProviderConnectionError: it is draining or closed.
            LLMError: it cannot be opened.
        """
        try:
            await self._arrive()
        except asyncio.CancelledError:
            await self.drop_if_unproven()
            raise
        if self.status is S.FAILED:
            # Somebody asks again, so something may have been repaired.
            self._begin(Reason.USER)
        with self._emitter.atomic():
            self._machine.measure(in_flight=self._machine.state.in_flight + 1)
            return self._machine.state.epoch

    def end_request(self) -> None:
        """Count a request out, whatever its outcome was."""
        with self._emitter.atomic():
            left = max(self._machine.state.in_flight - 1, 0)
            self._machine.measure(in_flight=left)
        if left == 0:
            self._notify_drained()

    async def drop_if_unproven(self) -> None:
        """Undo a connection whose only request was stopped before it could prove anything.

        "connecting" must not stay when nothing is being attempted any more.
        """
        if not self._attempt.running:
            await self._undo()

    @asynccontextmanager
    async def request(self) -> AsyncIterator[int]:
        """One exchange with the provider: opened before, counted, and evidence afterwards."""
        epoch = await self.begin_request()
        try:
            yield epoch
            self.succeeded(epoch)
        except LLMError as error:
            self.failed(error, epoch)
            raise
        finally:
            self.end_request()
            await self.drop_if_unproven()

    def listed(self, epoch: int, *, any_models: bool) -> None:
        """The model list was read: a provider without a model is not of much use."""
        if not any_models and self.status is S.CONNECTED:
            self._usable(S.DEGRADED, Reason.NO_MODELS, epoch)

    def succeeded(self, epoch: int) -> None:
        """A request was answered: the provider is usable."""
        state = self._machine.state
        if epoch != state.epoch:
            self._machine.stale_evidence += 1
            return
        self._soft_failures = 0
        self._verified_s = monotonic()
        if state.status is S.CONNECTED:
            self._machine.measure(verified_at=datetime.now(UTC))
        elif state.status in (S.CONNECTING, S.RECONNECTING, S.DEGRADED):
            self._usable(S.CONNECTED, Reason.RECOVERED, epoch)

    def failed(self, error: LLMError, epoch: int) -> None:
        """A request failed: what does that say about the provider?"""
        if epoch != self._machine.state.epoch:
            self._machine.stale_evidence += 1
        elif isinstance(error, RequestCancelledError):
            pass  # says nothing about the provider
        elif error.code == Reason.UNEXPECTED:
            if self.status is S.CONNECTING:
                self._judge(error, epoch)
        elif not isinstance(error, ProviderError):
            if is_permanent(error):
                self._judge(error, epoch)
        elif isinstance(error, RateLimitError):
            self._cool_down(error, epoch)
        elif is_permanent(error):
            # A request may be forbidden what others may do; quota and key concern all of them.
            if self._verified_s is not None and error.code != Reason.QUOTA_EXHAUSTED:
                self._settle()
            else:
                self._judge(error, epoch)
        elif is_hard_failure(error):
            self._judge(error, epoch)
        elif is_soft_failure(error):
            self._soft_failures += 1
            if self._soft_failures >= FAILURE_THRESHOLD or self.status is S.CONNECTING:
                self._judge(error, epoch)
            elif self.status.usable:
                self._settle()  # a server that was killed looks like one that stumbled
        else:
            self.succeeded(epoch)  # it answered, though not what was hoped for

    # ---- one attempt -----------------------------------------------------------------------------

    async def _open(self) -> None:
        """Open the provider once; a failure is judged, what is half open is closed."""
        await self._stopping.settled()
        while self._tries_unseen and self._trial.running:
            await self._trial.settled()
        self._refuse_if_closed()
        if self.status in (S.DISCONNECTED, S.FAILED):
            self._begin(Reason.STARTUP if self.status is S.DISCONNECTED else Reason.USER)
        if self._opened:
            return
        epoch = self._machine.state.epoch
        try:
            await self._open_provider()
        except asyncio.CancelledError:
            if not self._attempt.running and not self._is_awaited():
                # Whoever waited for it may have been cancelled twice, and gone before this ended.
                self._give_up()
            await self._undo_open()
            raise
        except Exception as error:  # noqa: BLE001 - a provider's author may raise anything
            known = as_llm_error(error).in_context(provider_id=self._machine.state.provider_id)
            await self._undo_open()
            self._judge(known, epoch)
            raise known from None if known is error else error
        self._opened = True

    async def _try_once(self) -> None:
        """Open and probe; the outcome becomes the status."""
        await self._trial.settled()
        self._refuse_if_closed()
        if self.status in (S.DISCONNECTED, S.FAILED):
            self._begin(Reason.USER)
        try:
            await self._opening.join()
        except asyncio.CancelledError:
            await self._undo()
            raise
        epoch = self._machine.state.epoch
        try:
            has_models = await self._probe()
        except RateLimitError as error:
            self._cool_down(error, epoch)
            return
        except LLMError as error:
            if self.status.usable and is_soft_failure(error):
                self.failed(error, epoch)  # one slow answer to a probe proves little
            else:
                self._judge(error, epoch)
            raise
        except asyncio.CancelledError:
            await self._undo()
            raise
        if epoch != self._machine.state.epoch:
            # It began anew meanwhile; whoever did that may have gone again.
            await self._undo()
            return
        self._verified_s = monotonic()
        self._soft_failures = 0
        if has_models is False:
            self._usable(S.DEGRADED, Reason.NO_MODELS, epoch)
        else:
            self._usable(S.CONNECTED, Reason.RECOVERED, epoch)

    async def _try_unseen(self) -> None:
        """Probe a provider that is not connected, and leave its status as it is."""
        while self._opening.running:
            await self._opening.settled()
        if self._opened:
            await self._probe()
            return
        # From here on, whoever wants to open waits: two that open would each forget the other's.
        self._tries_unseen = True
        try:
            await self._open_provider()
            await self._probe()
        except LLMError:
            raise
        except Exception as error:  # a provider's author may raise anything
            raise as_llm_error(error) from error
        finally:
            try:
                await self._undo_open()
            finally:
                self._tries_unseen = False

    async def _probe(self) -> bool | None:
        provider_id = self._machine.state.provider_id
        publish = self._emitter.publish
        publish(HealthCheck(provider_id=provider_id, phase="started"))
        began_s = monotonic()

        def latency_ms() -> float:
            return round((monotonic() - began_s) * 1000, 3)

        try:
            async with asyncio.timeout(self._probe_timeout_s):
                has_models = await self._probe_provider()
        except TimeoutError:
            failure: LLMError = RequestTimeoutError(
                f"no answer to a probe within {self._probe_timeout_s:g} s"
            )
        except Exception as error:  # noqa: BLE001 - a provider's author may raise anything
            failure = as_llm_error(error)
        else:
            self._machine.measure(latency_ms=latency_ms(), verified_at=datetime.now(UTC))
            publish(
                HealthCheck(provider_id=provider_id, phase="succeeded", latency_ms=latency_ms())
            )
            return has_models
        publish(
            HealthCheck(
                provider_id=provider_id,
                phase="failed",
                latency_ms=latency_ms(),
                error=ErrorInfo.of(failure),
            )
        )
        raise failure.in_context(provider_id=provider_id)

    # ---- what evidence does to the status --------------------------------------------------------

    def _begin(self, reason: Reason) -> None:
        self._machine.begin_epoch()
        self._verified_s, self._soft_failures = None, 0
        self._machine.change(
            S.CONNECTING, reason, error=None, attempt=0, retry_at=None, cooldown_until=None
        )

    def _usable(self, status: ProviderStatus, reason: Reason, epoch: int) -> None:
        changed = self._machine.change(
            status,
            reason,
            epoch=epoch,
            error=None,
            attempt=0,
            retry_at=None,
            cooldown_until=None,
            verified_at=datetime.now(UTC),
        )
        if changed:
            self._supervisor.usable()

    def _judge(self, error: LLMError, epoch: int) -> None:
        """The connection does not work: for good, or until it heals."""
        self._last_error = error
        info = ErrorInfo.of(error)
        # A probe is a request that every such server takes: a refusal means the wrong address.
        wrong_address = not error.retryable and 300 <= (error.http_status or 0) < 500
        if is_permanent(error) or wrong_address or error.code == Reason.UNEXPECTED:
            known = is_permanent(error) or error.code == Reason.UNEXPECTED
            reason = reason_of(error) if known else Reason.INVALID_CONFIG
            self._machine.change(S.FAILED, reason, epoch=epoch, error=info, retry_at=None)
            return
        self._machine.change(S.RECONNECTING, reason_of(error), epoch=epoch, error=info)
        state = self._machine.state
        if state.status is S.RECONNECTING and state.epoch == epoch:
            self._supervisor.lost(epoch)  # not only for a change: who tried may have gone

    def _cool_down(self, error: RateLimitError, epoch: int) -> None:
        """A rate limit proves that the provider is there; it wants to be left alone for a while."""
        wait_s = error.retry_after_s or 0.0
        until = datetime.now(UTC) + timedelta(seconds=wait_s) if wait_s else None
        earlier = self._machine.state.cooldown_until
        if until is None or (earlier is not None and earlier > until):
            until = earlier
        changed = self._machine.change(
            S.DEGRADED,
            Reason.RATE_LIMITED,
            epoch=epoch,
            error=ErrorInfo.of(error),
            cooldown_until=until,
            attempt=0,
            retry_at=None,
        )
        if changed and wait_s and until is not None:
            self._supervisor.run(self._cooled_down(wait_s, until, epoch), "cooldown")

    def _end_cooldown_if_due(self) -> None:
        """Do what the timer would have done, if its loop has gone."""
        state = self._machine.state
        if state.cooldown_until is not None and state.cooldown_until <= datetime.now(UTC):
            self._usable(S.CONNECTED, Reason.RECOVERED, state.epoch)

    async def _cooled_down(self, wait_s: float, until: datetime, epoch: int) -> None:
        await asyncio.sleep(wait_s)
        state = self._machine.state
        if state.status is S.DEGRADED and state.cooldown_until == until:
            self._usable(S.CONNECTED, Reason.RECOVERED, epoch)

    # ---- in the background -----------------------------------------------------------------------

    def _settle(self) -> None:
        """Find out by a probe what a request could not tell."""
        if not self._attempt.running:
            self._supervisor.run(self._attempt.join(), "probe")

    async def _until_settled(self) -> None:
        """Wait until reconnecting has ended, one way or another."""
        ended = asyncio.Event()

        def look(event: StatusChanged) -> None:
            if event.current.status not in (S.CONNECTING, S.RECONNECTING):
                ended.set()

        with self._emitter.subscribe(look):
            await ended.wait()
        if self.status is S.FAILED and self._last_error is not None:
            raise self._last_error
        if not self.status.usable:
            raise RequestCancelledError(f"it was stopped and is {self.status}")

    # ---- the end ---------------------------------------------------------------------------------

    async def _stop(self) -> None:
        reason = Reason.USER
        if self._machine.state.in_flight == 0:
            self._drain_until_s = 0.0
        self._machine.begin_epoch()
        if self.status is not S.DISCONNECTED:
            self._machine.change(S.DRAINING, reason, error=None, attempt=0, retry_at=None)
        try:
            self._supervisor.stop()
            await self._attempt.cancel()
            await self._opening.cancel()
            while (left_s := self._drain_until_s - monotonic()) > 0 and await self._busy(left_s):
                pass
            if self._machine.state.in_flight:
                reason = Reason.DRAIN_TIMEOUT
                for stream in self._running_streams():
                    stream.interrupt(
                        RequestCancelledError("the provider was disconnected", code="draining")
                    )
                await self._busy(1.0)
        finally:
            try:
                await self._undo_open()
            finally:
                self._machine.change(S.DISCONNECTED, reason, cooldown_until=None)

    def _running_streams(self) -> list[LLMStream]:
        # Other threads add to the dictionary, and garbage collection takes from it.
        streams = [reference() for reference in self._streams.valuerefs()]
        return [s for s in streams if s is not None and s.running]

    async def _busy(self, timeout_s: float) -> bool:
        """Wait until no request runs, `disconnect` is called again, or the time is up."""
        if self._machine.state.in_flight == 0:
            return False
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drained.append(changed)
        await asyncio.wait([changed], timeout=timeout_s)
        return self._machine.state.in_flight > 0

    def _notify_drained(self) -> None:
        waiting, self._drained = self._drained, []
        for future in waiting:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                future.get_loop().call_soon_threadsafe(_resolve, future)

    async def _undo(self) -> None:
        """The last one who wanted the connection has gone: leave nothing behind."""
        if self._is_awaited() or self._opening.running:
            return
        # The status first: a second cancellation may come while it is closed.
        if self._give_up():
            await self._undo_open()

    def _give_up(self) -> bool:
        """Say that nobody tries to connect any more; says whether anybody did."""
        tried = self.status is S.CONNECTING
        if tried:
            self._machine.change(S.DISCONNECTED, Reason.USER)
        return tried

    def _is_awaited(self) -> bool:
        """Whether a request is under way, or waits until it can be."""
        return bool(self._arriving or self._machine.state.in_flight)

    async def _undo_open(self) -> None:
        self._opened = False
        try:
            await self._close_provider()
        except Exception as error:  # noqa: BLE001 - closing must go on; whoever listens is told
            self._supervisor.report(error, "close")

    def _refuse_if_closed(self) -> None:
        if self._closing or self.status is S.CLOSED:
            raise self.closed_error()

    def closed_error(self) -> ProviderConnectionError:
        """What is raised at whoever wants something of a closed provider."""
        return ProviderConnectionError(
            "it is closed",
            code="closed",
            retryable=False,
            provider_id=self._machine.state.provider_id,
            hint="make a new provider",
        )


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
