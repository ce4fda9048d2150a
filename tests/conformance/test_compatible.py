"""Servers of the OpenAI dialect do what providers promise."""

from __future__ import annotations

from dataclasses import replace

from llm_manager import (
    BaseLLMProvider,
    ContextWindowExceededError,
    GroqProvider,
    ModelNotFoundError,
    OpenAICompatibleProvider,
    QuotaExceededError,
    Row,
)
from llm_manager.testing import ProviderConformance, Reply, Request, Wanted

from .openai_wire import OpenAIWire, chunk, usage_of


class TestCompatible(OpenAIWire, ProviderConformance):
    def make_provider(self, base_url: str, **settings) -> BaseLLMProvider:
        return OpenAICompatibleProvider(base_url=base_url, **settings)

    def errors(self):
        def refused(status: int, code: str) -> Reply:
            return Reply.json({"error": {"message": "no", "code": code}}, status=status)

        return {
            ContextWindowExceededError: refused(400, "context_length_exceeded"),
            QuotaExceededError: refused(429, "insufficient_quota"),
            ModelNotFoundError: refused(404, "model_not_found"),
        }


class TestGroq(OpenAIWire, ProviderConformance):
    """Usage comes in a field of its own, and answers in JSON are not streamed."""

    base_path = "/openai/v1"
    chat_path = "/openai/v1/chat/completions"
    models_path = "/openai/v1/models"

    def make_provider(self, base_url: str, **settings) -> BaseLLMProvider:
        return GroqProvider(base_url=base_url, **settings)

    def stream(self, wanted: Wanted) -> Reply:
        events = self.events(replace(wanted, usage=None))
        if wanted.usage is not None:
            events.append({**chunk(), "choices": [], "x_groq": {"usage": usage_of(wanted.usage)}})
        return Reply.sse([*events, "[DONE]"])


class TestListless(OpenAIWire, ProviderConformance):
    """A service without a model list, which is proven by a question that cannot be one."""

    models_path = None

    def make_provider(self, base_url: str, **settings) -> BaseLLMProvider:
        row = Row(id="listless", name="Listless", models_path=None, models=(self.model,))
        return OpenAICompatibleProvider(base_url=base_url, row=row, **settings)

    def is_probe(self, request: Request) -> bool:
        return request.body == b"[]"

    def routes(self):
        return {self.chat_path: self.error(422, "this is no question")}
