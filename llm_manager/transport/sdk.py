"""The official SDKs as a transport: their clients send, our decoders read the bytes.

An SDK knows addresses, headers and ways to authorise, also those of other clouds.  What it makes of
an answer costs many times more than sending the request, so it is asked for the raw response; the
connections below it are our own.

What this module must not do: name an SDK, let one retry, or let an exception of one out.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import (
    AuthenticationError,
    ConfigurationError,
    DependencyMissingError,
    InvalidParameterError,
    LLMError,
)
from ..redaction import MASK, redact
from ..wire.failures import from_http
from . import faults
from .clients import HeldClient, NewClient
from .http import (
    ERROR_BODY_LIMIT_BYTES,
    POOL_TIMEOUT_S,
    WRITE_TIMEOUT_S,
    Headers,
    HttpTransport,
)

if TYPE_CHECKING:
    import httpx2

    from .pool import Pool

NewSdkClient = Callable[[Any, Any], Any | Awaitable[Any]]


def address_of(client: Any, library: str) -> str:
    """Where a ready client of an SDK sends to.

    Raises:
        InvalidParameterError: it is no asynchronous client of that SDK.
    """
    modules = {kind.__module__.partition(".")[0] for kind in type(client).__mro__}
    if library not in modules or not inspect.iscoroutinefunction(getattr(client, "post", None)):
        raise InvalidParameterError(
            f"client must be an asynchronous client of the package {library!r}, "
            f"got {type(client).__module__}.{type(client).__qualname__}",
            hint="its name begins with Async",
        )
    return str(client.base_url)


class _Refused(Exception):
    """Carries an error past an SDK that logs every exception: it may quote a prompt still."""

    __slots__ = ("error",)

    def __init__(self, error: LLMError) -> None:
        super().__init__("refused")
        self.error = error


class _Unshown(bytes):
    """A body that an SDK may log as it likes: prompts stay out of every log."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class _UnshownText(str):
    """A header that an SDK may log as it likes."""

    def __repr__(self) -> str:
        return repr(MASK)


class SdkTransport(HttpTransport):
    """Requests through the asynchronous client of an official SDK.

    Its methods and what they raise are those of `HttpTransport`; an SDK that is not installed is a
    `DependencyMissingError`.

    Args:
        library: name of the SDK's module, and of the extra that installs it.
        base_url: where the SDK sends to, for errors and for the choice of a proxy.
        new_client: makes a client of it, given that module and an HTTP client; called for each
            request (it takes 0.05 ms), so that the key is that of the moment.  It may be a
            coroutine function.
        client: a ready client of the SDK to use instead of an own one; the caller closes it, and
            its own address, key and connection settings count.
        more: see `HttpTransport`; ``headers`` are added to those of the SDK.
    """

    def __init__(
        self,
        library: str,
        base_url: str,
        *,
        new_client: NewSdkClient,
        client: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(base_url, **more)
        self._library = library
        self._new_sdk_client = new_client
        self._given_sdk_client = client
        self._sdk: Any = None
        self._raw_response: Any = None

    async def _answer(
        self,
        method: str,
        path: str,
        body: bytes | None,
        extra_headers: Headers,
        connect_timeout_s: float | None,
    ) -> httpx2.Response:
        limit_s = self._connect_timeout_s if connect_timeout_s is None else connect_timeout_s
        held = await self._clients.here()
        await held.close_forgotten()
        asked = await self._asked(held, method, path, body, extra_headers, limit_s)
        if asked is None:
            # Where one pooled connection was dead the others are, too: only a new one is a fair
            # second chance.
            if held.pool is not None:
                await held.pool.close_idle()
            asked = await self._asked(held, method, path, body, extra_headers, limit_s, once=True)
        assert asked is not None
        if isinstance(asked, LLMError):
            raise asked
        self._note_answer(asked)
        return asked

    async def _asked(
        self,
        held: HeldClient,
        method: str,
        path: str,
        body: bytes | None,
        extra_headers: Headers,
        connect_timeout_s: float,
        *,
        once: bool = False,
    ) -> httpx2.Response | LLMError | None:
        """The answer, or the error for it; None if a dead connection may be to blame for both."""
        asked = self._arguments(body, extra_headers, connect_timeout_s)
        try:
            client = await self._sdk_client(held)
            response: httpx2.Response = await getattr(client, method.lower())(path, **asked)
        except Exception as error:  # noqa: BLE001 - whatever it is, it may hold the key
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            if isinstance(cause, _Refused):
                cause = cause.error
            if isinstance(cause, LLMError):
                # Of the function that is asked for the key, or of our own look at the answer.
                # The frames that it came through hold the request, and that the key.
                return cause.with_traceback(None)
            if not once and faults.is_stale(cause):
                return None
            return self._failure(error, cause, connect_timeout_s)
        return response

    def _arguments(
        self, body: bytes | None, extra_headers: Headers, connect_timeout_s: float
    ) -> dict[str, Any]:
        """What the methods of an SDK's client take for one request."""
        options: dict[str, Any] = {
            "headers": {
                **extra_headers,
                **{name: _UnshownText(value) for name, value in self._given_headers().items()},
            },
            "max_retries": 0,
            # A redirect would hand the key to another server.
            "follow_redirects": False,
            # Reading has no limit: of streams the content is watched, of the rest the whole.
            "timeout": self._sdk.Timeout(
                None, connect=connect_timeout_s, write=WRITE_TIMEOUT_S, pool=POOL_TIMEOUT_S
            ),
        }
        asked: dict[str, Any] = {"cast_to": self._raw_response, "options": options, "stream": True}
        asked["stream_cls"] = self._sdk.AsyncStream
        if body is not None and self._given_sdk_client is None:
            asked["content"] = _Unshown(body)
        elif body is not None:
            # The clients of other clouds look into the body, and change it.
            asked["body"] = msgspec.json.decode(body)
        return asked

    async def _sdk_client(self, held: HeldClient) -> Any:
        if self._given_sdk_client is not None:
            return self._given_sdk_client
        client = self._new_sdk_client(self._sdk, held.client)
        return await client if inspect.isawaitable(client) else client

    def _failure(self, error: Exception, cause: Exception, connect_timeout_s: float) -> LLMError:
        """The error for an exception of the SDK."""
        response, request = getattr(error, "response", None), getattr(error, "request", None)
        if response is not None:
            return from_http(
                response.status_code,
                response.content[:ERROR_BODY_LIMIT_BYTES],
                dict(response.headers),
                url=str(response.url),
                secrets=self._known_secrets(request),
            )
        if faults.is_fault(cause):
            return self._no_answer(cause, connect_timeout_s, request)
        text = redact(str(error), self._known_secrets(None))
        original = f"{type(error).__module__}.{type(error).__qualname__}: {text}"
        if "authentication" in text:
            return AuthenticationError(text, code="auth_missing", original=original)
        return ConfigurationError(f"the client cannot send this: {text}", original=original)

    def _prepare(self) -> NewClient:
        problem = None
        try:
            self._sdk = importlib.import_module(self._library)
            self._raw_response = importlib.import_module("httpx2").Response
        except ImportError as error:
            problem = f"{error}"
        if problem is not None:
            raise DependencyMissingError(
                f"the package {self._library!r} cannot be imported: {problem}", extra=self._library
            )
        given = self._given_sdk_client
        if given is not None:
            return lambda: (given, None)
        new = super()._prepare()
        return lambda: self._refusing(*new())

    def _refusing(
        self, client: httpx2.AsyncClient, pool: Pool | None
    ) -> tuple[httpx2.AsyncClient, Pool | None]:
        # The SDK would read the body of an error to its end, however long that takes.
        client.event_hooks = {"response": [self._refuse_unseen]}
        return client, pool

    async def _refuse_unseen(self, response: httpx2.Response) -> None:
        """As `_refuse_failure`, in a form that can pass through the SDK and its log."""
        refused = None
        try:
            await self._refuse_failure(response)
        except LLMError as error:
            refused = error
        if refused is not None:
            raise _Refused(refused)
