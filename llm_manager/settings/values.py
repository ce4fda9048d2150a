"""What the value of a setting may be; every error begins with the place of the bad value."""

from __future__ import annotations

import collections.abc
import datetime
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec

from ..checks import shown
from ..errors import InvalidParameterError
from ..messages import Data, LLMRequestOptions, Retries, Timeouts, from_mapping, types_of
from ..redaction import redact
from .names import snake

_TABLES = (dict, collections.abc.Mapping)
_LISTS = (list, tuple, collections.abc.Sequence)
_PLAIN = (str, int, float, bool, list, tuple, dict, datetime.date, datetime.time)
_WORDS = {
    "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false",
    "array": "a list", "object": "a table", "null": "nothing",
}  # fmt: skip
# Compiled when first used, for most settings are right.
_EXPECTED = r"Expected `([^`]*)`"
_PLACE_INSIDE = r"at `\$([^`]*)`"
_NESTED: Mapping[str, type[Data]] = {"timeouts": Timeouts, "retries": Retries}
# A tool can only be chosen among tools; these words are right without.
_CHOICES_WITHOUT_TOOLS = (None, "auto", "none")


def checked_option(path: tuple[str, ...], value: Any, place: str) -> Any:
    """The value of an option of requests, or of a part of it, as it has to be.

    Args:
        path: names of `LLMRequestOptions` and of what it holds: ``("timeouts", "total_s")``.
        value: as it was given.
        place: where, for errors.

    Raises:
        InvalidParameterError: the value is wrong; the text begins with ``place``.
    """
    option, *inner = path
    if option == "tool_choice" and value not in _CHOICES_WITHOUT_TOOLS:
        return value  # looked at together with the tools
    if option == "extra":
        return value
    kind = _NESTED.get(option, LLMRequestOptions) if inner else LLMRequestOptions
    name = path[-1]
    try:
        return getattr(from_mapping(kind, {name: value}, place), name)
    except InvalidParameterError as error:
        problem, hint = error.message, error.hint
    text = _placed(problem, ".".join(path), value, place, types_of(kind)[name])
    raise InvalidParameterError(text, hint=hint)


def checked_setting(value: Any, annotation: Any, place: str, *, private: bool = False) -> Any:
    """The value of a provider's setting, as far as the type of the constructor tells.

    Args:
        value: as it was given.
        annotation: the constructor's type of it, or None.
        place: where, for errors.
        private: whether the value must not be shown.

    Raises:
        InvalidParameterError: it is of another type; the text begins with ``place``.
    """
    if not isinstance(value, _PLAIN):
        return value
    expected = _convertible(annotation)
    if expected is None:
        return value
    try:
        converted = msgspec.convert(value, expected, str_keys=True)
    except (msgspec.ValidationError, InvalidParameterError) as error:
        problem = str(error)
    else:
        return value if isinstance(converted, _PLAIN) else converted
    shown_value = None if private else value
    raise InvalidParameterError(_placed(problem, place, shown_value, place, annotation))


def takes_text(annotation: Any) -> bool:
    """Whether it takes a text, and no number, truth value, object or function."""
    parts = set(_parts(annotation)) - {type(None)}
    return str in parts and all(part is str or get_origin(part) in _LISTS for part in parts)


def takes_texts(annotation: Any) -> bool:
    """Whether it takes a table of texts, such as headers."""
    tables = [part for part in _parts(annotation) if get_origin(part) in _TABLES]
    return bool(tables) and get_args(tables[0])[1:] == (str,)


def _placed(problem: str, name: str, value: Any, place: str, annotation: Any) -> str:
    """``problem``, which other code found, behind the place where it has to be repaired."""
    last = name.rpartition(".")[2]
    choices = [word for part in _parts(annotation) for word in _choices(part)]
    if choices and problem.partition(" - ")[0].endswith(f"Invalid enum value {value!r}"):
        return f"{place}: must be one of {', '.join(choices)}, got {redact(repr(value))}"
    expected = re.search(_EXPECTED, problem)
    if expected is not None:
        inside = re.search(_PLACE_INSIDE, problem)
        deeper = "" if inside is None else snake(inside.group(1)).removeprefix(f".{last}")
        words = [_WORDS.get(word, word) for word in expected.group(1).split(" | ")]
        wanted = " or ".join(word for word in words if word != _WORDS["null"])
        got = "" if value is None or deeper else f", got {redact(shown(value))}"
        return f"{place}{deeper}: must be {wanted}{got}"
    for prefix in (f"{place}: ", f"{name} ", f"{last} "):
        problem = problem.removeprefix(prefix)
    if isinstance(value, int):  # it was made a float on the way
        problem = problem.replace(f"got {float(value)!r}", f"got {value!r}")
    return f"{place}: {redact(problem)}"


def _choices(part: Any) -> tuple[str, ...]:
    return get_args(part) if get_origin(part) is Literal else ()


def _parts(annotation: Any) -> list[Any]:
    """The types that a union is made of."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for inner in get_args(annotation) for part in _parts(inner)]
    return [annotation]


def _convertible(annotation: Any) -> Any:
    """As much of a type as a settings file can hold a value of, or None if that says nothing."""
    if annotation is None or annotation is Any:
        return None
    parts = _parts(annotation)
    if Any in parts:
        return None
    known = [part for part in parts if _can_be_plain(part)]
    if not known or known == [type(None)]:
        return None
    return typing.Union[tuple(known)]  # noqa: UP007 - made at run time


def _can_be_plain(part: Any) -> bool:
    try:
        msgspec.inspect.type_info(part)
    except (TypeError, NameError, AttributeError):
        return False
    return not isinstance(msgspec.inspect.type_info(part), msgspec.inspect.CustomType)
