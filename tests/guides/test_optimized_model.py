"""Optimized model: the same question is asked once, and answered from a cache after that."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llm_manager import LLM, CachePolicy, EchoProvider, LLMMessage, LLMProviderManager, create_llm

from ..helpers import Record

MESSAGES = [LLMMessage.user("Why is the sky blue?")]


@pytest.fixture
async def llm() -> AsyncIterator[LLM]:
    async with create_llm("echo", words_per_s=float("inf"), temperature=0) as made:
        yield made


def sent(llm: LLM) -> int:
    assert isinstance(llm.provider, EchoProvider)
    return len(llm.provider.requests)


async def test_the_second_answer_comes_from_the_cache(llm: LLM) -> None:
    cache = CachePolicy(max_entries=1000)
    llm.provider.add_policy(cache)
    model = llm.model()
    first = await model.generate_response(MESSAGES)
    second = await model.generate_response(MESSAGES)
    assert (first.cached, second.cached) == (False, True)
    assert first.text == second.text
    assert sent(llm) == 1
    assert (cache.stats.hits, cache.stats.misses) == (1, 1)


async def test_it_serves_text_streams_and_threads_as_well(llm: LLM) -> None:
    llm.provider.add_policy(CachePolicy())
    texts = [await llm.generate_async("Why?"), llm.generate("Why?")]
    texts.append("".join(llm.generate("Why?", stream=True)))
    assert texts == ["Why?"] * 3
    assert sent(llm) == 1
    assert llm.last_response is not None
    assert llm.last_response.cached


async def test_another_question_or_another_parameter_is_asked(llm: LLM) -> None:
    llm.provider.add_policy(CachePolicy())
    llm.generate("Why?")
    llm.generate("How?")
    llm.generate("Why?", max_tokens=5)
    llm.generate("Why?", system_prompt="Be brief.")
    assert sent(llm) == 4


async def test_what_may_differ_each_time_is_asked_each_time_unless_told(llm: LLM) -> None:
    llm.provider.add_policy(CachePolicy())
    for _ in range(2):
        llm.generate("Why?", temperature=0.9)
    assert sent(llm) == 2
    for _ in range(2):
        llm.generate("Why?", temperature=0.9, response_cache="use")
    assert sent(llm) <= 3


async def test_the_oldest_answers_make_room(llm: LLM) -> None:
    llm.provider.add_policy(CachePolicy(max_entries=2))
    for question in ("one", "two", "three", "one"):
        llm.generate(question)
    assert sent(llm) == 4


async def test_a_hit_is_told_by_the_events() -> None:
    manager = LLMProviderManager()
    manager.add_policy(CachePolicy())
    record = Record(manager)
    llm = create_llm("echo", manager=manager, words_per_s=float("inf"), temperature=0)
    for _ in range(2):
        await llm.generate_async("Why?")
    assert [event.cached for event in record.named("requestFinished")] == [False, True]
    await manager.close()
