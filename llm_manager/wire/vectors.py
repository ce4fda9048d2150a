"""Takes the vectors out of the JSON of an answer while it arrives.

An answer of a thousand vectors is tens of megabytes.  Decoding it at once would stop everything
else for as long; so each vector is decoded when its last byte is there, and only the little that
is left around them is read at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from ..errors import InvalidResponseError, StreamInterruptedError
from ..messages import Delta, LLMRequest, VectorsDelta
from .failures import read_json, unreadable
from .loose import document

MAX_ANSWER_BYTES = 512 * 1024 * 1024

_decode_numbers = msgspec.json.Decoder(list[float]).decode
# What stands for a vector in the rest of the document: something that no server would send, and
# that leaves a text whole if it was in there after all.
_PLACE = b"[[%d],[]]"
_BEFORE_A_VALUE = (b":", b"[", b",")


class VectorDocument:
    """One JSON document with vectors in it, wherever its bytes are cut.

    Args:
        what: what it is, for error texts, e.g. ``"embeddings"``.
        max_bytes: longest document that is accepted.
    """

    def __init__(self, what: str, *, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._what = what
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._start = b""
        self._pieces: list[bytes] = []
        self._rest = bytearray()
        self._vectors: list[list[float]] = []

    def feed(self, data: bytes) -> None:
        """Take in the next bytes.

        Raises:
            InvalidResponseError: the document is too long.
        """
        self._size_bytes += len(data)
        if self._size_bytes > self._max_bytes:
            raise InvalidResponseError(
                f"the answer is longer than {self._max_bytes} bytes", code="line_too_long"
            )
        self._start = self._start or data.lstrip()[:1]
        self._pieces.append(data)
        if b"]" in data:
            whole = b"".join(self._pieces)
            self._pieces = [self._without_vectors(whole)]

    def close(self) -> Any:
        """The decoded document, with a placeholder for each vector; see `vector`.

        Raises:
            StreamInterruptedError: it broke off.
            InvalidResponseError: it is not JSON.
            ProviderError: it is an error object.
        """
        rest = bytes(self._rest) + b"".join(self._pieces)
        if self._start in (b"{", b"[") and not _is_whole(rest):
            raise StreamInterruptedError("the answer broke off in the middle of its JSON")
        return read_json(rest, self._what)

    def vector(self, place: object) -> list[float] | None:
        """The vector that ``place`` in the document stands for, or None if it is none."""
        match place:
            case [[int(number)], []]:
                return self._vectors[number]
            case _:
                return None

    def _without_vectors(self, whole: bytes) -> bytes:
        """Move ``whole`` up to its last ``]`` into the rest; returns what comes behind it."""
        begin = 0
        while (end := whole.find(b"]", begin) + 1) > 0:
            opening = whole.rfind(b"[", begin, end)
            numbers = whole[opening:end] if opening >= 0 else b""
            before = whole[max(begin, opening - 64) : opening] if opening > begin else self._rest
            if numbers and _is_before_a_value(before) and self._take(numbers):
                self._rest += whole[begin:opening]
                self._rest += _PLACE % (len(self._vectors) - 1)
            else:
                self._rest += whole[begin:end]
            begin = end
        return whole[begin:]

    def _take(self, numbers: bytes) -> bool:
        try:
            vector = _decode_numbers(numbers)
        except msgspec.MsgspecError:
            return False
        if vector:
            self._vectors.append(vector)
        return bool(vector)


def _is_whole(text: bytes) -> bool:
    return text.rstrip()[-1:] in (b"}", b"]") or document(text) is not None


def _is_before_a_value(text: bytes | bytearray) -> bool:
    # Prose in a text of the document may say "[1]" as well; before that stands something else.
    return bytes(text[-64:]).rstrip().endswith(_BEFORE_A_VALUE)


class VectorsDecoder(ABC):
    """A decoder of vectors; all deltas come out of `close`, because all are needed for one."""

    def __init__(self, request: LLMRequest) -> None:
        self._request = request
        self._document = VectorDocument("embeddings")

    def feed(self, data: bytes) -> Sequence[Delta]:
        """Nothing yet.

        Raises:
            InvalidResponseError: the answer is too long.
        """
        self._document.feed(data)
        return ()

    def close(self) -> Sequence[Delta]:
        """The vectors in the order of the texts, the model and the token counts.

        Raises:
            StreamInterruptedError: the answer broke off.
            InvalidResponseError: it is no embeddings, or not one for each text.
            ProviderError: it is an error object.
        """
        return self._deltas(self._document.close())

    @abstractmethod
    def _deltas(self, answer: Any) -> list[Delta]:
        """The deltas of the whole document."""


def shown_beginning(answer: object) -> bytes:
    """The beginning of an answer, for the text of an error."""
    return msgspec.json.encode(answer)[:400]


def checked_vectors(
    vectors: Sequence[list[float] | None], request: LLMRequest, shown: bytes
) -> VectorsDelta:
    """The delta of ``vectors``, if there is one for each text and all are of one length.

    Raises:
        InvalidResponseError: there is not.
    """
    found = [vector for vector in vectors if vector]
    if len(found) != len(vectors):
        raise unreadable(shown, "embeddings", why="one of them is no list of numbers")
    if len(found) != len(request.texts):
        raise InvalidResponseError(
            f"{len(found)} vectors came for {len(request.texts)} texts",
            hint="send fewer texts at once: some services drop what exceeds their limit",
        )
    if len({len(vector) for vector in found}) > 1:
        raise InvalidResponseError("the vectors are of different lengths")
    return VectorsDelta(found)
