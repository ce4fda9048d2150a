"""The chat completions dialect of OpenAI, which most servers of language models speak.

What a server must be told differently is data, in `ChatDialect`; what servers answer differently,
the decoder understands everywhere, because gateways mix the habits of many.

::

    bytes -> SSEFramer -> _Chunk -> deltas        an event stream
    bytes -> one _Chunk -> deltas                 a server that answers in one piece
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ..errors import InvalidResponseError, ProviderError, StreamInterruptedError
from ..messages import (
    Delta,
    FinishDelta,
    FinishReason,
    LLMRequest,
    MetaDelta,
    Part,
    RawDelta,
    ReasoningDelta,
    TextDelta,
    Usage,
    UsageDelta,
)
from .decoding import BLANK, EventStreamDecoder
from .failures import error_in, from_error_object, read_json, unreadable
from .framing import DEFAULT_MAX_LINE_BYTES, SSEEvent
from .loose import UNREADABLE, document, field, text, whole_number
from .openai_request import ChatDialect, encode_part, encode_request, left_out
from .openai_usage import usage_of
from .think_tags import ThinkTags
from .tool_calls import ToolCallPieces

__all__ = ["ChatDialect", "OpenAIChat", "OpenAIChatDecoder"]


class OpenAIChat:
    """The codec.

    Args:
        dialect: the server's quirks.
        max_line_bytes: longest event, or whole document, that is accepted as an answer.
    """

    path = "/chat/completions"

    def __init__(
        self,
        dialect: ChatDialect = ChatDialect(),  # noqa: B008 - it is immutable
        *,
        max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
    ) -> None:
        self.dialect = dialect
        self._max_line_bytes = max_line_bytes

    def encode(self, request: LLMRequest) -> bytes:
        """The body to send to ``/chat/completions``.

        Raises:
            UnsupportedFeatureError: the dialect cannot express the request.
            InvalidParameterError: a value is out of the server's range, or is not JSON.
        """
        return encode_request(request, self.dialect)

    def left_out(self, request: LLMRequest) -> tuple[str, ...]:
        """The names of options that are given and not sent, because they would be refused."""
        return left_out(request, self.dialect)

    def encode_part(self, part: Part) -> dict[str, Any]:
        """One part of a message as the server wants it.

        Raises:
            UnsupportedFeatureError: it does not take it.
        """
        return encode_part(part, self.dialect)

    def decoder(self, request: LLMRequest) -> OpenAIChatDecoder:
        """A fresh decoder for the answer to ``request``."""
        return OpenAIChatDecoder(request, self.dialect, max_line_bytes=self._max_line_bytes)


# ---- the shape of an answer ----------------------------------------------------------------------
#
# Only the skeleton is typed, which is what makes decoding cheap.  Its leaves are Any: some server
# sends a number or a list wherever one expects a text, and the reader of the leaf decides.


class _Said(msgspec.Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: Any = 0
    # A list, because "no fields" is [] in the JSON of some languages.
    delta: _Said | list[Any] | None = None
    message: _Said | list[Any] | None = None
    # The older completions, which fill in the middle, put the text here.
    text: Any = None
    finish_reason: Any = None
    error: Any = None


class _Chunk(msgspec.Struct, gc=False):
    id: Any = None
    model: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None
    x_groq: Any = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


def _loose_chunk(answer: object) -> _Chunk:
    """A chunk from a document with an odd skeleton; what is odd about it is left out."""
    chunk = _Chunk(**{name: field(answer, name) for name in _Chunk.__struct_fields__})
    choices = field(answer, "choices")
    if isinstance(choices, list):
        chunk.choices = [_loose_choice(choice) for choice in choices if isinstance(choice, dict)]
    else:
        chunk.choices = None
    return chunk


def _loose_choice(answer: dict[str, Any]) -> _Choice:
    return _Choice(
        index=answer.get("index"),
        delta=_loose_said(answer.get("delta")),
        message=_loose_said(answer.get("message")),
        text=answer.get("text"),
        finish_reason=answer.get("finish_reason"),
        error=answer.get("error"),
    )


def _loose_said(answer: object) -> _Said | None:
    if not isinstance(answer, dict):
        return None
    return _Said(**{name: answer.get(name) for name in _Said.__struct_fields__})


# ---- decoding ------------------------------------------------------------------------------------

# fmt: off
_REASONS: dict[str, FinishReason] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token",
                     "complete", "completed"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_length", "max_output_tokens", "model_length",
                     "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tool_calls"),
    **dict.fromkeys(("content_filter", "content_filtered", "sensitive", "safety", "recitation",
                     "blocklist", "prohibited_content", "refusal"), "content_filter"),
}
# fmt: on

# Words for an answer that did not end but broke off; taking them for an end would pass off a part
# as the whole.
_BROKEN_OFF = frozenset(
    {"error", "network_error", "abort", "aborted", "insufficient_system_resource"}
)

_FIRST_LINE = re.compile(rb":|(?:data|event|id|retry)(?:[:\r\n]|$)")
_EMPTY_HINT = "some servers answer so when the prompt is too long"


class OpenAIChatDecoder(EventStreamDecoder):
    """The decoder of one answer.

    A stream has ended properly when a finish reason or ``[DONE]`` came.  ``[DONE]`` alone is an
    end for which the server gave no reason: the finish delta says ``other``, or ``tool_calls`` if
    there were some.  Of several choices only the first is read.

    Args:
        request: the request that is answered.
        dialect: the server's quirks.
        max_line_bytes: longest event, or whole document, that is accepted.
    """

    def __init__(
        self,
        request: LLMRequest,
        dialect: ChatDialect,
        *,
        max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
    ) -> None:
        super().__init__(max_line_bytes)
        self._requires_finish = dialect.requires_finish
        self._include_raw = request.options.include_raw
        self._calls = ToolCallPieces(request.id)
        self._thoughts = ThinkTags() if dialect.think_tags else None
        self._usage: Usage | None = None
        self._broken_off: str | None = None
        self._is_introduced = False
        self._has_text = False
        self._has_refused = False
        self._finished = False
        self._done = False
        # Whether a chunk with nothing but text in it is a TextDelta and nothing else.
        self._text_is_all = False

    def _ended(self) -> list[Delta]:
        # What is left may be half an event: the mark of a broken connection, not of a server that
        # does not know the protocol.
        rest = [(name, data) for name, data in self._framer.close() if _is_whole(data)]
        deltas = list(self._read(rest))
        if self._finished:
            return deltas
        if self._requires_finish or not self._begun:
            self._add_held_back(deltas)
            return self._failed(deltas, self._unfinished())
        self._finish(None, deltas)
        return deltas

    # ---- the stream ------------------------------------------------------------------------------

    def _read(self, events: list[SSEEvent]) -> list[Delta]:
        deltas: list[Delta] = []
        try:
            for name, data in events:
                try:
                    chunk = _decode_chunk(data)
                except UNREADABLE as error:
                    why = str(error)
                else:
                    # The fast path: a chunk with a piece of text and nothing else.
                    choices = chunk.choices
                    if self._text_is_all and choices and chunk.usage is None and not name:
                        choice = choices[0]
                        said = choice.delta
                        if (
                            type(said) is _Said
                            and type(said.content) is str
                            and said.content
                            and choice.finish_reason is None
                            and choice.index == 0
                            and not (
                                said.tool_calls
                                or said.function_call
                                or said.reasoning_content
                                or said.reasoning
                                or said.reasoning_details
                                or said.refusal
                                or choice.error
                                or chunk.error
                                or chunk.x_groq
                                or len(choices) > 1
                            )
                        ):
                            deltas.append(TextDelta(said.content))
                            continue
                    self._take(name, chunk, data, deltas)
                    continue
                self._take_odd(name, data, why, deltas)
        except ProviderError as error:
            failure = error
        else:
            return deltas
        return self._failed(deltas, failure)

    def _take_odd(self, name: str, data: bytes, why: str, deltas: list[Delta]) -> None:
        """Deal with data that is no chunk: the end mark, an error in prose, an odd skeleton."""
        stripped = data.strip()
        if stripped == b"[DONE]":
            self._end(deltas)
        elif stripped and not self._done:
            answer = document(data)
            if isinstance(answer, dict):
                self._take(name, _loose_chunk(answer), data, deltas)
            elif name == "error" or error_in(answer) is not None:
                raise from_error_object(answer or stripped.decode(errors="replace"))
            else:
                raise unreadable(data, "an event of a chat completion", why=why)

    def _take(self, name: str, chunk: _Chunk, data: bytes, deltas: list[Delta]) -> None:
        """Add the deltas of one chunk, whatever is in it."""
        if self._done:
            return
        choices = chunk.choices
        if name or chunk.error or chunk.x_groq or not choices or choices[0].error:
            self._refuse_error(name, chunk, data)
        before = len(deltas)
        if self._include_raw:
            deltas.append(RawDelta(document(data)))
        contents = len(deltas)
        for choice in choices or ():
            if not whole_number(choice.index):
                self._take_choice(choice, deltas)
        if chunk.usage or chunk.x_groq:
            usage = usage_of(chunk.usage) or usage_of(field(chunk.x_groq, "usage"))
            if usage is not None and usage != self._usage:
                self._usage = usage
                deltas.append(UsageDelta(usage))
        self._begun = self._begun or len(deltas) > contents
        if len(deltas) > before and not self._is_introduced:
            self._introduce(chunk, deltas, before)
        if self._broken_off is not None:
            raise StreamInterruptedError(
                f"the server broke the answer off ({self._broken_off})",
                provider_code=self._broken_off,
            )

    def _introduce(self, chunk: _Chunk, deltas: list[Delta], place: int) -> None:
        """Put the facts about the answer in front of its first delta, once they are known."""
        model, response_id = text(chunk.model), text(chunk.id)
        if model or response_id:
            deltas.insert(place, MetaDelta(model or None, response_id or None))
            self._is_introduced = True
            self._text_is_all = not self._include_raw and self._thoughts is None

    def _refuse_error(self, name: str, chunk: _Chunk, data: bytes) -> None:
        if chunk.error or (name == "error" and not chunk.choices):
            raise from_error_object(document(data))
        if chunk.choices is None and chunk.usage is None:
            # An error need not be called one: {"message": ..., "code": ...}
            problem = error_in(document(data))
            if problem is not None:
                raise from_error_object(problem)
        for problem in (field(chunk.x_groq, "error"), chunk.choices and chunk.choices[0].error):
            if problem:
                raise from_error_object(problem)

    def _take_choice(self, choice: _Choice, deltas: list[Delta]) -> None:
        if type(choice.delta) is _Said:
            self._take_said(choice.delta, deltas)
        elif type(choice.message) is _Said and not self._has_text:
            # A message behind deltas repeats what they said.
            self._take_said(choice.message, deltas)
        elif type(choice.text) is str:
            self._take_said(_Said(content=choice.text), deltas)
        if choice.finish_reason:
            self._take_finish_reason(str(choice.finish_reason)[:100], deltas)

    def _take_said(self, said: _Said, deltas: list[Delta]) -> None:
        content, thought = said.content, ""
        if isinstance(content, list):
            content, thought = _text_of_parts(content), _text_of_parts(content, thoughts=True)
        thought = (
            thought
            or text(said.reasoning_content)
            or text(said.reasoning)
            or _text_of_parts(said.reasoning_details)
        )
        if thought:
            deltas.append(ReasoningDelta(thought))
        # A refusal stands in place of the answer; whoever reads the answer should see it.
        refusal = text(said.refusal)
        answer = text(content) or refusal
        self._has_refused = self._has_refused or bool(refusal)
        if answer:
            self._has_text = True
            if self._thoughts is None:
                deltas.append(TextDelta(answer))
            else:
                deltas.extend(self._thoughts.feed(answer))
        if said.tool_calls or said.function_call:
            calls = said.tool_calls or [{"function": said.function_call}]
            deltas.extend(self._calls.feed(calls))

    # ---- the end ---------------------------------------------------------------------------------

    def _take_finish_reason(self, word: str, deltas: list[Delta]) -> None:
        lower = word.lower()
        if lower in _BROKEN_OFF:
            self._broken_off = word
        elif lower not in ("null", "none"):
            self._finish(word, deltas)

    def _finish(self, word: str | None, deltas: list[Delta]) -> None:
        """Add what is still held back, and the finish delta, once."""
        if self._finished:
            return
        self._finished = True
        self._add_held_back(deltas)
        reason = _REASONS.get((word or "").lower(), "other")
        if self._calls and reason in ("stop", "other"):
            reason = "tool_calls"
        elif self._has_refused and reason == "stop":
            reason = "content_filter"
        deltas.append(FinishDelta(reason, word))

    def _add_held_back(self, deltas: list[Delta]) -> None:
        if self._thoughts is not None:
            deltas.extend(self._thoughts.close())

    def _end(self, deltas: list[Delta]) -> None:
        """Deal with ``[DONE]``; nothing behind it counts."""
        if not self._begun:
            raise InvalidResponseError(
                "the answer ended before it began", code="empty_response", hint=_EMPTY_HINT
            )
        self._finish(None, deltas)
        self._done, self._text_is_all = True, False

    def _unfinished(self) -> ProviderError:
        """What to say of a stream without an end."""
        if not self._begun and not _FIRST_LINE.match(self._start.lstrip(BLANK)):
            return unreadable(self._start, "a chat completion")
        return StreamInterruptedError(
            "the answer broke off: neither a finish reason nor [DONE] at its end"
        )

    # ---- an answer in one piece ------------------------------------------------------------------

    def _whole(self, data: bytes) -> list[Delta]:
        """The deltas of an answer that is one JSON document."""
        chunk = _loose_chunk(read_json(data, "a chat completion"))
        if not chunk.choices:
            raise unreadable(data, "a chat completion", why="it has no choices")
        deltas: list[Delta] = []
        self._take("", chunk, data, deltas)
        if not self._finished:
            self._finish(None, deltas)
        if not self._is_introduced:
            self._introduce(chunk, deltas, 0)
        return deltas


def _is_whole(data: bytes) -> bool:
    """Whether the data of an event is complete, as far as can be seen."""
    return data.strip() == b"[DONE]" or document(data) is not None


def _text_of_parts(parts: object, *, thoughts: bool = False) -> str:
    """The text of those parts that are thoughts, or of those that are not."""
    texts = []
    for part in parts if isinstance(parts, list) else ():
        thought = field(part, "thinking")
        if isinstance(thought, list):
            thought = _text_of_parts(thought)
        if thoughts:
            texts.append(text(thought))
        else:
            texts.append(text(field(part, "text")) or text(field(part, "summary")))
    return "".join(texts)
