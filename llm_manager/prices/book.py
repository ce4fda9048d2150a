"""`PriceBook`: looks up what a model costs, and computes what a request did."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from datetime import UTC, datetime

from .._threads import reset_after_fork
from ..messages import LLMModelInfo, ModelPrice, Usage
from .cost import Cost
from .overrides import Overrides, StatedPrices, quote_of_price
from .public import DatedQuotes, PublicPrices
from .rates import Quote

# So many models are remembered; more than anybody uses, and not more than memory takes.
_REMEMBERED = 4096


class PriceBook:
    """What models cost: what the user says, else what the public table of ``genai-prices`` says.

    ::

        book = PriceBook({
            "openai/ft:gpt-4o-mini:acme:*": {"input_usd": 0.3, "output_usd": 1.2},
            "ollama/*": {"input_usd": 0, "output_usd": 0},
        })
        await book.load()
        cost = book.cost_of("openai", "gpt-4o", response.usage)

    A price holds for a service, not for a model: the same open model costs something else on each
    host.  The kind of the provider says which service it is; of a kind that the table does not
    know, and of local models, the price is unknown unless the user states one.

    The table takes about 0.2 s to load.  It is loaded by the first question that needs it; on an
    event loop, await `load` before.

    Args:
        overrides: prices in US dollars per million tokens, by patterns of ``provider/model``, where
            the provider is an id or a kind; the first that fits counts.
        public: whether to look into the public table.

    Raises:
        InvalidParameterError: a pattern or a price cannot be.
    """

    def __init__(self, overrides: Overrides | None = None, *, public: bool = True) -> None:
        self._stated = StatedPrices(overrides or {})
        self._listed: dict[tuple[str, str], Quote] = {}
        self._wants_public = public
        self._public: PublicPrices | None = None
        self._known: dict[tuple[str, str, str, str], DatedQuotes | None] = {}
        self._lock = threading.Lock()
        reset_after_fork(self)

    @property
    def loaded(self) -> bool:
        """Whether it answers at once."""
        return self._public is not None or not self._wants_public

    def preload(self) -> None:
        """Load the public table here and now.

        Raises:
            DependencyMissingError: the extra ``cost`` is not installed.
        """
        with self._lock:
            if not self.loaded:
                self._public = PublicPrices()
                self._known.clear()

    async def load(self) -> None:
        """Load the public table in a thread.

        Raises:
            DependencyMissingError: the extra ``cost`` is not installed.
        """
        if not self.loaded:
            await asyncio.to_thread(self.preload)

    def without_public(self) -> PriceBook:
        """A book with what the user says alone."""
        book = PriceBook(public=False)
        book._stated, book._listed = self._stated, self._listed
        return book

    def with_listed(self, models: Iterable[LLMModelInfo]) -> PriceBook:
        """A book that also knows the prices that services list themselves.

        They count after what the user states, and before the public table.

        Args:
            models: of `get_available_models`; those without a price are left out.

        Raises:
            InvalidParameterError: a price cannot be.
        """
        book = PriceBook(public=self._wants_public)
        book._stated, book._public = self._stated, self._public
        book._listed = self._listed | {
            (model.provider_id, model.id): quote_of_price(
                f"the price of {model.id!r}", model.price, source="listed"
            )
            for model in models
            if model.price is not None
            and (model.price.input_usd is not None or model.price.output_usd is not None)
        }
        return book

    def price_of(
        self, kind: str, model: str, *, provider_id: str = "", at: datetime | None = None
    ) -> ModelPrice | None:
        """The price of usual prompts, in US dollars per million tokens; None if it is unknown.

        Args:
            kind: kind of the provider, e.g. ``"openai"``.
            model: id of the model.
            provider_id: id of the provider, which an override may name instead.
            at: when; default: now.

        Raises:
            DependencyMissingError: the extra ``cost`` is not installed.
        """
        quote = self.quote_of(kind, model, at, provider_id=provider_id)
        return None if quote is None else quote.price

    def cost_of(
        self,
        kind: str,
        model: str,
        usage: Usage,
        at: datetime | None = None,
        *,
        provider_id: str = "",
        response_model: str = "",
    ) -> Cost | None:
        """What a request cost by the price of its time; None if that is unknown.

        Args:
            kind, model, provider_id: as in `price_of`.
            usage: its tokens.
            at: when it was sent; default: now.
            response_model: the model that answered, as the service names it, which may tell more
                than the name that was asked for.

        Raises:
            DependencyMissingError: the extra ``cost`` is not installed.
        """
        quote = self.quote_of(
            kind, model, at, provider_id=provider_id, response_model=response_model
        )
        return None if quote is None else quote.cost(usage)

    def quote_of(
        self,
        kind: str,
        model: str,
        at: datetime | None = None,
        *,
        provider_id: str = "",
        response_model: str = "",
    ) -> Quote | None:
        """All rates of a model, to compute costs with; None if they are unknown.

        Args:
            kind, model, at, provider_id, response_model: as in `cost_of`.

        Raises:
            DependencyMissingError: the extra ``cost`` is not installed.
        """
        key = (kind, model, provider_id, response_model)
        try:
            quotes = self._known[key]
        except KeyError:
            quotes = self._found(*key)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = quotes
        if quotes is None:
            return None
        return quotes.at(at or datetime.now(UTC)) if quotes.later else quotes.first

    # ---- inside ----------------------------------------------------------------------------------

    def _found(
        self, kind: str, model: str, provider_id: str, response_model: str
    ) -> DatedQuotes | None:
        names = (provider_id, kind)
        stated = self._stated.find(names, model)
        if stated is None and response_model:
            stated = self._stated.find(names, response_model)
        if stated is None:
            listed = (self._listed.get((name, model)) for name in names)
            stated = next(filter(None, listed), None)
        if stated is not None:
            return DatedQuotes(stated)
        if not self.loaded:
            self.preload()
        if self._public is None:
            return None
        found = self._public.find(kind, response_model) if response_model else None
        return found or self._public.find(kind, model)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
