"""Finds out what a file is by its content, and holds that against what was said of it."""

from __future__ import annotations

import os
from typing import Literal, TypeAlias

from ..errors import InvalidParameterError

Family: TypeAlias = Literal["image", "document", "text", "tabular"]

PDF = "application/pdf"
TEXT = "text/plain"

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%PDF-", PDF),
)
_BRANDS = {
    b"heic": "image/heic", b"heix": "image/heic", b"hevc": "image/heic", b"mif1": "image/heif",
    b"msf1": "image/heif", b"avif": "image/avif", b"avis": "image/avif",
}  # fmt: skip
_BMP_HEADER_BYTES = frozenset({12, 40, 52, 56, 64, 108, 124})
# What people try, and what they can do instead.
_NOT_TAKEN = (
    (b"PK\x03\x04", "a ZIP archive or an Office file", "save it as PDF, or a table as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "save it as PDF, or a table as CSV"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first"),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
)

_BY_SUFFIX: dict[str, Family] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"), "image"),
    **dict.fromkeys((".tif", ".tiff", ".heic", ".heif", ".avif"), "image"),
    ".pdf": "document",
    **dict.fromkeys((".csv", ".tsv"), "tabular"),
    **dict.fromkeys((".txt", ".md", ".json", ".yaml", ".yml", ".xml", ".html"), "text"),
}  # fmt: skip
_SAME = {"image/jpg": "image/jpeg", "image/x-png": "image/png", "image/x-ms-bmp": "image/bmp"}
_TABLES = ("text/csv", "text/tab-separated-values")
_TEXTS = ("application/json", "application/xml", "application/yaml", "application/x-yaml",
          "application/javascript", "application/toml", "application/x-sh")  # fmt: skip
_SAYS_NOTHING = ("application/octet-stream", "binary/octet-stream")


def media_type_of(data: bytes, name: str) -> str:
    """The media type of a file by its content; ``text/plain`` for any text in UTF-8.

    Args:
        data: the file.
        name: what to call it in an error.

    Raises:
        InvalidParameterError: it is nothing that is known here.
    """
    if not data:
        raise InvalidParameterError(f"{name} is empty", code="media_empty")
    known = _binary_type(data)
    if known is not None:
        return known
    for beginning, what, hint in _NOT_TAKEN:
        if data.startswith(beginning):
            raise InvalidParameterError(f"{name} is {what}", code="media_type_unknown", hint=hint)
    if is_text(data):
        return TEXT
    raise InvalidParameterError(
        f"{name} is neither a known type of image, nor a PDF, nor text in UTF-8; "
        f"it begins with {data[:8].hex(' ')}",
        code="media_type_unknown",
        hint="convert it to PNG, JPEG, PDF or text",
    )


def looks_like_media(beginning: bytes) -> bool:
    """Whether the first bytes of a file are those of an image or a PDF."""
    return _binary_type(beginning) is not None


def is_text(data: bytes) -> bool:
    """Whether ``data`` is text in UTF-8."""
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def family_of(media_type: str) -> Family:
    """What kind of input a media type makes."""
    if media_type.startswith("image/"):
        return "image"
    if media_type in _TABLES:
        return "tabular"
    return "document" if media_type == PDF else "text"


def family_of_name(name: str) -> Family | None:
    """What the ending of a file name promises, or None if nothing."""
    return _BY_SUFFIX.get(os.path.splitext(name)[1].lower())


def declared(media_type: str | None) -> str | None:
    """A media type as the caller, a data URL or a server writes it, in its plain form.

    Returns:
        One of the families, a MIME type, or None where nothing is said.

    Raises:
        InvalidParameterError: no input can be made of it.
    """
    if media_type is None:
        return None
    plain = media_type.partition(";")[0].strip().lower()
    plain = _SAME.get(plain, plain)
    if not plain or plain in _SAYS_NOTHING:
        return None
    if plain in ("image", "document", "text", "tabular", PDF) or _is_text_type(plain):
        return plain
    if plain.startswith("image/") and plain != "image/":
        return plain
    raise InvalidParameterError(
        f"media_type {media_type!r} is none that can be put into a message",
        code="media_type_unknown",
        hint="use image, document, text or tabular, or a MIME type of one of them",
    )


def family_claimed(media_type: str | None) -> Family | None:
    """The family of what a server says that a file is; None if that says nothing to us."""
    try:
        plain = declared(media_type)
    except InvalidParameterError:
        return None
    return None if plain is None else family_of_declared(plain)


def family_of_declared(declared: str) -> Family:
    """The family of what `declared` returned."""
    match declared:
        case "image" | "document" | "text" | "tabular":
            return declared
        case _:
            return family_of(declared)


def check_declared(declared: str, found: str, name: str) -> None:
    """Refuse a file that is not what was said of it.

    Raises:
        InvalidParameterError: the two contradict each other; the text says both.
    """
    fits = family_of_declared(declared) in _families_of(found)
    if declared.startswith("image/"):
        fits = declared == found
    if not fits:
        raise InvalidParameterError(
            f"{name} was given as {declared}, but its content is {found}",
            code="media_type_mismatch",
            hint=f"leave media_type out, or give {found!r}",
        )


def check_name(promised: Family, found: str, name: str) -> None:
    """Refuse a file whose name promises another family than its content is.

    That a JPEG is called ``.png`` does no harm; that an error page is, does.

    Raises:
        InvalidParameterError: the two contradict each other; the text says both.
    """
    if promised not in _families_of(found):
        raise InvalidParameterError(
            f"{name} is named like {_NOUNS[promised]}, but its content is {found}",
            code="media_type_mismatch",
            hint=f"look into it; if that is right, pass media_type={found!r}",
        )


_NOUNS: dict[Family, str] = {
    "image": "an image", "document": "a document", "text": "a text", "tabular": "a table",
}  # fmt: skip


def _families_of(found: str) -> tuple[Family, ...]:
    """The families that a content can be used as: any text may be a table."""
    return ("text", "tabular") if found == TEXT else (family_of(found),)


def _is_text_type(plain: str) -> bool:
    return plain.startswith("text/") or plain in _TEXTS or plain.endswith(("+json", "+xml"))


def _binary_type(data: bytes) -> str | None:
    for beginning, media_type in _BEGINNINGS:
        if data.startswith(beginning):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_BYTES:
        return "image/bmp"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return None
