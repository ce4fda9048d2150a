"""Answers of OpenAI's Responses API, as events and as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 4},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 42,
}


def response(status: str = "completed", **more: Any) -> dict[str, Any]:
    """The answer as a whole, as the first and the last events repeat it."""
    return {"id": "resp_1", "object": "response", "model": "gpt", "status": status, "error": None,
            "incomplete_details": None, "output": [], "usage": None, **more}  # fmt: skip


def of_item(index: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "output_index": index, "item_id": f"item_{index}", **more}


def added(index: int, type: str, **more: Any) -> dict[str, Any]:
    item = {"type": type, "id": f"item_{index}", "status": "in_progress", **more}
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index: int, type: str, **more: Any) -> dict[str, Any]:
    item = {"type": type, "id": f"item_{index}", "status": "completed", **more}
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def text_item(*pieces: str, index: int = 0, **more: Any) -> list[dict[str, Any]]:
    content = [{"type": "output_text", "text": "".join(pieces), "annotations": []}]
    return [
        added(index, "message", role="assistant", content=[], **more),
        of_item(index, "content_part.added", part={"type": "output_text", "text": ""}),
        *(of_item(index, "output_text.delta", content_index=0, delta=p) for p in pieces),
        of_item(index, "output_text.done", text="".join(pieces)),
        done(index, "message", role="assistant", content=content, **more),
    ]


def reasoning_item(
    *summaries: str, index: int = 0, encrypted: str | None = "c2VjcmV0"
) -> list[dict[str, Any]]:
    parts = [{"type": "summary_text", "text": text} for text in summaries]
    pieces: list[dict[str, Any]] = []
    for place, text in enumerate(summaries):
        kind = "reasoning_summary_text.delta"
        pieces += [of_item(index, "reasoning_summary_part.added", summary_index=place)]
        pieces += [of_item(index, kind, summary_index=place, delta=word)
                   for word in (text[:2], text[2:]) if word]  # fmt: skip
    item = {"summary": parts, "encrypted_content": encrypted}
    return [
        added(index, "reasoning", summary=[], encrypted_content=""),
        *pieces,
        done(index, "reasoning", **item),
    ]


def call_item(
    call_id: str, name: str, *pieces: str, index: int = 0, **more: Any
) -> list[dict[str, Any]]:
    call = {"call_id": call_id, "name": name, **more}
    return [
        added(index, "function_call", **call, arguments=""),
        *(of_item(index, "function_call_arguments.delta", delta=piece) for piece in pieces),
        of_item(index, "function_call_arguments.done", arguments="".join(pieces)),
        done(index, "function_call", **call, arguments="".join(pieces)),
    ]


def end(status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": response(status, usage=USAGE, **more)}


def answer(*items: list[dict[str, Any]], last: Any = None) -> list[dict[str, Any]]:
    """All events of an answer that consists of these items."""
    events = [{"type": "response.created", "response": response("in_progress")}]
    events += [{"type": "response.in_progress", "response": response("in_progress")}]
    events += [event for item in items for event in item]
    return [*events, end() if last is None else last]


def one(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def rendered(events: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(_numbered(events))


def _numbered(events: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    for number, event in enumerate(events):
        yield one({**event, "sequence_number": number})


def whole(*items: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The same answer as one document."""
    output = [item[-1]["item"] for item in items]
    return response(output=output, **{"usage": USAGE, **more})
