"""Writes conversations in the form of Anthropic's Messages API: turns made of blocks."""

from __future__ import annotations

import re
import zlib
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from ..errors import InvalidParameterError, UnsupportedFeatureError
from ..messages import (
    FilePart,
    ImagePart,
    LLMMessage,
    OpaquePart,
    Part,
    PromptCache,
    TextPart,
    ToolCall,
)
from .loose import document

ORIGIN = "anthropic"
"""`OpaquePart.origin` of what this dialect's answers contain."""

Block = dict[str, Any]

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_DATA_URL = re.compile(r"data:([^;,]+);base64,(.*)", re.DOTALL)
# Blocks that the service has signed, or marks itself: nothing may be added to them.
_UNMARKABLE = frozenset({"thinking", "redacted_thinking"})


def conversation(messages: Sequence[LLMMessage]) -> tuple[list[Block], list[dict[str, Any]]]:
    """The system prompt's blocks, and the turns of user and assistant.

    All system messages become one prompt.  Neighbouring messages of one side are one turn; the
    results of tools stand first in theirs, as the service demands.

    Raises:
        UnsupportedFeatureError: a part cannot be sent.
        InvalidParameterError: there is nothing but system messages.
    """
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        blocks = _marked(_blocks(message), message.cache)
        role = "assistant" if message.role == "assistant" else "user"
        if message.role == "system":
            system += blocks
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    if not turns:
        raise InvalidParameterError(
            "there is no message to answer", hint="add a message with role 'user'"
        )
    return system, turns


def encode_part(part: Part) -> Block:
    """One part of a message as a block.

    Raises:
        UnsupportedFeatureError: the service does not take it.
    """
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "image", "source": _image_source(part)}
    if isinstance(part, FilePart):
        title = {"title": part.filename} if part.filename else {}
        return {"type": "document", "source": _document_source(part), **title}
    if part.origin != ORIGIN:
        raise UnsupportedFeatureError(f"a part of origin {part.origin!r} means nothing here")
    return part.data


def cache_control(kept_for: PromptCache) -> dict[str, str]:
    """The mark that has the prompt up to its place kept for so long."""
    return {"type": "ephemeral", "ttl": kept_for}


def tool_id(id: str) -> str:
    """``id`` in the letters that the service accepts; the same for a call and for its result.

    Ids of other providers may hold any character; a checksum keeps those apart that would become
    equal.
    """
    if re.fullmatch(r"[a-zA-Z0-9_-]+", id):
        return id
    return f"{re.sub(r'[^a-zA-Z0-9_-]', '_', id)}_{zlib.crc32(id.encode()):08x}"


def _blocks(message: LLMMessage) -> list[Block]:
    parts = _parts(message)
    if message.role == "tool":
        result: Block = {"type": "tool_result", "tool_use_id": tool_id(message.tool_call_id or "")}
        return [{**result, "content": _plain(parts)} if parts else result]
    if message.role != "user" and any(isinstance(p, ImagePart | FilePart) for p in parts):
        raise UnsupportedFeatureError(
            f"a message with role {message.role!r} can only carry text on this wire",
            hint="put images and files into a message with role 'user'",
        )
    if message.role != "assistant":
        return _plain(parts)
    wanted = {call.id for call in message.tool_calls}
    blocks = [
        block
        for block in _plain(parts)
        if block.get("type") != "tool_use" or block.get("id") in wanted
    ]
    placed = {block.get("id") for block in blocks if block.get("type") == "tool_use"}
    return blocks + [_tool_use(call) for call in message.tool_calls if call.id not in placed]


def _parts(message: LLMMessage) -> list[Part]:
    """What is to be sent of a message: no empty text, which is refused, and no foreign part."""
    given = message.content
    parts: Sequence[Part] = (TextPart(text=given),) if isinstance(given, str) else given
    return [
        part
        for part in parts
        if not (isinstance(part, TextPart) and not part.text.strip())
        and not (isinstance(part, OpaquePart) and part.origin != ORIGIN)
    ]


def _plain(parts: Sequence[Part]) -> list[Block]:
    return [encode_part(part) for part in parts]


def _marked(blocks: list[Block], kept_for: PromptCache | None) -> list[Block]:
    """``blocks`` with a cache mark on the last one that can have it."""
    if kept_for is None:
        return blocks
    for place in reversed(range(len(blocks))):
        if blocks[place]["type"] not in _UNMARKABLE:
            blocks[place] = {**blocks[place], "cache_control": cache_control(kept_for)}
            break
    return blocks


def _tool_use(call: ToolCall) -> Block:
    arguments = document((call.arguments_json or "{}").encode())
    if not isinstance(arguments, dict):
        # Broken arguments stay in the history, or the model could not learn from the complaint.
        arguments = {"INVALID_JSON": call.arguments_json}
    return {"type": "tool_use", "id": tool_id(call.id), "name": call.name, "input": arguments}


def _image_source(part: ImagePart) -> dict[str, str]:
    source = _source(part)
    if source["type"] == "base64" and source["media_type"] not in _IMAGES:
        raise UnsupportedFeatureError(
            f"images of type {source['media_type']!r} are not taken here",
            hint=f"convert it to one of {', '.join(_IMAGES)}",
        )
    return source


def _document_source(part: FilePart) -> dict[str, str]:
    media = (part.media_type or "").partition(";")[0]
    if part.data is not None and media.startswith("text/"):
        data = part.data.decode(errors="replace")
        return {"type": "text", "media_type": "text/plain", "data": data}
    source = _source(part)
    if source["type"] == "base64" and source["media_type"] != "application/pdf":
        raise UnsupportedFeatureError(
            f"files of type {source['media_type']!r} are not taken here",
            hint="send a PDF or the text of the file",
        )
    return source


def _source(part: ImagePart | FilePart) -> dict[str, str]:
    if part.data is not None:
        media, data = part.media_type or "", b64encode(part.data).decode()
    elif match := _DATA_URL.fullmatch(part.url or ""):
        media, data = match[1], match[2]
    else:
        return {"type": "url", "url": part.url or ""}
    return {"type": "base64", "media_type": media, "data": data}
