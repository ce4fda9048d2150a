"""What tokens cost: public prices, and those that a user states.

It reads tables that are on this machine; it never asks a service.  What is not known is None, and
never 0.
"""

from __future__ import annotations

from .book import PriceBook as PriceBook
from .cost import Cost as Cost
from .cost import as_picodollars as as_picodollars
from .cost import as_usd as as_usd
from .rates import Quote as Quote
