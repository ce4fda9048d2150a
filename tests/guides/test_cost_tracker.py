"""Cost tracker: what each model has cost, by prices that are public or that one states."""

from __future__ import annotations

import pytest

from llm_manager import CostTracker, LLMProviderManager, ModelPrice, PriceBook, create_llm

PRICES = {
    "echo/gpt-4": ModelPrice(input_usd=30.0, output_usd=60.0),
    "echo/claude-3": ModelPrice(input_usd=15.0, output_usd=75.0),
}


async def test_the_costs_of_every_request_are_added_up() -> None:
    manager = LLMProviderManager()
    costs = CostTracker(PriceBook(PRICES)).attach(manager)
    models = ["gpt-4", "claude-3", "private"]
    llm = create_llm("echo", manager=manager, models=models, words_per_s=float("inf"))
    await llm.generate_async("one two three", model="gpt-4")
    await llm.generate_async("one two three", model="claude-3")
    await llm.generate_async("one two three", model="private")
    await costs.settle()
    gpt_4, claude_3 = 3 * 90e-6, 3 * 90e-6
    assert costs.total_usd == pytest.approx(gpt_4 + claude_3)
    assert costs.unknown_requests == 1  # a price that nobody knows is not 0
    by_model = {each.model: each for each in costs.snapshot().models}
    assert set(by_model) == set(models)
    await manager.close()


async def test_usage_of_elsewhere_is_recorded_by_hand() -> None:
    costs = CostTracker(PriceBook(PRICES, public=False))
    costs.record_usage("echo/gpt-4", prompt_tokens=1000, completion_tokens=500)
    await costs.settle()
    assert costs.total_usd == pytest.approx(0.03 + 0.03)


async def test_public_prices_are_known_without_a_table() -> None:
    costs = CostTracker()
    costs.record_usage("openai/gpt-4", prompt_tokens=1000, completion_tokens=1000)
    await costs.settle()
    assert costs.total_usd > 0
    assert costs.unknown_requests == 0
