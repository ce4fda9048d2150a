"""Reads what a caller has of a file: a path, bytes, base64 or a data URL.

What a text means is decided here, by rules that never take a mistyped path for anything else.
"""

from __future__ import annotations

import binascii
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from ..errors import InvalidParameterError
from ..redaction import redact
from .kinds import looks_like_media

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview

_SCHEME = re.compile(r"\s{0,99}(?:([a-z][a-z0-9+.-]{1,30})://|(data):)", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+(?:=\s*){0,2}")
# The smallest image has about 35 bytes; no shorter text is taken for base64.
_SMALLEST_BASE64 = 44
_SPACES = (b" ", b"\t", b"\r", b"\n")
# More than any system takes.
_LONGEST_PATH = 40_000


@dataclass(frozen=True, slots=True)
class File:
    """A file that was read.

    Attributes:
        data: its content.
        shown: what to call it in an error.
        name: its name, or None if it has none.
        claimed: the media type that it came with, or None.
    """

    data: bytes
    shown: str
    name: str | None = None
    claimed: str | None = None


def scheme_of(source: Source) -> str | None:
    """The scheme of a URL, in lower case; None for anything else."""
    match = _SCHEME.match(source) if isinstance(source, str) else None
    return None if match is None else (match[1] or match[2]).lower()


def read_source(source: Source, max_bytes: int) -> File:
    """The file that ``source`` is or names; see `MediaFactory` for the rules.

    Raises:
        InvalidParameterError: there is none, or it is too large.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return File(_checked(source, "the data", max_bytes), "the data")
    if isinstance(source, os.PathLike):
        return _at_path(Path(source), max_bytes)
    if not isinstance(source, str):
        raise InvalidParameterError(
            f"a source must be a path, a URL, bytes or base64 text, not {type(source).__name__}"
        )
    scheme = scheme_of(source)
    if scheme == "data":
        return _in_data_url(source.strip(), max_bytes)
    if scheme is not None:
        raise InvalidParameterError(
            f"{shown(source)} has the scheme {scheme!r}, which is not read here",
            hint="give a path, or a URL with http, https or data",
        )
    if _is_base64_of_media(source):
        packed = source.encode(errors="replace")
        return File(_unbase64(packed, "the base64 text", max_bytes), "the base64 text")
    if len(source) > _LONGEST_PATH:
        raise _no_file(f"{shown(source)} is too long for a path")
    return _at_path(Path(source), max_bytes)


def check_size(size_bytes: int, what: str, max_bytes: int) -> None:
    """Refuse what is too large.

    Raises:
        InvalidParameterError: it is; the text has both numbers.
    """
    if size_bytes > max_bytes:
        raise InvalidParameterError(
            f"{what} has {size_bytes} bytes; at most {max_bytes} are accepted",
            code="media_too_large",
            hint="make it smaller, or raise max_bytes in limits=MediaLimits(...)",
        )


def shown(source: str) -> str:
    """A short form of a text for an error, without what looks like a secret."""
    text = redact(source[:1000])
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _checked(data: bytes | bytearray | memoryview, what: str, max_bytes: int) -> bytes:
    check_size(memoryview(data).nbytes, what, max_bytes)
    return bytes(data)


# ---- paths ---------------------------------------------------------------------------------------


def _at_path(path: Path, max_bytes: int) -> File:
    what = shown(str(path))
    try:
        path = path.expanduser()
        facts = path.stat()
        if stat.S_ISREG(facts.st_mode):
            check_size(facts.st_size, what, max_bytes)
            with path.open("rb") as file:
                # It may grow while it is read.
                return File(_checked(file.read(max_bytes + 1), what, max_bytes), what, path.name)
        problem = "is a folder" if stat.S_ISDIR(facts.st_mode) else "is no regular file"
    except InvalidParameterError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        problem = "does not exist"
    except (OSError, RuntimeError, ValueError) as error:
        # Without a home to expand, with a zero byte in it, too long, or not ours to read.
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    raise _no_file(f"{what} {problem}")


def _no_file(text: str) -> InvalidParameterError:
    return InvalidParameterError(
        text,
        code="file_not_found",
        hint="a text is read as a path; what is meant as text goes into the message as it is",
    )


# ---- base64 --------------------------------------------------------------------------------------


def _is_base64_of_media(text: str) -> bool:
    """Whether ``text`` begins as base64 of an image or a PDF does.

    The rest is not looked at: if it is something else, the text is damaged base64 and no path.
    """
    beginning = text[:80]
    if len(text) < _SMALLEST_BASE64 or not _BASE64.fullmatch(beginning):
        return False
    plain = "".join(beginning.split()).rstrip("=")
    return looks_like_media(binascii.a2b_base64(plain[: len(plain) // 4 * 4]))


def _unbase64(packed: bytes, what: str, max_bytes: int) -> bytes:
    if any(space in packed for space in _SPACES):
        packed = packed.translate(None, b"".join(_SPACES))
    packed = packed.rstrip(b"=")
    check_size(len(packed) * 3 // 4, what, max_bytes)
    try:
        # Many writers leave out the padding.
        return binascii.a2b_base64(packed + b"=" * (-len(packed) % 4), strict_mode=True)
    except ValueError as error:
        problem = str(error)
    raise InvalidParameterError(
        f"{what} is not valid base64: {problem}",
        code="media_damaged",
        hint="was it cut off, or copied together with something else?",
    )


def _in_data_url(url: str, max_bytes: int) -> File:
    head, comma, written = url.partition(",")
    content = written.encode(errors="surrogatepass")
    if not comma:
        raise InvalidParameterError(
            f"{shown(url)} is no data URL: it has no comma",
            code="media_damaged",
            hint="write data:<media type>;base64,<content>",
        )
    media_type, *parameters = head[len("data:") :].split(";")
    what = "the data URL"
    if [p for p in parameters if p.strip().lower() == "base64"]:
        # Some writers escape "+" and "/" as well.
        packed = unquote_to_bytes(content) if b"%" in content else content
        data = _unbase64(packed, what, max_bytes)
    else:
        check_size(len(content) // 3, what, max_bytes)
        data = _checked(unquote_to_bytes(content), what, max_bytes)
    return File(data, what, claimed=media_type.strip() or None)
