"""Which member has which model, and what the members' models are together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from ..asking import Options
from ..concurrency import gather_with_concurrency
from ..errors import InvalidParameterError, LLMError, ModelNotFoundError
from ..events import ModelChanged
from ..messages import (
    LLMCapabilities,
    LLMModelInfo,
    LLMRequest,
    Messages,
    Operation,
    TokenCount,
    as_options,
)
from ..provider import BaseLLMProvider

ANY_MODEL = "*"
"""The model of a request that leaves the choice to each member: its active one."""


class Ask(NamedTuple):
    """A member and the model to ask it for; None: its active one."""

    member: BaseLLMProvider
    model: str | None


class ModelsOfMembers(BaseLLMProvider):
    """The part of `CompositeProvider` that knows whose model is meant."""

    _members: tuple[BaseLLMProvider, ...]
    _models: Mapping[str, str]

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

    # ---- whom to ask -----------------------------------------------------------------------------

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

    # ---- the list --------------------------------------------------------------------------------

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


def _merged(one: LLMModelInfo, other: LLMModelInfo) -> LLMModelInfo:
    if one.capabilities is None or other.capabilities is None:
        return msgspec.structs.replace(one, capabilities=None)
    return msgspec.structs.replace(one, capabilities=one.capabilities | other.capabilities)
