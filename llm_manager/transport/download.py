"""Fetches one file from wherever a URL leads, and connects only where it is permitted.

A name is resolved once for each connection, and what comes out is both checked and connected to:
a name that means another address a moment later changes nothing.

What this module must not do: use a proxy, behind which nothing could be checked; send anything of
the caller's but the URL; unpack what is compressed.

It loads the HTTP library; import it in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

import httpx2

from ..errors import (
    InvalidParameterError,
    InvalidResponseError,
    LLMError,
    ProviderAPIError,
    RequestTimeoutError,
)
from ..redaction import redact
from . import faults
from .pool import new_client
from .route import find_route
from .sockets import Address, Network, addresses_of

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 10.0

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429})
_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "llm-manager"}

Permits: TypeAlias = Callable[[str], bool]
"""Whether an IP address, written as text, may be connected to."""
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[Address]]]
"""The addresses of a host and port, as `socket.getaddrinfo` gives them."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file that was fetched.

    Attributes:
        url: where it was found after all redirects.
        data: its content.
        media_type: what the server says that it is, or None.
    """

    url: str
    data: bytes
    media_type: str | None


async def download(
    url: str,
    *,
    max_bytes: int,
    timeout_s: float,
    permits: Permits,
    resolve: Resolve = addresses_of,
) -> Download:
    """The file at ``url``.

    Args:
        max_bytes: the largest file to accept.
        timeout_s: limit for all of it, in seconds.
        permits: which addresses may be connected to.
        resolve: how names become addresses.

    Raises:
        InvalidParameterError: the URL cannot be one, leads to an address that is not permitted
            (code ``private_address``), or to a file that is too large (``media_too_large``).
        ProviderAPIError: the server answered with an error.
        ProviderConnectionError, RequestTimeoutError, StreamInterruptedError, InvalidResponseError:
            no answer, or none that can be read.
    """
    start = url
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(MAX_REDIRECTS + 1):
                _check_url(url)
                network = _Checked(int(_scheme(url) == "https"), permits, resolve)
                found = await _one_answer(url, network, max_bytes)
                if isinstance(found, Download):
                    return found
                url = _next_url(url, found)
    except TimeoutError:
        pass
    else:
        raise InvalidResponseError(f"{_shown(start)} leads on more than {MAX_REDIRECTS} times")
    raise RequestTimeoutError(f"{_shown(start)} was not read within {timeout_s:g} s")


class _Checked(Network):
    """Connects to permitted addresses only."""

    def __init__(self, layers: int, permits: Permits, resolve: Resolve) -> None:
        super().__init__(layers)
        self._permits = permits
        self._resolve = resolve

    async def _addresses(self, host: str, port: int) -> list[Address]:
        found = await self._resolve(host, port)
        permitted = [address for address in found if self._permits(address[4][0])]
        if not permitted:
            where = ", ".join(dict.fromkeys(address[4][0] for address in found))
            raise InvalidParameterError(
                f"{host} is at {where}, which is no public address",
                code="private_address",
                hint="if you trust where this URL comes from, pass allow_private=True",
            )
        return permitted


async def _one_answer(url: str, network: Network, max_bytes: int) -> Download | str:
    """The file at ``url``, or the location to which it leads on."""
    route = await asyncio.to_thread(
        find_route, _origin(url), ca_file=None, proxy=None, use_environment_proxies=False
    )
    client, _ = new_client(
        tls=route.tls, proxy=None, layers=route.layers, max_connections=1, network=network
    )
    failure: LLMError | None = None
    answered = False
    async with client:
        try:
            timeout = httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S)
            async with client.stream("GET", url, headers=_HEADERS, timeout=timeout) as response:
                answered = True
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    return response.headers["location"]
                _check_head(url, response, max_bytes)
                data = await _body(url, response, max_bytes)
                return Download(url, data, response.headers.get("content-type"))
        except Exception as error:  # of whichever library lies below; others are raised again
            if not faults.is_fault(error):
                raise
            failure = _failure(error, url, answered)
    raise failure


def _check_head(url: str, response: httpx2.Response, max_bytes: int) -> None:
    status = response.status_code
    if status != 200:
        raise ProviderAPIError(
            f"{_shown(url)} cannot be fetched: the server answers {status}",
            http_status=status,
            retryable=status in _PASSING or status >= 500,
        )
    packing = response.headers.get("content-encoding", "identity")
    if packing != "identity":
        raise InvalidResponseError(
            f"{_shown(url)} comes compressed ({packing}), which was not asked for"
        )
    announced = response.headers.get("content-length", "")
    if announced.isdigit():
        _check_size(url, int(announced), max_bytes)


async def _body(url: str, response: httpx2.Response, max_bytes: int) -> bytes:
    received = bytearray()
    async with aclosing(response.aiter_raw()) as pieces:
        async for piece in pieces:
            received += piece
            _check_size(url, len(received), max_bytes)
    return bytes(received)


def _check_size(url: str, size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise InvalidParameterError(
            f"{_shown(url)} has at least {size_bytes} bytes; at most {max_bytes} are accepted",
            code="media_too_large",
        )


def _failure(error: Exception, url: str, answered: bool) -> LLMError:
    server = urlsplit(url).netloc.rpartition("@")[2]
    if answered:
        return faults.interrupted(error, server=server, secrets=())
    return faults.no_answer(
        error, server=server, proxy=None, connect_timeout_s=CONNECT_TIMEOUT_S, secrets=()
    )


# ---- URLs ----------------------------------------------------------------------------------------


def _check_url(url: str) -> None:
    problem = None
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            problem = "the scheme must be http or https"
        elif not parts.hostname:
            problem = "it names no host"
        elif parts.port == 0:
            problem = "port 0 is none"
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL) as error:
        problem = problem or str(error)
    if problem is not None:
        raise InvalidParameterError(f"{_shown(url)} cannot be fetched: {problem}")


def _next_url(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
    except ValueError:
        target = location  # which `_check_url` will complain about
    if (_scheme(url), _scheme(target)) == ("https", "http"):
        raise InvalidParameterError(
            f"{_shown(url)} leads from https to {_shown(target)}, which anybody can change",
            hint="use a URL that stays with https",
        )
    return target


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _shown(url: str) -> str:
    text = redact(url)
    return repr(text if len(text) <= 120 else f"{text[:117]}...")
