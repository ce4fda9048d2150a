"""`CostTracker`: what requests cost, added up from the events of their ends.

It adds up; it neither blocks a request (`BudgetPolicy` does) nor keeps a single one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

from ..checks import check_number, check_type
from ..emitter import EventEmitter
from ..errors import DependencyMissingError, InvalidParameterError
from ..events import RequestFinished
from ..listening import Attachable
from ..messages import Usage
from ..prices import PriceBook, as_usd
from .cost_figures import CostSnapshot
from .cost_sums import EndedRequest, Sums

log = logging.getLogger("llm_manager.cost")

# So many requests wait for the prices; loading takes 0.2 s.
_MOST_WAITING = 100_000
# Codes of errors that say that no service has seen the request.
_NEVER_ARRIVED = frozenset({"refused", "dns", "tls", "proxy", "connect_timeout"})


class CostTracker(Attachable):
    """Money and tokens by model, conversation and day.

    ::

        costs = CostTracker().attach(manager)
        ...
        print(f"${costs.total_usd:.4f}, and {costs.unknown_requests} requests of unknown cost")

    A request whose price is not known, or that was sent and broken off before the service had said
    what it took, is counted in ``unknown_requests``; it is never counted as 0.  Answers that a
    cache gave again cost nothing; what they would have cost is ``saved_usd``.  Requests to a
    provider that passes them on to others are not counted; those others' are.

    The prices are loaded in a thread when it is attached; requests that end before that is done
    wait in ``pending_requests``, see `settle`.  Memory is bounded, however many requests there are.

    Args:
        prices: what tokens cost; default: the public prices.
        max_models: how many models, each of one provider, are told apart; what comes for later ones
            is counted under provider ``"other"``, model ``"other"``.
        max_conversations: how many conversations are remembered, the latest ones.
        max_days: how many days are remembered, the latest ones; days are those of UTC.

    Raises:
        InvalidParameterError: a value cannot be.
    """

    listens_to: ClassVar[Mapping[str, str]] = {"requestFinished": "_finished"}
    batch = 64

    def __init__(
        self,
        prices: PriceBook | None = None,
        *,
        max_models: int = 1000,
        max_conversations: int = 1000,
        max_days: int = 400,
    ) -> None:
        super().__init__()
        if prices is not None:
            check_type("prices", prices, PriceBook)
        check_number("max_models", max_models, low=1, whole=True)
        check_number("max_conversations", max_conversations, low=1, whole=True)
        check_number("max_days", max_days, low=1, whole=True)
        self._book = prices or PriceBook()
        self._sums = Sums(max_models, max_conversations, max_days)
        self._pending: deque[EndedRequest] = deque()
        self._loader: threading.Thread | None = None
        self._since = datetime.now(UTC)

    @property
    def total_usd(self) -> float:
        """What all requests of known cost have cost, in US dollars."""
        self.catch_up()
        with self._lock:
            return as_usd(self._sums.total.picodollars)

    @property
    def unknown_requests(self) -> int:
        """How many requests are not in ``total_usd``, because nobody knows what they cost."""
        self.catch_up()
        with self._lock:
            return self._sums.total.unknown_requests

    @property
    def pending_requests(self) -> int:
        """How many requests wait for the prices to be loaded."""
        self.catch_up()
        return len(self._pending)

    def snapshot(self) -> CostSnapshot:
        """Everything that is known now."""
        self.catch_up()
        with self._lock:
            return self._sums.snapshot(self._since, len(self._pending))

    async def settle(self) -> None:
        """Wait until no request waits for the prices any more."""
        self.catch_up()
        loader = self._loader
        if loader is not None:
            await asyncio.to_thread(loader.join)

    def record_usage(
        self,
        model: str,
        prompt_tokens: int,
        completion_tokens: int,
        *,
        provider: str = "",
        conversation_id: str | None = None,
    ) -> None:
        """Count a request that no event tells of, because it was made elsewhere.

        Args:
            model: id of the model, or ``"provider/model"``.
            prompt_tokens, completion_tokens: what it took.
            provider: kind or id of the provider; prices belong to services, so without one only a
                stated price for ``"*/model"`` is known.
            conversation_id: which conversation it belongs to.

        Raises:
            InvalidParameterError: a value cannot be.
        """
        check_type("model", model, str)
        check_type("provider", provider, str)
        check_number("prompt_tokens", prompt_tokens, low=0, whole=True)
        check_number("completion_tokens", completion_tokens, low=0, whole=True)
        if not provider and "/" in model:
            provider, _, model = model.partition("/")
        if not model:
            raise InvalidParameterError("model must be the id of a model, got an empty text")
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        request = EndedRequest(
            provider, provider, model, "", conversation_id, usage, datetime.now(UTC), False
        )
        with self._lock:
            self._count_or_wait(request)

    def reset(self) -> None:
        """Begin at 0."""
        self.catch_up()
        with self._lock:
            self._sums.clear()
            self._pending.clear()
            self._since = datetime.now(UTC)

    # ---- events ----------------------------------------------------------------------------------

    def _before_attaching(self, emitter: EventEmitter) -> None:
        self._load_prices()

    def _finished(self, event: RequestFinished) -> None:
        if event.composite or _took_nothing(event):
            return
        with self._lock:
            self._count_or_wait(
                EndedRequest(
                    event.provider_id,
                    event.kind,
                    event.model,
                    event.response_model,
                    event.conversation_id,
                    event.usage,
                    event.at,
                    event.cached,
                )
            )

    # ---- inside ----------------------------------------------------------------------------------

    def _count_or_wait(self, request: EndedRequest) -> None:
        if self._book.loaded:
            self._count(request)
            return
        self._pending.append(request)
        if len(self._pending) > _MOST_WAITING:
            self._sums.add(self._pending.popleft(), None)
        self._load_prices()

    def _count(self, request: EndedRequest) -> None:
        usage = request.usage
        cost = None
        if usage is not None:
            cost = self._book.cost_of(
                request.kind,
                request.model,
                usage,
                request.at,
                provider_id=request.provider_id,
                response_model=request.response_model,
            )
        self._sums.add(request, cost)

    def _load_prices(self) -> None:
        """Load them in a thread, unless that is done or being done."""
        if self._book.loaded or (self._loader is not None and self._loader.is_alive()):
            return
        self._loader = threading.Thread(
            target=self._load_and_count, name="llm_manager-prices", daemon=True
        )
        self._loader.start()

    def _load_and_count(self) -> None:
        try:
            self._book.preload()
        except DependencyMissingError as error:
            log.warning("only stated prices are known: %s", error)
            self._book = self._book.without_public()
        while True:
            # One at a time, so that nobody waits long for the lock.
            with self._lock:
                if not self._pending:
                    return
                self._count(self._pending.popleft())

    def _after_fork(self) -> None:
        super()._after_fork()
        self._loader = None


def _took_nothing(event: RequestFinished) -> bool:
    """Whether a request was not sent, never arrived, or was refused by the service."""
    if event.usage is not None or event.cached:
        return False
    error = event.error
    refused = error is not None and (error.http_status is not None or error.code in _NEVER_ARRIVED)
    return event.attempts == 0 or refused
