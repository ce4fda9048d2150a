"""`Cost`: what one request cost, and how such amounts are added up.

Amounts are floats, because people compare them with their own numbers and JSON knows nothing
else.  Whoever adds them up adds whole picodollars (10⁻¹² US dollars), which is exact however many
they are and leaves nothing behind when it is taken off again.
"""

from __future__ import annotations

from datetime import date

from ..messages import Data

PICODOLLARS = 10**12


class Cost(Data, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What one request cost, in US dollars.

    Attributes:
        usd: all of it.
        input_usd: the prompt's part, and a fee per request where there is one.
        output_usd: the answer's part, reasoning included.
        cached_usd: what ``input_usd`` has for tokens that the service read from its own cache.
        estimated: whether it is computed from tokens that were estimated.
        source: whose price it is: ``override`` for one that the user states,
            ``listed`` for one of the service's own model list, else name and version
            of the public table.
        price_date: since when that price holds, if the table says so.
    """

    usd: float
    input_usd: float = 0.0
    output_usd: float = 0.0
    cached_usd: float = 0.0
    estimated: bool = False
    source: str = ""
    price_date: date | None = None


def as_picodollars(usd: float) -> int:
    """An amount to add up."""
    return round(usd * PICODOLLARS)


def as_usd(picodollars: int) -> float:
    """A sum to show."""
    return picodollars / PICODOLLARS
