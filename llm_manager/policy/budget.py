"""Does not send what would cost more than a budget still has.

What a request might take is reserved before it is sent, so that several at once cannot overspend
together; when it has ended, what it took stands in its place.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import UTC, tzinfo
from typing import Literal

from .._threads import reset_after_fork
from ..checks import check_number, check_type
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import (
    DependencyMissingError,
    InvalidParameterError,
    RequestCancelledError,
    RequestTimeoutError,
)
from ..messages import Delta, LLMRequest, TextDelta, Usage
from ..prices import PriceBook, Quote
from ..tokens import estimate_prompt_tokens, is_long
from . import Exchange, Host
from .budget_account import Accounts, Reservation
from .budget_limits import BudgetLeft, BudgetUse, Limits, price_unknown
from .budget_use import NOTHING, Meter
from .patterns import model_filter

log = logging.getLogger("llm_manager.budget")


class BudgetPolicy:
    """Refuses a request that might take more tokens or money than its budget still has.

    ::

        budget = BudgetPolicy(max_usd_per_day=5, max_tokens_per_conversation=200_000)
        manager.add_policy(budget)
        ...
        budget.left.usd

    A request that is refused raises `BudgetExceededError` and is not sent.  What it might take is
    its prompt, estimated, and ``max_tokens`` of its options, or ``answer_tokens`` if it has none;
    that much is reserved while it runs, so a budget is overspent by no more than estimates are
    wrong.  Then the service's own count takes its place.  A request that fails before anything has
    come takes nothing; one that is stopped or times out takes its prompt and what has come; an
    answer from a cache takes nothing.

    One object given to several providers is one budget for all of them.  Requests to a provider
    that passes them on to others are not counted; those others' are.  Nothing is written to a
    disk: `saved` tells what the next run may `restore`.

    Args:
        max_tokens_per_request, max_usd_per_request: for each request.
        max_tokens_per_conversation, max_usd_per_conversation: for all requests with the same
            ``conversation_id`` in their options; those without one are not limited by it.
        max_tokens_per_day, max_usd_per_day: from midnight to midnight.
        models: patterns of the models that it is for; others are neither limited nor counted.
        prices: what tokens cost; default: the public prices.
        unknown: what to do with a limit in US dollars and a model whose price is not known:
            ``refuse`` the request, or ``allow`` it and count no money for it.
        answer_tokens: how long an answer is taken to be where the request has no ``max_tokens``.
        timezone: where days begin; default: UTC, as on the services' bills.
        max_conversations: how many conversations are remembered; the one that was used least
            recently begins anew when there are more.
        clock: what time it is.

    Raises:
        InvalidParameterError: a number is below zero, or a value cannot be.
    """

    around_parts = True

    def __init__(
        self,
        *,
        max_tokens_per_request: int | None = None,
        max_usd_per_request: float | None = None,
        max_tokens_per_conversation: int | None = None,
        max_usd_per_conversation: float | None = None,
        max_tokens_per_day: int | None = None,
        max_usd_per_day: float | None = None,
        models: str | Iterable[str] | None = None,
        prices: PriceBook | None = None,
        unknown: Literal["refuse", "allow"] = "refuse",
        answer_tokens: int = 1000,
        timezone: tzinfo = UTC,
        max_conversations: int = 10_000,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._limits = Limits(
            tokens_per_request=max_tokens_per_request,
            usd_per_request=max_usd_per_request,
            tokens_per_conversation=max_tokens_per_conversation,
            usd_per_conversation=max_usd_per_conversation,
            tokens_per_day=max_tokens_per_day,
            usd_per_day=max_usd_per_day,
        )
        if unknown not in ("refuse", "allow"):
            raise InvalidParameterError(f"unknown must be 'refuse' or 'allow', got {unknown!r}")
        check_number("answer_tokens", answer_tokens, low=0, whole=True)
        check_number("max_conversations", max_conversations, low=1, whole=True)
        check_type("timezone", timezone, tzinfo)
        if prices is not None:
            check_type("prices", prices, PriceBook)
        self.unknown = unknown
        self.answer_tokens = answer_tokens
        self.clock = clock
        self._is_for = None if models is None else model_filter(models)
        self._book = prices or PriceBook()
        self._accounts = Accounts(clock, timezone, max_conversations)
        self._unknown_requests = 0
        self._lock = threading.RLock()
        reset_after_fork(self)

    # ---- to look at ------------------------------------------------------------------------------

    @property
    def spent(self) -> BudgetUse:
        """What is spent today, and reserved."""
        with self._lock:
            return self._limits.use(self._accounts.today)

    @property
    def left(self) -> BudgetLeft:
        """What is left of today's budget, reservations taken off."""
        with self._lock:
            today = self._accounts.today
            return self._limits.left("day", today, self._accounts.next_day)

    def spent_in(self, conversation_id: str) -> BudgetUse:
        """What a conversation has spent, and reserved."""
        with self._lock:
            return self._limits.use(self._accounts.known_conversation(conversation_id))

    def left_in(self, conversation_id: str) -> BudgetLeft:
        """What is left of a conversation's budget; today's may end sooner."""
        with self._lock:
            known = self._accounts.known_conversation(conversation_id)
            return self._limits.left("conversation", known, None)

    @property
    def unknown_requests(self) -> int:
        """How many requests were sent whose price is not known."""
        return self._unknown_requests

    def saved(self) -> str:
        """What is spent, for `restore` in the next run: JSON with numbers and conversation ids.

        What still runs counts with what it might take.
        """
        with self._lock:
            return self._accounts.saved().decode()

    def restore(self, saved: str | bytes) -> None:
        """Go on from what an earlier run had spent today, and in its conversations.

        Args:
            saved: what `saved` returned there; it is added to what this run has spent.

        Raises:
            InvalidParameterError: it is something else; nothing has changed.
        """
        with self._lock:
            self._accounts.restore(saved)

    def reset(self) -> None:
        """Begin all budgets anew."""
        with self._lock:
            self._accounts.reset()
            self._unknown_requests = 0

    # ---- at work ---------------------------------------------------------------------------------

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        if host.is_composite:
            return exchange
        kind, provider_id = host.kind, host.status.provider_id

        def quote_of(model: str, response_model: str = "") -> Quote | None:
            return self._book.quote_of(
                kind, model, provider_id=provider_id, response_model=response_model
            )

        def budgeted(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            is_for = self._is_for
            if is_for is None or is_for(request.model):
                return metered(request)
            return exchange(request)

        async def metered(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            if self._limits.in_usd and not self._book.loaded:
                await self._load_prices()
            if is_long(request):
                prompt_tokens = await asyncio.to_thread(estimate_prompt_tokens, request)
            else:
                prompt_tokens = estimate_prompt_tokens(request)
            quote = quote_of(request.model) if self._limits.in_usd else None
            reservation = self._reserve(request, prompt_tokens, quote, host)
            meter = Meter(prompt_tokens)
            take, add = meter.texts.append, meter.add
            try:
                deltas = exchange(request)
                try:
                    async for delta in deltas:
                        if type(delta) is TextDelta:
                            take(delta.text)
                        else:
                            add(delta)
                        yield delta
                    meter.whole = True
                finally:
                    await deltas.aclose()
            except (GeneratorExit, asyncio.CancelledError, RequestCancelledError):
                meter.read = True
                raise
            except RequestTimeoutError as error:
                meter.read = error.code != "connect_timeout"
                raise
            finally:
                self._settle(reservation, meter, request.model, quote, quote_of)

        return budgeted

    async def _load_prices(self) -> None:
        try:
            await self._book.load()
        except DependencyMissingError as error:
            log.warning("budgets know stated prices only: %s", error)
            self._book = self._book.without_public()

    def _reserve(
        self, request: LLMRequest, prompt_tokens: int, quote: Quote | None, host: Host
    ) -> Reservation:
        """Keep what ``request`` might take, or refuse it."""
        options, answer_tokens = request.options, 0
        if request.operation != "embed":
            answer_tokens = options.max_tokens or self.answer_tokens
        picodollars = 0
        if self._limits.in_usd:
            usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=answer_tokens)
            known = None if quote is None else quote.picodollars(usage)
            if known is None and self.unknown == "refuse":
                raise price_unknown(host, request.model)
            picodollars = known or 0
        needed = (prompt_tokens + answer_tokens, picodollars)
        with self._lock:
            today, conversation = self._accounts.today, None
            if options.conversation_id is not None:
                conversation = self._accounts.of_conversation(options.conversation_id)
            self._limits.check(needed, today, conversation, self._accounts)
            return Reservation(needed, (today,) if conversation is None else (today, conversation))

    def _settle(
        self,
        reservation: Reservation,
        meter: Meter,
        model: str,
        quote: Quote | None,
        quote_of: Callable[[str, str], Quote | None],
    ) -> None:
        """Put what a request has taken in the place of what was kept for it."""
        # It must not stay for ever, even if somebody's own provider tells nonsense.
        tokens, picodollars = reservation.amount
        unknown = False
        try:
            used = meter.used()
            # A provider class may tell any number.
            tokens = max(int(used.prompt_tokens + used.completion_tokens), 0)
            if self._limits.in_usd:
                if meter.model not in ("", model):
                    quote = quote_of(model, meter.model)
                spent: int | None = 0
                if used is not NOTHING:
                    spent = None if quote is None else quote.picodollars(used)
                unknown = spent is None
                picodollars = max(spent or 0, 0)
        finally:
            with self._lock:
                self._unknown_requests += unknown
                reservation.settle(tokens, picodollars)

    def _after_fork(self) -> None:
        """Begin at 0 as any process does: the parent's requests do not end here."""
        self._lock = threading.RLock()
        self.reset()
