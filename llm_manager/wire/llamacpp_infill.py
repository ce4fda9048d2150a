"""Fill in the middle as llama.cpp's own server does it, ``/infill`` (llama.cpp server README).

The address stands beside ``/v1``, not below it, and the answer is no chunk of OpenAI's::

    data: {"content": "    return", "stop": false}
    data: {"content": "", "stop": true, "stop_type": "eos", "tokens_evaluated": 12, ...}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ProviderError, StreamInterruptedError
from ..messages import (
    Delta,
    FinishDelta,
    FinishReason,
    LLMRequest,
    MetaDelta,
    RawDelta,
    TextDelta,
    Usage,
    UsageDelta,
)
from .decoding import BLANK, AnswerDecoder
from .failures import read_json, unreadable
from .framing import DEFAULT_MAX_LINE_BYTES, SSEFramer
from .loose import document, encoded, field, text, whole_number
from .refusals import refuse_chat_options

_REASONS: dict[str, FinishReason] = {"eos": "stop", "word": "stop", "limit": "length"}
_HEAD_BYTES = 400
_FIRST_WORDS = (b":", b"data:", b"event:", b"id:", b"retry:")


class LlamaCppInfill:
    """The codec.

    Args:
        path: where requests go, seen from the server's base URL.
        max_line_bytes: longest event, or whole document, that is accepted as an answer.
    """

    def __init__(
        self, *, path: str = "/../infill", max_line_bytes: int = DEFAULT_MAX_LINE_BYTES
    ) -> None:
        self.path = path
        self._max_line_bytes = max_line_bytes

    def encode(self, request: LLMRequest) -> bytes:
        """The body to send; further files go into ``extra`` as ``input_extra``.

        Raises:
            UnsupportedFeatureError: an option makes no sense here.
            InvalidParameterError: a value is not JSON.
        """
        options = request.options
        refuse_chat_options(options)
        given = {
            "model": request.model,
            "input_prefix": request.prefix,
            "input_suffix": request.suffix,
            "stream": request.stream,
            "n_predict": options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "presence_penalty": options.presence_penalty,
            "frequency_penalty": options.frequency_penalty,
            "stop": options.stop or None,
            "seed": options.seed,
        }
        body = {name: value for name, value in given.items() if value is not None}
        return encoded(body | options.extra)

    def decoder(self, request: LLMRequest) -> LlamaCppInfillDecoder:
        """A fresh decoder for the answer to ``request``."""
        return LlamaCppInfillDecoder(request, max_line_bytes=self._max_line_bytes)


class LlamaCppInfillDecoder(AnswerDecoder):
    """The decoder of one answer, streamed or not: the event with ``stop`` ends it.

    Args:
        request: the request that is answered.
        max_line_bytes: longest event, or whole document, that is accepted.
    """

    def __init__(
        self, request: LLMRequest, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES
    ) -> None:
        super().__init__()
        self._include_raw = request.options.include_raw
        self._framer = SSEFramer(max_line_bytes=max_line_bytes)
        self._head = b""
        self._is_empty = True
        self._done = False

    def _fed(self, data: bytes) -> Sequence[Delta]:
        if not self._head:
            data = data.lstrip(BLANK)
            if data[:1] in (b"{", b"<"):
                # An answer in one piece: one event, which the end of the data completes.
                data = b"data: " + data
        if len(self._head) < _HEAD_BYTES:
            self._head += data[:_HEAD_BYTES]
        return self._deltas(self._framer.feed(data))

    def _closed(self) -> Sequence[Delta]:
        rest = self._framer.close()
        # Half an object is the mark of a broken connection, not of a server that sends no JSON.
        deltas = self._deltas([e for e in rest if document(e[1]) is not None or e[1][:1] != b"{"])
        if self._done:
            return deltas
        if self._is_empty and not self._head.startswith(_FIRST_WORDS):
            raise unreadable(self._head, "an answer of /infill")
        return self._failed(
            deltas,
            StreamInterruptedError("the answer broke off: no event says that it has stopped"),
        )

    def _deltas(self, events: Sequence[tuple[str, bytes]]) -> list[Delta]:
        deltas: list[Delta] = []
        try:
            for _, data in events:
                if not self._done and data.strip() != b"[DONE]":
                    self._take(data, deltas)
        except ProviderError as error:
            failure = error
        else:
            return deltas
        return self._failed(deltas, failure)

    def _take(self, data: bytes, deltas: list[Delta]) -> None:
        """Add the deltas of one event."""
        event = read_json(data, "an event of /infill")
        if not isinstance(event, dict):
            raise unreadable(data, "an event of /infill")
        self._is_empty = False
        if self._include_raw:
            deltas.append(RawDelta(event))
        if piece := text(event.get("content")):
            deltas.append(TextDelta(piece))
        if event.get("stop") is True:
            self._done = True
            self._take_end(event, deltas)

    def _take_end(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        if model := text(event.get("model")):
            deltas.append(MetaDelta(model))
        word = text(event.get("stop_type")) or _word_of_older_servers(event)
        deltas.append(FinishDelta(_REASONS.get(word or "", "other"), word))
        prompt = whole_number(event.get("tokens_evaluated"))
        answer = whole_number(event.get("tokens_predicted"))
        if prompt or answer:
            # `tokens_cached` is not what was read from the cache, but what is in it afterwards.
            cached = whole_number(field(event, "timings", "cache_n"))
            usage = Usage(
                prompt_tokens=prompt or 0, completion_tokens=answer or 0, cached_tokens=cached or 0
            )
            deltas.append(UsageDelta(usage))


def _word_of_older_servers(event: dict[str, Any]) -> str | None:
    return next((word for word in _REASONS if event.get(f"stopped_{word}") is True), None)
