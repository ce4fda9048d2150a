"""JSON of which nothing is certain.

When reading, a value that is not what it should be is taken as absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..errors import InvalidParameterError

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding JSON may raise."""

# An escaped backslash and a whole surrogate pair are good; any other surrogate is half a character.
# Compiled when first used, for most servers send none.
_HALF_ESCAPES = (
    r"(?P<good>\\\\|\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w)|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def text(value: object) -> str:
    """``value`` if it is a text, else ``""``."""
    return value if type(value) is str else ""


def field(value: object, *path: str) -> Any:
    """What stands at ``path`` inside nested objects, or None."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def whole_number(value: object) -> int | None:
    """``value`` as a number from 0, if it is one or is written like one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    return value if isinstance(value, int) and value >= 0 else None


def first_number(value: object, *paths: str | Sequence[str]) -> int:
    """The first number above 0 at one of ``paths``, each a name or several; 0 if there is none."""
    for path in paths:
        steps = (path,) if isinstance(path, str) else path
        number = whole_number(field(value, *steps))
        if number:
            return number
    return 0


def document(data: bytes) -> Any:
    """The decoded JSON, or None if it is none."""
    try:
        return decoded(data)
    except UNREADABLE:
        return None


def decoded(data: bytes) -> Any:
    """The decoded JSON.  Half a character, cut by a careless server, becomes U+FFFD.

    Raises:
        UNREADABLE: it is no JSON.
    """
    try:
        return msgspec.json.decode(data)
    except UNREADABLE:
        mended = re.sub(_HALF_ESCAPES, _mended, data.decode(errors="replace"))
    return msgspec.json.decode(mended)


def _mended(match: re.Match[str]) -> str:
    return match["good"] or "\\ufffd"


def encoded(body: Mapping[str, Any]) -> bytes:
    """``body`` as JSON.

    Raises:
        InvalidParameterError: something in it has no form in JSON.
    """
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        why = str(error)
    raise InvalidParameterError(
        f"the request cannot be written as JSON: {why}",
        hint="look at extra, at the tools' parameters and at the response format",
    )
