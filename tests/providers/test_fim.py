"""Fill in the middle, over real sockets: where requests go, superseding, and who cannot."""

from __future__ import annotations

import asyncio

import pytest

from llm_manager import (
    LLMProviderManager,
    OllamaProvider,
    OpenAICompatibleProvider,
    ProviderAPIError,
    RequestCancelledError,
    StreamInterruptedError,
    UnsupportedFeatureError,
)
from llm_manager.providers.rows import ROWS
from llm_manager.testing import Reply, ScriptedPeer

from ..helpers import QUICK, Record
from .conftest import answer, chunk, models

PLACES = {
    "mistral": "/v1/fim/completions",
    "codestral": "/v1/fim/completions",
    "inception": "/v1/fim/completions",
    "deepseek": "/beta/completions",
    "siliconflow": "/v1/completions",
    "llamacpp": "/infill",
    "llamafile": "/infill",
}
INFILL = Reply.sse(
    [
        {"content": "re", "stop": False},
        {"content": "turn", "stop": False},
        {"content": "", "stop": True, "stop_type": "limit", "tokens_evaluated": 9,
         "tokens_predicted": 2},
    ]
)  # fmt: skip
LEGACY = Reply.sse(
    [
        {"choices": [{"index": 0, "text": "re"}]},
        {"choices": [{"index": 0, "text": "turn", "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
        "[DONE]",
    ]
)
CHAT = Reply.sse(
    [
        chunk("re"),
        chunk("turn", "length", usage={"prompt_tokens": 9, "completion_tokens": 2}),
        "[DONE]",
    ]
)
REPLIES = {"mistral": CHAT, "completions": LEGACY, "llamacpp": INFILL}


def provider_at(peer: ScriptedPeer, kind: str, **settings) -> OpenAICompatibleProvider:
    settings.setdefault("reconnect", QUICK)
    row = ROWS[kind]
    # The last part of the row's address, where there is one: paths may leave it.
    path = "" if kind == "deepseek" else "/v1"
    return OpenAICompatibleProvider(
        row=row, base_url=f"{peer.base_url}{path}", api_key="sk-test", **settings
    )


def test_each_row_that_fills_in_the_middle_is_tested_here() -> None:
    assert {row.id for row in ROWS.values() if row.fim} == set(PLACES)


@pytest.mark.parametrize("kind", PLACES)
async def test_a_row_asks_at_its_own_place_and_reads_its_own_answers(peer, kind) -> None:
    peer.route(PLACES[kind], REPLIES[ROWS[kind].fim])
    provider = provider_at(peer, kind)
    record = Record(provider)
    pieces = [e.text async for e in provider.stream_fim("coder", "f() {", "}", {"max_tokens": 2})]
    assert pieces[:2] == ["re", "turn"]
    response = await provider.generate_fim("coder", "f() {", "}")
    assert (response.text, response.finish_reason) == ("return", "length")
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (9, 2)
    assert [e.operation for e in record.named("requestFinished")] == ["fim", "fim"]
    sent = peer.requests[0]
    assert sent.path == PLACES[kind]
    assert sent.headers["authorization"] == "Bearer sk-test"
    assert "f() {" in sent.json().values()
    await provider.close()


async def test_the_server_root_is_found_whatever_the_address_ends_in(peer) -> None:
    peer.route("/infill", INFILL)
    peer.route("/gateway/infill", INFILL)
    for address in ("", "/", "/v1", "/v1/", "/gateway/v1"):
        provider = OpenAICompatibleProvider(
            row=ROWS["llamacpp"], base_url=f"{peer.base_url}{address}"
        )
        assert (await provider.generate_fim("coder", "f() {")).text == "return"
        await provider.close()
    assert {r.path for r in peer.requests} == {"/infill", "/gateway/infill"}


async def test_ollama_fills_in_the_middle(peer) -> None:
    peer.route(
        "/api/generate",
        Reply.ndjson(
            [
                {"model": "coder", "response": "return", "done": False},
                {"model": "coder", "response": "", "done": True, "done_reason": "stop",
                 "prompt_eval_count": 9, "eval_count": 1},
            ]
        ),
    )  # fmt: skip
    provider = OllamaProvider(base_url=peer.base_url, context_tokens=512, keep_alive="1m")
    response = await provider.generate_fim(
        "coder", "f() {", "}", {"max_tokens": 5, "reasoning_effort": "low"}
    )
    assert (response.text, response.model, response.usage.total_tokens) == ("return", "coder", 10)
    assert peer.requests[-1].json() == {
        "model": "coder", "prompt": "f() {", "suffix": "}", "stream": True, "truncate": False,
        "shift": False, "keep_alive": "1m", "options": {"num_predict": 5, "num_ctx": 512},
    }  # fmt: skip
    await provider.close()


async def test_a_new_keystroke_ends_the_request_before_it(peer) -> None:
    peer.script(Reply.sse([{"content": "re", "stop": False}], ending="hang"), INFILL)
    provider = provider_at(peer, "llamacpp")
    record = Record(provider)
    options = {"supersede_key": "main.py"}
    first = asyncio.ensure_future(provider.generate_fim("coder", "f(", "}", options))
    await peer.wait_for_request()
    assert (await provider.generate_fim("coder", "f()", "}", options)).text == "return"
    with pytest.raises(RequestCancelledError):
        await first
    await peer.wait_for_disconnect()
    assert sorted(record.outcomes) == ["cancelled", "ok"]
    await provider.close()


async def test_a_broken_stream_is_an_error_with_what_had_arrived(peer) -> None:
    peer.route("/infill", Reply.sse([{"content": "re", "stop": False}]))
    provider = provider_at(peer, "llamacpp")
    with pytest.raises(StreamInterruptedError) as caught:
        await provider.generate_fim("coder", "f() {", "}")
    assert caught.value.partial.text == "re"
    await provider.close()


async def test_a_model_that_cannot_is_the_server_s_word(peer) -> None:
    said = "Infill is not supported by this model: prefix token is missing."
    error = {"error": {"code": 501, "message": said, "type": "not_supported_error"}}
    peer.route("/infill", Reply.json(error, status=501))
    provider = provider_at(peer, "llamacpp")
    with pytest.raises(ProviderAPIError, match="Infill is not supported") as caught:
        await provider.generate_fim("coder", "f() {", "}")
    assert not caught.value.retryable
    assert len(peer.requests) == 1
    await provider.close()


@pytest.mark.parametrize("kind", sorted({*ROWS} - {*PLACES, "openai"}))
async def test_who_cannot_says_so_and_sends_nothing(peer, kind) -> None:
    provider = provider_at(peer, kind)
    with pytest.raises(UnsupportedFeatureError, match="cannot do: fim"):
        await provider.generate_fim("coder", "f() {", "}")
    assert provider.get_capabilities().supports("fim") is False
    assert peer.requests == []


async def test_an_ollama_model_that_cannot_insert_is_refused_before_sending(peer) -> None:
    listed = {"name": "talker", "capabilities": ["completion"]}
    peer.route("/api/tags", Reply.json({"models": [listed]}))
    peer.route("/api/ps", Reply.json({"models": []}))
    async with OllamaProvider(base_url=peer.base_url) as provider:
        asked = len(peer.requests)
        with pytest.raises(UnsupportedFeatureError, match="model 'talker' cannot do: fim"):
            await provider.generate_fim("talker", "f() {", "}")
        assert len(peer.requests) == asked


async def test_a_manager_passes_it_on_and_chats_go_elsewhere(peer) -> None:
    peer.route("/v1/models", models("coder"))
    peer.route("/infill", INFILL)
    peer.route("/v1/chat/completions", answer("Hello"))
    async with LLMProviderManager() as manager:
        manager.register_provider("llamacpp", base_url=f"{peer.base_url}/v1")
        assert (await manager.generate_fim("llamacpp/coder", "f() {", "}")).text == "return"
        assert (await manager.generate_completion("llamacpp/coder", "Hi")).text == "Hello"
