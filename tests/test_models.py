"""The model list: cached, read once for all who ask, kept when it cannot be read again."""

from __future__ import annotations

import asyncio

import pytest

from llm_manager import EchoProvider, LLMModelInfo, ModelNotFoundError, ProviderConnectionError

from .helpers import QUICK, Record


class Listed(EchoProvider):
    models_max_age_s = 3600.0

    def __init__(self, *models: str, **settings) -> None:
        super().__init__(models=models, reconnect=QUICK, **settings)
        self.listed = 0
        self.described = 0

    async def _list_models(self):
        self.listed += 1
        await asyncio.sleep(0)
        return await super()._list_models()

    async def _describe_model(self, model: LLMModelInfo) -> LLMModelInfo:
        self.described += 1
        return LLMModelInfo.known("endpoint", id=model.id, provider_id=self.id, parameters="8B")


async def test_the_list_is_read_once_and_kept() -> None:
    provider = Listed("a", "b")
    lists = await asyncio.gather(*(provider.get_available_models() for _ in range(10)))
    assert [m.id for m in lists[0]] == ["a", "b"]
    assert all(found == lists[0] for found in lists)
    assert provider.listed == 1
    await provider.get_available_models()
    assert provider.listed == 1


async def test_a_list_that_is_too_old_is_read_again() -> None:
    class Impatient(Listed):
        models_max_age_s = 0.0

    provider = Impatient("a")
    await provider.get_available_models()
    await provider.get_available_models()
    assert provider.listed == 2


async def test_what_changed_is_announced_and_nothing_otherwise() -> None:
    provider = Listed("a", "b")
    record = Record(provider)
    await provider.connect()
    await provider.get_available_models(refresh=True)
    provider.set_models("b", "c")
    await provider.get_available_models(refresh=True)
    events = record.named("modelsChanged")
    assert [(e.added, e.removed, e.changed, e.revision, e.stale) for e in events] == [
        (("a", "b"), (), (), 1, False),
        (("c",), ("a",), (), 2, False),
    ]
    assert [m.id for m in events[1].models] == ["b", "c"]
    assert provider.status.models_revision == 2


async def test_a_failed_reading_keeps_the_last_list_and_says_so_once() -> None:
    class Forgetful(Listed):
        models_max_age_s = 0.0

    provider = Forgetful("a")
    await provider.get_available_models()
    record = Record(provider)
    provider.go_offline()
    assert [m.id for m in await provider.get_available_models()] == ["a"]
    assert [m.id for m in await provider.get_available_models()] == ["a"]
    assert provider.status.models_stale
    assert [e.stale for e in record.named("modelsChanged")] == [True]
    with pytest.raises(ProviderConnectionError):
        await provider.get_available_models(refresh=True)  # asked for a new one, there is none
    provider.go_online()
    await provider.get_available_models()
    assert not provider.status.models_stale
    assert [e.stale for e in record.named("modelsChanged")] == [True, False]


async def test_without_any_list_the_failure_is_raised() -> None:
    provider = Listed("a")
    provider.go_offline()
    with pytest.raises(ProviderConnectionError):
        await provider.get_available_models()


async def test_details_of_a_model_are_found_out_and_kept() -> None:
    provider = Listed("a", "b")
    record = Record(provider)
    info = await provider.get_model_info("a")
    assert (info.parameters, info.source_of("parameters")) == ("8B", "endpoint")
    await provider.get_available_models(refresh=True)
    listed = {m.id: m for m in provider.known_models}
    assert listed["a"].parameters == "8B"
    assert listed["b"].parameters is None
    assert [e.changed for e in record.named("modelsChanged")] == [(), ("a",)]


async def test_an_unknown_model_is_an_error_that_names_similar_ones() -> None:
    provider = Listed("llama3.2:1b", "qwen3:8b")
    with pytest.raises(ModelNotFoundError, match=r"did you mean 'llama3\.2:1b'"):
        await provider.get_model_info("llama3.2")
    assert provider.listed == 2  # it looked again before it said no


async def test_a_new_model_is_found_without_waiting_for_the_list_to_age() -> None:
    provider = Listed("a")
    await provider.get_available_models()
    provider.set_models("a", "b")
    assert (await provider.get_model_info("b")).id == "b"


async def test_choosing_a_model_is_announced_once() -> None:
    provider = Listed("a", "b")
    record = Record(provider)
    provider.set_active_model("b")
    provider.set_active_model("b")
    provider.set_active_model(None)
    assert [(e.previous, e.current) for e in record.named("modelChanged")] == [
        ("a", "b"),
        ("b", None),
    ]


async def test_a_missing_model_is_hinted_at_when_the_server_refuses_it() -> None:
    provider = Listed("llama3.2:1b")
    await provider.connect()
    with pytest.raises(ModelNotFoundError, match="did you mean"):
        await provider.generate_completion("llama3.2", "hi")
    assert provider.status.status == "connected"  # it answered
