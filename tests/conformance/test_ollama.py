"""Ollama's own API does what providers promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_manager import BaseLLMProvider, OllamaProvider, Usage
from llm_manager.testing import ProviderConformance, Reply, Wanted


def said(content: str = "", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"model": "model-1", "message": message, "done": False}


class TestOllama(ProviderConformance):
    base_path = ""
    chat_path = "/api/chat"
    fim_path = "/api/generate"
    embeddings_path = "/api/embed"
    models_path = "/api/tags"
    usage_details = ()
    keep_alive = None

    def make_provider(self, base_url: str, **settings: Any) -> BaseLLMProvider:
        return OllamaProvider(base_url=base_url, **settings)

    def stream(self, wanted: Wanted) -> Reply:
        calls = [
            {"function": {"name": call.name, "arguments": call.arguments}}
            for call in wanted.tool_calls
        ]
        lines = [said(thinking=piece) for piece in wanted.reasoning]
        lines += [said(piece) for piece in wanted.text]
        lines += [said(tool_calls=[call]) for call in calls]
        reason = "length" if wanted.finish == "length" else "stop"
        end = {**said(), "done": True, "done_reason": reason}
        if wanted.usage is not None:
            end["prompt_eval_count"] = wanted.usage.prompt_tokens
            end["eval_count"] = wanted.usage.completion_tokens
        return Reply.ndjson([*lines, end])

    def whole(self, wanted: Wanted) -> Reply | None:
        return Reply.json({**said(wanted.whole_text), "done": True, "done_reason": "stop"})

    def fim(self, wanted: Wanted) -> Reply | None:
        lines = [{"model": "model-1", "response": piece, "done": False} for piece in wanted.text]
        end = {"model": "model-1", "response": "", "done": True, "done_reason": "stop"}
        return Reply.ndjson([*lines, end])

    def embeddings(self, vectors: Sequence[Sequence[float]], usage: Usage) -> Reply | None:
        return Reply.json(
            {
                "model": "model-1",
                "embeddings": [list(vector) for vector in vectors],
                "prompt_eval_count": usage.prompt_tokens,
            }
        )

    def models(self, ids: Sequence[str]) -> Reply:
        return Reply.json({"models": [{"name": id, "model": id, "size": 1} for id in ids]})

    def routes(self) -> Mapping[str, Any]:
        shown = {
            "details": {"family": "llama"},
            "model_info": {"general.architecture": "llama", "llama.context_length": 4096},
            "capabilities": [
                "completion",
                "tools",
                "thinking",
                "vision",
                "insert",
                "embedding",
            ],
        }
        return {"/api/ps": Reply.json({"models": []}), "/api/show": Reply.json(shown)}

    def error(self, status: int, message: str) -> Reply:
        return Reply.json({"error": message}, status=status)

    def error_inside(self, message: str) -> Reply | None:
        return Reply.ndjson([{"error": message}])
