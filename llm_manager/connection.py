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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Literal

from .clock import SYSTEM_CLOCK, Clock, utc_now
from .emitter import EventEmitter
from .errors import (
    LLMError,
    ProviderConnectionError,
    ProviderError,
    RateLimitError,
    RequestCancelledError,
    RequestTimeoutError,
    StreamInterruptedError,
    as_llm_error,
)
from .events import ConfigChanged, StatusChanged, SystemResumed
from .lease import Close, Lease, Ticket
from .machine import StatusMachine
from .messages import LLMRequest
from .probing import QUICK_S, Poller, Prober
from .shared import SharedCall
from .sleepwatch import Detector, watch_of
from .status import (
    ErrorInfo,
    ProviderStatus,
    Reason,
    is_evidence,
    is_hard_failure,
    is_permanent,
    is_soft_failure,
    reason_of,
)
from .stream import LLMStream
from .supervisor import Backoff, Supervisor

Step = Callable[[], Coroutine[Any, Any, None]]
Wait = Literal["attempt", "ready", "none"]
Circuit = Literal["closed", "open", "half_open"]
S = ProviderStatus

# After this many soft failures (time-outs, 5xx) in a row a connection counts as lost.
FAILURE_THRESHOLD = 3
# Evidence younger than this is believed without asking again.
FRESH_S = 30.0
# Who asks whether a provider is available waits no longer than this.
AVAILABLE_S = 5.0
# After a sleep, an answer that does not go on for so long is taken for dead.
RESUME_GRACE_S = 10.0
# Timers and the time of day agree to within this.
_NEARLY_S = 0.1


class Connection:
    """Keeps one provider's status true.

    Args:
        emitter, machine: where changes are written and announced.
        open: gets ready to send; called once per connection.
        close: releases what ``open`` took.
        probe: asks the provider something cheap; returns whether it has a model to offer, or None
            if that cannot be known.
        forget_idle: tells the provider that connections which wait for their next use are dead.
        is_watched: whether anybody listens to the provider.
        survives_sleep: whether its connections do, since they do not leave this machine.
        backoff: waits between attempts to reconnect.
        probe_interval_s: how often to look after an idle connection while somebody listens, in
            seconds; None: never, its next use will tell.
        probe_quick_s: a probe that takes longer shows that the provider is slow.
        clock: what time it is.
    """

    def __init__(
        self,
        emitter: EventEmitter,
        machine: StatusMachine,
        *,
        open: Step,
        close: Step,
        probe: Callable[[], Coroutine[Any, Any, bool | None]],
        forget_idle: Callable[[], None],
        is_watched: Callable[[], bool],
        survives_sleep: bool,
        backoff: Backoff,
        probe_interval_s: float | None = None,
        probe_quick_s: float = QUICK_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._emitter = emitter
        self._machine = machine
        self._open_provider = open
        self._close_provider = close
        self._forget_idle = forget_idle
        self._is_watched = is_watched
        self._survives_sleep = survives_sleep
        self._clock = clock
        self._sleep_watch = watch_of(clock)
        self._prober = Prober(emitter, machine, probe, self._pieces, clock, probe_quick_s)
        self._poller = Poller(self._look_after_it, probe_interval_s)
        self._polled_pieces = 0
        self._lease = Lease()
        self._replaced: list[Lease] = []
        self._refuses_answers = self._doubted = False
        self._left_alone_until: datetime | None = None
        self._opened = False
        self._closing = self._tries_unseen = False
        self._opening: SharedCall[None] = SharedCall(self._open)
        self._attempt: SharedCall[None] = SharedCall(self._try_once)
        self._trial: SharedCall[None] = SharedCall(self._try_unseen)
        self._stopping: SharedCall[None] = SharedCall(self._stop, keep_running=True)
        self._drain_until_s = 0.0
        self._supervisor = Supervisor(emitter, machine, self._attempt.join, backoff, clock)
        self._streams: weakref.WeakValueDictionary[str, LLMStream] = weakref.WeakValueDictionary()
        self._drained: list[asyncio.Future[None]] = []
        self._arriving = 0
        self.at_best: Callable[[], tuple[ProviderStatus, Reason] | LLMError | None] | None = None
        """For a provider that consists of others: how usable they leave it, why they do not, or
        None if they do not know.  Then it is they who are judged by their requests, and it by
        them; see `conclude`."""
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
        self._left_alone_until = None  # somebody wants to know
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
        self._sleep_watch.look()
        self._end_cooldown_if_due()
        age_s = math.inf if self._verified_s is None else self._clock.monotonic() - self._verified_s
        if self.status.usable and age_s < FRESH_S:
            return True
        seen = self.status.live and self.status is not S.FAILED
        epoch = self._machine.state.epoch
        try:
            async with asyncio.timeout(AVAILABLE_S):
                await (self._attempt if seen else self._trial).join()
        except TimeoutError:
            if seen:
                late = RequestTimeoutError(f"no answer within {AVAILABLE_S:g} s")
                self._probe_failed(late, epoch)
            return False
        except LLMError:
            return False
        return not seen or self.status.usable

    async def disconnect(self, *, drain_timeout_s: float) -> None:
        """See `BaseLLMProvider.disconnect`."""
        if self.status in (S.DISCONNECTED, S.CLOSED) and not self._stopping.running:
            # It may have ended with the loop of its supervisor, which closed nothing.
            if self._opened:
                await self._undo_open()
            return
        until_s = self._clock.monotonic() + drain_timeout_s
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
        self._left_alone_until = None
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

    def _arrive(self, change: int) -> None:
        """Count who waits until it is open, so that nobody undoes the opening meanwhile."""
        with self._emitter.atomic():
            self._arriving += change

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

    async def begin_request(self) -> Ticket:
        """Get ready for one request; returns what `end_request` wants back.

        A provider that is not connected is opened, and the request itself is the evidence.

        Raises:
            ProviderConnectionError: it is draining or closed.
            LLMError: it cannot be opened.
        """
        self._sleep_watch.look()
        self._arrive(+1)
        try:
            await self._ensure_open()
        except BaseException as error:  # also when cancelled, it is counted out
            self._arrive(-1)
            if isinstance(error, asyncio.CancelledError):
                await self.drop_if_unproven()
            raise
        if self.status is S.FAILED:
            # Somebody asks again, so something may have been repaired.
            self._begin(Reason.USER)
        ticket = Ticket()
        with self._emitter.atomic():
            self._machine.measure(in_flight=self._machine.state.in_flight + 1)
            ticket.renew(self._machine.state.epoch, self._lease)
            self._arrive(-1)
        return ticket

    def sends(self, ticket: Ticket) -> None:
        """A request is sent now, perhaps long after it began: by the settings of this moment."""
        with self._emitter.atomic():
            ticket.renew(self._machine.state.epoch, self._lease)

    def end_request(self, ticket: Ticket) -> None:
        """Count a request out, whatever its outcome was."""
        with self._emitter.atomic():
            left = max(self._machine.state.in_flight - 1, 0)
            self._machine.measure(in_flight=left)
            over = ticket.hand_back()
        if left == 0:
            self._notify_drained()
        for lease in over:
            self._supervisor.run(self._end_lease(lease), "close")

    async def drop_if_unproven(self) -> None:
        """Undo a connection whose only request was stopped before it could prove anything.

        "connecting" must not stay when nothing is being attempted any more.
        """
        if not self._attempt.running:
            await self._undo()

    @asynccontextmanager
    async def request(self) -> AsyncIterator[int]:
        """One exchange with the provider: opened before, counted, and evidence afterwards."""
        ticket = await self.begin_request()
        epoch = ticket.epoch
        try:
            yield epoch
            self.succeeded(epoch)
        except LLMError as error:
            self.failed(error, epoch)
            raise
        finally:
            self.end_request(ticket)
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
        self._proven()
        if state.status is S.CONNECTED:
            self._machine.measure(verified_at=utc_now(self._clock))
            self._poller.begin()
        elif state.status in (S.CONNECTING, S.RECONNECTING, S.DEGRADED):
            self._usable(S.CONNECTED, Reason.RECOVERED, epoch)

    def failed(self, error: LLMError, epoch: int) -> None:
        """A request failed: what does that say about the provider?"""
        if epoch != self._machine.state.epoch:
            self._machine.stale_evidence += 1
        elif self.at_best is not None:
            pass  # those it was passed on to have been judged by it
        elif isinstance(error, RequestCancelledError) or not is_evidence(error):
            pass  # says nothing about the provider
        elif self._machine.state.circuit == "open":
            pass  # many have failed already, and it is left alone
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
                self._doubted = True
                self._settle()
            else:
                self._judge(error, epoch)
        elif is_hard_failure(error):
            self._judge(error, epoch)
        elif is_soft_failure(error):
            if self.status is S.CONNECTING:
                self._judge(error, epoch)
            elif self.status.usable:
                self._settle()  # a server that was killed looks like one that stumbled
        else:
            self.succeeded(epoch)  # it answered, though not what was hoped for

    def conclude(self) -> None:
        """Take over what others show, of which it consists; see `at_best`."""
        verdict = None if self.at_best is None else self.at_best()
        epoch = self._machine.state.epoch
        if verdict is None:
            return
        if self.status is S.FAILED:
            if not isinstance(verdict, LLMError) or not is_permanent(verdict):
                self._settle()
        elif isinstance(verdict, LLMError):
            self._judge(verdict, epoch)
        elif self.status.live:
            self._proven()
            self._usable(*verdict, epoch)

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
        while not await self._open_once():
            pass
        self._opened = True

    async def _open_once(self) -> bool:
        """Whether it is open; if not, the settings are others than those that could not be."""
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
            if epoch != self._machine.state.epoch and self.status is S.CONNECTING:
                return False
            self._judge(known, epoch)
            raise known from None if known is error else error
        return True

    async def _try_once(self) -> None:
        """Open and probe; the outcome becomes the status."""
        await self._trial.settled()
        self._refuse_if_closed()
        if self.status in (S.DISCONNECTED, S.FAILED):
            self._begin(Reason.USER)
        while True:
            try:
                await self._opening.join()
                epoch, failure = self._machine.state.epoch, None
                try:
                    has_models = await self._prober.probe(epoch)
                except LLMError as error:
                    failure = error
            except asyncio.CancelledError:
                await self._undo()
                raise
            if epoch == self._machine.state.epoch:
                if failure is None or not self._is_first_doubt(failure):
                    break
            elif self.status not in (S.CONNECTING, S.RECONNECTING):
                # It began anew meanwhile; whoever did that may have gone again.
                await self._undo()
                return
            # Otherwise the settings are others now, and what counts is what they are worth.
        if failure is None:
            self._proven()
            if has_models is False:
                self._usable(S.DEGRADED, Reason.NO_MODELS, epoch)
            elif (self._machine.state.latency_ms or 0.0) > self._prober.quick_s * 1000:
                self._usable(S.DEGRADED, Reason.SLOW, epoch)
            else:
                self._usable(S.CONNECTED, Reason.RECOVERED, epoch)
        elif isinstance(failure, RateLimitError):
            self._cool_down(failure, epoch)
        else:
            self._probe_failed(failure, epoch)
            raise failure

    def _probe_failed(self, error: LLMError, epoch: int) -> None:
        """What says more than a request that failed; yet one late answer proves little."""
        soft = is_soft_failure(error)
        self._soft_failures += soft
        if soft and self._soft_failures < FAILURE_THRESHOLD and self.status.usable:
            self._settle_again()
        else:
            self._judge(error, epoch)

    def _is_first_doubt(self, error: LLMError) -> bool:
        """Whether a key that has worked is refused for the first time: that may be a mistake."""
        first = is_permanent(error) and self._verified_s is not None and not self._doubted
        self._doubted = self._doubted or first
        return first

    async def _try_unseen(self) -> None:
        """Probe a provider that is not connected, and leave its status as it is."""
        while self._opening.running:
            await self._opening.settled()
        if self._opened:
            await self._prober.probe(self._machine.state.epoch)
            return
        # From here on, whoever wants to open waits: two that open would each forget the other's.
        self._tries_unseen = True
        try:
            await self._open_provider()
            await self._prober.probe(self._machine.state.epoch)
        except LLMError:
            raise
        except Exception as error:  # a provider's author may raise anything
            raise as_llm_error(error) from error
        finally:
            try:
                await self._undo_open()
            finally:
                self._tries_unseen = False

    # ---- what evidence does to the status --------------------------------------------------------

    def _begin(self, reason: Reason) -> None:
        self._machine.begin_epoch()
        self._verified_s, self._soft_failures, self._doubted = None, 0, False
        self._machine.change(
            S.CONNECTING,
            reason,
            error=None,
            attempt=0,
            retry_at=None,
            cooldown_until=None,
            circuit="closed",
            rate_limits=None,
        )
        with contextlib.suppress(RuntimeError):  # where no loop runs nobody can look
            self._sleep_watch.begin(self)

    def _proven(self) -> None:
        self._verified_s = self._clock.monotonic()
        self._soft_failures, self._doubted = 0, False

    def _usable(self, status: ProviderStatus, reason: Reason, epoch: int) -> None:
        circuit: Circuit = "closed"
        verdict = None if self.at_best is None else self.at_best()
        if isinstance(verdict, LLMError):
            # One of them has answered, or did until a moment ago; together they are too few.
            self._judge_by(verdict, epoch)
            return
        status, reason = verdict or (status, reason)
        if self._machine.state.circuit != "closed" and self._refuses_answers:
            if self._is_left_alone():
                return
            # That it can be reached was never in doubt: one request has to find out more.
            status, reason, circuit = S.DEGRADED, Reason.CIRCUIT_HALF_OPEN, "half_open"
        changed = self._machine.change(
            status,
            reason,
            epoch=epoch,
            error=None,
            attempt=0,
            retry_at=None,
            cooldown_until=None,
            circuit=circuit,
            verified_at=utc_now(self._clock),
        )
        if changed:
            self._supervisor.usable()
        self._poller.begin()

    def _judge(self, error: LLMError, epoch: int) -> None:
        """The connection does not work: for good, or until it heals."""
        if self.at_best is not None and isinstance(verdict := self.at_best(), tuple):
            self._usable(*verdict, epoch)  # they have come back meanwhile
        else:
            self._judge_by(error, epoch)

    def _judge_by(self, error: LLMError, epoch: int) -> None:
        self._last_error = error
        info = ErrorInfo.of(error)
        # A probe is a request that every such server takes: a refusal means the wrong address.
        refused = not error.retryable and 300 <= (error.http_status or 0) < 500
        wrong_address = refused and error.code != Reason.CAPTIVE_PORTAL
        if is_permanent(error) or wrong_address or error.code == Reason.UNEXPECTED:
            known = is_permanent(error) or error.code == Reason.UNEXPECTED
            reason = reason_of(error) if known else Reason.INVALID_CONFIG
            self._machine.change(S.FAILED, reason, epoch=epoch, error=info, retry_at=None)
            return
        if is_hard_failure(error):
            # Whatever opened the circuit: now it is gone, and will be another when it is back.
            self._refuses_answers = False
        self._machine.change(S.RECONNECTING, reason_of(error), epoch=epoch, error=info)
        state = self._machine.state
        if state.status is S.RECONNECTING and state.epoch == epoch:
            self._supervisor.lost(epoch)  # not only for a change: who tried may have gone

    def _cool_down(self, error: RateLimitError, epoch: int) -> None:
        """A rate limit proves that the provider is there; it wants to be left alone for a while."""
        wait_s = error.retry_after_s or 0.0
        until = utc_now(self._clock) + timedelta(seconds=wait_s) if wait_s else None
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
        if state.cooldown_until is not None and state.cooldown_until <= utc_now(self._clock):
            self._usable(S.CONNECTED, Reason.RECOVERED, state.epoch)

    async def _cooled_down(self, wait_s: float, until: datetime, epoch: int) -> None:
        await asyncio.sleep(wait_s)
        state = self._machine.state
        if state.status is S.DEGRADED and state.cooldown_until == until:
            self._usable(S.CONNECTED, Reason.RECOVERED, epoch)

    # ---- the circuit; what opens it is a policy --------------------------------------------------

    def open_circuit(self, error: LLMError, retry_at: datetime) -> None:
        """Requests fail again and again: leave it alone until ``retry_at``."""
        # Where no connection was possible, the first one that is proves that things are better.
        self._refuses_answers = not is_hard_failure(error)
        self._left_alone_until = retry_at
        epoch = self._machine.state.epoch
        self._last_error = error
        self._machine.change(
            S.RECONNECTING,
            Reason.CIRCUIT_OPEN,
            epoch=epoch,
            error=ErrorInfo.of(error),
            circuit="open",
            retry_at=retry_at,
        )
        if self.status is S.RECONNECTING:
            wait_s = (retry_at - utc_now(self._clock)).total_seconds()
            self._supervisor.lost(epoch, wait_s=wait_s if self._refuses_answers else 0.0)

    def _is_left_alone(self) -> bool:
        """Whether the circuit is open and its time is not over; a probe is no proof then."""
        until = self._left_alone_until
        return until is not None and (until - utc_now(self._clock)).total_seconds() > _NEARLY_S

    def half_open_circuit(self) -> None:
        """One request is let through to find out whether things are better."""
        self._machine.change(circuit="half_open", epoch=self._machine.state.epoch)

    def close_circuit(self) -> None:
        """A request was answered as it should be."""
        self._refuses_answers = False
        state = self._machine.state
        if state.status in (S.DEGRADED, S.RECONNECTING) and state.circuit != "closed":
            self._usable(S.CONNECTED, Reason.RECOVERED, state.epoch)
        elif state.circuit != "closed":
            self._machine.change(circuit="closed", epoch=state.epoch)

    # ---- new settings ----------------------------------------------------------------------------

    async def reconfigure(
        self,
        prepare: Callable[[bool], Coroutine[Any, Any, Close | None]],
        *,
        keys: Iterable[str],
        reason: Reason,
        revision: int,
    ) -> None:
        """Go on with other settings; what runs ends with those it began with.

        Args:
            prepare: opens what the new settings need, if it is told to, then puts it in place of
                the old without waiting in between; returns what closes the old, or None if it
                did not, because others were faster.
            keys: names of the settings that are new.
            reason: why the connection begins anew.
            revision: number of the settings.
        """
        # Looked at again after each wait, in which another of them may have begun.
        while self._stopping.running or self._trial.running or self._opening.running:
            for work in (self._stopping, self._trial, self._opening):
                await work.settled()
        self._refuse_if_closed()
        opened = self._opened and self.status.live
        close = await prepare(opened)
        if close is None:
            return
        with self._emitter.atomic():
            old, self._lease = self._lease, Lease()
            self._replaced.append(old)
            old.close = close
            live = self.status.live
            if live:
                self._begin(reason)
            self.announce_settings(keys, revision)
        if old.over:
            await self._end_lease(old)
        if live:
            self._supervisor.run(self._prove(), "probe")
        else:
            # It was disconnected meanwhile, and nobody else knows of what is open now.
            await self._stopping.settled()
            if not self._opening.running and self.status in (S.DISCONNECTED, S.CLOSED):
                await self._undo_open()

    async def _prove(self) -> None:
        """Find out what new settings are worth, after an attempt that may be about the old."""
        await self._attempt.settled()
        if self.status is S.CONNECTING:
            await self._attempt.join()

    def announce_settings(self, keys: Iterable[str], revision: int) -> None:
        """Say that settings have changed, but not how."""
        state = self._machine.state
        self._emitter.publish(
            ConfigChanged(
                provider_id=state.provider_id,
                keys=tuple(keys),
                revision=revision,
                epoch=state.epoch,
            )
        )

    def retune(
        self, *, backoff: Backoff, probe_interval_s: float | None, survives_sleep: bool
    ) -> None:
        """Go on with other habits; see the constructor."""
        self._supervisor.backoff = backoff
        self._poller.interval_s = probe_interval_s
        self._survives_sleep = survives_sleep

    async def _end_lease(self, lease: Lease) -> None:
        close, lease.close = lease.close, None
        if close is not None:
            self._replaced.remove(lease)
            await self._finish(close)

    # ---- sleep -----------------------------------------------------------------------------------

    def resumed(self, suspended_for_s: float, detector: Detector) -> None:
        """The computer has slept: nothing that was known is certain any more."""
        if not self.status.live:
            return
        self._verified_s = None
        self._forget_idle()
        self._emitter.publish(
            SystemResumed(
                provider_id=self._machine.state.provider_id,
                suspended_for_s=round(suspended_for_s, 3),
                detector=detector,
            )
        )
        self._end_cooldown_if_due()
        self._supervisor.reconnect_now()
        for stream in () if self._survives_sleep else self._running_streams():
            self._supervisor.run(self._goes_on(stream), "resume")
        if self.status.usable:
            self._settle()

    async def _goes_on(self, stream: LLMStream) -> None:
        """End a stream of which nothing comes any more after a sleep."""
        before = stream.heard
        await asyncio.sleep(RESUME_GRACE_S)
        if stream.running and stream.heard == before:
            stream.interrupt(
                StreamInterruptedError(
                    f"nothing came for {RESUME_GRACE_S:g} s after the computer had slept",
                    code="suspended",
                    hint="ask again",
                )
            )

    # ---- in the background -----------------------------------------------------------------------

    def _settle(self) -> None:
        """Find out by a probe what a request could not tell."""
        if not self._attempt.running:
            self._supervisor.run(self._attempt.join(), "probe")

    def _settle_again(self) -> None:
        """Probe once more when this probe has ended."""

        async def again() -> None:
            await self._attempt.settled()
            if self.status.usable and self._soft_failures:
                await self._attempt.join()

        self._supervisor.run(again(), "probe")

    def _look_after_it(self, interval_s: float) -> bool:
        """Probe an idle connection while somebody listens; says whether to go on doing so."""
        if not self.status.usable:
            return False
        self._sleep_watch.look()
        pieces, before_s = self._pieces(), self._verified_s
        known_s = -math.inf if before_s is None else before_s
        quiet = pieces == self._polled_pieces
        self._polled_pieces = pieces
        if quiet and self._clock.monotonic() - known_s > interval_s / 2 and self._is_watched():
            self._settle()
        return True

    def _pieces(self) -> int:
        """How much has come of the running answers; only ever compared."""
        return sum(stream.heard for stream in self._running_streams())

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
            self._sleep_watch.end(self)
            self._supervisor.stop()
            await self._attempt.cancel()
            await self._opening.cancel()
            while (left_s := self._drain_until_s - self._clock.monotonic()) > 0:
                if not await self._busy(left_s):
                    break
            if self._machine.state.in_flight:
                reason = Reason.DRAIN_TIMEOUT
                for stream in self._running_streams():
                    stream.interrupt(
                        RequestCancelledError("the provider was disconnected", code="draining")
                    )
                await self._busy(1.0)
        finally:
            try:
                for lease in list(self._replaced):
                    await self._end_lease(lease)
                await self._undo_open()
            finally:
                self._machine.change(
                    S.DISCONNECTED, reason, cooldown_until=None, circuit="closed", queued=0
                )

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
        # In one piece, because somebody may arrive on another loop.  The status first: a second
        # cancellation may come while it is closed.
        with self._emitter.atomic():
            if self._is_awaited() or self._opening.running or not self._give_up():
                return
            self._opened = False
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
        await self._finish(self._close_provider)

    async def _finish(self, close: Close) -> None:
        try:
            await close()
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
