"""The hard cases of settings that change: what belongs to the old ones never touches the new."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llm_manager import (
    AuthenticationError,
    Backoff,
    ConfigurationError,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    run_sync,
)
from llm_manager.testing import EventRecorder, Reply, ScriptedPeer
from llm_manager.testing.peer import Request, Step

CHAT = "/v1/chat/completions"
ONCE = {"retries": {"attempts": 1}}


def chunk(text: str | None = None, finish: str | None = None) -> dict[str, object]:
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def answer(*steps: str | asyncio.Event) -> Reply:
    """An answer in pieces, with an event to wait for where one stands between them."""
    pieces = [chunk(step) if isinstance(step, str) else step for step in steps]
    return Reply.sse([*pieces, chunk(finish="stop"), "[DONE]"])


def refusal(*before: Step) -> Reply:
    """A 401, which nothing is heard of before these steps were taken."""
    head = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    return Reply(framing="raw", body=[*before, head])


def key_of(request: Request) -> str:
    return request.headers["Authorization"].removeprefix("Bearer ")


def provider_at(peer: ScriptedPeer, **settings) -> OpenAICompatibleProvider:
    peer.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
    return OpenAICompatibleProvider(base_url=f"{peer.base_url}/v1", **settings)


async def test_a_late_refusal_of_the_old_key_does_not_touch_the_new_one() -> None:
    async with ScriptedPeer() as peer:
        late = asyncio.Event()
        provider = provider_at(peer, api_key="old")
        await provider.connect()
        peer.route(CHAT, refusal(late))
        request = asyncio.create_task(provider.generate_completion("m", "Hi"))
        await peer.wait_for_request(2)
        await provider.update_config(api_key="new")
        await provider.wait_for("connected")
        record = EventRecorder(provider)
        before = provider._machine.stale_evidence
        late.set()
        with pytest.raises(AuthenticationError):
            await request
        assert provider._machine.stale_evidence == before + 1
        assert record.statuses == []
        assert (provider.status.status, provider.status.error) == ("connected", None)
        await provider.close()


class NotesItsEnds(OpenAICompatibleProvider):
    """Notes with which key it was opened each time that it is closed."""

    closed: list[str]

    async def _close(self) -> None:
        self.closed.append(str(self._given[1]["api_key"]))
        await super()._close()


async def test_five_answers_end_on_the_old_client_which_is_closed_once_after_the_last() -> None:
    async with ScriptedPeer() as peer:
        gates = [asyncio.Event() for _ in range(5)]
        peer.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
        peer.route(CHAT, lambda request: answer("Hel", gates.pop(), "lo") if gates else answer("."))
        waiting = list(gates)
        provider = NotesItsEnds(base_url=f"{peer.base_url}/v1", api_key="old")
        closed = provider.closed = []
        await provider.connect()
        heard = [asyncio.Event() for _ in range(5)]
        answers = [
            asyncio.ensure_future(
                provider.stream_completion("m", "Hi", callback=lambda _, e=event: e.set())
            )
            for event in heard
        ]
        await asyncio.gather(*(event.wait() for event in heard))
        await provider.update_config(api_key="new")
        await provider.wait_for("connected")
        assert (await provider.generate_completion("m", "Hi")).text == "."
        assert key_of(peer.requests[-1]) == "new"
        for gate, running in zip(reversed(waiting), answers, strict=True):
            assert closed == []
            gate.set()
            assert (await running).text == "Hello"
        while not closed:
            await asyncio.sleep(0)
        assert len(closed) == 1
        await provider.close()
        assert len(closed) == 2  # and the new one, once


async def test_a_key_function_is_asked_once_more_and_a_key_that_is_set_is_tried_by_itself() -> None:
    key = "stale"

    def chat(request: Request) -> Reply:
        nonlocal key
        if key_of(request) == "stale":
            key = "fresh"  # somebody has just put it where the function looks
            return refusal()
        return answer("Hi") if key_of(request) in ("fresh", "set") else refusal()

    async with ScriptedPeer() as peer:
        peer.route(CHAT, chat)
        provider = provider_at(peer, api_key=lambda: key)
        record = EventRecorder(provider)
        assert (await provider.generate_completion("m", "Hi")).text == "Hi"
        assert [key_of(r) for r in peer.requests] == ["stale", "fresh"]
        assert len(record.named("retryScheduled")) == 1

        # From now on the function knows none that is accepted.
        key = "revoked"
        peer.route("/v1/models", lambda request: refusal())
        with pytest.raises(AuthenticationError):
            await provider.generate_completion("m", "Hi")
        assert [key_of(r) for r in peer.requests if r.path == CHAT][2:] == ["revoked", "revoked"]
        state = await provider.wait_for("failed")
        assert state.reason == "auth_invalid"

        peer.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
        seen = len(record.statuses)
        await provider.update_config(api_key="set")
        await provider.wait_for("connected")
        assert record.statuses[seen:] == ["connecting", "connected"]
        await provider.close()


async def test_a_key_does_not_follow_to_another_server() -> None:
    async with ScriptedPeer() as peer, ScriptedPeer() as other:
        other.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
        elsewhere = f"{other.base_url}/v1".replace("127.0.0.1", "localhost")
        provider = provider_at(peer, api_key="for-the-first")
        await provider.connect()
        with pytest.raises(ConfigurationError, match="api_key belongs to"):
            await provider.update_config(base_url=elsewhere)
        assert (provider.status.status, provider.config_revision) == ("connected", 1)
        assert other.requests == []
        await provider.update_config(base_url=elsewhere, api_key="for-the-second")
        await provider.wait_for("connected")
        assert {key_of(request) for request in other.requests} == {"for-the-second"}
        await provider.close()


async def test_five_threads_that_meet_the_same_error_lose_the_connection_once() -> None:
    with ScriptedPeer(fallback=Reply(instead="close")) as peer:
        provider = provider_at(peer, api_key="k", reconnect=Backoff(first_s=60))
        await provider.connect()
        record = EventRecorder(provider)
        epoch = provider.status.epoch
        peer.route("/v1/models", Reply(instead="close"))
        ready, errors = threading.Barrier(5), []

        def ask() -> None:
            ready.wait(10)
            try:
                run_sync(provider.generate_completion("m", "Hi", options=ONCE))
            except ProviderConnectionError as error:
                errors.append(error.code)

        await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(5)))
        assert errors == ["reset"] * 5
        await provider.wait_for(lambda now: now.attempt == 1)
        assert record.statuses == ["reconnecting"]
        assert provider.status.epoch == epoch
        assert len(record.named("reconnectScheduled")) == 1
        await provider.close()


async def test_a_key_does_not_follow_to_another_port_of_the_same_host() -> None:
    provider = OpenAICompatibleProvider(base_url="http://127.0.0.1:9/v1", api_key="one-key-12345")
    with pytest.raises(ConfigurationError, match=r"belongs to 127\.0\.0\.1:9"):
        await provider.update_config(base_url="http://127.0.0.1:10/v1")
    assert provider.base_url == "http://127.0.0.1:9/v1"
    await provider.update_config(base_url="http://127.0.0.1:10/v1", api_key="other-key-12345")
    assert provider.base_url == "http://127.0.0.1:10/v1"
    await provider.close()
