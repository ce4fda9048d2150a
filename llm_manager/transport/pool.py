"""The client below `HttpTransport`: httpx2 on a pool of httpcore2, on sockets of our own.

What this module must not do: know anything about settings, errors of ours, or retries.  It and
`sockets` are the only ones that import the HTTP library, so that it can be loaded late and off the
event loop.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, TypeAlias

import httpcore2
import httpx2

from .sockets import Network

MAX_IDLE_CONNECTIONS = 20
IDLE_LIMIT_S = 55.0
"""Common load balancers drop idle connections after 60 s, some of them without a word."""

Client: TypeAlias = httpx2.AsyncClient


def new_client(
    *,
    tls: ssl.SSLContext | None,
    proxy: str | None,
    layers: int,
    max_connections: int,
    network: Network | None = None,
) -> tuple[Client, Pool]:
    """A client that takes nothing from the environment, and its pool; see `Pool`."""
    pool = Pool(
        tls=tls, proxy=proxy, layers=layers, max_connections=max_connections, network=network
    )
    client = httpx2.AsyncClient(
        transport=pool, trust_env=False, follow_redirects=False, timeout=None
    )
    return client, pool


def new_tls_context(ca_file: str | None) -> ssl.SSLContext:
    """A context that trusts the operating system's certificates, and those in ``ca_file``.

    Without ``ca_file``, ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` replace the system's.

    Raises:
        OSError: a file or folder of certificates cannot be read.
    """
    context = httpx2.create_ssl_context(trust_env=ca_file is None)
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def proxy_problem(url: str) -> str | None:
    """Why ``url`` cannot be a proxy, or None if it can."""
    try:
        httpx2.Proxy(url)
    except (httpx2.InvalidURL, ValueError) as error:
        return type(error).__name__
    return None


class Pool(httpx2.AsyncBaseTransport):
    """A pool of connections to one server.

    Args:
        tls: needed for an ``https:`` server or proxy, otherwise None.
        proxy: URL of a proxy with scheme ``http``, ``https``, ``socks5`` or ``socks5h``, or None.
        layers: how many layers of TLS a connection gets: one for an ``https:`` server, one for an
            ``https:`` proxy.
        max_connections: how many connections may be open at once.
        network: opens the connections, if not the usual one.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None,
        proxy: str | None,
        layers: int,
        max_connections: int,
        network: Network | None = None,
    ) -> None:
        self._network = network or Network(layers)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            proxy=None if proxy is None else _proxy(proxy, tls),
            max_connections=max_connections,
            max_keepalive_connections=MAX_IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_LIMIT_S,
            network_backend=self._network,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send ``request``; the errors of httpcore2 come out as they are."""
        assert isinstance(request.stream, AsyncIterable)
        url = request.url
        answer = await self._pool.handle_async_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx2.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(answer.stream),
            extensions=answer.extensions,
        )

    async def close_idle(self) -> None:
        """Close the connections that wait for their next request."""
        for connection in self._pool.connections:
            if connection.is_idle():
                await connection.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        try:
            await self._pool.aclose()
        finally:
            self._network.close()


def _proxy(address: str, tls: ssl.SSLContext | None) -> httpcore2.Proxy:
    given = httpx2.Proxy(address)
    url = given.url
    return httpcore2.Proxy(
        httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/"),
        auth=given.raw_auth,
        ssl_context=tls if url.scheme == "https" else None,
    )


class _Body(httpx2.AsyncByteStream):
    """The body of an answer, without another generator around that of the pool."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        pieces: AsyncIterator[bytes] = self._stream.__aiter__()
        return pieces

    async def aclose(self) -> None:
        await self._stream.aclose()
