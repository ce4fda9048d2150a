"""The state of one provider's circuit breaker; see `circuit` for the rules and the reasons."""

from __future__ import annotations

import math
import random
import threading
from collections import deque
from datetime import timedelta
from typing import Literal, Protocol, TypeAlias

import msgspec

from .._threads import reset_after_fork
from ..clock import Clock, utc_now
from ..errors import CircuitOpenError, LLMError, StreamInterruptedError
from ..redaction import redact
from ..status import is_hard_failure
from . import Host

Outcome: TypeAlias = Literal["answered", "failed", "unknown"]

# Who is refused because another request finds out just now may ask again after so long.
_ASK_AGAIN_S = 1.0
# The open time becomes shorter by one step with each of these without a failure.
_CLEAN_S = 60.0
# More outcomes than these are not looked at, however long the window is.
_MOST_OUTCOMES = 1000


class Settings(Protocol):
    """What `CircuitBreaker` was made with."""

    failures_in_a_row: int
    failure_share: float
    least_requests: int
    window_s: float
    open_s: float
    open_max_s: float
    jitter: float
    clock: Clock


class Passage(msgspec.Struct, frozen=True, eq=False):
    """One request on its way.

    Attributes:
        period: when it came; what happened in an earlier one does not count any more.
        losses: how many losses of the connection were known when it came.
        kind: ``trial``: it finds out whether the provider can be used; ``forced``: it was sent
            although the circuit is open.
    """

    period: int
    losses: int
    kind: Literal["usual", "trial", "forced"]


class Circuit:
    """The circuit of one provider.  The host is never called under the lock."""

    def __init__(self, settings: Settings, host: Host) -> None:
        self._settings = settings
        self._host = host
        self._lock = threading.Lock()
        self._period = 0
        self._begin(host.status.epoch)
        reset_after_fork(self)

    def _begin(self, epoch: int) -> None:
        """Nothing is known of this epoch."""
        self._epoch = epoch
        self._level = 0
        self._calm_since_s = self._now_s()
        self._open_until_s = -math.inf
        self._failed = 0
        self._last = ""
        self._count_anew()

    def _count_anew(self) -> None:
        self._period += 1
        self._is_open = False
        self._in_a_row = self._losses = 0
        self._recent: deque[tuple[float, bool]] = deque(maxlen=_MOST_OUTCOMES)
        self._trial: Passage | None = None
        self._trial_until_s = -math.inf

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._begin(self._epoch)

    def _now_s(self) -> float:
        # A computer that slept has left the provider alone as well.
        since_boot_s = self._settings.clock.since_boot()
        return self._settings.clock.monotonic() if since_boot_s is None else since_boot_s

    def enter(self, *, forced: bool) -> Passage:
        """Let a request through.

        Raises:
            CircuitOpenError: or do not.
        """
        status = self._host.status
        with self._lock:
            self._notice(status.epoch, status.circuit)
            if status.circuit == "closed":
                return Passage(self._period, self._losses, "usual")
            now_s = self._now_s()
            due = status.circuit == "half_open" or now_s >= self._open_until_s
            if due and (self._trial is None or now_s >= self._trial_until_s):
                passage = self._trial = Passage(self._period, self._losses, "trial")
                self._trial_until_s = now_s + self._settings.open_s
            elif forced:
                return Passage(self._period, self._losses, "forced")
            else:
                raise self._refusal(_ASK_AGAIN_S if due else self._open_until_s - now_s, due)
        if status.circuit == "open":
            self._host.half_open_circuit()
        return passage

    def leave(self, passage: Passage, outcome: Outcome, error: LLMError | None) -> None:
        """A request has ended."""
        status = self._host.status
        with self._lock:
            self._notice(status.epoch, status.circuit)
            if passage is self._trial:
                self._trial = None
            if passage.period != self._period or outcome == "unknown":
                return
            if status.circuit == "closed":
                if _is_loss(error):
                    # A server that goes away takes all answers with it: that is one failure.
                    if passage.losses < self._losses:
                        return
                    self._losses += 1
                opens = self._count(outcome) and error is not None
            else:
                opens = outcome == "failed" and passage.kind == "trial"
            closes = status.circuit != "closed" and outcome == "answered"
            open_s = self._plan_opening(passage, error) if opens and error is not None else 0.0
        if opens and error is not None:
            retry_at = utc_now(self._settings.clock) + timedelta(seconds=open_s)
            self._host.open_circuit(error, retry_at)
            with self._lock:
                self._is_open = True
        elif closes:
            self._host.close_circuit()

    def _notice(self, epoch: int, circuit: str) -> None:
        """Take in what others have found out."""
        if epoch != self._epoch:
            self._begin(epoch)
        elif circuit == "closed" and self._is_open:
            self._calm_since_s = self._now_s()
            self._count_anew()

    def _count(self, outcome: Outcome) -> bool:
        """Count an outcome; says whether it is one failure too many."""
        settings, now_s, failed = self._settings, self._now_s(), outcome == "failed"
        self._in_a_row = self._in_a_row + 1 if failed else 0
        self._recent.append((now_s, failed))
        while self._recent[0][0] < now_s - settings.window_s:
            self._recent.popleft()
        if not failed:
            return False
        clean_minutes = int((now_s - self._calm_since_s) // _CLEAN_S)
        self._level = max(self._level - clean_minutes, 0)
        self._calm_since_s = now_s
        count, failures = len(self._recent), sum(failed for _, failed in self._recent)
        self._failed = max(self._in_a_row, failures)
        many = count >= settings.least_requests and failures >= count * settings.failure_share
        return many or self._in_a_row >= settings.failures_in_a_row

    def _plan_opening(self, passage: Passage, error: LLMError) -> float:
        """How long it is open now, in seconds."""
        settings = self._settings
        if passage.kind == "trial":
            self._failed += 1
            self._level = max(self._level * 2, 1)
        else:
            self._level += 1
        self._last = f"{type(error).__name__}: {redact(error.message or error.code):.300}"
        self._level = min(self._level, math.ceil(settings.open_max_s / settings.open_s))
        spread = random.uniform(1 - settings.jitter, 1 + settings.jitter)
        open_s = min(settings.open_s * self._level * spread, settings.open_max_s)
        self._count_anew()
        self._open_until_s = self._now_s() + open_s
        return open_s

    def _refusal(self, wait_s: float, due: bool) -> CircuitOpenError:
        when = "is being sent now, to find out more" if due else f"will be sent in {wait_s:.0f} s"
        return CircuitOpenError(
            f"not sent, because {self._failed} requests failed, the last one with {self._last}; "
            f"the next one {when}",
            retry_after_s=wait_s,
            retry_at=utc_now(self._settings.clock) + timedelta(seconds=wait_s),
            hint="ask again then, or set force=True in the options to send it at once",
        )


def _is_loss(error: LLMError | None) -> bool:
    """Whether the connection was lost, or there was none."""
    return error is not None and (
        is_hard_failure(error) or isinstance(error, StreamInterruptedError)
    )
