"""Splits the bytes of an answer into events or lines, wherever the network cut them.

Buffers only: no I/O, no JSON, no knowledge of any dialect.  Everything works on bytes, because a
character may be cut in the middle, and because this code runs for every token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias, TypeVar

from ..errors import InvalidResponseError, ProviderError

T = TypeVar("T")

SSEEvent: TypeAlias = tuple[str, bytes]
"""Name of the event (``""`` if it has none) and its data, several data lines joined by ``\\n``."""

DEFAULT_MAX_LINE_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class ThenError(list[T]):
    """Items and the error that came after them: iterating raises it behind the last item.

    What arrived before a failure must reach the reader although both are found in one piece of
    the network's data, and the failure must reach him without waiting for another piece.
    """

    def __init__(self, items: Iterable[T], error: ProviderError) -> None:
        super().__init__(items)
        self.error = error

    def __iter__(self) -> Iterator[T]:
        yield from super().__iter__()
        raise self.error


class SSEFramer:
    """Server-sent events, as browsers read them, except for the end of the stream.

    A browser drops an event that no empty line ends.  Servers of language models close the
    connection right behind the last ``data:`` line, so `close` returns that event.

    Args:
        max_line_bytes: longest line, and longest data of one event, that is accepted.
    """

    __slots__ = ("_after_cr", "_data", "_data_bytes", "_head", "_lines", "_max_bytes", "_name")

    def __init__(self, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._max_bytes = max_line_bytes
        self._lines = _HeldBack(max_line_bytes)
        self._head: bytes | None = b""
        self._after_cr = False
        self._name = ""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events that ``data`` completes.

        Raises:
            InvalidResponseError: a line or an event is too long.
        """
        if self._head is not None:
            data = self._behind_bom(self._head + data)
        if self._after_cr or b"\r" in data:
            data = self._with_plain_line_ends(data)
        lines = self._lines.whole_lines(data)
        # The usual shape, many times per piece: one data line, one empty line.  If there are two
        # line ends for each event and nothing else, cutting at the seams is all there is to do.
        if lines.startswith(b"data: ") and lines.endswith(b"\n\n") and self._is_between_events:
            payloads = lines[6:-2].split(b"\n\ndata: ")
            if lines.count(b"\n") == 2 * len(payloads) and len(lines) <= self._max_bytes:
                return [("", payload) for payload in payloads]
        return self._events(lines)

    def close(self) -> list[SSEEvent]:
        """The event that the end of the stream cut off, or nothing.

        It may be incomplete; only its reader can tell.

        Raises:
            InvalidResponseError: a line is too long.
        """
        rest = self._lines.rest()
        return self._events(rest + b"\n\n" if rest else b"\n")

    @property
    def _is_between_events(self) -> bool:
        return not (self._data or self._name or self._lines.is_too_long)

    def _behind_bom(self, head: bytes) -> bytes:
        """``head`` without a byte order mark, or nothing while it may still become one."""
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _with_plain_line_ends(self, data: bytes) -> bytes:
        """``data`` with each CR LF and CR replaced by LF, also a CR LF cut in the middle."""
        if not data:
            return data
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _events(self, lines: bytes) -> list[SSEEvent]:
        """The events of ``lines`` by the letter of the specification."""
        events: list[SSEEvent] = []
        for line in lines[:-1].split(b"\n") if lines else ():
            if not line:
                if self._data:
                    events.append((self._name, b"\n".join(self._data)))
                self._name, self._data, self._data_bytes = "", [], 0
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                self._data.append(value)
                self._data_bytes += len(value) + 1
            elif field == b"event":
                self._name = value.decode(errors="replace")
            if max(len(line), self._data_bytes) > self._max_bytes:
                self._lines.is_too_long = True
                break
        return _unless_too_long(events, self._lines)


class NDJSONFramer:
    """One JSON document per line; empty lines are left out.

    Args:
        max_line_bytes: longest line that is accepted.
    """

    __slots__ = ("_at_start", "_lines")

    def __init__(self, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._lines = _HeldBack(max_line_bytes)
        self._at_start = True

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their ends.

        Raises:
            InvalidResponseError: a line is too long.
        """
        lines = self._lines.whole_lines(data)
        return self._split(lines) if lines or self._lines.is_too_long else []

    def close(self) -> list[bytes]:
        """The line that the end of the stream cut off, or nothing; it may be incomplete.

        Raises:
            InvalidResponseError: the line is too long.
        """
        return self._split(self._lines.rest())

    def _split(self, lines: bytes) -> list[bytes]:
        if self._at_start and lines:
            self._at_start = False
            lines = lines.removeprefix(_BOM)
        whole: list[bytes] = []
        for line in lines.split(b"\n"):
            if len(line) > self._lines.max_bytes:
                self._lines.is_too_long = True
                break
            if stripped := line.strip():
                whole.append(stripped)
        return _unless_too_long(whole, self._lines)


class _HeldBack:
    """Keeps the unfinished last line until its end arrives.

    A long line in many small pieces costs time and memory in proportion to its length.
    """

    __slots__ = ("_held", "is_too_long", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.is_too_long = False
        self._held = bytearray()

    def whole_lines(self, data: bytes) -> bytes:
        """What was held back and ``data``, up to the last line end; ``b""`` if there is none."""
        end = data.rfind(b"\n") + 1
        if end == 0:
            self._hold(data)
            return b""
        lines = data if end == len(data) else data[:end]
        if self._held:
            lines = self.rest() + lines
        if end < len(data):
            self._hold(data[end:])
        return lines

    def rest(self) -> bytes:
        """What is held back; it is held no longer."""
        rest = bytes(self._held)
        self._held.clear()
        return rest

    def _hold(self, data: bytes) -> None:
        self._held += data
        self.is_too_long = self.is_too_long or len(self._held) > self.max_bytes


def _unless_too_long(items: list[T], lines: _HeldBack) -> list[T]:
    """``items``, followed by an error if a line was too long."""
    if not lines.is_too_long:
        return items
    error = InvalidResponseError(
        f"a line of the answer is longer than {lines.max_bytes} bytes", code="line_too_long"
    )
    if not items:
        raise error
    return ThenError(items, error)
