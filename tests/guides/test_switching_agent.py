"""Switching agent: one conversation, and the provider changes in the middle of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from llm_manager import (
    LLM,
    ChatSession,
    EchoAnswer,
    InvalidParameterError,
    PortabilityReport,
    ProviderNotFoundError,
    SwitchingProvider,
    create_llm,
    portability_report,
)

from ..helpers import echo
from ..test_create_llm import add, asks_to_add, last_request, script


class ProviderSwitchingAgent:
    """Talks to one of its models.

    Args:
        llms: by name.
        default: which one it begins with.
    """

    def __init__(self, llms: Mapping[str, LLM], default: str) -> None:
        self.llms = llms
        self.current = default
        self.session: ChatSession = llms[default].chat("Be brief.")

    async def process_message(self, text: str) -> str:
        return await self.session.send_async(text)

    def switch_provider(self, name: str) -> PortabilityReport:
        """Go on with another one; tells what of the conversation it will not understand."""
        if name not in self.llms:
            raise InvalidParameterError(f"there is no provider {name!r}")
        target = self.llms[name]
        report = portability_report(self.session.messages, target.provider, model=target.model_name)
        self.session = target.chat(messages=self.session.messages)
        self.current = name
        return report


@pytest.fixture
async def llms() -> AsyncIterator[dict[str, LLM]]:
    made = {
        name: create_llm("echo", id=name, words_per_s=float("inf"))
        for name in ("openai", "anthropic")
    }
    yield made
    for llm in made.values():
        await llm.aclose()


async def test_the_conversation_goes_on_with_another_provider(llms: dict[str, LLM]) -> None:
    agent = ProviderSwitchingAgent(llms, "openai")
    script(llms["openai"], EchoAnswer(text="Hello Ada."))
    await agent.process_message("I am Ada.")
    agent.switch_provider("anthropic")
    script(llms["anthropic"], EchoAnswer(text="Ada."))
    assert await agent.process_message("Who am I?") == "Ada."
    assert agent.current == "anthropic"
    assert [message.text for message in last_request(llms["anthropic"]).messages] == [
        "Be brief.", "I am Ada.", "Hello Ada.", "Who am I?",
    ]  # fmt: skip


async def test_what_the_new_one_cannot_understand_is_told(llms: dict[str, LLM]) -> None:
    agent = ProviderSwitchingAgent(llms, "openai")
    script(llms["openai"], asks_to_add(), EchoAnswer(text="3"))
    await agent.session.send_async("1 + 2?", tools=[add])
    report = agent.switch_provider("anthropic")
    assert isinstance(report, PortabilityReport)
    assert report.lossless


async def test_a_provider_that_is_not_there_changes_nothing(llms: dict[str, LLM]) -> None:
    agent = ProviderSwitchingAgent(llms, "openai")
    with pytest.raises(InvalidParameterError, match="no provider 'groq'"):
        agent.switch_provider("groq")
    assert agent.current == "openai"


# ---- the same as a provider ----------------------------------------------------------------------


async def test_a_provider_that_switches_is_used_like_any_other() -> None:
    members = {name: echo(id=name) for name in ("openai", "anthropic")}
    switching = SwitchingProvider(members.values(), current="openai")
    async with create_llm(switching) as llm:
        chat = llm.chat("Be brief.")
        await chat.send_async("I am Ada.")
        report = switching.switch_provider("anthropic", history=chat.messages)
        assert report.lossless
        await chat.send_async("Who am I?")
        assert switching.current is members["anthropic"]
        with pytest.raises(ProviderNotFoundError, match="'groq'"):
            switching.switch_provider("groq")
    assert len(members["openai"].requests) == 1
    (request,) = members["anthropic"].requests
    assert [message.text for message in request.messages] == [
        "Be brief.", "I am Ada.", "I am Ada.", "Who am I?",
    ]  # fmt: skip
    await switching.close()
