"""What is known of the health of one provider, as data and while it grows."""

from __future__ import annotations

from collections import deque
from datetime import datetime

from ..events import StatusChanged
from ..messages import Data
from ..status import ErrorInfo, LLMProviderStatus, ProviderStatus, Reason
from .uptime import DAY_S, HOUR_S, Timeline, Uptime

_DOWN = frozenset({ProviderStatus.RECONNECTING, ProviderStatus.FAILED})
_STOPPED = frozenset({ProviderStatus.DISCONNECTED, ProviderStatus.CLOSED})
_FLAPPING_DROPS, _FLAPPING_WINDOW_S = 3, 600.0


class StatusNote(Data, frozen=True, kw_only=True):
    """One line of a provider's history: which status it reached when (UTC), and why."""

    at: datetime
    status: ProviderStatus
    reason: Reason
    error_code: str | None = None


class HealthFigures(Data, frozen=True, kw_only=True):
    """What is known of one provider.

    Up is ``connected`` and ``degraded``, down is ``reconnecting`` and ``failed``; the rest (not
    started, stopped, first attempt) is neither and counts as neither.

    Attributes:
        provider_id: which.
        status, reason: the last that was heard.
        usable: whether requests can be expected to work.
        since: when the status was reached, UTC.
        streak_s: for how long it has been up, or down, without a break; None if it is neither.
        uptime_hour, uptime_day: of the last hour and the last 24 hours, to a minute.
        uptime: since it was first seen.
        drops: how often it was lost.
        reconnects: how often it came back after that.
        flapping: whether it was lost three times or more within the last ten minutes.
        requests: how many of the last requests say something about the provider.
        success_rate: the part of them that went well, 0 to 1; None if there are none.
        failures_in_a_row: how many of them failed since the last that went well.
        latency_ms: duration of the last probe that succeeded, in milliseconds, or None.
        probed_at: when the last probe ended, UTC, or None.
        last_error: of a status, a probe or a request, or None.
        last_error_at: when that was, UTC, or None.
        history: the last changes of the status, newest first.
    """

    provider_id: str
    status: ProviderStatus
    reason: Reason
    usable: bool
    since: datetime | None
    streak_s: float | None
    uptime_hour: Uptime
    uptime_day: Uptime
    uptime: Uptime
    drops: int
    reconnects: int
    flapping: bool
    requests: int
    success_rate: float | None
    failures_in_a_row: int
    latency_ms: float | None
    probed_at: datetime | None
    last_error: ErrorInfo | None
    last_error_at: datetime | None
    history: tuple[StatusNote, ...]


class HealthSnapshot(Data, frozen=True, kw_only=True):
    """What is known of all providers, as of ``at`` (UTC)."""

    at: datetime
    providers: tuple[HealthFigures, ...]


class Watched:
    """What is known of one provider while it grows; not safe from several threads.

    Args:
        state: its present snapshot.
        now_s: what time it is, on the clock that all later times are on.
        history: how many changes of the status are kept.
        requests: of how many of the last requests the success rate is.
    """

    def __init__(self, state: LLMProviderStatus, now_s: float, history: int, requests: int) -> None:
        self.state = state
        self.timeline = Timeline(now_s)
        self.latency_ms = state.latency_ms
        self.probed_at: datetime | None = None
        self._history: deque[StatusNote] = deque(maxlen=history)
        self._outcomes: deque[bool] = deque(maxlen=requests)
        self._failures_in_a_row = 0
        self._lost = False
        self._drops = self._reconnects = 0
        self._dropped_at_s: deque[float] = deque(maxlen=_FLAPPING_DROPS)
        self._last_error: ErrorInfo | None = None
        self._last_error_at: datetime | None = None

    def follow(self, event: StatusChanged, now_s: float) -> None:
        """Take note of a change of the status."""
        state = event.current
        moved = not self._history or state.status is not self.state.status
        if moved or state.reason is not self.state.reason:
            self._history.append(
                StatusNote(
                    at=event.at,
                    status=state.status,
                    reason=state.reason,
                    error_code=None if state.error is None else state.error.code,
                )
            )
        if state.error is not None:
            self.note_error(state.error, event.at)
        self.state = state
        if moved or event.replayed:  # time may have passed in which nobody listened
            self._move(state.status, now_s)

    def _move(self, status: ProviderStatus, now_s: float) -> None:
        was_up, up = self.timeline.up, _is_up(status)
        self.timeline.change(up, now_s)
        if was_up and up is False:
            self._lost = True
            self._drops += 1
            self._dropped_at_s.append(now_s)
        elif up and self._lost:
            self._lost = False
            self._reconnects += 1
        elif status in _STOPPED:
            self._lost = False

    def count_request(self, success: bool) -> None:
        """Take note of how a request ended."""
        self._outcomes.append(success)
        self._failures_in_a_row = 0 if success else self._failures_in_a_row + 1

    def note_error(self, error: ErrorInfo | None, at: datetime) -> None:
        """Take note of what went wrong, if anything did."""
        if error is not None:
            self._last_error, self._last_error_at = error, at

    def figures(self, now_s: float) -> HealthFigures:
        """Everything that is known, as data."""
        timeline, outcomes, state = self.timeline, self._outcomes, self.state
        return HealthFigures(
            provider_id=state.provider_id,
            status=state.status,
            reason=state.reason,
            usable=state.usable,
            since=state.since,
            streak_s=timeline.streak_s(now_s),
            uptime_hour=timeline.over(HOUR_S, now_s),
            uptime_day=timeline.over(DAY_S, now_s),
            uptime=timeline.in_all(now_s),
            drops=self._drops,
            reconnects=self._reconnects,
            flapping=self._is_flapping(now_s),
            requests=len(outcomes),
            success_rate=sum(outcomes) / len(outcomes) if outcomes else None,
            failures_in_a_row=self._failures_in_a_row,
            latency_ms=self.latency_ms,
            probed_at=self.probed_at,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
            history=tuple(reversed(self._history)),
        )

    def _is_flapping(self, now_s: float) -> bool:
        dropped = self._dropped_at_s
        return len(dropped) == _FLAPPING_DROPS and now_s - dropped[0] <= _FLAPPING_WINDOW_S


def _is_up(status: ProviderStatus) -> bool | None:
    """Whether a status counts as up or as down; None: as neither."""
    return True if status.usable else False if status in _DOWN else None
