"""JSON Schemas of Python types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import InvalidParameterError
from .docstrings import read_docstring

_PREFIX = "#/$defs/"
# Words of a schema whose values are data, not schemas.
_VALUES = ("default", "const", "enum", "examples")
_JSON_TYPES = {str: "string", int: "integer"}


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON Schema of ``kind``: an object schema, what it is made of under ``$defs``.

    Names of classes become titles; docstrings become descriptions, those of the fields included if
    it has a section ``Attributes``.

    Raises:
        InvalidParameterError: JSON cannot express it, or it is no object.
    """
    schema = schema_of_any(kind)
    if schema.get("type") != "object":
        raise InvalidParameterError(
            f"{shown(kind)} is no JSON object, which an answer by a schema has to be",
            hint="wrap it in a dataclass with one field",
        )
    return schema


def schema_of_any(kind: Any) -> dict[str, Any]:
    """The JSON Schema of ``kind``, whatever it is.

    Raises:
        InvalidParameterError: JSON cannot express it.
    """
    try:
        schema = msgspec.json.schema(kind, schema_hook=_schema_of_foreign)
    except (TypeError, NameError, ValueError) as error:
        reason = str(error).splitlines()[-1]
    except RecursionError:
        reason = "it is nested too deeply"
    else:
        return _with_root(_explained(_with_shared_definitions(schema)))
    raise InvalidParameterError(f"{shown(kind)} cannot be described as JSON: {reason}")


def shown(kind: Any) -> str:
    """The name of a type, for an error text."""
    return str(getattr(kind, "__name__", None) or repr(kind))[:80]


def _schema_of_foreign(kind: Any) -> dict[str, Any]:
    own = getattr(kind, "model_json_schema", None)
    if own is None:
        raise NotImplementedError(f"nothing is known about {shown(kind)}")
    schema: dict[str, Any] = own()
    return schema


def _with_shared_definitions(schema: dict[str, Any]) -> dict[str, Any]:
    """All ``$defs`` at the root, where their references expect them."""
    shared: dict[str, Any] = {}

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(each) for each in value]
        if not isinstance(value, Mapping):
            return value
        for name, definition in value.get("$defs", {}).items():
            own = moved(definition)
            if shared.setdefault(name, own) != own:
                raise InvalidParameterError(
                    f"two different types are called {name!r}", hint="rename one of them"
                )
        return {key: moved(each) for key, each in value.items() if key != "$defs"}

    result: dict[str, Any] = moved(schema)
    return {**result, "$defs": shared} if shared else result


def _explained(value: Any) -> Any:
    """Schemas with what docstrings say put where it belongs, and enumerations with their type."""
    if isinstance(value, list):
        return [_explained(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    result = {key: _explained(each) for key, each in value.items() if key not in _VALUES}
    result |= {key: value[key] for key in _VALUES if key in value}
    if isinstance(value.get("enum"), list):
        kinds = {_JSON_TYPES.get(type(each)) for each in value["enum"]}
        if len(kinds) == 1 and None not in kinds:
            result["type"] = kinds.pop()
    if value.get("type") == "object" and isinstance(value.get("description"), str):
        description, meanings = read_docstring(value["description"])
        result["description"] = description
        for name, own in result.get("properties", {}).items():
            if name in meanings:
                own.setdefault("description", meanings[name])
        if not description:
            del result["description"]
    return result


def _with_root(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself at the root, not a reference to it."""
    definitions = schema.get("$defs", {})
    name = str(schema.get("$ref", "")).removeprefix(_PREFIX)
    if name not in definitions:
        return schema
    root = dict(definitions[name])
    others = {key: each for key, each in definitions.items() if key != name}
    if _refers_to(name, [root, *others.values()]):
        others = definitions  # it contains itself
    return {**root, "$defs": others} if others else root


def _refers_to(name: str, value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.get("$ref") == _PREFIX + name or _refers_to(name, list(value.values()))
    return isinstance(value, list) and any(_refers_to(name, each) for each in value)
