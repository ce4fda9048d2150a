"""OpenAI's Responses API, made for models that reason: the codec, and the decoder of its answers.

::

    bytes -> SSEFramer -> _Event -> AnswerItems -> deltas     an event stream
    bytes -> one answer -> AnswerItems -> deltas              an answer in one piece

What an event is, its field ``type`` says.  There are dozens of types, and more every month; those
that are not known here only repeat, or tell of progress.
"""

from __future__ import annotations

from collections.abc import Hashable
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
    UsageDelta,
)
from .decoding import TypedEventDecoder
from .failures import error_in, from_error_object, read_json, unreadable
from .framing import DEFAULT_MAX_LINE_BYTES, SSEEvent
from .loose import UNREADABLE, document, field, text
from .openai_items import AnswerItems
from .openai_responses_request import ORIGIN, Summary, encode_part, encode_request, left_out
from .openai_usage import usage_of

__all__ = ["ORIGIN", "OpenAIResponses", "OpenAIResponsesDecoder"]


class OpenAIResponses:
    """The codec.

    Args:
        summary: how the reasoning shall be shown: ``auto``, ``concise``, ``detailed``, or None: not
            at all.  The service shows none to organisations that it has not verified.
        max_line_bytes: longest event, or whole document, that is accepted as an answer.
    """

    path = "/responses"

    def __init__(
        self,
        *,
        summary: Summary | None = "auto",
        max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
    ) -> None:
        self._summary = summary
        self._max_line_bytes = max_line_bytes

    def encode(self, request: LLMRequest) -> bytes:
        """The body to send to ``/responses``.

        Raises:
            UnsupportedFeatureError: the service cannot do it.
            InvalidParameterError: a value is not JSON.
        """
        return encode_request(request, self._summary)

    def left_out(self, request: LLMRequest) -> tuple[str, ...]:
        """The names of options that are given and not sent, because they would be refused."""
        return left_out(request)

    def encode_part(self, part: Part) -> dict[str, Any]:
        """One part of a user's message as the service wants it.

        Raises:
            UnsupportedFeatureError: the service does not take it.
        """
        return encode_part(part)

    def decoder(self, request: LLMRequest) -> OpenAIResponsesDecoder:
        """A fresh decoder for the answer to ``request``."""
        return OpenAIResponsesDecoder(request, max_line_bytes=self._max_line_bytes)


class _Event(msgspec.Struct, gc=False):
    type: Any = None
    delta: Any = None
    item: Any = None
    item_id: Any = None
    output_index: Any = None
    summary_index: Any = None
    content_index: Any = None
    response: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode

_TEXT = "response.output_text.delta"

_REASONS: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")


class OpenAIResponsesDecoder(TypedEventDecoder):
    """The decoder of one answer.

    Only an event that ends the whole answer is a proper end.

    Args:
        request: the request that is answered.
        max_line_bytes: longest event, or whole document, that is accepted.
    """

    unnamed = f"event: {_TEXT}\ndata: ".encode(), b"data: "

    def __init__(
        self, request: LLMRequest, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES
    ) -> None:
        super().__init__(max_line_bytes)
        self._include_raw = request.options.include_raw
        self._items = AnswerItems(self._emit, request.id)
        self._is_introduced = False
        # The item of which a piece is a TextDelta and nothing else.
        self._text_index: Any = -1

    # ---- the stream ------------------------------------------------------------------------------

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
                    said = event.delta
                    if (
                        event.output_index == self._text_index
                        and event.type == _TEXT
                        and type(said) is str
                        and said
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
            return unreadable(self._start, "an answer")
        return StreamInterruptedError(
            "the answer broke off: nothing at its end says that it is complete"
        )

    def _take_odd(self, name: str, data: bytes, why: str) -> None:
        """Deal with data that is no event: some gateways end with the mark of another dialect."""
        stripped = data.strip()
        if self._done or not stripped or stripped == b"[DONE]":
            return
        if name == "error":
            raise from_error_object(document(data) or stripped.decode(errors="replace"))
        raise unreadable(data, "an event of an answer", why=why)

    def _take(self, name: str, event: _Event, data: bytes) -> None:
        if self._done:
            return
        self._refuse_error(name, event, data)
        self._begun = True
        if self._include_raw:
            self._held_back.append(RawDelta(document(data)))
        key, piece = _key(event), text(event.delta)
        match event.type:
            case "response.output_text.delta" if piece:
                self._items.say(key, piece)
                if not self._include_raw and type(key) is int:
                    self._text_index = key
            case "response.refusal.delta" if piece:
                self._items.refuse(key, piece)
            case "response.reasoning_summary_text.delta" if piece:
                self._items.think(key, piece, event.summary_index)
            case "response.reasoning_text.delta" if piece:
                self._items.think(key, piece, event.content_index)
            case "response.function_call_arguments.delta" if piece:
                self._items.write_arguments(key, piece)
            case "response.output_item.added" if isinstance(event.item, dict):
                self._text_index = -1
                self._items.begin(key, event.item)
            case "response.output_item.done" if isinstance(event.item, dict):
                self._text_index = -1
                self._items.end(key, event.item)
            case "response.created" | "response.in_progress":
                self._introduce(event.response)
            case kind if kind in _ENDS:
                self._end(event.response, kind.removeprefix("response."))

    def _refuse_error(self, name: str, event: _Event, data: bytes) -> None:
        if event.type == "error" or name == "error":
            raise from_error_object(document(data))
        if not isinstance(event.type, str):
            problem = error_in(document(data))
            if problem is not None:
                raise from_error_object(problem)

    # ---- the answer as a whole -------------------------------------------------------------------

    def _introduce(self, answer: Any) -> None:
        """Hold the facts about the answer back until its first piece."""
        model, response_id = text(field(answer, "model")), text(field(answer, "id"))
        if not self._is_introduced and (model or response_id):
            self._is_introduced = True
            self._held_back.insert(0, MetaDelta(model or None, response_id or None))

    def _end(self, answer: Any, word: str) -> None:
        """Add what ends the answer.

        Raises:
            ProviderError: it failed.
            StreamInterruptedError: somebody ended it at the service.
        """
        self._introduce(answer)
        status = text(field(answer, "status")) or word
        if status == "failed" or word == "failed":
            raise from_error_object(field(answer, "error") or answer)
        if status == "cancelled":
            raise StreamInterruptedError("the answer was cancelled at the service")
        usage = usage_of(field(answer, "usage"))
        if usage is not None:
            self._emit(UsageDelta(usage))
        why = text(field(answer, "incomplete_details", "reason")) or status
        self._emit(FinishDelta(self._finish_reason(status, why), why[:100]))
        self._done, self._text_index = True, -1

    def _finish_reason(self, status: str, why: str) -> FinishReason:
        if status != "completed":
            return _REASONS.get(why, "other")
        if self._items.has_refused:
            return "content_filter"
        return "tool_calls" if self._items.has_calls else "stop"

    def _whole(self, data: bytes) -> list[Delta]:
        """The deltas of an answer that is one JSON document, as if it had come in events."""
        answer = read_json(data, "an answer")
        items = field(answer, "output")
        if not isinstance(items, list):
            raise unreadable(data, "an answer", why="it has no output")
        if self._include_raw:
            self._held_back.append(RawDelta(answer))
        self._introduce(answer)
        for index, item in enumerate(items):
            if isinstance(item, dict):
                self._items.end(index, item)
        self._end(answer, "completed")
        return self._taken()


def _key(event: _Event) -> Hashable:
    """What names the item of an event; some gateways give an item another id in each event."""
    if type(event.output_index) is int:
        return event.output_index
    return text(event.item_id) or text(field(event.item, "id"))
