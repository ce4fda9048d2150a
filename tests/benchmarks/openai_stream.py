"""Contestants for OpenAI's two APIs, and the answer that the server plays for the newer one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

MESSAGES = [{"role": "user", "content": "go"}]
CHAT_MODEL, REASONING_MODEL = "gpt-4.1", "gpt-5"


def event(document: dict[str, Any]) -> bytes:
    """One event as the vendor sends it, about 230 bytes for a piece of text."""
    return f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode()


_PLACE = {"item_id": "msg_0123456789abcdefghijklmnop", "output_index": 0, "content_index": 0}
_ITEM = {"id": _PLACE["item_id"], "type": "message", "status": "in_progress", "content": [],
         "role": "assistant"}  # fmt: skip
_ANSWER = {"id": "resp_1", "object": "response", "created_at": 1790000000, "error": None,
           "incomplete_details": None, "instructions": None, "metadata": {}, "output": [],
           "model": REASONING_MODEL, "parallel_tool_calls": True, "temperature": 1.0,
           "tool_choice": "auto", "tools": [], "top_p": 1.0}  # fmt: skip
_USAGE = {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 9,
          "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 14}  # fmt: skip
FIRST = event(
    {"type": "response.created", "response": {**_ANSWER, "status": "in_progress"}}
) + event({"type": "response.output_item.added", "output_index": 0, "item": _ITEM})
WORD = event({"type": "response.output_text.delta", **_PLACE, "delta": " word", "logprobs": [],
              "sequence_number": 7, "obfuscation": "0123456789"})  # fmt: skip
LAST = event({"type": "response.output_item.done", "output_index": 0,
              "item": {**_ITEM, "status": "completed"}}) + event(
    {"type": "response.completed",
     "response": {**_ANSWER, "status": "completed", "usage": _USAGE}}
)  # fmt: skip


async def _ours(url: str, chunks: int, model: str) -> AsyncIterator[str]:
    """This library: manager, default policies, one listener on the status."""
    global _manager
    from llm_manager import LLMProviderManager

    if _manager is None:
        _manager = LLMProviderManager()
        provider = _manager.register_provider("openai", base_url=url, api_key="none")
        provider.subscribe(lambda event: None)
    options = {"max_tokens": chunks}
    async for each in _manager.stream_chat_completion(f"openai/{model}", MESSAGES, options):
        yield each.text


def ours(url: str, chunks: int) -> AsyncIterator[str]:
    return _ours(url, chunks, CHAT_MODEL)


def ours_responses(url: str, chunks: int) -> AsyncIterator[str]:
    return _ours(url, chunks, REASONING_MODEL)


def _client(url: str) -> Any:
    global _sdk
    from openai import AsyncOpenAI

    if _sdk is None:
        _sdk = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    return _sdk


async def sdk(url: str, chunks: int) -> AsyncIterator[str]:
    """The official SDK's own stream of chat completions."""
    stream = await _client(url).chat.completions.create(
        model=CHAT_MODEL, messages=MESSAGES, stream=True, max_tokens=chunks
    )
    async for chunk in stream:
        if chunk.choices:
            yield chunk.choices[0].delta.content or ""


async def sdk_responses(url: str, chunks: int) -> AsyncIterator[str]:
    """The official SDK's own stream of the Responses API."""
    stream = await _client(url).responses.create(
        model=REASONING_MODEL, input=MESSAGES, stream=True, max_output_tokens=chunks
    )
    async for each in stream:
        if each.type == "response.output_text.delta":
            yield each.delta


_manager = _sdk = None

CONTESTANTS = {
    "openai-ours": ours,
    "openai": sdk,
    "responses-ours": ours_responses,
    "responses": sdk_responses,
}
