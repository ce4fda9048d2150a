"""The SDK of a service that does not exist, for providers that are written by hand.

It answers with what it was asked, and fails on request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

RIGHT_KEY = "myservice-key-0123456789"


class MyServiceError(Exception):
    """Base of what the SDK raises."""


class MyServiceAuthError(MyServiceError):
    pass


class MyServiceRateLimitError(MyServiceError):
    retry_after_s = 2.0


class MyServiceTimeoutError(MyServiceError):
    pass


class MyServiceConnectionError(MyServiceError):
    pass


class MyServiceContextLimitError(MyServiceError):
    pass


class MyServiceInvalidRequestError(MyServiceError):
    pass


@dataclass
class Chunk:
    """A piece of an answer."""

    text: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)


class MyServiceClient:
    """The client of the SDK.

    Args:
        api_key: has to be `RIGHT_KEY`.
        api_base: where the service is.
    """

    calls: list[dict[str, Any]]
    """What clients were asked, oldest first; of all clients of a test."""

    def __init__(self, api_key: str, api_base: str) -> None:
        self.api_key, self.api_base = api_key, api_base
        self.closed = False

    async def models(self) -> list[str]:
        """Ids of the models."""
        self._check_key()
        return ["default-model", "large-model"]

    async def stream(self, **asked: Any) -> AsyncIterator[Chunk]:
        """An answer, word by word."""
        self._check_key()
        self.calls.append(asked)
        last = asked["messages"][-1]
        content = last["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        if isinstance(text, str) and text.startswith("fail with "):
            raise globals()[text.removeprefix("fail with ")](f"no, {self.api_key} must not do that")
        if asked.get("tools") and last["role"] == "user":
            tool = asked["tools"][0]
            yield Chunk(tool_calls=[{"name": tool["name"], "arguments": {"town": "Oslo"}}])
            return
        for word in f"Response from {asked['model']} for prompt: {text}".split():
            await asyncio.sleep(0)
            yield Chunk(f"{word} ")

    async def close(self) -> None:
        self.closed = True

    def _check_key(self) -> None:
        if self.api_key != RIGHT_KEY:
            raise MyServiceAuthError(f"{self.api_key} is not a key")
