"""Checks of JSON values against JSON Schemas, by the library ``jsonschema``.

It is loaded when the first validator is made, which takes about a tenth of a second: make it in a
thread where a loop runs.  No reference is ever fetched from a network.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from ..errors import DependencyMissingError, InvalidParameterError

# A model mends three mistakes as well as thirty, and reads less.
_MAX_PROBLEMS = 5
_MAX_SHOWN = 60
_MAX_TEXT = 200


def validator_of(schema: Mapping[str, Any]) -> Validator:
    """The validator for ``schema``; kept for the next time.

    The draft is the one that ``$schema`` names, else 2020-12.

    Raises:
        InvalidParameterError: it is no JSON Schema.
        DependencyMissingError: the library ``jsonschema`` is not installed.
    """
    try:
        return _validator(msgspec.json.encode(schema))
    except (TypeError, RecursionError) as error:
        reason = str(error)
    raise InvalidParameterError(f"the JSON Schema is not JSON: {reason}")


class Validator:
    """Says what is wrong with a value; made by `validator_of`."""

    def __init__(self, checker: Any, best_match: Any, unresolvable: type[Exception]) -> None:
        self._checker = checker
        self._best_match = best_match
        self._unresolvable = unresolvable

    def problems(self, value: Any, where: str = "$") -> list[str]:
        """What is wrong with ``value``, the first few; empty if it fits.

        A null that does not fit, where nothing is required, counts as left out: that is how
        services with strict schemas leave something out.

        Args:
            value: decoded JSON.
            where: what the value is called in the texts, e.g. ``"arguments"``.

        Raises:
            InvalidParameterError: the schema refers to something that it does not have.
        """
        try:
            errors = list(self._checker.iter_errors(value))
            if not errors or self._fits_without_nulls(value, errors):
                return []
            texts = dict.fromkeys(_text(self._best_match([error]), where) for error in errors)
            return list(texts)[:_MAX_PROBLEMS]
        except RecursionError:
            return [f"{where}: it is nested too deeply"]
        except self._unresolvable as error:
            reason = str(error)
        raise InvalidParameterError(f"the JSON Schema refers to what it has not: {reason}")

    def _fits_without_nulls(self, value: Any, errors: list[Any]) -> bool:
        places = [each for error in errors for each in _nulls(error)]
        if not places:
            return False
        copy = msgspec.json.decode(msgspec.json.encode(value))
        for path in places:
            _remove(copy, path)
        return bool(self._checker.is_valid(copy))


@lru_cache(maxsize=64)
def _validator(encoded: bytes) -> Validator:
    try:
        library = importlib.import_module("jsonschema")
        referencing = importlib.import_module("referencing")
    except ImportError:
        library = None
    if library is None:
        raise DependencyMissingError(
            "values are checked against a JSON Schema by the package 'jsonschema'", extra="tools"
        )
    schema = msgspec.json.decode(encoded)
    kind = library.validators.validator_for(schema, default=library.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except library.SchemaError as error:
        reason = f"{error.json_path}: {error.message:.{_MAX_TEXT}}"
    else:
        # With a registry of its own it looks nothing up on the network.
        checker = kind(schema, registry=referencing.Registry())
        return Validator(
            checker, library.exceptions.best_match, referencing.exceptions.Unresolvable
        )
    raise InvalidParameterError(f"this is no JSON Schema: {reason}")


def _nulls(error: Any) -> Iterator[list[str | int]]:
    """The places of properties that are null although ``error`` says that they must not be."""
    path = list(error.absolute_path)
    if error.instance is None and path and isinstance(path[-1], str):
        yield path
    for inner in error.context or ():
        yield from _nulls(inner)


def _remove(value: Any, path: list[str | int]) -> None:
    *way, last = path
    for step in way:
        value = value[step]
    value.pop(last, None)


def _text(error: Any, where: str) -> str:
    path = where + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path
    )
    return f"{path[:_MAX_TEXT]}: {_reason(error)}"


def _reason(error: Any) -> str:
    """Why it does not fit, with as much of the value as a reader needs."""
    wanted, got = error.validator_value, _brief(error.instance)
    match error.validator:
        case "type":
            kinds = wanted if isinstance(wanted, list) else [wanted]
            return f"expected {' or '.join(kinds)}, got {got}"
        case "enum":
            return f"expected one of {', '.join(map(_brief, wanted))}, got {got}"
        case "const":
            return f"expected {_brief(wanted)}, got {got}"
        case "required":
            missing = [name for name in wanted if name not in error.instance]
            return f"{', '.join(map(repr, missing))} missing"
        case "additionalProperties" if wanted is False:
            known = error.schema.get("properties", {})
            unknown = [name for name in error.instance if name not in known]
            return f"unknown {_brief(unknown)}; known are {', '.join(known)[:_MAX_TEXT]}"
        case rule if isinstance(wanted, str | int | float):
            return f"{got} breaks the rule {rule}: {_brief(wanted)}"
        case rule:
            return f"{got} breaks the rule {rule}"


def _brief(value: Any) -> str:
    """A value as JSON, cut where it gets long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
