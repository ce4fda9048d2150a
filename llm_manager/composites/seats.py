"""The places of a composite's members: providers, or the names of some."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from ..errors import ConfigurationError, InvalidParameterError, ProviderNotFoundError
from ..manager import LLMProviderManager
from ..provider import BaseLLMProvider
from ..registry import create_provider

Member: TypeAlias = BaseLLMProvider | type[BaseLLMProvider] | str
"""A provider, a class of one, or the name under which `create_provider` makes it."""

_being_made: ContextVar[tuple[str, ...]] = ContextVar("composites being made", default=())


class Seat:
    """The place of one member: a provider, or the name of one that is made by that name."""

    def __init__(self, member: Member) -> None:
        self.name = member if isinstance(member, str) else None
        self.is_own = not isinstance(member, BaseLLMProvider)
        self.made = member if isinstance(member, BaseLLMProvider) else _made(member)

    @property
    def id(self) -> str:
        return self.made.id

    def taken_by(self, manager: LLMProviderManager | None) -> BaseLLMProvider:
        """Who is on it: for a name, the provider that ``manager`` has under it, if it has one."""
        if manager is None or self.name is None:
            return self.made
        return manager.providers.get(self.name, self.made)


def _made(member: type[BaseLLMProvider] | str) -> BaseLLMProvider:
    try:
        return create_provider(member)
    except ProviderNotFoundError as error:
        error.message = f"member {member!r}: {error.message}"
        error.hint = (
            "a member is a provider, or the name of a kind or of one in the settings; "
            f"{error.hint or ''}".rstrip("; ")
        )
        raise


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
