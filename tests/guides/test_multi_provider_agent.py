"""Multi-provider agent: several models are asked at once, and their answers become one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from llm_manager import (
    LLM,
    EchoAnswer,
    LLMMessage,
    LLMModel,
    MultiProvider,
    RateLimitError,
    create_llm,
    gather_with_concurrency,
)

from ..helpers import Record, echo
from ..test_create_llm import script

QUESTION = [LLMMessage.user("What is the capital of Norway?")]


class MultiProviderAgent:
    """Asks all of its models.

    Args:
        models: by name.
        limit: how many are asked at the same time.
    """

    def __init__(self, models: Mapping[str, LLMModel], limit: int = 3) -> None:
        self.models = models
        self.limit = limit

    async def process_message(self, messages: list[LLMMessage]) -> LLMMessage:
        responses = await gather_with_concurrency(
            limit=self.limit,
            tasks=[model.generate_response(messages) for model in self.models.values()],
        )
        named = zip(self.models, responses, strict=True)
        return LLMMessage.assistant("\n".join(f"{name}: {r.text}" for name, r in named))


@pytest.fixture
async def llms() -> AsyncIterator[dict[str, LLM]]:
    made = {
        name: create_llm("echo", id=name, words_per_s=float("inf"))
        for name in ("openai", "anthropic", "groq", "ollama")
    }
    yield made
    for llm in made.values():
        await llm.aclose()


def agent_of(llms: dict[str, LLM], limit: int = 3) -> MultiProviderAgent:
    return MultiProviderAgent({name: llm.model() for name, llm in llms.items()}, limit)


async def test_the_answers_of_all_become_one(llms: dict[str, LLM]) -> None:
    for name, llm in llms.items():
        script(llm, EchoAnswer(text=f"Oslo, says {name}."))
    answer = await agent_of(llms).process_message(QUESTION)
    assert answer.role == "assistant"
    assert answer.text.splitlines() == [f"{name}: Oslo, says {name}." for name in llms]


async def test_no_more_are_asked_at_once_than_allowed(llms: dict[str, LLM]) -> None:
    record = Record(*(llm.provider for llm in llms.values()))
    await agent_of(llms, limit=2).process_message(QUESTION)
    running = most = 0
    for event in record:
        running += {"requestStarted": 1, "requestFinished": -1}.get(event.name, 0)
        most = max(most, running)
    assert (running, most) == (0, 2)


async def test_when_one_fails_the_others_are_ended(llms: dict[str, LLM]) -> None:
    *slow, last = llms.values()
    for llm in slow:
        script(llm, EchoAnswer(hang_after_words=0))
    script(last, EchoAnswer(error=RateLimitError("slow down", retryable=False)))
    with pytest.raises(RateLimitError):
        await agent_of(llms, limit=4).process_message(QUESTION)
    assert all(llm.provider.status.in_flight == 0 for llm in llms.values())


async def test_failures_may_stand_among_the_answers(llms: dict[str, LLM]) -> None:
    first, *_ = llms.values()
    script(first, EchoAnswer(error=RateLimitError("slow down", retryable=False)))
    results = await gather_with_concurrency(
        2, [llm.generate_async("hello") for llm in llms.values()], return_exceptions=True
    )
    assert isinstance(results[0], RateLimitError)
    assert results[1:] == ["hello"] * 3


async def test_cancelling_the_agent_cancels_what_it_asked(llms: dict[str, LLM]) -> None:
    for llm in llms.values():
        script(llm, EchoAnswer(hang_after_words=0))
    record = Record(*(llm.provider for llm in llms.values()))
    task = asyncio.create_task(agent_of(llms, limit=4).process_message(QUESTION))
    await record.wait_for("requestStarted", 4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(llm.provider.status.in_flight == 0 for llm in llms.values())


# ---- the same as a provider ----------------------------------------------------------------------


async def test_a_provider_that_asks_several_is_used_like_any_other() -> None:
    members = [echo(id=name) for name in ("openai", "anthropic", "groq")]
    for member in members:
        member.script(EchoAnswer(text=f"Oslo, says {member.id}."))
    async with create_llm(MultiProvider(members, limit=3)) as llm:
        text = await llm.generate_async("What is the capital of Norway?")
        assert all(f"Oslo, says {member.id}." in text for member in members)
        await llm.provider.close()


async def test_how_the_answers_become_one_is_a_word_or_a_function() -> None:
    members = [echo(id=name) for name in ("openai", "anthropic", "groq")]
    for member, text in zip(members, ("Oslo", "Bergen", "Oslo"), strict=True):
        member.script(EchoAnswer(text=text), EchoAnswer(text=text))
    multi = MultiProvider(members, combine="vote")
    async with create_llm(multi) as llm:
        assert await llm.generate_async("The capital of Norway?") == "Oslo"
        await multi.update_config(combine=lambda answers: " or ".join(a.text for a in answers))
        assert await llm.generate_async("The capital?") == "Oslo or Bergen or Oslo"
    await multi.close()
