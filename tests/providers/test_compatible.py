"""A server of the OpenAI dialect, over real sockets: status, streams, stopping, healing, keys."""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback

import pytest

from llm_manager import (
    AuthenticationError,
    ConfigurationError,
    DeadlinePolicy,
    GroqProvider,
    InvalidResponseError,
    LLMError,
    LLMProviderManager,
    ModelNotFoundError,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    RateLimitError,
    RequestCancelledError,
    Row,
    StreamInterruptedError,
    Timeouts,
    register_provider,
)
from llm_manager.providers.rows import ROWS
from llm_manager.registry import unregister_kind
from llm_manager.testing import Reply, ScriptedPeer

from ..helpers import QUICK, Record
from .conftest import answer, chunk, models

KEY = "sk-planted-0123456789abcdef"
NO_WAIT = {"retries": {"wait_s": 0.0, "wait_max_s": 0.0}}
CHAT = "/v1/chat/completions"


def provider_at(peer: ScriptedPeer, **settings) -> OpenAICompatibleProvider:
    settings.setdefault("reconnect", QUICK)
    settings.setdefault("default_options", NO_WAIT)
    return OpenAICompatibleProvider(base_url=f"{peer.base_url}/v1", **settings)


async def test_the_main_job_connect_watch_list_and_stream(peer) -> None:
    peer.route("/v1/models", models("small", "large"))
    peer.route(CHAT, answer("Hel", "lo"))
    async with LLMProviderManager() as manager:
        record = Record(manager)
        provider = manager.register_provider(
            "compatible", id="mine", base_url=f"{peer.base_url}/v1", api_key=KEY
        )
        await provider.connect()
        assert [m.id for m in await provider.get_available_models()] == ["small", "large"]
        texts = [e.text async for e in manager.stream_completion("mine/small", "Say hello")]
        assert "".join(texts) == "Hello"
        response = await manager.generate_chat_completion(
            "mine/small", [{"role": "user", "content": "Say hello"}]
        )
        assert (response.text, response.finish_reason) == ("Hello", "stop")
        assert (response.model, response.response_id) == ("small", "chatcmpl-1")
    assert record.statuses == [
        "disconnected", "connecting", "connected", "draining", "disconnected", "closed",
    ]  # fmt: skip
    assert record.outcomes == ["ok", "ok"]
    sent = peer.requests[-1]
    assert sent.headers["Authorization"] == f"Bearer {KEY}"
    assert sent.json()["messages"] == [{"role": "user", "content": "Say hello"}]
    assert len({r.connection for r in peer.requests}) == 1  # one pooled connection for all


# ---- stopping ------------------------------------------------------------------------------------


def silent_after(*words: str) -> Reply:
    return Reply.sse([chunk(w) for w in words], ending="hang")


async def test_stop_closes_the_socket_and_keeps_what_had_arrived(peer) -> None:
    peer.route(CHAT, silent_after("Hel", "lo"))
    provider = provider_at(peer)
    stream = provider.stream_completion(
        "small", "x", callback=lambda e: e.text == "lo" and stream.cancel()
    )
    with pytest.raises(RequestCancelledError) as caught:
        await stream
    await peer.wait_for_disconnect()
    assert caught.value.partial.text == "Hello"
    await provider.close()


async def test_break_closes_the_socket(peer) -> None:
    peer.route(CHAT, silent_after("Hel", "lo"))
    provider = provider_at(peer)
    async for _ in provider.stream_completion("small", "x"):
        break
    await peer.wait_for_disconnect()
    await provider.close()


async def test_stop_before_the_first_byte_closes_the_socket(peer) -> None:
    peer.route(CHAT, Reply(instead="hang"))
    provider = provider_at(peer)
    stream = provider.stream_completion("small", "x")
    task = asyncio.ensure_future(stream)
    await peer.wait_for_request()
    stream.cancel()
    with pytest.raises(RequestCancelledError):
        await task
    await peer.wait_for_disconnect()
    await provider.close()


async def test_cancelling_the_task_of_a_plain_request_closes_the_socket(peer) -> None:
    peer.route(CHAT, silent_after("Hel"))
    provider = provider_at(peer)
    task = asyncio.create_task(provider.generate_completion("small", "x"))
    await peer.wait_for_request()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await peer.wait_for_disconnect()
    await provider.close()


async def test_many_stops_leave_the_pool_usable(peer) -> None:
    provider = provider_at(peer)
    peer.route(CHAT, silent_after("Hel"))
    for _ in range(30):
        async for _ in provider.stream_completion("small", "x"):
            break
    peer.route(CHAT, answer("ok"))
    assert (await provider.generate_completion("small", "x")).text == "ok"
    await provider.close()


# ---- streams that end badly ----------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["close", "reset", "half_chunk"])
async def test_a_connection_that_breaks_is_an_error_with_the_partial_answer(peer, ending) -> None:
    # The reset must not overtake the piece before it.
    peer.route(CHAT, Reply.sse([chunk("Hel"), 0.05], ending=ending))
    provider = provider_at(peer)
    with pytest.raises(StreamInterruptedError) as caught:
        await provider.generate_completion("small", "x")
    assert caught.value.partial.text == "Hel"
    assert len(peer.requests) == 1
    await provider.close()


async def test_an_answer_that_ends_too_early_is_not_taken_for_a_short_one(peer) -> None:
    peer.route(CHAT, Reply.sse([chunk("Hel")]))
    provider = provider_at(peer)
    with pytest.raises(StreamInterruptedError) as caught:
        await provider.generate_completion("small", "x")
    assert caught.value.partial.text == "Hel"
    assert caught.value.partial.finish_reason is None
    await provider.close()


async def test_silence_ends_with_the_partial_answer_in_spite_of_keep_alive_comments(peer) -> None:
    peer.route(CHAT, Reply.sse([chunk("Hel"), *[b": keep-alive\n\n", 0.02] * 50], ending="hang"))
    provider = provider_at(peer, policies=[DeadlinePolicy(Timeouts(idle_s=0.1))])
    # A local server has other limits than the policy; the provider's say what counts here.
    provider.default_options = type(provider.default_options)(timeouts=Timeouts(idle_s=0.1))
    with pytest.raises(StreamInterruptedError, match=r"silent for 0\.1 s") as caught:
        await provider.generate_completion("small", "x")
    assert caught.value.code == "idle_timeout"
    assert caught.value.partial.text == "Hel"
    await peer.wait_for_disconnect()
    await provider.close()


async def test_an_error_inside_a_stream_that_began_well_is_raised_as_what_it_is(peer) -> None:
    error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    peer.route(CHAT, Reply.sse([chunk("Hel"), error]))
    provider = provider_at(peer)
    with pytest.raises(RateLimitError, match="slow down") as caught:
        await provider.generate_completion("small", "x")
    assert caught.value.partial.text == "Hel"
    await provider.close()


async def test_a_page_of_a_captive_portal_is_not_taken_for_a_model_list(peer) -> None:
    page = Reply(body=[b"<html><title>Welcome to the hotel</title></html>"],
                 headers={"content-type": "text/html"})  # fmt: skip
    peer.route("/v1/models", page)
    provider = provider_at(peer)
    with pytest.raises(InvalidResponseError):
        await provider.connect()
    assert (provider.status.status, provider.status.reason) == ("reconnecting", "captive_portal")
    await provider.close()


# ---- retries -------------------------------------------------------------------------------------


async def test_a_busy_server_is_asked_again_and_everybody_can_see_it(peer) -> None:
    peer.script(
        Reply.json({"error": {"message": "busy"}}, status=503),
        Reply.json({"error": "slow"}, status=429, headers={"retry-after-ms": "1"}),
        answer("ok"),
    )
    provider = provider_at(peer)
    record = Record(provider)
    response = await provider.generate_completion("small", "x")
    assert (response.text, response.timings.attempts) == ("ok", 3)
    assert [e.error.http_status for e in record.named("retryScheduled")] == [503, 429]
    assert provider.status.status == "connected"
    await provider.close()


async def test_a_refusal_is_not_repeated(peer) -> None:
    peer.route(CHAT, Reply.json({"error": {"message": "no such model"}}, status=404))
    provider = provider_at(peer)
    with pytest.raises(ModelNotFoundError):
        await provider.generate_completion("large", "x")
    assert len(peer.requests) == 1
    await provider.close()


# ---- status --------------------------------------------------------------------------------------


async def test_a_server_that_restarts_is_found_again_with_its_new_models(peer) -> None:
    peer.route("/v1/models", models("small"))
    provider = provider_at(peer)
    await provider.connect()
    record = Record(provider)
    await peer.stop()
    with pytest.raises(ProviderConnectionError) as caught:
        await provider.generate_completion("small", "x")
    assert caught.value.code in ("refused", "reset")
    await provider.wait_for(lambda s: s.attempt >= 2, 5)
    peer.route("/v1/models", models("small", "large"))
    await peer.start()
    await provider.wait_for("connected", 5)
    assert record.statuses == ["reconnecting", "connected"]
    assert record.named("modelsChanged")[-1].added == ("large",)
    await provider.close()


async def test_a_connection_closed_while_idle_is_replaced_without_a_word(peer) -> None:
    peer.route(CHAT, answer("ok"))
    provider = provider_at(peer)
    record = Record(provider)
    await provider.generate_completion("small", "x")
    await peer.close_idle_connections()
    assert (await provider.generate_completion("small", "x")).text == "ok"
    assert record.named("retryScheduled") == []
    assert record.statuses == ["connecting", "connected"]
    assert peer.connections_opened == 2
    await provider.close()


@pytest.mark.parametrize(
    ("reply", "status", "reason"),
    [
        (Reply.json({"error": {"message": "bad key"}}, status=401), "failed", "auth_invalid"),
        (Reply.json({"error": {"message": "not yours"}}, status=403), "failed", "forbidden"),
        (Reply.json({"error": {"message": "pay"}}, status=402), "failed", "quota_exhausted"),
        (Reply.json({"detail": "Not Found"}, status=404), "failed", "invalid_config"),
        (Reply.json({"error": "oops"}, status=500), "reconnecting", "server_error"),
        (Reply.json({"error": "busy"}, status=503), "reconnecting", "overloaded"),
        (Reply.json({}, status=429, headers={"retry-after": "30"}), "degraded", "rate_limited"),
        (Reply(status=301, headers={"location": "http://x/"}), "failed", "invalid_config"),
        (Reply(status=302, headers={"location": "http://x/"}), "reconnecting", "captive_portal"),
        (Reply(instead="close"), "reconnecting", "reset"),
        (Reply(instead="reset"), "reconnecting", "reset"),
        (models(), "degraded", "no_models"),
    ],
)
async def test_what_the_model_list_answers_decides_the_status(peer, reply, status, reason) -> None:
    peer.route("/v1/models", reply)
    provider = provider_at(peer)
    try:
        await provider.connect()
    except LLMError:
        assert status in ("failed", "reconnecting")
    else:
        assert status == "degraded"
    assert (provider.status.status, provider.status.reason) == (status, reason)
    await provider.close()


async def test_a_server_that_is_not_there_is_refused_with_a_hint_about_it(peer) -> None:
    url = f"{peer.base_url}/v1"
    await peer.stop()
    provider = OpenAICompatibleProvider(base_url=url, reconnect=QUICK)
    with pytest.raises(ProviderConnectionError) as caught:
        await provider.connect()
    assert caught.value.code == "refused"
    assert (provider.status.status, provider.status.reason) == ("reconnecting", "refused")
    await provider.close()


async def test_a_server_without_a_model_list_is_proven_without_a_billed_request(peer) -> None:
    row = Row(id="listless", name="Listless", models_path=None, models=("sonar",))
    peer.script(
        Reply.json({"error": {"message": "invalid body"}}, status=422),
        Reply.json({"error": {"message": "who are you?"}}, status=401),
    )
    provider = provider_at(peer, row=row, api_key=KEY)
    await provider.connect()
    assert provider.status.status == "connected"
    assert [m.id for m in await provider.get_available_models()] == ["sonar"]
    assert peer.requests[0].body == b"[]"
    with pytest.raises(AuthenticationError):
        await provider_at(peer, row=row, api_key="wrong").connect()
    await provider.close()


def test_one_provider_serves_loop_after_loop() -> None:
    with ScriptedPeer() as peer:
        peer.route(CHAT, answer("ok"))
        provider = provider_at(peer)
        for _ in range(10):
            response = asyncio.run(provider.generate_completion("small", "x"))
            assert response.text == "ok"
        asyncio.run(provider.close())


async def test_disconnecting_while_a_connection_opens_leaves_no_socket(peer) -> None:
    peer.route("/v1/models", models("small"))
    for steps in range(0, 40, 2):
        provider = provider_at(peer)
        task = asyncio.ensure_future(provider.get_available_models())
        for _ in range(steps):
            await asyncio.sleep(0)
        await provider.close(0)
        await asyncio.gather(task, return_exceptions=True)
    await peer.wait_for_disconnect(peer.connections_opened)
    assert peer.open_connections == 0


# ---- keys and addresses --------------------------------------------------------------------------


async def test_a_missing_key_fails_with_the_name_of_the_variable_and_sends_nothing() -> None:
    provider = GroqProvider()
    with pytest.raises(AuthenticationError, match="set GROQ_API_KEY"):
        await provider.connect()
    assert (provider.status.status, provider.status.reason) == ("failed", "auth_missing")


async def test_a_key_from_the_environment_is_not_sent_to_another_server(peer, monkeypatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    peer.route("/v1/models", models("small"))
    elsewhere = GroqProvider(base_url=f"{peer.base_url}/v1", reconnect=QUICK)
    with pytest.raises(
        AuthenticationError, match="the key in GROQ_API_KEY belongs to another server"
    ):
        await elsewhere.connect()
    assert peer.requests == []
    # Whoever sets both variables, or passes the key, has said where it belongs.
    monkeypatch.setenv("GROQ_BASE_URL", f"{peer.base_url}/v1")
    async with GroqProvider(id="groq2"):
        assert peer.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_key_added_later_is_used_by_the_next_attempt(peer, monkeypatch) -> None:
    peer.route("/v1/models", models("small"))
    monkeypatch.setenv("GROQ_BASE_URL", f"{peer.base_url}/v1")
    provider = GroqProvider()
    with pytest.raises(AuthenticationError):
        await provider.connect()
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    await provider.connect()
    assert provider.status.status == "connected"
    await provider.close()


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({}, ConfigurationError, "no base_url"),
        ({"base_url": "localhost:8080"}, ConfigurationError, "did you mean 'http://localhost:8080"),
        ({"base_url": "http://127.0.0.1:1/v1", "api_key": f"{KEY}\n{KEY}"},
         AuthenticationError, "a line break"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_at_once(settings, error, text) -> None:
    with pytest.raises(error, match=text) as caught:
        OpenAICompatibleProvider(**settings)
    assert KEY not in str(caught.value)


async def test_a_readable_key_is_warned_about(caplog) -> None:
    caplog.set_level(logging.WARNING)
    provider = OpenAICompatibleProvider(base_url="http://192.0.2.1:9/v1", api_key=KEY)
    await provider._open()
    assert "unencrypted to 192.0.2.1" in caplog.text
    await provider._close()


async def test_the_key_is_in_no_event_error_repr_log_or_pickle(peer, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    echoed = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
    peer.route("/v1/models", Reply.json(echoed, status=401))
    peer.route(CHAT, Reply.sse([chunk("Hel"), echoed]))
    provider = provider_at(peer, api_key=KEY)
    record = Record(provider)
    shown = []
    for work in (provider.connect(), provider.generate_completion("small", "x")):
        try:
            await work
        except LLMError as error:
            shown += [str(error), repr(error), repr(vars(error)), str(error.original)]
            shown += traceback.format_exception(error)
            shown.append(pickle.dumps(error).decode("latin-1"))
            chained = [error.__cause__, error.__context__]
    shown += [repr(provider), repr(vars(provider)), repr(provider.status), caplog.text]
    shown += [repr(event) + repr(event.to_dict()) for event in record]
    assert len(shown) > 12
    # A vendor's exception holds its request, and that the key.
    assert [e for e in chained if e is not None and not isinstance(e, LLMError)] == []
    assert [text for text in shown if KEY in text] == []
    await provider.close()


# ---- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda r: r.id)
def test_every_row_makes_a_provider(row, monkeypatch) -> None:
    settings = {"base_url": "http://127.0.0.1:1/v1"} if row.base_url is None else {}
    manager = LLMProviderManager()
    provider = manager.register_provider(row.id, **settings)
    assert (provider.id, provider.kind, provider.name) == (row.id, row.id, row.name)
    assert provider.is_local == (row.base_url is None or row.local)
    assert provider.base_url.startswith("https://" if not provider.is_local else "http://127.")
    assert row.key_required == (not provider.is_local)


async def test_a_row_of_ones_own_is_a_kind(peer, monkeypatch) -> None:
    from llm_manager.wire.openai_chat import ChatDialect

    register_provider(
        "acme",
        Row(
            id="acme",
            name="Acme",
            base_url=f"{peer.base_url}/v1",
            key_variables=("ACME_API_KEY",),
            dialect=ChatDialect(max_tokens_name="max_completion_tokens"),
            headers={"x-acme": "1"},
        ),
    )
    try:
        monkeypatch.setenv("ACME_API_KEY", KEY)
        peer.route(CHAT, answer("ok"))
        async with LLMProviderManager() as manager:
            manager.register_provider("acme")
            await manager.generate_completion("acme/m", "x", options={"max_tokens": 7})
        (sent,) = peer.requests
        assert sent.json()["max_completion_tokens"] == 7
        assert "max_tokens" not in sent.json()
        assert (sent.headers["x-acme"], sent.headers["authorization"]) == ("1", f"Bearer {KEY}")
    finally:
        unregister_kind("acme")


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("HTTPS_PROXY", "socks://127.0.0.1:1080", "socks"),
        ("HTTPS_PROXY", "http://user:pa55w0rd@:0:0", "HTTPS_PROXY"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "/nowhere/ca.pem"),
    ],
)
async def test_a_broken_environment_is_a_status_with_a_hint_not_a_crash(
    monkeypatch, variable, value, text
) -> None:
    monkeypatch.setenv(variable, value)
    provider = OpenAICompatibleProvider(base_url="https://192.0.2.1/v1")
    with pytest.raises(LLMError) as caught:
        await provider.connect()
    state = provider.status
    assert (state.status, state.reason) in (
        ("failed", "invalid_config"),
        ("failed", "dependency_missing"),
    )
    assert text in str(caught.value)
    assert state.error.hint
    assert "pa55w0rd" not in str(caught.value)


async def test_a_server_that_dies_while_it_answers_is_missed_without_another_request(
    peer: ScriptedPeer,
) -> None:
    peer.route("/models", models("small"))
    peer.route("/chat/completions", Reply.sse([chunk("Hel")], ending="close"))
    async with OpenAICompatibleProvider(base_url=peer.base_url) as provider:
        peer.route("/models", Reply(instead="reset"))
        with pytest.raises(StreamInterruptedError):
            await provider.generate_completion("small", "hi")
        await provider.wait_for("reconnecting", timeout_s=5)


async def test_a_key_that_the_server_repeats_in_a_model_list_shows_nowhere(
    peer: ScriptedPeer,
) -> None:
    key = "hunter-two-planted"  # without the shape of a key
    peer.route("/models", Reply.json({"error": {"message": f"{key} is not welcome", "code": 401}}))
    provider = OpenAICompatibleProvider(base_url=peer.base_url, api_key=key, reconnect=QUICK)
    record = Record(provider)
    with pytest.raises(LLMError, match="is not welcome") as raised:
        await provider.connect()
    with pytest.raises(LLMError) as listed:
        await provider.get_available_models(refresh=True)
    await provider.flush()
    seen = f"{raised.value!r} {listed.value!r} {provider.status!r} {list(record)!r}"
    assert "is not welcome" in seen
    assert key not in seen
    await provider.close()
