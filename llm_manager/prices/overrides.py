"""Prices that a user states, for what no public table knows."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from ..checks import check_optional_number, check_type, shown
from ..errors import InvalidParameterError
from ..messages import ModelPrice, from_mapping
from .rates import Quote, Rates

Overrides = Mapping[str, ModelPrice | Mapping[str, Any]]


class StatedPrices:
    """Prices by patterns of ``provider/model``; the first pattern that fits counts.

    Raises:
        InvalidParameterError: a pattern or a price cannot be.
    """

    def __init__(self, overrides: Overrides) -> None:
        check_type("overrides", overrides, Mapping)
        self._quotes = [(_pattern(p), _quote(p, price)) for p, price in overrides.items()]

    def find(self, providers: tuple[str, ...], model: str) -> Quote | None:
        """The price of ``model`` at a provider that has all these names."""
        names = [f"{provider}/{model}" for provider in providers]
        for pattern, quote in self._quotes:
            if any(fnmatchcase(name, pattern) for name in names):
                return quote
        return None


def _pattern(pattern: object) -> str:
    if not isinstance(pattern, str) or not all(pattern.partition("/")):
        raise InvalidParameterError(
            f"a price is for 'provider/model', got {shown(pattern)}",
            hint="e.g. 'ollama/*', 'openai/ft:gpt-4o*', or '*/my-model' for any provider",
        )
    return pattern


def _quote(pattern: str, price: object) -> Quote:
    where = f"the price of {pattern!r}"
    if isinstance(price, Mapping):
        price = from_mapping(ModelPrice, price, where)
    if not isinstance(price, ModelPrice):
        raise InvalidParameterError(
            f"{where} must be a ModelPrice or a dictionary, got {shown(price)}"
        )
    return quote_of_price(where, price, source="override")


def quote_of_price(where: str, price: ModelPrice, source: str) -> Quote:
    """A price to compute with.

    Args:
        where: what to call it if it cannot be.
        price: the price.
        source: who says so.

    Raises:
        InvalidParameterError: it says nothing, or a number cannot be.
    """
    for name in price.__struct_fields__:
        check_optional_number(f"{where}: {name}", getattr(price, name), low=0, high=1e9)
    if price.input_usd is None and price.output_usd is None:
        raise InvalidParameterError(f"{where} says nothing", hint="what is free costs 0")
    return Quote(Rates(price.input_usd, price.output_usd, price.cached_input_usd), source=source)
