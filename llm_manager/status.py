"""The status of a provider: eight words, the legal steps between them, and the snapshot.

Everything that decides which status may follow which stands in this file, as data.

::

    disconnected -> connecting -> connected <-> degraded        usable
                         |            |            |
                         +--> reconnecting <-------+            supervised, goes on by itself
                         +--> failed                            needs a person or a new setting
    any live one -> draining -> disconnected -> closed          the end
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from .errors import (
    AuthenticationError,
    ConfigurationError,
    DependencyMissingError,
    InvalidResponseError,
    LLMError,
    PermissionDeniedError,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderOverloadedError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from .messages import Data
from .redaction import redact


class ProviderStatus(StrEnum):
    """What can be expected of a provider now.

    `CONNECTED` and `DEGRADED` are only ever reached through evidence: a probe or a real answer.
    """

    DISCONNECTED = "disconnected"
    """Not started, or stopped on purpose; nothing runs in the background.  The first status."""
    CONNECTING = "connecting"
    """The first attempt is running; nothing is proven yet."""
    CONNECTED = "connected"
    """Proven usable since the connection was configured."""
    DEGRADED = "degraded"
    """Usable but impaired: rate-limited, slow, or without a model; ``reason`` says which."""
    RECONNECTING = "reconnecting"
    """Lost or not reached; attempts go on by themselves, ``retry_at`` says when the next is."""
    FAILED = "failed"
    """Needs a person or another setting (key, billing, package); nothing is tried by itself."""
    DRAINING = "draining"
    """Takes no new work and lets the running work end."""
    CLOSED = "closed"
    """The end; the object cannot be used again."""

    @property
    def usable(self) -> bool:
        return self in _USABLE

    @property
    def live(self) -> bool:
        """Whether it has been started and not been stopped."""
        return self in _LIVE


_S = ProviderStatus
_USABLE = frozenset({_S.CONNECTED, _S.DEGRADED})
_LIVE = frozenset({_S.CONNECTING, _S.CONNECTED, _S.DEGRADED, _S.RECONNECTING, _S.FAILED})
_STOPPING = frozenset({_S.DRAINING, _S.DISCONNECTED})

LEGAL_TRANSITIONS: Mapping[ProviderStatus, frozenset[ProviderStatus]] = {
    _S.DISCONNECTED: frozenset({_S.CONNECTING, _S.CLOSED}),
    _S.CONNECTING: frozenset({*_USABLE, _S.RECONNECTING, _S.FAILED, *_STOPPING}),
    _S.CONNECTED: frozenset(
        {_S.DEGRADED, _S.RECONNECTING, _S.FAILED, _S.CONNECTING, *_STOPPING},
    ),
    _S.DEGRADED: frozenset(
        {_S.CONNECTED, _S.RECONNECTING, _S.FAILED, _S.CONNECTING, *_STOPPING},
    ),
    _S.RECONNECTING: frozenset({*_USABLE, _S.FAILED, _S.CONNECTING, *_STOPPING}),
    _S.FAILED: frozenset({_S.CONNECTING, *_STOPPING}),
    _S.DRAINING: frozenset({_S.DISCONNECTED, _S.CLOSED}),
    _S.CLOSED: frozenset(),
}


class Reason(StrEnum):
    """Why a provider has its status; stable words for programs."""

    INITIAL = "initial"
    USER = "user"
    STARTUP = "startup"
    CONFIG_CHANGED = "config_changed"
    CREDENTIALS_CHANGED = "credentials_changed"
    RECOVERED = "recovered"
    NO_MODELS = "no_models"
    SLOW = "slow"
    RATE_LIMITED = "rate_limited"
    REFUSED = "refused"
    DNS = "dns"
    TIMEOUT = "timeout"
    TLS = "tls"
    PROXY = "proxy"
    RESET = "reset"
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
    LOADING = "loading"
    CAPTIVE_PORTAL = "captive_portal"
    AUTH_MISSING = "auth_missing"
    AUTH_INVALID = "auth_invalid"
    FORBIDDEN = "forbidden"
    QUOTA_EXHAUSTED = "quota_exhausted"
    INVALID_CONFIG = "invalid_config"
    DEPENDENCY_MISSING = "dependency_missing"
    CIRCUIT_OPEN = "circuit_open"
    CIRCUIT_HALF_OPEN = "circuit_half_open"
    MEMBERS_DOWN = "members_down"
    SHUTDOWN = "shutdown"
    DRAIN_TIMEOUT = "drain_timeout"
    FORKED = "forked"
    UNEXPECTED = "unexpected"


class ErrorInfo(Data, frozen=True, kw_only=True, eq=False, omit_defaults=True):
    """An error as data, for snapshots and events: no traceback, no live object, no secret.

    Two are equal if they say the same thing about the provider, whatever their wording.

    Attributes:
        code: our stable word, see `LLMError.code`.
        type: name of our error class.
        message: text for people, secrets masked.
        hint: what to do about it, or None.
        http_status: status of the answer, or None.
        provider_code: the provider's own code, or None.
        request_id: our id of the request, or None.
        retryable: whether trying again may help.
        retry_after_s: seconds that the provider asked to wait, or None.
        retry_at: before when trying again makes no sense, UTC, or None.
    """

    code: str
    type: str
    message: str
    hint: str | None = None
    http_status: int | None = None
    provider_code: str | None = None
    request_id: str | None = None
    retryable: bool = False
    retry_after_s: float | None = None
    retry_at: datetime | None = None

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """What can be kept of ``error``."""
        if not isinstance(error, LLMError):
            return cls(code="unexpected", type=type(error).__name__, message=redact(str(error)))
        return cls(
            code=error.code,
            type=type(error).__name__,
            message=redact(error.message),
            hint=error.hint and redact(error.hint),
            http_status=error.http_status,
            provider_code=error.provider_code,
            request_id=error.request_id,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s,
            retry_at=error.retry_at,
        )

    def _identity(self) -> tuple[Any, ...]:
        return (self.code, self.type, self.http_status, self.provider_code)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ErrorInfo) and self._identity() == other._identity()

    def __ne__(self, other: object) -> bool:  # the base type's compares by identity
        return not self == other

    def __hash__(self) -> int:
        return hash(self._identity())


class RateLimits(Data, frozen=True, kw_only=True):
    """What a service says is left of our allowance, from the headers of its last answer.

    Attributes:
        requests_left, tokens_left: until the next reset; None if it does not say.
        requests_reset_at, tokens_reset_at: when there will be more, UTC; None if it does not say.
        requests_limit, tokens_limit: the whole allowance; None if it does not say.
    """

    requests_left: int | None = None
    requests_limit: int | None = None
    requests_reset_at: datetime | None = None
    tokens_left: int | None = None
    tokens_limit: int | None = None
    tokens_reset_at: datetime | None = None


class LLMProviderStatus(Data, frozen=True, kw_only=True, eq=False):
    """A snapshot of a provider, complete enough to draw it.

    The fields up to ``circuit`` are its state: a change of one of them is a ``statusChanged``.  The
    next two follow the model list, which has an event of its own; the last five are measurements.

    Attributes:
        provider_id: the provider.
        instance_id: differs between two objects and between two processes with the same id.
        status: one of eight words.
        reason: why it has that status.
        seq: grows by one with every change of the state.
        epoch: grows whenever connection or settings start anew; evidence of an old epoch is void.
        since: when the status word was reached, UTC.
        error: what is wrong, or None.
        attempt: number of failed attempts to reconnect so far.
        retry_at: when the next attempt is due, UTC, or None.
        cooldown_until: until when the provider asked us to wait, UTC, or None.
        circuit: ``open`` while requests are refused because too many failed; ``half_open`` while
            one of them is let through to find out.
        models_revision: grows whenever the model list changes.
        models_stale: whether the last attempt to read the model list failed.
        verified_at: when it last proved to be usable, UTC, or None.
        latency_ms: duration of the last probe, in milliseconds, or None.
        in_flight: number of running requests, those that wait included.
        queued: how many of them wait for their turn.
        rate_limits: what the service says is left of our allowance, or None if it does not.
    """

    provider_id: str
    instance_id: str = ""
    status: ProviderStatus = ProviderStatus.DISCONNECTED
    reason: Reason = Reason.INITIAL
    seq: int = 0
    epoch: int = 0
    since: datetime | None = None
    error: ErrorInfo | None = None
    attempt: int = 0
    retry_at: datetime | None = None
    cooldown_until: datetime | None = None
    circuit: Literal["closed", "open", "half_open"] = "closed"
    models_revision: int = 0
    models_stale: bool = False
    verified_at: datetime | None = None
    latency_ms: float | None = None
    in_flight: int = 0
    queued: int = 0
    rate_limits: RateLimits | None = None

    @property
    def usable(self) -> bool:
        """Whether requests can be expected to work."""
        return self.status.usable

    def same_state(self, other: LLMProviderStatus) -> bool:
        """Whether both say the same, measurements and counting apart."""
        return all(getattr(self, f) == getattr(other, f) for f in STATE_FIELDS)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, LLMProviderStatus)
            and self._identity() == other._identity()
            and self.same_state(other)
        )

    def __ne__(self, other: object) -> bool:  # the base type's compares by identity
        return not self == other

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        return (
            self.provider_id, self.instance_id, self.seq, self.epoch,
            self.models_revision, self.models_stale,
        )  # fmt: skip


STATE_FIELDS = (
    "status",
    "reason",
    "error",
    "attempt",
    "retry_at",
    "cooldown_until",
    "circuit",
)

# The first class that fits decides; codes refine the classes that have several.
_PERMANENT: tuple[tuple[type[LLMError], Reason], ...] = (
    (AuthenticationError, Reason.AUTH_INVALID),
    (PermissionDeniedError, Reason.FORBIDDEN),
    (QuotaExceededError, Reason.QUOTA_EXHAUSTED),
    (ConfigurationError, Reason.INVALID_CONFIG),
    (DependencyMissingError, Reason.DEPENDENCY_MISSING),
)
_PASSING: tuple[tuple[type[LLMError], Reason], ...] = (
    (RateLimitError, Reason.RATE_LIMITED),
    (ProviderOverloadedError, Reason.OVERLOADED),
    (RequestTimeoutError, Reason.TIMEOUT),
    (InvalidResponseError, Reason.SERVER_ERROR),
    (ProviderConnectionError, Reason.RESET),
    (StreamInterruptedError, Reason.RESET),
)


_SOFT = (
    RequestTimeoutError,
    StreamInterruptedError,
    ProviderOverloadedError,
    InvalidResponseError,
)
_REASONS = {reason.value: reason for reason in Reason}


# A model that does not fit into memory says nothing about the others.
_OF_ONE_MODEL = frozenset({"insufficient_memory"})


# Errors that we raise without having asked the provider; the codes of our own policies.
_NOT_ASKED = frozenset({Reason.CIRCUIT_OPEN, "cooling_down"})


def is_evidence(error: LLMError) -> bool:
    """Whether it says anything about the provider."""
    return error.code not in _NOT_ASKED


def is_permanent(error: LLMError) -> bool:
    """Whether only a person or another setting can help."""
    concerns_all = error.code not in _OF_ONE_MODEL
    return concerns_all and isinstance(error, tuple(kind for kind, _ in _PERMANENT))


def reason_of(error: LLMError) -> Reason:
    """The reason code that fits ``error``."""
    if error.code in _REASONS:
        return _REASONS[error.code]
    for kind, reason in (*_PERMANENT, *_PASSING):
        if isinstance(error, kind):
            return reason
    return Reason.SERVER_ERROR


def is_hard_failure(error: LLMError) -> bool:
    """Whether it alone shows that the connection is lost."""
    return isinstance(error, ProviderConnectionError)


def is_soft_failure(error: LLMError) -> bool:
    """Whether it may be the provider's trouble, or only this request's; several in a row count."""
    if isinstance(error, ProviderAPIError):
        return error.http_status is None or error.http_status >= 500
    return isinstance(error, _SOFT)
