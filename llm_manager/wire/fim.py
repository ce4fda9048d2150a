"""Fill in the middle for servers that have an address of its own for it.

Two shapes of answers exist and one decoder reads both: that of a chat (Mistral API reference,
"Fill in the Middle": ``/fim/completions``; Inception API reference, the same) and that of the older
completions, whose text stands in ``choices[0].text`` (DeepSeek API docs, "FIM Completion (Beta)":
``/beta/completions``).
"""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedFeatureError
from ..messages import LLMRequest
from . import Codec
from .framing import DEFAULT_MAX_LINE_BYTES
from .llamacpp_infill import LlamaCppInfill
from .loose import encoded
from .openai_chat import OpenAIChatDecoder
from .openai_request import ChatDialect, FimStyle, sampling
from .refusals import refuse_chat_options

_PATHS: dict[FimStyle, str] = {
    "mistral": "/fim/completions",
    "completions": "/completions",
    "llamacpp": "/../infill",
}


def fim_codec(style: FimStyle, dialect: ChatDialect, path: str | None = None) -> Codec:
    """The codec for a style of filling in the middle.

    Args:
        style: how requests and answers look.
        dialect: the server's quirks, as far as they matter here.
        path: where requests go, if not to the usual place of the style.
    """
    path = path or _PATHS[style]
    if style == "llamacpp":
        return LlamaCppInfill(path=path)
    return FimCompletions(dialect, path=path, penalties=style == "completions")


class FimCompletions:
    """The codec of the styles ``mistral`` and ``completions``.

    Args:
        dialect: the server's quirks.
        path: where requests go, below the server's base URL.
        penalties: whether the server takes the presence and the frequency penalty.
        max_line_bytes: longest event, or whole document, that is accepted as an answer.
    """

    def __init__(
        self,
        dialect: ChatDialect,
        *,
        path: str,
        penalties: bool = True,
        max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
    ) -> None:
        self.path = path
        self._dialect = dialect
        self._penalties = penalties
        self._max_line_bytes = max_line_bytes

    def encode(self, request: LLMRequest) -> bytes:
        """The body to send.

        Raises:
            UnsupportedFeatureError: an option makes no sense here, or the server does not take it.
            InvalidParameterError: a value is out of the server's range, or is not JSON.
        """
        options = request.options
        refuse_chat_options(options)
        penalties = (options.presence_penalty, options.frequency_penalty)
        if not self._penalties and penalties != (None, None):
            raise UnsupportedFeatureError(
                "this server takes no penalties when it fills in the middle",
                hint="leave presence_penalty and frequency_penalty out",
            )
        body: dict[str, Any] = {
            "model": request.model,
            "prompt": request.prefix,
            "suffix": request.suffix,
            "stream": request.stream,
        }
        body |= sampling(options, self._dialect)
        if request.stream and self._dialect.stream_usage:
            body["stream_options"] = {"include_usage": True}
        return encoded(body | options.extra)

    def decoder(self, request: LLMRequest) -> OpenAIChatDecoder:
        """A fresh decoder for the answer to ``request``."""
        return OpenAIChatDecoder(request, self._dialect, max_line_bytes=self._max_line_bytes)
