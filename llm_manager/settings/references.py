"""Keys that are kept elsewhere: in a variable, a keyring, a file, or by a function.

::

    env:NAME                 an environment variable
    keyring:service/name     the operating system's keyring (extra ``keyring``)
    file:path                a file that nobody else may read

A keyring or a file is read in a thread where an event loop runs, once, and again when the key is
refused.  What this module must not do: put a key into an error, a log, or a repr.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from .._threads import reset_after_fork
from ..config import KeySource, Secret, check_key
from ..errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidParameterError,
)
from ..redaction import redact
from .key_places import Reader, in_file, in_keyring, in_variable

SCHEMES = ("env", "keyring", "file")


def is_reference(value: object) -> bool:
    """Whether it says where a key is, and is no key."""
    return isinstance(value, str) and ":" in value and _parts(value)[0] in SCHEMES


def _parts(reference: str) -> tuple[str, str]:
    """Scheme, and what stands behind it."""
    scheme, _, rest = reference.partition(":")
    return scheme.strip().lower(), rest.strip()


def as_secret(value: Any, where: str) -> Any:
    """``value``, wrapped if it is a key itself, so that it cannot be shown by mistake.

    Raises:
        AuthenticationError: it is a key that cannot be sent.
    """
    if not isinstance(value, str) or is_reference(value):
        return value
    return Secret(check_key(value, where))


def resolve_secret(reference: object, where: str) -> KeySource:
    """What `ApiKey` takes, for a key as settings name it.

    A variable and a file are looked at now, so that a mistake is found early; a keyring, which may
    ask its user for a password, when the key is needed.

    Args:
        reference: ``env:NAME``, ``keyring:service/name``, ``file:path``, the key itself, a
            `Secret`, or a function (coroutine function) that returns the key.
        where: the setting's place, for errors.

    Raises:
        AuthenticationError: there is no key at that place.
        ConfigurationError: no place can be written like this; or others can read the file.
        InvalidParameterError: it is none of these.
    """
    if callable(reference):
        function: Callable[[], str | Awaitable[str]] = reference
        return function
    if reference is None or isinstance(reference, Secret):
        return reference
    if not isinstance(reference, str):
        raise InvalidParameterError(
            f"{where}: must be text or a function, got {type(reference).__name__}"
        )
    if is_reference(reference):
        return StoredKey(reference, where)
    return Secret(check_key(reference, where))


class StoredKey:
    """A key that is read where its reference says, when it is needed; made by `resolve_secret`.

    Args:
        reference: see `resolve_secret`.
        where: the setting's place, for errors.
    """

    def __init__(self, reference: str, where: str) -> None:
        self.reference = reference.strip()
        self.where = where
        scheme, rest = _parts(reference)
        self._is_quick = scheme == "env"
        self._read = _READERS[scheme](rest, self)
        self._turn = _Turn()
        self._latest: Secret | None = None
        self._times_read = 0

    def __repr__(self) -> str:
        return f"StoredKey({self._shown})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredKey) and self.reference == other.reference

    def __hash__(self) -> int:
        return hash(self.reference)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredKey, (self.reference, self.where)

    def __call__(self) -> str | Awaitable[str]:
        """The key; to be awaited if it has to be read first and an event loop runs here.

        Raises:
            LLMError: it cannot be read.
        """
        if self._is_quick:
            return self._read()
        if self._latest is not None:
            return self._latest.reveal()
        if asyncio._get_running_loop() is not None:
            return self.reread()
        return self.read_now()

    async def reread(self) -> str:
        """The key as it is now, read in a thread; several who ask at once share one reading."""
        return await asyncio.to_thread(self._newer_than, self._times_read)

    def read_now(self) -> str:
        """The key, read without regard to an event loop.

        Raises:
            LLMError: it cannot be read.
        """
        return self._newer_than(self._times_read)

    def _newer_than(self, times_read: int) -> str:
        with self._turn.lock:
            if self._latest is None or self._times_read == times_read:
                self._latest = Secret(self._read())
                self._times_read += 1
            return self._latest.reveal()

    def missing(self, what: str, hint: str) -> AuthenticationError:
        """The error for a key that is not where its reference says."""
        return AuthenticationError(
            f"{self.where}: no key at {self._shown}: {what}",
            code="auth_missing",
            hint=redact(hint),
        )

    def unusable(self, what: str, hint: str) -> ConfigurationError:
        """The error for a reference that cannot work."""
        return ConfigurationError(f"{self.place} {what}", hint=redact(hint))

    @property
    def place(self) -> str:
        """Where the key is, for errors."""
        return f"{self.where}: {self._shown}"

    @property
    def _shown(self) -> str:
        # Somebody may have written the key itself behind the colon.
        return redact(repr(self.reference))


class _Turn:
    """Lets one after the other read; a process that is forked meanwhile begins anew."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        reset_after_fork(self)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()


_READERS: dict[str, Callable[[str, StoredKey], Reader]] = {
    "env": in_variable,
    "file": in_file,
    "keyring": in_keyring,
}
