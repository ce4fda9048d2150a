"""What a composite has to do with its members, besides asking them.

A member that no manager holds belongs to the composite: it is connected, disconnected and closed
with it, and what it announces of the composite's requests is announced by the composite as well.
One that a manager holds is left alone, for it has an owner, and announces there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from ..concurrency import gather_with_concurrency
from ..emitter import Subscription
from ..errors import ConfigurationError, InvalidParameterError
from ..events import (
    Event,
    ModelsChanged,
    RequestFinished,
    RequestQueued,
    RequestStarted,
    RetryScheduled,
    StatusChanged,
    StreamStalled,
)
from ..manager import LLMProviderManager
from ..provider import BaseLLMProvider
from ..registry import create_provider
from .standing import DOWN

Member: TypeAlias = BaseLLMProvider | type[BaseLLMProvider] | str
"""A provider, a class of one, or the name under which `create_provider` makes it."""

_being_made: ContextVar[tuple[str, ...]] = ContextVar("composites being made", default=())


class Seat:
    """The place of one member: a provider, or the name of one that is made by that name."""

    def __init__(self, member: Member) -> None:
        self.name = member if isinstance(member, str) else None
        self._made = member if isinstance(member, BaseLLMProvider) else create_provider(member)

    @property
    def id(self) -> str:
        return self._made.id

    def taken_by(self, manager: LLMProviderManager | None) -> BaseLLMProvider:
        """Who is on it: for a name, the provider that ``manager`` has under it, if it has one."""
        if manager is None or self.name is None:
            return self._made
        return manager.providers.get(self.name, self._made)


def seats_of(composite_id: str, members: Collection[Member]) -> tuple[Seat, ...]:
    """The seats of a composite's ``members``.

    Raises:
        InvalidParameterError: there are none, two have the same id, or one is no provider.
        ConfigurationError: a composite would be a member of itself.
        LLMError: one of them cannot be made.
    """
    if isinstance(members, str | Mapping) or not isinstance(members, Collection):
        raise InvalidParameterError(
            f"members must be a list of providers, got {members!r:.60}",
            hint="members have ids of their own, so of a dictionary give the values()"
            if isinstance(members, Mapping)
            else None,
        )
    with _making(composite_id):
        seats = tuple(Seat(_checked(member)) for member in members)
    if not seats:
        raise InvalidParameterError(
            f"{composite_id} has no members", hint="give members=[...], providers or their names"
        )
    ids = [seat.id for seat in seats]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise InvalidParameterError(
            f"{composite_id}: two members have the id {twice[0]!r}", hint="give one another id="
        )
    return seats


@contextmanager
def _making(composite_id: str) -> Iterator[None]:
    above = _being_made.get()
    token = _being_made.set((*above, composite_id))
    try:
        yield
    finally:
        _being_made.reset(token)


def _checked(member: object) -> Member:
    if isinstance(member, str):
        above = _being_made.get()
        if member in above:
            raise ConfigurationError(
                f"the members of {above[0]!r} lead back to {member!r}: {' > '.join(above)}",
                hint="a provider cannot consist of itself",
            )
        return member
    if isinstance(member, BaseLLMProvider) or (
        isinstance(member, type) and issubclass(member, BaseLLMProvider)
    ):
        return member
    raise InvalidParameterError(f"a member must be a provider or its name, got {member!r:.60}")


class Members:
    """Starts, stops and listens to the members of one composite.

    Args:
        composite: announces what its members announce of its requests.
        running: the ids of the composite's own requests.
        on_status, on_models: called when status or models of a member have changed.
    """

    def __init__(
        self,
        composite: BaseLLMProvider,
        running: Callable[[str], bool],
        *,
        on_status: Callable[[], None],
        on_models: Callable[[], None],
    ) -> None:
        self._composite = weakref.ref(composite)
        self._is_running = running
        self._on_status = on_status
        self._on_models = on_models
        self._uses: dict[BaseLLMProvider, int] = {}
        self._subscriptions: dict[BaseLLMProvider, list[Subscription]] = {}
        self._parts: set[str] = set()

    async def start(self, members: Sequence[BaseLLMProvider]) -> None:
        """Listen to ``members``, and begin to connect those that no manager holds."""
        for member in members:
            self._uses[member] = self._uses.get(member, 0) + 1
            if self._uses[member] == 1:
                self._subscriptions[member] = list(self._listen_to(member))
        for member in members:
            if is_free(member) and not member.status.status.live:
                await member.connect(wait="none")

    async def stop(self, members: Sequence[BaseLLMProvider]) -> None:
        """Undo one `start`; what was started twice with other settings goes on."""
        over = []
        for member in members:
            left = self._uses.get(member, 0) - 1
            if left > 0:
                self._uses[member] = left
            elif self._uses.pop(member, None) is not None:
                for subscription in self._subscriptions.pop(member, ()):
                    subscription.close()
                over.append(member)
        await gather_with_concurrency(None, [m.disconnect(0) for m in over if is_free(m)])

    def _listen_to(self, member: BaseLLMProvider) -> Iterator[Subscription]:
        # Weakly: a member that lives longer must not keep a composite that nobody refers to.
        for kind in (RequestStarted, RetryScheduled, RequestQueued, StreamStalled, RequestFinished):
            yield member.subscribe(self._announce, kind.name, delivery="inline", weak=True)
        yield member.subscribe(
            self._models_changed, ModelsChanged.name, delivery="inline", weak=True
        )
        yield member.subscribe(
            self._status_changed, StatusChanged.name, delivery="inline", weak=True
        )

    def _status_changed(self, event: StatusChanged) -> None:
        self._on_status()

    def _models_changed(self, event: ModelsChanged) -> None:
        self._on_models()

    def _announce(
        self,
        event: RequestStarted | RetryScheduled | RequestQueued | StreamStalled | RequestFinished,
    ) -> None:
        """Announce what concerns our requests, unless the member's manager does."""
        if isinstance(event, RequestStarted):
            parent_id = event.parent_id
            if parent_id is None or not (parent_id in self._parts or self._is_running(parent_id)):
                return
            self._parts.add(event.request_id)
        elif event.request_id not in self._parts:
            return
        elif isinstance(event, RequestFinished):
            self._parts.discard(event.request_id)
        self._announce_of(event)

    def _announce_of(self, event: Event) -> None:
        composite = self._composite()
        member = next((m for m in self._uses if m.id == event.provider_id), None)
        # Nobody of that id: it is a member of a member, which that one has announced.
        if composite is not None and (member is None or is_free(member)):
            composite.publish(event)


def is_free(member: BaseLLMProvider) -> bool:
    """Whether no manager holds it, so that it belongs to the composite."""
    return member._relay is None


def is_worth_asking(member: BaseLLMProvider) -> bool:
    """Whether it may answer right now: it is not lost, failed or stopping, nor left alone."""
    state = member.status
    return state.status not in DOWN and state.cooldown_until is None and state.circuit != "open"
