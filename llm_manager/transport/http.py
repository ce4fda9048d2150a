"""HTTP to one server: the only place of this library that sends anything over a network.

::

    HttpTransport ── one client per event loop ── pool of connections ── sockets
         │               clients.py                 pool.py              sockets.py
         ├── the way there: proxy, certificates     route.py
         └── errors of the library below -> ours    faults.py

What this module must not do: know a dialect, repeat a request whose answer had begun, or
follow a redirect, which would hand the key to another server.

The HTTP library is loaded with the first request, in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..config import KEY_HEADERS, check_base_url
from ..errors import (
    ConfigurationError,
    InvalidResponseError,
    LLMError,
    RequestTimeoutError,
)
from ..wire.failures import from_http
from . import faults
from .clients import ClientPerLoop, HeldClient, NewClient, closed_error

if TYPE_CHECKING:
    import httpx2

    from .route import Route

MAX_CONNECTIONS = 100
CONNECT_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 120.0
"""For one piece of a request; a photograph on a slow line takes a while."""
POOL_TIMEOUT_S = 60.0
"""How long a request waits until one of the connections is free."""
ANSWER_LIMIT_BYTES = 32 * 1024 * 1024
STREAM_LIMIT_BYTES = 256 * 1024 * 1024
"""Of a streamed answer; a hundred thousand tokens, each in an event of its own, take a tenth."""
ERROR_BODY_LIMIT_BYTES = 64 * 1024
ERROR_BODY_TIMEOUT_S = 2.0

_ACCEPT_ANYTHING = {"accept": "*/*", "user-agent": "llm-manager"}

Headers = Mapping[str, str]


class HttpTransport:
    """Requests to one server, from as many event loops and threads as there are.

    Building one opens nothing and reads nothing; a proxy or certificate file that cannot work is
    an error of the first request, or of `open`.

    Every method raises, besides what it says itself:

    * ConfigurationError, DependencyMissingError: address, proxy, certificates or headers cannot
      work; nothing was sent.
    * ProviderConnectionError: no connection, or it ended without an answer.
    * RequestTimeoutError: no connection, or no complete answer, in time.
    * ProviderError, one of its subclasses: the server answered with an error.

    Args:
        base_url: where the server is; paths are appended to it.
        headers: sent with every request, or a function that is asked for them each time.
        secrets: returns texts that must not appear in any error; what is in the usual headers
            for keys is known without it.
        connect_timeout_s: how long opening a connection may take, TLS included, in seconds.
        client: an `httpx2.AsyncClient` (or one of httpx) to use instead of an own one; the caller
            closes it, and its own connection settings and proxies count.
        ca_file: PEM file of certificates to trust besides those of the operating system.
        proxy: URL of a proxy; None asks the environment.
        use_environment_proxies: whether HTTPS_PROXY, ALL_PROXY, NO_PROXY and the like count; they
            never do for servers on this machine.
        on_answer: told the headers of each answer that is no error.
        max_connections: how many connections each event loop may open at once; more requests wait.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Callable[[], Headers] | Headers | None = None,
        secrets: Callable[[], Iterable[str]] = tuple,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        client: httpx2.AsyncClient | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        proxy: str | None = None,
        use_environment_proxies: bool = True,
        on_answer: Callable[[Headers], None] | None = None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = headers or {}
        self._secrets = secrets
        self._connect_timeout_s = connect_timeout_s
        self._given_client = client
        self._ca_file = ca_file
        self._proxy = proxy
        self._use_environment_proxies = use_environment_proxies
        self._on_answer = on_answer
        self._max_connections = max_connections
        self._route: Route | None = None
        self._clients = ClientPerLoop(self._prepare)

    async def open(self) -> None:
        """Get ready to send: load the HTTP library and the certificates, find the proxy."""
        await self._clients.here()

    async def stream(
        self,
        path: str,
        body: bytes,
        *,
        connect_timeout_s: float | None = None,
        method: str = "POST",
        limit_bytes: int = STREAM_LIMIT_BYTES,
    ) -> AsyncGenerator[bytes, None]:
        """The body of the answer, as it arrives; there is no limit on the time between pieces.

        Closing the generator closes the connection, unless the answer was complete.

        Args:
            path: appended to the base URL.
            body: JSON to send.
            connect_timeout_s: other limit for opening a connection, in seconds.
            method: HTTP method.
            limit_bytes: how long the body may be.

        Raises:
            StreamInterruptedError: the connection broke before the answer was complete.
            InvalidResponseError: the answer is longer than it may be.
        """
        # Compression would only make pieces wait for each other.
        response = await self._answer(
            method, path, body, {"accept-encoding": "identity"}, connect_timeout_s
        )
        failure: LLMError | None = None
        received_bytes = 0
        try:
            async with aclosing(_pieces(response)) as pieces:
                async for piece in pieces:
                    received_bytes += len(piece)
                    if received_bytes > limit_bytes:
                        failure = self._too_long(limit_bytes)
                        break
                    yield piece
        except Exception as error:  # a caller's client may raise those of another library
            if not faults.is_fault(error):
                raise
            failure = self._interrupted(error, response)
        finally:
            await _close(response)
        if failure is not None:
            raise failure

    async def get(self, path: str, *, timeout_s: float) -> bytes:
        """The body of the answer to a GET; ``timeout_s`` limits the whole request, in seconds.

        Raises:
            InvalidResponseError: the answer is larger than 32 MiB.
        """
        return await self._whole("GET", path, None, timeout_s)

    async def post(self, path: str, body: bytes, *, timeout_s: float) -> bytes:
        """The body of the answer to a POST of JSON; otherwise as `get`."""
        return await self._whole("POST", path, body, timeout_s)

    async def delete(self, path: str, body: bytes | None = None, *, timeout_s: float) -> bytes:
        """The body of the answer to a DELETE, of JSON if ``body`` is given; otherwise as `get`."""
        return await self._whole("DELETE", path, body, timeout_s)

    def forget_idle(self) -> None:
        """Close connections that wait for their next request before they get it; on every loop."""
        self._clients.forget_idle()

    async def aclose(self) -> None:
        """Close every connection, on whatever loop; what is still running fails.  Idempotent."""
        await self._clients.aclose()

    # ---- one request -----------------------------------------------------------------------------

    async def _whole(self, method: str, path: str, body: bytes | None, timeout_s: float) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._read(await self._answer(method, path, body, {}, None))
        except TimeoutError:
            pass
        raise RequestTimeoutError(f"no complete answer from {self._server} within {timeout_s:g} s")

    async def _read(self, response: httpx2.Response) -> bytes:
        received, failure = bytearray(), None
        try:
            await _collect(response, received, ANSWER_LIMIT_BYTES)
        except Exception as error:  # a caller's client may raise those of another library
            if not faults.is_fault(error):
                raise
            failure = self._interrupted(error, response)
        if failure is not None:
            raise failure
        if len(received) > ANSWER_LIMIT_BYTES:
            raise self._too_long(ANSWER_LIMIT_BYTES)
        return bytes(received)

    async def _answer(
        self,
        method: str,
        path: str,
        body: bytes | None,
        extra_headers: Headers,
        connect_timeout_s: float | None,
    ) -> httpx2.Response:
        """The answer to a request, with its body still to be read, if it is a success."""
        limit_s = self._connect_timeout_s if connect_timeout_s is None else connect_timeout_s
        held = await self._clients.here()
        await held.close_forgotten()
        request = self._request(held.client, method, path, body, limit_s)
        # Never a local variable: error reporters show those of every frame.
        request.headers.update(self._header_fields(body, extra_headers))
        response = await self._send(held, request, limit_s)
        await self._refuse_failure(response)
        self._note_answer(response)
        return response

    def _note_answer(self, response: httpx2.Response) -> None:
        if self._on_answer is not None:
            self._on_answer(response.headers)

    async def _refuse_failure(self, response: httpx2.Response) -> None:
        """Raise the error that an answer stands for, unless it is a success."""
        if not response.is_success:
            raise from_http(
                response.status_code,
                await _beginning(response),
                dict(response.headers),
                url=str(response.request.url),
                secrets=self._known_secrets(response.request),
            )

    async def _send(
        self,
        held: HeldClient,
        request: httpx2.Request,
        connect_timeout_s: float,
        *,
        once: bool = False,
    ) -> httpx2.Response:
        failure = None
        try:
            return await held.client.send(request, stream=True, follow_redirects=False)
        except Exception as error:  # a caller's client may raise those of another library
            if not faults.is_fault(error):
                raise
            if once or not faults.is_stale(error):
                failure = self._no_answer(error, connect_timeout_s, request)
        if failure is not None:
            raise failure
        if held.pool is not None:
            # Where one was dead the others are, too: only a new one is a fair second chance.
            await held.pool.close_idle()
        return await self._send(held, request, connect_timeout_s, once=True)

    def _request(
        self,
        client: httpx2.AsyncClient,
        method: str,
        path: str,
        body: bytes | None,
        connect_timeout_s: float,
    ) -> httpx2.Request:
        # Reading has no limit: of streams the content is watched, of the rest the whole request.
        timeout = (connect_timeout_s, None, WRITE_TIMEOUT_S, POOL_TIMEOUT_S)
        try:
            return client.build_request(method, self.base_url + path, content=body, timeout=timeout)
        except Exception as error:  # a caller's client may raise those of another library
            if not faults.is_fault(error):
                raise
            failure = self._no_answer(error, connect_timeout_s, None)
        raise failure

    def _header_fields(self, body: bytes | None, extra: Headers) -> Headers:
        content = {} if body is None else {"content-type": "application/json"}
        return {**_ACCEPT_ANYTHING, **content, **extra, **self._given_headers()}

    def _given_headers(self) -> dict[str, str]:
        given = self._headers() if callable(self._headers) else self._headers
        wrong = [name for name, value in given.items() if not _can_be_sent(value)]
        if wrong:
            del given  # error reporters show the variables of every frame
            raise ConfigurationError(
                f"the value of the header {wrong[0]!r} holds a line break or a character "
                "outside ASCII",
                hint="check what is passed as headers= and api_key=",
            )
        return {name.lower(): value for name, value in given.items()}

    def _known_secrets(self, request: httpx2.Request | None) -> list[str]:
        sent = {} if request is None else request.headers
        return [
            *self._secrets(),
            *(sent[name].rpartition(" ")[2] for name in KEY_HEADERS if name in sent),
        ]

    @property
    def _server(self) -> str:
        return urlsplit(self.base_url).netloc

    def _no_answer(
        self, error: Exception, connect_timeout_s: float, request: httpx2.Request | None
    ) -> LLMError:
        if self._clients.closed:
            return closed_error()
        proxy = None if self._route is None else self._route.proxy
        return faults.no_answer(
            error,
            server=self._server,
            proxy=None if proxy is None else urlsplit(proxy).netloc.rpartition("@")[2],
            connect_timeout_s=connect_timeout_s,
            secrets=self._known_secrets(request),
        )

    def _interrupted(self, error: Exception, response: httpx2.Response) -> LLMError:
        secrets = self._known_secrets(response.request)
        return faults.interrupted(error, server=self._server, secrets=secrets)

    def _too_long(self, limit_bytes: int) -> LLMError:
        return InvalidResponseError(
            f"the answer of {self._server} is larger than {limit_bytes / 2**20:g} MiB"
        )

    def _prepare(self) -> NewClient:
        """What makes clients; runs in a thread."""
        given = self._given_client
        if given is not None:
            check_base_url(self.base_url)
            return lambda: (given, None)
        module = importlib.import_module(".route", __package__)
        route: Route = module.find_route(
            self.base_url,
            ca_file=self._ca_file,
            proxy=self._proxy,
            use_environment_proxies=self._use_environment_proxies,
        )
        self._route = route
        return lambda: route.client(self._max_connections)


def _can_be_sent(value: object) -> bool:
    """Whether it is printable ASCII: no line break, and nothing that the library cannot encode."""
    return isinstance(value, str) and value.isascii() and value.isprintable()


def _pieces(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    if response.headers.get("content-encoding", "identity") == "identity":
        return response.aiter_raw()
    return response.aiter_bytes()


async def _beginning(response: httpx2.Response) -> bytes:
    """As much of an error's body as arrives soon; a broken one is as good as a short one."""
    received = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_TIMEOUT_S):
            await _collect(response, received, ERROR_BODY_LIMIT_BYTES)
    except Exception as error:  # a caller's client may raise those of another library
        if not faults.is_fault(error):
            raise
    return bytes(received[:ERROR_BODY_LIMIT_BYTES])


async def _collect(response: httpx2.Response, received: bytearray, limit_bytes: int) -> None:
    """Append the body to ``received`` until that exceeds the limit, and close the answer."""
    try:
        async with aclosing(response.aiter_bytes()) as pieces:
            async for piece in pieces:
                received += piece
                if len(received) > limit_bytes:
                    break
    finally:
        await _close(response)


async def _close(response: httpx2.Response) -> None:
    try:
        await response.aclose()
    except Exception as error:  # a caller's client may raise those of another library
        # There is nothing left to read; how the connection ended no longer matters.
        if not faults.is_fault(error):
            raise
