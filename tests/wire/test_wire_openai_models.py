"""Reading ``GET /models``: the fields of the services, one row each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_manager.errors import AuthenticationError, InvalidResponseError, LLMError
from llm_manager.messages import LLMModelInfo, ModelPrice
from llm_manager.wire.openai_models import decode_models


def models(*entries: Any) -> list[LLMModelInfo]:
    return decode_models(json.dumps({"object": "list", "data": entries}).encode(), "here")


def model(**entry: Any) -> LLMModelInfo:
    return models({"id": "m", **entry})[0]


@pytest.mark.parametrize(
    "document",
    [
        {"object": "list", "data": [{"id": "a"}, {"id": "b"}]},
        [{"id": "a"}, {"id": "b"}],
        {"models": [{"id": "a"}, {"id": "b"}]},
        {"models": [{"name": "a", "model": "a"}, {"name": "b"}]},
        {"data": [{"id": "a"}, {"id": "b"}], "models": [{"name": "x"}]},
        {"data": [{"id": "a"}, {"id": "a"}, None, "x", {"id": ""}, {"id": 7}, {"id": "b"}]},
    ],
)
def test_models_are_found_in_any_shape_of_list(document: Any) -> None:
    found = decode_models(json.dumps(document).encode(), "here")
    assert [(m.id, m.provider_id) for m in found] == [("a", "here"), ("b", "here")]


def test_an_empty_list_is_a_list() -> None:
    assert models() == []


def test_what_the_server_does_not_say_is_unknown_and_has_no_source() -> None:
    assert model(object="model", owned_by="x") == LLMModelInfo(id="m", provider_id="here")


@pytest.mark.parametrize(
    ("entry", "tokens"),
    [
        ({"context_length": 8192}, 8192),
        ({"context_window": 8192}, 8192),
        ({"max_context_length": 8192}, 8192),
        ({"max_model_len": 8192}, 8192),
        ({"context_size": 8192}, 8192),
        ({"inputTokenLimit": 8192}, 8192),
        ({"max_input_tokens": 8192}, 8192),
        ({"meta": {"n_ctx_train": 8192}}, 8192),
        ({"meta": {"n_ctx": 4096, "n_ctx_train": 8192}}, 4096),
        ({"max_context_length": 8192, "loaded_context_length": 4096}, 4096),
        ({"top_provider": {"context_length": 8192}}, 8192),
        ({"context_length": "8192"}, 8192),
        ({"context_length": 8192.0}, 8192),
        ({"context_length": None, "context_window": 8192}, 8192),
        ({"providers": [{"context_length": 9000}, {"context_length": 8192}, {"x": 1}]}, 8192),
        ({"providers": [{}]}, None),
        ({"context_length": 0}, None),
        ({"context_length": -1}, None),
        ({"context_length": True}, None),
        ({"context_length": "many"}, None),
    ],
)
def test_the_context_window_is_found_under_any_name(
    entry: dict[str, Any], tokens: int | None
) -> None:
    found = model(**entry)
    assert found.context_window_tokens == tokens
    assert found.source_of("context_window_tokens") == (None if tokens is None else "endpoint")


@pytest.mark.parametrize(
    ("entry", "tokens"),
    [
        ({"max_completion_tokens": 512}, 512),
        ({"max_output_tokens": 512}, 512),
        ({"outputTokenLimit": 512}, 512),
        ({"top_provider": {"max_completion_tokens": 512}}, 512),
        ({"context_window": 8192, "max_tokens": 512}, 512),
        ({"max_tokens": 512}, None),
        ({"top_provider": {"max_completion_tokens": None}}, None),
    ],
)
def test_the_longest_answer_is_found_under_any_name(
    entry: dict[str, Any], tokens: int | None
) -> None:
    assert model(**entry).max_output_tokens == tokens


@pytest.mark.parametrize(
    ("pricing", "price"),
    [
        ({"prompt": "0.000003", "completion": "0.000015", "input_cache_read": "0.0000003"},
         ModelPrice(input_usd=3.0, output_usd=15.0, cached_input_usd=0.3)),
        ({"prompt": "0", "completion": "0"}, ModelPrice(input_usd=0.0, output_usd=0.0)),
        ({"prompt": 0.000003, "completion": None}, ModelPrice(input_usd=3.0)),
        ({"prompt": "-1", "completion": "-1"}, None),
        ({"prompt": "free", "completion": "nan"}, None),
        ({"prompt": True, "completion": "1e999"}, None),
        ({}, None),
        (None, None),
        ("cheap", None),
    ],
)  # fmt: skip
def test_prices_per_token_become_prices_per_million(pricing: Any, price: ModelPrice | None) -> None:
    assert model(pricing=pricing).price == price


FULL = {
    "architecture": {"input_modalities": ["text", "image"]},
    "supported_parameters": ["tools", "structured_outputs", "temperature"],
}


@pytest.mark.parametrize(
    ("entry", "capabilities"),
    [
        (FULL, {"chat", "completion", "vision", "tools", "json_schema"}),
        ({**FULL, "supported_parameters": ["reasoning", "response_format", 3]},
         {"chat", "completion", "vision", "reasoning", "json_object"}),
        ({"capabilities": {"completion_chat": True, "function_calling": True, "vision": False,
                           "reasoning": True, "completion_fim": True}},
         {"chat", "completion", "tools", "reasoning", "fim"}),
        ({"capabilities": {"thinking": {"supported": True}, "image_input": {"supported": True},
                           "tool_use": {"supported": False}}},
         {"chat", "completion", "reasoning", "vision"}),
        ({"capabilities": {"function_calling": True, "vision": False}}, None),
        ({"capabilities": ["tool_use"]}, None),
        ({"architecture": {"input_modalities": ["text"]}}, None),
        ({"supported_parameters": ["tools"]}, None),
        ({"type": "embedding"}, {"embeddings"}),
        ({"type": "embeddings"}, {"embeddings"}),
        ({"type": "chat"}, None),
    ],
)  # fmt: skip
def test_capabilities_are_known_only_from_a_full_statement(
    entry: dict[str, Any], capabilities: set[str] | None
) -> None:
    assert model(**entry).capabilities == capabilities


def test_modalities() -> None:
    assert model(**FULL).input_modalities == {"text", "image"}
    assert model(input_modalities=["text", "audio"]).input_modalities == {"text", "audio"}
    assert model(architecture="transformer").input_modalities is None


@pytest.mark.parametrize(
    ("entry", "deprecated"),
    [
        ({"deprecated": True}, True),
        ({"deprecated": False}, False),
        ({"archived": True}, True),
        ({"active": False}, True),
        ({"active": True}, None),
        ({"deprecation": None}, False),
        ({"deprecation": "2026-12-31T00:00:00Z"}, True),
        ({}, None),
    ],
)
def test_models_that_will_be_withdrawn(entry: dict[str, Any], deprecated: bool | None) -> None:
    assert model(**entry).deprecated is deprecated


def test_names_sizes_and_states() -> None:
    assert model(display_name="Big One").name == "Big One"
    assert models({"name": "models/x", "displayName": "X"})[0].name == "X"
    assert model(meta={"size": 5_000_000_000}).size_bytes == 5_000_000_000
    local = model(state="not-loaded", quantization="Q4_K_M")
    assert (local.loaded, local.quantization) == (False, "Q4_K_M")
    assert model(state="loaded").loaded is True


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", InvalidResponseError),
        (b"<html><title>Login</title>", InvalidResponseError),
        (b"Ollama is running", InvalidResponseError),
        (b'"models"', InvalidResponseError),
        (b"{}", InvalidResponseError),
        (b'{"data": {"id": "m"}}', InvalidResponseError),
        (b"[" * 50_000, InvalidResponseError),
        (b'{"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}',
         AuthenticationError),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_list_of_models_is_refused(data: bytes, kind: type[LLMError]) -> None:
    with pytest.raises(LLMError) as caught:
        decode_models(data, "here")
    assert type(caught.value) is kind
