"""Servers of both dialects, as scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_manager.testing import Reply, ScriptedPeer


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer() as peer:
        yield peer


def chunk(content: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of an OpenAI stream."""
    delta = {"content": content} if content else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "small", "choices": [choice], **more}


def answer(*words: str, **how: Any) -> Reply:
    """A whole OpenAI stream."""
    return Reply.sse([*(chunk(w) for w in words), chunk(finish="stop"), "[DONE]"], **how)


def models(*ids: str) -> Reply:
    """An OpenAI model list."""
    return Reply.json({"object": "list", "data": [{"id": i, "object": "model"} for i in ids]})
