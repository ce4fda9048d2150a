"""OpenAI through its official SDK, over real sockets."""

from __future__ import annotations

import asyncio
import gc
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
    OpenAIProvider,
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
from llm_manager.testing import Reply, ScriptedPeer

from ..helpers import QUICK, Record
from ..wire import response_events as events_of
from ..wire.response_events import call_item, one, reasoning_item, text_item
from .conftest import answer, chunk, models

pytest.importorskip("openai")

KEY = "sk-planted-0123456789abcdef"
NO_WAIT = {"retries": {"wait_s": 0.0, "wait_max_s": 0.0}}
ONCE = {"retries": {"attempts": 1}}
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
PLAIN, REASONING = "gpt-4.1", "gpt-5"


@pytest.fixture
async def provider(peer: ScriptedPeer) -> AsyncIterator[OpenAIProvider]:
    async with closing(provider_at(peer)) as provider:
        yield provider


def provider_at(peer: ScriptedPeer, **settings: Any) -> OpenAIProvider:
    settings.setdefault("api_key", KEY)
    settings.setdefault("reconnect", QUICK)
    settings.setdefault("default_options", NO_WAIT)
    settings.setdefault("default_model", PLAIN)
    return OpenAIProvider(base_url=f"{peer.base_url}/v1", **settings)


@asynccontextmanager
async def closing(provider: OpenAIProvider) -> AsyncIterator[OpenAIProvider]:
    try:
        yield provider
    finally:
        await provider.close()


def streamed(*items: Any, last: Any = None, **how: Any) -> Reply:
    """An answer of the Responses API."""
    return Reply.sse([one(event) for event in events_of.answer(*items, last=last)], **how)


def failing(status: int, text: str, code: str | None = None, type_: str = "error",
            **headers: str) -> Reply:  # fmt: skip
    body = {"error": {"message": text, "type": type_, "param": None, "code": code}}
    return Reply.json(body, status=status, headers={"x-request-id": "req_42", **headers})


# ---- the main job --------------------------------------------------------------------------------


async def test_the_main_job_connect_list_and_stream(peer) -> None:
    peer.route("/v1/models", models(PLAIN, "text-embedding-3-small"))
    peer.route(CHAT, answer("Hel", "lo"))
    async with LLMProviderManager() as manager:
        record = Record(manager)
        provider = manager.register_provider("openai", base_url=f"{peer.base_url}/v1", api_key=KEY)
        await provider.connect()
        assert [m.id for m in await provider.get_available_models()] == [
            PLAIN, "text-embedding-3-small",
        ]  # fmt: skip
        texts = [e.text async for e in manager.stream_completion(f"openai/{PLAIN}", "Say hello")]
        assert "".join(texts) == "Hello"
    assert record.statuses == [
        "disconnected", "connecting", "connected", "draining", "disconnected", "closed",
    ]  # fmt: skip
    assert record.outcomes == ["ok"]
    sent = peer.requests[-1]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.json() == {
        "model": PLAIN,
        "messages": [{"role": "user", "content": "Say hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert len({r.connection for r in peer.requests}) == 1


async def test_the_whole_answer_is_the_collected_stream_on_both_apis(peer, provider) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2,
             "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2}}  # fmt: skip
    chat = [chunk("Hé"), chunk("llo"), chunk(finish="stop"), {"choices": [], "usage": usage},
            "[DONE]"]  # fmt: skip
    items = (reasoning_item("hm"), text_item("Hé", "llo", index=1))
    for model, pieces, counted in (
        (PLAIN, lambda **how: Reply.sse(chat, **how),
         Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1, cache_write_tokens=2)),
        (REASONING, lambda **how: streamed(*items, **how),
         Usage(prompt_tokens=30, completion_tokens=12, cached_tokens=20, cache_write_tokens=4,
               reasoning_tokens=5)),
    ):  # fmt: skip
        peer.script(pieces(), pieces(write_size=1))
        whole = await provider.generate_completion(model, "x")
        events = [e async for e in provider.stream_completion(model, "x")]
        last = events[-1].response
        assert (last.text, last.reasoning, last.parts) == (whole.text, whole.reasoning, whole.parts)
        assert (whole.text, whole.finish_reason) == ("Héllo", "stop")
        assert whole.usage == last.usage == counted
        assert "".join(e.text for e in events if e.kind == "text") == "Héllo"
    assert whole.reasoning == "hm"


@pytest.mark.parametrize(
    ("api", "model", "effort", "path"),
    [
        ("auto", PLAIN, None, CHAT), ("auto", "o3", None, RESPONSES),
        ("auto", "gpt-6-astra", None, RESPONSES), ("auto", "gpt-5-chat-latest", None, CHAT),
        ("auto", "my-deployment", None, CHAT), ("auto", "my-deployment", "low", RESPONSES),
        ("chat", "o3", "low", CHAT), ("responses", PLAIN, None, RESPONSES),
    ],
)  # fmt: skip
async def test_which_api_a_conversation_takes(peer, api, model, effort, path) -> None:
    peer.route(CHAT, answer("Hi"))
    peer.route(RESPONSES, streamed(text_item("Hi")))
    async with closing(provider_at(peer, api=api)) as provider:
        options = {"reasoning_effort": effort}
        assert (await provider.generate_completion(model, "x", options=options)).text == "Hi"
    assert [request.path for request in peer.requests] == [path]


async def test_reasoning_goes_back_with_the_calls_that_it_led_to(peer, provider) -> None:
    thought = reasoning_item("Let me see")
    peer.script(
        streamed(thought, call_item("call_1", "weather", '{"city": ', '"Oslo"}', index=1),
                 call_item("call_2", "weather", '{"city": "Rome"}', index=2)),
        streamed(text_item("Cold")),
    )  # fmt: skip
    options = {"tools": [ToolDefinition(name="weather")], "reasoning_effort": "low"}
    question = LLMMessage.user("Weather?")
    response = await provider.generate_chat_completion(REASONING, question, options)
    assert response.finish_reason == "tool_calls"
    assert response.reasoning == "Let me see"
    assert [c.arguments for c in response.tool_calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    results = (LLMMessage.tool(call.id, "3 °C") for call in response.tool_calls)
    history = [question, response.to_message(), *results]
    last = await provider.generate_chat_completion(REASONING, history, options)
    assert last.text == "Cold"
    first, second = (request.json() for request in peer.requests)
    assert first["store"] is False
    assert first["reasoning"] == {"effort": "low", "summary": "auto"}
    kinds = [item.get("type") for item in second["input"]]
    assert kinds == [None, "reasoning", *["function_call"] * 2, *["function_call_output"] * 2]
    assert second["input"][1] == thought[-1]["item"]


async def test_calls_of_tools_on_chat_completions(peer, provider) -> None:
    first = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": '{"a":'}}
    rest = {"index": 0, "function": {"arguments": "1}"}}
    peer.script(
        Reply.sse([chunk(), *({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]}
                              for piece in (first, rest)), chunk(finish="tool_calls"), "[DONE]"]),
        answer("Done"),
    )  # fmt: skip
    tool = ToolDefinition(name="f", parameters={
        "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})  # fmt: skip
    options = {"tools": [tool], "parallel_tool_calls": False}
    response = await provider.generate_chat_completion(None, "x", options)
    (call,) = response.tool_calls
    assert (call.id, call.arguments) == ("call_1", {"a": 1})
    history = [LLMMessage.user("x"), response.to_message(), LLMMessage.tool(call.id, "ok")]
    assert (await provider.generate_chat_completion(None, history, options)).text == "Done"
    first_sent, second_sent = (request.json() for request in peer.requests)
    assert first_sent["parallel_tool_calls"] is False
    assert first_sent["tools"][0]["function"]["strict"] is True
    assert second_sent["messages"][1]["tool_calls"][0]["id"] == "call_1"
    assert second_sent["messages"][2]["tool_call_id"] == "call_1"


async def test_images_and_documents_arrive_on_both_apis(peer, provider) -> None:
    peer.route(CHAT, answer("ok"))
    peer.route(RESPONSES, streamed(text_item("ok")))
    message = LLMMessage.user(
        ImagePart(data=b"\x89PNG", media_type="image/png"),
        FilePart(data=b"%PDF", media_type="application/pdf", filename="a.pdf"),
    )
    for model in (PLAIN, REASONING):
        await provider.generate_chat_completion(model, message)
    chat, responses = (request.json() for request in peer.requests)
    image, document = chat["messages"][0]["content"]
    assert image["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    assert document["file"]["filename"] == "a.pdf"
    image, document = responses["input"][0]["content"]
    assert (image["type"], document["type"]) == ("input_image", "input_file")


async def test_a_limit_of_tokens_has_the_name_that_every_model_takes(peer, provider) -> None:
    peer.route(CHAT, answer("ok"))
    peer.route(RESPONSES, streamed(text_item("ok")))
    for model in (PLAIN, REASONING):
        await provider.generate_completion(model, "x", options={"max_tokens": 50})
    chat, responses = (request.json() for request in peer.requests)
    assert (chat["max_completion_tokens"], "max_tokens" in chat) == (50, False)
    assert responses["max_output_tokens"] == 50


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_sampling_that_reasoning_forbids_is_left_out_and_that_is_said(
    peer, caplog, api
) -> None:
    peer.route(CHAT, answer("ok"))
    peer.route(RESPONSES, streamed(text_item("ok")))
    options = {"temperature": 0.2, "top_p": 0.3}
    async with closing(provider_at(peer, api=api)) as provider:
        with caplog.at_level(logging.DEBUG, "llm_manager.providers.openai"):
            await provider.generate_completion(PLAIN, "x", options=options)
        assert options.items() <= peer.requests[-1].json().items()
        assert not caplog.records
        with caplog.at_level(logging.DEBUG, "llm_manager.providers.openai"):
            await provider.generate_completion("o3", "x", options=options)
    assert not options.keys() & peer.requests[-1].json().keys()
    assert len(caplog.records) == 1
    assert "temperature, top_p" in caplog.text
    assert "o3" in caplog.text


async def test_stop_texts_are_refused_where_the_api_takes_none(peer, provider) -> None:
    with pytest.raises(UnsupportedFeatureError, match="stop"):
        await provider.generate_completion(REASONING, "x", options={"stop": "x"})
    assert peer.requests == []


async def test_a_type_is_asked_for_natively(peer, provider) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    peer.route(CHAT, answer('{"n"', ": 3}"))
    peer.route(RESPONSES, streamed(text_item('{"n": 3}')))
    for model in (PLAIN, REASONING):
        response = await provider.generate_completion(
            model, "x", options={"response_format": schema}
        )
        assert response.parse(dict) == {"n": 3}
    chat, responses = (request.json() for request in peer.requests)
    wanted = {**schema, "additionalProperties": False}
    assert chat["response_format"]["json_schema"]["schema"] == wanted
    assert responses["text"]["format"]["schema"] == wanted


async def test_texts_become_vectors(peer, provider) -> None:
    data = [{"index": place, "embedding": [0.5, place]} for place in (1, 0)]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    peer.script(Reply.json({"object": "list", "data": data, "model": "e", "usage": usage}))
    made = await provider.embed("text-embedding-3-small", ["a", "b"])
    assert made.vectors == ([0.5, 0.0], [0.5, 1.0])
    assert peer.requests[0].path == "/v1/embeddings"


async def test_models_can_be_named_where_the_list_has_others(peer) -> None:
    peer.route("/v1/models", models("gpt-4.1", "o3"))
    async with closing(provider_at(peer, models=["prod", "o3"])) as provider:
        assert [m.id for m in await provider.get_available_models()] == ["prod", "o3"]


# ---- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "text", "kind", "retryable"),
    [
        (400, "invalid_value", "Invalid value", InvalidRequestError, False),
        (400, "context_length_exceeded", "maximum context length is 8192",
         ContextWindowExceededError, False),
        (401, "invalid_api_key", "Incorrect API key", AuthenticationError, False),
        (403, "unsupported_country_region_territory", "not here", PermissionDeniedError, False),
        (404, "model_not_found", "The model `x` does not exist", ModelNotFoundError, False),
        (408, None, "too slow", RequestTimeoutError, True),
        (409, None, "conflict", ProviderAPIError, True),
        (413, None, "Request too large", InvalidRequestError, False),
        (422, None, "Unprocessable", InvalidRequestError, False),
        (429, "rate_limit_exceeded", "Rate limit reached", RateLimitError, True),
        (429, "insufficient_quota", "You exceeded your current quota", QuotaExceededError, False),
        (500, None, "The server had an error", ProviderAPIError, True),
        (503, None, "The engine is currently overloaded", ProviderOverloadedError, True),
        (529, None, "Overloaded", ProviderOverloadedError, True),
    ],
)  # fmt: skip
async def test_every_status_has_its_class(
    peer, provider, status: int, code: str | None, text: str, kind: type[LLMError], retryable: bool
) -> None:
    peer.route(CHAT, failing(status, text, code))
    with pytest.raises(kind) as caught:
        await provider.generate_completion(None, "x", options=ONCE)
    error = caught.value
    assert type(error) is kind
    assert (error.http_status, error.retryable) == (status, retryable)
    assert (error.provider_code, error.provider_request_id) == (code, "req_42")
    assert text in error.message
    assert len(peer.requests) == 1


async def test_a_key_that_is_refused_names_itself_nowhere_and_the_status_says_so(peer) -> None:
    peer.route("/v1/models", failing(401, "Incorrect API key provided", "invalid_api_key"))
    async with closing(provider_at(peer)) as provider:
        with pytest.raises(AuthenticationError):
            await provider.connect()
        assert provider.status.status == "failed"


async def test_an_organisation_without_summaries_is_told_how_to_do_without(peer, provider) -> None:
    text = "Your organization must be verified to generate reasoning summaries."
    peer.script(failing(400, text, "unsupported_value"))
    with pytest.raises(InvalidRequestError) as caught:
        await provider.generate_completion(REASONING, "x")
    assert "reasoning_summary=None" in caught.value.hint
    peer.script(streamed(text_item("Hi")))
    async with closing(provider_at(peer, reasoning_summary=None)) as silent:
        assert (await silent.generate_completion(REASONING, "x")).text == "Hi"
    assert "reasoning" not in peer.requests[-1].json()


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({"retry-after": "7"}, 7.0), ({"retry-after-ms": "250"}, 0.25),
     ({"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"},
      10.0),
     ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m2s"}, 62.0)],
)  # fmt: skip
async def test_a_wait_that_is_asked_for_is_known(peer, provider, headers, wait_s: float) -> None:
    peer.route(CHAT, failing(429, "slow down", "rate_limit_exceeded", **headers))
    with pytest.raises(RateLimitError) as caught:
        await provider.generate_completion(None, "x", options=ONCE)
    assert caught.value.retry_after_s == wait_s


async def test_a_passing_failure_is_repeated_by_our_policy(peer, provider) -> None:
    peer.script(failing(500, "The server had an error"), answer("ok"))
    response = await provider.generate_completion(None, "x")
    assert (response.text, response.timings.attempts) == ("ok", 2)
    assert len(peer.requests) == 2


@pytest.mark.parametrize("model", [PLAIN, REASONING])
async def test_an_error_inside_the_stream_ends_it_with_what_had_arrived(
    peer, provider, model
) -> None:
    problem = {"message": "The server had an error", "code": "server_error"}
    failed = events_of.end("failed", error=problem)
    peer.route(CHAT, Reply.sse([chunk("Hel"), chunk("lo"), {"error": problem}]))
    peer.route(RESPONSES, streamed(text_item("Hel", "lo"), last=failed))
    with pytest.raises(ProviderAPIError) as caught:
        await provider.generate_completion(model, "x")
    assert caught.value.partial.text == "Hello"
    assert len(peer.requests) == 1


@pytest.mark.parametrize("ending", ["complete", "close", "reset", "half_chunk"])
@pytest.mark.parametrize("model", [PLAIN, REASONING])
async def test_a_stream_that_breaks_off_is_interrupted(peer, provider, model, ending: Any) -> None:
    peer.route(CHAT, Reply.sse([chunk("Hel"), chunk("lo")], ending=ending))
    pieces = [one(event) for event in events_of.answer(text_item("Hel", "lo"))][:-3]
    peer.route(RESPONSES, Reply.sse(pieces, ending=ending))
    with pytest.raises(StreamInterruptedError) as caught:
        await provider.generate_completion(model, "x")
    # A reset may overtake what was sent before it.
    assert ending == "reset" or caught.value.partial.text == "Hello"


async def test_a_finish_reason_is_an_end_even_without_the_mark_of_the_end(peer, provider) -> None:
    peer.script(Reply.sse([chunk("Hi"), chunk(finish="stop")]))
    assert (await provider.generate_completion(None, "x")).finish_reason == "stop"


async def test_a_sign_in_page_instead_of_an_answer_is_told_from_an_answer(peer, provider) -> None:
    page = Reply(headers={"content-type": "text/html"},
                 body=[b"<html><title>Sign in to the hotel</title></html>"])  # fmt: skip
    peer.route(CHAT, page)
    peer.route("/v1/models", page)
    for ask in (provider.generate_completion(None, "x", options=ONCE), provider.connect()):
        with pytest.raises(InvalidResponseError, match="Sign in to the hotel") as caught:
            await ask
        assert caught.value.code == "captive_portal"


# ---- stopping ------------------------------------------------------------------------------------


def silent_after(*words: str) -> Reply:
    return Reply.sse([chunk(word) for word in words], ending="hang")


async def test_stop_closes_the_socket_and_keeps_what_had_arrived(peer, provider) -> None:
    peer.route(CHAT, silent_after("Hel", "lo"))
    stream = provider.stream_completion(
        None, "x", callback=lambda e: e.text == "lo" and stream.cancel()
    )
    with pytest.raises(RequestCancelledError) as caught:
        await stream
    await peer.wait_for_disconnect()
    assert caught.value.partial.text == "Hello"


async def test_break_closes_the_socket(peer, provider) -> None:
    peer.route(CHAT, silent_after("Hel"))
    async for _ in provider.stream_completion(None, "x"):
        break
    await peer.wait_for_disconnect()


async def test_stop_before_the_first_byte_closes_the_socket(peer, provider) -> None:
    peer.route(CHAT, Reply(instead="hang"))
    stream = provider.stream_completion(None, "x")
    task = asyncio.ensure_future(stream)
    await peer.wait_for_request()
    stream.cancel()
    with pytest.raises(RequestCancelledError):
        await task
    await peer.wait_for_disconnect()


async def test_cancelling_the_task_closes_the_socket(peer, provider) -> None:
    peer.route(CHAT, silent_after("Hel"))
    task = asyncio.create_task(provider.generate_completion(None, "x"))
    await peer.wait_for_request()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await peer.wait_for_disconnect()


def test_one_provider_works_on_two_event_loops_one_after_the_other() -> None:
    with ScriptedPeer(fallback=answer("Hi")) as peer:
        provider = provider_at(peer)

        async def ask() -> str:
            return (await provider.generate_completion(None, "x")).text

        assert [asyncio.run(ask()), asyncio.run(ask())] == ["Hi", "Hi"]
        asyncio.run(provider.close())
    gc.collect()


# ---- whom it is for ------------------------------------------------------------------------------


async def test_organisation_project_and_headers_arrive(peer) -> None:
    peer.route(CHAT, answer("Hi"))
    settings = {"organization": "org-1", "project": "proj-1", "headers": {"x-team": "a"}}
    async with closing(provider_at(peer, **settings)) as provider:
        await provider.generate_completion(None, "x")
    sent = peer.requests[0].headers
    assert (sent["openai-organization"], sent["openai-project"]) == ("org-1", "proj-1")
    assert sent["x-team"] == "a"


def test_the_environment_names_key_server_organisation_and_project(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example.org/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    provider = OpenAIProvider()
    assert provider.base_url == "https://gateway.example.org/v1"
    assert provider.key_origin == "environment OPENAI_API_KEY"
    assert (provider.organization, provider.project) == ("org-1", "proj-1")


async def test_nothing_of_the_environment_is_sent_elsewhere(peer, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-0123456789")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-other-0123456789")
    peer.route(CHAT, answer("Hi"))
    provider = OpenAIProvider(base_url=f"{peer.base_url}/v1", default_model=PLAIN)
    with pytest.raises(AuthenticationError, match="belongs to another server"):
        await provider.generate_completion(None, "x")
    assert peer.requests == []
    await provider.close()
    async with closing(provider_at(peer, api_key="given-key-1")) as provider:
        await provider.generate_completion(None, "x")
    sent = peer.requests[0].headers
    assert sent["authorization"] == "Bearer given-key-1"
    assert not {"openai-organization", "openai-project"} & set(sent)


async def test_a_ready_client_is_used_as_it_is_and_left_open(peer) -> None:
    import openai

    peer.route(CHAT, answer("Hi"))
    peer.route(RESPONSES, streamed(text_item("Hi")))
    peer.route("/v1/models", models(PLAIN))
    async with openai.AsyncOpenAI(
        api_key="mine-1", base_url=f"{peer.base_url}/v1", max_retries=5, organization="org-2",
        default_headers={"x-team": "b"},
    ) as client:  # fmt: skip
        provider = OpenAIProvider(client=client, default_model=PLAIN, headers={"x-more": "c"})
        await provider.connect()
        for model in (PLAIN, REASONING):
            assert (await provider.generate_completion(model, "x")).text == "Hi"
        await provider.close()
        assert not client.is_closed()
    for sent in (request.headers for request in peer.requests):
        assert (sent["authorization"], sent["openai-organization"]) == ("Bearer mine-1", "org-2")
        assert (sent["x-team"], sent["x-more"]) == ("b", "c")


async def test_only_we_repeat_even_if_the_client_would(peer) -> None:
    import openai

    peer.route(CHAT, failing(503, "busy"))
    async with (
        openai.AsyncOpenAI(
            api_key="mine-1", base_url=f"{peer.base_url}/v1", max_retries=5
        ) as client,
        closing(OpenAIProvider(client=client, default_model=PLAIN)) as provider,
    ):
        with pytest.raises(ProviderOverloadedError) as caught:
            await provider.generate_completion(None, "x", options=ONCE)
    assert caught.value.provider_request_id == "req_42"
    assert len(peer.requests) == 1


async def test_azure_through_its_own_client(peer) -> None:
    import openai

    peer.script(
        Reply.json({"data": [{"id": PLAIN}]}), answer("Hi"), streamed(text_item("Hi")),
    )  # fmt: skip
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=peer.base_url, api_key="azure-key-1", api_version="2026-06-01"
    ) as client:
        provider = OpenAIProvider(client=client, models=["prod"])
        await provider.connect()
        assert [m.id for m in await provider.get_available_models()] == ["prod"]
        assert (await provider.generate_completion("prod", "x")).text == "Hi"
        options = {"reasoning_effort": "low"}
        assert (await provider.generate_completion("prod", "x", options=options)).text == "Hi"
        await provider.close()
    assert [request.path for request in peer.requests] == [
        "/openai/models?api-version=2026-06-01",
        "/openai/deployments/prod/chat/completions?api-version=2026-06-01",
        "/openai/responses?api-version=2026-06-01",
    ]
    assert {request.headers["api-key"] for request in peer.requests} == {"azure-key-1"}


async def test_the_key_of_a_ready_client_shows_in_no_error(peer) -> None:
    import openai

    peer.route(CHAT, Reply.sse([chunk("Hi"), {"error": {"message": "azure-key-1 is no good"}}]))
    async with (
        openai.AsyncOpenAI(api_key="azure-key-1", base_url=f"{peer.base_url}/v1") as client,
        closing(OpenAIProvider(client=client, default_model=PLAIN)) as provider,
    ):
        with pytest.raises(ProviderAPIError) as caught:
            await provider.generate_completion(None, "x", options=ONCE)
    assert "is no good" in str(caught.value)
    assert "azure-key-1" not in repr(vars(caught.value))


async def test_a_client_that_is_closed_is_an_error_of_ours(peer) -> None:
    import openai

    client = openai.AsyncOpenAI(api_key="mine-1", base_url=f"{peer.base_url}/v1")
    await client.close()
    async with closing(OpenAIProvider(client=client, default_model=PLAIN)) as provider:
        with pytest.raises(ProviderConnectionError, match="closed"):
            await provider.generate_completion(None, "x", options=ONCE)
    assert peer.requests == []


# ---- keys and settings ---------------------------------------------------------------------------


async def test_the_key_shows_nowhere(peer, caplog) -> None:
    peer.route(CHAT, failing(401, f"Incorrect API key provided: {KEY}", "invalid_api_key"))
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


async def test_a_coroutine_function_is_asked_for_the_key_at_every_request(peer) -> None:
    peer.route(CHAT, answer("Hi"))
    asked = []

    async def key() -> str:
        await asyncio.sleep(0)
        asked.append(f"key-number-{len(asked)}")
        return asked[-1]

    async with closing(provider_at(peer, api_key=key)) as provider:
        for _ in range(2):
            await provider.generate_completion(None, "x")
            assert peer.requests[-1].headers["authorization"] == f"Bearer {asked[-1]}"
    first, second = peer.requests
    assert first.headers["authorization"] != second.headers["authorization"]


async def test_a_key_function_that_fails_is_an_error_of_ours(peer) -> None:
    def locked() -> str:
        raise RuntimeError("the keyring is locked")

    async with closing(provider_at(peer, api_key=locked)) as provider:
        with pytest.raises(AuthenticationError, match="the keyring is locked") as caught:
            await provider.connect()
    assert caught.value.__context__ is None
    assert peer.requests == []


async def test_without_a_key_nothing_is_sent() -> None:
    provider = OpenAIProvider(default_model=PLAIN)
    with pytest.raises(AuthenticationError) as caught:
        await provider.connect()
    assert caught.value.code == "auth_missing"
    assert "OPENAI_API_KEY" in caught.value.hint
    await provider.close()


def test_settings_that_cannot_work_are_found_at_once() -> None:
    import httpx2
    import openai

    for wrong in (
        {"models": "gpt-5"}, {"api": "assistants"}, {"reasoning_summary": "long"},
        {"client": openai.OpenAI(api_key="x")}, {"client": "sk-x"},
        {"client": httpx2.AsyncClient()},
        {"client": openai.AsyncOpenAI(api_key="x"), "base_url": "https://example.org"},
        {"client": openai.AsyncOpenAI(api_key="x"), "api_key": "y-12345678"},
    ):  # fmt: skip
        with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
            OpenAIProvider(**wrong)
    with pytest.raises(ConfigurationError):
        OpenAIProvider(base_url="ftp://x")
    with pytest.raises(AuthenticationError):
        OpenAIProvider(api_key="a b")


# ---- what is loaded ------------------------------------------------------------------------------

_LOADED = """
import asyncio, sys
from llm_manager import OpenAIProvider
assert "openai" not in sys.modules
from llm_manager.testing import Reply, ScriptedPeer

async def main():
    async with ScriptedPeer(fallback=Reply.json({"data": [{"id": "gpt-5"}]})) as peer:
        provider = OpenAIProvider(base_url=peer.base_url, api_key="k-123456789")
        await provider.connect()
        await provider.close()

asyncio.run(main())
assert "openai" in sys.modules
print(sorted({"anthropic", "torch", "transformers", "litellm"} & set(sys.modules)))
"""

_MISSING = """
import asyncio, sys
sys.modules["openai"] = None
from llm_manager import OpenAIProvider

async def main():
    provider = OpenAIProvider(api_key="k-123456789")
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
    assert said.startswith(f"{DependencyMissingError.__name__} openai failed")
    assert "pip install" in said
