"""`CompositeProvider`: what all providers have in common that consist of others.

It opens nothing of its own and keeps no circuit: its members do.  Its status is what theirs says
about it, its models are theirs, and a request to it becomes requests to them, whose events carry
its id as ``parent_id``.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, Self

import msgspec

from ..asking import Options
from ..concurrency import as_finished, gather_with_concurrency
from ..config import GivenSettings
from ..errors import InvalidParameterError, LLMError, ModelNotFoundError
from ..events import ModelChanged
from ..manager import LLMProviderManager
from ..messages import (
    Capability,
    Delta,
    LLMCapabilities,
    LLMModelInfo,
    LLMRequest,
    Messages,
    Operation,
    TokenCount,
    as_options,
)
from ..policy import Exchange, Stage, chain
from ..provider import BaseLLMProvider
from ..status import ProviderStatus, Reason
from .members import Member, Members, is_free, seats_of
from .standing import Standing, is_decided, standing_of, why_down

ANY_MODEL = "*"
"""The model of a request that leaves the choice to each member: its active one."""

# How long a probe waits for members that are still connecting while others can answer already.
_GRACE_S = 1.0


class Ask(NamedTuple):
    """A member and the model to ask it for; None: its active one."""

    member: BaseLLMProvider
    model: str | None


class CompositeProvider(BaseLLMProvider):
    """A provider that passes requests on to others.

    Args:
        members: providers, classes of providers, or names as `create_provider` takes them.  A name
            stands for the provider that the same manager has under it when the composite is
            connected, or for one that is made.  Those that no manager holds are connected,
            disconnected and closed together with the composite, and policies of the composite
            that are ``around_parts``, as budgets and caches are, hold for them.
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
    kept_on_update = frozenset({"_bonds"})

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
        self._bonds = Members(
            self,
            self._running.__contains__,
            on_status=self._look_at_members,
            on_models=self._list_known_models,
        )
        self._hand_on((), self._policies)

    @property
    def members(self) -> tuple[BaseLLMProvider, ...]:
        """Whom it consists of, in their order."""
        return self._members

    async def close(self, drain_timeout_s: float = 5.0) -> None:
        """As `BaseLLMProvider.close`; members that no manager holds are closed as well."""
        await super().close(drain_timeout_s)
        await gather_with_concurrency(None, [m.close(0) for m in self._members if is_free(m)])

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

    def _asks(self, request: LLMRequest) -> list[Ask]:
        """Who can be asked, with which model, in the order of the members.

        ``"member/model"`` goes to that member; a plain model to those that have it, or whose
        models are not known.  If nobody lists it, all are asked: lists may not be complete.

        Raises:
            InvalidParameterError: no model was given, and no member has an active one.
        """
        addressed = self._addressed(request.model)
        if addressed is not None:
            return [addressed]
        asks = [ask for m in self._members if (ask := self._ask_of(m, request.model)) is not None]
        if asks:
            return asks
        if request.model == ANY_MODEL:
            raise InvalidParameterError(
                "no model was given, and no member has an active one",
                provider_id=self.id,
                hint="pass a model, or give models={member: model}",
            )
        return [Ask(member, request.model) for member in self._members]

    def _ask_of(self, member: BaseLLMProvider, model: str) -> Ask | None:
        own = self._models.get(member.id)
        if model == ANY_MODEL:
            has_one = own is not None or member.active_model is not None or member.is_composite
            return Ask(member, own) if has_one else None
        known = member.known_models
        if not known or any(each.id == model for each in known):
            return Ask(member, model if known or own is None else own)
        return None if own is None else Ask(member, own)

    def _addressed(self, model: str) -> Ask | None:
        """The member and its model that ``"member/model"`` stands for; None if it is no such."""
        head, slash, tail = model.partition("/")
        found = next((m for m in self._members if slash and m.id == head), None)
        return None if found is None else Ask(found, tail)

    # ---- the provider ----------------------------------------------------------------------------

    async def _open(self) -> None:
        manager = getattr(self._relay, "__self__", None)
        if isinstance(manager, LLMProviderManager):
            self._members = tuple(seat.taken_by(manager) for seat in self._seats)
        await self._bonds.start(self._members)

    async def _close(self) -> None:
        await self._bonds.stop(self._members)

    async def _probe(self) -> bool | None:
        members, needed = self._needed()
        if self.status.status is ProviderStatus.CONNECTING:
            for member in members:
                if is_free(member) and member.status.status is ProviderStatus.FAILED:
                    await member.connect(wait="none")
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
            member.wait_for(lambda state: state.status.usable or state.status in _SETTLED)
            for member in members
            if member.status.status is ProviderStatus.CONNECTING
            or (is_free(member) and member.status.status is ProviderStatus.DISCONNECTED)
        ]

    async def _list_models(self) -> list[LLMModelInfo]:
        lists = await gather_with_concurrency(
            None,
            [m.get_available_models(refresh=True) for m in self._members],
            return_exceptions=True,
        )
        failures = [error for error in lists if isinstance(error, LLMError)]
        if len(failures) == len(lists):
            raise failures[0]
        return self._union_of_models()

    def _union_of_models(self) -> list[LLMModelInfo]:
        """Each model once, with what any of the members that have it can do with it."""
        union: dict[str, LLMModelInfo] = {}
        for member in self._members:
            for model in member.known_models:
                known = union.setdefault(model.id, model)
                if known is not model:
                    union[model.id] = _merged(known, model)
        return self._owned(list(union.values()))

    def _list_known_models(self) -> None:
        self._catalog.accept(self._union_of_models())

    def _with_added(self, exchange: Exchange) -> Exchange:
        # What the members' answers have to follow is their affair: each knows what it can do.
        return chain(self._added, exchange, self._host)

    def _add_policies(self, added: tuple[Stage, ...]) -> None:
        before = self._added
        super()._add_policies(added)
        self._hand_on(before, added)

    def _hand_on(self, before: Sequence[Stage], after: Sequence[Stage]) -> None:
        """Put the policies that a composite leaves to its parts around those."""
        for member in filter(is_free, self._members):
            for stage in _for_parts(before):
                if stage not in after:
                    member.remove_policy(stage)
            for stage in reversed(_for_parts(after)):
                member.add_policy(stage)

    def _request(
        self, model: str | None, options: Options, operation: Operation, **content: Any
    ) -> LLMRequest:
        chosen = model if model is not None else self._active_model or ANY_MODEL
        return super()._request(chosen, options, operation, **content)

    async def count_tokens(
        self, model: str | None, messages: Messages, options: Options = None
    ) -> TokenCount:
        """As `BaseLLMProvider.count_tokens`, by the first member that can be asked."""
        request = self._request(model, options, "chat")
        member, name = self._asks(request)[0]
        given = as_options(options).merged_over(self.default_options)
        return await member.count_tokens(name, messages, given)

    def get_capabilities(self, model: str | None = None) -> LLMCapabilities:
        """As `BaseLLMProvider.get_capabilities`; also of ``"member/model"``."""
        addressed = None if model is None else self._addressed(model)
        if addressed is None:
            return super().get_capabilities(model)
        found = addressed.member.get_capabilities(addressed.model)
        return msgspec.structs.replace(found, provider_id=self.id, model=model)

    async def get_model_info(self, model: str) -> LLMModelInfo:
        """As `BaseLLMProvider.get_model_info`; also of ``"member/model"``."""
        addressed = self._addressed(model)
        if addressed is None or addressed.model is None:
            return await super().get_model_info(model)
        return await addressed.member.get_model_info(addressed.model)

    def set_active_model(self, model: str | None) -> None:
        """As `BaseLLMProvider.set_active_model`; also with ``"member/model"``."""
        addressed = None if model is None else self._addressed(model)
        if addressed is None:
            super().set_active_model(model)
            return
        known = addressed.member.known_models
        if known and all(each.id != addressed.model for each in known):
            raise ModelNotFoundError(
                f"{addressed.member.id} has no model {addressed.model!r}", provider_id=self.id
            )
        self._activate_model(model)

    def _activate_model(self, model: str | None) -> None:
        with self.atomic():
            previous, self._active_model = self._active_model, model
            if model != previous:
                self.publish(ModelChanged(provider_id=self.id, previous=previous, current=model))

    # ---- status ----------------------------------------------------------------------------------

    def _standing(self) -> Standing:
        return standing_of(*self._needed())

    def _at_best(self) -> tuple[ProviderStatus, Reason]:
        if self._standing() is Standing.IMPAIRED:
            return ProviderStatus.DEGRADED, Reason.MEMBERS_DOWN
        return ProviderStatus.CONNECTED, Reason.RECOVERED

    def _look_at_members(self) -> None:
        """Take over what the state of the members says."""
        standing = self._standing()
        if standing.usable:
            self._connection.conclude(None)
        elif standing is Standing.DOWN:
            self._connection.conclude(why_down(self._needed()[0]))

    # ---- new settings ----------------------------------------------------------------------------

    def _twin(self, changes: Mapping[str, Any]) -> Self:
        twin = super()._twin(changes)
        twin._bonds, twin._relay = self._bonds, self._relay
        if not changes.keys() & self._settings_of_members():
            # Those that it has made by their names are not made twice.
            twin._seats, twin._members = self._seats, self._members
        return twin

    def _settings_of_members(self) -> frozenset[str]:
        """The names of the settings that say who the members are."""
        return frozenset({"members"})


def _for_parts(stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages if getattr(stage, "around_parts", False)]


def _merged(one: LLMModelInfo, other: LLMModelInfo) -> LLMModelInfo:
    if one.capabilities is None or other.capabilities is None:
        return msgspec.structs.replace(one, capabilities=None)
    return msgspec.structs.replace(one, capabilities=one.capabilities | other.capabilities)


_SETTLED = frozenset({ProviderStatus.RECONNECTING, ProviderStatus.FAILED, ProviderStatus.CLOSED})
