"""A server on raw sockets that is well until a script makes it fail.

It knows just enough of HTTP to read a request.  Every byte that it sends is written out by itself
or by a script, so no library can mend what is meant to be broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Self, TypeAlias

from .dialects import Dialect

_TLS_HANDSHAKE = b"\x16"


@dataclass(frozen=True)
class Request:
    """What was asked, and on the how many-th connection, counted from 1."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def is_for_an_answer(self) -> bool:
        """Whether it is no mere question for the models, which costs nothing."""
        return self.method != "GET"


class Talk:
    """One connection as a script sees it."""

    def __init__(
        self,
        dialect: Dialect,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
    ) -> None:
        self.dialect = dialect
        self.number = number
        self._reader = reader
        self._writer = writer

    async def request(self) -> Request | None:
        """The next request; None if the client has gone."""
        try:
            start = await self._reader.readexactly(1)
            if start == _TLS_HANDSHAKE:
                return Request("TLS", "", {}, b"", self.number)
            head = start + await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").rstrip().split("\r\n")
            method, path, _ = first.split(" ", 2)
            fields = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in fields}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Request(method, path, headers, body, self.number)

    async def send(self, data: bytes) -> None:
        """Send ``data`` and let the client have a turn."""
        self._writer.write(data)
        await self._writer.drain()
        await asyncio.sleep(0)

    async def answer(
        self, status: int, body: bytes, *, media: str = "application/json", **headers: str
    ) -> None:
        """A whole answer, after which the connection stays open."""
        fields = {"content-type": media, "content-length": str(len(body)), **headers}
        await self.send(head(status, fields) + body)

    async def begin(self) -> None:
        """The head of a stream."""
        fields = {"content-type": self.dialect.media, "transfer-encoding": "chunked"}
        await self.send(head(200, fields))

    async def piece(self, data: bytes) -> None:
        """A piece of a stream."""
        await self.send(chunk(data))

    async def end(self) -> None:
        """The proper end of a stream, as far as HTTP is concerned."""
        await self.send(b"0\r\n\r\n")

    async def well(self, request: Request) -> None:
        """Answer as a server does that has no trouble."""
        dialect = self.dialect
        if request.is_for_an_answer:
            await self.begin()
            for part in (dialect.begins, dialect.goes_on, dialect.ends):
                await self.piece(part)
            await self.end()
            return
        if request.method == "TLS":
            await self.answer(400, b"this is no HTTP", media="text/plain")
            self.close()
            return
        path = request.path.partition("?")[0].removeprefix(dialect.below)
        if path in dialect.questions:
            await self.answer(200, json.dumps(dialect.questions[path]).encode())
        else:
            await self.answer(404, dialect.error_body(404))

    async def hang(self) -> None:
        """Say nothing more until the client has gone."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def reset(self) -> None:
        """End the connection without the courtesies, as a crash does."""
        tcp = self._writer.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        """End the connection properly; what is sent already arrives."""
        self._writer.close()

    @property
    def closing(self) -> bool:
        return self._writer.is_closing()


Script: TypeAlias = Callable[[Talk, Request], Awaitable[None]]
"""What to do instead of answering a request."""


class FaultServer:
    """The server; ``async with`` runs it.

    Args:
        dialect: how it answers while it is well.
        tls: makes it an ``https:`` server.

    Attributes:
        fault: what it does instead of answering, or None while it is well.
        only_answers: whether questions for the models are answered all the same.
        asked: the requests so far.
    """

    def __init__(self, dialect: Dialect, *, tls: ssl.SSLContext | None = None) -> None:
        self.fault: Script | None = None
        self.only_answers = False
        self.asked: list[Request] = []
        self._dialect = dialect
        self._tls = tls
        self._talks: dict[asyncio.Task[None], Talk] = {}
        self._opened = 0

    @property
    def address(self) -> str:
        """``http://127.0.0.1:<port>``."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def each_connection(self, do: Callable[[Talk], None]) -> None:
        """Do something to all connections that are open."""
        for talk in self._talks.values():
            do(talk)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, ssl=self._tls, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        # What was accepted already becomes a connection within some turns of the loop.
        for _ in range(5):
            await asyncio.sleep(0)
        for task in list(self._talks):
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._opened += 1
        talk = Talk(self._dialect, reader, writer, self._opened)
        task = asyncio.get_running_loop().create_task(self._serve(talk, writer))
        self._talks[task] = talk
        task.add_done_callback(self._talks.pop)

    async def _serve(self, talk: Talk, writer: asyncio.StreamWriter) -> None:
        try:
            while not talk.closing and (request := await talk.request()) is not None:
                self.asked.append(request)
                spared = self.only_answers and not request.is_for_an_answer
                script = None if spared else self.fault
                await (talk.well(request) if script is None else script(talk, request))
        except ConnectionError:
            pass  # the client has had enough
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()


def head(status: int, fields: Mapping[str, str]) -> bytes:
    """Status line and headers; an underscore in a name stands for a hyphen."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    return f"HTTP/1.1 {status} Status\r\n{''.join(lines)}\r\n".encode("latin-1")


def chunk(data: bytes) -> bytes:
    """``data`` as a piece of a body of which the length is not known yet."""
    return b"%x\r\n%b\r\n" % (len(data), data)
