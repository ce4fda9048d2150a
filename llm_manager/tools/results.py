"""What a function returns, as what a model reads."""

from __future__ import annotations

from typing import Any

import msgspec

from ..messages import Part, TextPart


def content_of(value: Any) -> str | tuple[Part, ...]:
    """The content of the message that tells ``value`` to the model.

    Text stays as it is.  A part (an image, a file), or what can be put into a message, becomes a
    part, alone or in a list with texts.  Everything else becomes JSON.

    Raises:
        TypeError: JSON cannot express it.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("bytes mean nothing to a model: return text, or an ImagePart or FilePart")
    if _is_part(value):
        return (_part(value),)
    if isinstance(value, list | tuple) and any(map(_is_part, value)):
        return tuple(_part(each) for each in value)
    return _json(value)


def _is_part(value: Any) -> bool:
    return isinstance(value, Part) or hasattr(value, "to_part")


def _part(value: Any) -> Part:
    if isinstance(value, Part):
        return value
    if hasattr(value, "to_part"):
        part: Part = value.to_part()
        return part
    return TextPart(text=value if isinstance(value, str) else _json(value))


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        reason = str(error)
    raise TypeError(f"JSON cannot express what it returned: {reason}")


def _plain(value: Any) -> Any:
    """A value that msgspec does not know, if it knows itself: a pydantic model."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} is no JSON")
    return dump(mode="json")
