"""Policies: what happens between asking and sending.

A stage is given an exchange and returns one of the same type, so that stages nest like functions,
know nothing of each other and are tested one at a time.  The order, outermost first::

    circuit -> limits -> cooldown -> deadline -> retry -> the provider's own exchange

What is added to these later (`BaseLLMProvider.add_policy`) is put around them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import datetime
from typing import Protocol, TypeAlias, runtime_checkable

from ..errors import InvalidParameterError, LLMError
from ..events import Event
from ..messages import Delta, LLMRequest
from ..status import LLMProviderStatus

Exchange: TypeAlias = Callable[[LLMRequest], AsyncGenerator[Delta, None]]
"""Sends a request and yields its answer; closing the generator closes the connection."""


class Host(Protocol):
    """The provider that a stage serves, as far as a stage may know it.

    The snapshot is the one place that says how things are: what a stage finds out it reports here,
    and what others found out it sees in ``status``.
    """

    @property
    def kind(self) -> str:
        """Kind of the provider, e.g. ``"openai"``; its id is in ``status``."""

    @property
    def is_composite(self) -> bool:
        """Whether it passes requests on to others, whose own policies see them again."""

    @property
    def address(self) -> str:
        """Where its requests go; empty if it has no address."""

    @property
    def settings(self) -> str:
        """What may change its answers among its settings, as text without keys; the same object
        until the settings change."""

    @property
    def status(self) -> LLMProviderStatus:
        """The present snapshot."""

    def publish(self, event: Event) -> bool:
        """Announce an event in the provider's name."""

    def count_queued(self, change: int) -> None:
        """So many requests more, or less, wait for their turn."""

    def open_circuit(self, error: LLMError, retry_at: datetime) -> None:
        """Requests fail again and again: none is sent before ``retry_at``."""

    def half_open_circuit(self) -> None:
        """One request is let through to find out whether things are better."""

    def close_circuit(self) -> None:
        """Requests are sent again."""


@runtime_checkable
class Stage(Protocol):
    """One policy.  The object holds settings; the state of one provider lives in `wrap`'s result,
    so that one stage can be given to many providers.

    One that has an attribute ``around_parts = True`` has to see what a composite passes on: the
    composite puts it around its members, too, for the requests that come from it.  With
    ``only_announced = True``, only around members whose events the composite announces: those that
    no manager holds.  ``outermost = True`` is for who only looks: it stands around all others.
    """

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        """An exchange that applies this policy around ``exchange``."""


def check_stage(stage: object) -> None:
    """Refuse what is no policy.

    Raises:
        InvalidParameterError: it has no method ``wrap``, or is a class.
    """
    if not isinstance(stage, Stage) or isinstance(stage, type):
        raise InvalidParameterError(f"{stage!r:.60} is no policy: give an object with wrap()")


def as_stages(stages: object) -> tuple[Stage, ...]:
    """``stages`` as they are kept.

    Raises:
        InvalidParameterError: they are no list of policies.
    """
    if isinstance(stages, str) or not isinstance(stages, Iterable):
        raise InvalidParameterError(f"policies must be a list of policies, got {stages!r:.60}")
    found = tuple(stages)
    for stage in found:
        check_stage(stage)
    return found


def chain(stages: Iterable[Stage], exchange: Exchange, host: Host) -> Exchange:
    """``exchange`` wrapped in all ``stages``, the first one outermost."""
    for stage in reversed(list(stages)):
        exchange = stage.wrap(exchange, host)
    return exchange
