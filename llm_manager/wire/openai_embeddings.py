"""The embeddings dialect of OpenAI: texts in, one vector for each out, in one JSON document."""

from __future__ import annotations

from array import array
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..messages import Delta, LLMRequest, MetaDelta, Usage, UsageDelta
from .failures import unreadable
from .loose import encoded, field, first_number, text
from .vectors import VectorDocument, checked_vectors


class OpenAIEmbeddings:
    """The codec.

    All texts go into one request; how many a service takes at once is its own business, and more
    than that is an error of the service.

    Args:
        path: where requests go, below the server's base URL.
        extra: fields to send with every request, e.g. ``{"input_type": "query"}``; what the
            request's own ``extra`` says counts more.
    """

    def __init__(
        self, *, path: str = "/embeddings", extra: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self._extra = dict(extra or {})

    def encode(self, request: LLMRequest) -> bytes:
        """The body to send; ``dimensions`` and the like are given as ``extra``.

        Raises:
            InvalidParameterError: a value is not JSON.
        """
        body: dict[str, Any] = {
            "model": request.model,
            "input": list(request.texts),
            "encoding_format": "float",
        }
        return encoded(body | self._extra | request.options.extra)

    def decoder(self, request: LLMRequest) -> OpenAIEmbeddingsDecoder:
        """A fresh decoder for the answer to ``request``."""
        return OpenAIEmbeddingsDecoder(request)


class OpenAIEmbeddingsDecoder:
    """The decoder of one answer; all of it comes out of `close`."""

    def __init__(self, request: LLMRequest) -> None:
        self._request = request
        self._document = VectorDocument("embeddings")

    def feed(self, data: bytes) -> Sequence[Delta]:
        """Nothing yet: the order of the vectors is known when all are there.

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
        answer = self._document.close()
        entries = field(answer, "data")
        if not isinstance(entries, list):
            raise unreadable(_shown(answer), "embeddings", why="data is no list")
        vectors = [self._vector(field(entry, "embedding")) for entry in _in_order(entries)]
        deltas: list[Delta] = []
        if model := text(field(answer, "model")):
            deltas.append(MetaDelta(model, text(field(answer, "id")) or None))
        deltas.append(checked_vectors(vectors, self._request, _shown(answer)))
        # Embeddings produce nothing: a server that gives one figure only means the prompt.
        tokens = first_number(
            field(answer, "usage"), "prompt_tokens", "input_tokens", "total_tokens"
        )
        if tokens:
            deltas.append(UsageDelta(Usage(prompt_tokens=tokens)))
        return deltas

    def _vector(self, given: object) -> list[float] | None:
        if isinstance(given, str):
            # What `encoding_format: base64` asks for: 32-bit floats.
            return _floats(given)
        return self._document.vector(given)


def _in_order(entries: list[Any]) -> list[Any]:
    """The entries by their ``index``; as they came if the server numbers none of them.

    Raises:
        InvalidResponseError: the numbers are not those of the texts.
    """
    places = [field(entry, "index") for entry in entries]
    if all(place is None for place in places):
        return entries
    if not all(type(place) is int for place in places) or sorted(places) != list(
        range(len(entries))
    ):
        raise unreadable(
            _shown(places), "embeddings", why="the numbers of the vectors are not 0, 1, 2 ..."
        )
    return [entry for _, entry in sorted(zip(places, entries, strict=True), key=_first)]


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _floats(base64: str) -> list[float] | None:
    try:
        return list(array("f", b64decode(base64, validate=True)))
    except ValueError:
        return None


def _shown(answer: object) -> bytes:
    return msgspec.json.encode(answer)[:400]
