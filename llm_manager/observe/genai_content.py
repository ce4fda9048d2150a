"""What was asked and answered, in the JSON shapes of the GenAI conventions, bounded and masked.

Source: OpenTelemetry, "Semantic conventions for generative AI": the JSON schemas of input
messages, output messages, system instructions and tool definitions.

Nothing here runs unless content was asked for.  Bytes of images and files, and pieces of an answer
that only a service understands, are never part of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..messages import (
    Delta,
    FilePart,
    ImagePart,
    LLMMessage,
    LLMRequest,
    OpaquePart,
    Part,
    PartDelta,
    ReasoningDelta,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
)
from ..redaction import redact
from .trace_provider import Attribute

# A key that stands across the end of what is kept must still look like one.
_LONGEST_KEY_CHARACTERS = 256
_CUT = "…"


class Content:
    """Makes the attributes of one span; all its texts together have a limit.

    Args:
        limit_characters: how many characters of text may stand in one attribute.
        secrets: texts that must not appear, besides what looks like a key.
    """

    def __init__(self, limit_characters: int, secrets: Iterable[str] = ()) -> None:
        self._limit = limit_characters
        self._secrets = tuple(secrets)
        self._left = limit_characters

    def of_request(self, request: LLMRequest) -> dict[str, Attribute]:
        """What was asked.  Of a long conversation the newest messages are kept."""
        leading = 0
        while leading < len(request.messages) and request.messages[leading].role == "system":
            leading += 1
        system, messages = request.messages[:leading], request.messages[leading:]
        attributes: dict[str, Attribute] = {}
        if system:
            self._left = self._limit
            instructions = [part for message in system for part in self._parts(message)]
            attributes["gen_ai.system_instructions"] = _json(instructions)
        asked = messages or tuple(
            LLMMessage.user(text)
            for text in (request.prefix, request.suffix, *request.texts)
            if text
        )
        attributes["gen_ai.input.messages"] = _json(self._messages(asked))
        if request.options.tools:
            self._left = self._limit
            definitions = [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": self._kept(tool.description),
                    "parameters": self._structure(tool.parameters),
                }
                for tool in request.options.tools
            ]
            attributes["gen_ai.tool.definitions"] = _json(definitions)
        return attributes

    def of_answer(self, deltas: Sequence[Delta], finish_reason: str) -> dict[str, Attribute]:
        """What was answered, as far as it has come; nothing if nothing has."""
        message = _assembled(deltas)
        if not (message.content or message.tool_calls or message.reasoning):
            return {}
        self._left = self._limit
        # The conventions' word for it has no plural.
        reason = "tool_call" if finish_reason == "tool_calls" else finish_reason
        answer = {**self._message(message), "finish_reason": reason}
        return {"gen_ai.output.messages": _json([answer])}

    def of_tool_call(self, call: ToolCall, result: str | tuple[Part, ...]) -> dict[str, Attribute]:
        """What a tool was called with, and what it gave."""
        if not isinstance(result, str):
            result = "".join(part.text for part in result if isinstance(part, TextPart))
        return {
            "gen_ai.tool.call.arguments": self.text(call.arguments_json),
            "gen_ai.tool.call.result": self.text(result),
        }

    def text(self, text: str) -> str:
        """A text of its own, e.g. that of an error."""
        self._left = self._limit
        return self._kept(text)

    # ---- inside ----------------------------------------------------------------------------------

    def _messages(self, messages: Sequence[LLMMessage]) -> list[dict[str, Any]]:
        """The newest messages that there is room for, in their order."""
        self._left = self._limit
        kept: list[dict[str, Any]] = []
        for message in reversed(messages):
            if self._left <= 0:
                break
            kept.append(self._message(message))
        return kept[::-1]

    def _message(self, message: LLMMessage) -> dict[str, Any]:
        known: dict[str, Any] = {"role": message.role, "parts": self._parts(message)}
        if message.name is not None:
            known["name"] = message.name
        return known

    def _parts(self, message: LLMMessage) -> list[dict[str, Any]]:
        if message.role == "tool":
            result = self._kept(message.text)
            return [{"type": "tool_call_response", "id": message.tool_call_id, "response": result}]
        parts: list[dict[str, Any]] = []
        if message.reasoning:
            parts.append({"type": "reasoning", "content": self._kept(message.reasoning)})
        if isinstance(message.content, str):
            if message.content:
                parts.append({"type": "text", "content": self._kept(message.content)})
        else:
            parts += [self._part(part) for part in message.content]
        for call in message.tool_calls:
            arguments = _decoded(self._kept(call.arguments_json))
            parts.append(
                {"type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments}
            )
        return parts

    def _part(self, part: Part) -> dict[str, Any]:
        if isinstance(part, TextPart):
            return {"type": "text", "content": self._kept(part.text)}
        if isinstance(part, OpaquePart):
            return {"type": f"{part.origin}.{part.kind}"}
        modality = _modality(part)
        if part.url is not None and not part.url.startswith("data:"):
            uri = self._kept(part.url)
            return {
                "type": "uri", "modality": modality, "mime_type": part.media_type, "uri": uri
            }  # fmt: skip
        size = len(part.data or part.url or "")
        return {
            "type": "blob",
            "modality": modality,
            "mime_type": part.media_type,
            "content": "",
            "omitted_bytes": size,
        }

    def _structure(self, value: Any) -> Any:
        """A JSON Schema with its texts masked and counted."""
        if isinstance(value, str):
            return self._kept(value)
        if isinstance(value, dict):
            return {key: self._structure(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._structure(inner) for inner in value]
        return value

    def _kept(self, text: str) -> str:
        """As much of ``text`` as there is room for, without keys."""
        masked = redact(text[: self._left + _LONGEST_KEY_CHARACTERS], self._secrets)
        if len(masked) > self._left:
            masked = masked[: self._left] + _CUT
        if not masked.isascii():  # half a character would keep a whole batch from being exported
            masked = masked.encode("utf-8", "replace").decode()
        self._left = max(self._left - len(masked), 0)
        return masked


def _modality(part: ImagePart | FilePart) -> str:
    if isinstance(part, ImagePart):
        return "image"
    family = (part.media_type or "").partition("/")[0]
    return family if family in ("audio", "video", "image") else "document"


def _assembled(deltas: Iterable[Delta]) -> LLMMessage:
    """The message that pieces make; ones that are no text stand before it."""
    texts: list[str] = []
    reasoning: list[str] = []
    parts: list[Part] = []
    calls: dict[int, tuple[str, str, list[str]]] = {}
    for delta in deltas:
        if isinstance(delta, TextDelta):
            texts.append(delta.text)
        elif isinstance(delta, ReasoningDelta):
            reasoning.append(delta.text)
        elif isinstance(delta, PartDelta):
            parts.append(delta.part)
        elif isinstance(delta, ToolCallDelta):
            id, name, pieces = calls.get(delta.index, ("", "", []))
            pieces.append(delta.arguments)
            calls[delta.index] = (id or delta.id, name or delta.name, pieces)
    text = "".join(texts)
    if parts and text:
        parts.append(TextPart(text=text))
    return LLMMessage(
        role="assistant",
        content=tuple(parts) or text,
        reasoning="".join(reasoning) or None,
        tool_calls=tuple(
            ToolCall(id=id, name=name, arguments_json="".join(pieces))
            for _, (id, name, pieces) in sorted(calls.items())
        ),
    )


def _decoded(text: str) -> Any:
    """The value of a JSON text; the text itself where a model, or our cut, has broken it."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return text


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return json.dumps(value)  # half a character in a name: written as an escape
