"""`FallbackProvider`: asks one after the other until one answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import aclosing
from difflib import get_close_matches
from time import monotonic
from typing import Any, TypeAlias

from .. import errors
from ..errors import (
    AuthenticationError,
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    ContextWindowExceededError,
    DependencyMissingError,
    InvalidParameterError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderConnectionError,
    ProviderOverloadedError,
    QueueFullError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
    UnsupportedFeatureError,
)
from ..messages import Delta, KeepAliveDelta, LLMRequest
from .base import CompositeProvider
from .failures import no_answer
from .members import is_worth_asking
from .models import Ask
from .passing import answer_of, is_over, stream_of
from .seats import Member

Cause: TypeAlias = type[LLMError] | str
"""An error class, its name, or an error code."""

FALLBACK_ON: tuple[type[LLMError], ...] = (
    ProviderConnectionError,
    ProviderOverloadedError,
    RateLimitError,
    QueueFullError,
    RequestTimeoutError,
    StreamInterruptedError,
    InvalidResponseError,
    CircuitOpenError,
    QuotaExceededError,
    AuthenticationError,
    PermissionDeniedError,
    ModelNotFoundError,
    ConfigurationError,
    DependencyMissingError,
    BudgetExceededError,
)
"""The errors that lead to the next member if nothing else is said: those that say something about
the member, or about its budget, and nothing about the question."""


# The member was stopped by somebody, or has a defect.
_OF_MEMBER = frozenset({"draining", "unexpected"})


class FallbackProvider(CompositeProvider):
    """Asks its members in their order; the first that answers, answers.

    One that is lost, cooling down or whose circuit is open is passed over without waiting, and
    asked after all others have failed.  What a member cannot do leads to the next one as well, and
    so does an error of the server (5xx).  As soon as a piece of the answer has come, the stream is
    that member's, and breaks if it breaks.

    ``response.answered_by`` says who has answered; each step is a ``requestStarted`` and
    ``requestFinished`` of a member, with ``parent_id``.

    Args:
        members: see `CompositeProvider`; the most wanted first.
        on: the errors that lead to the next member, in place of `FALLBACK_ON`: classes, names of
            classes, or codes.  With `ContextWindowExceededError` the next is one whose window is
            larger, or not known.
        settings: ``models`` of `CompositeProvider`, and those of `BaseLLMProvider`.

    Raises:
        InvalidParameterError: there is no such error.
    """

    kind = "fallback"

    def __init__(
        self,
        members: Collection[Member] = (),
        *,
        on: Iterable[Cause] = FALLBACK_ON,
        **settings: Any,
    ) -> None:
        super().__init__(members, **settings)
        self._on = Causes(on)

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        began_s = monotonic()
        asks = in_order_of_hope(self._asks(request))
        failures: list[tuple[str, LLMError]] = []
        while asks:
            ask = asks.pop(0)
            begun = False
            try:
                stream = stream_of(ask.member, ask.model, request, began_s)
                async with aclosing(answer_of(ask.member, stream)) as deltas:
                    async for delta in deltas:
                        begun = begun or type(delta) is not KeepAliveDelta
                        yield delta
            except LLMError as error:
                error.in_context(provider_id=ask.member.id)
                if begun or is_over(request, began_s) or not self._on.lead_on(error):
                    raise
                failures.append((ask.member.id, error))
                if isinstance(error, ContextWindowExceededError):
                    asks = [each for each in asks if _reads_more(each, ask)]
            else:
                return
        raise no_answer(failures, self.id)


class Causes:
    """The errors after which somebody else is asked.

    Raises:
        InvalidParameterError: there is no such error.
    """

    def __init__(self, causes: Iterable[Cause]) -> None:
        if isinstance(causes, str):
            raise InvalidParameterError(f"on must be a list of errors, got {causes!r}")
        self._classes: tuple[type[LLMError], ...] = ()
        self._codes: frozenset[str] = frozenset()
        for cause in causes:
            if isinstance(cause, type) and issubclass(cause, LLMError):
                self._classes += (cause,)
            elif not isinstance(cause, str):
                raise InvalidParameterError(f"on takes errors of this library, got {cause!r:.60}")
            elif cause in _CLASSES:
                self._classes += (_CLASSES[cause],)
            elif cause.islower():
                self._codes |= {cause}
            else:
                near = get_close_matches(cause, _CLASSES, n=1)
                raise InvalidParameterError(
                    f"on names {cause!r}, which is no error of this library",
                    hint=f"did you mean {near[0]!r}?" if near else None,
                )
        self._server_errors = self._classes == FALLBACK_ON

    def lead_on(self, error: LLMError) -> bool:
        """Whether somebody else shall be asked after ``error``."""
        if isinstance(error, (UnsupportedFeatureError, *self._classes)):
            return True
        if error.code in _OF_MEMBER:
            return True
        if self._server_errors and (error.http_status or 0) >= 500:
            return True
        return error.code in self._codes


def in_order_of_hope(asks: list[Ask]) -> list[Ask]:
    """Who may answer right now first; those that are left alone for now at the end."""
    return sorted(asks, key=lambda ask: not is_worth_asking(ask.member))


def _reads_more(ask: Ask, than: Ask) -> bool:
    window, limit = _window_tokens(ask), _window_tokens(than)
    return window is None or limit is None or window > limit


def _window_tokens(ask: Ask) -> int | None:
    model = ask.model if ask.model is not None else ask.member.active_model
    return ask.member.get_capabilities(model).context_window_tokens


_CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, LLMError)
}
