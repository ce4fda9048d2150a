"""`TokenManager`: a budget of tokens for each period.

It tells what is left and records what was used; to refuse requests by itself, `BudgetPolicy` is
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal, Protocol, TypeAlias

from ..checks import YEAR_S, check_number
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidParameterError
from ..events import RequestFinished
from ..listening import Attachable
from ..messages import LLMMessage, LLMRequest, Messages, TokenCount, Usage, as_messages
from ..tokens import estimate_prompt

Period: TypeAlias = float | Literal["day"] | None


class ProviderLike(Protocol):
    """A provider or a manager, as one that counts."""

    async def count_tokens(self, model: str | None, messages: Messages, /) -> TokenCount:
        """How many tokens a prompt has."""


class ModelLike(Protocol):
    """A handle of one model, as one that counts; `LLMModel` is one."""

    async def count(self, messages: Messages, /) -> TokenCount:
        """How many tokens a conversation has."""


class TokenManager(Attachable):
    """A budget of tokens, all in all or for each period.

    ::

        budget = TokenManager(max_tokens=200_000, period_s="day").attach(manager)
        if await budget.can_process(messages): ...

    Attached, it records by itself what the requests of a provider, or of all of a manager, use.
    Where the budget is for one model, only requests to that model count.  What a composite passes
    on counts where it goes, and an answer out of a cache not at all.  Safe from any thread.

    Args:
        source: who counts: a provider, a manager, or the handle of a model; None: conversations
            are estimated.
        model: which of its models; None: the active one.
        max_tokens: how many tokens may be used, prompts and answers together.
        period_s: after so many seconds, a year at most, the budget begins anew, counted from now;
            ``day``: at midnight, UTC; None: never.
        clock: what time it is, for tests.

    Raises:
        InvalidParameterError: ``max_tokens`` is below 0 or ``period_s`` no period.
    """

    listens_to: ClassVar[Mapping[str, str]] = {"requestFinished": "_finished"}
    batch = 64

    def __init__(
        self,
        source: ProviderLike | ModelLike | None = None,
        model: str | None = None,
        *,
        max_tokens: int,
        period_s: Period = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if source is not None and not hasattr(source, "count_tokens"):
            raise InvalidParameterError(
                f"source must be a provider, a manager or a model that counts, got {source!r:.60}",
                hint="the budget is max_tokens=",
            )
        check_number("max_tokens", max_tokens, low=0, whole=True)
        if isinstance(period_s, str):
            if period_s != "day":
                raise InvalidParameterError(
                    f"period_s must be a number of seconds, 'day' or None, got {period_s!r}"
                )
        elif period_s is not None:
            check_number("period_s", period_s, above=0, high=YEAR_S)
        super().__init__()
        if period_s is not None:  # which may end while a batch waits
            self.batch = 1
        self.max_tokens = max_tokens
        self.period_s = period_s
        self._source = source
        self._model = model
        self._clock = clock
        self._used_tokens = 0
        self._ends_at_s = self._end_after(clock.wall())

    def __repr__(self) -> str:
        return f"<TokenManager {self.used_tokens} of {self.max_tokens} tokens used>"

    @property
    def used_tokens(self) -> int:
        """How many were used in this period."""
        self.catch_up()
        with self._lock:
            self._begin_anew_if_due()
            return self._used_tokens

    @property
    def left_tokens(self) -> int:
        """How many may still be used in this period; never below 0."""
        return max(0, self.max_tokens - self.used_tokens)

    @property
    def resets_at(self) -> datetime | None:
        """When the budget begins anew, UTC; None: never."""
        with self._lock:
            self._begin_anew_if_due()
            ends_at_s = self._ends_at_s
        return None if ends_at_s is None else datetime.fromtimestamp(ends_at_s, UTC)

    async def can_process(self, messages_or_tokens: Messages | int) -> bool:
        """Whether so many tokens are left: those of a conversation, or a number.

        A conversation is counted by the source, as exactly as it can.

        Raises:
            InvalidParameterError: it is no conversation, or the number is below 0.
            ProviderError: the source could not be asked.
        """
        if isinstance(messages_or_tokens, int):
            return self.has_room_for(messages_or_tokens)
        return self.has_room_for((await self._count(messages_or_tokens)).tokens)

    def has_room_for(self, tokens: int) -> bool:
        """Whether so many tokens are left.

        Raises:
            InvalidParameterError: the number is below 0.
        """
        check_number("tokens", tokens, low=0, whole=True)
        return self.used_tokens + tokens <= self.max_tokens

    def record_usage(self, prompt_tokens: int | Usage, completion_tokens: int = 0) -> None:
        """Count tokens as used: those of a prompt and its answer, or a `Usage`.

        Raises:
            InvalidParameterError: a number is below 0.
        """
        if isinstance(prompt_tokens, Usage):
            tokens = prompt_tokens.total_tokens + completion_tokens
        else:
            check_number("prompt_tokens", prompt_tokens, low=0, whole=True)
            tokens = prompt_tokens + completion_tokens
        check_number("completion_tokens", completion_tokens, low=0, whole=True)
        with self._lock:
            self._begin_anew_if_due()
            self._used_tokens += tokens

    def reset(self) -> None:
        """Begin anew now: nothing is used; a period of seconds begins now, too."""
        self.catch_up()
        with self._lock:
            self._used_tokens = 0
            self._ends_at_s = self._end_after(self._clock.wall())

    # ---- inside ----------------------------------------------------------------------------------

    async def _count(self, messages: Messages) -> TokenCount:
        source = self._source
        if source is None:
            return estimate_prompt(_request_of(as_messages(messages)))
        count = getattr(source, "count", None)
        if count is not None:
            counted: TokenCount = await count(messages)
            return counted
        return await source.count_tokens(self._model, messages)

    def _finished(self, event: RequestFinished) -> None:
        if event.composite or event.cached or event.usage is None:
            return
        # A manager knows its models by the name of their provider, too.
        if self._model in (None, event.model, f"{event.provider_id}/{event.model}"):
            self.record_usage(event.usage)

    def _begin_anew_if_due(self) -> None:
        if self._ends_at_s is None:
            return
        now_s = self._clock.wall()
        if now_s >= self._ends_at_s:
            self._used_tokens = 0
            self._ends_at_s = self._end_after(now_s, self._ends_at_s)

    def _end_after(self, now_s: float, last_end_s: float | None = None) -> float | None:
        """When the period ends that ``now_s`` is in."""
        if self.period_s is None:
            return None
        if isinstance(self.period_s, str):
            midnight = datetime.fromtimestamp(now_s, UTC).replace(
                hour=0, minute=0, second=0, microsecond=0
            )
            return (midnight + timedelta(days=1)).timestamp()
        began_s = now_s if last_end_s is None else last_end_s
        # Periods follow each other without gaps, also those in which nobody asked.
        return began_s + self.period_s * ((now_s - began_s) // self.period_s + 1)


def _request_of(messages: tuple[LLMMessage, ...]) -> LLMRequest:
    return LLMRequest(id="", model="", messages=messages)
