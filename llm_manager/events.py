"""Events: what happens to providers, as data.

One frozen type per event; its ``name`` is the TypeScript spelling that listeners subscribe to.
How listeners get them is in `emitter`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

import msgspec

from .messages import Data, FinishReason, LLMModelInfo, Usage
from .status import ErrorInfo, LLMProviderStatus, Reason


class Event(Data, frozen=True, kw_only=True):
    """Base of all events.

    Attributes:
        name: what listeners subscribe to.
        provider_id: the provider it is about; empty for the manager's own events.
        at: when it happened, UTC.
        gseq: running number over all providers of a manager, without gaps; None when it comes
            from the provider itself.
        schema: version of the event's fields.
    """

    name: ClassVar[str]
    provider_id: str = ""
    at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    gseq: int | None = None
    schema: int = 1

    def to_dict(self) -> dict[str, Any]:
        return {"event": self.name, **super().to_dict()}


class StatusChanged(Event, frozen=True, kw_only=True):
    """The state grew by one step (``current.seq``).

    When the status *word* differs, the same object is also emitted under the new word:
    ``connecting``, ``connected``, ``degraded``, ``reconnecting``, ``failed``, ``draining``,
    ``disconnected``, ``closed``.

    Attributes:
        previous: the state before.
        current: the state now.
        replayed: True for the snapshot that `subscribe` delivers first.
        coalesced: how many events this listener missed before this one.
    """

    name = "statusChanged"
    previous: LLMProviderStatus
    current: LLMProviderStatus
    replayed: bool = False
    coalesced: int = 0


class ReconnectScheduled(Event, frozen=True, kw_only=True):
    """A lost provider will be tried again in ``delay_s`` seconds, at ``retry_at`` (UTC)."""

    name = "reconnectScheduled"
    attempt: int
    delay_s: float
    retry_at: datetime
    reason: Reason


class ModelsChanged(Event, frozen=True, kw_only=True):
    """The model list really differs, or it became stale or fresh.

    Attributes:
        added, removed, changed: ids of models.
        models: the whole list.
        revision: grows with each change.
        source: where the list comes from.
        fetched_at: when it was read, UTC.
        stale: True if reading it failed and this is the last good list.
    """

    name = "modelsChanged"
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    models: tuple[LLMModelInfo, ...] = ()
    revision: int = 0
    source: Literal["live", "static"] = "live"
    fetched_at: datetime | None = None
    stale: bool = False


class ModelChanged(Event, frozen=True, kw_only=True):
    """The active model of a provider is another one; None means none is chosen."""

    name = "modelChanged"
    previous: str | None
    current: str | None


class ModelLoadProgress(Event, frozen=True, kw_only=True):
    """A local model is being fetched or loaded.

    Attributes:
        model: its id.
        phase: the server's word for what it does, e.g. ``"pulling manifest"``.
        fraction: 0 to 1, or None when unknown.
        completed_bytes, total_bytes: of the current phase, or None when unknown.
    """

    name = "modelLoadProgress"
    model: str
    phase: str
    fraction: float | None = None
    completed_bytes: int | None = None
    total_bytes: int | None = None


class ModelLoaded(Event, frozen=True, kw_only=True):
    """A local model is in memory, or (``phase="pulled"``) on disk."""

    name = "modelLoaded"
    model: str
    phase: Literal["loaded", "pulled"] = "loaded"


class ModelUnloaded(Event, frozen=True, kw_only=True):
    """A local model has left memory."""

    name = "modelUnloaded"
    model: str


class HealthCheck(Event, frozen=True, kw_only=True):
    """A probe started or ended; a stream of these is a heartbeat.

    Attributes:
        phase: ``started``, ``succeeded`` or ``failed``.
        latency_ms: how long it took, in milliseconds; None while it runs.
        error: why it failed, or None.
    """

    name = "healthCheck"
    phase: Literal["started", "succeeded", "failed"]
    latency_ms: float | None = None
    error: ErrorInfo | None = None


class RequestStarted(Event, frozen=True, kw_only=True):
    """A request begins its way; exactly one `RequestFinished` follows.

    Attributes:
        request_id: our id of it.
        model: the model that was asked for.
        operation: ``chat``, ``completion``, ``fim`` or ``embed``.
        kind: kind of the provider, e.g. ``"openai"``, whatever its id is.
        parent_id: the request that this one is a part of, if another provider passed it on.
        composite: whether the provider passes it on to others, whose requests are announced, too.
        conversation_id: as in the options.
    """

    name = "requestStarted"
    request_id: str
    model: str
    operation: str
    kind: str = ""
    parent_id: str | None = None
    composite: bool = False
    conversation_id: str | None = None


class RequestQueued(Event, frozen=True, kw_only=True):
    """A request waits before it is sent.

    Attributes:
        request_id: which request.
        reason: ``concurrency``: others have to end first; ``rate_limit``: the service said that
            nothing is left for now; ``cooldown``: it asked us to wait.
        position: how many wait before it.
        until: when it will go on, UTC, if that is known.
    """

    name = "requestQueued"
    request_id: str
    reason: Literal["concurrency", "rate_limit", "cooldown"]
    position: int = 0
    until: datetime | None = None


class StreamStalled(Event, frozen=True, kw_only=True):
    """An answer has fallen silent; it is ended in ``fails_in_s`` seconds unless it goes on.

    Attributes:
        request_id: which request.
        silent_s: for how long nothing has come, in seconds.
        fails_in_s: seconds that are left.
        alive: whether signs of life still come, only no content.
    """

    name = "streamStalled"
    request_id: str
    silent_s: float
    fails_in_s: float
    alive: bool = False


class RequestFinished(Event, frozen=True, kw_only=True):
    """A request has ended, however it did; its connection is released.

    Attributes:
        request_id, model, operation, kind, parent_id, composite, conversation_id: as in
            `RequestStarted`.  The tokens of a composite are those of the parts it consists of.
        outcome: ``ok``, ``error``, ``cancelled`` (by `cancel`, task or shutdown) or ``abandoned``
            (the reader left early).
        attempts: how often it was sent.
        duration_s: from start to end, in seconds.
        first_token_s: until the first piece of the answer, in seconds; None if none came.
        usage: token counts, if the provider sent them.
        error: why it failed, or None.
        response_model: the model that answered, as the provider names it.
        response_id: the provider's id of the answer, or None.
        finish_reason: why the answer ended; None if it did not.
        answered_by: id of the provider that answered, which may be another one.
        cached: whether an earlier answer was given again, which cost nothing.
    """

    name = "requestFinished"
    request_id: str
    model: str
    operation: str
    kind: str = ""
    parent_id: str | None = None
    composite: bool = False
    conversation_id: str | None = None
    outcome: Literal["ok", "error", "cancelled", "abandoned"]
    attempts: int = 0
    duration_s: float = 0.0
    first_token_s: float | None = None
    usage: Usage | None = None
    error: ErrorInfo | None = None
    response_model: str = ""
    response_id: str | None = None
    finish_reason: FinishReason | None = None
    answered_by: str = ""
    cached: bool = False


class RetryScheduled(Event, frozen=True, kw_only=True):
    """A request failed and will be sent again.

    Attributes:
        request_id: which request.
        attempt: the attempt that failed, from 1.
        of: how many attempts there will be at most.
        wait_s: seconds until the next one.
        retry_at: when that is, UTC.
        error: why it failed.
    """

    name = "retryScheduled"
    request_id: str
    attempt: int
    of: int
    wait_s: float
    retry_at: datetime
    error: ErrorInfo


class ConfigChanged(Event, frozen=True, kw_only=True):
    """The settings of a provider are other ones; values are never told.

    Attributes:
        keys: names of the settings that were given anew.
        revision: grows by one with each change.
        epoch: the epoch that began with it.
    """

    name = "configChanged"
    keys: tuple[str, ...]
    revision: int
    epoch: int


class SystemResumed(Event, frozen=True, kw_only=True):
    """The computer has slept, or this process was stopped; connections may be dead.

    Attributes:
        suspended_for_s: for about how long, in seconds.
        detector: how it was noticed: ``suspend`` (the clock that counts sleep went ahead),
            ``wall_clock`` (the time of day did), ``late_timer`` (a timer fired far too late).
    """

    name = "systemResumed"
    suspended_for_s: float
    detector: Literal["suspend", "wall_clock", "late_timer"]


class ErrorOccurred(Event, frozen=True, kw_only=True):
    """Something failed in the background, where no caller can be told.

    Attributes:
        error: what happened.
        operation: what was being done.
        request_id: the request it belongs to, or None.
    """

    name = "error"
    error: ErrorInfo
    operation: str = ""
    request_id: str | None = None


class ListenerFailed(Event, frozen=True, kw_only=True):
    """A listener raised; the others and the emitter are not affected.

    Attributes:
        event: what it listened to; ``listenedTo`` as JSON, where ``event`` is our own name.
        listener: its name.
        error: what it raised.
        consecutive: how often in a row it has failed.
    """

    name = "listenerError"
    event: str = msgspec.field(name="listenedTo")
    listener: str
    error: ErrorInfo
    consecutive: int = 1


class ProviderAdded(Event, frozen=True, kw_only=True):
    """A provider was registered with the manager; ``status`` is what it was at that moment."""

    name = "providerAdded"
    status: LLMProviderStatus


class ProviderRemoved(Event, frozen=True, kw_only=True):
    """A provider was taken out of the manager."""

    name = "providerRemoved"


class ActiveProviderChanged(Event, frozen=True, kw_only=True):
    """Requests without a provider's name go to another provider; None means to none."""

    name = "activeProviderChanged"
    previous: str | None
    current: str | None
    reason: Literal["first", "user", "removed"] = "user"
