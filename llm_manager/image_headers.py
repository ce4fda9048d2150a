"""Reads the size of a picture from the beginning of its file, without decoding it."""

from __future__ import annotations

import struct
from collections.abc import Callable

Size = tuple[int, int]
"""Width and height, in pixels."""

# JPEG's "start of frame" segments, which have the size; the gaps are other segments.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# A file can be made of millions of empty segments; a picture has some dozens before its frame.
_JPEG_STEPS = 10_000


def picture_size(data: bytes, media_type: str) -> Size | None:
    """Width and height in pixels as they are stored, before any rotation that the file asks for.

    None if the header has no size, or if headers of this type are not read here.
    """
    read = _READERS.get(media_type)
    if read is None:
        return None
    try:
        width, height = read(data)
    except (struct.error, IndexError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def has_readable_header(media_type: str) -> bool:
    """Whether the size of pictures of this type is read here."""
    return media_type in _READERS


def _png(data: bytes) -> Size:
    if data[12:16] != b"IHDR":
        return 0, 0
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> Size:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # a negative height only says that the rows run downwards


def _jpeg(data: bytes) -> Size:
    place = 2
    for _ in range(_JPEG_STEPS):
        if data[place] != 0xFF:
            return 0, 0
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            place += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        else:
            length = struct.unpack_from(">H", data, place + 2)[0]
            if length < 2:
                return 0, 0
            place += 2 + length
    return 0, 0


def _webp(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return _uint24(data, 24) + 1, _uint24(data, 27) + 1
    return 0, 0


def _uint24(data: bytes, place: int) -> int:
    if len(data) < place + 3:
        raise IndexError
    return int.from_bytes(data[place : place + 3], "little")


_READERS: dict[str, Callable[[bytes], Size]] = {
    "image/png": _png,
    "image/gif": _gif,
    "image/bmp": _bmp,
    "image/jpeg": _jpeg,
    "image/webp": _webp,
}
