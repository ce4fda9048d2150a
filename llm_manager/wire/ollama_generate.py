"""Fill in the middle on a server of Ollama, ``/api/generate`` (Ollama API reference)."""

from __future__ import annotations

from typing import Any

from ..messages import LLMRequest
from .ollama_body import OllamaCodec
from .ollama_chat import OllamaChatDecoder
from .refusals import refuse_chat_options


class OllamaGenerate(OllamaCodec):
    """The codec; for its settings see `OllamaCodec`.

    Without a suffix, the server would put the prefix into the template of a conversation, and the
    model would talk about it.  So the template is left out then, and the model goes on writing.
    """

    path = "/api/generate"

    def encode(self, request: LLMRequest) -> bytes:
        """The body to send.

        Raises:
            UnsupportedFeatureError: an option makes no sense here.
            InvalidParameterError: a value is not JSON.
        """
        refuse_chat_options(request.options)
        content: dict[str, Any] = {
            "prompt": request.prefix,
            "stream": request.stream,
            "shift": self._truncate,
        }
        content |= {"suffix": request.suffix} if request.suffix else {"raw": True}
        return self._body(request, content)

    def decoder(self, request: LLMRequest) -> OllamaChatDecoder:
        """A fresh decoder for the answer to ``request``."""
        return OllamaChatDecoder(request, max_line_bytes=self._max_line_bytes)
