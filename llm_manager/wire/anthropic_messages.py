"""Anthropic's Messages API: the codec, and the decoder of its answers.

::

    bytes -> SSEFramer -> _Event -> deltas        an event stream
    bytes -> AwsEventFramer -> _Event -> deltas   the same from Amazon Bedrock
    bytes -> one message -> _Event ... -> deltas  an answer in one piece

An answer is a sequence of blocks.  Those that are neither text nor calls of tools - reasoning with
its signature, tools that the service runs itself, whatever comes next - are kept whole, because the
service wants them back unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import ProviderError, StreamInterruptedError
from ..messages import (
    Delta,
    FinishDelta,
    FinishReason,
    LLMRequest,
    MetaDelta,
    Part,
    RawDelta,
    TextDelta,
    Usage,
    UsageDelta,
)
from .anthropic_blocks import AnswerBlocks
from .anthropic_content import ORIGIN, encode_part
from .anthropic_models import ModelTraits, traits_of_name
from .anthropic_request import encode_request
from .aws_events import AwsEventFramer
from .decoding import TypedEventDecoder
from .failures import from_error_object, read_json, unreadable
from .framing import DEFAULT_MAX_LINE_BYTES, SSEEvent
from .loose import UNREADABLE, document, field, text, whole_number

__all__ = ["ORIGIN", "AnthropicMessages", "AnthropicMessagesDecoder"]


class AnthropicMessages:
    """The codec.

    Args:
        traits: what requests to a model may contain, by its id.
        max_line_bytes: longest event, or whole document, that is accepted as an answer.
    """

    path = "/v1/messages"

    def __init__(
        self,
        traits: Callable[[str], ModelTraits] = traits_of_name,
        *,
        max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
    ) -> None:
        self._traits = traits
        self._max_line_bytes = max_line_bytes

    def encode(self, request: LLMRequest) -> bytes:
        """The body to send to ``/v1/messages``.

        Raises:
            UnsupportedFeatureError: the service cannot do it.
            InvalidParameterError: a value is out of its range, or is not JSON.
        """
        return encode_request(request, self._traits(request.model))

    def encode_part(self, part: Part) -> dict[str, Any]:
        """One part of a message as the service wants it.

        Raises:
            UnsupportedFeatureError: the service does not take it.
        """
        return encode_part(part)

    def decoder(self, request: LLMRequest) -> AnthropicMessagesDecoder:
        """A fresh decoder for the answer to ``request``."""
        return AnthropicMessagesDecoder(request, max_line_bytes=self._max_line_bytes)


# ---- the shape of an answer ----------------------------------------------------------------------


class _Event(msgspec.Struct, gc=False):
    type: Any = None
    index: Any = None
    delta: dict[str, Any] | None = None
    content_block: Any = None
    message: Any = None
    usage: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_COUNTS = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
)  # fmt: skip


class AnthropicMessagesDecoder(TypedEventDecoder):
    """The decoder of one answer.

    Only ``message_stop`` is a proper end.  What is said of the answer before it begins (its model,
    the tokens of the prompt) is held back until its first piece.

    Args:
        request: the request that is answered.
        max_line_bytes: longest event, or whole document, that is accepted.
    """

    unnamed = b"event: content_block_delta\ndata: ", b"data: "

    def __init__(
        self, request: LLMRequest, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES
    ) -> None:
        super().__init__(max_line_bytes)
        self._include_raw = request.options.include_raw
        self._blocks = AnswerBlocks(self._emit)
        self._counts: dict[str, int] = {}
        self._usage: Usage | None = None
        self._finished = False
        # Index of the block of which a piece is a TextDelta and nothing else.
        self._text_index = -1

    # ---- the stream ------------------------------------------------------------------------------

    def _look_at_start(self, data: bytes) -> None:
        if not self._start and data.startswith(b"\0"):
            self._framer = AwsEventFramer(max_line_bytes=self._max_bytes)
        super()._look_at_start(data)

    def _read(self, events: list[SSEEvent]) -> list[Delta]:
        deltas = self._deltas
        try:
            for name, data in events:
                try:
                    event = _decode_event(data)
                except UNREADABLE as error:
                    why = str(error)
                else:
                    # The fast path: a further piece of text.
                    delta = event.delta
                    if (
                        event.index == self._text_index
                        and delta is not None
                        and delta.get("type") == "text_delta"
                        and (said := text(delta.get("text")))
                    ):
                        deltas.append(TextDelta(said))
                    else:
                        self._take(name, event, data)
                    continue
                self._take_odd(name, data, why)
        except ProviderError as error:
            failure = error
        else:
            return self._taken()
        return self._failed(self._taken(), failure)

    def _unfinished(self) -> ProviderError:
        if not self._is_of_events:
            return unreadable(self._start, "a message")
        return StreamInterruptedError("the answer broke off: there was no message_stop at its end")

    def _take_odd(self, name: str, data: bytes, why: str) -> None:
        """Deal with data that is no event, or one with an odd skeleton."""
        if not data.strip() or self._done:
            return
        answer = document(data)
        if name == "error":
            raise from_error_object(answer or data.decode(errors="replace"))
        if not isinstance(answer, dict):
            raise unreadable(data, "an event of a message", why=why)
        odd = {n: answer.get(n) for n in _Event.__struct_fields__ if n != "delta"}
        self._take(name, _Event(**odd), data)

    def _take(self, name: str, event: _Event, data: bytes) -> None:
        if self._done:
            return
        if name == "error" or event.type == "error":
            raise from_error_object(document(data))
        if self._include_raw and event.type != "ping":
            self._held_back.append(RawDelta(document(data)))
        index = whole_number(event.index) or 0
        match event.type:
            case "content_block_delta" if event.delta is not None:
                if self._blocks.add(index, event.delta) and not self._include_raw:
                    self._text_index = index
            case "content_block_start" if isinstance(event.content_block, dict):
                self._blocks.begin(index, event.content_block)
            case "content_block_stop":
                self._text_index = -1
                self._blocks.end(index)
            case "message_start":
                self._introduce(event.message)
            case "message_delta":
                self._take_counts(event.usage)
                if reason := text(field(event.delta, "stop_reason")):
                    self._finish(reason[:100])
            case "message_stop":
                self._end()

    # ---- the answer as a whole -------------------------------------------------------------------

    def _introduce(self, message: Any) -> None:
        self._begun = True
        model, response_id = text(field(message, "model")), text(field(message, "id"))
        if model or response_id:
            self._held_back.insert(0, MetaDelta(model or None, response_id or None))
        usage = self._counted(field(message, "usage"))
        if usage is not None:
            self._held_back.append(UsageDelta(usage))

    def _take_counts(self, counts: Any) -> None:
        usage = self._counted(counts)
        if usage is not None:
            self._emit(UsageDelta(usage))

    def _counted(self, counts: Any) -> Usage | None:
        """Token counts of the whole answer so far, if they have changed."""
        found = {name: whole_number(field(counts, name)) for name in _COUNTS}
        found["thinking"] = whole_number(field(counts, "output_tokens_details", "thinking_tokens"))
        found["1h"] = whole_number(field(counts, "cache_creation", "ephemeral_1h_input_tokens"))
        self._counts |= {name: count for name, count in found.items() if count is not None}
        known = {name: self._counts.get(name, 0) for name in found}
        read, written = known["cache_read_input_tokens"], known["cache_creation_input_tokens"]
        usage = Usage(
            # The service counts what a cache had to do with apart from the rest of the prompt.
            prompt_tokens=known["input_tokens"] + read + written,
            completion_tokens=known["output_tokens"],
            cached_tokens=read,
            cache_write_tokens=written,
            cache_write_1h_tokens=min(known["1h"], written),
            reasoning_tokens=known["thinking"],
        )
        if usage == (self._usage or Usage()):
            return None
        self._usage = usage
        return usage

    def _finish(self, word: str | None) -> None:
        """Add what is not ended yet, and the finish delta, once."""
        if self._finished:
            return
        self._finished = True
        self._blocks.end_all()
        reason = _REASONS.get(word or "", "other")
        if self._blocks.calls and (reason == "stop" or word is None):
            reason = "tool_calls"
        self._emit(FinishDelta(reason, word))

    def _end(self) -> None:
        self._finish(None)
        self._release()
        self._done, self._text_index = True, -1

    def _whole(self, data: bytes) -> list[Delta]:
        """The deltas of an answer that is one JSON document, as if it had come in events."""
        answer = read_json(data, "a message")
        blocks = field(answer, "content")
        if not isinstance(blocks, list):
            raise unreadable(data, "a message", why="it has no content")
        if self._include_raw:
            self._held_back.append(RawDelta(answer))
        self._introduce(answer)
        for index, block in enumerate(blocks):
            if isinstance(block, dict):
                self._blocks.begin(index, block)
                self._blocks.end(index)
        self._finish(text(field(answer, "stop_reason"))[:100] or None)
        self._end()
        return self._taken()
