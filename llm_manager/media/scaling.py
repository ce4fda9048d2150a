"""Scales pictures down with pillow, which is loaded when the first one has to be.

Runs in a thread.  What this module must not do: decode a picture before its size is known to be
below the limit.
"""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..errors import DependencyMissingError, InvalidParameterError
from ..image_headers import Size
from ..redaction import redact

MAX_DECODED_PIXELS = 64_000_000
"""Pictures with more pixels are not decoded; this many take up to 256 MB of memory."""

_PILLOW_NAMES = {
    "image/png": "PNG", "image/jpeg": "JPEG", "image/gif": "GIF", "image/webp": "WEBP",
    "image/bmp": "BMP", "image/tiff": "TIFF", "image/avif": "AVIF",
}  # fmt: skip
_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Scaled:
    """A picture that was scaled; its size in pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


def scaled_down(
    data: bytes,
    media_type: str,
    *,
    size: Size | None,
    max_side: int | None,
    max_pixels: int | None,
) -> Scaled | None:
    """The picture within the limits, or None if it is within them.

    Raises:
        DependencyMissingError, InvalidParameterError: see `ImageInput.fit`.
    """
    if size is not None:
        if _smaller(size, max_side, max_pixels) == size:
            return None
        _check_decodable(size)
    pillow = _pillow()
    name = _PILLOW_NAMES.get(media_type)
    if name is None:
        raise _unreadable(media_type, "pillow has no reader for it")
    bombs = (pillow.DecompressionBombError, pillow.DecompressionBombWarning)
    try:
        return _scaled(pillow, data, name, max_side, max_pixels)
    except InvalidParameterError:
        raise
    except (OSError, SyntaxError, ValueError, *bombs) as error:
        problem = redact(str(error))
    raise _unreadable(media_type, problem)


def _scaled(
    pillow: ModuleType, data: bytes, name: str, max_side: int | None, max_pixels: int | None
) -> Scaled | None:
    with pillow.open(io.BytesIO(data), formats=[name]) as opened:
        _check_decodable(opened.size)
        size = _smaller(opened.size, max_side, max_pixels)
        if size == opened.size:
            return None
        # Scaling while a JPEG is decoded is many times cheaper than after it.
        opened.draft(None, size)
        picture = opened.convert(_mode(opened, name))
        picture = picture.resize(size, pillow.Resampling.LANCZOS, reducing_gap=3.0)
        upright = _upright(pillow, picture, opened)
        return _written(upright, name, opened.info.get("icc_profile"))


def _check_decodable(size: Size) -> None:
    width, height = size
    if width * height > MAX_DECODED_PIXELS:
        raise InvalidParameterError(
            f"the image has {width} x {height} pixels; at most {MAX_DECODED_PIXELS} are decoded",
            code="media_too_many_pixels",
            hint="scale it down with another program",
        )


def _smaller(size: Size, max_side: int | None, max_pixels: int | None) -> Size:
    """The largest size within the limits that has the proportions of ``size``."""
    width, height = size
    factor = 1.0
    if max_side is not None:
        factor = min(factor, max_side / max(size))
    if max_pixels is not None:
        factor = min(factor, (max_pixels / (width * height)) ** 0.5)
    if factor == 1.0:
        return size
    # A hair more, because 1568 / 3000 * 3000 is less than 1568.
    return max(1, int(width * factor + 1e-6)), max(1, int(height * factor + 1e-6))


def _mode(picture: Any, name: str) -> str:
    if picture.has_transparency_data and name != "JPEG":
        return "RGBA"
    return "L" if picture.mode == "L" else "RGB"


def _upright(pillow: ModuleType, picture: Any, original: Any) -> Any:
    """``picture`` turned as the Exif data of ``original`` asks for; its own Exif data is gone."""
    turns = {
        2: pillow.Transpose.FLIP_LEFT_RIGHT,
        3: pillow.Transpose.ROTATE_180,
        4: pillow.Transpose.FLIP_TOP_BOTTOM,
        5: pillow.Transpose.TRANSPOSE,
        6: pillow.Transpose.ROTATE_270,
        7: pillow.Transpose.TRANSVERSE,
        8: pillow.Transpose.ROTATE_90,
    }
    turn = turns.get(original.getexif().get(_ORIENTATION))
    return picture if turn is None else picture.transpose(turn)


_ORIENTATION = 0x0112


def _written(picture: Any, name: str, icc_profile: bytes | None) -> Scaled:
    kept = name if name in ("JPEG", "WEBP") else "PNG"
    quality = {} if kept == "PNG" else {"quality": _JPEG_QUALITY}
    # A profile describes colours of one kind; that of CMYK says nothing about RGB.
    profile = {"icc_profile": icc_profile} if icc_profile and icc_profile[16:20] == b"RGB " else {}
    file = io.BytesIO()
    picture.save(file, kept, **quality, **profile)
    return Scaled(file.getvalue(), f"image/{kept.lower()}", picture.width, picture.height)


def _pillow() -> ModuleType:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        pass
    raise DependencyMissingError("scaling an image down needs the package pillow", extra="media")


def _unreadable(media_type: str, why: str) -> InvalidParameterError:
    return InvalidParameterError(
        f"the image ({media_type or 'of unknown type'}) cannot be scaled: {why}",
        code="media_damaged",
        hint="convert it with another program",
    )
