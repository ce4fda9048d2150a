"""`Quote`: the prices of one model at one time, ready to be multiplied with token counts."""

from __future__ import annotations

from datetime import date

import msgspec

from ..messages import ModelPrice, Usage
from .cost import PICODOLLARS, Cost

_MILLION = 1_000_000
# Anthropic's price list: what is written to a cache for an hour costs twice as much as input.  The
# public table has the rate for five minutes only.
_FOR_AN_HOUR = 2.0


class Rates(msgspec.Struct, frozen=True, gc=False):
    """US dollars per million tokens; None: nobody says, so that such tokens have no known price.

    Attributes:
        input, output: of what is read and written.
        cached: of what is read from the service's cache.
        cache_write: of what is written to it.
        reasoning: of reasoning.
        request: US dollars for each request.
    """

    input: float | None = None
    output: float | None = None
    cached: float | None = None
    cache_write: float | None = None
    reasoning: float | None = None
    request: float = 0.0


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Prices of a model, and who says so.

    Attributes:
        base: for usual prompts.
        tiers: for long ones: ``(tokens, rates)``, ascending; rates hold for all tokens of a request
            whose prompt has more than so many.
        source, price_date: as in `Cost`.
    """

    base: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()
    source: str = ""
    price_date: date | None = None

    @property
    def price(self) -> ModelPrice:
        """For people to read; those of usual prompts."""
        base = self.base
        return ModelPrice(
            input_usd=base.input, output_usd=base.output, cached_input_usd=base.cached
        )

    def cost(self, usage: Usage) -> Cost | None:
        """What ``usage`` costs; None if something in it has no price."""
        parts = self._parts(usage)
        if parts is None:
            return None
        of_input, of_output, of_cached = parts
        return Cost(
            usd=of_input + of_output,
            input_usd=of_input,
            output_usd=of_output,
            cached_usd=of_cached,
            estimated=usage.estimated,
            source=self.source,
            price_date=self.price_date,
        )

    def picodollars(self, usage: Usage) -> int | None:
        """The same as an amount to add up, for those who ask often."""
        parts = self._parts(usage)
        return None if parts is None else round((parts[0] + parts[1]) * PICODOLLARS)

    def _parts(self, usage: Usage) -> tuple[float, float, float] | None:
        """US dollars for the input, for the output, and for what of the input was cached."""
        rates, prompt, cached = self.base, usage.prompt_tokens, usage.cached_tokens
        for more_than_tokens, of_tier in self.tiers:
            if prompt > more_than_tokens:
                rates = of_tier
        of_input = of_cached = of_output = 0.0
        plain, written = prompt - cached, usage.completion_tokens
        if usage.cache_write_tokens and rates.cache_write is not None:
            plain -= usage.cache_write_tokens
            of_input = usage.cache_write_tokens * rates.cache_write / _MILLION
            if usage.cache_write_1h_tokens and rates.input is not None:
                more = _FOR_AN_HOUR * rates.input - rates.cache_write
                of_input += usage.cache_write_1h_tokens * more / _MILLION
        if cached:
            each = rates.cached if rates.cached is not None else rates.input
            if each is None:
                return None
            of_cached = cached * each / _MILLION
        if plain > 0:
            if rates.input is None:
                return None
            of_input += plain * rates.input / _MILLION
        if rates.reasoning is not None:
            written -= usage.reasoning_tokens
            of_output = usage.reasoning_tokens * rates.reasoning / _MILLION
        if written > 0:
            if rates.output is None:
                return None
            of_output += written * rates.output / _MILLION
        return of_input + of_cached + rates.request, of_output, of_cached
