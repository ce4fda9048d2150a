"""The public prices of the package ``genai-prices``: a table that is installed with it.

The package can also read newer prices from the network; it is never asked to.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any, NamedTuple

from ..errors import DependencyMissingError
from .rates import Quote, Rates

# Kinds of providers whose service has another name in the table.  A kind that the table does not
# know has no public price: the same open model costs something else on each host.
_NAMES = {
    "gemini": "google",
    "moonshot": "moonshotai",
    "xai": "x-ai",
}
# Libraries that speak to many services and name the service in front of the model.
_NAMED_IN_MODEL = frozenset({"litellm"})

# Ours, theirs; US dollars per million tokens.
_TOKEN_RATES = (
    ("input", "input_mtok"),
    ("output", "output_mtok"),
    ("cached", "cache_read_mtok"),
    ("cache_write", "cache_write_mtok"),
    ("reasoning", "output_reasoning_mtok"),
)


class DatedQuotes(NamedTuple):
    """All prices of one model; which one holds depends on the time."""

    first: Quote
    later: tuple[tuple[Callable[[datetime], bool] | None, Quote], ...] = ()

    def at(self, moment: datetime) -> Quote:
        """The price that holds at ``moment``: the last one whose condition is met."""
        for holds, quote in self.later:
            if holds is None or holds(moment):
                return quote
        return self.first


class PublicPrices:
    """The table, in memory.  Making it takes about 0.2 s.

    Raises:
        DependencyMissingError: the package is not installed.
    """

    def __init__(self) -> None:
        try:
            package = importlib.import_module("genai_prices")
            snapshot = importlib.import_module("genai_prices.data_snapshot")
        except ImportError:
            package = None
        if package is None:
            raise DependencyMissingError(
                "public prices need the package 'genai-prices'", extra="cost"
            )
        self.source = f"genai-prices {package.__version__}"
        self._services = {service.id: service for service in snapshot.get_snapshot().providers}

    def find(self, kind: str, model: str) -> DatedQuotes | None:
        """The prices of ``model`` at the service that ``kind`` stands for, or None."""
        if kind in _NAMED_IN_MODEL:
            kind, _, model = model.partition("/")
            if not model:
                return None
        service = self._services.get(_NAMES.get(kind, kind))
        return None if service is None else self._of(service, model)

    def _of(self, service: Any, model: str) -> DatedQuotes | None:
        info = service.find_model(model, all_providers=list(self._services.values()))
        if info is None:
            return None
        if not isinstance(info.prices, list):
            quote = self._quote(info.prices, None)
            return None if quote is None else DatedQuotes(quote)
        return self._dated(info.prices)

    def _dated(self, conditional: Iterable[Any]) -> DatedQuotes | None:
        later = []
        for price in conditional:
            constraint = price.constraint
            quote = self._quote(price.prices, getattr(constraint, "start_date", None))
            if quote is None:
                return None  # without a price at one time it has no price that can be relied on
            later.append((None if constraint is None else constraint.active, quote))
        return DatedQuotes(later[0][1], tuple(reversed(later))) if later else None

    def _quote(self, prices: Any, since: date | None) -> Quote | None:
        """``prices`` as ours; None if it has none for tokens."""
        if prices.input_mtok is None:
            return None
        theirs = {ours: getattr(prices, name) for ours, name in _TOKEN_RATES}
        per_request = float(prices.requests_kcount or 0) / 1000
        starts = {tier.start for price in theirs.values() for tier in getattr(price, "tiers", ())}

        def rates(prompt_tokens: int) -> Rates:
            found = {name: _rate(price, prompt_tokens) for name, price in theirs.items()}
            return Rates(**found, request=per_request)

        return Quote(
            rates(0),
            tuple((start, rates(start + 1)) for start in sorted(starts)),
            self.source,
            since,
        )


def _rate(price: Any, prompt_tokens: int) -> float | None:
    """The price per million tokens in a prompt of that length; rates of the highest tier reached
    hold for all of its tokens."""
    if price is None:
        return None
    tiers = getattr(price, "tiers", None)
    if tiers is None:
        return float(price)
    reached = [tier.price for tier in tiers if prompt_tokens > tier.start]
    return float(reached[-1] if reached else price.base)
