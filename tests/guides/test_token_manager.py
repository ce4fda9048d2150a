"""Token manager: a budget of tokens that is asked before, told after, and begun anew."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llm_manager import LLM, LLMMessage, TokenManager, create_llm

MESSAGES = [LLMMessage.user("one two three")]


@pytest.fixture
async def llm() -> AsyncIterator[LLM]:
    async with create_llm("echo", words_per_s=float("inf")) as made:
        yield made


async def test_a_budget_is_asked_before_and_told_after(llm: LLM) -> None:
    model = llm.model()
    budget = TokenManager(model, max_tokens=20)
    assert await budget.can_process(MESSAGES)
    response = await model.generate_response(MESSAGES)
    budget.record_usage(
        prompt_tokens=await model.get_prompt_tokens(MESSAGES),
        completion_tokens=await model.get_completion_tokens(response),
    )
    assert budget.used_tokens > 3
    assert budget.left_tokens == 20 - budget.used_tokens
    budget.record_usage(budget.left_tokens)
    assert not await budget.can_process(MESSAGES)
    budget.reset()
    assert await budget.can_process(MESSAGES)


async def test_it_records_by_itself_what_a_provider_uses(llm: LLM) -> None:
    budget = TokenManager(llm.provider, max_tokens=1000, period_s="day").attach(llm.provider)
    await llm.generate_async("one two three")
    llm.generate("one two three")
    assert budget.used_tokens == 2 * (3 + 3)
    assert budget.resets_at is not None


async def test_a_text_is_counted_before_it_is_sent(llm: LLM) -> None:
    model = llm.model()
    budget = TokenManager(model, max_tokens=50)
    assert await budget.can_process("Why?")
    assert not await budget.can_process("Why? " * 100)
    assert not await budget.can_process(await model.count_tokens("Why? " * 100))
