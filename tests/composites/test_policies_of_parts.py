"""Budgets and caches of a composite hold for its members, where the requests really are sent."""

from __future__ import annotations

import pytest

from llm_manager import (
    BaseLLMProvider,
    BudgetExceededError,
    BudgetPolicy,
    CachePolicy,
    FallbackProvider,
    InMemoryTraceProvider,
    InvalidParameterError,
    LLMProviderManager,
    RecentRequests,
    RetryPolicy,
    Tracing,
)
from llm_manager.policy import Stage
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


def around(member: BaseLLMProvider) -> tuple[Stage, ...]:
    """The policies that were added to a member, by itself or by composites."""
    return tuple(getattr(stage, "core", stage) for stage in member._added)


async def test_a_budget_of_a_composite_holds_for_members_of_the_manager_too() -> None:
    budget = BudgetPolicy(max_tokens_per_request=10)
    async with LLMProviderManager() as manager:
        member = manager.register_provider(echo(id="a"))
        team = manager.register_provider(FallbackProvider([member], id="team"))
        team.add_policy(budget)
        with pytest.raises(BudgetExceededError):
            await team.generate_completion("echo", "hi", options={"max_tokens": 100})
        answer = await team.generate_completion("echo", "hi", options={"max_tokens": 1})
        assert budget.spent.tokens == answer.usage.total_tokens
        # What others ask the member is none of the composite's business.
        await member.generate_completion("echo", "hi", options={"max_tokens": 100})
        assert budget.spent.tokens == answer.usage.total_tokens


async def test_a_budget_of_the_manager_and_of_a_composite_counts_once() -> None:
    budget = BudgetPolicy(max_tokens_per_day=100_000)
    async with LLMProviderManager() as manager:
        member = manager.register_provider(echo(id="a"))
        inner = FallbackProvider([member, echo(id="free")], id="inner")
        team = manager.register_provider(FallbackProvider([inner], id="team", policies=[budget]))
        inner.add_policy(budget)
        answer = await team.generate_completion("echo", "hi")
        assert budget.spent.tokens == answer.usage.total_tokens
        manager.add_policy(budget)
        await team.generate_completion("echo", "hi")
        assert budget.spent.tokens == 2 * answer.usage.total_tokens


async def test_composites_that_share_a_member_do_not_take_each_others_policies_away() -> None:
    budget, member = BudgetPolicy(max_tokens_per_day=100_000), echo(id="m")
    one, two = FallbackProvider([member], id="one"), FallbackProvider([member], id="two")
    one.add_policy(budget)
    two.add_policy(budget)
    async with one, two:
        one.remove_policy(budget)
        await one.generate_completion("echo", "hi")
        assert budget.spent.tokens == 0
        answer = await two.generate_completion("echo", "hi")
        assert budget.spent.tokens == answer.usage.total_tokens
        await two.update_config(members=[echo(id="z")])
        await two.generate_completion("echo", "hi")
        assert budget.spent.tokens == 2 * answer.usage.total_tokens
    await member.close()


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
    assert around(member) == (cache,)
    team.remove_policy(cache)
    assert member._added == ()
    await team.close()


async def test_other_policies_of_a_composite_stay_around_the_composite() -> None:
    retry, member = RetryPolicy(), echo(id="a")
    team = FallbackProvider([member], id="team", policies=[retry])
    team.add_policy(RetryPolicy())
    assert member._added == ()
    await team.close()


async def test_new_policies_take_the_place_of_the_old_around_the_members() -> None:
    old, new, added = CachePolicy(), CachePolicy(), CachePolicy()
    member, later = echo(id="member"), echo(id="later")
    team = FallbackProvider([member], id="team", policies=[old])
    team.add_policy(added)
    await team.update_config(policies=[new])
    assert around(member) == (added, new)
    await team.update_config(members=[later])
    assert (around(member), around(later)) == ((), (added, new))
    await team.close()
    await member.close()


async def test_a_change_that_is_refused_leaves_the_policies_as_they_were() -> None:
    old, member = CachePolicy(), echo(id="member")
    async with FallbackProvider([member], id="team", policies=[old]) as team:
        with pytest.raises(InvalidParameterError):
            await team.update_config(policies=[CachePolicy()], on=["NoSuchError"])
        assert around(member) == (old,)


async def test_members_that_are_made_by_their_names_keep_up_with_policies() -> None:
    new = CachePolicy()
    async with FallbackProvider(["echo"], id="team") as team:
        await team.update_config(policies=[new])
        assert around(team.members[0]) == (new,)


async def test_members_of_members_keep_up_with_policies() -> None:
    cache, leaf = CachePolicy(), echo(id="leaf")
    inner = FallbackProvider([leaf], id="inner")
    async with FallbackProvider([inner], id="outer") as outer:
        outer.add_policy(cache)
        assert around(leaf) == (cache,)
        first = await outer.generate_completion("echo", "hello", options=SAME)
        second = await outer.generate_completion("echo", "hello", options=SAME)
        outer.remove_policy(cache)
        assert leaf._added == ()
    assert (first.cached, second.cached, cache.stats.hits) == (False, True, 1)


async def test_a_policy_that_somebody_else_put_around_a_member_stays_there() -> None:
    cache, member = CachePolicy(), echo(id="member")
    member.add_policy(cache)
    team = FallbackProvider([member], id="team")
    team.add_policy(cache)
    team.remove_policy(cache)
    assert member._added == (cache,)
    await team.close()


async def test_a_member_that_is_registered_later_keeps_the_policies_of_its_manager() -> None:
    cache, own = CachePolicy(), CachePolicy()
    member = echo(id="member")
    async with LLMProviderManager() as manager:
        team = manager.register_provider(FallbackProvider([member], id="team", policies=[own]))
        manager.add_policy(cache)
        await team.connect()
        assert around(member) == (cache, own)
        manager.register_provider(member)
        team.remove_policy(cache)
        assert cache in member._added
        assert around(member) == (own, cache)


async def test_a_used_up_budget_of_a_member_leads_to_the_next() -> None:
    paid, free = echo(id="paid"), echo(id="free")
    paid.add_policy(BudgetPolicy(max_tokens_per_day=1))
    async with FallbackProvider([paid, free]) as team:
        assert (await team.generate_completion("echo", "hi")).answered_by == "free"
