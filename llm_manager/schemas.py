"""JSON Schemas of Python types, and JSON texts as values of Python types.

The types are those that people describe an answer with: dataclasses, `msgspec.Struct`, TypedDict,
pydantic models and whatever these are made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .errors import InvalidParameterError, InvalidResponseError

if TYPE_CHECKING:
    from .messages import LLMResponse

P = TypeVar("P")


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON Schema of ``kind``.

    Raises:
        InvalidParameterError: JSON cannot express it.
    """
    own = getattr(kind, "model_json_schema", None)
    if own is not None:
        schema: dict[str, Any] = own()
        return schema
    try:
        return msgspec.json.schema(kind)
    except TypeError as error:
        reason = str(error)
    raise InvalidParameterError(f"{kind!r:.80} cannot be described as JSON: {reason}")


def parsed(text: str, kind: type[P], partial: LLMResponse | None = None) -> P:
    """The JSON text as a value of ``kind``.

    Raises:
        InvalidResponseError: it is not JSON, or does not fit.
    """
    validate = getattr(kind, "model_validate_json", None)
    try:
        if validate is not None:
            value: P = validate(text)
            return value
        return msgspec.json.decode(text, type=kind)
    except ValueError as error:
        reason = str(error)
    raise InvalidResponseError(
        f"the answer is no {getattr(kind, '__name__', kind)}: {reason}", partial=partial
    )
