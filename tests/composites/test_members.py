"""What becomes of members: shared ones, removed ones, stopped ones; and who announces what."""

from __future__ import annotations

import asyncio

import pytest

from llm_manager import (
    BalancedProvider,
    CachePolicy,
    EchoAnswer,
    FallbackProvider,
    InvalidParameterError,
    LLMProviderManager,
    MultiProvider,
    ProviderConnectionError,
    SwitchingProvider,
)
from tests.helpers import Record, echo

SAME = {"temperature": 0}


async def test_a_shared_member_stays_connected_while_one_composite_uses_it() -> None:
    shared = echo(id="shared")
    one, other = FallbackProvider([shared], id="one"), FallbackProvider([shared], id="other")
    await one.connect()
    await other.connect()
    await one.close()
    assert (shared.status.status, other.status.status) == ("connected", "connected")
    await other.close()
    assert shared.status.status == "closed"


async def test_a_member_that_the_composite_made_is_closed_when_it_is_replaced() -> None:
    given = echo(id="given")
    async with FallbackProvider(["echo", given], id="team") as team:
        made = team.members[0]
        await team.update_config(members=[echo(id="new")])
        await made.wait_for("closed")
        assert given.status.status == "disconnected"
        assert team.status.status in ("connecting", "connected")
    await given.close()


async def test_a_member_that_stays_by_its_name_is_not_made_anew() -> None:
    async with FallbackProvider(["echo"], id="team") as team:
        before = team.members[0]
        await team.update_config(members=["echo", echo(id="second")])
        assert team.members[0] is before
        assert before.status.status != "closed"


async def test_members_made_for_addresses_are_closed_when_the_addresses_change() -> None:
    team = BalancedProvider(of="vllm", base_urls=["http://127.0.0.1:9/v1"], id="team")
    old = team.members[0]
    await team.update_config(base_urls=["http://127.0.0.1:10/v1"])
    assert old.status.status == "closed"
    assert team.members[0].status.status == "disconnected"
    await team.close()


async def test_a_closed_member_is_one_that_is_down() -> None:
    gone = echo(id="gone")
    await gone.close()
    async with FallbackProvider([gone, echo(id="there")], id="team") as team:
        assert team.status.status == "degraded"
        assert (await team.generate_completion("echo", "hi")).answered_by == "there"


async def test_a_member_that_somebody_stopped_is_started_again_when_the_composite_looks() -> None:
    stopped, down = echo(id="stopped"), echo(id="down")
    async with FallbackProvider([stopped, down], id="team") as team:
        await stopped.disconnect()
        down.go_offline()
        with pytest.raises(ProviderConnectionError):
            await down.generate_completion("echo", "hi")
        await team.disconnect()
        await team.connect()
        assert (stopped.status.status, team.status.status) == ("connected", "degraded")


async def test_a_member_stopped_while_it_answers_leads_to_the_next() -> None:
    first, second = echo(id="first"), echo(id="second")
    first.script(EchoAnswer(text="late", delay_s=600))
    async with FallbackProvider([first, second], id="team") as team:
        answer = asyncio.ensure_future(team.generate_completion("echo", "hi"))
        while not first.status.in_flight:
            await asyncio.sleep(0)
        await first.disconnect(0)
        assert (await answer).answered_by == "second"


async def test_one_success_does_not_hide_that_too_few_members_are_left() -> None:
    async with MultiProvider([echo(id="a"), echo(id="b")], id="team", min_answers=2) as team:
        b = team.members[1]
        b.go_offline()  # type: ignore[attr-defined]
        with pytest.raises(ProviderConnectionError):
            await b.generate_completion("echo", "hi")
        assert team.status.status == "reconnecting"
        answer = await team.generate_completion("a/echo", "hi")
        assert "hi" in answer.text
        assert team.status.status == "reconnecting"


async def test_another_members_answer_says_nothing_about_the_current_one() -> None:
    current = echo(id="current")
    async with SwitchingProvider([current, echo(id="spare")], id="agent") as agent:
        current.go_offline()
        with pytest.raises(ProviderConnectionError):
            await agent.generate_completion("echo", "hi")
        agent.set_active_model(None)
        assert agent.status.status == "reconnecting"
        assert len(await agent.get_available_models(refresh=True)) == 1
        assert agent.status.status == "reconnecting"


async def test_a_cached_answer_is_no_sign_of_life() -> None:
    async with echo() as provider:
        provider.add_policy(CachePolicy())
        await provider.generate_completion("echo", "hi", options=SAME)
        provider.go_offline()
        with pytest.raises(ProviderConnectionError):
            await provider.generate_completion("echo", "other", options=SAME)
        cached = await provider.generate_completion("echo", "hi", options=SAME)
        assert cached.cached
        assert provider.status.status == "reconnecting"


async def test_a_provider_that_is_a_member_in_two_places_is_announced_once() -> None:
    twice = echo(id="twice")
    inner = FallbackProvider([twice], id="inner")
    async with MultiProvider([inner, twice], id="outer") as outer:
        record = Record(outer)
        await outer.generate_completion("echo", "hi")
    finished = [event.request_id for event in record.named("requestFinished")]
    assert len(finished) == len(set(finished)) == 4


async def test_what_a_managed_member_passes_on_is_announced_by_its_manager_alone() -> None:
    async with LLMProviderManager() as manager:
        inner = manager.register_provider(FallbackProvider([echo(id="leaf")], id="inner"))
        outer = manager.register_provider(FallbackProvider([inner], id="outer"))
        record = Record(manager)
        await outer.generate_completion("echo", "hi")
    finished = [event.provider_id for event in record.named("requestFinished")]
    assert sorted(finished) == ["inner", "leaf", "outer"]


async def test_fewer_members_with_a_model_than_have_to_answer_are_an_error() -> None:
    members = [echo(id="a", models=("x", "y")), echo(id="b", models=("y",))]
    async with MultiProvider(members, id="team", min_answers=2) as team:
        with pytest.raises(InvalidParameterError, match="only 1"):
            await team.generate_completion("x", "hi")


async def test_ask_all_does_not_ask_for_one_answer() -> None:
    def combine(answers: object) -> str:
        raise ValueError("no")

    async with MultiProvider([echo(id="a"), echo(id="b")], id="team", combine=combine) as team:
        assert len(await team.ask_all("echo", "hi")) == 2


@pytest.mark.parametrize("wrong", [None, 5, []])
async def test_what_combine_returns_is_checked(wrong: object) -> None:
    members = [echo(id="a"), echo(id="b")]
    async with MultiProvider(members, id="team", combine=lambda _: wrong) as team:  # type: ignore[arg-type, return-value]
        with pytest.raises(InvalidParameterError, match="combine must return"):
            await team.generate_completion("echo", "hi")


async def test_the_time_of_a_member_is_not_the_time_of_the_whole() -> None:
    slow = echo(id="slow", timeouts={"total_s": 0.05})
    slow.script(EchoAnswer(text="late", delay_s=600))
    async with FallbackProvider([slow, echo(id="quick")], id="team") as team:
        assert (await team.generate_completion("echo", "hi")).answered_by == "quick"


async def test_a_defect_of_a_member_leads_to_the_next() -> None:
    class Broken(type(echo())):  # type: ignore[misc]
        async def _exchange(self, request: object) -> object:
            raise KeyError("choices")
            yield

    members = [Broken(id="broken"), echo(id="sound")]
    async with FallbackProvider(members, id="team") as team:
        assert (await team.generate_completion("echo", "hi")).answered_by == "sound"
