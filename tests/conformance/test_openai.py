"""OpenAI does what providers promise, on both of its APIs."""

from __future__ import annotations

from typing import Any

import pytest

from llm_manager import BaseLLMProvider, OpenAIProvider
from llm_manager.testing import ProviderConformance, Reply, Wanted

from ..wire import response_events as events_of
from .openai_wire import OpenAIWire

pytest.importorskip("openai")


class TestOpenAIChat(OpenAIWire, ProviderConformance):
    usage_details = ("cached_tokens", "reasoning_tokens")

    def make_provider(self, base_url: str, **settings: Any) -> BaseLLMProvider:
        return OpenAIProvider(base_url=base_url, **settings)


class TestOpenAIResponses(OpenAIWire, ProviderConformance):
    chat_path = "/v1/responses"
    usage_details = ("cached_tokens", "cache_write_tokens", "reasoning_tokens")

    def make_provider(self, base_url: str, **settings: Any) -> BaseLLMProvider:
        return OpenAIProvider(base_url=base_url, api="responses", **settings)

    def stream(self, wanted: Wanted) -> Reply:
        return Reply.sse([events_of.one(event) for event in _events(wanted)])

    def whole(self, wanted: Wanted) -> Reply | None:
        return Reply.json(events_of.whole(events_of.text_item(*wanted.text), **_end(wanted)))

    def error_inside(self, message: str) -> Reply | None:
        problem = {"type": "error", "code": "server_error", "message": message, "param": None}
        return Reply.sse([events_of.one(problem)])


def _events(wanted: Wanted) -> list[dict[str, Any]]:
    items: list[list[dict[str, Any]]] = []
    if wanted.reasoning:
        thought = events_of.reasoning_item(*wanted.reasoning)
        # One delta for each piece; `reasoning_item` makes a part of the summary of each.
        kind = "reasoning_summary_text.delta"
        pieces = [
            events_of.of_item(0, kind, summary_index=0, delta=piece) for piece in wanted.reasoning
        ]
        items.append([thought[0], *pieces, thought[-1]])
    if wanted.text:
        items.append(events_of.text_item(*wanted.text, index=1))
    for place, call in enumerate(wanted.tool_calls, 2):
        arguments = call.arguments_json
        items.append(
            events_of.call_item(call.id, call.name, arguments[:5], arguments[5:], index=place)
        )
    status = "incomplete" if wanted.finish == "length" else "completed"
    end = {"type": f"response.{status}", "response": events_of.response(**_end(wanted))}
    return events_of.answer(*items, last=end)


def _end(wanted: Wanted) -> dict[str, Any]:
    usage = wanted.usage
    counts = (
        None
        if usage is None
        else {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
            },
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        }
    )
    if wanted.finish == "length":
        why = {"reason": "max_output_tokens"}
        return {"status": "incomplete", "incomplete_details": why, "usage": counts}
    return {"status": "completed", "usage": counts}
