"""Policies: what happens between asking and sending.

A stage is given an exchange and returns one of the same type, so that stages nest like functions,
know nothing of each other and are tested one at a time.  The order, outermost first::

    cache -> budget -> circuit -> limits -> deadline -> retry -> the provider's own exchange
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Protocol, TypeAlias, runtime_checkable

from ..events import Event
from ..messages import Delta, LLMRequest

Exchange: TypeAlias = Callable[[LLMRequest], AsyncGenerator[Delta, None]]
"""Sends a request and yields its answer; closing the generator closes the connection."""

Publish: TypeAlias = Callable[[Event], object]


@runtime_checkable
class Stage(Protocol):
    """One policy.  The object holds settings; the state of one provider lives in `wrap`'s result,
    so that one stage can be given to many providers."""

    def wrap(self, exchange: Exchange, publish: Publish) -> Exchange:
        """An exchange that applies this policy around ``exchange``."""


def chain(stages: Iterable[Stage], exchange: Exchange, publish: Publish) -> Exchange:
    """``exchange`` wrapped in all ``stages``, the first one outermost."""
    for stage in reversed(list(stages)):
        exchange = stage.wrap(exchange, publish)
    return exchange
