"""The sockets below the pool of connections, on asyncio alone.

They are our own for two reasons.  They know whether a connection had already served a request and
whether any byte of an answer came, which decides if a request may be sent again without asking.
And reading from them costs a third less CPU than from the pool's own, because a server sends one
small piece at a time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import zip_longest
from typing import Any, TypeAlias

import httpcore2

from .certificate import issuer_shown_by

HEAD_START_S = 0.25
"""How long one address of a server may be silent before the next one is tried as well."""

# So much of an answer tells whether it is HTTP, or one of a SOCKS proxy that is yet to connect us.
_START_BYTES = len(b"HTTP/")
_SOCKS = b"\x05"
_READ_AHEAD_BYTES = 256 * 1024
_TCP_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in [
        ("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", 60),
        ("TCP_KEEPINTVL", 60),
        ("TCP_KEEPCNT", 5),
    ]
    if hasattr(socket, name)
]

Address: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]"


class StaleConnectionError(httpcore2.ReadError):
    """A pooled connection turned out dead before any byte of the answer came."""


class NotHTTPError(httpcore2.RemoteProtocolError):
    """What came before the connection ended was something else than HTTP."""


class UntrustedCertificateError(httpcore2.ConnectError):
    """The certificate of a server was not accepted.

    Attributes:
        issuer: who issued it, for people, or None if that could not be found out.
    """

    def __init__(self, text: str, issuer: str | None) -> None:
        super().__init__(text)
        self.issuer = issuer


class Network(httpcore2.AsyncNetworkBackend):
    """Opens TCP connections for the pool, on which ``layers`` of TLS will follow."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._sockets: weakref.WeakSet[_Socket] = weakref.WeakSet()
        self._closed = False

    def close(self) -> None:
        """Close every connection, those too that the pool does not know yet, and open no more."""
        self._closed = True
        for opened in list(self._sockets):
            opened.abort()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        connect_by = None if timeout is None else loop.time() + timeout
        async with _connecting(connect_by):
            connected = await first_to_connect(await self._addresses(host, port))
            _, stream = await loop.create_connection(
                lambda: _Socket(self._layers, connect_by), sock=connected
            )
        if self._closed:
            stream.abort()
            raise httpcore2.ConnectError("the client was closed while it connected")
        self._sockets.add(stream)
        return stream

    async def _addresses(self, host: str, port: int) -> list[Address]:
        """Where to connect to for ``host``; nothing else is connected to."""
        return await addresses_of(host, port)


async def addresses_of(host: str, port: int) -> list[Address]:
    """The addresses of ``host``, the two families in turn."""
    kind = socket.SOCK_STREAM
    try:
        # Looking up a number never waits, so it needs no thread.  As bytes: for a text, the tables
        # for names in other scripts would be loaded, which takes 1 ms.
        number = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(number, port, type=kind, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=kind)
        except UnicodeError:
            raise socket.gaierror(socket.EAI_NONAME, "this is no host name") from None
    preferred = [each for each in found if each[0] == found[0][0]]
    others = [each for each in found if each[0] != found[0][0]]
    pairs = zip_longest(preferred, others)
    return [address for pair in pairs for address in pair if address is not None]


async def first_to_connect(addresses: Iterable[Address]) -> socket.socket:
    """A socket connected to the first address that answers.

    The next one is tried when one fails, or has been silent for a moment: where one family leads
    nowhere, the other one must not have to wait for its time-out.
    """
    untried, trying, errors = deque(addresses), set[asyncio.Task[socket.socket]](), list[OSError]()
    try:
        while untried or trying:
            if untried:
                trying.add(asyncio.create_task(_connected(untried.popleft())))
            head_start_s = HEAD_START_S if untried else None
            done, _ = await asyncio.wait(
                trying, timeout=head_start_s, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    trying.discard(attempt)
                    return attempt.result()
                if not isinstance(error, OSError):
                    raise error
                trying.discard(attempt)
                errors.append(error)
    finally:
        for attempt in trying:
            attempt.cancel()
            attempt.add_done_callback(_close_unused)
    # That one address refuses says more than that another cannot be reached.
    raise next((e for e in errors if isinstance(e, ConnectionRefusedError)), errors[0])


async def _connected(address: Address) -> socket.socket:
    family, kind, protocol, _, target = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, target)
    except BaseException:  # also when cancelled, nothing may stay open
        connection.close()
        raise
    return connection


def _close_unused(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


class _Socket(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """One connection as the pool wants it.

    Closing it never waits, so no cancellation can leave one half closed in the pool.

    Args:
        layers_to_come: while there are some, what is read belongs to opening the connection (a
            proxy says that it has connected us).
        connect_by: when the connection has to be open, on the loop's clock, or None.
    """

    _transport: asyncio.Transport

    def __init__(self, layers_to_come: int, connect_by: float | None) -> None:
        self._layers_to_come = layers_to_come
        self._connect_by = connect_by
        self._received = b""
        self._ended = False
        self._error: Exception | None = None
        self._news: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._answering = False
        self._served_before = False
        self._answer_start = b""

    def abort(self) -> None:
        """Close at once, without sending what is still waiting to be sent."""
        self._transport.abort()

    # ---- called by asyncio ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        tcp = transport.get_extra_info("socket")
        # A connection that is reset at this very moment refuses them; reading tells of it.
        with suppress(OSError):
            for option in _TCP_KEEP_ALIVE:
                tcp.setsockopt(*option)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if len(self._received) > _READ_AHEAD_BYTES:
            self._transport.pause_reading()
        _wake(self._news)

    def eof_received(self) -> None:
        self._ended = True
        _wake(self._news)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._error = error
        _wake(self._news)
        _wake(self._writable)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        _wake(self._writable)
        self._writable = None

    # ---- called by the pool ----

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._received and not self._ended:
            self._news = asyncio.get_running_loop().create_future()
            if self._layers_to_come:
                async with _connecting(self._connect_by):
                    await self._news
            elif timeout is None:
                await self._news
            else:
                await _within(timeout, self._news, httpcore2.ReadTimeout)
        if not self._received:
            return self._end()
        data, self._received = self._received[:max_bytes], self._received[max_bytes:]
        if not self._received:
            self._transport.resume_reading()
        self._answering = True
        if len(self._answer_start) < _START_BYTES:
            self._answer_start += data[:_START_BYTES]
        return data

    def _end(self) -> bytes:
        if self._served_before and not self._answering:
            raise StaleConnectionError("the server had closed the pooled connection")
        if self._error is not None:
            raise httpcore2.ReadError(str(self._error)) from self._error
        start = self._answer_start[:_START_BYTES]
        if start and not (b"HTTP/".startswith(start) or start.startswith(_SOCKS)):
            raise NotHTTPError(f"the answer began with {start!r}")
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._answering:
            # The answer before was read: what is written now is the next request.
            self._served_before, self._answering, self._answer_start = True, False, b""
        if self._ended:
            # The pool reads on after this, as an early answer may have come; `read` tells why.
            raise httpcore2.WriteError("the connection is closed")
        self._transport.write(buffer)
        if self._writable is not None:
            await _within(timeout, self._writable, httpcore2.WriteTimeout)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        secured = _Socket(self._layers_to_come - 1, self._connect_by)
        secured._transport = self._transport
        try:
            async with _connecting(self._connect_by):
                transport = await asyncio.get_running_loop().start_tls(
                    self._transport, secured, ssl_context, server_hostname=server_hostname
                )
            assert transport is not None
            secured.connection_made(transport)
        except httpcore2.ConnectError as error:
            self._transport.abort()
            if not isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise
            issuer = await self._issuer_shown(server_hostname)
            # The pool takes the cause off what passes through it, but not the context.
            raise UntrustedCertificateError(str(error), issuer) from error
        except BaseException:  # also when cancelled, nothing may stay open
            self._transport.abort()
            raise
        return secured

    async def _issuer_shown(self, host_name: str | None) -> str | None:
        """Who issued the certificate of the server, unless a proxy stands before it."""
        if self._answering:
            return None
        return await issuer_shown_by(self._transport.get_extra_info("peername"), host_name)

    async def aclose(self) -> None:
        self._transport.abort()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._ended or bool(self._received)
        return self._transport.get_extra_info(info)


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


async def _within(
    timeout_s: float | None, news: asyncio.Future[None], too_late: type[Exception]
) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await news
    except TimeoutError:
        raise too_late from None


@asynccontextmanager
async def _connecting(connect_by: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(connect_by):
            yield
    except TimeoutError:
        raise httpcore2.ConnectTimeout from None
    except OSError as error:
        raise httpcore2.ConnectError(str(error)) from error
