"""The HTTP transport over real sockets: answers, faults, pools, loops, proxies and certificates."""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import pickle
import re
import socket
import ssl
import subprocess
import sys
import threading
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Literal
from urllib.parse import urlsplit

import httpx
import httpx2
import pytest
from rich.pretty import pretty_repr

from llm_manager.errors import (
    AuthenticationError,
    ConfigurationError,
    DependencyMissingError,
    InvalidResponseError,
    LLMError,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderError,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from llm_manager.testing import Reply, ScriptedPeer
from llm_manager.transport import faults
from llm_manager.transport.http import HttpTransport
from llm_manager.transport.pool import new_client
from llm_manager.transport.route import find_route
from llm_manager.transport.sockets import Network, first_to_connect

KEY = "planted-7f3d-key"

# For 127.0.0.1 alone, issued by itself, valid from 2020 to 2120.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg+RpvzLfuCS+4lQPL
GXjFE3CMJc+DJdNhhEazK3sLwHWhRANCAAQBPIjWs+PBXFtwfRNPw9GBFqxRBJiQ
ongvXlKEBai9y2+C+Z3zm1Vdok4Hgx4LmSw0+ypUOMwd8hSJ0UVZ+Hu4
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBcTCCARigAwIBAgIBATAKBggqhkjOPQQDAjAXMRUwEwYDVQQDDAxTY3JpcHRl
ZFBlZXIwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBcxFTATBgNV
BAMMDFNjcmlwdGVkUGVlcjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAE8iNaz
48FcW3B9E0/D0YEWrFEEmJCieC9eUoQFqL3Lb4L5nfObVV2iTgeDHguZLDT7KlQ4
zB3yFInRRVn4e7ijUzBRMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgKE
MB0GA1UdDgQWBBSl1Apvwr2IV73kvni/PxCiIOJJKjAPBgNVHREECDAGhwR/AAAB
MAoGCCqGSM49BAMCA0cAMEQCIEEasHYCU7q2g/g5ix7iDkpmGWscKHtwV2eWcK1I
p5OrAiATpg05esKcvUSEaHXEvpP+Rp8v6w9DWPaLAaQuLDE0DQ==
-----END CERTIFICATE-----
"""


@asynccontextmanager
async def opened(peer: ScriptedPeer | str, **settings):
    transport = HttpTransport(peer if isinstance(peer, str) else peer.base_url, **settings)
    try:
        yield transport
    finally:
        await transport.aclose()


async def streamed(transport: HttpTransport, path: str = "/v1/chat") -> bytes:
    async with aclosing(transport.stream(path, b"{}")) as pieces:
        return b"".join([piece async for piece in pieces])


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    file = tmp_path / "peer.pem"
    file.write_text(CERTIFICATE)
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


# ---- requests and answers ------------------------------------------------------------------------


async def test_requests_carry_path_body_and_headers() -> None:
    async with ScriptedPeer(fallback=Reply.json({"ok": True})) as peer:
        headers = {"Authorization": f"Bearer {KEY}", "Accept": "text/event-stream"}
        async with opened(peer.base_url + "/v1/", headers=headers) as transport:
            assert await transport.get("/models?limit=1", timeout_s=5) == b'{"ok": true}'
            await transport.post("/show", b'{"model": "m"}', timeout_s=5)
            await transport.delete("/delete", b'{"model": "m"}', timeout_s=5)
            await transport.delete("/files/1", timeout_s=5)
            await streamed(transport)
    asked, posted, deleted, bare, chat = peer.requests
    assert [f"{r.method} {r.path}" for r in peer.requests] == [
        "GET /v1/models?limit=1", "POST /v1/show", "DELETE /v1/delete", "DELETE /v1/files/1",
        "POST /v1/v1/chat",
    ]  # fmt: skip
    assert posted.json() == deleted.json() == {"model": "m"}
    assert posted.headers["content-type"] == chat.headers["content-type"] == "application/json"
    assert "content-type" not in asked.headers
    assert bare.body == b""
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["accept"] == "text/event-stream"
    assert chat.headers["accept-encoding"] == "identity"


async def test_headers_are_asked_for_at_every_request() -> None:
    keys = iter(["first", "second"])
    settings = {"headers": lambda: {"authorization": next(keys)}}
    async with ScriptedPeer(fallback=Reply.json({})) as peer, opened(peer, **settings) as transport:
        await transport.get("/", timeout_s=5)
        await transport.get("/", timeout_s=5)
    assert [r.headers["authorization"] for r in peer.requests] == ["first", "second"]


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("write_size", [None, 1, 7])
async def test_a_stream_gives_the_bytes_of_the_body(framing, write_size) -> None:
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply.sse([{"n": 1}, "é", "[DONE]"], framing=framing, write_size=write_size))
        assert await streamed(transport) == 'data: {"n": 1}\n\ndata: é\n\ndata: [DONE]\n\n'.encode()


async def test_pieces_arrive_as_soon_as_they_are_sent() -> None:
    gate = asyncio.Event()
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply.sse(["one", gate, "two"]))
        async with aclosing(transport.stream("/", b"{}")) as pieces:
            assert await anext(pieces) == b"data: one\n\n"
            gate.set()
            assert await anext(pieces) == b"data: two\n\n"
            with pytest.raises(StopAsyncIteration):
                await anext(pieces)


class Reached(asyncio.Event):
    """A step of a script that is set when the peer comes to it."""

    async def wait(self) -> Literal[True]:
        self.set()
        return True


async def test_a_server_has_to_wait_for_a_slow_reader() -> None:
    reached = Reached()
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply(body=[*[b"x" * (1 << 20)] * 32, reached]))
        async with aclosing(transport.stream("/", b"{}")) as pieces:
            received = len(await anext(pieces))
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not reached.is_set()
            received += sum([len(piece) async for piece in pieces])
        assert received == 32 << 20
        assert reached.is_set()


async def test_an_answer_that_is_compressed_anyway_is_unpacked() -> None:
    packed = Reply(headers={"content-encoding": "gzip"}, body=[gzip.compress(b"data: x\n\n")])
    async with ScriptedPeer(fallback=packed) as peer, opened(peer) as transport:
        assert await streamed(transport) == b"data: x\n\n"
        assert await transport.get("/", timeout_s=5) == b"data: x\n\n"


async def test_a_wrongly_compressed_answer_is_an_invalid_response() -> None:
    packed = Reply(headers={"content-encoding": "gzip"}, body=[b"not gzip"])
    async with ScriptedPeer(fallback=packed) as peer, opened(peer) as transport:
        with pytest.raises(InvalidResponseError):
            await streamed(transport)
        with pytest.raises(InvalidResponseError):
            await transport.get("/", timeout_s=5)


async def test_a_success_larger_than_32_mib_is_an_invalid_response() -> None:
    mebibyte = b" " * (1 << 20)
    async with ScriptedPeer() as peer, opened(peer) as transport:
        endless = Reply(body=[mebibyte] * 33, framing="chunked", ending="hang")
        peer.script(endless, Reply(body=[mebibyte] * 32))
        with pytest.raises(InvalidResponseError, match="larger than 32 MiB"):
            await transport.get("/", timeout_s=30)
        assert len(await transport.get("/", timeout_s=30)) == 32 << 20


async def test_complete_answers_reuse_the_connection() -> None:
    async with ScriptedPeer(fallback=Reply.sse(["x"])) as peer, opened(peer) as transport:
        for _ in range(3):
            await streamed(transport)
            await transport.get("/", timeout_s=5)
        peer.script(Reply.json({}, status=503))
        with pytest.raises(ProviderError):
            await transport.get("/", timeout_s=5)
        await streamed(transport)
        assert peer.connections_opened == 1


# ---- answers that say no -------------------------------------------------------------------------


async def test_an_error_status_is_a_typed_error_before_the_first_piece() -> None:
    no = Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "7"})
    async with ScriptedPeer(fallback=no) as peer, opened(peer) as transport:
        for request in (streamed(transport), transport.get("/", timeout_s=5)):
            with pytest.raises(RateLimitError, match="slow down") as caught:
                await request
            assert (caught.value.http_status, caught.value.retry_after_s) == (429, 7.0)


async def test_an_endless_error_body_is_read_in_part() -> None:
    endless = Reply(status=500, body=[b"x" * 65536] * 3, framing="chunked", ending="hang")
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(endless)
        with pytest.raises(ProviderError) as caught:
            await streamed(transport)
        assert caught.value.http_status == 500
        await peer.wait_for_disconnect()


@pytest.mark.parametrize("ending", ["hang", "reset", "half_chunk"])
async def test_an_error_whose_body_breaks_off_is_still_that_error(ending) -> None:
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply(status=401, body=[b"{"], framing="chunked", ending=ending))
        with pytest.raises(AuthenticationError):
            await streamed(transport)
        await transport.aclose()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status) -> None:
    async with ScriptedPeer() as elsewhere, ScriptedPeer() as peer, opened(peer) as transport:
        address = f"{elsewhere.base_url}/login"
        peer.script(Reply(status=status, headers={"location": address}))
        with pytest.raises(ProviderAPIError, match=re.escape(address)) as caught:
            await streamed(transport)
        assert elsewhere.requests == []
    assert (caught.value.code, caught.value.http_status) == ("redirected", status)
    assert "redirects are not followed" in str(caught.value)


# ---- connections that fail -----------------------------------------------------------------------


async def test_a_refused_connection_names_the_server() -> None:
    port = unused_port()
    for host in ("127.0.0.1", "localhost"):
        async with opened(f"http://{host}:{port}") as transport:
            with pytest.raises(ProviderConnectionError, match=f"{host}:{port} refuses") as caught:
                await streamed(transport)
        assert (caught.value.code, caught.value.retryable) == ("refused", True)


async def test_a_host_name_that_is_none_is_a_dns_error() -> None:
    async with opened(f"http://{'x' * 70}.test") as transport:
        with pytest.raises(ProviderConnectionError, match="cannot be resolved") as caught:
            await streamed(transport)
    assert caught.value.code == "dns"


async def test_the_second_address_of_a_server_is_tried_when_the_first_one_is_silent() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        # Two connections fill its queue; whoever comes after them gets no answer.
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        async with ScriptedPeer() as peer:
            target = ("127.0.0.1", urlsplit(peer.base_url).port)
            kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
            addresses = [(*kind, silent.getsockname()), (*kind, target)]
            with await first_to_connect(addresses) as connected:
                assert connected.getpeername() == target
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("fault", ["close", "reset"])
async def test_a_new_connection_that_dies_without_an_answer_is_reset(fault) -> None:
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply(instead=fault))
        with pytest.raises(ProviderConnectionError) as caught:
            await streamed(transport)
        assert (caught.value.code, caught.value.retryable) == ("reset", True)
        assert len(peer.requests) == 1


async def test_half_a_head_is_reset() -> None:
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply(framing="raw", body=[b"HTTP/1.1 200 O"]))
        with pytest.raises(ProviderConnectionError) as caught:
            await streamed(transport)
        assert caught.value.code == "reset"


@pytest.mark.parametrize(
    "greeting",
    [b"220 mail.example ESMTP\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"-ERR unknown command", b"\n"],
)
@pytest.mark.parametrize("write_size", [None, 1])
async def test_a_server_that_speaks_no_http_is_an_invalid_response(greeting, write_size) -> None:
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply(framing="raw", body=[greeting], write_size=write_size))
        with pytest.raises(InvalidResponseError, match="does not answer in HTTP"):
            await streamed(transport)


async def test_a_socks_proxy_that_leaves_before_it_connects_us_is_no_server_without_http() -> None:
    network = Network(layers=0)
    async with ScriptedPeer() as peer:
        peer.script(Reply(framing="raw", body=[b"\x05\xff"]))
        stream = await network.connect_tcp("127.0.0.1", urlsplit(peer.base_url).port)
        await stream.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await stream.read(100) == b"\x05\xff"
        assert await stream.read(100) == b""
        await stream.aclose()


@pytest.mark.parametrize(
    ("framing", "ending"),
    [
        ("chunked", "close"), ("chunked", "reset"), ("chunked", "half_chunk"),
        ("length", "close"), ("length", "reset"),
    ],
)  # fmt: skip
async def test_an_answer_that_breaks_off_is_interrupted_after_its_pieces(framing, ending) -> None:
    seen = asyncio.Event()
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply(body=[b"first", seen], framing=framing, ending=ending))
        async with aclosing(transport.stream("/", b"{}")) as pieces:
            assert await anext(pieces) == b"first"
            seen.set()
            with pytest.raises(StreamInterruptedError) as caught:
                async for piece in pieces:
                    assert piece == b"half"
        assert caught.value.code == "stream_interrupted"
        peer.script(Reply(body=[b"{"], framing=framing, ending=ending))
        with pytest.raises(StreamInterruptedError):
            await transport.get("/", timeout_s=5)


async def test_a_silent_server_ends_in_a_timeout_that_says_how_long() -> None:
    trickle = Reply(body=[b"x", 0.02] * 1000, framing="chunked")
    async with ScriptedPeer() as peer, opened(peer) as transport:
        for silent in (Reply(instead="hang"), trickle):
            peer.script(silent)
            with pytest.raises(RequestTimeoutError, match=r"within 0\.1 s") as caught:
                await transport.get("/", timeout_s=0.1)
            assert caught.value.code == "timeout"
        await peer.wait_for_disconnect(2)


async def test_a_handshake_that_never_ends_is_a_connect_timeout() -> None:
    async with ScriptedPeer() as peer:
        address = peer.base_url.replace("http:", "https:")
        async with opened(address, connect_timeout_s=0.05) as transport:
            with pytest.raises(RequestTimeoutError, match=r"within 0\.05 s") as caught:
                await streamed(transport)
            assert caught.value.code == "connect_timeout"
            with pytest.raises(RequestTimeoutError, match=r"within 0\.01 s"):
                await anext(transport.stream("/", b"{}", connect_timeout_s=0.01))
        await peer.wait_for_disconnect(2)


async def test_a_stream_may_be_silent_for_longer_than_the_connect_timeout() -> None:
    async with ScriptedPeer() as peer, opened(peer, connect_timeout_s=0.05) as transport:
        peer.script(Reply.sse([0.1, "late"]))
        assert await streamed(transport) == b"data: late\n\n"


async def test_requests_wait_for_a_free_connection() -> None:
    gate = asyncio.Event()
    held = Reply(body=[gate, b"x"])
    async with ScriptedPeer(fallback=held) as peer, opened(peer, max_connections=2) as transport:
        waiting = [asyncio.create_task(transport.get("/", timeout_s=5)) for _ in range(6)]
        await peer.wait_for_request(2)
        gate.set()
        assert await asyncio.gather(*waiting) == [b"x"] * 6
        assert peer.connections_opened == 2


@pytest.mark.parametrize("family", [httpx, httpx2])
@pytest.mark.parametrize(
    ("name", "cause", "kind", "code"),
    [
        ("ConnectError", socket.gaierror(-2, "Name unknown"), ProviderConnectionError, "dns"),
        ("ConnectError", ConnectionRefusedError(111, "x"), ProviderConnectionError, "refused"),
        ("ConnectError", OSError(101, "unreachable"), ProviderConnectionError, "connection"),
        ("ConnectError", ssl.SSLError(1, "x"), ProviderConnectionError, "tls"),
        ("ConnectTimeout", None, RequestTimeoutError, "connect_timeout"),
        ("PoolTimeout", None, RequestTimeoutError, "timeout"),
        ("WriteTimeout", None, RequestTimeoutError, "timeout"),
        ("ProxyError", None, ProviderConnectionError, "proxy"),
        ("ReadError", None, ProviderConnectionError, "reset"),
        ("WriteError", None, ProviderConnectionError, "reset"),
        ("RemoteProtocolError", None, ProviderConnectionError, "reset"),
        ("LocalProtocolError", None, ConfigurationError, "invalid_config"),
        ("UnsupportedProtocol", None, ConfigurationError, "invalid_config"),
    ],
)
async def test_the_errors_of_both_http_libraries_become_ours(family, name, cause, kind, code):
    def fail(request):
        raise getattr(family, name)(f"no luck with {KEY}") from cause

    client = family.AsyncClient(transport=family.MockTransport(fail))
    given = {"client": client, "secrets": lambda: [KEY]}
    async with client, opened("http://api.test", **given) as transport:
        with pytest.raises(kind) as caught:
            await streamed(transport)
    assert caught.value.code == code
    assert caught.value.original == f"{family.__name__}.{name}: no luck with ***"
    assert KEY not in everything_said_by(caught.value)


async def test_an_error_that_is_no_network_trouble_comes_out_as_it_is() -> None:
    def fail(request):
        raise LookupError("a bug")

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(fail))
    async with client, opened("http://api.test", client=client) as transport:
        with pytest.raises(LookupError):
            await streamed(transport)


# ---- pooled connections that the server closed ---------------------------------------------------


async def test_a_connection_closed_while_idle_is_not_used_again() -> None:
    async with ScriptedPeer(fallback=Reply.json({})) as peer, opened(peer) as transport:
        await transport.get("/", timeout_s=5)
        await peer.close_idle_connections()
        await transport.get("/", timeout_s=5)
        assert [r.connection for r in peer.requests] == [1, 2]


async def test_a_connection_on_which_something_came_unasked_is_not_used_again() -> None:
    gate = asyncio.Event()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    async with ScriptedPeer() as peer, opened(peer) as transport:
        body = [answer + b"{}", gate, answer + b"no"]
        peer.script(Reply(framing="raw", body=body, ending="hang"), Reply.json({}))
        await transport.get("/", timeout_s=5)
        gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert await transport.get("/", timeout_s=5) == b"{}"
        assert [r.connection for r in peer.requests] == [1, 2]


async def test_a_restarted_server_is_reached_again_without_an_error() -> None:
    async with ScriptedPeer(fallback=Reply.json({})) as peer, opened(peer) as transport:
        for _ in range(3):
            await asyncio.gather(*(transport.get("/", timeout_s=5) for _ in range(5)))
            await peer.stop()
            await peer.start()


@pytest.mark.parametrize("fault", ["close", "reset"])
async def test_a_pooled_connection_found_dead_is_replaced_once(fault) -> None:
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply.json({}), Reply(instead=fault), Reply.sse(["x"]))
        await transport.get("/", timeout_s=5)
        assert await streamed(transport) == b"data: x\n\n"
        assert [r.connection for r in peer.requests] == [1, 1, 2]
        assert peer.requests[1].body == peer.requests[2].body == b"{}"


async def test_the_replacement_of_a_dead_connection_is_a_new_one() -> None:
    """Where one pooled connection is dead, the others are, too."""
    async with ScriptedPeer() as peer, opened(peer) as transport:
        both = asyncio.Event()
        peer.script(*[Reply(body=[both, b"x"])] * 2)
        filling = [asyncio.create_task(transport.get("/", timeout_s=5)) for _ in range(2)]
        await peer.wait_for_request(2)
        both.set()
        await asyncio.gather(*filling)
        peer.script(Reply(instead="close"), Reply.json({}))
        await transport.get("/", timeout_s=5)
        assert peer.requests[-1].connection == 3


async def test_a_replacement_that_dies_as_well_is_reset() -> None:
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply.json({}), Reply(instead="close"), Reply(instead="close"))
        await transport.get("/", timeout_s=5)
        with pytest.raises(ProviderConnectionError) as caught:
            await streamed(transport)
        assert caught.value.code == "reset"
        assert len(peer.requests) == 3


async def test_a_request_whose_answer_had_begun_is_never_sent_again() -> None:
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply.json({}), Reply(framing="raw", body=[b"H"]))
        await transport.get("/", timeout_s=5)
        with pytest.raises(ProviderConnectionError) as caught:
            await streamed(transport)
        assert caught.value.code == "reset"
        assert len(peer.requests) == 2


# ---- stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1], ids=["before the answer", "during the answer"])
async def test_cancelling_closes_the_connection_at_once(before) -> None:
    answer = Reply.sse(["x"], ending="hang") if before else Reply(instead="hang")
    async with ScriptedPeer(fallback=answer) as peer, opened(peer) as transport:
        got = asyncio.Event()

        async def read() -> None:
            async with aclosing(transport.stream("/", b"{}")) as pieces:
                async for _ in pieces:
                    got.set()

        task = asyncio.create_task(read())
        await (got.wait() if before else peer.wait_for_request())
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await peer.wait_for_disconnect(timeout_s=1)


async def test_leaving_a_stream_early_closes_the_connection() -> None:
    async with ScriptedPeer() as peer, opened(peer) as transport:
        peer.script(Reply.sse(["x"], ending="hang"))
        async with aclosing(transport.stream("/", b"{}")) as pieces:
            async for _ in pieces:
                break
        await peer.wait_for_disconnect(timeout_s=1)


def test_leaving_a_stream_early_leaves_no_work_behind() -> None:
    async def leave() -> None:
        async with opened(peer) as transport:
            async with aclosing(transport.stream("/", b"{}")) as pieces:
                await anext(pieces)
            gc.collect()
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with ScriptedPeer(fallback=Reply.sse(["x"], ending="hang")) as peer:
        asyncio.run(leave())


async def test_stopping_twice_in_a_row_never_costs_a_connection() -> None:
    async with ScriptedPeer() as peer, opened(peer, max_connections=5) as transport:
        for turn in range(50):
            peer.script(Reply.sse(["x"], ending="hang") if turn % 2 else Reply(instead="hang"))
            task = asyncio.create_task(streamed(transport))
            await peer.wait_for_request(turn + 1)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await peer.wait_for_disconnect(50)
        peer.script(*[Reply.json({})] * 5)
        await asyncio.gather(*(transport.get("/", timeout_s=5) for _ in range(5)))


async def test_cancelling_while_connecting_never_costs_a_connection() -> None:
    fallback = Reply.json({}, headers={"connection": "close"})
    async with (
        ScriptedPeer(fallback=fallback) as peer,
        opened(peer, max_connections=2) as transport,
    ):
        await transport.open()
        for turns in range(30):
            task = asyncio.create_task(transport.get("/", timeout_s=5))
            for _ in range(turns % 6):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await asyncio.gather(*(transport.get("/", timeout_s=5) for _ in range(4)))


# ---- clients and event loops ---------------------------------------------------------------------


async def test_building_a_transport_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://user:secret@[broken")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    transport = HttpTransport("https://api.example.test", ca_file="/nowhere/else.pem")
    await transport.aclose()


def test_the_http_library_is_loaded_by_the_first_request_only() -> None:
    code = (
        "import sys, asyncio; from llm_manager.transport.http import HttpTransport\n"
        "transport = HttpTransport('http://127.0.0.1:9')\n"
        "assert not {'httpx2', 'httpcore2', 'h11', 'anyio'} & sys.modules.keys()\n"
        "asyncio.run(transport.open())\n"
        "assert 'httpx2' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=50)


async def test_a_closed_transport_takes_no_requests() -> None:
    async with ScriptedPeer(fallback=Reply(instead="hang")) as peer, opened(peer) as transport:
        running = asyncio.create_task(transport.get("/", timeout_s=5))
        await peer.wait_for_request()
        await transport.aclose()
        await transport.aclose()
        for request in (running, transport.open(), transport.get("/", timeout_s=5)):
            with pytest.raises(ProviderConnectionError, match="is closed") as caught:
                await request
            assert (caught.value.code, caught.value.retryable) == ("closed", False)
        await peer.wait_for_disconnect(timeout_s=1)


def test_a_hundred_event_loops_leave_nothing_behind() -> None:
    with ScriptedPeer(fallback=Reply.json({})) as peer:
        transport = HttpTransport(peer.base_url)

        loops = []

        async def ask() -> None:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            await asyncio.gather(*(transport.get("/", timeout_s=5) for _ in range(2)))

        asyncio.run(ask())
        descriptors = len(os.listdir("/dev/fd"))
        for _ in range(100):
            asyncio.run(ask())
        gc.collect()
        asyncio.run(peer.wait_for_disconnect(peer.connections_opened))
        assert len(os.listdir("/dev/fd")) <= descriptors
        assert not any(loop() for loop in loops)


def test_the_client_of_a_loop_that_did_not_end_properly_is_replaced() -> None:
    with ScriptedPeer(fallback=Reply.json({}, headers={"connection": "close"})) as peer:
        transport = HttpTransport(peer.base_url)
        loops = []
        for _ in range(3):
            loop = asyncio.new_event_loop()
            loops.append(weakref.ref(loop))
            loop.run_until_complete(transport.get("/", timeout_s=5))
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        del loop
        asyncio.run(transport.get("/", timeout_s=5))
        assert len(peer.requests) == 4
        gc.collect()
        assert not any(loop() for loop in loops)
        asyncio.run(transport.aclose())


def test_closing_reaches_the_clients_of_other_loops() -> None:
    with ScriptedPeer(fallback=Reply(instead="hang")) as peer:
        transport = HttpTransport(peer.base_url)
        outcome: list[BaseException] = []

        def ask() -> None:
            try:
                asyncio.run(transport.get("/", timeout_s=10))
            except ProviderConnectionError as error:
                outcome.append(error)

        async def close() -> None:
            await peer.wait_for_request()
            await transport.aclose()

        thread = threading.Thread(target=ask)
        thread.start()
        asyncio.run(close())
        thread.join()
    assert [error.code for error in outcome] == ["closed"]


def test_several_loops_share_a_transport_at_the_same_time() -> None:
    with ScriptedPeer(fallback=Reply.json({})) as peer:
        transport = HttpTransport(peer.base_url)

        async def ask() -> None:
            for _ in range(20):
                await transport.get("/", timeout_s=10)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(asyncio.run, [ask() for _ in range(4)]))
        assert len(peer.requests) == 80
        assert peer.connections_opened == 4


@pytest.mark.parametrize("family", [httpx, httpx2])
async def test_a_given_client_is_used_and_left_open(family) -> None:
    async with ScriptedPeer() as peer, family.AsyncClient(trust_env=False) as client:
        peer.script(Reply.sse(["x"]), Reply.json({"error": "no"}, status=503), Reply.json({}))
        async with opened(peer, client=client) as transport:
            assert await streamed(transport) == b"data: x\n\n"
            with pytest.raises(ProviderError):
                await streamed(transport)
        assert (await client.get(peer.base_url)).json() == {}


@pytest.mark.parametrize("family", [httpx, httpx2])
async def test_the_faults_of_a_given_client_are_ours(family) -> None:
    async with ScriptedPeer() as peer, family.AsyncClient(trust_env=False) as client:
        peer.script(Reply(instead="reset"), Reply.sse(["x"], ending="half_chunk"))
        async with opened(peer, client=client) as transport:
            with pytest.raises(ProviderConnectionError) as caught:
                await streamed(transport)
            assert caught.value.code == "reset"
            with pytest.raises(StreamInterruptedError):
                await streamed(transport)
        async with opened(f"http://127.0.0.1:{unused_port()}", client=client) as transport:
            with pytest.raises(ProviderConnectionError) as caught:
                await streamed(transport)
            assert caught.value.code == "refused"
        await client.aclose()
        async with opened(peer, client=client) as transport:
            with pytest.raises(ProviderConnectionError, match="client is closed"):
                await streamed(transport)


@pytest.mark.parametrize("text", ["Event loop is closed", "is bound to a different event loop"])
async def test_a_given_client_of_another_loop_is_a_connection_error_with_a_hint(text) -> None:
    def fail(request):
        raise RuntimeError(text)

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(fail))
    async with client, opened("http://api.test", client=client) as transport:
        with pytest.raises(ProviderConnectionError, match="one client per event loop"):
            await streamed(transport)


async def test_connections_are_kept_alive_by_the_operating_system() -> None:
    async with ScriptedPeer(fallback=Reply.json({})) as peer:
        client, _ = new_client(tls=None, proxy=None, layers=0, max_connections=1)
        async with client:
            answer = await client.get(peer.base_url)
            tcp = answer.extensions["network_stream"].get_extra_info("socket")
            assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
            if hasattr(socket, "TCP_KEEPINTVL"):
                assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 60


# ---- certificates --------------------------------------------------------------------------------


async def test_a_server_of_an_own_authority_is_trusted_with_its_certificate(tls, certificate):
    reply = Reply.sse(["x" * 100_000] * 20, write_size=4096)
    async with ScriptedPeer(tls=tls, fallback=reply) as peer:
        async with opened(peer, ca_file=certificate) as transport:
            for _ in range(2):
                assert await streamed(transport) == (b"data: " + b"x" * 100_000 + b"\n\n") * 20
        assert peer.connections_opened == 1


@pytest.mark.parametrize("ending", ["close", "reset", "half_chunk"])
async def test_an_encrypted_answer_that_breaks_off_is_interrupted(tls, certificate, ending) -> None:
    async with ScriptedPeer(tls=tls) as peer, opened(peer, ca_file=certificate) as transport:
        peer.script(Reply.sse(["x"], ending=ending))
        with pytest.raises(StreamInterruptedError):
            await streamed(transport)


@pytest.mark.parametrize("fault", ["close", "reset"])
async def test_an_encrypted_connection_found_dead_is_replaced(tls, certificate, fault) -> None:
    async with ScriptedPeer(tls=tls) as peer, opened(peer, ca_file=certificate) as transport:
        peer.script(Reply.json({}), Reply(instead=fault), Reply.sse(["x"]))
        await transport.get("/", timeout_s=5)
        assert await streamed(transport) == b"data: x\n\n"
        await peer.close_idle_connections()
        peer.script(Reply.json({}))
        await transport.get("/", timeout_s=5)


async def test_stopping_closes_an_encrypted_connection_at_once(tls, certificate) -> None:
    async with ScriptedPeer(tls=tls) as peer, opened(peer, ca_file=certificate) as transport:
        peer.script(Reply.sse(["x"], ending="hang"))
        async with aclosing(transport.stream("/", b"{}")) as pieces:
            await anext(pieces)
        await peer.wait_for_disconnect(timeout_s=1)


async def test_an_unknown_issuer_is_a_tls_error_that_names_the_way_out(tls) -> None:
    async with ScriptedPeer(tls=tls) as peer, opened(peer) as transport:
        with pytest.raises(ProviderConnectionError, match="self-signed certificate") as caught:
            await streamed(transport)
    assert (caught.value.code, caught.value.retryable) == ("tls", False)
    assert "ca_file=" in (caught.value.hint or "")


async def test_a_certificate_for_another_name_is_a_tls_error(tls, certificate) -> None:
    async with ScriptedPeer(tls=tls) as peer:
        address = peer.base_url.replace("127.0.0.1", "localhost")
        async with opened(address, ca_file=certificate) as transport:
            with pytest.raises(
                ProviderConnectionError, match="not valid for 'localhost'"
            ) as caught:
                await streamed(transport)
    assert caught.value.code == "tls"
    assert "host name" in (caught.value.hint or "")


async def test_https_to_a_server_without_it_is_a_tls_error() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 plain text\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"https://127.0.0.1:{port}") as transport:
            with pytest.raises(ProviderConnectionError, match="no secure connection") as caught:
                await streamed(transport)
    assert caught.value.code == "tls"


@pytest.mark.parametrize("source", ["ca_file", "SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_certificates_that_cannot_be_read_are_named(source, tmp_path, monkeypatch) -> None:
    nowhere = str(tmp_path / "nowhere.pem")
    settings = {}
    if source == "ca_file":
        settings["ca_file"] = nowhere
    elif source == "SSL_CERT_FILE":
        monkeypatch.setenv(source, nowhere)
    else:
        settings["ca_file"] = tmp_path  # a folder where a file is expected
        source, nowhere = "ca_file", str(tmp_path)
    async with opened("https://127.0.0.1:9", **settings) as transport:
        with pytest.raises(ConfigurationError, match=source) as caught:
            await transport.open()
    assert nowhere in str(caught.value)


async def test_plain_http_needs_no_certificates(monkeypatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    async with ScriptedPeer(fallback=Reply.json({})) as peer, opened(peer) as transport:
        assert await transport.get("/", timeout_s=5) == b"{}"


def test_certificates_are_loaded_once_for_all_threads() -> None:
    def context() -> ssl.SSLContext | None:
        return find_route(
            "https://api.test", ca_file=None, proxy=None, use_environment_proxies=False
        ).tls

    with ThreadPoolExecutor(8) as threads:
        contexts = list(threads.map(lambda _: context(), range(16)))
    assert contexts[0] is not None
    assert all(each is contexts[0] for each in contexts)


# ---- proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
async def test_the_environment_names_the_proxy(variable, monkeypatch) -> None:
    async with ScriptedPeer(fallback=Reply.json({})) as proxy:
        monkeypatch.setenv(variable, proxy.base_url.replace("//", f"//me:{KEY}@"))
        async with opened("http://api.example.test") as transport:
            await transport.get("/v1", timeout_s=5)
    assert proxy.requests[0].path == "http://api.example.test/v1"
    assert proxy.requests[0].headers["proxy-authorization"].startswith("Basic ")


async def test_servers_on_this_machine_are_reached_without_a_proxy(monkeypatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{unused_port()}")
    async with ScriptedPeer(fallback=Reply.json({})) as peer:
        for host in ("127.0.0.1", "localhost"):
            async with opened(peer.base_url.replace("127.0.0.1", host)) as transport:
                assert await transport.get("/", timeout_s=5) == b"{}"


@pytest.mark.parametrize(
    ("no_proxy", "proxied"),
    [
        ("example.test", False), (".example.test", False), ("other.test", True), ("*", False),
        ("api.example.test:8080", False), ("", True),
    ],
)  # fmt: skip
def test_no_proxy_is_respected(no_proxy, proxied, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    url = "http://api.example.test:8080/v1"
    route = find_route(url, ca_file=None, proxy=None, use_environment_proxies=True)
    assert (route.proxy is not None) is proxied
    route = find_route(url, ca_file=None, proxy=None, use_environment_proxies=False)
    assert route.proxy is None


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("socks://127.0.0.1:1080", "socks5://127.0.0.1:1080"),
        ("SOCKS://h:1", "socks5://h:1"),
        ("socks5h://h:1", "socks5h://h:1"),
        ("proxy.test:3128", "http://proxy.test:3128"),
    ],
)
def test_proxies_are_understood_as_desktops_write_them(address, url, monkeypatch) -> None:
    installed = ModuleType("socksio")
    installed.__spec__ = ModuleSpec("socksio", None)
    monkeypatch.setitem(sys.modules, "socksio", installed)
    route = find_route("http://api.test", ca_file=None, proxy=address, use_environment_proxies=True)
    assert route.proxy == url


def test_a_route_does_not_show_the_password_of_its_proxy() -> None:
    proxy = "http://me:secret-word@proxy.test:1"
    route = find_route("http://api.test", ca_file=None, proxy=proxy, use_environment_proxies=False)
    assert route.proxy == proxy
    assert "secret-word" not in f"{route!r} {route} {pretty_repr(route)}"


async def test_a_socks_proxy_without_its_package_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", f"socks://me:{KEY}@127.0.0.1:1080/")
    async with opened("https://api.example.test") as transport:
        for request in (transport.open, lambda: streamed(transport)):
            with pytest.raises(DependencyMissingError, match="ALL_PROXY") as caught:
                await request()
            assert "pip install" in (caught.value.hint or "")
            assert KEY not in everything_said_by(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        f"ftp://me:{KEY}@proxy.test:1",
        f"http://me:{KEY}@proxy.test:port",
        f"http://me:{KEY}@proxy.test:99999",
        f"http://me:{KEY}@[::1",
        f"http://me:{KEY}@",
        f"http://me:{KEY}@pro xy:1",
        f"http://me:{KEY}@proxy.test:0",
        f"http://me:{KEY}@a\x01b:1",
    ],
)
async def test_a_malformed_proxy_is_a_configuration_error(address, monkeypatch) -> None:
    monkeypatch.setenv("all_proxy", address)
    async with opened("https://api.example.test") as transport:
        with pytest.raises(ConfigurationError, match="all_proxy") as caught:
            await transport.open()
    assert KEY not in everything_said_by(caught.value)
    assert "unset all_proxy" in str(caught.value)


async def test_a_proxy_that_is_not_there_is_a_proxy_error() -> None:
    dead = f"http://me:{KEY}@127.0.0.1:{unused_port()}"
    for address in ("http://api.example.test", "https://api.example.test"):
        async with opened(address, proxy=dead) as transport:
            with pytest.raises(ProviderConnectionError, match="the proxy 127") as caught:
                await streamed(transport)
        assert caught.value.code == "proxy"
        assert KEY not in everything_said_by(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_a_password_is_a_proxy_error(scheme) -> None:
    async with (
        ScriptedPeer(fallback=Reply(status=407)) as proxy,
        opened(f"{scheme}://api.example.test", proxy=proxy.base_url) as transport,
    ):
        with pytest.raises(ProviderConnectionError, match="proxy") as caught:
            await streamed(transport)
    assert caught.value.code == "proxy"
    assert proxy.requests[0].method == ("CONNECT" if scheme == "https" else "POST")


async def test_a_proxy_that_says_nothing_is_a_connect_timeout() -> None:
    async with ScriptedPeer(fallback=Reply(instead="hang")) as proxy:
        async with opened(
            "https://api.example.test", proxy=proxy.base_url, connect_timeout_s=0.1
        ) as transport:
            with pytest.raises(RequestTimeoutError, match="through the proxy") as caught:
                await streamed(transport)
        assert caught.value.code == "connect_timeout"
        await proxy.wait_for_disconnect()


@pytest.mark.parametrize("encrypted_proxy", [False, True])
async def test_an_encrypted_server_is_reached_through_a_proxy(
    encrypted_proxy, tls, certificate
) -> None:
    async with ScriptedPeer(tls=tls) as peer:
        port = urlsplit(peer.base_url).port
        peer.script(Reply.json({}), Reply(instead="close"), Reply.sse(["x"]))
        async with tunnel(port, tls if encrypted_proxy else None) as (proxy, targets):
            address = "https://127.0.0.1:7"  # the tunnel leads to the peer wherever it is asked to
            async with opened(address, proxy=proxy, ca_file=certificate) as transport:
                assert await transport.get("/", timeout_s=5) == b"{}"
                assert await streamed(transport) == b"data: x\n\n"
    assert targets == ["127.0.0.1:7"] * 2
    assert [r.connection for r in peer.requests] == [1, 1, 2]


@asynccontextmanager
async def tunnel(port: int | None, tls: ssl.SSLContext | None):
    """A proxy that answers CONNECT and then passes bytes on to ``port``."""
    targets: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        targets.append(head.split()[1].decode())
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        listening = server.sockets[0].getsockname()[1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listening}", targets


# ---- nothing secret comes out --------------------------------------------------------------------


def everything_said_by(error: BaseException) -> str:
    """All text of an error, of its traceback, and of a copy sent to another process."""
    pickled = pickle.dumps(error)
    copy = pickle.loads(pickled)
    said = [str(error), repr(error), repr(vars(error)), str(copy), repr(vars(copy)), repr(pickled)]
    return "\n".join(said + traceback.format_exception(error))


def locals_of_the_library(error: BaseException) -> str:
    """The variables that an error reporter would find in our frames."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if "llm_manager" in frame.f_code.co_filename]
    assert ours
    return "\n".join(repr(frame.f_locals) for frame in ours)


ECHO = {"error": {"message": f"Incorrect API key provided: {KEY}"}}


@pytest.mark.parametrize(
    "reply",
    [
        Reply.json(ECHO, status=401),
        Reply(status=500, body=[KEY.encode()]),
        Reply(status=302, headers={"location": f"http://elsewhere.test/?token={KEY}"}),
        Reply(instead="reset"),
        Reply(instead="close"),
        Reply(framing="raw", body=[f"bad {KEY}\r\n\r\n".encode()]),
        Reply.sse(["x"], ending="half_chunk"),
        Reply(headers={"content-encoding": "gzip"}, body=[KEY.encode()]),
    ],
)
@pytest.mark.parametrize("streaming", [True, False])
async def test_no_error_carries_the_key_or_a_vendor_exception(reply, streaming) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with ScriptedPeer(fallback=reply) as peer, opened(peer, headers=headers) as transport:
        request = streamed(transport) if streaming else transport.get("/", timeout_s=5)
        with pytest.raises(LLMError) as caught:
            await request
    assert peer.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert KEY not in everything_said_by(caught.value)
    assert f"Bearer {KEY}" not in locals_of_the_library(caught.value)


@pytest.mark.parametrize("value", [f"Bearer {KEY}\n", f"Bearer {KEY}\r\nx: y", f"Bearer {KEY}é"])
async def test_a_header_that_cannot_be_sent_is_refused_without_showing_it(value) -> None:
    async with ScriptedPeer() as peer, opened(peer, headers={"Authorization": value}) as transport:
        for request in (streamed(transport), transport.get("/", timeout_s=5)):
            with pytest.raises(ConfigurationError, match="'Authorization'") as caught:
                await request
            assert KEY not in everything_said_by(caught.value)
        assert peer.requests == []


@pytest.mark.parametrize("address", ["api.test/v1", "ftp://api.test", "http://", "http://x:port"])
async def test_an_address_that_cannot_work_is_refused_at_the_first_use(address) -> None:
    async with opened(address) as transport:
        with pytest.raises(ConfigurationError):
            await transport.open()
        with pytest.raises(ConfigurationError):
            await streamed(transport)


async def test_a_path_that_cannot_be_sent_is_a_configuration_error() -> None:
    async with ScriptedPeer() as peer, opened(peer) as transport:
        with pytest.raises(ConfigurationError):
            await transport.get("/models/a\x00b", timeout_s=5)


def test_what_is_not_known_to_be_a_fault_is_none() -> None:
    assert faults.is_fault(OSError())
    assert faults.is_fault(httpx2.ReadError("x"))
    assert not faults.is_fault(RuntimeError("Set changed size during iteration"))
    assert not faults.is_fault(KeyError("x"))
