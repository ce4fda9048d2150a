"""How checks of features ask, and what they expect of a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from ...errors import UnsupportedFeatureError
from ...messages import Capability, LLMResponse
from ...provider import BaseLLMProvider
from .base import HttpKit
from .expect import expect, raises
from .stage import Stage


class AskingChecks(HttpKit):
    """Small things that checks of features are made of."""

    async def _ask(self, provider: BaseLLMProvider, options: dict[str, Any]) -> LLMResponse:
        return await provider.generate_completion(self.model, self.prompt, options=options)

    async def _is_refused(
        self,
        stage: Stage,
        provider: BaseLLMProvider,
        capability: Capability,
        options: dict[str, Any],
    ) -> bool:
        if capability in provider.capabilities:
            return False
        stage.plays(provider, self.wanted)
        with raises(UnsupportedFeatureError, f"{capability} is not in its capabilities"):
            await self._ask(provider, options)
        self._expect_unsent(stage, capability)
        return True

    def _expect_unsent(self, stage: Stage, what: str) -> None:
        sent = len(stage.server.questions)
        expect(sent == 0, f"{what}: it is refused, but {sent} requests were sent before")

    def _needs(self, provider: BaseLLMProvider, capability: Capability) -> None:
        if capability not in provider.capabilities:
            pytest.skip(f"it does not claim {capability}")
