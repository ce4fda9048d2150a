"""Anthropic's Messages API through its official SDK, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import pickle
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llm_manager import (
    AuthenticationError,
    ConfigurationError,
    ContextWindowExceededError,
    DependencyMissingError,
    InvalidParameterError,
    InvalidRequestError,
    InvalidResponseError,
    LLMError,
    LLMMessage,
    LLMProviderManager,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderOverloadedError,
    QuotaExceededError,
    RateLimitError,
    RequestCancelledError,
    RequestTimeoutError,
    StreamInterruptedError,
    ToolDefinition,
    UnsupportedFeatureError,
    Usage,
)
from llm_manager.messages import FilePart, ImagePart
from llm_manager.providers.anthropic import AnthropicProvider
from llm_manager.testing import Reply, ScriptedPeer

from ..helpers import QUICK, Record
from ..wire.anthropic_events import (
    PING,
    answer,
    begin,
    call_block,
    finish,
    one,
    say,
    start,
    text_block,
    thinking_block,
)
from ..wire.test_wire_aws_events import event as bedrock_event

pytest.importorskip("anthropic")

KEY = "sk-ant-planted-0123456789abcdef"
NO_WAIT = {"retries": {"wait_s": 0.0, "wait_max_s": 0.0}}
ONCE = {"retries": {"attempts": 1}}
MESSAGES = "/v1/messages"
MODEL = "claude-opus-4-6"
YES, NO = {"supported": True}, {"supported": False}


@pytest.fixture
async def provider(peer: ScriptedPeer) -> AsyncIterator[AnthropicProvider]:
    provider = provider_at(peer)
    yield provider
    await provider.close()


def provider_at(peer: ScriptedPeer, **settings: Any) -> AnthropicProvider:
    settings.setdefault("api_key", KEY)
    settings.setdefault("reconnect", QUICK)
    settings.setdefault("default_options", NO_WAIT)
    settings.setdefault("default_model", MODEL)
    return AnthropicProvider(base_url=peer.base_url, **settings)


@asynccontextmanager
async def closing(provider: AnthropicProvider) -> AsyncIterator[AnthropicProvider]:
    try:
        yield provider
    finally:
        await provider.close()


def streamed(*blocks: Any, reason: str = "end_turn", **how: Any) -> Reply:
    return Reply.sse([one(event) for event in answer(*blocks, reason=reason)], **how)


def listed(*ids: str, **more: Any) -> Reply:
    entries = [{"type": "model", "id": id, "display_name": id.title(), "max_tokens": 64_000,
                "max_input_tokens": 200_000, **more} for id in ids]  # fmt: skip
    return Reply.json({"data": entries, "has_more": False, "last_id": ids[-1] if ids else None})


def failing(status: int, type_: str, text: str, **headers: str) -> Reply:
    body = {"type": "error", "error": {"type": type_, "message": text}, "request_id": "req_body"}
    return Reply.json(body, status=status, headers={"request-id": "req_42", **headers})


# ---- the main job --------------------------------------------------------------------------------


async def test_the_main_job_connect_list_and_stream(peer: ScriptedPeer) -> None:
    peer.route("/v1/models", listed(MODEL))
    peer.route(MESSAGES, streamed(text_block("Hel", "lo")))
    async with LLMProviderManager() as manager:
        record = Record(manager)
        provider = manager.register_provider("anthropic", base_url=peer.base_url, api_key=KEY)
        await provider.connect()
        assert [m.id for m in await provider.get_available_models()] == [MODEL]
        texts = [e.text async for e in manager.stream_completion(f"anthropic/{MODEL}", "Say hello")]
        assert "".join(texts) == "Hello"
    assert record.statuses == [
        "disconnected", "connecting", "connected", "draining", "disconnected", "closed",
    ]  # fmt: skip
    assert record.outcomes == ["ok"]
    sent = peer.requests[-1]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["anthropic-version"]
    assert sent.json() == {
        "model": MODEL,
        "max_tokens": 64_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello"}]}],
        "stream": True,
    }
    assert len({r.connection for r in peer.requests}) == 1


async def test_the_whole_answer_is_the_collected_stream(peer, provider) -> None:
    blocks = (thinking_block("hm"), text_block("Hé", "llo", index=1))
    peer.script(streamed(*blocks), streamed(*blocks, write_size=1))
    whole = await provider.generate_completion(None, "x")
    events = [e async for e in provider.stream_completion(None, "x")]
    last = events[-1].response
    assert (last.text, last.reasoning, last.parts) == (whole.text, whole.reasoning, whole.parts)
    assert (whole.text, whole.reasoning, whole.finish_reason) == ("Héllo", "hm", "stop")
    assert (whole.model, whole.response_id) == ("claude", "msg_1")
    assert whole.usage == last.usage == Usage(prompt_tokens=3, completion_tokens=2)
    assert "".join(e.text for e in events if e.kind == "text") == "Héllo"


async def test_reasoning_goes_back_with_its_signature_and_calls_with_their_results(
    peer, provider
) -> None:
    first = (thinking_block("Let me see", signature="c2lnbmF0dXJl"),
             text_block("Looking", index=1),
             call_block("toolu_1", "weather", '{"city": ', '"Oslo"}', index=2),
             call_block("toolu_2", "weather", '{"city": "Rome"}', index=3))  # fmt: skip
    peer.script(streamed(*first, reason="tool_use"), streamed(text_block("Cold")))
    tools = [ToolDefinition(name="weather", parameters={"type": "object", "properties": {}})]
    options = {"tools": tools, "reasoning_effort": "low"}
    question = LLMMessage.user("Weather?")
    response = await provider.generate_chat_completion(None, question, options)
    assert response.finish_reason == "tool_calls"
    assert [c.arguments for c in response.tool_calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    history = [question, response.to_message(), *(LLMMessage.tool(c.id, "3 °C")
                                                  for c in response.tool_calls)]  # fmt: skip
    await provider.generate_chat_completion(None, history, options)
    sent = peer.requests[-1].json()
    assert sent["thinking"]["type"] == "adaptive"
    assert sent["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Let me see", "signature": "c2lnbmF0dXJl"},
        {"type": "text", "text": "Looking"},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {"city": "Rome"}},
    ]
    assert [b["tool_use_id"] for b in sent["messages"][2]["content"]] == ["toolu_1", "toolu_2"]


async def test_a_history_survives_being_stored_as_json(peer, provider) -> None:
    peer.script(streamed(thinking_block("hm"), text_block("So", index=1)),
                streamed(text_block("ok")))  # fmt: skip
    response = await provider.generate_completion(None, "x")
    stored = json.loads(json.dumps(response.to_message().to_dict()))
    await provider.generate_chat_completion(None, [stored, LLMMessage.user("y")])
    assert peer.requests[-1].json()["messages"][0]["content"][0]["signature"] == "sig=="


async def test_images_documents_and_cache_marks_arrive(peer, provider) -> None:
    peer.script(streamed(text_block("ok")))
    message = LLMMessage(
        role="user",
        content=(
            ImagePart(data=b"\x89PNG", media_type="image/png"),
            FilePart(data=b"%PDF", media_type="application/pdf", filename="a.pdf"),
        ),
        cache="1h",
    )
    await provider.generate_chat_completion(None, message, {"prompt_cache": "5m"})
    sent = peer.requests[-1].json()
    image, document = sent["messages"][0]["content"]
    assert (image["type"], image["source"]["data"]) == ("image", "iVBORw==")
    assert (document["title"], document["source"]["media_type"]) == ("a.pdf", "application/pdf")
    assert document["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert sent["cache_control"] == {"type": "ephemeral", "ttl": "5m"}


async def test_cached_tokens_are_part_of_the_prompt(peer, provider) -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 5,
             "output_tokens": 1}  # fmt: skip
    events = [start(**usage), *text_block("x"), finish(output_tokens=7), {"type": "message_stop"}]
    peer.script(Reply.sse([one(e) for e in events]))
    response = await provider.generate_completion(None, "x")
    assert response.usage == Usage(
        prompt_tokens=105, completion_tokens=7, cached_tokens=90, cache_write_tokens=5
    )


async def test_sampling_that_reasoning_forbids_is_left_out_and_that_is_said(
    peer, provider, caplog
) -> None:
    peer.script(streamed(text_block("x")))
    options = {"temperature": 0.2, "top_p": 0.3, "reasoning_effort": "low"}
    with caplog.at_level(logging.DEBUG, "llm_manager.providers.anthropic"):
        await provider.generate_completion(None, "x", options=options)
    assert not {"temperature", "top_p"} & peer.requests[-1].json().keys()
    assert "temperature, top_p" in caplog.text


async def test_a_type_is_asked_for_natively(peer, provider) -> None:
    peer.script(streamed(text_block('{"n": 3}')))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    response = await provider.generate_completion(None, "x", options={"response_format": schema})
    assert response.parse(dict) == {"n": 3}
    form = peer.requests[-1].json()["output_config"]["format"]
    assert form == {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}


# ---- models and counting -------------------------------------------------------------------------


async def test_all_pages_of_the_model_list_are_read(peer, provider) -> None:
    entries = [{"id": f"claude-{i}", "max_tokens": i, "max_input_tokens": 2 * i}
               for i in range(1, 4)]  # fmt: skip
    peer.script(
        Reply.json({"data": entries[:2], "has_more": True, "last_id": "claude-2"}),
        Reply.json({"data": entries[2:], "has_more": False, "last_id": "claude-3"}),
    )
    models = await provider.get_available_models()
    assert [m.id for m in models] == ["claude-1", "claude-2", "claude-3"]
    assert models[2].context_window_tokens == 6
    first, second = (request.path for request in peer.requests)
    assert first.startswith("/v1/models?")
    assert "after_id=claude-2" in second


async def test_a_list_that_never_ends_is_not_read_for_ever(peer, provider) -> None:
    page = {"data": [{"id": "claude-1"}], "has_more": True, "last_id": "claude-1"}
    peer.route("/v1/models", Reply.json(page))
    assert [m.id for m in await provider.get_available_models()] == ["claude-1"]
    assert len(peer.requests) < 5


async def test_what_the_list_says_of_a_model_shapes_its_requests(peer, provider) -> None:
    types = {"adaptive": NO, "enabled": YES, "disabled": YES}
    capabilities = {"thinking": {**YES, "types": types}, "image_input": NO}
    peer.route("/v1/models", listed(MODEL, capabilities=capabilities))
    peer.route(MESSAGES, streamed(text_block("x")))
    await provider.connect()
    await provider.generate_completion(MODEL, "x", options={"reasoning_effort": "low"})
    assert peer.requests[-1].json()["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    picture = LLMMessage.user(ImagePart(data=b"x", media_type="image/png"))
    with pytest.raises(UnsupportedFeatureError, match="vision"):
        provider.stream_chat_completion(MODEL, picture)


async def test_tokens_are_counted_by_the_service(peer, provider) -> None:
    peer.script(Reply.json({"input_tokens": 17}))
    counted = await provider.count_tokens(None, "How many?", {"max_tokens": 5})
    assert (counted.tokens, counted.estimated) == (17, False)
    sent = peer.requests[-1]
    assert sent.path == "/v1/messages/count_tokens"
    assert sorted(sent.json()) == ["messages", "model"]


async def test_betas_and_headers_are_sent_with_every_request(peer) -> None:
    peer.route(MESSAGES, streamed(text_block("x")))
    async with closing(
        provider_at(peer, betas=["one-2026-01-01", "two"], headers={"x-team": "a"})
    ) as provider:
        await provider.generate_completion(None, "x")
    headers = peer.requests[-1].headers
    assert (headers["anthropic-beta"], headers["x-team"]) == ("one-2026-01-01,two", "a")


# ---- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "type_", "text", "kind", "retryable"),
    [
        (400, "invalid_request_error", "max_tokens: wrong", InvalidRequestError, False),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum",
         ContextWindowExceededError, False),
        (400, "invalid_request_error", "Your credit balance is too low to access the API",
         QuotaExceededError, False),
        (401, "authentication_error", "wrong key", AuthenticationError, False),
        (402, "billing_error", "pay first", QuotaExceededError, False),
        (403, "permission_error", "not yours", PermissionDeniedError, False),
        (404, "not_found_error", "model: claude-9", ModelNotFoundError, False),
        (408, "timeout_error", "too slow", RequestTimeoutError, True),
        (409, "conflict_error", "busy", ProviderAPIError, True),
        (413, "request_too_large", "Request exceeds the maximum size", InvalidRequestError, False),
        (429, "rate_limit_error", "slow down", RateLimitError, True),
        (500, "api_error", "Internal server error", ProviderAPIError, True),
        (503, "api_error", "unavailable", ProviderOverloadedError, True),
        (529, "overloaded_error", "Overloaded", ProviderOverloadedError, True),
    ],
)  # fmt: skip
async def test_every_status_has_its_class(
    peer, provider, status: int, type_: str, text: str, kind: type[LLMError], retryable: bool
) -> None:
    peer.route(MESSAGES, failing(status, type_, text))
    with pytest.raises(kind) as caught:
        await provider.generate_completion(None, "x", options=ONCE)
    error = caught.value
    assert type(error) is kind
    assert (error.http_status, error.retryable) == (status, retryable)
    assert (error.provider_code, error.provider_request_id) == (type_, "req_42")
    assert text in error.message


async def test_a_wait_that_is_asked_for_is_known_and_only_we_repeat(peer, provider) -> None:
    limited = failing(429, "rate_limit_error", "slow down", **{"retry-after": "7"})
    peer.route(MESSAGES, limited)
    with pytest.raises(RateLimitError) as caught:
        await provider.generate_completion(None, "x", options=ONCE)
    assert caught.value.retry_after_s == 7.0
    assert len(peer.requests) == 1


async def test_a_passing_failure_is_repeated_by_our_policy(peer, provider) -> None:
    peer.script(failing(529, "overloaded_error", "Overloaded"), streamed(text_block("ok")))
    response = await provider.generate_completion(None, "x")
    assert (response.text, response.timings.attempts) == ("ok", 2)


async def test_an_error_inside_the_stream_ends_it_with_what_had_arrived(peer, provider) -> None:
    failure = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    events = [start(), begin(0, "text", text=""), say("Hel"), say("lo"), failure]
    peer.route(MESSAGES, Reply.sse([one(e) for e in events]))
    with pytest.raises(ProviderOverloadedError) as caught:
        await provider.generate_completion(None, "x")
    assert caught.value.partial.text == "Hello"
    assert len(peer.requests) == 1


@pytest.mark.parametrize("ending", ["complete", "close", "reset", "half_chunk"])
async def test_a_stream_that_breaks_off_is_interrupted(peer, provider, ending: Any) -> None:
    events = [start(), PING, begin(0, "text", text=""), say("Hel"), say("lo")]
    peer.route(MESSAGES, Reply.sse([one(e) for e in events], ending=ending))
    with pytest.raises(StreamInterruptedError) as caught:
        await provider.generate_completion(None, "x")
    # A reset may overtake what was sent before it.
    partial = caught.value.partial
    assert ending == "reset" or partial.text == "Hello"
    assert ending == "reset" or (partial.usage.estimated and partial.usage.prompt_tokens == 3)


async def test_no_server_no_answer(peer, provider) -> None:
    await peer.stop()
    with pytest.raises(ProviderConnectionError) as caught:
        await provider.generate_completion(None, "x", options=ONCE)
    assert caught.value.code == "refused"
    await peer.start()


async def test_a_server_that_hangs_up_without_an_answer(peer, provider) -> None:
    peer.route(MESSAGES, Reply(instead="close"))
    with pytest.raises(ProviderConnectionError) as caught:
        await provider.generate_completion(None, "x", options=ONCE)
    assert caught.value.code == "reset"


async def test_a_pooled_connection_that_died_meanwhile_costs_no_request(peer, provider) -> None:
    peer.route(MESSAGES, streamed(text_block("Hi")))
    await provider.generate_completion(None, "x")
    await peer.close_idle_connections()
    response = await provider.generate_completion(None, "x", options=ONCE)
    assert (response.text, response.timings.attempts) == ("Hi", 1)
    assert peer.connections_opened == 2


async def test_a_connection_that_dies_under_a_request_is_replaced_unseen(peer, provider) -> None:
    peer.script(streamed(text_block("one")), Reply(instead="close"), streamed(text_block("two")))
    await provider.generate_completion(None, "x")
    response = await provider.generate_completion(None, "x", options=ONCE)
    assert (response.text, response.timings.attempts) == ("two", 1)
    assert [request.connection for request in peer.requests] == [1, 1, 2]


async def test_a_header_that_cannot_be_sent_is_named(peer) -> None:
    for value in ("a\nb", "ü"):
        async with closing(provider_at(peer, headers={"x-team": value})) as provider:
            with pytest.raises(ConfigurationError, match="x-team"):
                await provider.connect()
    assert peer.requests == []


@pytest.mark.parametrize(
    ("answer", "text"),
    [(Reply.json({"tokens": 3}), "input_tokens is missing"),
     (Reply(body=[b"<title>Sign in</title>"]), "web page")],
)  # fmt: skip
async def test_a_count_that_is_none_is_an_error(peer, provider, answer: Reply, text: str) -> None:
    peer.script(answer)
    with pytest.raises(InvalidResponseError, match=text):
        await provider.count_tokens(None, "x")


# ---- stopping ------------------------------------------------------------------------------------


def silent_after(*words: str) -> Reply:
    events = [start(), begin(0, "text", text=""), *map(say, words)]
    return Reply.sse([one(e) for e in events], ending="hang")


async def test_stop_closes_the_socket_and_keeps_what_had_arrived(peer, provider) -> None:
    peer.route(MESSAGES, silent_after("Hel", "lo"))
    stream = provider.stream_completion(
        None, "x", callback=lambda e: e.text == "lo" and stream.cancel()
    )
    with pytest.raises(RequestCancelledError) as caught:
        await stream
    await peer.wait_for_disconnect()
    assert caught.value.partial.text == "Hello"


async def test_break_closes_the_socket(peer, provider) -> None:
    peer.route(MESSAGES, silent_after("Hel"))
    async for _ in provider.stream_completion(None, "x"):
        break
    await peer.wait_for_disconnect()


async def test_stop_before_the_first_byte_closes_the_socket(peer, provider) -> None:
    peer.route(MESSAGES, Reply(instead="hang"))
    stream = provider.stream_completion(None, "x")
    task = asyncio.ensure_future(stream)
    await peer.wait_for_request()
    stream.cancel()
    with pytest.raises(RequestCancelledError):
        await task
    await peer.wait_for_disconnect()


async def test_cancelling_the_task_closes_the_socket(peer, provider) -> None:
    peer.route(MESSAGES, silent_after("Hel"))
    task = asyncio.create_task(provider.generate_completion(None, "x"))
    await peer.wait_for_request()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await peer.wait_for_disconnect()


def test_one_provider_works_on_two_event_loops_one_after_the_other() -> None:
    with ScriptedPeer(fallback=streamed(text_block("Hi"))) as peer:
        provider = provider_at(peer)

        async def ask() -> str:
            return (await provider.generate_completion(None, "x")).text

        assert [asyncio.run(ask()), asyncio.run(ask())] == ["Hi", "Hi"]
        asyncio.run(provider.close())
    gc.collect()


# ---- keys and settings ---------------------------------------------------------------------------


async def test_the_key_shows_nowhere(peer, caplog) -> None:
    peer.route(MESSAGES, failing(401, "authentication_error", f"invalid key {KEY}"))
    with caplog.at_level(logging.DEBUG):
        async with closing(provider_at(peer)) as provider:
            with pytest.raises(AuthenticationError) as caught:
                await provider.generate_completion(None, "x")
            shown = repr(provider) + repr(vars(provider))
    assert peer.requests[-1].headers["authorization"].endswith(KEY)
    error = caught.value
    texts = [str(error), repr(error), repr(vars(error)), shown, caplog.text,
             "".join(traceback.format_exception(error)), repr(pickle.dumps(error))]  # fmt: skip
    assert not [text for text in texts if KEY in text]
    assert error.__cause__ is None
    assert error.__context__ is None or isinstance(error.__context__, LLMError)


def test_the_environment_names_key_and_server(monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://gateway.example.org")
    provider = AnthropicProvider()
    assert provider.base_url == "https://gateway.example.org"
    assert provider.key_origin == "environment ANTHROPIC_API_KEY"


async def test_a_key_of_the_environment_is_not_sent_elsewhere(peer, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    provider = AnthropicProvider(base_url=peer.base_url, default_model=MODEL)
    with pytest.raises(AuthenticationError, match="belongs to another server"):
        await provider.generate_completion(None, "x")
    assert peer.requests == []
    await provider.close()


async def test_a_key_function_is_asked_at_every_request(peer) -> None:
    peer.route(MESSAGES, streamed(text_block("Hi")))
    keys = iter(["opened-1", "first-1", "second-2"])
    latest = []

    def key() -> str:
        latest.append(next(keys, "broken key"))
        return latest[-1]

    async with closing(provider_at(peer, api_key=key)) as provider:
        await provider.generate_completion(None, "x")
        sent = peer.requests[-1].headers["authorization"]
        assert sent.removeprefix("Bearer ") in latest
        used = len(latest)
        while latest[-1] != "broken key":
            key()
        with pytest.raises(AuthenticationError, match="a space"):
            await provider.generate_completion(None, "x", options=ONCE)
    assert used > 1
    assert len(peer.requests) == 1


async def test_without_a_key_nothing_is_sent(peer) -> None:
    provider = AnthropicProvider(default_model=MODEL)
    with pytest.raises(AuthenticationError) as caught:
        await provider.connect()
    assert caught.value.code == "auth_missing"
    await provider.close()


async def test_a_ready_client_is_used_and_left_open(peer) -> None:
    import anthropic

    peer.route(MESSAGES, streamed(text_block("Hi")))
    peer.route("/v1/models", listed(MODEL))
    async with anthropic.AsyncAnthropic(
        api_key="mine-1", base_url=peer.base_url, max_retries=5, default_headers={"x-team": "b"}
    ) as client:
        provider = AnthropicProvider(client=client, default_model=MODEL)
        assert (await provider.generate_completion(None, "x")).text == "Hi"
        await provider.close()
        assert not client.is_closed()
    sent = peer.requests[-1].headers
    assert (sent["authorization"], sent["x-team"]) == ("Bearer mine-1", "b")


async def test_a_client_that_is_closed_or_has_no_key_is_an_error_of_ours(peer) -> None:
    import anthropic

    client = anthropic.AsyncAnthropic(api_key="mine-1", base_url=peer.base_url)
    await client.close()
    async with closing(AnthropicProvider(client=client, default_model=MODEL)) as provider:
        with pytest.raises(ProviderConnectionError, match="closed"):
            await provider.generate_completion(None, "x", options=ONCE)
    async with anthropic.AsyncAnthropic(base_url=peer.base_url, auth_token="") as keyless:
        keyless.auth_token = None
        async with closing(AnthropicProvider(client=keyless, default_model=MODEL)) as provider:
            with pytest.raises(AuthenticationError) as caught:
                await provider.generate_completion(None, "x", options=ONCE)
    assert caught.value.code == "auth_missing"
    assert peer.requests == []


async def test_what_the_client_itself_refuses_is_an_error_of_ours(peer) -> None:
    from anthropic import AsyncAnthropicBedrock

    async with (
        AsyncAnthropicBedrock(
            api_key="k-1", aws_region="us-east-1", base_url=peer.base_url
        ) as client,
        closing(AnthropicProvider(client=client)) as provider,
    ):
        with pytest.raises(ConfigurationError, match="dot-segment") as caught:
            await provider.generate_completion("..", "x")
    assert caught.value.original.startswith("builtins.ValueError")
    assert peer.requests == []


async def test_tokens_are_estimated_where_nobody_counts_them() -> None:
    from anthropic import AsyncAnthropicBedrock

    async with AsyncAnthropicBedrock(api_key="k-1", aws_region="us-east-1") as client:
        provider = AnthropicProvider(client=client, default_model="anthropic.claude-opus-4-6-v1")
        counted = await provider.count_tokens(None, "How many?")
        assert counted.estimated
        assert await provider.get_available_models() != []
        await provider.close()


async def test_a_client_without_a_model_list_offers_the_models_that_are_named(peer) -> None:
    from anthropic import AsyncAnthropicBedrock

    events = b"".join(map(bedrock_event, answer(text_block("Hi"))))
    peer.script(Reply(headers={"content-type": "application/vnd.amazon.eventstream"},
                      body=[events], framing="chunked"))  # fmt: skip
    async with AsyncAnthropicBedrock(
        api_key="bedrock-key-1", aws_region="us-east-1", base_url=peer.base_url
    ) as client:
        provider = AnthropicProvider(client=client, models=["anthropic.claude-opus-4-6-v1"])
        await provider.connect()
        (model,) = await provider.get_available_models()
        assert (await provider.generate_completion(model.id, "x")).text == "Hi"
        await provider.close()
    (sent,) = peer.requests
    assert sent.path == "/model/anthropic.claude-opus-4-6-v1/invoke-with-response-stream"
    assert "stream" not in sent.json()


def test_settings_that_cannot_work_are_found_at_once() -> None:
    for wrong in ({"betas": "one"}, {"models": "claude"}):
        with pytest.raises(InvalidParameterError, match="sequence"):
            AnthropicProvider(**wrong)
    with pytest.raises(ConfigurationError):
        AnthropicProvider(base_url="ftp://x")
    with pytest.raises(AuthenticationError):
        AnthropicProvider(api_key="a b")


# ---- what is loaded ------------------------------------------------------------------------------

_LOADED = """
import asyncio, sys
from llm_manager import AnthropicProvider
assert "anthropic" not in sys.modules
from llm_manager.testing import Reply, ScriptedPeer

async def main():
    async with ScriptedPeer(fallback=Reply.json({"data": [{"id": "claude"}]})) as peer:
        provider = AnthropicProvider(base_url=peer.base_url, api_key="k-123456789")
        await provider.connect()
        await provider.close()

asyncio.run(main())
assert "anthropic" in sys.modules
print(sorted({"openai", "torch", "transformers", "litellm"} & set(sys.modules)))
"""

_MISSING = """
import asyncio, sys
sys.modules["anthropic"] = None
from llm_manager import AnthropicProvider

async def main():
    provider = AnthropicProvider(api_key="k-123456789")
    try:
        await provider.connect()
    except Exception as error:
        print(type(error).__name__, error.extra, provider.status.status.value, error.hint)
    await provider.close()

asyncio.run(main())
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_connecting_loads_this_sdk_and_no_other() -> None:
    assert run(_LOADED) == "[]"


def test_without_the_sdk_the_error_says_what_to_install() -> None:
    said = run(_MISSING)
    assert said.startswith(f"{DependencyMissingError.__name__} anthropic failed")
    assert "pip install" in said
