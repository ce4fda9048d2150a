"""The base of all public data: immutable, camelCase as JSON, built from what people write."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache, reduce
from typing import Any, TypeVar, get_args

import msgspec

from ..checks import shown
from ..errors import InvalidParameterError

T = TypeVar("T", bound="Data")


class Data(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all public data types: immutable, compared by value, camelCase as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """This object as JSON-ready dictionaries and lists, with camelCase keys."""
        plain: dict[str, Any] = msgspec.to_builtins(self, str_keys=True, order="deterministic")
        return plain


def from_mapping(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    """Build a data type from a dictionary with snake_case or camelCase keys.

    Raises:
        InvalidParameterError: a key is unknown (with the nearest known one) or a value has the
            wrong type; the text names the place.
    """
    try:
        return msgspec.convert(_wire_keys(kind, values, what), kind, str_keys=True)
    except InvalidParameterError:
        raise
    except msgspec.ValidationError as error:
        raise InvalidParameterError(f"{what}: {error}") from None


def _wire_keys(kind: type[Data], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``values`` with the keys that JSON has, in nested data too; refuses unknown ones."""
    if not isinstance(values, Mapping):
        raise InvalidParameterError(
            f"{where} must be a {kind.__name__} or a dictionary, got {shown(values)}"
        )
    names = _names(kind)
    result: dict[str, Any] = {}
    for key, value in values.items():
        if key == kind.__struct_config__.tag_field:
            result[key] = value
            continue
        if key not in names:
            fields = kind.__struct_fields__
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(fields)}"
            raise InvalidParameterError(f"unknown key {key!r} in {where}", hint=hint)
        name, wire_name = names[key]
        if isinstance(value, list | tuple | Mapping):
            value = _nested(types_of(kind)[name], value, f"{where}.{name}")
        result[wire_name] = value
    return result


@cache  # requests are made of dictionaries
def _names(kind: type[Data]) -> Mapping[Any, tuple[str, str]]:
    """The names of each field in Python and in JSON, by either of them."""
    both = list(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    return {name: names for names in both for name in names}


@cache  # reading annotations takes 0.2 ms, so it is also put off until somebody needs them
def types_of(kind: type[Data]) -> Mapping[str, Any]:
    """The type of each field, by its name in Python."""
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def _nested(annotation: Any, value: Any, where: str) -> Any:
    """``value`` of a field, with the keys of the data in it made those of JSON."""
    if isinstance(value, list | tuple):
        return [_nested(annotation, v, f"{where}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    for kind in _data_types(annotation):
        tag_field, tag = kind.__struct_config__.tag_field, kind.__struct_config__.tag
        if tag_field is None or value.get(tag_field) == tag:
            return _wire_keys(kind, value, where)
    return value


def _data_types(annotation: Any) -> list[type[Data]]:
    if isinstance(annotation, type) and issubclass(annotation, Data):
        return [annotation]
    return [kind for inner in get_args(annotation) for kind in _data_types(inner)]


def _merge(given: Any, defaults: Any) -> Any:
    """``given`` completed field by field from ``defaults``; nested data is completed too."""
    blank = _blank(defaults.__class__)
    if given == defaults or defaults == blank:
        return given
    filled: dict[str, Any] = {}
    for name in given.__struct_fields__:
        value, default = getattr(given, name), getattr(defaults, name)
        if isinstance(value, Data) and isinstance(default, Data):
            filled[name] = _merge(value, default)
        elif isinstance(value, dict) and isinstance(default, dict) and name == "extra":
            filled[name] = {**default, **value}
        else:
            filled[name] = default if value == getattr(blank, name) else value
    return type(given)(**filled)


@cache
def _blank(kind: Any) -> Any:
    """The data of a type that says nothing; made once, for it is compared at every request."""
    return kind()


def merged(*levels: T) -> T:
    """Several levels of the same settings in one, the first level being the strongest."""
    result: T = reduce(_merge, levels)
    return result
