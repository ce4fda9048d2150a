"""What providers on HTTP share: an address, a key bound to it, and a transport."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..config import ApiKey, KeySource, check_base_url, is_loopback, warn_if_key_is_readable
from ..errors import ConfigurationError
from ..messages import LLMRequest
from ..policy.deadline import LOCAL_TIMEOUTS
from ..provider import BaseLLMProvider
from ..supervisor import LOCAL_BACKOFF
from ..transport.http import HttpTransport


class HttpProvider(BaseLLMProvider):
    """A provider that is reached over HTTP.

    A server on this machine gets other time limits: it may load a model before it answers, and it
    comes back quickly when it is started.

    Args:
        base_url: where the server is; a key found in the environment is not sent to another host
            than the one that it belongs to.
        api_key: the key, or a function that returns it.
        headers: sent with every request.
        ca_file: certificates to trust, for a server with a private authority.
        proxy: URL of a proxy; default: the one that the environment names.
        client: an `httpx2.AsyncClient` to use instead of an own one; the caller closes it.
        common: see `BaseLLMProvider`.

    Raises:
        ConfigurationError: there is no address, or it cannot be one.
        AuthenticationError: the given key cannot be sent.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: KeySource = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        proxy: str | None = None,
        client: Any = None,
        default_base_url: str | None = None,
        base_url_variables: Sequence[str] = (),
        key_variables: Sequence[str] = (),
        key_required: bool = True,
        **common: Any,
    ) -> None:
        address, where = _address(base_url, base_url_variables, default_base_url)
        self.base_url = check_base_url(address, where)
        self.is_local = is_loopback(self.base_url)
        if self.is_local:
            self.default_timeouts = LOCAL_TIMEOUTS
            self.backoff = LOCAL_BACKOFF
        # A key from the environment belongs to the server that the environment or the row names.
        foreign = base_url is not None and not _same_host(self.base_url, default_base_url)
        self._key = ApiKey(
            api_key,
            variables=() if foreign else key_variables,
            withheld=key_variables if foreign else (),
            required=key_required,
        )
        super().__init__(**common)
        self._headers = dict(headers or {})
        self._transport: HttpTransport | None = None
        self._connect_with: dict[str, Any] = {"ca_file": ca_file, "proxy": proxy, "client": client}

    @property
    def key_origin(self) -> str:
        """Where the key comes from, for people; never the key."""
        return self._key.origin

    @property
    def transport(self) -> HttpTransport:
        """The open transport.

        Raises:
            ConfigurationError: the provider is not open.
        """
        if self._transport is None:
            raise ConfigurationError("not connected", hint="await provider.connect()")
        return self._transport

    async def _open(self) -> None:
        if self._key.resolve() is not None:
            warn_if_key_is_readable(self.base_url, self.id)
        self._transport = HttpTransport(
            self.base_url,
            headers=self._request_headers,
            secrets=self._secrets,
            **self._connect_with,
        )
        # A proxy or certificate that cannot work is found now, not by the first request.
        await self._transport.open()

    async def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    def _send(self, body: bytes, request: LLMRequest) -> AsyncGenerator[bytes, None]:
        timeouts = request.options.timeouts
        return self.transport.stream(
            self._codec_for(request).path,
            body,
            connect_timeout_s=None if timeouts is None else timeouts.connect_s,
        )

    def _request_headers(self) -> Mapping[str, str]:
        key = self._key.resolve()
        return self._headers if key is None else {**self._headers, "authorization": f"Bearer {key}"}

    def _secrets(self) -> Sequence[str]:
        return self._key.known


def _address(given: str | None, variables: Sequence[str], default: str | None) -> tuple[str, str]:
    """The address of the server, and where it was found."""
    if given is not None:
        return given, "base_url"
    for variable in variables:
        if value := os.environ.get(variable):
            return value, variable
    if default is None:
        raise ConfigurationError(
            "no base_url", hint="pass base_url=, e.g. 'http://127.0.0.1:8080/v1'"
        )
    return default, "base_url"


def _same_host(url: str, other: str | None) -> bool:
    return other is not None and urlsplit(url).hostname == urlsplit(other).hostname
