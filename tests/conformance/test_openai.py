"""OpenAI's two APIs do what providers promise, through the official SDK."""

from __future__ import annotations

from typing import Any

import pytest

from llm_manager import BaseLLMProvider, OpenAIProvider, QuotaExceededError, Usage
from llm_manager.testing import ProviderConformance, Reply, Wanted

from ..wire.response_events import answer, call_item, one, reasoning_item, response, text_item
from .openai_wire import OpenAIWire

pytest.importorskip("openai")


class TestOpenAIChat(OpenAIWire, ProviderConformance):
    def make_provider(self, base_url: str, **settings: Any) -> BaseLLMProvider:
        return OpenAIProvider(base_url=base_url, api="chat", **settings)

    def errors(self):
        error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
        return {QuotaExceededError: Reply.json({"error": error}, status=429)}


class TestOpenAIResponses(TestOpenAIChat):
    chat_path = "/v1/responses"
    usage_details = ("cached_tokens", "cache_write_tokens", "reasoning_tokens")

    def make_provider(self, base_url: str, **settings: Any) -> BaseLLMProvider:
        return OpenAIProvider(base_url=base_url, api="responses", **settings)

    def stream(self, wanted: Wanted) -> Reply:
        items = []
        if wanted.reasoning:
            items.append(reasoning_item("".join(wanted.reasoning)))
        if wanted.text:
            items.append(text_item(*wanted.text, index=len(items)))
        for call in wanted.tool_calls:
            arguments = call.arguments_json
            pieces = (arguments[:5], arguments[5:])
            items.append(call_item(call.id, call.name, *pieces, index=len(items)))
        status = "incomplete" if wanted.finish == "length" else "completed"
        why = {"reason": "max_output_tokens"} if wanted.finish == "length" else None
        usage = None if wanted.usage is None else usage_of(wanted.usage)
        last = response(status, usage=usage, incomplete_details=why)
        events = answer(*items, last={"type": f"response.{status}", "response": last})
        return Reply.sse([one(event) for event in events])

    def whole(self, wanted: Wanted) -> Reply | None:
        items = [text_item(*wanted.text)]
        return Reply.json(response(output=[item[-1]["item"] for item in items]))

    def error_inside(self, message: str) -> Reply | None:
        return Reply.sse([one({"type": "error", "code": "server_error", "message": message})])


def usage_of(usage: Usage) -> dict[str, Any]:
    read = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens}
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": read,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
