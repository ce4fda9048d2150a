"""How servers of the OpenAI dialect answer, for the conformance classes of several providers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_manager import Usage
from llm_manager.testing import Reply, Wanted


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "model-1", "choices": [choice]}


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def calls_of(wanted: Wanted) -> list[dict[str, Any]]:
    return [
        {
            "index": place,
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments_json},
        }
        for place, call in enumerate(wanted.tool_calls)
    ]


class OpenAIWire:
    """What a conformance class of a server of this dialect inherits."""

    embeddings_path = "/v1/embeddings"
    usage_details = ("cached_tokens", "reasoning_tokens")

    def stream(self, wanted: Wanted) -> Reply:
        return Reply.sse([*self.events(wanted), "[DONE]"])

    def events(self, wanted: Wanted) -> list[Any]:
        """What is sent one after the other."""
        events: list[Any] = [chunk(role="assistant", content="")]
        events += [chunk(reasoning_content=piece) for piece in wanted.reasoning]
        events += [chunk(content=piece) for piece in wanted.text]
        for call in calls_of(wanted):
            arguments = call["function"]["arguments"]
            first = {**call, "function": {**call["function"], "arguments": arguments[:5]}}
            rest = {"index": call["index"], "function": {"arguments": arguments[5:]}}
            events += [chunk(tool_calls=[first]), chunk(tool_calls=[rest])]
        events.append(chunk(wanted.finish))
        if wanted.usage is not None:
            events.append({**chunk(), "choices": [], "usage": usage_of(wanted.usage)})
        return events

    def whole(self, wanted: Wanted) -> Reply | None:
        message = {"role": "assistant", "content": "".join(wanted.text)}
        choice = {"index": 0, "message": message, "finish_reason": wanted.finish}
        return Reply.json({"id": "chatcmpl-1", "model": "model-1", "choices": [choice]})

    def models(self, ids: Sequence[str]) -> Reply:
        return Reply.json({"object": "list", "data": [{"id": i, "object": "model"} for i in ids]})

    def embeddings(self, vectors: Sequence[Sequence[float]], usage: Usage) -> Reply | None:
        data = [{"index": place, "embedding": list(v)} for place, v in enumerate(vectors)]
        counts = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
        return Reply.json({"object": "list", "data": data, "model": "model-1", "usage": counts})

    def error_inside(self, message: str) -> Reply | None:
        return Reply.sse([{"error": {"message": message, "type": "server_error"}}])
