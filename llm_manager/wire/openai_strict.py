"""JSON Schemas that OpenAI takes as strict, so that the model cannot but follow them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UnsupportedFeatureError
from ..schemas import strict_schema

# OpenAI, guide "Structured Outputs", "Supported schemas"; whatever is not there makes it refuse.
_WORDS = frozenset({
    "type", "title", "description", "properties", "required", "additionalProperties", "items",
    "enum", "const", "anyOf", "$defs", "definitions", "$ref", "pattern", "format", "multipleOf",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
})  # fmt: skip
_FORMATS = frozenset({
    None, "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid",
})  # fmt: skip


def strict_form(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to send of ``schema`` as strict, or None if it would be refused or mean another thing.

    Objects in it are closed, defaults are dropped.  An object with a key that may be left out has
    no strict form, because the model would have to write it; nor has one that says it is open.
    """
    if not _has_fixed_keys(schema):
        return None
    try:
        strict = strict_schema(schema)
    except UnsupportedFeatureError:
        return None
    at_the_top = strict.get("type") == "object" and "anyOf" not in strict
    return strict if at_the_top and _is_accepted(strict) else None


def _has_fixed_keys(value: Any) -> bool:
    """Whether every object in a schema requires all of its properties and wants no others."""
    if isinstance(value, list | tuple):
        return all(map(_has_fixed_keys, value))
    if not isinstance(value, Mapping):
        return True
    properties, others = value.get("properties"), value.get("additionalProperties", False)
    required = value.get("required", ())
    if isinstance(properties, Mapping) and not (
        isinstance(required, list | tuple) and all(name in required for name in properties)
    ):
        return False
    return others is False and all(map(_has_fixed_keys, value.values()))


def _is_accepted(schema: Any) -> bool:
    if not isinstance(schema, Mapping) or not schema.keys() <= _WORDS:
        return False
    named = (schema.get(word, {}) for word in ("properties", "$defs", "definitions"))
    inner = [each for group in named for each in group.values()]
    inner += schema.get("anyOf", ())
    inner += [schema["items"]] if "items" in schema else []
    return schema.get("format") in _FORMATS and all(map(_is_accepted, inner))
