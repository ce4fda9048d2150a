"""Embeddings on a server of Ollama, ``/api/embed`` (Ollama API reference)."""

from __future__ import annotations

from typing import Any

from ..messages import Delta, LLMRequest, MetaDelta, Usage, UsageDelta
from .failures import unreadable
from .loose import field, text, whole_number
from .ollama_body import OllamaCodec
from .vectors import VectorsDecoder, checked_vectors, shown_beginning


class OllamaEmbed(OllamaCodec):
    """The codec; for its settings see `OllamaCodec`.

    All texts go into one request.  With ``truncate`` False a text that is too long for the model
    is an error instead of a vector of its beginning.
    """

    path = "/api/embed"

    def encode(self, request: LLMRequest) -> bytes:
        """The body to send; ``dimensions`` is given as ``extra``.

        Raises:
            InvalidParameterError: a value is not JSON.
        """
        return self._body(request, {"input": list(request.texts)})

    def decoder(self, request: LLMRequest) -> OllamaEmbedDecoder:
        """A fresh decoder for the answer to ``request``."""
        return OllamaEmbedDecoder(request)

    def _model_options(self, request: LLMRequest) -> dict[str, Any]:
        # How to pick tokens means nothing here.
        return {} if self._num_ctx is None else {"num_ctx": self._num_ctx}


class OllamaEmbedDecoder(VectorsDecoder):
    """The decoder of one answer; all of it comes out of `close`."""

    def _deltas(self, answer: Any) -> list[Delta]:
        shown = shown_beginning(answer)
        given = field(answer, "embeddings")
        if not isinstance(given, list):
            raise unreadable(shown, "embeddings", why="embeddings is no list")
        vectors = [self._document.vector(place) for place in given]
        deltas: list[Delta] = []
        if model := text(field(answer, "model")):
            deltas.append(MetaDelta(model))
        deltas.append(checked_vectors(vectors, self._request, shown))
        if tokens := whole_number(field(answer, "prompt_eval_count")):
            deltas.append(UsageDelta(Usage(prompt_tokens=tokens)))
        return deltas
