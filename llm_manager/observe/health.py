"""`ProviderHealth`: how reliable each provider has been, from the events that come anyway.

It asks nobody: a probe of one's own is ``await provider.is_available()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import ClassVar

from ..checks import check_number
from ..clock import SYSTEM_CLOCK, Clock, utc_now
from ..emitter import EventEmitter
from ..errors import ProviderNotFoundError
from ..events import HealthCheck, ProviderRemoved, RequestFinished, StatusChanged, SystemResumed
from ..listening import Attachable
from .health_record import HealthFigures, HealthSnapshot, Watched

# What the request is refused for, whichever provider it goes to.
_OF_THE_REQUEST = frozenset(
    {
        "invalid_request",
        "invalid_parameter",
        "unsupported_feature",
        "context_window_exceeded",
        "content_filtered",
        "model_not_found",
        # Told by the parts of a composite; they were not sent at all.
        "budget_exceeded",
        "price_unknown",
    }
)


class ProviderHealth(Attachable):
    """History, uptime and success rate of each provider.

    ::

        health = ProviderHealth().attach(manager)
        ...
        if health.check_provider("ollama"): ...

    Time is measured by the clock that stands still while the computer sleeps: a sleep is neither
    up nor down, and the windows reach back past it.  Where only a late timer shows that the
    process stood still, that time is left out, too.

    Args:
        history: how many changes of the status are kept for each provider.
        requests: of how many of the last requests the success rate is.
        clock: what time it is.

    Raises:
        InvalidParameterError: a number is not a whole one above 0.
    """

    listens_to: ClassVar[Mapping[str, str]] = {
        "statusChanged": "_status_changed",
        "healthCheck": "_probed",
        "requestFinished": "_finished",
        "systemResumed": "_resumed",
        "providerRemoved": "_removed",
    }

    def __init__(
        self, *, history: int = 100, requests: int = 100, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__()
        check_number("history", history, low=1, whole=True)
        check_number("requests", requests, low=1, whole=True)
        self._history = history
        self._requests = requests
        self._clock = clock
        self._providers: dict[str, Watched] = {}

    def check_provider(self, provider_id: str) -> bool:
        """Whether requests to it can be expected to work, by what was seen last; asks nobody.

        Raises:
            ProviderNotFoundError: nothing was ever heard of it; is it attached?
        """
        return self.of(provider_id).usable

    def of(self, provider_id: str) -> HealthFigures:
        """What is known of one provider.

        Raises:
            ProviderNotFoundError: nothing was ever heard of it; is it attached?
        """
        with self._lock:
            watched = self._providers.get(provider_id)
            if watched is not None:
                return watched.figures(self._clock.monotonic())
            known = list(self._providers)
        near = get_close_matches(str(provider_id), known, n=1)
        raise ProviderNotFoundError(
            f"nothing is known of a provider {provider_id!r}",
            hint=f"did you mean {near[0]!r}?" if near else "attach() its manager, or the provider",
        )

    def snapshot(self) -> HealthSnapshot:
        """What is known of all providers."""
        with self._lock:
            now_s = self._clock.monotonic()
            figures = tuple(watched.figures(now_s) for watched in self._providers.values())
        return HealthSnapshot(at=utc_now(self._clock), providers=figures)

    # ---- events ----------------------------------------------------------------------------------

    def _status_changed(self, event: StatusChanged) -> None:
        with self._lock:
            watched = self._providers.get(event.provider_id)
            if watched is None:
                watched = Watched(
                    event.current, self._clock.monotonic(), self._history, self._requests
                )
                self._providers[event.provider_id] = watched
            watched.follow(event, self._clock.monotonic())

    def _probed(self, event: HealthCheck) -> None:
        if event.phase == "started":
            return
        with self._lock:
            watched = self._providers.get(event.provider_id)
            if watched is None:
                return
            watched.probed_at = event.at
            if event.phase == "succeeded":
                watched.latency_ms = event.latency_ms
            watched.note_error(event.error, event.at)

    def _finished(self, event: RequestFinished) -> None:
        error = event.error
        # One that was answered from a cache, or never sent, says nothing about the provider.
        if event.cached or not event.attempts:
            return
        if event.outcome not in ("ok", "error"):
            return
        if error is not None and error.code in _OF_THE_REQUEST:
            return
        with self._lock:
            watched = self._providers.get(event.provider_id)
            if watched is not None:
                watched.count_request(event.outcome == "ok")
                watched.note_error(error, event.at)

    def _resumed(self, event: SystemResumed) -> None:
        if event.detector != "late_timer":
            return  # the clock stood still, too
        with self._lock:
            watched = self._providers.get(event.provider_id)
            if watched is not None:
                watched.timeline.leave_out(event.suspended_for_s, self._clock.monotonic())

    def _removed(self, event: ProviderRemoved) -> None:
        with self._lock:
            self._providers.pop(event.provider_id, None)

    def _after_detaching(self, emitter: EventEmitter) -> None:
        with self._lock:
            now_s = self._clock.monotonic()
            for watched in self._providers.values():
                watched.timeline.change(None, now_s)
