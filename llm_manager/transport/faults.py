"""Turns what the HTTP library raises into our errors, in the one place that does so.

It goes by names, not by types: a caller's own client may come from httpx2 or from the older httpx,
and neither has to be imported to say what went wrong.  Nothing of the library's exception
survives but its text, because its request carries the key.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import (
    ConfigurationError,
    InvalidResponseError,
    LLMError,
    ProviderConnectionError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from ..redaction import redact

_LIBRARIES = frozenset(
    {"httpx2", "httpcore2", "httpx", "httpcore", "h11", "h2", "anyio", "socksio"}
)
_FOREIGN_LOOP = ("Event loop is closed", "different event loop", "attached to a different loop")
_CLIENT_CLOSED = "client has been closed"
_TOO_LONG = "Receive buffer too long"

# OpenSSL's X509_V_ERR_*: no trusted issuer, wrong host or address, not yet or no longer valid.
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
_WRONG_NAME = frozenset({62, 64})
_WRONG_TIME = frozenset({9, 10})


def is_fault(error: Exception) -> bool:
    """Whether ``error`` is trouble with the network or the HTTP library, and not a bug of ours."""
    if isinstance(error, RuntimeError) and _says(error, *_FOREIGN_LOOP, _CLIENT_CLOSED):
        return True
    return isinstance(error, OSError) or not _LIBRARIES.isdisjoint(_libraries(error))


def is_stale(error: Exception) -> bool:
    """Whether a pooled connection was dead before any byte of the answer came."""
    return type(error).__name__ == "StaleConnectionError"


def no_answer(
    error: Exception,
    *,
    server: str,
    proxy: str | None,
    connect_timeout_s: float,
    secrets: Iterable[str],
) -> LLMError:
    """The error for a request that got no answer.

    Args:
        server: host and port that were asked, for people.
        proxy: host and port of the proxy on the way, or None.
        connect_timeout_s: the limit that a connect timeout ran into, in seconds.
        secrets: what must not appear in any text.
    """
    facts: dict[str, Any] = {"original": _described(error, secrets)}
    names = {kind.__name__ for kind in type(error).__mro__}
    causes = list(_causes(error))
    via = f" through the proxy {proxy}" if proxy else ""
    if "ConnectTimeout" in names:
        return RequestTimeoutError(
            f"no connection to {server}{via} within {connect_timeout_s:g} s",
            code="connect_timeout",
            hint="check the address and the network connection",
            **facts,
        )
    if "PoolTimeout" in names:
        return RequestTimeoutError(
            f"no free connection to {server}: too many requests are running at once",
            hint="run fewer requests at once",
            **facts,
        )
    if "TimeoutException" in names:
        return RequestTimeoutError(f"{server} did not take the request in time", **facts)
    if "ProxyError" in names or "socksio" in _libraries(error):
        return _proxy_refused(str(error), proxy, secrets, facts)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _tls(cause, server, getattr(error, "issuer", None), facts)
    if "ConnectError" in names:
        return _not_reached(error, causes, server, proxy, facts)
    if isinstance(error, RuntimeError) and _says(error, _CLIENT_CLOSED):
        return ProviderConnectionError(
            "the client is closed", code="closed", retryable=False, **facts
        )
    if isinstance(error, RuntimeError):
        return ProviderConnectionError(
            "the given client belongs to another event loop",
            retryable=False,
            hint="use one client per event loop, or leave out client= to get one each",
            **facts,
        )
    if names & {"LocalProtocolError", "UnsupportedProtocol", "InvalidURL"}:
        return ConfigurationError(
            f"the request to {server} cannot be sent: {redact(str(error), secrets)}", **facts
        )
    strange = "RemoteProtocolError" in names and any("h11" in _libraries(each) for each in causes)
    if strange and _says(error, _TOO_LONG):
        return InvalidResponseError(f"the headers of the answer of {server} do not end", **facts)
    if strange or "NotHTTPError" in names:
        return InvalidResponseError(
            f"{server} does not answer in HTTP",
            hint="check the port, and whether it is http:// or https://",
            **facts,
        )
    return ProviderConnectionError(
        f"{server} closed the connection{via} without an answer", code="reset", **facts
    )


def interrupted(error: Exception, *, server: str, secrets: Iterable[str]) -> LLMError:
    """The error for an answer that began and could not be read to its end."""
    facts: dict[str, Any] = {"original": _described(error, secrets)}
    if "DecodingError" in {kind.__name__ for kind in type(error).__mro__}:
        return InvalidResponseError(f"the answer of {server} is wrongly compressed", **facts)
    return StreamInterruptedError(f"the connection to {server} broke during the answer", **facts)


def _not_reached(
    error: Exception,
    causes: list[BaseException],
    server: str,
    proxy: str | None,
    facts: dict[str, Any],
) -> LLMError:
    target = f"the proxy {proxy}" if proxy else server
    code, hint = "connection", "check the network connection"
    what = f"{target} cannot be reached: {_reason(causes) or error}"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        code, hint = "dns", "check the address and the network connection"
        what = f"the name of {target} cannot be resolved: {_reason(causes)}"
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        code, hint = "refused", "is the server running, and is this its port?"
        what = f"{target} refuses the connection"
    if proxy:
        code, hint = "proxy", "check the proxy settings (HTTPS_PROXY, ALL_PROXY, NO_PROXY)"
    return ProviderConnectionError(what, code=code, hint=hint, **facts)


def _proxy_refused(
    text: str, proxy: str | None, secrets: Iterable[str], facts: dict[str, Any]
) -> LLMError:
    hint = "check the proxy settings (HTTPS_PROXY, ALL_PROXY, NO_PROXY)"
    if text.startswith("407"):
        facts = {**facts, "http_status": 407, "retryable": False}
        hint = "put the user name and the password of the proxy into its address"
    return ProviderConnectionError(
        f"the proxy {proxy or ''} refuses: {redact(text, secrets)}",
        code="proxy",
        hint=hint,
        **facts,
    )


def _tls(error: ssl.SSLError, server: str, issuer: str | None, facts: dict[str, Any]) -> LLMError:
    reason, hint = getattr(error, "reason", None) or str(error), "does this server speak https?"
    if isinstance(error, ssl.SSLCertVerificationError):
        facts = {**facts, "retryable": False}
        by = f" (it is issued by {redact(issuer)})" if issuer else ""
        reason = f"its certificate is not accepted: {error.verify_message.rstrip('.')}{by}"
        hint = "check the certificate of the server"
        if error.verify_code in _UNKNOWN_ISSUER:
            hint = (
                "if a network or server of your own issued it, name its certificate authority "
                "with ca_file= or SSL_CERT_FILE"
            )
        elif error.verify_code in _WRONG_NAME:
            hint = "check the host name in the address"
        elif error.verify_code in _WRONG_TIME:
            hint = "check the clock of this machine; else the server needs a new certificate"
    return ProviderConnectionError(
        f"no secure connection to {server}: {reason}", code="tls", hint=hint, **facts
    )


def _reason(causes: list[BaseException]) -> str | None:
    """The operating system's words for it."""
    return next((c.strerror for c in causes if isinstance(c, OSError) and c.strerror), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what lies behind it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def _libraries(error: BaseException) -> set[str]:
    return {kind.__module__.partition(".")[0] for kind in type(error).__mro__}


def _says(error: Exception, *texts: str) -> bool:
    return any(text in str(error) for text in texts)


def _described(error: Exception, secrets: Iterable[str]) -> str:
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}: {redact(str(error), secrets)}"
