"""How settings are called: one name for each, whatever way it was written.

::

    temperature, defaultParameters.temperature, ModelParameter.TEMPERATURE
        -> ("default_parameters", "temperature")
    timeout, timeouts.total_s
        -> ("default_parameters", "timeouts", "total_s")
    model        -> ("default_model",)
    api_base     -> ("base_url",)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from ..errors import InvalidParameterError
from ..messages import Data, LLMRequestOptions, Retries, Timeouts
from ..redaction import redact
from .constructors import Constructor
from .layers import Path

DEFAULTS = "default_parameters"
OPTIONS = LLMRequestOptions.__struct_fields__
"""The names of the options of requests."""

_ALIASES: Mapping[str, Path] = {
    "default_options": (DEFAULTS,),
    "timeout": (DEFAULTS, "timeouts", "total_s"),
    "timeouts": (DEFAULTS, "timeouts"),
    "model": ("default_model",),
    "api_base": ("base_url",),
}
_TABLES: Mapping[Path, tuple[str, ...]] = {
    (DEFAULTS,): OPTIONS,
    (DEFAULTS, "timeouts"): Timeouts.__struct_fields__,
    (DEFAULTS, "retries"): Retries.__struct_fields__,
}
_EXTRA: Path = (DEFAULTS, "extra")
_CAPITAL = re.compile(r"(?<=[a-z0-9])([A-Z])")


def snake(key: object) -> str:
    """A name as Python writes it, of one in camelCase, too; of an enum's member its value."""
    return _CAPITAL.sub(lambda found: f"_{found.group(1).lower()}", str(key))


def path_of(name: str, constructor: Constructor) -> Path | None:
    """What a name at the top of a provider's settings stands for; None if there is no such setting.

    What the constructor takes comes first, so a provider may have a ``model`` of its own.
    """
    if name == "id":
        return None  # it is the name of the table
    if name in (DEFAULTS, "default_options", "timeouts", "kind"):
        return _ALIASES.get(name, (name,))
    if name in constructor.types:
        return (name,)
    if name in _ALIASES:
        return _ALIASES[name]
    if name in OPTIONS:
        return (DEFAULTS, name)
    return (name,) if constructor.takes_any else None


def named(
    settings: Mapping[Any, Any],
    constructor: Constructor,
    where: Callable[[tuple[str, ...]], str],
) -> Iterator[tuple[Path, tuple[str, ...], Any]]:
    """Each single value of ``settings``: its name, the keys it was written under, and the value.

    Args:
        settings: as somebody wrote them, tables in it.
        constructor: what the kind of provider takes.
        where: the place of keys, for errors.

    Raises:
        InvalidParameterError: there is no such setting, or a table is none; the text names the
            place and what may have been meant.
    """
    for key, value in settings.items():
        path = path_of(snake(key), constructor)
        keys = (str(key),)
        if path is None:
            known = [*(constructor.types.keys() - {"id"}), DEFAULTS, "kind", *OPTIONS]
            raise unknown(where(keys), keys[-1], known)
        yield from _single_values(path, keys, value, where)


def unknown(place: str, key: str, known: Iterable[str]) -> InvalidParameterError:
    """The error for a key that nobody knows."""
    names = sorted(set(known))
    near = get_close_matches(snake(key), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
    return InvalidParameterError(f"{redact(place):.200}: unknown setting", hint=hint)


def _single_values(
    path: Path, keys: tuple[str, ...], value: Any, where: Callable[[tuple[str, ...]], str]
) -> Iterator[tuple[Path, tuple[str, ...], Any]]:
    if path == _EXTRA and isinstance(value, Mapping):
        for name, inner in value.items():
            yield (*path, str(name)), (*keys, str(name)), inner
        return
    known = _TABLES.get(path)
    if known is None:
        yield path, keys, value
        return
    if value is None:
        return
    if isinstance(value, Data):
        value = _given_fields(value)
    if not isinstance(value, Mapping):
        raise InvalidParameterError(f"{where(keys)}: must be a table, got {type(value).__name__}")
    for key, inner in value.items():
        name = snake(key)
        if path == (DEFAULTS,) and name == "timeout":
            yield _ALIASES["timeout"], (*keys, str(key)), inner
            continue
        if name not in known:
            raise unknown(where((*keys, str(key))), str(key), known)
        yield from _single_values((*path, name), (*keys, str(key)), inner, where)


def _given_fields(data: Data) -> dict[str, Any]:
    """What ``data`` says, without what it leaves open."""
    blank = type(data)()
    fields = msgspec.structs.asdict(data)
    return {name: value for name, value in fields.items() if value != getattr(blank, name)}
