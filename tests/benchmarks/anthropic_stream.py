"""Contestants for Anthropic's dialect, and the answer that the server plays for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

MESSAGES = [{"role": "user", "content": "go"}]
MODEL = "claude-opus-4-6"


def event(document: dict[str, Any]) -> bytes:
    """One event as the vendor sends it, about 140 bytes for a piece of text."""
    return f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode()


_USAGE = {"input_tokens": 5, "output_tokens": 1}
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": _USAGE}  # fmt: skip
FIRST = event({"type": "message_start", "message": _MESSAGE}) + event(
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
)
WORD = event({"type": "content_block_delta", "index": 0,
              "delta": {"type": "text_delta", "text": " word"}})  # fmt: skip
LAST = (
    event({"type": "content_block_stop", "index": 0})
    + event({"type": "message_delta", "usage": {"output_tokens": 9},
             "delta": {"stop_reason": "end_turn", "stop_sequence": None}})
    + event({"type": "message_stop"})
)  # fmt: skip


async def raw(url: str, chunks: int) -> AsyncIterator[str]:
    """httpx2 and json, as one writes it by hand."""
    global _client
    import httpx2

    if _client is None:
        _client = httpx2.AsyncClient(timeout=None)
    body = {"model": MODEL, "messages": MESSAGES, "stream": True, "max_tokens": chunks}
    async with _client.stream("POST", f"{url}/v1/messages", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:]).get("delta", {}).get("text", "")


async def ours(url: str, chunks: int) -> AsyncIterator[str]:
    """This library: manager, default policies, one listener on the status."""
    global _manager
    from llm_manager import LLMProviderManager

    if _manager is None:
        _manager = LLMProviderManager()
        provider = _manager.register_provider("anthropic", base_url=url, api_key="none")
        provider.subscribe(lambda event: None)
    options = {"max_tokens": chunks}
    async for each in _manager.stream_chat_completion(f"anthropic/{MODEL}", MESSAGES, options):
        yield each.text


async def sdk(url: str, chunks: int) -> AsyncIterator[str]:
    """The official SDK's own stream."""
    global _sdk
    from anthropic import AsyncAnthropic

    if _sdk is None:
        _sdk = AsyncAnthropic(base_url=url, api_key="none", max_retries=0)
    stream = await _sdk.messages.create(
        model=MODEL, messages=MESSAGES, stream=True, max_tokens=chunks
    )
    async for each in stream:
        if each.type == "content_block_delta":
            yield each.delta.text


_client = _manager = _sdk = None

CONTESTANTS = {"anthropic-raw": raw, "anthropic-ours": ours, "anthropic": sdk}
