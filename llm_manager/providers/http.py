"""What providers on HTTP share: an address, a key bound to it, and a transport."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from ..config import (
    ApiKey,
    KeySource,
    check_base_url,
    is_loopback,
    names_a_key,
    warn_if_key_is_readable,
)
from ..errors import ConfigurationError, ProviderConnectionError
from ..messages import LLMRequest
from ..policy.deadline import LOCAL_TIMEOUTS
from ..provider import BaseLLMProvider
from ..supervisor import LOCAL_BACKOFF
from ..transport.http import CONNECT_TIMEOUT_S, HttpTransport
from ..wire.rate_limits import parse_rate_limits

_SECRET_LENGTH = 8
LOCAL_PROBE_INTERVAL_S = 10.0
"""Servers on this machine are started and stopped by hand, and asking them costs nothing."""


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
        environment_address: whether an address in the environment counts.
        common: see `BaseLLMProvider`.

    Raises:
        ConfigurationError: there is no address, or it cannot be one.
        AuthenticationError: the given key cannot be sent.
    """

    no_settings = frozenset(
        {"default_base_url", "base_url_variables", "key_variables", "key_required"}
    )
    """What the author of a provider says, and nobody's settings."""

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
        environment_address: bool = True,
        **common: Any,
    ) -> None:
        address, where = _address(
            base_url, base_url_variables, default_base_url, ask=environment_address
        )
        self.base_url = check_base_url(address, where)
        self.is_local = is_loopback(self.base_url)
        if self.is_local:
            self.probe_interval_s = LOCAL_PROBE_INTERVAL_S
            self.default_timeouts = LOCAL_TIMEOUTS
            self.backoff = LOCAL_BACKOFF
        # A key from the environment belongs to the server that the environment or the row names.
        foreign = base_url is not None and not same_host(self.base_url, default_base_url)
        self._key = ApiKey(
            api_key,
            variables=() if foreign else key_variables,
            withheld=key_variables if foreign else (),
            required=key_required,
        )
        # So do other things that the environment holds for that server.
        self._takes_from_environment = not foreign and (
            where in base_url_variables or not any(map(os.environ.get, base_url_variables))
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
            ProviderConnectionError: the provider is not open, or was closed meanwhile.
        """
        if self._transport is None:
            # Not for good: somebody may have disconnected it while a request was on its way.
            raise ProviderConnectionError("the connection was closed", code="reset")
        return self._transport

    async def _open(self) -> None:
        if await self._key.prepare() is not None:
            warn_if_key_is_readable(self.base_url, self.id)
        # Bound to these settings: a new key must not go where the old one belongs.
        sealed = self._sealed()
        self._transport = HttpTransport(
            self.base_url,
            headers=sealed._request_headers,
            secrets=sealed._all_secrets,
            connect_timeout_s=self._connect_timeout_s(),
            on_answer=self._note_rate_limits,
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

    def _connect_timeout_s(self) -> float:
        """For probes and lists; requests bring their own."""
        given = (self.default_options.timeouts, self.default_timeouts)
        limits = (t.connect_s for t in given if t is not None)
        return next((limit for limit in limits if limit is not None), CONNECT_TIMEOUT_S)

    def _secrets(self) -> Sequence[str]:
        # What somebody puts into a header may be a secret, whatever the header is called.
        headers = self._given[1].get("headers") or {}
        long = [v for v in headers.values() if isinstance(v, str) and len(v) >= _SECRET_LENGTH]
        password = urlsplit(self._connect_with["proxy"] or "").password
        return (*self._key.known, *long, *([unquote(password)] if password else []))

    def _unpicklable(self) -> Sequence[str]:
        keys = [value for name, value in self._headers.items() if _holds_key({name: value})]
        return (*self._key.known, *(value.rpartition(" ")[2] for value in keys))

    def _rereads_key(self) -> bool:
        return self._key.is_function

    async def _reread_key(self) -> None:
        await self._key.refresh()

    def _forget_idle(self) -> None:
        if self._transport is not None and not self.is_local:
            self._transport.forget_idle()

    def _note_rate_limits(self, headers: Mapping[str, str]) -> None:
        limits = parse_rate_limits(headers, datetime.now(UTC))
        if limits is not None:
            self._machine.measure(rate_limits=limits)

    def _check_update(self, new: Self, changes: Mapping[str, Any]) -> None:
        if place_of(self.base_url) == place_of(new.base_url):
            return
        if self._key.is_given and "api_key" not in changes:
            what = "api_key"
        elif "headers" not in changes and _holds_key(self._headers):
            what = "headers"
        else:
            return
        raise not_elsewhere(what, self.base_url, new.base_url, self.id)


def not_elsewhere(what: str, here: str | None, there: str | None, id: str) -> ConfigurationError:
    """The error for a change that would send ``what``, which holds a key, to another server."""
    places = [urlsplit(url).netloc if url else "the usual server" for url in (here, there)]
    return ConfigurationError(
        f"{what} belongs to {places[0]}, and is not sent to {places[1]}",
        provider_id=id,
        hint=f"give base_url= and {what}= together",
    )


def _address(
    given: str | None, variables: Sequence[str], default: str | None, *, ask: bool
) -> tuple[str, str]:
    """The address of the server, and where it was found; ``ask`` says whether variables count."""
    if given is not None:
        return given, "base_url"
    kept = next((variable for variable in variables if os.environ.get(variable)), None)
    if kept is not None and ask:
        return os.environ[kept], kept
    if default is None:
        raise ConfigurationError(
            "no base_url",
            hint="pass base_url=, e.g. 'http://127.0.0.1:8080/v1'" if kept is None
            else f"give base_url beside api_key; the address in {kept} may be another key's",
        )  # fmt: skip
    return default, "base_url"


def _holds_key(headers: Mapping[str, str]) -> bool:
    return any(map(names_a_key, headers))


def place_of(url: str | None) -> tuple[str | None, int]:
    """Host and port: another port of a host may be anybody's."""
    parts = urlsplit(url or "")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def same_host(url: str, other: str | None) -> bool:
    """Whether two addresses are of one host."""
    return other is not None and urlsplit(url).hostname == urlsplit(other).hostname
