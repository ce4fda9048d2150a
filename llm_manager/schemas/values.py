"""JSON data as values of Python types.

A null where a type takes none counts as left out: that is how services with strict schemas, which
require every key, leave something out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from .kinds import shown

P = TypeVar("P")
# Compiled when first used, for most programs ask for no values.
_PLACE_OF_NULL = r"got `null` - at `\$([^`]*)`$"
_STEP = r"\.(\w+)|\[(?:\d+|\.{3})\]"


def converted(value: Any, kind: type[P]) -> P:
    """JSON data (dictionaries, lists, texts, numbers) as a value of ``kind``.

    Nulls that do not fit are taken out of ``value``.

    Raises:
        msgspec.ValidationError: it does not fit; the text ends with the place.
    """
    while True:
        try:
            return msgspec.convert(value, kind, dec_hook=_foreign_value)
        except msgspec.ValidationError as error:
            place = re.search(_PLACE_OF_NULL, str(error))
            if place is None or not _left_out(value, _steps(place[1])):
                raise


def model_from_json(text: str, kind: Any) -> Any:
    """A JSON text as a pydantic model, by pydantic's own rules for JSON.

    Raises:
        ValueError: it does not fit; see `reason_of`.
    """
    try:
        return kind.model_validate_json(text)
    except ValueError as error:
        nulls = _places_of_nulls(error)
        value = msgspec.json.decode(text)
        if not any([_left_out(value, place) for place in nulls]):
            raise
    return model_from_json(msgspec.json.encode(value).decode(), kind)


def reason_of(error: Exception) -> str:
    """Why a value does not fit, in one line, without the value itself."""
    listed = getattr(error, "errors", None)
    if listed is None:
        return str(error)
    # A pydantic error: one entry for each place.
    found = listed(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{_path(each['loc'])}: {each['msg']}" for each in found[:5])


def _foreign_value(kind: Any, value: Any) -> Any:
    """A value of a type that msgspec does not know: a pydantic model."""
    validate = getattr(kind, "model_validate", None)
    if validate is None:
        raise NotImplementedError(f"{shown(kind)} cannot be read from JSON")
    try:
        return validate(value)
    except ValueError as error:
        reason, nulls = reason_of(error), _places_of_nulls(error)
    if any([_left_out(value, place) for place in nulls]):
        return _foreign_value(kind, value)
    raise ValueError(reason)


def _places_of_nulls(error: Exception) -> list[tuple[str | int, ...]]:
    listed: list[dict[str, Any]] = getattr(error, "errors", list)()
    return [each["loc"] for each in listed if each.get("input", "") is None]


def _left_out(value: Any, place: Sequence[str | int]) -> bool:
    """Take the null at ``place`` out of ``value``; says whether there was one.

    What is refused in one element of a list is refused in all of them: a number in ``place``
    stands for every element, so that a long list takes one look instead of one for each.
    """
    if not place:
        return False
    step, *rest = place
    if isinstance(step, int):
        elements = value.values() if isinstance(value, dict) else value
        return any([_left_out(each, rest) for each in elements if isinstance(each, dict | list)])
    if not isinstance(value, dict) or step not in value:
        return False
    if rest:
        return _left_out(value[step], rest)
    if value[step] is not None:
        return False
    del value[step]
    return True


def _steps(place: str) -> list[str | int]:
    return [name or 0 for name in re.findall(_STEP, place)]


def _path(steps: Iterable[str | int]) -> str:
    return "$" + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps)
