"""A set of providers that stand in for each other."""

from __future__ import annotations

import asyncio
import math
import pickle

import pytest

from llm_manager import (
    AuthenticationError,
    ContentFilteredError,
    EchoAnswer,
    EchoProvider,
    FallbackProvider,
    InvalidParameterError,
    LLMProviderManager,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    ProviderOverloadedError,
    RateLimitError,
    StreamInterruptedError,
    create_provider,
)
from llm_manager.errors import ConfigurationError
from llm_manager.testing import InProcessConformance, Reply, ScriptedPeer, ScriptedProvider, Wanted

from ..helpers import QUICK, Record, echo

ONCE = {"retries": {"attempts": 1}}


def pair(**settings):
    first, second = echo(id="first"), echo(id="second")
    return first, second, FallbackProvider([first, second], **settings)


async def test_the_first_member_answers_while_it_can() -> None:
    _, second, team = pair()
    async with team:
        answer = await team.generate_completion(None, "hello")
    assert (answer.text, answer.answered_by, answer.provider_id) == ("hello", "first", "fallback")
    assert answer.model == "echo"
    assert not second.requests


@pytest.mark.parametrize(
    "error",
    [
        ProviderConnectionError("gone", code="refused"),
        ProviderOverloadedError("full"),
        RateLimitError("slow down", retry_after_s=100),
        AuthenticationError("wrong key", http_status=401),
    ],
)
async def test_an_error_of_the_member_leads_to_the_next(error) -> None:
    first, _, team = pair()
    first.script(EchoAnswer(error=error))
    async with team:
        answer = await team.generate_completion(None, "hello", options=ONCE)
    assert answer.answered_by == "second"


async def test_an_error_of_the_question_is_raised_unless_told_otherwise() -> None:
    refused = ContentFilteredError("no")
    first, second, team = pair()
    first.script(EchoAnswer(error=refused))
    async with team:
        with pytest.raises(ContentFilteredError):
            await team.generate_completion(None, "hello", options=ONCE)
        assert not second.requests
        await team.update_config(on=["ContentFilteredError", "invalid_request"])
        first.script(EchoAnswer(error=refused))
        assert (await team.generate_completion(None, "hello", options=ONCE)).answered_by == "second"


async def test_after_the_first_piece_the_answer_breaks_as_any_does() -> None:
    first, second, team = pair()
    broken = StreamInterruptedError("broke off")
    first.script(EchoAnswer(text="one two three", error=broken, after_words=2))
    async with team:
        with pytest.raises(StreamInterruptedError) as caught:
            await team.generate_completion(None, "hello", options=ONCE)
    assert caught.value.partial.text == "one two "
    assert not second.requests


async def test_a_member_that_cools_down_is_passed_over_without_waiting() -> None:
    first, second, team = pair()
    first.script(EchoAnswer(error=RateLimitError("slow down", retry_after_s=100)))
    async with team:
        for _ in range(3):
            answer = await team.generate_completion(None, "hello", options=ONCE)
            assert answer.answered_by == "second"
    assert len(first.requests) == 1
    assert len(second.requests) == 3


async def test_if_nobody_answers_one_error_says_why_each_did_not() -> None:
    first, second, team = pair()
    first.script(EchoAnswer(error=RateLimitError("slow down", retry_after_s=100)))
    second.script(EchoAnswer(error=ProviderOverloadedError("no room")))
    async with team:
        with pytest.raises(ProviderOverloadedError) as caught:
            await team.generate_completion(None, "hello", options=ONCE)
        error = caught.value
        assert "first: slow down" in str(error)
        assert "second: no room" in str(error)
        assert error.provider_id == "fallback"
        assert error.retry_at is not None
        assert error.retry_after_s == 100


async def test_the_last_member_of_a_set_is_never_ejected() -> None:
    only = echo(id="only")
    async with FallbackProvider([only]) as team:
        only.script(EchoAnswer(error=RateLimitError("slow down", retry_after_s=100)))
        with pytest.raises(RateLimitError):
            await team.generate_completion(None, "hello", options=ONCE)
        with pytest.raises(RateLimitError) as caught:
            await team.generate_completion(None, "hello", options=ONCE)
        assert caught.value.retry_at is not None
        forced = await team.generate_completion(None, "hello", options={**ONCE, "force": True})
        assert forced.answered_by == "only"


async def test_the_status_follows_the_members_and_heals_by_itself() -> None:
    first, second, team = pair(reconnect=QUICK)
    async with team:
        assert team.status.status == "connected"
        first.go_offline()
        await team.generate_completion(None, "hello")
        assert (team.status.status, team.status.reason) == ("degraded", "members_down")
        second.go_offline()
        with pytest.raises(ProviderConnectionError):
            await team.generate_completion(None, "hello", options=ONCE)
        assert (team.status.status, team.status.reason) == ("reconnecting", "members_down")
        second.go_online()
        await team.wait_for("degraded", 5)
        first.go_online()
        await team.wait_for("connected", 5)


async def test_if_all_members_need_a_person_so_does_the_set_until_one_is_repaired() -> None:
    first, second, team = pair()
    for member in (first, second):
        member.go_offline(AuthenticationError("wrong key", http_status=401))
    with pytest.raises(AuthenticationError, match="first: wrong key"):
        await team.connect()
    assert team.status.status == "failed"
    first.go_online()
    await first.connect()
    await team.wait_for("degraded", 5)
    await team.close()


async def test_events_of_all_parts_are_announced_once_under_their_own_ids() -> None:
    async with LLMProviderManager() as manager:
        record = Record(manager)
        held = manager.register_provider(echo(id="held"))
        free = echo(id="free")
        team = manager.register_provider(FallbackProvider([held, free], id="team"))
        held.go_offline()
        await team.generate_completion(None, "hello", options=ONCE)
        await manager.flush()
        finished = record.named("requestFinished")
    assert [(e.provider_id, e.outcome) for e in finished] == [
        ("held", "error"), ("free", "ok"), ("team", "ok"),
    ]  # fmt: skip
    whole = finished[-1]
    assert whole.composite
    assert {e.parent_id for e in finished[:-1]} == {whole.request_id}


async def test_a_member_of_a_member_is_announced_once_and_named_as_who_answered() -> None:
    inner = FallbackProvider([echo(id="deep")], id="inner")
    async with FallbackProvider([inner], id="outer") as outer:
        seen = []
        outer.on("requestFinished", lambda e: seen.append(e.provider_id), delivery="inline")
        answer = await outer.generate_completion(None, "hello")
    assert answer.answered_by == "deep"
    assert sorted(seen) == ["deep", "inner", "outer"]


async def test_members_that_no_manager_holds_live_and_end_with_the_set() -> None:
    async with LLMProviderManager() as manager:
        held = manager.register_provider(echo(id="held"))
        await held.connect()
        free = echo(id="free")
        team = FallbackProvider([held, free])
        await team.connect()
        assert free.status.status == "connected"
        await team.disconnect()
        assert free.status.status == "disconnected"
        await team.close()
        assert free.status.status == "closed"
        assert held.status.status == "connected"
    assert not free.event_names()


async def test_closing_leaves_no_task_and_no_listener() -> None:
    first, second, team = pair()
    before = len(asyncio.all_tasks())
    first.go_offline()
    await team.generate_completion(None, "hello", options=ONCE)
    await team.close()
    assert len(asyncio.all_tasks()) == before
    assert not first.event_names()
    assert not second.event_names()


async def test_a_name_stands_for_the_provider_that_the_manager_has_under_it() -> None:
    async with LLMProviderManager() as manager:
        team = manager.register_provider("fallback", members=["echo"], id="team")
        mine = manager.register_provider(echo(id="echo"))
        await team.connect()
        assert team.members == (mine,)


async def test_a_settings_file_can_describe_a_set(tmp_path, monkeypatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[providers.team]\nkind = "fallback"\nmembers = ["mine", "echo"]\n'
        'on = ["ProviderConnectionError"]\n[providers.mine]\nkind = "echo"\n'
        '[providers.ring]\nkind = "fallback"\nmembers = ["knot"]\n'
        '[providers.knot]\nkind = "fallback"\nmembers = ["ring"]\n'
    )
    monkeypatch.setenv("LLM_MANAGER_CONFIG", str(file))
    async with create_provider("team") as team:
        assert (await team.generate_completion(None, "hello")).answered_by == "mine"
    with pytest.raises(ConfigurationError, match="lead back"):
        create_provider("ring")


async def test_a_model_goes_to_the_members_that_have_it() -> None:
    small, large = echo(id="small", models=["s"]), echo(id="large", models=["l", "x/y"])
    async with FallbackProvider([small, large], models={"small": "s"}) as team:
        assert {m.id for m in await team.get_available_models()} == {"s", "l", "x/y"}
        assert (await team.generate_completion("l", "hi")).answered_by == "small"
        assert (await team.generate_completion("large/x/y", "hi")).model == "x/y"
        assert (await team.generate_completion(None, "hi")).model == "s"
        assert (await team.count_tokens("l", "hi")).tokens > 0
        team.set_active_model("large/l")
        assert (await team.generate_completion(None, "hi")).answered_by == "large"


async def test_what_one_member_cannot_do_another_does() -> None:
    plain = ScriptedProvider(id="plain", capabilities={"chat", "completion"})
    able = ScriptedProvider(id="able").tool_call("look")
    tool = {"name": "look", "description": "", "parameters": {"type": "object"}}
    async with FallbackProvider([plain, able]) as team:
        answer = await team.generate_chat_completion(None, "hi", {"tools": [tool]})
    assert answer.answered_by == "able"
    assert answer.tool_calls[0].name == "look"


async def test_the_time_limit_holds_over_all_members() -> None:
    first, second, team = pair()
    first.script(EchoAnswer(delay_s=60))
    async with team:
        with pytest.raises(Exception, match="in total"):
            await team.generate_completion(None, "hello", options={"timeouts": {"total_s": 0.05}})
    assert not second.requests


async def test_other_settings_keep_the_members_that_stay() -> None:
    first, second, team = pair()
    third = echo(id="third")
    async with team:
        await team.update_config(members=[second, third])
        await team.wait_for("connected", 5)
        assert first.status.status == "disconnected"
        assert second.status.status == "connected"
        assert (await team.generate_completion(None, "hello")).answered_by == "second"
        third.go_offline()


async def test_a_set_is_pickled_as_its_settings() -> None:
    copy = pickle.loads(pickle.dumps(FallbackProvider([EchoProvider(id="a")], id="team")))
    async with copy:
        assert (await copy.generate_completion(None, "hello")).answered_by == "a"
    assert copy.id == "team"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"members": []}, "no members"),
        ({"members": "echo"}, "list of providers"),
        ({"members": [7]}, "a member must be"),
        ({"members": ["echo", "echo"]}, "two members"),
        ({"members": ["echo"], "on": ["RateLimitEror"]}, "did you mean 'RateLimitError'"),
        ({"members": ["echo"], "on": "RateLimitError"}, "must be a list"),
        ({"members": ["echo"], "on": [ValueError]}, "errors of this library"),
        ({"members": ["echo"], "models": {"nobody": "m"}}, "no member"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        FallbackProvider(**arguments)


@pytest.mark.parametrize("kind", ["fallback", "multi", "switching", "balanced"])
def test_a_kind_without_members_is_a_setting_that_is_wrong(kind) -> None:
    with pytest.raises(InvalidParameterError, match="members"):
        create_provider(kind)


async def test_a_server_that_refuses_leads_to_one_that_answers() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi."}, "finish_reason": "stop"}]}
    async with ScriptedPeer() as bad, ScriptedPeer() as good:
        for peer in (bad, good):
            peer.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
        bad.route("/v1/chat/completions", Reply.json({"error": {"message": "x"}}, status=500))
        good.route("/v1/chat/completions", Reply.sse([chunk, "[DONE]"]))
        members = [
            OpenAICompatibleProvider(base_url=f"{peer.base_url}/v1", id=id)
            for id, peer in (("bad", bad), ("good", good))
        ]
        async with FallbackProvider(members) as team:
            answer = await team.generate_completion("m", "hi", options=ONCE)
    assert (answer.text, answer.answered_by) == ("Hi.", "good")


class TestFallbackConforms(InProcessConformance):
    model = "echo"

    def make_provider(self, **settings) -> FallbackProvider:
        # Held by a manager, so that only its own events are heard at the provider.
        member = LLMProviderManager().register_provider(EchoProvider(words_per_s=math.inf))
        return FallbackProvider([member], **settings)

    def make_broken_provider(self, **settings) -> FallbackProvider:
        provider = FallbackProvider([EchoProvider(words_per_s=math.inf)], **settings)
        provider.members[0].go_offline(ProviderConnectionError("refused", code="refused"))
        return provider

    def script(self, provider: FallbackProvider, wanted: Wanted) -> bool:
        answer = EchoAnswer(text=wanted.whole_text, hang_after_words=wanted.hang_after)
        provider.members[0].script(answer)
        return True
