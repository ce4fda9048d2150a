"""Splits the binary event streams of Amazon Bedrock into events.

A frame is: its length, the length of its headers, a checksum of both (4 bytes each), the headers,
a JSON document, a checksum of everything (4 bytes).  The document of an event holds the event of
the model's own dialect, in base64.

Source: "Amazon Transcribe event stream encoding", which describes the format of all AWS services.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode
from binascii import Error as Base64Error

from ..errors import InvalidResponseError, ProviderError
from .framing import DEFAULT_MAX_LINE_BYTES, SSEEvent, ThenError
from .loose import document, encoded, field, text

_PRELUDE = struct.Struct(">III")
_CHECKSUM_BYTES = 4
# Sizes in bytes of the values of headers, by type; those of types 6 and 7 are told in front.
_VALUE_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_TEXT = 7


class AwsEventFramer:
    """The events of a stream, in the form in which `SSEFramer` gives them.

    Args:
        max_line_bytes: longest frame that is accepted.
    """

    def __init__(self, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._max_bytes = max_line_bytes
        self._received = bytearray()

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events that ``data`` completes.

        Raises:
            InvalidResponseError: the bytes are no such stream, or a frame is too long.
        """
        self._received += data
        events: list[SSEEvent] = []
        failure: ProviderError | None = None
        while failure is None and len(self._received) >= _PRELUDE.size:
            frame_bytes, headers_bytes, checksum = _PRELUDE.unpack_from(self._received)
            failure = self._problem(frame_bytes, headers_bytes, checksum)
            if failure is not None or len(self._received) < frame_bytes:
                break
            payload_at = _PRELUDE.size + headers_bytes
            headers = _headers(bytes(self._received[_PRELUDE.size : payload_at]))
            payload = bytes(self._received[payload_at : frame_bytes - _CHECKSUM_BYTES])
            del self._received[:frame_bytes]
            events += _event(headers, payload)
        if failure is None:
            return events
        if not events:
            raise failure
        return ThenError(events, failure)

    def close(self) -> list[SSEEvent]:
        """Nothing: a frame is complete or worthless."""
        return []

    def _problem(
        self, frame_bytes: int, headers_bytes: int, checksum: int
    ) -> InvalidResponseError | None:
        smallest = _PRELUDE.size + headers_bytes + _CHECKSUM_BYTES
        if zlib.crc32(self._received[:8]) != checksum or frame_bytes < smallest:
            return InvalidResponseError("the answer is no event stream of AWS")
        if frame_bytes > self._max_bytes:
            return InvalidResponseError(
                f"a frame of the answer is longer than {self._max_bytes} bytes",
                code="line_too_long",
            )
        return None


def _event(headers: dict[str, str], payload: bytes) -> list[SSEEvent]:
    content = document(payload)
    if headers.get(":message-type", "event") == "event":
        try:
            data = b64decode(text(field(content, "bytes")))
        except Base64Error:
            data = b""
        return [("", data)] if data else []
    kind = headers.get(":exception-type") or headers.get(":error-code", "")
    said = text(field(content, "message")) or headers.get(":error-message", "")
    return [("error", encoded({"type": "error", "error": {"type": kind, "message": said}}))]


def _headers(data: bytes) -> dict[str, str]:
    """The headers that are text; the rest does not matter here."""
    headers: dict[str, str] = {}
    place = 0
    try:
        while place < len(data):
            name_end = place + 1 + data[place]
            name, kind = data[place + 1 : name_end].decode(errors="replace"), data[name_end]
            place = name_end + 1
            size = _VALUE_BYTES.get(kind)
            if size is None:
                size = int.from_bytes(data[place : place + 2], "big")
                place += 2
            if kind == _TEXT:
                headers[name] = data[place : place + size].decode(errors="replace")
            place += size
    except IndexError:
        pass  # cut off in the middle of a header: what came before it counts
    return headers
