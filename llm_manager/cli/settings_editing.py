"""Changes one value of the settings file and leaves everything else in it as it was.

The new file is written beside the old one and looked at before it takes its place: at no moment is
there a broken or half-written settings file.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from llm_manager.errors import (
    AuthenticationError,
    ConfigurationError,
    DependencyMissingError,
    InvalidParameterError,
    LLMError,
)
from llm_manager.redaction import redact
from llm_manager.settings.file import read_settings_file
from llm_manager.settings.problems import Problem
from llm_manager.settings.references import is_reference, resolve_secret
from llm_manager.settings.store import Settings

Keys = tuple[str, ...]


def keys_of(place: str) -> Keys:
    """``providers.work-openai.default_model`` as its keys; a key with a dot stands in quotes.

    Raises:
        InvalidParameterError: it is no place of a setting.
    """
    try:
        tables: Any = tomllib.loads(f"{place} = 0")
    except tomllib.TOMLDecodeError:
        tables = None
    keys: list[str] = []
    while isinstance(tables, dict) and len(tables) == 1:
        key, tables = next(iter(tables.items()))
        keys.append(key)
    if tables != 0 or len(keys) < 2:
        raise InvalidParameterError(
            f"{redact(place)!r} is no place of a setting",
            hint="write e.g. providers.openai.default_model",
        )
    return tuple(keys)


def is_secret(keys: Keys) -> bool:
    """Whether what stands there is a key, or may hold one."""
    return keys[-1] == "api_key" or "headers" in keys[2:-1]


def set_value(
    path: Path, keys: Keys, values: Iterable[Any], *, before_it_counts: Callable[[], None]
) -> tuple[Any, list[Problem]]:
    """Write the first of ``values`` that is right.

    Args:
        path: the settings file; it is created if there is none.
        keys: the place.
        values: what may be meant, e.g. a number and the same as text.
        before_it_counts: called when everything is right, and before the file is replaced.

    Returns:
        The value that was written, and what to warn of.

    Raises:
        InvalidParameterError: all of them are wrong; the text names the place, nothing is written.
        ConfigurationError: the file is broken already, or cannot be written.
        DependencyMissingError: tomlkit is not installed.
    """
    tomlkit = _tomlkit()
    # Who keeps it elsewhere and links to it wants it to stay there.
    path = Path(os.path.realpath(path))
    old_text, known = _as_it_is(path)
    failure: Problem | None = None
    for value in values:
        text = _with_value(tomlkit, old_text, keys, value)
        with _file_beside(path, text, private=is_secret(keys) and not is_reference(value)) as new:
            found = _new_problems(new, path, known)
            excused = _excused(keys, value)
            wrong = [p for p in found if p.severity == "error" and p.place != excused]
            if not wrong:
                before_it_counts()
                os.replace(new, path)
                _keep(path.parent)
                return value, found
        failure = failure or wrong[0]
    assert failure is not None
    raise InvalidParameterError(f"{failure.place}: {failure.message}", hint=failure.hint)


def _tomlkit() -> ModuleType:
    try:
        return importlib.import_module("tomlkit")
    except ImportError:
        pass
    raise DependencyMissingError(
        "changing the settings file needs the package tomlkit, which is not installed", extra="cli"
    )


def _as_it_is(path: Path) -> tuple[str, list[Problem]]:
    """The text of the file, and what is wrong with it already."""
    known = Settings(read_settings_file(path)).check()
    return (path.read_text("utf-8-sig") if path.exists() else ""), known


def _with_value(tomlkit: ModuleType, text: str, keys: Keys, value: Any) -> str:
    document = tomlkit.parse(text)
    table: Any = document
    for depth, key in enumerate(keys[:-1], start=1):
        if key not in table:
            # [providers] alone says nothing; [providers.openai] does.
            table[key] = tomlkit.table(is_super_table=depth == 1)
        table = table[key]
        if not isinstance(table, Mapping):
            raise InvalidParameterError(f"{'.'.join(keys[:depth])}: is no table")
    table[keys[-1]] = value
    written: str = tomlkit.dumps(document)
    if tomllib.loads(written) != _expected(tomllib.loads(text), keys, value):
        raise ConfigurationError(
            "the settings file is written in a way that cannot be changed safely",
            hint="change it in an editor",
        )
    return written


def _expected(tables: dict[str, Any], keys: Keys, value: Any) -> dict[str, Any]:
    inner = tables
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
    inner[keys[-1]] = value
    return tables


@contextmanager
def _file_beside(path: Path, text: str, *, private: bool) -> Iterator[Path]:
    """A file with ``text`` in the same folder, which is gone afterwards unless it was renamed."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        problem = error.strerror
    else:
        new = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if path.exists() and not private:
                new.chmod(stat.S_IMODE(path.stat().st_mode))
            yield new
        finally:
            new.unlink(missing_ok=True)
        return
    raise ConfigurationError(f"the settings file {path} cannot be written: {problem}")


def _keep(folder: Path) -> None:
    """Make sure that the new name outlives a power cut; not every system can open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _new_problems(new: Path, path: Path, known: list[Problem]) -> list[Problem]:
    """What would be wrong with the settings that is not wrong already."""
    found = Settings(msgspec.structs.replace(read_settings_file(new), path=path)).check()
    return [problem for problem in found if problem not in known]


def _excused(keys: Keys, value: Any) -> str | None:
    """The place of a reference to a key that is not there yet; it may come later."""
    if keys[-1] != "api_key" or not is_reference(value):
        return None
    place = ".".join(keys)
    try:
        resolve_secret(value, place)
    except AuthenticationError:
        return place
    except LLMError:
        pass  # it can never lead anywhere
    return None
