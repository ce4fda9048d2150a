"""The places where a key can be kept, and how it is read there.

What this module must not do: put a key into an error.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import check_key
from ..errors import DependencyMissingError, LLMError

if TYPE_CHECKING:
    from .references import StoredKey

FILE_LIMIT_BYTES = 64 * 1024

Reader = Callable[[], str]


def in_variable(name: str, key: StoredKey) -> Reader:
    """What reads an environment variable, which has to be there already."""
    if not name or "=" in name or any(map(str.isspace, name)):
        raise key.unusable("names no environment variable", "write env:NAME")

    def read() -> str:
        value = os.environ.get(name)
        if not value:
            state = "is not set" if value is None else "is empty"
            raise key.missing(f"the environment variable {state}", f"set {name}")
        return check_key(value, key.place)

    read()
    return read


def in_file(path: str, key: StoredKey) -> Reader:
    """What reads a file, which has to be there already, for this user alone."""
    file = Path(os.path.expanduser(path))
    if not path or not file.is_absolute():
        hint = "write file:/the/whole/path or file:~/path"
        raise key.unusable("names no file by its whole path", hint)

    def read() -> str:
        _check_private(file, key)
        try:
            with file.open("rb") as opened:
                held = opened.read(FILE_LIMIT_BYTES + 1)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        else:
            return _text_of(held, file, key)
        raise key.missing(problem, f"make {str(file)!r} readable for this user, and for no other")

    _check_private(file, key)
    return read


def _check_private(file: Path, key: StoredKey) -> None:
    """Refuse a file that is missing, no plain file, or readable by others."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        problem = error.strerror or type(error).__name__
    else:
        if not stat.S_ISREG(mode):
            raise key.unusable("is no plain file", "name a file that holds nothing but the key")
        if os.name == "posix" and mode & 0o077:
            raise key.unusable(
                f"can be read or written by others (mode {stat.S_IMODE(mode):04o})",
                f"chmod 600 {str(file)!r}",
            )
        return
    raise key.missing(problem, f"write the key into {str(file)!r}, with mode 0600")


def _text_of(held: bytes, file: Path, key: StoredKey) -> str:
    if not held.strip():
        raise key.missing("the file is empty", f"write the key into {str(file)!r}")
    if len(held) > FILE_LIMIT_BYTES:
        raise key.unusable("is too large for a key", "name a file that holds nothing but the key")
    return check_key(held.decode("utf-8-sig", "replace"), key.place)


def in_keyring(entry: str, key: StoredKey) -> Reader:
    """What asks the keyring of the operating system, which nobody does before."""
    service, _, name = entry.partition("/")
    if not service or not name:
        raise key.unusable("names no entry of a keyring", "write keyring:service/name")

    def read() -> str:
        value = _from_keyring(service, name, key)
        if not value:
            raise key.missing(
                "the keyring has no such entry", f"keyring set {service} {name}, and type the key"
            )
        return check_key(value, key.place)

    return read


def _from_keyring(service: str, name: str, key: StoredKey) -> str | None:
    failure: LLMError
    try:
        keyring = importlib.import_module("keyring")
        none_there = importlib.import_module("keyring.errors").NoKeyringError
    except ImportError:
        failure = DependencyMissingError(f"{key.place} needs the package keyring", extra="keyring")
    else:
        try:
            value: str | None = keyring.get_password(service, name)
        except none_there:
            failure = key.unusable(
                "cannot be read: this machine has no keyring, as is usual without a desktop",
                "use env:NAME or file:path there",
            )
        except Exception as error:  # noqa: BLE001 - backends let out errors of their own libraries
            kind = f"{type(error).__module__}.{type(error).__qualname__}"
            failure = key.unusable(
                f"cannot be read: the keyring fails with {kind}", "unlock the keyring"
            )
        else:
            return value
    raise failure
