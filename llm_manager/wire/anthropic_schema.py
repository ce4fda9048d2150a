"""Adapts a JSON Schema to what Anthropic's structured outputs accept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UnsupportedFeatureError
from .loose import encoded

_KEPT = frozenset({"type", "enum", "const", "title", "required", "$ref"})
_FORMATS = frozenset({
    "date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid",
})  # fmt: skip
_OF_MANY = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
_OF_NAMED = ("properties", "$defs", "definitions")
_IGNORED = frozenset({"$schema", "$id", "additionalProperties", "description"})


def closed_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """``schema`` with every object closed, and with what the service refuses put into words.

    Limits of numbers, lengths and the like become part of the description, where the model reads
    them, but nothing enforces them.

    Source: the service's page "Structured outputs", and what its own SDK does.

    Raises:
        UnsupportedFeatureError: an object may have any keys, which cannot be said there.
    """
    closed: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _KEPT or _is_kept(key, value):
            closed[key] = value
        elif key == "items" and isinstance(value, Mapping):
            closed[key] = closed_schema(value)
        elif key in _OF_MANY and isinstance(value, list):
            closed[_OF_MANY[key]] = [_closed(one) for one in value]
        elif key in _OF_NAMED and isinstance(value, Mapping):
            closed[key] = {name: _closed(one) for name, one in value.items()}
        elif key not in _IGNORED:
            said[key] = value
    if closed.get("type") == "object" or "properties" in closed:
        _refuse_free_keys(schema)
        closed["additionalProperties"] = False
    if description := _description(schema.get("description"), said):
        closed["description"] = description
    return closed


def _closed(schema: Any) -> Any:
    # True and False are schemas as well.
    return closed_schema(schema) if isinstance(schema, Mapping) else schema


def _is_kept(key: str, value: Any) -> bool:
    return (key == "format" and value in _FORMATS) or (key == "minItems" and value in (0, 1))


def _refuse_free_keys(schema: Mapping[str, Any]) -> None:
    free = schema.get("additionalProperties", "properties" not in schema)
    if free is True and "properties" in schema:
        return  # known keys and, perhaps, others: the known ones are enough
    if free is not False:
        raise UnsupportedFeatureError(
            "this service gives no JSON objects whose keys are free",
            hint="describe such an object as a list of objects with a key and a value",
        )


def _description(given: Any, said: Mapping[str, Any]) -> str:
    texts = [given] if isinstance(given, str) and given else []
    if said:
        texts.append(encoded(said).decode())
    return "\n\n".join(texts)
