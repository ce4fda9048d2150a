"""Ollama's own chat dialect, ``/api/chat``: one JSON object per line.

The answers of the server's other addresses are read in `ollama_models`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from ..errors import (
    InvalidParameterError,
    ProviderError,
    StreamInterruptedError,
    UnsupportedFeatureError,
)
from ..messages import (
    Delta,
    FilePart,
    FinishDelta,
    FinishReason,
    ImagePart,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    MetaDelta,
    Part,
    RawDelta,
    ReasoningDelta,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from .decoding import AnswerDecoder
from .failures import from_error_object, unreadable
from .framing import DEFAULT_MAX_LINE_BYTES, NDJSONFramer
from .loose import UNREADABLE, document, field, text, whole_number
from .ollama_body import OllamaCodec

_THINK: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
}


class OllamaChat(OllamaCodec):
    """The codec; for its settings see `OllamaCodec`."""

    path = "/api/chat"

    def encode(self, request: LLMRequest) -> bytes:
        """The body to send to ``/api/chat``.

        A reasoning effort is sent whenever it is given; whether the model can reason is known only
        to the provider.

        Raises:
            UnsupportedFeatureError: the dialect cannot express the request.
            InvalidParameterError: a value is not JSON.
        """
        options = request.options
        content: dict[str, Any] = {
            "messages": _messages(request.messages),
            "stream": request.stream,
            "shift": self._truncate,
        }
        if tools := _tools(options):
            content["tools"] = tools
        if options.response_format not in (None, "text"):
            wanted = options.response_format
            content["format"] = "json" if wanted == "json_object" else wanted
        if options.reasoning_effort is not None:
            content["think"] = _THINK[options.reasoning_effort]
        return self._body(request, content)

    def encode_part(self, part: Part) -> dict[str, Any]:
        """The fields of a message that carry one part: ``content`` or ``images``.

        Raises:
            UnsupportedFeatureError: the server does not take it.
        """
        if isinstance(part, TextPart):
            return {"content": part.text}
        if isinstance(part, ImagePart):
            return {"images": [_image(part)]}
        if isinstance(part, FilePart):
            raise _no_files()
        raise UnsupportedFeatureError(f"a part of origin {part.origin!r} means nothing to Ollama")

    def decoder(self, request: LLMRequest) -> OllamaChatDecoder:
        """A fresh decoder for the answer to ``request``."""
        return OllamaChatDecoder(request, max_line_bytes=self._max_line_bytes)


# ---- encoding ------------------------------------------------------------------------------------


def _messages(messages: Sequence[LLMMessage]) -> list[dict[str, Any]]:
    # A result names its tool here, while our messages name the call only.
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    return [_message(message, names) for message in messages]


def _message(message: LLMMessage, tool_names: dict[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role, "content": message.text}
    if not isinstance(message.content, str):
        if any(isinstance(part, FilePart) for part in message.content):
            raise _no_files()
        images = [_image(part) for part in message.content if isinstance(part, ImagePart)]
        if images:
            out["images"] = images
    if message.tool_calls:
        out["tool_calls"] = [_call(call) for call in message.tool_calls]
        if message.reasoning:
            out["thinking"] = message.reasoning
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
        name = message.name or tool_names.get(message.tool_call_id)
        if name is not None:
            out["tool_name"] = name
    return out


def _no_files() -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        "Ollama takes no files", hint="send the text of the file, or its pages as images"
    )


def _image(part: ImagePart) -> str:
    if part.data is not None:
        return b64encode(part.data).decode()
    head, comma, data = (part.url or "").partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return data
    raise UnsupportedFeatureError(
        "Ollama does not fetch images by URL", hint="read the image and give it as data"
    )


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = document((call.arguments_json or "{}").encode())
    if not isinstance(arguments, dict):
        raise InvalidParameterError(
            f"the arguments of tool call {call.id!r} are no JSON object, which Ollama needs",
            hint="leave the call and its result out of the conversation",
        )
    return {"id": call.id, "function": {"name": call.name, "arguments": arguments}}


def _tools(options: LLMRequestOptions) -> list[dict[str, Any]]:
    if options.tool_choice not in (None, "auto", "none"):
        raise UnsupportedFeatureError(
            f"Ollama cannot make a model call a tool (tool_choice {options.tool_choice!r})",
            hint="use tool_choice 'auto' and ask for the tool in the prompt",
        )
    if options.tool_choice == "none":
        return []
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            },
        }
        for tool in options.tools
    ]


# ---- decoding ------------------------------------------------------------------------------------
#
# The skeleton is typed, its leaves are Any, as in every decoder here: see `loose`.


class _Said(msgspec.Struct, gc=False):
    content: Any = None
    thinking: Any = None
    tool_calls: Any = None


class _Line(msgspec.Struct, gc=False):
    model: Any = None
    message: _Said | None = None
    # Where `/api/generate` puts what stands inside the message here.
    response: Any = None
    thinking: Any = None
    done: Any = False
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


_decode_line = msgspec.json.Decoder(_Line).decode

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class OllamaChatDecoder(AnswerDecoder):
    """The decoder of one answer, streamed or not: a line with ``done`` ends it.

    Args:
        request: the request that is answered.
        max_line_bytes: longest line that is accepted.
    """

    def __init__(
        self, request: LLMRequest, *, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES
    ) -> None:
        super().__init__()
        self._request_id = request.id
        self._include_raw = request.options.include_raw
        self._framer = NDJSONFramer(max_line_bytes=max_line_bytes)
        self._calls = 0
        self._is_introduced = False
        self._is_empty = True
        self._done = False

    def _fed(self, data: bytes) -> Sequence[Delta]:
        return self._deltas(self._framer.feed(data))

    def _closed(self) -> Sequence[Delta]:
        rest = self._framer.close()
        # Half an object is the mark of a broken connection, not of a server that sends no JSON.
        whole = [line for line in rest if document(line) is not None or line[:1] != b"{"]
        deltas = list(self._deltas(whole))
        if self._done:
            return deltas
        if self._is_empty and not rest:
            raise unreadable(b"", "a chat answer")
        return self._failed(
            deltas, StreamInterruptedError("the answer broke off: no line says that it is done")
        )

    def _deltas(self, lines: list[bytes]) -> list[Delta]:
        deltas: list[Delta] = []
        try:
            for data in lines:
                try:
                    line = _decode_line(data)
                except UNREADABLE as error:
                    why = str(error)
                else:
                    # The fast path: a line with a piece of text and nothing else.
                    said = line.message
                    if (
                        said is not None
                        and said.content
                        and type(said.content) is str
                        and self._is_introduced
                        and not (
                            line.done
                            or said.thinking
                            or said.tool_calls
                            or line.error
                            or self._include_raw
                            or self._done
                        )
                    ):
                        deltas.append(TextDelta(said.content))
                    else:
                        self._take(line, data, deltas)
                    continue
                self._take_odd(data, why, deltas)
        except ProviderError as error:
            failure = error
        else:
            return deltas
        return self._failed(deltas, failure)

    def _take_odd(self, data: bytes, why: str, deltas: list[Delta]) -> None:
        """Deal with a line that has an odd skeleton; what is odd about it is left out."""
        answer = document(data)
        if not isinstance(answer, dict):
            raise unreadable(data, "a line of a chat answer", why=why)
        line = _Line(**{n: answer[n] for n in _Line.__struct_fields__ if n in answer})
        said = answer.get("message")
        if said is not None:
            line.message = _Said(**{n: field(said, n) for n in _Said.__struct_fields__})
        self._take(line, data, deltas)

    def _take(self, line: _Line, data: bytes, deltas: list[Delta]) -> None:
        """Add the deltas of one line, whatever is in it."""
        self._is_empty = False
        if line.error:
            raise from_error_object(document(data))
        if self._done:
            return
        before = len(deltas)
        if self._include_raw:
            deltas.append(RawDelta(document(data)))
        if line.message is not None:
            self._take_said(line.message, deltas)
        else:
            self._take_said(_Said(content=line.response, thinking=line.thinking), deltas)
        if line.done:
            self._take_end(line, deltas)
        if len(deltas) > before and not self._is_introduced and text(line.model):
            deltas.insert(before, MetaDelta(line.model))
            self._is_introduced = True

    def _take_said(self, said: _Said, deltas: list[Delta]) -> None:
        if thought := text(said.thinking):
            deltas.append(ReasoningDelta(thought))
        if answer := text(said.content):
            deltas.append(TextDelta(answer))
        for call in said.tool_calls if isinstance(said.tool_calls, list) else ():
            name = text(field(call, "function", "name"))
            if name:
                # Calls come whole.  Older servers give them no id, which their results need.
                id = text(field(call, "id")) or f"call_{self._request_id}_{self._calls}"
                arguments = _arguments_json(field(call, "function", "arguments"))
                deltas.append(ToolCallDelta(self._calls, id, name, arguments))
                self._calls += 1

    def _take_end(self, line: _Line, deltas: list[Delta]) -> None:
        self._done = True
        word = text(line.done_reason) or None
        reason = _REASONS.get(word or "stop", "other")
        if self._calls and reason == "stop":
            reason = "tool_calls"
        deltas.append(FinishDelta(reason, word))
        prompt, answer = whole_number(line.prompt_eval_count), whole_number(line.eval_count)
        if prompt or answer:
            usage = Usage(prompt_tokens=prompt or 0, completion_tokens=answer or 0)
            deltas.append(UsageDelta(usage))


def _arguments_json(arguments: object) -> str:
    if isinstance(arguments, str):
        return arguments or "{}"
    return msgspec.json.encode(arguments or {}).decode()
