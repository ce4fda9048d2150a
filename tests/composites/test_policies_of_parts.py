"""Budgets and caches of a composite hold for its members, where the requests really are sent."""

from __future__ import annotations

import pytest

from llm_manager import (
    BudgetExceededError,
    BudgetPolicy,
    CachePolicy,
    FallbackProvider,
    InMemoryTraceProvider,
    LLMProviderManager,
    RecentRequests,
    RetryPolicy,
    Tracing,
)
from tests.helpers import echo

SAME = {"temperature": 0}


async def test_a_budget_of_the_manager_blocks_what_a_composite_would_send() -> None:
    budget = BudgetPolicy(max_tokens_per_request=10)
    async with LLMProviderManager() as manager:
        manager.add_policy(budget)
        manager.register_provider(FallbackProvider([echo(id="a"), echo(id="b")], id="team"))
        with pytest.raises(BudgetExceededError):
            await manager.generate_completion("team/echo", "word " * 50)


async def test_a_request_through_a_composite_is_counted_once() -> None:
    budget = BudgetPolicy(max_tokens_per_day=1_000_000)
    async with LLMProviderManager() as manager:
        own = manager.register_provider(echo(id="a"))
        manager.register_provider(FallbackProvider([own, echo(id="b")], id="team"))
        manager.add_policy(budget)
        response = await manager.generate_completion("team/echo", "one two three")
    assert response.usage is not None
    assert budget.spent.tokens == response.usage.total_tokens


@pytest.mark.parametrize("given", ["constructor", "added", "manager"])
async def test_a_cache_of_a_composite_gives_an_answer_again(given: str) -> None:
    cache = CachePolicy()
    members = [echo(id="a"), echo(id="b")]
    team = FallbackProvider(members, id="team", policies=[cache] if given == "constructor" else [])
    async with LLMProviderManager() as manager:
        if given == "manager":
            manager.add_policy(cache)
        manager.register_provider(team)
        if given == "added":
            team.add_policy(cache)
        first = await team.generate_completion("echo", "hello", options=SAME)
        second = await team.generate_completion("echo", "hello", options=SAME)
    assert (first.cached, second.cached) == (False, True)
    assert second.answered_by == "a"
    assert cache.stats.hits == 1


async def test_the_retries_of_a_member_are_events_of_its_span_within_that_of_the_whole() -> None:
    service, local = echo(id="service"), echo(id="local")
    spans = InMemoryTraceProvider()
    async with LLMProviderManager() as manager:
        manager.register_provider(FallbackProvider([service, local], id="team"))
        await manager.connect_all()
        service.go_offline()
        with Tracing(spans).attach(manager):
            retries = {"attempts": 2, "wait_s": 0}
            await manager.generate_completion("team/echo", "hi", options={"retries": retries})
    failed, answered, whole = spans.spans
    assert [event.name for event in failed.events] == ["llm_manager.retry"]
    assert failed.attributes["llm_manager.provider_id"] == "service"
    assert answered.attributes["llm_manager.provider_id"] == "local"
    assert {failed.parent_id, answered.parent_id} == {whole.span_id}


async def test_the_content_of_a_part_is_kept_like_that_of_the_whole() -> None:
    async with LLMProviderManager() as manager:
        manager.register_provider(FallbackProvider([echo(id="a")], id="team"))
        with RecentRequests(content=True).attach(manager) as recent:
            await manager.generate_completion("team/echo", "hello there")
    assert [record.answer for record in recent.snapshot().requests] == ["hello there"] * 2


async def test_policies_that_are_removed_from_a_composite_leave_its_members() -> None:
    cache, member = CachePolicy(), echo(id="a")
    team = FallbackProvider([member], id="team")
    team.add_policy(cache)
    assert cache in member._added
    team.remove_policy(cache)
    assert member._added == ()
    await team.close()


async def test_other_policies_of_a_composite_stay_around_the_composite() -> None:
    retry, member = RetryPolicy(), echo(id="a")
    team = FallbackProvider([member], id="team", policies=[retry])
    team.add_policy(RetryPolicy())
    assert member._added == ()
    await team.close()
