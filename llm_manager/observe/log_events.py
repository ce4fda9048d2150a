"""`EventLog`: events as log lines, with their facts as extra fields."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from ..emitter import EventEmitter
from ..events import (
    ActiveProviderChanged,
    ConfigChanged,
    ErrorOccurred,
    Event,
    ProviderAdded,
    ProviderRemoved,
    ReconnectScheduled,
    RequestFinished,
    RequestQueued,
    RequestStarted,
    RetryScheduled,
    StatusChanged,
    StreamStalled,
    SystemResumed,
)
from ..listening import Attachable
from ..status import ProviderStatus

log = logging.getLogger("llm_manager.lifecycle")

_TROUBLE = frozenset({ProviderStatus.DEGRADED, ProviderStatus.RECONNECTING, ProviderStatus.FAILED})


class EventLog(Attachable):
    """Writes a line for each event of a provider's or a request's life; see `log_events`."""

    listens_to: ClassVar[Mapping[str, str]] = {
        "statusChanged": "_status_changed",
        "reconnectScheduled": "_reconnect_scheduled",
        "requestStarted": "_request_started",
        "requestQueued": "_request_queued",
        "retryScheduled": "_retry_scheduled",
        "streamStalled": "_stream_stalled",
        "requestFinished": "_request_finished",
        "configChanged": "_config_changed",
        "systemResumed": "_system_resumed",
        "error": "_error",
        "providerAdded": "_provider_added",
        "providerRemoved": "_provider_removed",
        "activeProviderChanged": "_active_provider_changed",
    }

    def _status_changed(self, event: StatusChanged) -> None:
        before, now = event.previous, event.current
        if before.status is now.status and not event.replayed:
            return  # a detail of the same status
        level = logging.WARNING if now.status in _TROUBLE else logging.INFO
        why = "" if now.error is None else f": {now.error.message}"
        _write(
            level,
            event,
            f"is {now.status} ({now.reason}){why}",
            status=now.status.value,
            reason=now.reason.value,
            code=now.error and now.error.code,
        )

    def _reconnect_scheduled(self, event: ReconnectScheduled) -> None:
        _write(
            logging.INFO,
            event,
            f"attempt {event.attempt} to reconnect in {event.delay_s:.1f} s",
            attempt=event.attempt,
            wait_s=event.delay_s,
            reason=event.reason.value,
        )

    def _request_started(self, event: RequestStarted) -> None:
        if log.isEnabledFor(logging.DEBUG):
            _write(
                logging.DEBUG,
                event,
                f"request {event.request_id} to {event.model} begins",
                request_id=event.request_id,
                model=event.model,
                operation=event.operation,
            )

    def _request_queued(self, event: RequestQueued) -> None:
        _write(
            logging.DEBUG,
            event,
            f"request {event.request_id} waits ({event.reason})",
            request_id=event.request_id,
            reason=event.reason,
            position=event.position,
        )

    def _retry_scheduled(self, event: RetryScheduled) -> None:
        _write(
            logging.WARNING,
            event,
            f"request {event.request_id} failed, attempt {event.attempt + 1} of {event.of} in "
            f"{event.wait_s:.1f} s: {event.error.message}",
            request_id=event.request_id,
            attempt=event.attempt,
            wait_s=event.wait_s,
            code=event.error.code,
        )

    def _stream_stalled(self, event: StreamStalled) -> None:
        _write(
            logging.WARNING,
            event,
            f"request {event.request_id} has been silent for {event.silent_s:.1f} s",
            request_id=event.request_id,
            silent_s=event.silent_s,
        )

    def _request_finished(self, event: RequestFinished) -> None:
        level = logging.INFO if event.outcome == "error" else logging.DEBUG
        if not log.isEnabledFor(level):
            return
        error, usage = event.error, event.usage
        why = "" if error is None else f": {error.message}"
        _write(
            level,
            event,
            f"request {event.request_id} to {event.model} ended after {event.duration_s:.2f} s: "
            f"{event.outcome}{why}",
            request_id=event.request_id,
            model=event.model,
            operation=event.operation,
            outcome=event.outcome,
            duration_s=event.duration_s,
            attempts=event.attempts,
            cached=event.cached,
            prompt_tokens=usage and usage.prompt_tokens,
            completion_tokens=usage and usage.completion_tokens,
            code=error and error.code,
            http_status=error and error.http_status,
        )

    def _config_changed(self, event: ConfigChanged) -> None:
        keys = ", ".join(event.keys)
        _write(logging.INFO, event, f"has new settings ({keys})", revision=event.revision)

    def _system_resumed(self, event: SystemResumed) -> None:
        _write(
            logging.INFO,
            event,
            f"the computer has slept for about {event.suspended_for_s:.0f} s",
            duration_s=event.suspended_for_s,
            detector=event.detector,
        )

    def _error(self, event: ErrorOccurred) -> None:
        _write(
            logging.ERROR,
            event,
            f"{event.operation or 'in the background'}: {event.error.message}",
            request_id=event.request_id,
            operation=event.operation,
            code=event.error.code,
        )

    def _provider_added(self, event: ProviderAdded) -> None:
        _write(logging.INFO, event, "is registered")

    def _provider_removed(self, event: ProviderRemoved) -> None:
        _write(logging.INFO, event, "is unregistered")

    def _active_provider_changed(self, event: ActiveProviderChanged) -> None:
        _write(logging.INFO, event, "is active" if event.current else "no provider is active")


def log_events(emitter: EventEmitter) -> EventLog:
    """Log what happens to a provider, or to all providers of a manager.

    Lines go to the logger ``llm_manager.lifecycle``: trouble of a provider and retries at WARNING,
    other changes and requests that failed at INFO, the rest of the requests at DEBUG, errors that
    nobody is told of at ERROR.  The facts are extra fields: ``event``, ``provider_id``,
    ``request_id``, ``model``, ``duration_s``, ``code`` and others.

    Returns:
        The listener; ``detach()`` it, or use it in a ``with`` block.

    Raises:
        InvalidParameterError: ``emitter`` is neither a provider nor a manager.
    """
    return EventLog().attach(emitter)


def _write(level: int, event: Event, text: str, **facts: Any) -> None:
    """Log a line; facts that are not known are left out."""
    known = {name: value for name, value in facts.items() if value is not None}
    about = event.provider_id or "manager"
    # The texts of errors may contain anything, a percent sign as well.
    log.log(
        level,
        "%s: %s",
        about,
        text,
        extra={"event": event.name, "provider_id": event.provider_id, **known},
    )
