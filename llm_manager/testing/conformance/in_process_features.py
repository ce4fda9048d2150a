"""Checks of features of a provider without a server."""

from __future__ import annotations

from typing import Any

from ...errors import UnsupportedFeatureError
from ...messages import Capability, FilePart, ImagePart, LLMMessage, ToolDefinition
from ...provider import BaseLLMProvider
from .base import InProcessKit
from .expect import expect, raises
from .stage import Stage, check

_IMAGE = ImagePart(data=b"\x89PNG planted", media_type="image/png")
_FILE = FilePart(data=b"%PDF-1.4 planted", media_type="application/pdf")
_ASKING: dict[Capability, dict[str, Any]] = {
    "tools": {"options": {"tools": [ToolDefinition(name="look_up")]}},
    "json_object": {"options": {"response_format": "json_object"}},
    "vision": {"messages": [LLMMessage.user("What is it?", _IMAGE)]},
    "files": {"messages": [LLMMessage.user("What is it?", _FILE)]},
}


class InProcessFeatureChecks(InProcessKit):
    """What it claims is taken, what it does not claim is refused before anything begins."""

    @check
    async def test_what_it_does_not_claim_is_refused(self, stage: Stage) -> None:
        provider = stage.make()
        for capability, asking in _ASKING.items():
            if capability not in provider.capabilities:
                with raises(UnsupportedFeatureError, f"{capability} is not in its capabilities"):
                    await self._asked(provider, **asking)
        if "fim" not in provider.capabilities:
            with raises(UnsupportedFeatureError, "fim is not in its capabilities"):
                await provider.generate_fim(self.model, "before", "behind")
        if "embeddings" not in provider.capabilities:
            with raises(UnsupportedFeatureError, "embeddings is not in its capabilities"):
                await provider.embed(self.model, "one")
        begun = len(stage.events_of(provider).named("requestStarted"))
        expect(begun == 0, f"{begun} requests began although what they asked for is refused")

    @check
    async def test_what_it_claims_is_taken(self, stage: Stage) -> None:
        provider = stage.make()
        for capability, asking in _ASKING.items():
            if capability in provider.capabilities:
                stage.plays(provider, self.wanted)
                await self._asked(provider, **asking)

    async def _asked(self, provider: BaseLLMProvider, **asking: Any) -> None:
        messages = asking.get("messages", self.prompt)
        await provider.generate_chat_completion(self.model, messages, options=asking.get("options"))
