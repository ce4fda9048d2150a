"""What the decoders of all dialects share: how an answer begins, and how a failure ends it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..errors import InvalidResponseError, ProviderError
from ..messages import Delta
from .framing import DEFAULT_MAX_LINE_BYTES, SSEEvent, SSEFramer, ThenError
from .loose import document

# So much of the beginning is kept, to tell what an answer is that has no events in it.
START_BYTES = 400
BLANK = b" \t\r\n\xef\xbb\xbf"


class AnswerDecoder(ABC):
    """A decoder that is at an end once the answer has failed."""

    def __init__(self) -> None:
        self._failure: ProviderError | None = None

    def feed(self, data: bytes) -> Sequence[Delta]:
        """The deltas that ``data`` completes.

        Raises:
            ProviderError: the answer contains an error, or cannot be read.  If deltas precede it
                in ``data``, these are returned, and iterating raises it behind the last.
        """
        if self._failure is not None:
            raise self._failure
        return self._fed(data)

    def close(self) -> Sequence[Delta]:
        """The last deltas.

        Raises:
            StreamInterruptedError: the answer had not ended properly.
            ProviderError: what came is no answer.
        """
        if self._failure is not None:
            raise self._failure
        return self._closed()

    @abstractmethod
    def _fed(self, data: bytes) -> Sequence[Delta]:
        """`feed` of an answer that has not failed."""

    @abstractmethod
    def _closed(self) -> Sequence[Delta]:
        """`close` of an answer that has not failed."""

    def _failed(self, deltas: list[Delta], failure: ProviderError) -> list[Delta]:
        """``deltas``, and ``failure`` behind the last of them."""
        self._failure = failure
        if not deltas:
            raise failure
        return ThenError(deltas, failure)


class EventStreamDecoder(AnswerDecoder):
    """A decoder of server-sent events, or of the same answer as one document.

    Args:
        max_line_bytes: longest event, or whole document, that is accepted.
    """

    unnamed: tuple[bytes, bytes] | None = None
    """How the most frequent event begins, with its name and without: without, the framer has its
    quickest path, and the name says nothing that the data does not say.  Where it is cut in two, it
    stays and does no harm."""

    def __init__(self, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        super().__init__()
        self._max_bytes = max_line_bytes
        self._framer: Any = SSEFramer(max_line_bytes=max_line_bytes)
        self._start = b""
        self._document: bytearray | None = None
        self._begun = False

    @abstractmethod
    def _read(self, events: list[SSEEvent]) -> list[Delta]:
        """The deltas of ``events``."""

    @abstractmethod
    def _whole(self, data: bytes) -> list[Delta]:
        """The deltas of an answer that is one document."""

    @abstractmethod
    def _ended(self) -> list[Delta]:
        """The last deltas of a stream."""

    def _fed(self, data: bytes) -> Sequence[Delta]:
        if not self._begun and len(self._start) < START_BYTES:
            self._look_at_start(data)
        if self._document is None:
            if self.unnamed is not None:
                data = data.replace(*self.unnamed)
            return self._read(self._framer.feed(data))
        self._document += data
        if len(self._document) > self._max_bytes:
            raise InvalidResponseError(
                f"the answer is longer than {self._max_bytes} bytes", code="line_too_long"
            )
        return []

    def _closed(self) -> Sequence[Delta]:
        if self._document is not None:
            return self._whole(bytes(self._document).lstrip(BLANK))
        return self._ended()

    def _look_at_start(self, data: bytes) -> None:
        """Find out from the first character whether this is a stream or a document."""
        self._start = (self._start + data)[:START_BYTES]
        if self._document is None and self._start.lstrip(BLANK).startswith((b"{", b"[", b"<")):
            self._document = bytearray()


class TypedEventDecoder(EventStreamDecoder):
    """A decoder of events that say what they are, and of which one says that it is the last.

    What is said of an answer before its first piece is held back until that piece.
    """

    def __init__(self, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        super().__init__(max_line_bytes)
        self._deltas: list[Delta] = []
        self._held_back: list[Delta] = []
        self._done = False

    @abstractmethod
    def _unfinished(self) -> ProviderError:
        """What to say of a stream without an end."""

    def _ended(self) -> list[Delta]:
        # What is left may be half an event.
        deltas = self._read([e for e in self._framer.close() if document(e[1]) is not None])
        if self._done or self._failure is not None:
            return deltas
        return self._failed(deltas, self._unfinished())

    @property
    def _is_of_events(self) -> bool:
        """Whether it began as such a stream does."""
        return self._begun or self._start.lstrip(BLANK).startswith((b"event:", b"data:"))

    def _emit(self, delta: Delta) -> None:
        self._release()
        self._deltas.append(delta)

    def _release(self) -> None:
        if self._held_back:
            self._deltas += self._held_back
            self._held_back.clear()

    def _taken(self) -> list[Delta]:
        taken, self._deltas = self._deltas, []
        return taken
