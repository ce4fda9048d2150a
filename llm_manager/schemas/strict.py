"""JSON Schemas in the strict form: every object names all of its keys, and all are required.

Services that let a schema steer the model token by token demand it (OpenAI, "Structured outputs":
``additionalProperties: false``, every property required, no ``oneOf``, nothing beside ``$ref``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import UnsupportedFeatureError

_OF_NAMED = ("properties", "$defs", "definitions")
_OF_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
_OF_ONE = ("items", "not")
# A default says what holds if a key is left out, which is not allowed here.
_DROPPED = ("default", "discriminator", "$schema")
_NULL: dict[str, Any] = {"type": "null"}


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """``schema`` with every object closed and every property required.

    A property that was optional may be null instead of left out; `parsed` and `validator_of` take
    such a null for "left out".  Defaults are dropped, ``oneOf`` becomes ``anyOf``.  Nothing else
    changes: a service may still refuse other words of JSON Schema.

    Raises:
        UnsupportedFeatureError: an object may have any keys, which cannot be said in this form.
    """
    result = {
        _renamed(key): _strict_value(key, value)
        for key, value in schema.items()
        if key not in _DROPPED
    }
    if _is_object(result):
        _refuse_free_keys(schema)
        required = schema.get("required", ())
        properties = result.setdefault("properties", {})
        for name, own in properties.items():
            if name not in required:
                properties[name] = _or_null(own)
        result["required"] = list(properties)
        result["additionalProperties"] = False
    reference = result.get("$ref")
    if reference is not None and len(result.keys() - {"$defs", "definitions"}) > 1:
        del result["$ref"]
        result["anyOf"] = [{"$ref": reference}, *result.get("anyOf", ())]
    return result


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether every object in ``schema`` is closed and requires all of its properties."""
    return all(
        each.get("additionalProperties") is False
        and set(each.get("required", ())) == set(each.get("properties", ()))
        for each in _schemas_in(schema)
        if _is_object(each)
    )


def _renamed(key: str) -> str:
    return "anyOf" if key == "oneOf" else key


def _strict_value(key: str, value: Any) -> Any:
    if key in _OF_NAMED and isinstance(value, Mapping):
        return {name: _strict(each) for name, each in value.items()}
    if key in _OF_MANY and isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    return _strict(value) if key in _OF_ONE else value


def _strict(schema: Any) -> Any:
    # True and False are schemas as well.
    return strict_schema(schema) if isinstance(schema, Mapping) else schema


def _is_object(schema: Mapping[str, Any]) -> bool:
    return "properties" in schema or "object" in _types(schema)


def _types(schema: Mapping[str, Any]) -> list[str]:
    kind = schema.get("type", [])
    return list(kind) if _is_list(kind) else [kind]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _refuse_free_keys(schema: Mapping[str, Any]) -> None:
    """Refuse an object whose keys are free; one that names some of them is closed instead."""
    free = schema.get("additionalProperties", True)
    named = "properties" in schema
    if free is False or (free is True and named):
        return
    raise UnsupportedFeatureError(
        f"the object {schema.get('title', schema)!r:.80} may have any keys, which the strict form "
        "of JSON Schema cannot say",
        hint="describe it as a list of objects with a key and a value",
    )


def _or_null(schema: Any) -> Any:
    """A schema that takes null as well."""
    if not isinstance(schema, Mapping) or _takes_null(schema):
        return schema
    if "type" in schema and "const" not in schema and "enum" not in schema:
        return {**schema, "type": [*_types(schema), "null"]}
    if set(schema) <= {"anyOf", "title", "description"} and "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], _NULL]}
    spoken = {key: schema[key] for key in ("title", "description") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in spoken}
    return {**spoken, "anyOf": [rest, _NULL]}


def _takes_null(schema: Mapping[str, Any]) -> bool:
    if "enum" in schema:
        return None in schema["enum"]
    return "null" in _types(schema) or any(
        isinstance(one, Mapping) and _takes_null(one) for one in schema.get("anyOf", ())
    )


def _schemas_in(schema: Any) -> Iterator[Mapping[str, Any]]:
    """``schema`` and all schemas inside it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for key, value in schema.items():
        if key in _OF_NAMED and isinstance(value, Mapping):
            inner = list(value.values())
        elif key in _OF_MANY and _is_list(value):
            inner = list(value)
        else:
            inner = [value] if key in (*_OF_ONE, "additionalProperties") else []
        for each in inner:
            yield from _schemas_in(each)
