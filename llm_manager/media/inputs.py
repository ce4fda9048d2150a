"""What can be put into a message besides plain text.

Each input makes the part of a message (`to_part`), which `LLMMessage.user` asks for by itself, and
shows how that part looks on a provider's wire (`to_provider_format`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import InvalidParameterError, UnsupportedFeatureError
from ..messages import Data, FilePart, HasPart, ImagePart, TextPart
from ..registry import codec_of
from . import scaling

if TYPE_CHECKING:
    from ..provider import BaseLLMProvider

Detail: TypeAlias = Literal["auto", "low", "high"]


class _Input(Data, frozen=True, kw_only=True):
    """What all inputs can do."""

    def to_provider_format(self: HasPart, provider: BaseLLMProvider | str) -> dict[str, Any]:
        """The JSON that carries this input on a provider's wire.

        Where a wire has no object for a part, it is the fields of the message that carry it.

        Args:
            provider: a provider, or the id of a kind of provider; nothing is connected.

        Raises:
            ProviderNotFoundError: there is no such kind.
            UnsupportedFeatureError: the wire cannot carry it, or the provider has none.
        """
        codec = codec_of(provider)
        encode_part = getattr(codec, "encode_part", None)
        if encode_part is None:
            shown = repr(provider) if isinstance(provider, str) else repr(provider.id)
            raise UnsupportedFeatureError(f"the provider {shown} has no form for single parts")
        encoded: dict[str, Any] = encode_part(self.to_part())
        return encoded


class ImageInput(_Input, frozen=True, kw_only=True):
    """An image: the bytes of its file, or a URL from which the service fetches it.

    Attributes:
        data: the file as it is, or None when ``url`` is given.
        url: where it is, or None when ``data`` is given.
        media_type: e.g. ``"image/png"``; None if that is not known of a URL.
        width, height: in pixels as stored in the file; None where the header does not tell.
        detail: how closely the model should look; None leaves it to the provider.
        filename: name of the file, or None; services get no names of images.
    """

    data: bytes | None = None
    url: str | None = None
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    detail: Detail | None = None
    filename: str | None = None

    def __repr__(self) -> str:
        size = f", {self.width}x{self.height}" if self.width else ""
        return f"ImageInput({_source(self.data, self.url)}, {self.media_type}{size})"

    def to_part(self) -> ImagePart:
        """The image as a part of a message."""
        media_type = self.media_type if self.data is not None else None
        return ImagePart(data=self.data, url=self.url, media_type=media_type, detail=self.detail)

    async def fit(
        self, *, max_side: int | None = None, max_pixels: int | None = None
    ) -> ImageInput:
        """The image within these limits; itself if it is so already.

        It is scaled down by pillow, in a thread.  A rotation that the file asks for is carried
        out; of an animation the first picture is taken; types other than JPEG and WebP become PNG.

        Args:
            max_side: longest side, in pixels.
            max_pixels: width times height.

        Raises:
            DependencyMissingError: it has to be scaled, and pillow is not installed.
            InvalidParameterError: a limit is no number above 0; the image is given by URL; it
                cannot be read, or has more pixels than are safe to decode.
        """
        for name, limit in (("max_side", max_side), ("max_pixels", max_pixels)):
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise InvalidParameterError(f"{name} must be a whole number from 1, got {limit!r}")
        if self.data is None:
            raise InvalidParameterError(
                "an image given by URL cannot be scaled",
                hint="fetch it first: await MediaFactory.fetch(url)",
            )
        scaled = await asyncio.to_thread(
            scaling.scaled_down,
            self.data,
            self.media_type or "",
            size=(self.width, self.height) if self.width and self.height else None,
            max_side=max_side,
            max_pixels=max_pixels,
        )
        if scaled is None:
            return self
        return ImageInput(
            data=scaled.data,
            media_type=scaled.media_type,
            width=scaled.width,
            height=scaled.height,
            detail=self.detail,
            filename=self.filename,
        )


class DocumentInput(_Input, frozen=True, kw_only=True):
    """A PDF: its bytes, or a URL from which the service fetches it.

    Attributes:
        data: the file, or None when ``url`` is given.
        url: where it is, or None when ``data`` is given.
        media_type: ``application/pdf``.
        filename: name to show to the model, or None.
    """

    data: bytes | None = None
    url: str | None = None
    media_type: str = "application/pdf"
    filename: str | None = None

    def __repr__(self) -> str:
        return f"DocumentInput({_source(self.data, self.url)}, {self.filename!r})"

    def to_part(self) -> FilePart:
        """The document as a part of a message."""
        return FilePart(
            data=self.data, url=self.url, media_type=self.media_type, filename=self.filename
        )


class TextInput(_Input, frozen=True, kw_only=True):
    """A text file: prose, Markdown, code, JSON.

    Attributes:
        text: its content.
        filename: name to show to the model, or None.
    """

    text: str
    filename: str | None = None

    def __repr__(self) -> str:
        return f"TextInput({len(self.text)} characters, {self.filename!r})"

    def to_part(self) -> TextPart:
        """The text as a part of a message, between its name and a line that ends it."""
        if self.filename is None:
            return TextPart(text=self.text)
        end = "" if self.text.endswith("\n") else "\n"
        return TextPart(text=f"[{self.filename}]\n{self.text}{end}[end of {self.filename}]\n")


class TabularInput(_Input, frozen=True, kw_only=True):
    """A table, of which the model reads the beginning.

    Attributes:
        columns: the first row.
        rows: the rows that are shown to the model.
        row_count: how many rows there are; more than ``rows`` means that the rest is left out,
            and then it is an estimate from the number of lines.
        filename: name to show to the model, or None.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    row_count: int
    filename: str | None = None

    def __repr__(self) -> str:
        shown = f"{len(self.rows)} of {self.row_count} rows"
        return f"TabularInput({len(self.columns)} columns, {shown}, {self.filename!r})"

    def to_part(self) -> TextPart:
        """The table as text: how much of it there is, then one line for each row."""
        lines = [f"[{self._title}]", *map(_line, (self.columns, *self.rows))]
        return TextPart(text="\n".join([*lines, f"[end of {self.filename or 'table'}]\n"]))

    @property
    def _title(self) -> str:
        name = self.filename or "table"
        size = f"{name}: {_counted(len(self.columns), 'column')}"
        left_out = self.row_count - len(self.rows)
        if not left_out:
            return f"{size}, {_counted(self.row_count, 'row')}"
        shown = _counted(len(self.rows), "row")
        return f"{size}, about {self.row_count} rows; only the first {shown} follow"


MediaInput: TypeAlias = ImageInput | DocumentInput | TextInput | TabularInput


def _source(data: bytes | None, url: str | None) -> str:
    return f"{len(data)} bytes" if data is not None else repr(f"{url:.60}")


def _line(cells: tuple[str, ...]) -> str:
    return " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
