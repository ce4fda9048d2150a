"""Answers of Anthropic's Messages API, as events and as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

USAGE = {"input_tokens": 3, "output_tokens": 1}


def start(**usage: Any) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude",
               "content": [], "stop_reason": None, "usage": usage or USAGE}  # fmt: skip
    return {"type": "message_start", "message": message}


def begin(index: int, type: str, **more: Any) -> dict[str, Any]:
    block = {"type": type, **more}
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: int, type: str, **more: Any) -> dict[str, Any]:
    delta = {"type": type, **more}
    return {"type": "content_block_delta", "index": index, "delta": delta}


def say(text: str, index: int = 0) -> dict[str, Any]:
    return piece(index, "text_delta", text=text)


def end(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def finish(reason: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": usage or {"output_tokens": 2}}


STOP = {"type": "message_stop"}
PING = {"type": "ping"}


def text_block(*words: str, index: int = 0) -> list[dict[str, Any]]:
    return [begin(index, "text", text=""), *(say(w, index) for w in words), end(index)]


def thinking_block(
    *thoughts: str, index: int = 0, signature: str = "sig=="
) -> list[dict[str, Any]]:
    pieces = [piece(index, "thinking_delta", thinking=t) for t in thoughts]
    signed = piece(index, "signature_delta", signature=signature)
    return [begin(index, "thinking", thinking="", signature=""), *pieces, signed, end(index)]


def call_block(
    id: str, name: str, *pieces: str, index: int = 0, **more: Any
) -> list[dict[str, Any]]:
    opened = begin(index, "tool_use", id=id, name=name, input={}, **more)
    return [
        opened,
        *(piece(index, "input_json_delta", partial_json=p) for p in pieces),
        end(index),
    ]


def answer(*blocks: list[dict[str, Any]], reason: str = "end_turn") -> list[dict[str, Any]]:
    """The events of a whole answer."""
    return [start(), PING, *(event for block in blocks for event in block), finish(reason), STOP]


def rendered(events: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(map(one, events))


def one(event: dict[str, Any]) -> bytes:
    """An event as the service sends it."""
    text = json.dumps(event, ensure_ascii=False)
    return f"event: {event['type']}\ndata: {text}\n\n".encode()
