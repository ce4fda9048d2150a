"""Checks of model lists: read, announced when they differ, and never emptied by a failure."""

from __future__ import annotations

import pytest

from ...errors import InvalidResponseError, ModelNotFoundError, ProviderError
from ...messages import LLMModelInfo
from ..peer import Reply
from .base import Conformance, HttpKit
from .expect import expect, raises
from .stage import Stage, check


class ModelChecks(Conformance):
    """What every provider does."""

    @check
    async def test_it_lists_its_models(self, stage: Stage) -> None:
        provider = stage.make()
        models = await provider.get_available_models()
        for model in models:
            expect(
                isinstance(model, LLMModelInfo) and model.provider_id == provider.id,
                f"_list_models gives {model!r:.80}; it must be a LLMModelInfo",
            )
        ids = [model.id for model in models]
        expect(len(ids) == len(set(ids)), f"the model list names a model twice: {ids}")
        if self.has_models:
            expect(self.model in ids, f"the model list {ids} lacks {self.model!r}")
            info = await provider.get_model_info(self.model)
            expect(info.id == self.model, f"get_model_info({self.model!r}) gives {info.id!r}")
        with raises(ModelNotFoundError, "somebody asks for a model that there is not"):
            await provider.get_model_info("no-such-model-anywhere")


class WireModelChecks(HttpKit):
    """What only a provider with a server does."""

    @check
    async def test_a_model_list_that_differs_is_announced(self, stage: Stage) -> None:
        self._needs_a_list()
        provider = stage.make()
        await provider.get_available_models()
        stage.server.model_ids = (self.model, "brand-new-model")
        await provider.get_available_models(refresh=True)
        await provider.get_available_models(refresh=True)
        first, *further = stage.events_of(provider).named("modelsChanged")
        expect(
            set(first.added) == {self.model, "another-model"},
            f"the first model list announces {first.added} as added",
        )
        told = [(event.added, event.removed) for event in further]
        expect(
            told == [(("brand-new-model",), ("another-model",))],
            f"one model was added and one removed; what is announced as (added, removed) is {told}",
        )

    @pytest.mark.parametrize("what", ["trouble", "a web page", "nothing", "something else"])
    @check
    async def test_a_model_list_that_cannot_be_read_is_not_an_empty_one(
        self, stage: Stage, what: str
    ) -> None:
        self._needs_a_list()
        provider = stage.make()
        known = await provider.get_available_models()
        page = b"<html><title>Welcome to the hotel</title></html>"
        stage.server.model_list = {
            "trouble": self.error(500, "out of order"),
            "a web page": Reply(body=[page], headers={"content-type": "text/html"}),
            "nothing": Reply(),
            "something else": Reply.json({"greeting": "hello"}),
        }[what]
        kinds = ProviderError if what == "trouble" else InvalidResponseError
        with raises(kinds, f"the server answers the question for its models with {what}"):
            await provider.get_available_models(refresh=True)
        expect(
            list(provider.known_models) == known,
            f"the model list was {len(known)} long and is now {provider.known_models!r:.100}",
        )

    def _needs_a_list(self) -> None:
        if self.models_path is None:
            pytest.skip("the server has no model list")
