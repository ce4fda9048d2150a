"""`CompositeProvider`: what all providers have in common that consist of others.

It opens nothing of its own and keeps no circuit: its members do.  Its status is what theirs says
about it, its models are theirs, and a request to it becomes requests to them, whose events carry
its id as ``parent_id``.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self

from ..concurrency import as_finished, gather_with_concurrency
from ..config import GivenSettings
from ..errors import InvalidParameterError, LLMError
from ..manager import LLMProviderManager
from ..messages import Capability, Delta, LLMRequest
from ..policy import Exchange, Stage, chain
from ..provider import BaseLLMProvider
from ..status import ProviderStatus, Reason
from .announcing import is_free
from .members import Members
from .models import ModelsOfMembers
from .seats import Member, seats_of
from .standing import Standing, is_decided, standing_of, why_down

# How long a probe waits for members that are still connecting while others can answer already.
_GRACE_S = 1.0
# So many of its latest requests are known by their ids.
_REMEMBERED = 4096


class CompositeProvider(ModelsOfMembers):
    """A provider that passes requests on to others.

    Args:
        members: providers, classes of providers, or names as `create_provider` takes them.  A name
            stands for the provider that the same manager has under it when the composite is
            connected, or for one that is made.  Those that no manager holds are connected,
            disconnected and closed together with the composite.  Policies of the composite that
            are ``around_parts``, as budgets and caches are, hold for what is passed on to members.
        models: the model of single members by their id, for requests that name a model which they
            do not have, or none at all.
        common: see `BaseLLMProvider`; ``policies`` are none by default, since each member has its
            own.

    Raises:
        InvalidParameterError: an argument is wrong.
        ConfigurationError: it would be a member of itself.
        LLMError: a member cannot be made.
    """

    is_composite = True
    # A sleep of the computer is noticed by the members, and their requests are ended by them.
    is_local = True
    kept_on_update = frozenset({"_bonds", "_asked"})
    _makes_members = False

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        provider = super().__new__(cls, *args, **settings)
        # By its name it can be changed by `update_config`; a view of a dictionary is not pickled.
        given = {"members": args[0], **settings} if args else settings
        members = given.get("members")
        if isinstance(members, Collection) and not isinstance(members, str | Mapping):
            given = {**given, "members": tuple(members)}
        provider._given = args[1:], GivenSettings(given)
        return provider

    def __init__(
        self,
        members: Collection[Member] = (),
        *,
        models: Mapping[str, str] | None = None,
        **common: Any,
    ) -> None:
        common.setdefault("policies", ())
        super().__init__(**common)
        self._seats = seats_of(self.id, members)
        self._members = tuple(seat.taken_by(None) for seat in self._seats)
        self._models = dict(models or {})
        for id in self._models:
            if id not in {seat.id for seat in self._seats}:
                raise InvalidParameterError(f"models names {id!r}, which is no member of {self.id}")
        self.capabilities = self._common_capabilities()
        self._connection.at_best = self._at_best
        self._asked: OrderedDict[str, None] = OrderedDict()
        self._bonds = Members(
            self,
            self._asked.__contains__,
            on_status=self._look_at_members,
            on_models=self._list_known_models,
        )
        self._hold: object = None

    @property
    def members(self) -> tuple[BaseLLMProvider, ...]:
        """Whom it consists of, in their order."""
        return self._members

    async def close(self, drain_timeout_s: float = 5.0) -> None:
        """As `BaseLLMProvider.close`; members that no manager holds are closed as well."""
        await super().close(drain_timeout_s)
        await self._bonds.close(self._members)

    def reconnect_now(self) -> None:
        """As `BaseLLMProvider.reconnect_now`, for members that no manager holds, too."""
        for member in self._members:
            if is_free(member):
                member.reconnect_now()
        super().reconnect_now()

    # ---- for subclasses --------------------------------------------------------------------------

    @abstractmethod
    def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        """Ask whom it takes to answer."""

    def _needed(self) -> tuple[Sequence[BaseLLMProvider], int]:
        """Of which members how many have to be usable."""
        return self._members, 1

    def _common_capabilities(self) -> frozenset[Capability]:
        """What it can do at most; the default is what any member can."""
        return frozenset().union(*(member.capabilities for member in self._members))

    # ---- the provider ----------------------------------------------------------------------------

    async def _open(self) -> None:
        manager = getattr(self._relay, "__self__", None)
        if isinstance(manager, LLMProviderManager):
            self._members = tuple(seat.taken_by(manager) for seat in self._seats)
        self._hold = object()
        self._hand_on()
        await self._bonds.start(self._hold, self._members)

    async def _close(self) -> None:
        await self._bonds.stop(self._hold)
        await self._bonds.close(self._left_over())

    def _left_over(self) -> list[BaseLLMProvider]:
        """Members that were made for these settings, after others have taken their place."""
        live = self._bonds.composite
        if live is self or not isinstance(live, CompositeProvider):
            return []
        return [
            seat.made
            for seat in self._seats
            if (seat.is_own or self._makes_members) and seat not in live._seats
        ]

    async def _probe(self) -> bool | None:
        members, needed = self._needed()
        if self.status.status is ProviderStatus.CONNECTING:
            for member in members:
                if is_free(member) and member.status.status is ProviderStatus.FAILED:
                    await member.connect(wait="none")
        await self._bonds.wake(members)
        await self._until_known(members, needed)
        usable = 0
        candidates = [m for m in members if m.usable or not is_decided(m)]
        async with aclosing(as_finished(None, [m.is_available() for m in candidates])) as answers:
            async for _, answer in answers:
                usable += answer.result()
                if usable >= needed:
                    self._list_known_models()
                    return None
        raise why_down(members)

    async def _until_known(self, members: Sequence[BaseLLMProvider], needed: int) -> None:
        """Wait until members that connect have done so, for long only if it depends on them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                await gather_with_concurrency(None, self._decisions(members))
        if standing_of(members, needed) is Standing.UNKNOWN:
            async with aclosing(as_finished(None, self._decisions(members))) as decisions:
                async for _ in decisions:
                    if standing_of(members, needed) is not Standing.UNKNOWN:
                        return

    def _decisions(self, members: Sequence[BaseLLMProvider]) -> list[Any]:
        return [
            _decided(member)
            for member in members
            if member.status.status is ProviderStatus.CONNECTING
            or (is_free(member) and member.status.status is ProviderStatus.DISCONNECTED)
        ]

    def _counted_exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        self._asked[request.id] = None
        if len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
        return super()._counted_exchange(request)

    def _all_secrets(self) -> list[str]:
        # What a member answers, or raises, goes through here.
        return [*super()._all_secrets(), *(s for m in self._members for s in m._all_secrets())]

    def _with_added(self, exchange: Exchange) -> Exchange:
        # What the members' answers have to follow is their affair: each knows what it can do.
        return chain(self._added, exchange, self._host)

    def _add_policies(self, added: tuple[Stage, ...]) -> None:
        super()._add_policies(added)
        self._hand_on()

    def _hand_on(self) -> None:
        """Put the policies that a composite leaves to its parts around those."""
        if self._bonds.composite is self:
            self._bonds.hand_on((*self._added, *self._policies), self._members)

    # ---- status ----------------------------------------------------------------------------------

    def _standing(self) -> Standing:
        return standing_of(*self._needed())

    def _at_best(self) -> tuple[ProviderStatus, Reason] | LLMError | None:
        match self._standing():
            case Standing.WHOLE:
                return ProviderStatus.CONNECTED, Reason.RECOVERED
            case Standing.IMPAIRED:
                return ProviderStatus.DEGRADED, Reason.MEMBERS_DOWN
            case Standing.DOWN:
                return why_down(self._needed()[0])
            case Standing.UNKNOWN:
                return None

    def _look_at_members(self) -> None:
        """Take over what the state of the members says."""
        self._connection.conclude()

    # ---- new settings ----------------------------------------------------------------------------

    def _twin(self, changes: Mapping[str, Any]) -> Self:
        twin = super()._twin(changes)
        twin._bonds, twin._relay = self._bonds, self._relay
        if not changes.keys() & self._settings_of_members():
            twin._seats, twin._members = self._seats, self._members
        else:  # those that it has made by their names are not made twice
            made = {seat.name: seat for seat in self._seats if seat.name is not None}
            twin._seats = tuple(made.get(seat.name or "", seat) for seat in twin._seats)
            twin._members = tuple(seat.taken_by(None) for seat in twin._seats)
        return twin

    def _take_over(self, twin: Self, changes: Mapping[str, Any]) -> None:
        super()._take_over(twin, changes)
        self._hand_on()

    def _settings_of_members(self) -> frozenset[str]:
        """The names of the settings that say who the members are."""
        return frozenset({"members"})


async def _decided(member: BaseLLMProvider) -> None:
    """Wait until an attempt to connect has ended, one way or another."""
    if is_free(member):
        with contextlib.suppress(LLMError):  # its status says so as well
            await member.connect()
    else:
        await member.wait_for(lambda state: state.status is not ProviderStatus.CONNECTING)
