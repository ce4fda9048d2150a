"""An HTTP/1.1 server on this machine that plays a script, byte for byte, faults included.

It is for tests of whatever talks to a provider: real sockets, no network, no sleeps::

    async with ScriptedPeer() as peer:
        peer.script(Reply.sse([{"choices": []}, "[DONE]"], write_size=1), Reply(status=429))
        provider = OpenAICompatibleProvider(base_url=peer.base_url)
        ...
        assert peer.requests[0].json()["model"] == "m"

What it must not do: interpret what it plays.  A test that wants a broken answer writes one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, Self, TypeAlias

from .._threads import LoopThread

Step: TypeAlias = bytes | float | asyncio.Event
"""A piece to send, a pause in seconds, or an event to wait for."""


class Headers(Mapping[str, str]):
    """Header fields, found in whatever case they are asked for; the last one of a name counts."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields = {name.lower(): value for name, value in fields}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({self._fields})"


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived.

    Attributes:
        path: the target as sent, query included; an absolute URL if we are asked as a proxy.
        connection: the connection it came on, counted from 1.
    """

    method: str
    path: str
    headers: Headers
    body: bytes
    connection: int

    def json(self) -> Any:
        """The body, decoded from JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, and how to send it.

    Attributes:
        status, headers: the head; the framing adds its own headers.
        body: what to do one after the other: send a piece, pause for so many seconds, wait for an
            `asyncio.Event`.
        framing: how the client knows where the body ends: each piece is a chunk, a content-length
            says it, or the connection closes.  ``"raw"`` sends the pieces alone, without a head.
        write_size: send at most so many bytes at once, or None for piece by piece.
        instead: what to do instead of answering: close the connection, reset it (RST), or keep it
            open in silence.
        ending: how the answer ends: completely; the connection closes before the end; it is reset;
            it closes in the middle of a chunk; or it falls silent.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[Step] = ()
    framing: Literal["chunked", "length", "close", "raw"] = "length"
    write_size: int | None = None
    instead: Literal["close", "reset", "hang"] | None = None
    ending: Literal["complete", "close", "reset", "half_chunk", "hang"] = "complete"

    @classmethod
    def json(cls, content: Any, **how: Any) -> Self:
        """An answer of one JSON text."""
        return cls(
            headers={"content-type": "application/json", **how.pop("headers", {})},
            body=[json.dumps(content).encode()],
            **how,
        )

    @classmethod
    def sse(cls, events: Iterable[Any], **how: Any) -> Self:
        """A stream of server-sent events: text is sent as it is, anything else as JSON.

        Pauses (a `float` or an `asyncio.Event`) may stand between the events.
        """
        return cls._stream("text/event-stream", "data: {}\n\n", events, how)

    @classmethod
    def ndjson(cls, objects: Iterable[Any], **how: Any) -> Self:
        """A stream of JSON lines; pauses as in `sse`."""
        return cls._stream("application/x-ndjson", "{}\n", objects, how)

    @classmethod
    def _stream(cls, media: str, form: str, items: Iterable[Any], how: dict[str, Any]) -> Self:
        def step(item: Any) -> Step:
            if isinstance(item, float | asyncio.Event | bytes):
                return item
            return form.format(item if isinstance(item, str) else json.dumps(item)).encode()

        headers = {"content-type": media, **how.pop("headers", {})}
        how.setdefault("framing", "chunked")
        return cls(headers=headers, body=[step(item) for item in items], **how)

    def head(self) -> bytes:
        """The status line and the headers."""
        fields = dict(self.headers)
        if self.framing == "chunked":
            fields["transfer-encoding"] = "chunked"
        elif self.framing == "length":
            # An answer that shall not end properly promises more than it sends.
            missing = 0 if self.ending == "complete" else 1
            length = sum(len(step) for step in self.body if isinstance(step, bytes)) + missing
            fields.setdefault("content-length", str(length))
        else:
            fields["connection"] = "close"
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {self.status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


Answer: TypeAlias = Reply | Callable[[Request], Reply]
"""A reply, or a function that makes one for a request."""


class ScriptedPeer:
    """The server.  ``async with`` runs it on this loop, ``with`` on a thread of its own.

    A request is answered by the route of its path, else by the next reply of the script, else by
    the fallback.

    Args:
        fallback: the answer to requests that nothing else answers.
        tls: makes it an ``https:`` server.

    Attributes:
        requests: what has arrived so far, in order.
        connections_opened: how many connections were accepted so far.
    """

    def __init__(
        self, *, fallback: Answer | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[Request] = []
        self.connections_opened = 0
        self._fallback = fallback or Reply.json({"error": "not in the script"}, status=404)
        self._tls = tls
        self._script: deque[Answer] = deque()
        self._routes: dict[str, Answer] = {}
        self._port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None
        self._left: list[int] = []
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:<port>``; stays the same over `stop` and `start`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._connections)

    def script(self, *answers: Answer) -> None:
        """Append to what is answered, one request after the other, on whatever path."""
        self._script += answers

    def route(self, path: str, answer: Answer) -> None:
        """Answer every request for ``path`` (its query does not matter) with ``answer``."""
        self._routes[path] = answer

    async def wait_for_request(self, n: int = 1, timeout_s: float = 10.0) -> Request:
        """The ``n``-th request, counted from 1, as soon as it is there."""
        await self._until(lambda: len(self.requests) >= n, f"request {n}", timeout_s)
        return self.requests[n - 1]

    async def wait_for_disconnect(self, n: int = 1, timeout_s: float = 10.0) -> int:
        """Wait until clients have closed ``n`` connections; returns the number of the last one."""
        await self._until(lambda: len(self._left) >= n, f"disconnect {n}", timeout_s)
        return self._left[n - 1]

    async def close_idle_connections(self) -> None:
        """Close the connections on which no request is being answered."""
        for connection in [each for each in self._connections if each.idle]:
            await connection.end()

    async def start(self) -> None:
        """Listen; after a `stop` on the same port as before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self._port, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close every connection.

        Raises:
            Exception: what a function of the script raised, or a request that was no HTTP.
        """
        server, self._server = self._server, None
        if server is None:
            return
        with contextlib.suppress(NotImplementedError):
            # asyncio loses what it accepts right before the end: accept nothing more, and let
            # what has been accepted become a connection, which takes some turns of the loop.
            asyncio.get_running_loop().remove_reader(server.sockets[0].fileno())
            for _ in range(5):
                await asyncio.sleep(0)
        server.close()
        for connection in list(self._connections):
            await connection.end()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await server.wait_closed()
        if self._failure is not None:
            raise self._failure

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        self._thread = LoopThread("scripted-peer")
        self._on_thread(self.start())
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._on_thread(self.stop())
        finally:
            self._thread.stop()

    def _on_thread(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._thread.loop).result()

    def _arrived(self, request: Request) -> Reply:
        """Take down a request and choose its reply."""
        self.requests.append(request)
        self._changed()
        answer = self._routes.get(request.path.partition("?")[0])
        if answer is None:
            answer = self._script.popleft() if self._script else self._fallback
        return answer if isinstance(answer, Reply) else answer(request)

    def _opened(self, connection: _Connection) -> int:
        self._connections.add(connection)
        self.connections_opened += 1
        return self.connections_opened

    def _closed(self, connection: _Connection, by_client: bool) -> None:
        self._connections.discard(connection)
        if by_client:
            self._left.append(connection.number)
        self._changed()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._failure = self._failure or error

    def _changed(self) -> None:
        for future in list(self._waiting):
            # Whoever waits may do so on another loop, when we run on a thread of our own.
            future.get_loop().call_soon_threadsafe(_wake, future)

    async def _until(self, reached: Callable[[], bool], what: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait(reached)
        except TimeoutError:
            seen = [f"{request.method} {request.path}" for request in self.requests]
            raise AssertionError(
                f"{what} did not come within {timeout_s:g} s; requests so far: {seen}, "
                f"connections opened: {self.connections_opened}, closed by clients: {self._left}"
            ) from None

    async def _wait(self, reached: Callable[[], bool]) -> None:
        while True:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                if reached():
                    return
                await future
            finally:
                self._waiting.remove(future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection: a task that reads requests and plays replies until either side ends it."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self._peer = peer
        self._received = bytearray()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._closing = False
        self.idle = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.number = self._peer._opened(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())
        self._peer._tasks.add(self._task)
        self._task.add_done_callback(self._peer._ended)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self.idle = False
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost.set()
        self._task.cancel()
        self._peer._closed(self, by_client=not self._closing)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def close(self) -> None:
        self._closing = True
        self._transport.close()

    def reset(self) -> None:
        self._closing = True
        form = "hh" if sys.platform == "win32" else "ii"
        tcp = self._transport.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(form, 1, 0))
        self._transport.abort()

    async def end(self) -> None:
        """Close at once, and wait until it is closed."""
        self._closing = True
        self._transport.abort()
        await self._lost.wait()

    async def _serve(self) -> None:
        try:
            while not self._closing:
                self.idle = not self._received
                await self._play(self._peer._arrived(await self._next_request()))
        finally:
            self.close()

    async def _next_request(self) -> Request:
        while b"\r\n\r\n" not in self._received:
            await self._more()
        head = self._received.partition(b"\r\n\r\n")[0]
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        headers = Headers((name, value.strip()) for name, _, value in pairs)
        size = int(headers.get("content-length", "0"))
        while len(self._received) < len(head) + 4 + size:
            await self._more()
        end = len(head) + 4 + size
        body = bytes(self._received[len(head) + 4 : end])
        del self._received[:end]
        return Request(method, path, headers, body, self.number)

    async def _more(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _play(self, reply: Reply) -> None:
        if reply.instead is not None:
            await self._break(reply.instead)
            return
        if reply.framing != "raw":
            await self._write(reply.head(), reply.write_size)
        for step in reply.body:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, bytes):
                piece = b"%x\r\n%b\r\n" % (len(step), step) if reply.framing == "chunked" else step
                await self._write(piece, reply.write_size)
            else:
                await asyncio.sleep(step)
        if reply.ending == "half_chunk":
            await self._write(b"ff\r\nhalf", reply.write_size)
            self.close()
        elif reply.ending != "complete":
            await self._break(reply.ending)
        else:
            if reply.framing == "chunked":
                await self._write(b"0\r\n\r\n", reply.write_size)
            closes = reply.headers.get("connection") == "close"
            if closes or reply.framing in ("close", "raw"):
                self.close()

    async def _break(self, how: Literal["close", "reset", "hang"]) -> None:
        if how == "reset":
            self.reset()
        elif how == "close":
            self.close()
        else:
            await self._lost.wait()

    async def _write(self, data: bytes, size: int | None) -> None:
        size = size or len(data) or 1
        for start in range(0, len(data), size):
            await self._writable.wait()
            self._transport.write(data[start : start + size])
            # One turn of the loop, so that a client on it reads piece by piece.
            await asyncio.sleep(0)
