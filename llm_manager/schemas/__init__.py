"""JSON Schemas of Python types and functions, and JSON texts as values of Python types.

The types are those that people describe data with: dataclasses, `msgspec.Struct`, TypedDict,
pydantic models, enumerations, and whatever these are made of.

::

    schema_of(kind)          a type -> JSON Schema
    described(function)      a function -> name, description, JSON Schema, checked arguments
    strict_schema(schema)    JSON Schema -> the form that strict services demand
    parsed(text, kind)       JSON text -> value
    validator_of(schema)     JSON Schema -> what is wrong with a value

Everything here is pure; only `validator_of` loads a library, and only when it is called.
"""

from __future__ import annotations

from .answers import json_in, parsed
from .checking import Validator, validator_of
from .functions import FunctionDescription, described
from .kinds import schema_of
from .strict import is_strict, strict_schema

__all__ = [
    "FunctionDescription",
    "Validator",
    "described",
    "is_strict",
    "json_in",
    "parsed",
    "schema_of",
    "strict_schema",
    "validator_of",
]
