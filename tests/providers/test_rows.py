"""Rows: what is known about services, from code and from settings, and the lists they give."""

from __future__ import annotations

import json
from typing import get_args
from urllib.parse import urlsplit

import pytest

from llm_manager import (
    ConfigurationError,
    InvalidParameterError,
    LLMProviderManager,
    ModelNotFoundError,
    OpenAICompatibleProvider,
    Row,
    register_provider,
)
from llm_manager.messages import Capability, LLMMessage, LLMRequest, ModelPrice
from llm_manager.providers.rows import ROWS, row_from
from llm_manager.registry import unregister_kind
from llm_manager.testing import Reply, ScriptedPeer
from llm_manager.wire.openai_chat import ChatDialect, OpenAIChat

from ..helpers import QUICK
from .conftest import answer, models

KEY = "sk-planted-0123456789abcdef"
EVERY_ROW = pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.id)


def provider_at(peer: ScriptedPeer, kind: str, path: str, **settings) -> OpenAICompatibleProvider:
    settings.setdefault("reconnect", QUICK)
    return OpenAICompatibleProvider(
        row=ROWS[kind], base_url=f"{peer.base_url}{path}", api_key=KEY, **settings
    )


# ---- every row -----------------------------------------------------------------------------------


@EVERY_ROW
def test_a_row_is_consistent(row: Row) -> None:
    assert row.name
    assert row.capabilities <= set(get_args(Capability))
    assert ("fim" in row.capabilities) == (row.fim is not None)
    for word in ("json_object", "json_schema", "files"):
        assert getattr(row.dialect, word) or word not in row.capabilities
    assert row.models_path is not None or row.models or row.local
    assert row.key_variables or row.id == "compatible"
    low, high = row.dialect.temperature_range
    assert 0 <= low < high <= 2
    if row.base_url is not None:
        assert not row.base_url.endswith("/")
        assert urlsplit(row.base_url).scheme == ("http" if row.local else "https")


@EVERY_ROW
def test_a_row_writes_a_conversation(row: Row) -> None:
    request = LLMRequest(id="r", model="m", messages=(LLMMessage.user("hi"),))
    body = json.loads(OpenAIChat(row.dialect).encode(request))
    assert (body["model"], body["messages"]) == ("m", [{"role": "user", "content": "hi"}])
    assert ("stream_options" in body) == row.dialect.stream_usage


@EVERY_ROW
def test_a_row_survives_being_written_as_settings(row: Row) -> None:
    assert row_from(row.id, {k: v for k, v in row.to_dict().items() if k != "id"}) == row


# ---- rows of one's own ---------------------------------------------------------------------------


@pytest.fixture
def forget_mine():
    yield
    unregister_kind("mine")


async def test_a_row_from_settings_is_a_kind_like_any_other(peer, monkeypatch, forget_mine) -> None:
    settings = json.loads(
        json.dumps(
            {
                "baseUrl": f"{peer.base_url}/v1",
                "key_variables": ["MINE_API_KEY"],
                "dialect": {"maxTokensName": "max_completion_tokens", "json_schema": False},
                "headers": {"x-mine": "1"},
                "fim": "completions",
                "capabilities": ["chat", "completion", "json_schema"],
            }
        )
    )
    register_provider("mine", settings)
    monkeypatch.setenv("MINE_API_KEY", KEY)
    peer.route("/v1/chat/completions", answer("ok"))
    peer.route("/v1/completions", Reply.json({"choices": [{"text": "x"}]}))
    async with LLMProviderManager() as manager:
        provider = manager.register_provider("mine")
        assert (provider.name, provider.kind) == ("mine", "mine")
        # What the dialect cannot express is taken out, and a style of filling in added.
        assert provider.capabilities == {"chat", "completion", "fim"}
        await manager.generate_completion("mine/m", "hi", options={"max_tokens": 7})
        assert (await manager.generate_fim("mine/m", "a", "b")).text == "x"
    sent = peer.requests[0]
    assert sent.json()["max_completion_tokens"] == 7
    assert (sent.headers["x-mine"], sent.headers["authorization"]) == ("1", f"Bearer {KEY}")


@pytest.mark.parametrize(
    ("settings", "says", "hint"),
    [
        ({"base_ulr": "http://x/v1"}, "unknown key 'base_ulr' in provider 'mine'", "'base_url'"),
        ({"dialect": {"stop_limits": 4}}, "unknown key 'stop_limits'", "'stop_limit'"),
        ({"dialect": {"stopLimit": "four"}}, "Expected `int | null`, got `str`", None),
        ({"fim": "mistrall"}, "Invalid enum value 'mistrall'", None),
        ({"capabilities": ["chat", "fly"]}, "Invalid enum value 'fly'", None),
        ({"capabilities": ["fim"]}, "has the capability fim, but not the field fim", None),
        ({"models": "one"}, "Expected `array", None),
    ],
)
def test_wrong_settings_are_an_error_that_names_them(settings, says, hint) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        register_provider("mine", settings)
    assert says in caught.value.message
    assert hint is None or hint in caught.value.hint


def test_an_address_that_cannot_be_one_is_found_when_the_row_is_registered() -> None:
    with pytest.raises(ConfigurationError, match="base_url of provider 'mine' 'localhost:80'"):
        register_provider("mine", {"base_url": "localhost:80"})


def test_a_kind_is_called_what_it_is_registered_as(forget_mine) -> None:
    register_provider("mine", Row(id="other", base_url="http://127.0.0.1:1/v1"))
    assert LLMProviderManager().register_provider("mine").kind == "mine"


def test_a_single_provider_takes_a_row_as_a_mapping() -> None:
    provider = OpenAICompatibleProvider(
        base_url="http://127.0.0.1:1/v1", row={"fim": "llamacpp", "dialect": {"stopLimit": 1}}
    )
    assert provider.get_capabilities().supports("fim")
    assert provider.row.dialect == ChatDialect(stop_limit=1)
    with pytest.raises(InvalidParameterError, match="unknown key 'fimm'"):
        OpenAICompatibleProvider(base_url="http://127.0.0.1:1/v1", row={"fimm": "llamacpp"})


# ---- headers -------------------------------------------------------------------------------------


async def test_headers_come_from_the_environment_where_the_row_says_so(peer, monkeypatch) -> None:
    peer.route("/api/v1/models", models("a"))
    monkeypatch.setenv("OPENROUTER_APP_TITLE", "My app")
    async with provider_at(peer, "openrouter", "/api/v1"):
        sent = peer.requests[-1].headers
    assert sent["x-title"] == "My app"
    assert "http-referer" not in sent
    async with provider_at(peer, "openrouter", "/api/v1", headers={"X-Title": "Other"}):
        assert peer.requests[-1].headers["x-title"] == "Other"


async def test_the_key_goes_into_the_header_of_the_row(peer) -> None:
    peer.route("/v1/models", models("a"))
    async with provider_at(peer, "portkey", "/v1"):
        sent = peer.requests[-1].headers
    assert sent["x-portkey-api-key"] == KEY
    assert "authorization" not in sent


# ---- lists of models -----------------------------------------------------------------------------


async def test_the_limits_of_gemini_come_from_its_own_list_and_the_key_is_in_no_url(peer) -> None:
    peer.route(
        "/v1beta/openai/models", models("models/gemini-pro", "models/embedder", "models/new")
    )
    native = [
        {"name": "models/gemini-pro", "displayName": "Gemini Pro", "inputTokenLimit": 1_048_576,
         "outputTokenLimit": 65_536, "supportedGenerationMethods": ["generateContent"]},
        {"name": "models/embedder", "inputTokenLimit": 2048,
         "supportedGenerationMethods": ["embedContent"]},
    ]  # fmt: skip
    peer.route("/v1beta/models", Reply.json({"models": native}))
    async with provider_at(peer, "gemini", "/v1beta/openai") as provider:
        pro, embedder, new = await provider.get_available_models()
    assert [m.id for m in (pro, embedder, new)] == ["gemini-pro", "embedder", "new"]
    assert (pro.name, pro.context_window_tokens, pro.max_output_tokens) == (
        "Gemini Pro", 1_048_576, 65_536,
    )  # fmt: skip
    assert pro.source_of("context_window_tokens") == "endpoint"
    assert (embedder.capabilities, embedder.context_window_tokens) == ({"embeddings"}, 2048)
    assert new.context_window_tokens is None
    listed, details = (r for r in peer.requests)
    assert listed.headers["authorization"] == f"Bearer {KEY}"
    assert details.headers["x-goog-api-key"] == KEY
    assert "authorization" not in details.headers
    assert details.path == "/v1beta/models?pageSize=1000"


async def test_lm_studio_tells_in_its_own_list_what_is_loaded(peer) -> None:
    peer.route("/v1/models", models("small", "eye", "embed"))
    own = [
        {"id": "small", "type": "llm", "state": "loaded", "quantization": "Q4_K_M",
         "max_context_length": 131_072, "loaded_context_length": 4096},
        {"id": "eye", "type": "vlm", "state": "not-loaded", "max_context_length": 32_768},
        {"id": "embed", "type": "embeddings", "state": "not-loaded", "max_context_length": 2048},
    ]  # fmt: skip
    peer.route("/api/v0/models", Reply.json({"data": own}))
    async with provider_at(peer, "lmstudio", "/v1") as provider:
        small, eye, embed = await provider.get_available_models()
    assert (small.context_window_tokens, small.loaded, small.quantization) == (4096, True, "Q4_K_M")
    assert (eye.loaded, eye.input_modalities) == (False, {"text", "image"})
    assert embed.capabilities == {"embeddings"}


async def test_a_litellm_proxy_tells_limits_and_prices_of_its_models(peer) -> None:
    peer.route("/v1/models", models("fast", "any"))
    known = {
        "mode": "chat", "max_input_tokens": 128_000, "max_output_tokens": 4096,
        "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "supports_vision": True,
        "supports_function_calling": True, "supports_reasoning": False, "supports_pdf_input": None,
        "supports_response_schema": True,
    }  # fmt: skip
    entries = [
        {"model_name": "fast", "litellm_params": {"model": "x/y"}, "model_info": known},
        # Two backends of one name: only the smaller window can be relied on.
        {"model_name": "any", "model_info": {"id": "b1", "max_input_tokens": 64_000}},
        {"model_name": "any", "model_info": {"id": "b2", "max_input_tokens": 32_000}},
    ]
    peer.route("/v1/model/info", Reply.json({"data": entries}))
    async with provider_at(peer, "litellm-proxy", "/v1") as provider:
        fast, any_ = await provider.get_available_models()
    assert (fast.context_window_tokens, fast.max_output_tokens) == (128_000, 4096)
    assert fast.price == ModelPrice(input_usd=1.0, output_usd=2.0)
    assert fast.capabilities == {"chat", "completion", "tools", "vision", "json_schema"}
    assert any_.context_window_tokens == 32_000


async def test_cohere_lists_its_models_in_its_own_api(peer) -> None:
    listed = {"name": "command-x", "context_length": 256_000, "endpoints": ["chat"]}
    peer.route("/v1/models", Reply.json({"models": [listed]}))
    async with provider_at(peer, "cohere", "/compatibility/v1") as provider:
        (model,) = await provider.get_available_models()
    assert (model.id, model.context_window_tokens) == ("command-x", 256_000)


@pytest.mark.parametrize(
    "reply",
    [
        Reply.json({"error": {"message": "not here"}}, status=404),
        Reply.json({"error": {"message": "not you"}}, status=401),
        Reply(body=[b"<html>"]),
        Reply(instead="close"),
    ],
)
async def test_details_that_cannot_be_read_do_no_harm(peer, reply) -> None:
    peer.route("/v1/models", models("small"))
    peer.route("/api/v0/models", reply)
    async with provider_at(peer, "lmstudio", "/v1") as provider:
        (model,) = await provider.get_available_models()
        assert (model.id, provider.status.status) == ("small", "connected")
        with pytest.raises(ModelNotFoundError):
            await provider.get_model_info("large")
