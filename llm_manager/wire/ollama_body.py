"""What all requests to a server of Ollama have in common: settings of the server, and options."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidParameterError
from ..messages import LLMRequest
from .framing import DEFAULT_MAX_LINE_BYTES
from .loose import encoded


class OllamaCodec:
    """The settings of a codec for a server of Ollama.

    Args:
        truncate: let the server drop the oldest messages when the prompt does not fit, and the
            oldest tokens when the answer does not.  False makes the first an error and the second
            an answer that ends with ``length``.
        keep_alive: how long the model stays in memory, e.g. ``"10m"``, seconds, or -1 for ever;
            None leaves it to the server.
        num_ctx: context window to load the model with, in tokens; None leaves it to the server.
        max_line_bytes: longest line that is accepted in an answer.
    """

    def __init__(
        self,
        *,
        truncate: bool = False,
        keep_alive: str | float | None = None,
        num_ctx: int | None = None,
        max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
    ) -> None:
        self._truncate = truncate
        self._keep_alive = keep_alive
        self._num_ctx = num_ctx
        self._max_line_bytes = max_line_bytes

    def _body(self, request: LLMRequest, content: dict[str, Any]) -> bytes:
        """The body with ``content``, the settings, and what the caller adds himself."""
        options = request.options
        body: dict[str, Any] = {"model": request.model, **content, "truncate": self._truncate}
        if self._keep_alive is not None:
            body["keep_alive"] = self._keep_alive
        extra = dict(options.extra)
        extra_options = extra.pop("options", {})
        if not isinstance(extra_options, dict):
            raise InvalidParameterError(
                f"extra['options'] must be a dictionary, got {type(extra_options).__name__}"
            )
        model_options = self._model_options(request) | extra_options
        if model_options:
            body["options"] = model_options
        return encoded(body | extra)

    def _model_options(self, request: LLMRequest) -> dict[str, Any]:
        options = request.options
        given = {
            "temperature": options.temperature,
            "num_predict": options.max_tokens,
            "top_p": options.top_p,
            "presence_penalty": options.presence_penalty,
            "frequency_penalty": options.frequency_penalty,
            "stop": options.stop or None,
            "seed": options.seed,
            "num_ctx": self._num_ctx,
        }
        return {name: value for name, value in given.items() if value is not None}
