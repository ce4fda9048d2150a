"""Each row does what the table of features says, and refuses the rest before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from posixpath import normpath
from typing import Any
from urllib.parse import urlsplit

from llm_manager import BaseLLMProvider, OpenAICompatibleProvider, Row
from llm_manager.providers.rows import ROWS
from llm_manager.testing import ProviderConformance, Reply, Request, Wanted
from llm_manager.testing.conformance import FeatureChecks, OperationChecks

from .openai_wire import OpenAIWire, chunk

FIM_PATHS = {
    "mistral": "/fim/completions",
    "completions": "/completions",
    "llamacpp": "/../infill",
}


class RowChecks(OpenAIWire, FeatureChecks, OperationChecks):
    """What a row claims, on a server that speaks its dialect."""

    row: Row

    def make_provider(self, base_url: str, **settings: Any) -> BaseLLMProvider:
        return OpenAICompatibleProvider(row=self.row, base_url=base_url, **settings)

    def fim(self, wanted: Wanted) -> Reply | None:
        if self.row.fim == "llamacpp":
            lines = [{"content": piece, "stop": False} for piece in wanted.text]
            return Reply.sse([*lines, {"content": "", "stop": True, "stop_type": "eos"}])
        if self.row.fim == "completions":
            pieces = [self.completion(piece) for piece in wanted.text]
            return Reply.sse([*pieces, self.completion("", "stop"), "[DONE]"])
        return Reply.sse([*(chunk(content=piece) for piece in wanted.text), chunk("stop")])

    def completion(self, text: str, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "finish_reason": finish}
        return {"id": "cmpl-1", "model": "model-1", "choices": [choice]}

    def is_probe(self, request: Request) -> bool:
        return request.body == b"[]"

    def routes(self) -> Mapping[str, Any]:
        answers = {self.chat_path: self.error(422, "this is no question")}
        if self.row.details_path is not None:
            answers[_path(self.row, self.row.details_path)] = self.models([self.model])
        return answers

    def key_header_of(self, request: Request) -> str | None:
        details = self.row.details_path and _path(self.row, self.row.details_path)
        if self.row.details_key_header and request.path.partition("?")[0] == details:
            return self.row.details_key_header.lower()
        return self.key_header

    test_the_key_goes_into_its_header = (
        ProviderConformance.test_the_key_goes_into_its_header_and_nowhere_else
    )


def class_name(id: str) -> str:
    return f"TestRow_{id.replace('-', '_')}"


def _path(row: Row, below: str) -> str:
    """Where the server is asked for something ``below`` the row's address."""
    base = urlsplit(row.base_url or "http://127.0.0.1/v1").path
    return normpath(f"{base}{below.partition('?')[0]}")


def _class(row: Row) -> type[RowChecks]:
    facts: dict[str, Any] = {"row": row, "__module__": __name__}
    facts["base_path"] = urlsplit(row.base_url or "http://127.0.0.1/v1").path
    facts["chat_path"] = _path(row, "/chat/completions")
    facts["embeddings_path"] = _path(row, "/embeddings")
    facts["fim_path"] = _path(row, row.fim_path or FIM_PATHS[row.fim]) if row.fim else None
    facts["models_path"] = _path(row, row.models_path) if row.models_path else None
    if row.key_header is not None:
        facts |= {"key_header": row.key_header.lower(), "key_prefix": ""}
    return type(class_name(row.id), (RowChecks,), facts)


for _row in ROWS.values():
    globals()[class_name(_row.id)] = _class(_row)
