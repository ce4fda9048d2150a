"""Providers without a server do what providers promise."""

from __future__ import annotations

import math

from llm_manager import EchoAnswer, EchoProvider, ProviderConnectionError
from llm_manager.testing import InProcessConformance, ScriptedProvider, Wanted


class TestEcho(InProcessConformance):
    model = "echo"

    def make_provider(self, **settings) -> EchoProvider:
        return EchoProvider(words_per_s=math.inf, **settings)

    def make_broken_provider(self, **settings) -> EchoProvider:
        provider = self.make_provider(**settings)
        provider.go_offline(ProviderConnectionError("refused", code="refused"))
        return provider

    def script(self, provider: EchoProvider, wanted: Wanted) -> bool:
        provider.script(EchoAnswer(text=wanted.whole_text, hang_after_words=wanted.hang_after))
        return True


class TestScripted(InProcessConformance):
    model = "scripted"

    def make_provider(self, **settings) -> ScriptedProvider:
        return ScriptedProvider(**settings)

    def script(self, provider: ScriptedProvider, wanted: Wanted) -> bool:
        if wanted.hang_after is None:
            provider.answer(wanted.whole_text)
        else:
            provider.hang(text=wanted.whole_text, after_words=wanted.hang_after)
        return True
