"""The scripted peer plays what it is told, byte for byte, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from llm_manager.testing import Reply, Request, ScriptedPeer

GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-Name: value\r\n\r\n"


@asynccontextmanager
async def connected(peer: ScriptedPeer):
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(peer.base_url).port)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


async def exchange(peer: ScriptedPeer, request: bytes = GET) -> bytes:
    """All bytes that come back for ``request``, until the peer closes the connection."""
    async with connected(peer) as (reader, writer):
        writer.write(request)
        return await reader.read()


def post(body: bytes) -> bytes:
    return b"POST /p HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


CLOSE = {"connection": "close"}


@pytest.mark.parametrize(
    ("reply", "head", "body"),
    [
        (Reply(headers=CLOSE, body=[b"ab", b"c"]), b"content-length: 3", b"abc"),
        (
            Reply(headers=CLOSE, body=[b"ab", b"c"], framing="chunked"),
            b"transfer-encoding: chunked",
            b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ),
        (Reply(body=[b"ab", b"c"], framing="close"), b"connection: close", b"abc"),
        (
            Reply(body=[b"ab"], framing="chunked", ending="close"),
            b"transfer-encoding: chunked",
            b"2\r\nab\r\n",
        ),
        (
            Reply(body=[b"ab"], framing="chunked", ending="half_chunk"),
            b"transfer-encoding: chunked",
            b"2\r\nab\r\nff\r\nhalf",
        ),
        (Reply(body=[b"ab"], ending="close"), b"content-length: 3", b"ab"),
    ],
)
@pytest.mark.parametrize("write_size", [None, 1])
async def test_the_framing_of_an_answer_is_as_scripted(reply, head, body, write_size) -> None:
    async with ScriptedPeer() as peer:
        peer.route("/a", Reply(**{**fields(reply), "write_size": write_size}))
        got_head, _, got_body = (await exchange(peer)).partition(b"\r\n\r\n")
    assert got_head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head in got_head
    assert got_body == body


def fields(reply: Reply) -> dict:
    return {name: getattr(reply, name) for name in reply.__dataclass_fields__}


async def test_raw_bytes_are_sent_without_a_head() -> None:
    async with ScriptedPeer() as peer:
        peer.script(Reply(framing="raw", body=[b"HTTP/1.1 2"]))
        assert await exchange(peer) == b"HTTP/1.1 2"


async def test_a_peer_can_close_without_an_answer() -> None:
    async with ScriptedPeer() as peer:
        peer.script(Reply(instead="close"))
        assert await exchange(peer) == b""


async def test_a_peer_can_reset_instead_of_answering() -> None:
    async with ScriptedPeer() as peer:
        peer.script(Reply(instead="reset"))
        with pytest.raises(ConnectionResetError):
            await exchange(peer)


async def test_a_peer_can_reset_in_the_middle_of_an_answer() -> None:
    seen = asyncio.Event()
    async with ScriptedPeer() as peer, connected(peer) as (reader, writer):
        peer.script(Reply(framing="chunked", body=[b"ab", seen], ending="reset"))
        writer.write(GET)
        assert (await reader.readuntil(b"ab\r\n")).endswith(b"2\r\nab\r\n")
        seen.set()
        with pytest.raises(ConnectionResetError):
            await reader.read()


@pytest.mark.parametrize(
    "reply", [Reply(instead="hang"), Reply(framing="chunked", body=[b"a"], ending="hang")]
)
async def test_a_silent_connection_stays_open_until_the_client_leaves(reply) -> None:
    async with ScriptedPeer() as peer:
        peer.script(reply)
        async with connected(peer) as (_, writer):
            writer.write(GET)
            await peer.wait_for_request()
            assert peer.open_connections == 1
        assert await peer.wait_for_disconnect() == 1
        assert peer.open_connections == 0


async def test_an_event_holds_an_answer_back() -> None:
    gate = asyncio.Event()
    async with ScriptedPeer() as peer, connected(peer) as (reader, writer):
        peer.script(Reply.sse([{"n": 1}, gate, 0.0, "[DONE]"]))
        writer.write(GET)
        first = await reader.readuntil(b'data: {"n": 1}\n\n\r\n')
        assert b"[DONE]" not in first
        gate.set()
        assert b"data: [DONE]" in await reader.readuntil(b"0\r\n\r\n")


async def test_json_lines_are_one_object_per_line() -> None:
    async with ScriptedPeer() as peer:
        peer.script(Reply.ndjson([{"a": 1}, {"done": True}], framing="close"))
        head, _, body = (await exchange(peer)).partition(b"\r\n\r\n")
    assert b"content-type: application/x-ndjson" in head
    assert [json.loads(line) for line in body.splitlines()] == [{"a": 1}, {"done": True}]


async def test_requests_are_recorded_with_their_connection() -> None:
    async with ScriptedPeer() as peer:
        peer.script(Reply.json({}), Reply.json({}, headers=CLOSE))
        async with connected(peer) as (reader, writer):
            writer.write(GET)
            await reader.readuntil(b"{}")
            writer.write(post(b'{"model": "m"}'))
            await reader.read()
        peer.script(Reply.json({}, headers=CLOSE))
        await exchange(peer)
    first, second, third = peer.requests
    assert (first.method, first.path, first.body) == ("GET", "/a?b=c", b"")
    assert first.headers["x-name"] == first.headers["X-NAME"] == "value"
    assert second.json() == {"model": "m"}
    assert [first.connection, second.connection, third.connection] == [1, 1, 2]
    assert peer.connections_opened == 2


async def test_a_request_may_arrive_in_any_pieces_and_before_the_last_answer() -> None:
    async with ScriptedPeer(fallback=Reply.json({})) as peer, connected(peer) as (_, writer):
        for byte in post(b"first") + post(b"second"):
            writer.write(bytes([byte]))
            await writer.drain()
        await peer.wait_for_request(2)
        assert [request.body for request in peer.requests] == [b"first", b"second"]


async def test_routes_come_before_the_script_and_the_script_before_the_fallback() -> None:
    async with ScriptedPeer(fallback=Reply(status=418, headers=CLOSE)) as peer:
        peer.route("/a", lambda request: Reply.json({"path": request.path}, headers=CLOSE))
        peer.script(Reply(status=429, headers=CLOSE))
        other = GET.replace(b"/a?b=c", b"/other")
        answers = [await exchange(peer, each) for each in (GET, other, GET, other)]
    assert [answer.split()[1] for answer in answers] == [b"200", b"429", b"200", b"418"]
    assert b'{"path": "/a?b=c"}' in answers[0]


async def test_several_connections_are_served_at_once() -> None:
    gate = asyncio.Event()
    async with ScriptedPeer(fallback=Reply(body=[gate, b"x"], headers=CLOSE)) as peer:
        clients = [asyncio.create_task(exchange(peer)) for _ in range(5)]
        await peer.wait_for_request(5)
        assert peer.open_connections == 5
        gate.set()
        assert all(answer.endswith(b"\r\n\r\nx") for answer in await asyncio.gather(*clients))


async def test_idle_connections_can_be_closed_while_a_busy_one_goes_on() -> None:
    gate = asyncio.Event()
    async with ScriptedPeer() as peer, connected(peer) as idle, connected(peer) as busy:
        peer.script(Reply.json({}), Reply(body=[gate, b"x"], headers=CLOSE))
        idle[1].write(GET)
        await idle[0].readuntil(b"{}")
        busy[1].write(GET)
        await peer.wait_for_request(2)
        await peer.close_idle_connections()
        assert await idle[0].read() == b""
        assert peer.open_connections == 1
        gate.set()
        assert (await busy[0].read()).endswith(b"x")


async def test_a_peer_starts_again_on_the_same_port() -> None:
    async with ScriptedPeer(fallback=Reply.json({}, headers=CLOSE)) as peer:
        address = peer.base_url
        async with connected(peer) as (reader, _):
            await peer.stop()
            assert await reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await exchange(peer)
        await peer.start()
        assert peer.base_url == address
        assert (await exchange(peer)).endswith(b"{}")


async def test_closing_by_the_peer_is_not_counted_as_a_disconnect() -> None:
    async with ScriptedPeer() as peer:
        peer.script(Reply(instead="close"))
        await exchange(peer)
        with pytest.raises(AssertionError, match=r"disconnect 1 did not come.*GET /a\?b=c"):
            await peer.wait_for_disconnect(timeout_s=0.01)


async def test_a_mistake_in_the_script_is_raised_at_the_end() -> None:
    def broken(request: Request) -> Reply:
        raise LookupError(request.path)

    with pytest.raises(LookupError, match="/a"):
        async with ScriptedPeer(fallback=broken) as peer:
            assert await exchange(peer) == b""


async def test_a_client_that_is_not_http_is_an_error_of_the_test() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        async with ScriptedPeer() as peer:
            assert await exchange(peer, b"hello\r\n\r\n") == b""


async def test_a_large_answer_waits_for_a_slow_reader() -> None:
    async with ScriptedPeer() as peer, connected(peer) as (reader, writer):
        peer.script(Reply(body=[b"x" * 100_000] * 100, headers=CLOSE))
        writer.write(GET)
        await peer.wait_for_request()
        assert len((await reader.read()).partition(b"\r\n\r\n")[2]) == 10_000_000


async def test_nothing_is_left_when_it_stops() -> None:
    before = asyncio.all_tasks()
    peer = ScriptedPeer(fallback=Reply(instead="hang"))
    async with peer, connected(peer) as (_, writer):
        writer.write(GET)
        await peer.wait_for_request()
    assert asyncio.all_tasks() == before
    assert peer.open_connections == 0
    await peer.stop()


def test_it_runs_on_a_thread_for_tests_without_a_loop() -> None:
    threads = threading.active_count()
    with ScriptedPeer(fallback=Reply.json({"a": 1})) as peer:
        with urllib.request.urlopen(peer.base_url, timeout=10) as answer:
            assert json.load(answer) == {"a": 1}

        async def ask_and_leave() -> int:
            async with connected(peer) as (reader, writer):
                writer.write(GET)
                await peer.wait_for_request(2)
                await reader.readuntil(b"}")
            return await peer.wait_for_disconnect(2)

        assert asyncio.run(ask_and_leave()) == 2
    assert threading.active_count() == threads
