"""Several providers that are asked at the same time."""

from __future__ import annotations

import asyncio

import pytest

from llm_manager import (
    EchoAnswer,
    InvalidParameterError,
    LLMResponse,
    MultiProvider,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    ProviderOverloadedError,
    UnsupportedFeatureError,
)
from llm_manager.testing import Reply, ScriptedPeer

from ..helpers import echo

ONCE = {"retries": {"attempts": 1}}


def crowd(*texts: str | EchoAnswer, **settings) -> MultiProvider:
    """A provider whose members a, b, c … answer with these texts."""
    members = []
    for id, text in zip("abcdef", texts, strict=False):
        member = echo(id=id)
        member.script(text if isinstance(text, EchoAnswer) else EchoAnswer(text=text))
        members.append(member)
    return MultiProvider(members, **settings)


DOWN = EchoAnswer(error=ProviderOverloadedError("no room"))


async def test_all_answers_come_under_the_names_of_their_members() -> None:
    async with crowd("one", "two") as multi:
        answer = await multi.generate_completion(None, "hi")
    assert answer.text == "## a\n\none\n\n## b\n\ntwo"
    assert answer.usage.completion_tokens == 2
    assert answer.answered_by == "multi"


async def test_members_that_fail_do_not_matter_while_enough_answer() -> None:
    async with crowd(DOWN, "two", "three", min_answers=2) as multi:
        answer = await multi.generate_completion(None, "hi", options=ONCE)
    assert "two" in answer.text
    assert "three" in answer.text
    async with crowd(DOWN, DOWN, "three", min_answers=2) as multi:
        with pytest.raises(ProviderOverloadedError, match="a: no room; b: no room"):
            await multi.generate_completion(None, "hi", options=ONCE)


async def test_the_first_whole_answer_wins_and_the_rest_is_cancelled() -> None:
    slow = EchoAnswer(text="late", hang_after_words=0)
    async with crowd(slow, DOWN, "good", combine="first") as multi:
        ended = {}
        multi.on(
            "requestFinished",
            lambda e: ended.update({e.provider_id: e.outcome}),
            delivery="inline",
        )
        answer = await multi.generate_completion(None, "hi", options=ONCE)
    assert (answer.text, answer.answered_by) == ("good", "c")
    assert ended == {"a": "cancelled", "b": "error", "c": "ok", "multi": "ok"}


async def test_most_votes_win_and_of_equally_many_the_first() -> None:
    async with crowd("No", "Yes.", "yes", combine="vote") as multi:
        answer = await multi.generate_completion(None, "hi")
    assert (answer.text, answer.answered_by) == ("Yes.", "b")
    async with crowd("no", "yes", combine="vote") as multi:
        assert (await multi.generate_completion(None, "hi")).text == "no"


async def test_structured_answers_are_compared_by_value() -> None:
    answers = ('{"a": 3}', '{"a": 1, "b": 2}', '{"b":2,"a":1}')
    async with crowd(*answers, combine="vote") as multi:
        assert (await multi.generate_completion(None, "hi")).answered_by == "b"


async def test_a_function_makes_the_answer_of_responses_and_errors() -> None:
    async def longest(answers):
        assert isinstance(answers[0], ProviderOverloadedError)
        assert answers[0].provider_id == "a"
        return max((a for a in answers if isinstance(a, LLMResponse)), key=lambda a: len(a.text))

    async with crowd(DOWN, "short", "much longer", combine=longest) as multi:
        answer = await multi.generate_completion(None, "hi", options=ONCE)
    assert (answer.text, answer.answered_by) == ("much longer", "c")
    assert answer.usage.completion_tokens == 3


async def test_each_answer_can_be_had_by_itself() -> None:
    async with crowd("one", DOWN, "three", combine="race") as multi:
        first, error, last = await multi.ask_all(None, "hi", ONCE)
    assert (first.text, first.provider_id, last.text) == ("one", "a", "three")
    assert isinstance(error, ProviderOverloadedError)


async def test_no_more_are_asked_at_once_than_allowed() -> None:
    running = most = 0

    def count(event) -> None:
        nonlocal running, most
        running += event.name == "requestStarted"
        running -= event.name == "requestFinished"
        most = max(most, running)

    async with crowd("1", "2", "3", "4", limit=2) as multi:
        for name in ("requestStarted", "requestFinished"):
            multi.on(name, count, delivery="inline")
        await multi.generate_completion(None, "hi")
    assert most == 3  # two members, and the whole


async def test_the_losers_of_a_race_lose_their_connections() -> None:
    def piece(text, finish=None):
        return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}

    go_on = asyncio.Event()
    async with ScriptedPeer() as quick, ScriptedPeer() as slow:
        for peer in (quick, slow):
            peer.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
        answer = [piece("Quick"), go_on, piece(".", "stop"), "[DONE]"]
        quick.route("/v1/chat/completions", Reply.sse(answer))
        slow.route("/v1/chat/completions", Reply(instead="hang"))
        members = [
            OpenAICompatibleProvider(base_url=f"{peer.base_url}/v1", id=id)
            for id, peer in (("slow", slow), ("quick", quick))
        ]
        async with MultiProvider(members, combine="race") as multi:
            before = slow.open_connections
            text = ""
            async with multi.stream_completion("m", "hi") as stream:
                async for event in stream:
                    text += event.text
                    if event.text == "Quick":
                        assert before
                        await slow.wait_for_disconnect()
                        go_on.set()
            assert text == "Quick."
            assert stream.response.answered_by == "quick"


async def test_leaving_early_leaves_nothing_behind() -> None:
    hang = EchoAnswer(text="one two", hang_after_words=1)
    before = len(asyncio.all_tasks())
    for combine in ("all", "first", "race", "vote"):
        multi = crowd(hang, hang, combine=combine)
        task = asyncio.create_task(multi.generate_completion(None, "hi"))
        while multi.members[1].status.in_flight == 0:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [m.status.in_flight for m in multi.members] == [0, 0]
        await multi.close()
    assert len(asyncio.all_tasks()) == before


async def test_tools_cannot_be_asked_of_all_at_once() -> None:
    tool = {"name": "look", "description": "", "parameters": {"type": "object"}}
    with pytest.raises(UnsupportedFeatureError, match="tools"):
        await crowd("1", "2").generate_chat_completion(None, "hi", {"tools": [tool]})


async def test_it_is_down_when_fewer_are_left_than_have_to_answer() -> None:
    async with crowd("1", "2", min_answers=2) as multi:
        multi.members[0].script(EchoAnswer(error=ProviderConnectionError("x", code="refused")))
        multi.members[0].go_offline()
        with pytest.raises(ProviderConnectionError):
            await multi.generate_completion(None, "hi", options=ONCE)
        assert multi.status.status == "reconnecting"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"combine": "best"}, "combine must be"),
        ({"limit": 0}, "limit"),
        ({"min_answers": 0}, "min_answers"),
        ({"min_answers": 3}, "min_answers is 3"),
        ({"min_answers": 2, "combine": "race"}, "min_answers is 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        crowd("1", "2", **settings)
