"""The embeddings dialect of OpenAI: texts in, one vector for each out, in one JSON document."""

from __future__ import annotations

from array import array
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from ..messages import Delta, LLMRequest, MetaDelta, Usage, UsageDelta
from .failures import unreadable
from .loose import encoded, field, first_number, text
from .vectors import VectorsDecoder, checked_vectors, shown_beginning


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


class OpenAIEmbeddingsDecoder(VectorsDecoder):
    """The decoder of one answer; all of it comes out of `close`."""

    def _deltas(self, answer: Any) -> list[Delta]:
        entries = field(answer, "data")
        if not isinstance(entries, list):
            raise unreadable(shown_beginning(answer), "embeddings", why="data is no list")
        vectors = [self._vector(field(entry, "embedding")) for entry in _in_order(entries)]
        deltas: list[Delta] = []
        if model := text(field(answer, "model")):
            deltas.append(MetaDelta(model, text(field(answer, "id")) or None))
        deltas.append(checked_vectors(vectors, self._request, shown_beginning(answer)))
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
            shown_beginning(places),
            "embeddings",
            why="the numbers of the vectors are not 0, 1, 2 ...",
        )
    return [entry for _, entry in sorted(zip(places, entries, strict=True), key=_first)]


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _floats(base64: str) -> list[float] | None:
    try:
        return list(array("f", b64decode(base64, validate=True)))
    except ValueError:
        return None
