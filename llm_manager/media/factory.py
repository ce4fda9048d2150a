"""`MediaFactory`: whatever a caller has of a file, as something to put into a message."""

from __future__ import annotations

import asyncio

from ..errors import InvalidParameterError
from ..image_headers import has_readable_header, picture_size
from ..messages import Data
from . import kinds
from .fetching import fetched, file_name_in
from .inputs import Detail, DocumentInput, ImageInput, MediaInput, TextInput
from .sources import File, Source, read_source, scheme_of, shown
from .tables import table_of

__all__ = ["MediaFactory", "MediaLimits"]


class MediaLimits(Data, frozen=True, kw_only=True):
    """What is accepted.

    Attributes:
        max_bytes: size of a file.
        max_pixels: width times height of an image, as far as its header tells.
        max_rows: how many rows of a table are shown to the model.

    Raises:
        InvalidParameterError: one of them is no whole number from 1.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 64_000_000
    max_rows: int = 100

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidParameterError(f"{name} must be a whole number from 1, got {value!r}")


_LIMITS = MediaLimits()


class MediaFactory:
    """Makes inputs for messages from paths, URLs, bytes and base64.

    What a text means is decided by these rules, the first one that fits:

    1. ``data:...`` is a data URL; ``http://...`` and ``https://...`` is a URL.
    2. What begins like base64 of an image or a PDF, 44 characters or more, is that file.
    3. Anything else is a path.  One that leads to no file is an error: what is meant as text goes
       into the message as it is.

    What a file is, is decided by its content.  A ``media_type`` that contradicts it is an error.
    So is a name that does: what is called ``.png`` may be a JPEG, but not a web page.
    """

    @staticmethod
    def from_source(
        source: Source,
        *,
        media_type: str | None = None,
        detail: Detail | None = None,
        filename: str | None = None,
        limits: MediaLimits = _LIMITS,
    ) -> MediaInput:
        """An input made of ``source``; a file is read at once, a URL is not fetched.

        A file of 5 MB takes about 2 ms, as base64 about 30 ms.  Where an event loop is running and
        files are large or the disk may be slow, use `load`.

        Args:
            source: path, bytes, base64 text, data URL, or http(s) URL for the service to fetch.
            media_type: ``image``, ``document``, ``text``, ``tabular``, or a MIME type; None: it is
                found out.  Needed for a URL that does not end like the name of a file.
            detail: how closely the model should look at an image.
            filename: name to show to the model; default: that of the path or URL.
            limits: what is accepted.

        Raises:
            InvalidParameterError: there is no such file; it is too large, empty, damaged, of a type
                that is not known, or not what it was said to be.  ``code`` tells which:
                ``file_not_found``, ``media_too_large``, ``media_too_many_pixels``,
                ``media_empty``, ``media_damaged``, ``media_type_unknown``,
                ``media_type_mismatch``.
        """
        said = kinds.declared(media_type)
        if isinstance(source, str) and scheme_of(source) in ("http", "https"):
            return _by_url(source.strip(), said, detail, filename)
        return _input(read_source(source, limits.max_bytes), said, detail, filename, limits)

    @staticmethod
    async def load(
        source: Source,
        *,
        media_type: str | None = None,
        detail: Detail | None = None,
        filename: str | None = None,
        limits: MediaLimits = _LIMITS,
    ) -> MediaInput:
        """The same as `from_source`, in a thread."""
        return await asyncio.to_thread(
            MediaFactory.from_source,
            source,
            media_type=media_type,
            detail=detail,
            filename=filename,
            limits=limits,
        )

    @staticmethod
    async def fetch(
        url: str,
        *,
        media_type: str | None = None,
        detail: Detail | None = None,
        filename: str | None = None,
        limits: MediaLimits = _LIMITS,
        timeout_s: float = 30.0,
        allow_private: bool = False,
    ) -> MediaInput:
        """An input made of what is at ``url``, fetched now by this process.

        Only public addresses are connected to: not this machine, not a private network, not the
        addresses at which clouds tell their secrets.  The address that was checked is the one that
        is connected to; each of at most five redirects is checked again.  Proxies of the
        environment are not used, because behind one nothing could be checked.

        Args:
            url: with the scheme ``http`` or ``https``.
            timeout_s: limit for all of it, in seconds.
            allow_private: connect to any address.
            media_type, detail, filename, limits: see `from_source`.

        Raises:
            InvalidParameterError: as for `from_source`; or the URL cannot be one, or leads to an
                address that is not public (code ``private_address``).
            ProviderConnectionError, RequestTimeoutError, StreamInterruptedError: it is not to be
                had.
            ProviderAPIError: the server answered with an error; ``http_status`` says which.
        """
        said = kinds.declared(media_type)
        file = await fetched(
            url, max_bytes=limits.max_bytes, timeout_s=timeout_s, allow_private=allow_private
        )
        return await asyncio.to_thread(_input, file, said, detail, filename, limits)


def _by_url(
    url: str, said: str | None, detail: Detail | None, filename: str | None
) -> ImageInput | DocumentInput:
    """An input that the service fetches itself."""
    name = filename or file_name_in(url)
    family = kinds.family_of_name(name or "") if said is None else kinds.family_of_declared(said)
    if family == "image":
        media_type = said if said is not None and said != "image" else None
        return ImageInput(url=url, media_type=media_type, detail=detail, filename=name)
    if family == "document":
        _refuse_detail(detail, "a document")
        return DocumentInput(url=url, filename=name)
    if family is None:
        raise InvalidParameterError(
            f"what is at {shown(url)} cannot be told from the URL",
            code="media_type_unknown",
            hint="pass media_type='image' or 'document', or await MediaFactory.fetch(url)",
        )
    raise InvalidParameterError(
        f"services do not fetch {family} files, such as {shown(url)}",
        code="media_type_unknown",
        hint="await MediaFactory.fetch(url)",
    )


def _input(
    file: File,
    said: str | None,
    detail: Detail | None,
    filename: str | None,
    limits: MediaLimits,
) -> MediaInput:
    name = filename or file.name
    found = kinds.media_type_of(file.data, file.shown)
    family = _family(file, said, name, found)
    if family == "image":
        return _image(file, found, detail, name, limits.max_pixels)
    _refuse_detail(detail, file.shown)
    if family == "document":
        return DocumentInput(data=file.data, filename=name)
    text = file.data.decode("utf-8-sig")
    if family == "tabular":
        return table_of(text, filename=name, max_rows=limits.max_rows)
    return TextInput(text=text, filename=name)


def _family(file: File, said: str | None, name: str | None, found: str) -> kinds.Family:
    stated = said or kinds.declared(file.claimed)
    if stated is not None:
        kinds.check_declared(stated, found, file.shown)
        return kinds.family_of_declared(stated)
    promised = kinds.family_of_name(name or "")
    if promised is None:
        return kinds.family_of(found)
    kinds.check_name(promised, found, name or "")
    return promised


def _image(
    file: File, media_type: str, detail: Detail | None, name: str | None, max_pixels: int
) -> ImageInput:
    size = picture_size(file.data, media_type)
    if size is None and has_readable_header(media_type):
        raise InvalidParameterError(
            f"{file.shown} begins like {media_type}, but its header has no size",
            code="media_damaged",
            hint="is the file complete?",
        )
    width, height = size or (None, None)
    if size is not None and size[0] * size[1] > max_pixels:
        raise InvalidParameterError(
            f"{file.shown} has {width} x {height} pixels; at most {max_pixels} are accepted",
            code="media_too_many_pixels",
            hint="scale it down, or raise max_pixels in limits=MediaLimits(...)",
        )
    return ImageInput(
        data=file.data,
        media_type=media_type,
        width=width,
        height=height,
        detail=detail,
        filename=name,
    )


def _refuse_detail(detail: Detail | None, what: str) -> None:
    if detail is not None:
        raise InvalidParameterError(f"detail is for images, and {what} is none")
