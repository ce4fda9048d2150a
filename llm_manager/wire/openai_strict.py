"""Which JSON Schemas OpenAI takes as strict, so that the model cannot but follow them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..schemas import is_strict

# OpenAI, guide "Structured Outputs", "Supported schemas".
_REFUSED = frozenset({
    "allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas",
    "patternProperties",
})  # fmt: skip


def takes_strict(schema: Mapping[str, Any]) -> bool:
    """Whether ``schema`` keeps to the rules.

    It is an object without alternatives at the top, every object in it is closed and requires all
    of its properties, and it has none of the words that are refused.  A property of that name
    makes it doubtful, and what is doubtful is not strict: the service then takes it as it is.
    """
    return (
        schema.get("type") == "object"
        and "anyOf" not in schema
        and is_strict(schema)
        and _REFUSED.isdisjoint(_keys_in(schema))
    )


def _keys_in(value: Any) -> Iterator[str]:
    """All keys of nested objects."""
    if isinstance(value, Mapping):
        yield from value
        for each in value.values():
            yield from _keys_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _keys_in(each)
