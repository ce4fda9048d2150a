"""Where a provider is and how it is unlocked: the one owner of URLs and keys.

Settings are checked when they are given, so that a mistake is an error with its cause in the text
and not a strange failure of the HTTP library later.
"""

from __future__ import annotations

import inspect
import ipaddress
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable
from urllib.parse import urlsplit

from .errors import AuthenticationError, ConfigurationError, InvalidParameterError, LLMError
from .redaction import MASK, redact

log = logging.getLogger("llm_manager.config")

KEY_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})
"""The headers that services want a key in."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Words of names; `max_tokens` is none of them.  Compiled when first used, as few give headers.
_OF_A_KEY = (
    r"(?:api|access|subscription)?key|\w*(?:token|secret|password)|auth(?:orization)?"
    r"|cookie|credentials?"
)


def names_a_key(name: str) -> bool:
    """Whether a header, or a setting that is passed on, holds a key, as far as its name tells."""
    return any(re.fullmatch(_OF_A_KEY, word) for word in re.split(r"[-_]", name.lower()))


class Secret:
    """A text that never shows itself: not printed, not logged, not pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself, for the header it belongs into."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not pickled; pass the key by its environment variable")


KeySource: TypeAlias = str | Secret | Callable[[], str | Awaitable[str]] | None
"""An API key, or a function that is asked for it at every request (a keyring, a rotated token).

Providers that send through an official SDK also take a coroutine function.
"""


class GivenSettings(dict[str, Any]):
    """Settings as they were given, which may hold keys; shows only their names."""

    def __repr__(self) -> str:
        return f"GivenSettings({', '.join(self)})"

    __str__ = __repr__

    def hold(self, secrets: Iterable[str]) -> bool:
        """Whether a key is among them: one of ``secrets``, or what is called one."""
        texts = [str(value) for value in self.values()]
        return (
            any(isinstance(value, Secret) for value in self.values())
            or isinstance(self.get("api_key"), str)
            or any(secret in text for secret in secrets if secret for text in texts)
        )


@runtime_checkable
class Rereadable(Protocol):
    """A function for a key that reads slowly, and keeps what it has read until it is told."""

    reference: str

    def __call__(self) -> str | Awaitable[str]:
        """The key; to be awaited if it has not been read and an event loop runs here."""

    async def reread(self) -> str:
        """The key as it is now."""


class ApiKey:
    """The key of one provider, bound to its server.

    Args:
        source: the key, or a function that returns it.
        variables: environment variables that are asked, in this order, when there is no source.
        required: whether requests make no sense without one.
        withheld: variables whose key belongs to another server, to be named when one is missing.

    Raises:
        AuthenticationError: the given key cannot be sent in a header.
    """

    def __init__(
        self,
        source: KeySource = None,
        *,
        variables: Iterable[str] = (),
        required: bool = True,
        withheld: Iterable[str] = (),
    ) -> None:
        self.variables = tuple(variables)
        self.required = required
        self._withheld = tuple(withheld)
        if isinstance(source, Secret):
            source = source.reveal()
        self._source: Callable[[], str | Awaitable[str]] | Secret | None = None
        self._latest: Secret | None = None
        if isinstance(source, str):
            self._source = Secret(check_key(source, "api_key"))
        elif source is not None:
            self._source = source

    def __repr__(self) -> str:
        return f"ApiKey({self.origin})"

    @property
    def origin(self) -> str:
        """Where the key comes from, for people: never the key."""
        if isinstance(self._source, Rereadable):
            return redact(self._source.reference)
        if self._source is not None:
            return "given" if isinstance(self._source, Secret) else "function"
        found = next((v for v in self.variables if os.environ.get(v)), None)
        return f"environment {found}" if found else "missing" if self.required else "none needed"

    @property
    def is_given(self) -> bool:
        """Whether it was given in code, and not found in the environment."""
        return self._source is not None

    @property
    def is_function(self) -> bool:
        """Whether a function is asked for it, which may know a newer one each time."""
        return self._source is not None and not isinstance(self._source, Secret)

    @property
    def known(self) -> tuple[str, ...]:
        """What must not appear in any error: the key, as far as it is known without asking."""
        if self._source is None:
            found = (os.environ.get(v, "").strip() for v in self.variables)
            return tuple(value for value in found if value)
        known = self._source if isinstance(self._source, Secret) else self._latest
        return () if known is None else (known.reveal(),)

    async def ask(self) -> str | None:
        """As `resolve`, but the function that returns the key may be a coroutine function.

        Raises:
            AuthenticationError: as `resolve`, or the function fails.
        """
        if self._source is None or isinstance(self._source, Secret):
            return self.resolve()
        try:
            answer = self._source()
            key = await answer if inspect.isawaitable(answer) else answer
        except LLMError:
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's code
            kind = f"{type(error).__module__}.{type(error).__qualname__}"
            original = f"{kind}: {redact(str(error), self.known)}"
        else:
            self._latest = Secret(check_key(key, "the key function's result"))
            return self._latest.reveal()
        raise AuthenticationError(
            f"the key function fails: {original}", code="auth_missing", original=original
        )

    async def prepare(self) -> str | None:
        """`resolve`, after what takes time to read has been read in a thread."""
        return await self.ask() if isinstance(self._source, Rereadable) else self.resolve()

    async def refresh(self) -> None:
        """Read the key anew, if it is one that is kept; it was refused.

        Raises:
            AuthenticationError: as `ask`.
        """
        if isinstance(self._source, Rereadable):
            await self._source.reread()

    def resolve(self) -> str | None:
        """The key to send now, or None if none is needed.

        Raises:
            AuthenticationError: it is required and missing, or cannot be sent in a header.
            ConfigurationError: the function that returns it is a coroutine function.
        """
        if isinstance(self._source, Secret):
            return self._source.reveal()
        if self._source is not None:
            answer = self._source()
            if inspect.iscoroutine(answer):
                answer.close()
                raise ConfigurationError(
                    "the key function is a coroutine function, which this kind of provider "
                    "cannot wait for",
                    hint="pass a plain function",
                )
            self._latest = Secret(check_key(answer, "the key function's result"))
            return self._latest.reveal()
        for variable in self.variables:
            if value := os.environ.get(variable):
                return check_key(value, variable)
        if not self.required:
            return None
        raise AuthenticationError("no API key", code="auth_missing", hint=self._advice())

    def _advice(self) -> str:
        if self.variables:
            return f"set {' or '.join(self.variables)}, or pass api_key="
        kept = [v for v in self._withheld if os.environ.get(v)]
        if kept:
            return f"pass api_key=; the key in {kept[0]} belongs to another server"
        return "pass api_key="


def check_key(key: object, where: str) -> str:
    """``key`` without surrounding space, if it can be sent in a header.

    Raises:
        AuthenticationError: it is empty, or holds characters that no header can carry; the text
            says which and where, never the key.
    """
    if not isinstance(key, str):
        raise AuthenticationError(f"{where} must be text, got {type(key).__name__}")
    stripped = key.strip()
    if not stripped:
        raise AuthenticationError(f"{where} is empty", code="auth_missing")
    for place, character in enumerate(stripped):
        if not 0x20 < ord(character) < 0x7F:
            kind = "a line break" if character in "\r\n" else (
                "a space" if character == " " else f"the character U+{ord(character):04X}"
            )  # fmt: skip
            raise AuthenticationError(
                f"{where} contains {kind} at position {place + 1} of {len(stripped)}",
                hint="copy the key again, without quotes, spaces or line breaks",
            )
    return stripped


def check_base_url(url: object, where: str = "base_url") -> str:
    """``url`` without a trailing slash, if requests can be sent there.

    Raises:
        ConfigurationError: no scheme, another one than http or https, or no host.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"{where} must be text, got {type(url).__name__}")
    text = url.strip()
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{where} {redact(text)!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        nearest = text.split("://", 1)[-1]
        raise ConfigurationError(
            f"{where} {redact(text)!r} does not start with http:// or https://",
            hint=f"did you mean {redact('http://' + nearest)!r}?",
        )
    if not host:
        raise ConfigurationError(f"{where} {redact(text)!r} names no host")
    if parts.username or parts.password:
        raise ConfigurationError(
            f"{where} {redact(text)!r} carries a user name or password",
            hint="pass api_key= instead",
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"{where} {redact(text)!r} must end with the path, without ? and #"
        )
    return text.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether ``url`` points to this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def warn_if_key_is_readable(base_url: str, provider_id: str) -> bool:
    """Log a warning if a key would cross the network unencrypted; says whether it would."""
    if base_url.startswith("https://") or is_loopback(base_url):
        return False
    log.warning(
        "%s: the API key is sent unencrypted to %s; use https:// or a tunnel",
        provider_id,
        urlsplit(base_url).hostname,
    )
    return True


def check_id(id: object, what: str = "provider id") -> str:
    """``id``, if it can name a provider: letters, digits, ``.``, ``_`` and ``-``, no slash.

    Raises:
        InvalidParameterError: it cannot; a slash would make ``"provider/model"`` ambiguous.
    """
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise InvalidParameterError(
            f"{id!r} is no {what}: use 1 to 64 letters, digits, '.', '_' or '-'"
        )
    return id


def check_folder(path: str | os.PathLike[str], where: str) -> Path:
    """``path`` as an existing folder.

    Raises:
        ConfigurationError: it does not exist, or is a file.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        raise ConfigurationError(f"{where} {str(folder)!r} does not exist")
    if not folder.is_dir():
        raise ConfigurationError(
            f"{where} {str(folder)!r} is a file, a folder is needed",
            hint=f"did you mean {str(folder.parent)!r}?",
        )
    return folder


def check_file(path: str | os.PathLike[str], where: str) -> Path:
    """``path`` as an existing, readable file.

    Raises:
        ConfigurationError: it does not exist, is a folder, or may not be read.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise ConfigurationError(f"{where} {str(file)!r} does not exist")
    if file.is_dir():
        raise ConfigurationError(f"{where} {str(file)!r} is a folder, a file is needed")
    if not os.access(file, os.R_OK):
        raise ConfigurationError(f"{where} {str(file)!r} may not be read by this user")
    return file
