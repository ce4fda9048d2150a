"""Sending through the official SDKs: what arrives, what comes back, what never gets out."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_manager import (
    AuthenticationError,
    ConfigurationError,
    DependencyMissingError,
    InvalidParameterError,
    LLMError,
    ProviderAPIError,
    ProviderConnectionError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from llm_manager.testing import Reply, ScriptedPeer
from llm_manager.transport.sdk import SdkTransport, address_of

pytest.importorskip("openai")
pytest.importorskip("anthropic")

KEY = "planted-key-0123456789abcdef"
BODY = b'{"model": "m",  "messages": []}'
CLASSES = {"openai": "AsyncOpenAI", "anthropic": "AsyncAnthropic"}


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer() as peer:
        yield peer


@pytest.fixture(params=sorted(CLASSES))
async def transport(request, peer: ScriptedPeer) -> AsyncIterator[SdkTransport]:
    transport = transport_to(peer.base_url, request.param)
    yield transport
    await transport.aclose()


def transport_to(base_url: str, library: str = "openai", **more: Any) -> SdkTransport:
    def new_client(sdk: Any, http_client: Any) -> Any:
        kind = getattr(sdk, CLASSES[library])
        return kind(api_key=KEY, base_url=base_url, http_client=http_client)

    more.setdefault("new_client", new_client)
    return SdkTransport(library, base_url, secrets=lambda: (KEY,), **more)


def ready_client(peer: ScriptedPeer, library: str) -> Any:
    import anthropic
    import openai

    kind = getattr({"openai": openai, "anthropic": anthropic}[library], CLASSES[library])
    return kind(api_key=KEY, base_url=peer.base_url, max_retries=5)


async def failure_of(awaitable: Any, kind: type[LLMError]) -> LLMError:
    with pytest.raises(kind) as caught:
        await awaitable
    return caught.value


# ---- what arrives and comes back -----------------------------------------------------------------


async def test_our_bytes_are_sent_as_they_are(peer, transport) -> None:
    peer.script(Reply.json({"ok": True}))
    assert await transport.post("/ask", BODY, timeout_s=5) == b'{"ok": true}'
    (sent,) = peer.requests
    assert (sent.method, sent.path, sent.body) == ("POST", "/ask", BODY)
    assert sent.headers["content-type"] == "application/json"
    assert KEY in " ".join(sent.headers.values())


async def test_bytes_come_back_as_they_are_and_piece_by_piece(peer, transport) -> None:
    more = asyncio.Event()
    peer.script(Reply(body=[b"one \xff", more, b"\r\ntwo"], framing="chunked"))
    received = []
    async for piece in transport.stream("/ask", BODY):
        received.append(piece)
        more.set()
    assert received == [b"one \xff", b"\r\ntwo"]
    assert peer.requests[0].headers["accept-encoding"] == "identity"


async def test_a_question_mark_and_what_follows_it_stay_with_the_path(peer, transport) -> None:
    peer.script(Reply.json([]))
    assert await transport.get("/list?limit=5&after=a%20b", timeout_s=5) == b"[]"
    assert peer.requests[0].path == "/list?limit=5&after=a%20b"
    assert peer.requests[0].body == b""


async def test_leaving_a_stream_closes_its_connection(peer, transport) -> None:
    peer.script(Reply(body=[b"one"], framing="chunked", ending="hang"))
    pieces = transport.stream("/ask", BODY)
    assert await anext(pieces) == b"one"
    await pieces.aclose()
    await peer.wait_for_disconnect()


async def test_requests_share_connections(peer, transport) -> None:
    peer.script(*[Reply.json({})] * 3)
    for _ in range(3):
        await transport.get("/list", timeout_s=5)
    assert peer.connections_opened == 1


def test_loops_in_several_threads_each_have_their_own_connections() -> None:
    with ScriptedPeer(fallback=Reply.json({"ok": True})) as peer:
        transport, answers = transport_to(peer.base_url), []

        async def ask() -> None:
            answers.extend([await transport.get("/list", timeout_s=10) for _ in range(2)])

        threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [b'{"ok": true}'] * 6
        assert peer.connections_opened == 3
        asyncio.run(transport.aclose())


@pytest.mark.parametrize("library", sorted(CLASSES))
async def test_a_ready_client_sends_the_same_and_is_not_closed(peer, library) -> None:
    peer.script(Reply.json({"ok": True}))
    async with ready_client(peer, library) as client:
        transport = transport_to(peer.base_url, library, client=client)
        assert await transport.post("/ask", BODY, timeout_s=5) == b'{"ok": true}'
        await transport.aclose()
        assert not client.is_closed()
    assert peer.requests[0].json() == {"model": "m", "messages": []}


# ---- what goes wrong -----------------------------------------------------------------------------


async def test_an_answer_that_says_no_is_our_error_and_is_not_repeated(peer, transport) -> None:
    said = Reply.json({"error": {"message": f"wrong key {KEY}"}}, status=401,
                      headers={"x-should-retry": "true"})  # fmt: skip
    peer.route("/ask", said)
    error = await failure_of(transport.post("/ask", BODY, timeout_s=5), AuthenticationError)
    assert "wrong key ***" in error.message
    assert len(peer.requests) == 1


async def test_no_frame_of_the_sdk_or_its_library_hangs_on_an_error(peer, transport) -> None:
    # A request on a used connection that closes is sent once more, on a new one.
    peer.script(Reply.json({}, status=500), Reply(instead="close"), Reply(instead="close"))
    for kind in (ProviderAPIError, ProviderConnectionError):
        error = await failure_of(transport.post("/ask", BODY, timeout_s=5), kind)
        places = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
        assert not [place for place in places if "site-packages" in place]
        assert (error.__cause__, error.__context__) == (None, None)


async def test_an_error_whose_body_breaks_off_is_still_that_error(peer, transport) -> None:
    half = Reply(status=401, body=[b'{"error": {"message": "wro'], ending="close")
    peer.script(half)
    error = await failure_of(transport.post("/ask", BODY, timeout_s=5), AuthenticationError)
    assert error.http_status == 401


async def test_an_error_with_an_endless_body_is_not_waited_for(peer, transport) -> None:
    peer.script(Reply(status=500, body=[b"no"], framing="chunked", ending="hang"))
    pieces = transport.stream("/ask", BODY)
    error = await failure_of(anext(pieces), ProviderAPIError)
    assert error.http_status == 500
    await peer.wait_for_disconnect()


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("library", sorted(CLASSES))
async def test_a_redirect_is_not_followed(peer, library, given: bool) -> None:
    peer.script(Reply(status=307, headers={"location": "http://127.0.0.1:9/elsewhere"}))
    client = ready_client(peer, library) if given else None
    transport = transport_to(peer.base_url, library, client=client)
    error = await failure_of(transport.post("/ask", BODY, timeout_s=5), ProviderAPIError)
    assert error.code == "redirected"
    assert len(peer.requests) == 1
    await transport.aclose()
    if client is not None:
        await client.close()


async def test_nobody_there_is_said_in_our_words(peer, transport) -> None:
    await peer.stop()
    error = await failure_of(transport.get("/list", timeout_s=5), ProviderConnectionError)
    assert (error.code, error.retryable) == ("refused", True)
    await peer.start()


@pytest.mark.parametrize("library", sorted(CLASSES))
async def test_nobody_there_is_said_in_our_words_for_a_ready_client_too(peer, library) -> None:
    await peer.stop()
    async with ready_client(peer, library) as client:
        transport = transport_to(peer.base_url, library, client=client)
        error = await failure_of(transport.get("/list", timeout_s=5), ProviderConnectionError)
    assert error.code == "refused"
    await peer.start()


async def test_an_answer_that_breaks_off_is_interrupted(peer, transport) -> None:
    peer.script(Reply(body=[b"one"], framing="chunked", ending="half_chunk"))
    pieces = transport.stream("/ask", BODY)
    assert await anext(pieces) == b"one"
    await failure_of(_read_on(pieces), StreamInterruptedError)


async def _read_on(pieces: Any) -> None:
    async for _ in pieces:
        pass


async def test_an_answer_that_does_not_come_is_given_up(peer, transport) -> None:
    peer.script(Reply(instead="hang"))
    error = await failure_of(transport.get("/list", timeout_s=0.1), RequestTimeoutError)
    assert "0.1 s" in error.message
    await peer.wait_for_disconnect()


async def test_after_the_end_nothing_is_sent(peer, transport) -> None:
    await transport.open()
    await transport.aclose()
    error = await failure_of(transport.get("/list", timeout_s=5), ProviderConnectionError)
    assert error.code == "closed"
    assert peer.requests == []


async def test_what_cannot_be_asked_for_is_found_before_sending(peer) -> None:
    def broken(sdk: Any, http_client: Any) -> Any:
        raise ValueError(f"no client with {KEY}")

    transport = transport_to(peer.base_url, new_client=broken)
    error = await failure_of(transport.get("/list", timeout_s=5), ConfigurationError)
    assert error.original == "builtins.ValueError: no client with ***"
    await transport.aclose()


async def test_a_library_that_is_not_there_is_named_with_its_extra() -> None:
    transport = SdkTransport("no_such_sdk", "http://127.0.0.1:9", new_client=lambda *_: None)
    error = await failure_of(transport.open(), DependencyMissingError)
    assert isinstance(error, DependencyMissingError)
    assert error.extra == "no_such_sdk"
    assert error.__context__ is None


def test_only_an_asynchronous_client_of_the_sdk_is_one() -> None:
    import anthropic
    import openai

    address = "http://127.0.0.1:9/v1/"
    assert address_of(openai.AsyncOpenAI(api_key="x", base_url=address), "openai") == address
    for wrong in (openai.OpenAI(api_key="x"), anthropic.AsyncAnthropic(api_key="x"), "sk-x"):
        with pytest.raises(InvalidParameterError, match="asynchronous client"):
            address_of(wrong, "openai")
