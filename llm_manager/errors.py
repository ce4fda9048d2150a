"""Every error this library raises, and what a caller can do about each.

::

    LLMError
    ├── ProviderError                    something between us and the provider
    │   ├── ProviderAPIError             an answer that says "no" and fits no class below
    │   ├── AuthenticationError          the key is missing or wrong
    │   ├── PermissionDeniedError        the key is right, but may not do this
    │   ├── QuotaExceededError           no credit left; waiting does not help
    │   ├── RateLimitError               too many requests; waiting helps
    │   ├── ModelNotFoundError           no such model here
    │   ├── ContextWindowExceededError   the prompt is longer than the model can read
    │   ├── ContentFilteredError         refused by a content filter
    │   ├── InvalidRequestError          the provider does not accept the request as it is
    │   ├── RequestTimeoutError          one of the clocks ran out; ``code`` says which
    │   ├── ProviderConnectionError      no connection; ``code`` says why (refused, dns, tls …)
    │   ├── ProviderOverloadedError      the provider is up, but has no capacity now
    │   ├── CircuitOpenError             too many failures: not sent before ``retry_at``
    │   ├── StreamInterruptedError       the answer broke off; ``partial`` has what came
    │   └── InvalidResponseError         the answer cannot be understood
    ├── InvalidParameterError            a value given by the caller is wrong
    ├── UnsupportedFeatureError          this provider or model cannot do what was asked
    ├── ConfigurationError               settings that cannot work, found before sending
    ├── ProviderNotFoundError            no provider is registered under that id
    ├── DependencyMissingError           an optional package is not installed
    ├── QueueFullError                   too many requests wait already; nothing was sent
    ├── BudgetExceededError              it would cost more than is left; nothing was sent
    ├── RequestCancelledError            ended by `LLMStream.cancel` or a shutdown
    └── ToolRoundsExceededError          a model asked for tools again and again

Errors are plain data: they can be pickled, and they hold neither keys nor live HTTP objects.
That is why a vendor library's exception is kept as text in ``original`` and never as
``__cause__``: its request object carries the authorization header.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from .redaction import redact, without_quotes

if TYPE_CHECKING:
    from .messages import LLMResponse
    from .tools import ToolRun


class LLMError(Exception):
    """The base of all errors of this library.

    Attributes:
        code: a stable word for programs, e.g. ``"rate_limited"``; finer than the class.
        retryable: whether the same request may succeed a moment later.
        retry_after_s: seconds that the provider asked us to wait, or None if it did not say.
        retry_at: before when trying again makes no sense, UTC, or None if that is not known.
        provider_id: id of the provider it happened on, or None.
        http_status: HTTP status of the answer, or None if there was none.
        request_id: our id of the request, the one that events carry, or None.
        provider_request_id: the provider's own id of the request, for its support, or None.
        provider_code: the provider's own error code or type, or None.
        original: ``"module.Type: text"`` of the library error behind it, secrets masked, or None.
        hint: what to do about it, one sentence, or None.
        partial: what had arrived of the answer, or None if nothing had.
        tool_run: the conversation and the calls so far, if `run_tools` was broken off; else None.
    """

    code: str = "llm_error"
    retryable: bool = False
    tool_run: ToolRun | None = None
    default_hint: ClassVar[str | None] = None

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        retry_at: datetime | None = None,
        provider_id: str | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
        provider_request_id: str | None = None,
        provider_code: str | None = None,
        original: str | None = None,
        hint: str | None = None,
        partial: LLMResponse | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable
        self.retry_after_s = _sensible(retry_after_s)
        self.retry_at = retry_at
        self.provider_id = provider_id
        self.http_status = http_status
        self.request_id = request_id
        self.provider_request_id = provider_request_id
        self.provider_code = provider_code
        self.original = original
        self.hint = hint if hint is not None else self.default_hint
        self.partial = partial

    _unquoted = 0
    """A hash of the texts when prompts were last taken out of them."""

    def __str__(self) -> str:
        text = self.message or self.code
        if self.provider_id is not None:
            text = f"{self.provider_id}: {text}"
        return f"{text} ({self.hint})" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__.copy())

    def in_context(self, *, provider_id: str | None = None, request_id: str | None = None) -> Self:
        """Fill in where it happened, unless that is known already; returns the error itself."""
        if self.provider_id is None:
            self.provider_id = provider_id
        if self.request_id is None:
            self.request_id = request_id
        return self

    def mask(self, secrets: Iterable[str], private: Iterable[str] = ()) -> None:
        """Take ``secrets``, what looks like a key, and quotes of ``private`` out of all texts."""
        known, texts = tuple(secrets), tuple(private)
        for name in _TEXTS:
            text = getattr(self, name)
            if text is not None:
                setattr(self, name, redact(text, known))
        # Several layers do this, and for a prompt of a megabyte each takes 20 ms.
        done = hash((texts, *(getattr(self, name) for name in _TEXTS)))
        if done != self._unquoted:
            for name in _TEXTS:
                text = getattr(self, name)
                if text is not None:
                    setattr(self, name, without_quotes(text, texts))
            self._unquoted = hash((texts, *(getattr(self, name) for name in _TEXTS)))
        self.args = (self.message,)
        if any(secret in text for text in _texts_behind(self) for secret in known if secret):
            self.__cause__, self.__suppress_context__ = None, True


_TEXTS = ("message", "hint", "original", "provider_code", "provider_request_id")


def _texts_behind(error: BaseException) -> Iterator[str]:
    """The texts of what ``error`` comes from, as a traceback shows them."""
    seen: list[BaseException] = [error]
    while (error.__cause__ or error.__context__) not in (None, *seen):
        error = cast(BaseException, error.__cause__ or error.__context__)
        seen.append(error)
        yield from (text_of(error), *getattr(error, "__notes__", ()))


def text_of(error: BaseException) -> str:
    """The text of ``error``; empty if its class cannot make one."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - of somebody else's class, whose text may not work
        return ""


def without_secrets(
    error: Exception, secrets: Iterable[str], private: Iterable[str] = ()
) -> Exception:
    """``error`` without ``secrets``, in its texts and in those of what it comes from.

    Returns:
        One of ours is changed, and returned; another is returned as it is, unless it tells a
        secret: then one of ours stands for it, to be raised ``from None``.
    """
    known = [secret for secret in secrets if secret]
    if isinstance(error, LLMError):
        error.mask(known, private)
        return error
    texts = (text_of(error), *getattr(error, "__notes__", ()), *_texts_behind(error))
    if not any(secret in text for text in texts for secret in known):
        return error
    ours = as_llm_error(error)
    ours.mask(known, private)
    return ours


def _sensible(wait_s: float | None) -> float | None:
    """A wait as a server states it, if anybody could wait for it; never longer than a year."""
    if wait_s is None or not math.isfinite(wait_s) or wait_s < 0:
        return None
    return min(wait_s, 365 * 86_400.0)


def _rebuild(kind: type[LLMError], message: str, state: dict[str, Any]) -> LLMError:
    """Unpickle without calling a subclass's ``__init__``, whose parameters may differ."""
    error = kind.__new__(kind, message)
    error.__dict__.update(state)
    return error


class ProviderError(LLMError):
    """Something went wrong between us and the provider."""

    code = "provider_error"


class ProviderAPIError(ProviderError):
    """The provider answered with an error that fits no narrower class."""

    code = "api_error"


class AuthenticationError(ProviderError):
    """The key is missing, malformed or not accepted."""

    code = "auth_invalid"
    default_hint = "check the API key"


class PermissionDeniedError(ProviderError):
    """The key is accepted, but may not do this (model, region or organisation)."""

    code = "forbidden"


class QuotaExceededError(ProviderError):
    """No credit or quota left; the same request will not succeed by waiting."""

    code = "quota_exhausted"
    default_hint = "check plan and billing at the provider"


class RateLimitError(ProviderError):
    """Too many requests or tokens in a short time; ``retry_after_s`` says how long to wait."""

    code = "rate_limited"
    retryable = True


class ModelNotFoundError(ProviderError):
    """The provider does not know the model, or this key may not see it."""

    code = "model_not_found"


class ContextWindowExceededError(ProviderError):
    """Prompt plus answer do not fit into the model's context window."""

    code = "context_window_exceeded"
    default_hint = "shorten the conversation or choose a model with a larger window"


class ContentFilteredError(ProviderError):
    """The provider's content filter refused the prompt or the answer."""

    code = "content_filtered"


class InvalidRequestError(ProviderError):
    """The provider refuses the request as it is; sending it again changes nothing."""

    code = "invalid_request"


class RequestTimeoutError(ProviderError):
    """A clock ran out.

    ``code`` is one of ``connect_timeout``, ``first_token_timeout``, ``total_timeout``,
    ``timeout``.
    """

    code = "timeout"
    retryable = True


class ProviderConnectionError(ProviderError):
    """No connection, or it broke before an answer began.

    ``code`` is one of ``refused``, ``dns``, ``tls``, ``proxy``, ``reset``, ``connection``, or,
    when our own side does not take the request, ``draining`` or ``closed``.
    """

    code = "connection"
    retryable = True


class ProviderOverloadedError(ProviderError):
    """The provider is reachable but has no capacity at the moment (503, 529)."""

    code = "overloaded"
    retryable = True


class CircuitOpenError(ProviderError):
    """Too many requests failed; none is sent before ``retry_at``, unless ``force`` is set."""

    code = "circuit_open"
    retryable = True


class StreamInterruptedError(ProviderError):
    """The answer began and did not end properly; ``partial`` holds what had arrived.

    ``code`` is ``stream_interrupted``, or ``idle_timeout`` when it fell silent.  It is retryable
    by whoever can discard the partial answer; this library itself never restarts a stream that
    has delivered something.
    """

    code = "stream_interrupted"
    retryable = True


class InvalidResponseError(ProviderError):
    """The answer is not what the protocol promises (HTML, broken JSON, missing fields)."""

    code = "invalid_response"


class InvalidParameterError(LLMError, ValueError):
    """A value that the caller gave is wrong; nothing was sent."""

    code = "invalid_parameter"


class UnsupportedFeatureError(LLMError):
    """The provider or the model cannot do what was asked; nothing was sent."""

    code = "unsupported_feature"


class ConfigurationError(LLMError, ValueError):
    """Settings that cannot work (URL, proxy, certificate file, folder)."""

    code = "invalid_config"


class ProviderNotFoundError(LLMError, LookupError):
    """No provider or kind of provider is known under that id."""

    code = "provider_not_found"


class DependencyMissingError(LLMError, ImportError):
    """An optional package is needed and not installed; the text names the extra to install."""

    code = "dependency_missing"

    def __init__(self, message: str = "", *, extra: str | None = None, **facts: Any) -> None:
        if extra is not None:
            facts.setdefault("hint", f"install the extra {extra!r}: pip install '.[{extra}]'")
        super().__init__(message, **facts)
        self.extra = extra


class QueueFullError(LLMError):
    """So many requests wait for their turn that another one is refused; nothing was sent."""

    code = "queue_full"
    retryable = True
    default_hint = "ask again later, or raise max_waiting of ConcurrencyLimit"


class BudgetExceededError(LLMError):
    """The request might cost more than its budget still has; nothing was sent.

    ``retry_at`` says when the budget begins anew, if it does.

    Attributes:
        budget: which one, e.g. ``"usd_per_day"``, or None.
        limit, used, needed: in tokens or US dollars: what it allows, what is spent or reserved
            already, and what this request might take; None where that is not known.
    """

    code = "budget_exceeded"

    def __init__(
        self,
        message: str = "",
        *,
        budget: str | None = None,
        limit: float | None = None,
        used: float | None = None,
        needed: float | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.budget = budget
        self.limit = limit
        self.used = used
        self.needed = needed


class RequestCancelledError(LLMError):
    """The request was ended on purpose: `LLMStream.cancel`, a shutdown, or an early exit."""

    code = "cancelled"


class ToolRoundsExceededError(LLMError):
    """A model still asked for tools in the last answer it was allowed; see ``tool_run``."""

    code = "tool_rounds_exceeded"
    default_hint = "go on from tool_run.messages, or raise max_rounds"


def as_llm_error(error: Exception) -> LLMError:
    """``error`` as one of ours; what a provider class lets out by mistake is marked as such."""
    if isinstance(error, LLMError):
        return error
    text = redact(text_of(error))
    original = f"{type(error).__module__}.{type(error).__qualname__}: {text}"
    if isinstance(error, TimeoutError):
        return RequestTimeoutError(text or "timed out", original=original)
    if isinstance(error, OSError):
        return ProviderConnectionError(text, original=original)
    return ProviderError(
        f"unexpected {type(error).__name__}: {text}",
        code="unexpected",
        original=original,
        hint="the provider class let out an error that is not an LLMError",
    )
