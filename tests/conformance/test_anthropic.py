"""Anthropic's Messages API does what providers promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llm_manager import AnthropicProvider, BaseLLMProvider, QuotaExceededError
from llm_manager.testing import ProviderConformance, Reply, Wanted

from ..wire.anthropic_events import (
    STOP,
    begin,
    call_block,
    end,
    finish,
    one,
    say,
    start,
    thinking_block,
)

pytest.importorskip("anthropic")

REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class TestAnthropic(ProviderConformance):
    model = "claude-opus-4-6"
    base_path = ""
    chat_path = "/v1/messages"
    count_path = "/v1/messages/count_tokens"
    usage_details = ("cached_tokens", "cache_write_tokens")
    keep_alive = b'event: ping\ndata: {"type": "ping"}\n\n'

    def make_provider(self, base_url: str, **settings: Any) -> BaseLLMProvider:
        return AnthropicProvider(base_url=base_url, **settings)

    def stream(self, wanted: Wanted) -> Reply:
        events: list[dict[str, Any]] = []
        if wanted.reasoning:
            events += thinking_block(*wanted.reasoning)
        if wanted.text:
            place = int(bool(wanted.reasoning))
            events += [begin(place, "text", text="")]
            events += [say(piece, place) for piece in wanted.text]
            events += [end(place)]
        for place, call in enumerate(wanted.tool_calls, 2):
            arguments = call.arguments_json
            events += call_block(call.id, call.name, arguments[:5], arguments[5:], index=place)
        opened, closed = start(), finish(REASONS[wanted.finish])
        if (usage := wanted.usage) is not None:
            read = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
            opened = start(
                input_tokens=read,
                cache_read_input_tokens=usage.cached_tokens,
                cache_creation_input_tokens=usage.cache_write_tokens,
                output_tokens=1,
            )
            closed = finish(REASONS[wanted.finish], output_tokens=usage.completion_tokens)
        return Reply.sse([one(event) for event in [opened, *events, closed, STOP]])

    def models(self, ids: Sequence[str]) -> Reply:
        data = [{"type": "model", "id": id, "display_name": id} for id in ids]
        return Reply.json({"data": data, "has_more": False, "last_id": ids[-1]})

    def error(self, status: int, message: str) -> Reply:
        types = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
                 413: "request_too_large", 429: "rate_limit_error", 500: "api_error",
                 529: "overloaded_error"}  # fmt: skip
        kind = types.get(status, "invalid_request_error" if status < 500 else "api_error")
        error = {"type": "error", "error": {"type": kind, "message": message}}
        return Reply.json(error, status=status)

    def error_inside(self, message: str) -> Reply | None:
        error = {"type": "error", "error": {"type": "api_error", "message": message}}
        return Reply.sse([one(error)])

    def counted(self, tokens: int) -> Reply | None:
        return Reply.json({"input_tokens": tokens})

    def errors(self):
        return {QuotaExceededError: self.error(400, "Your credit balance is too low to go on")}
