"""What `RecentRequests` remembers of requests, and what it keeps to itself."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from llm_manager import (
    ConcurrencyLimit,
    EchoAnswer,
    EventEmitter,
    ImagePart,
    InvalidParameterError,
    LLMMessage,
    LLMProviderManager,
    ProviderConnectionError,
    RateLimitError,
    RecentRequests,
    RequestFinished,
    RequestStarted,
    Retries,
    RetryPolicy,
    StreamStalled,
    TextPart,
    ToolCall,
)
from tests.helpers import echo

KEY = "sk-1234567890abcdefghij"


def start(emitter: EventEmitter, id: str, **about: Any) -> None:
    facts = {"provider_id": "p", "model": "m", "operation": "chat", **about}
    emitter.publish(RequestStarted(request_id=id, **facts))


def finish(emitter: EventEmitter, id: str, **facts: Any) -> None:
    facts = {"provider_id": "p", "model": "m", "operation": "chat", "outcome": "ok", **facts}
    emitter.publish(RequestFinished(request_id=id, **facts))


def ids(recent: RecentRequests) -> list[str]:
    return [record.request_id for record in recent.snapshot().requests]


# ---- what happened -------------------------------------------------------------------------------


async def test_a_request_is_remembered_from_its_start_to_its_end() -> None:
    async with LLMProviderManager() as manager:
        manager.register_provider(echo())
        recent = RecentRequests().attach(manager)
        options = {"conversation_id": "talk"}
        async with manager.stream_completion("echo", "a b c", options=options) as stream:
            await anext(aiter(stream))
            record = recent.get(stream.request_id)
            assert record is not None
            assert (record.state, record.duration_s, record.usage) == ("running", None, None)
        response = await manager.generate_completion("echo", "a b c", options=options)
        record = recent.get(response.request_id)
        assert record is not None
        assert (record.provider_id, record.kind, record.model) == ("echo", "echo", "echo")
        assert (record.state, record.attempts, record.operation) == ("ok", 1, "completion")
        assert (record.conversation_id, record.answered_by) == ("talk", "echo")
        assert (record.finish_reason, record.cached) == ("stop", False)
        assert record.usage is not None
        assert record.usage.completion_tokens == 3
        assert 0 < (record.first_token_s or 0) <= (record.duration_s or 0)
        assert (datetime.now(UTC) - record.started_at).total_seconds() < 60
        assert recent.get("req-unknown") is None


async def test_retries_are_there_with_their_reasons() -> None:
    policies = [RetryPolicy(Retries(attempts=3, wait_s=0.0))]
    async with echo(policies=policies) as provider:
        recent = RecentRequests().attach(provider)
        provider.script(
            EchoAnswer(error=RateLimitError("slow down")),
            EchoAnswer(error=ProviderConnectionError("gone", code="reset")),
        )
        await provider.generate_completion("echo", "hi")
        (record,) = recent.snapshot().requests
        assert (record.state, record.attempts) == ("ok", 3)
        notes = [(note.attempt, note.error.code) for note in record.retries]
        assert notes == [(1, "rate_limited"), (2, "reset")]


async def test_a_failed_request_has_its_error_and_a_left_one_says_so() -> None:
    async with echo(policies=[]) as provider:
        recent = RecentRequests().attach(provider)
        provider.script(EchoAnswer(error=RateLimitError("slow down")))
        with pytest.raises(RateLimitError):
            await provider.generate_completion("echo", "hi")
        async with provider.stream_completion("echo", "one two") as stream:
            async for _ in stream:
                break
        left, failed = recent.snapshot().requests
        assert (failed.state, failed.error and failed.error.code) == ("error", "rate_limited")
        assert (left.state, left.error) == ("abandoned", None)


async def test_waiting_in_line_is_visible() -> None:
    policies = [ConcurrencyLimit(max_running=1)]
    async with echo(policies=policies) as provider:
        recent = RecentRequests().attach(provider)
        ask = provider.generate_completion
        await asyncio.gather(ask("echo", "a"), ask("echo", "b"))
        waits = [record.waits for record in recent.snapshot().requests]
        assert sorted(len(w) for w in waits) == [0, 1]
        (wait,) = [w for found in waits for w in found]
        assert (wait.reason, wait.position) == ("concurrency", 0)


def test_stalls_are_visible_and_notes_are_bounded() -> None:
    emitter = EventEmitter()
    recent = RecentRequests().attach(emitter)
    start(emitter, "a")
    for _ in range(200):
        emitter.publish(StreamStalled(request_id="a", silent_s=20.0, fails_in_s=10.0))
    emitter.publish(StreamStalled(request_id="nobody knows it", silent_s=20.0, fails_in_s=10.0))
    (record,) = recent.snapshot().requests
    assert len(record.stalls) == 50
    assert record.stalls[0].silent_s == 20.0


def test_parts_of_a_request_are_found_from_it_and_it_from_them() -> None:
    emitter = EventEmitter()
    recent = RecentRequests().attach(emitter)
    start(emitter, "whole", composite=True, provider_id="all")
    start(emitter, "one", parent_id="whole")
    start(emitter, "two", parent_id="whole")
    whole = recent.get("whole")
    assert whole is not None
    assert (whole.composite, whole.children, whole.parent_id) == (True, ("one", "two"), None)
    one = recent.get("one")
    assert one is not None
    assert (one.parent_id, one.children) == ("whole", ())


def test_the_newest_come_first_and_the_oldest_go() -> None:
    emitter = EventEmitter()
    recent = RecentRequests(limit=3).attach(emitter)
    for number in range(10):
        start(emitter, f"r{number}")
        finish(emitter, f"r{number}")
    assert ids(recent) == ["r9", "r8", "r7"]


def test_a_request_whose_start_was_not_seen_stands_where_it_began() -> None:
    emitter = EventEmitter()
    recent = RecentRequests().attach(emitter)
    start(emitter, "late")
    finish(emitter, "long", duration_s=100.0)
    assert ids(recent) == ["late", "long"]


def test_what_ran_when_listening_ended_is_unknown_and_not_running_for_ever() -> None:
    emitter = EventEmitter()
    with RecentRequests().attach(emitter) as recent:
        start(emitter, "a")
        start(emitter, "b")
        finish(emitter, "b")
    states = {record.request_id: record.state for record in recent.snapshot().requests}
    assert states == {"a": "unknown", "b": "ok"}


def test_a_snapshot_is_plain_data_and_clearing_forgets() -> None:
    emitter = EventEmitter()
    recent = RecentRequests().attach(emitter)
    start(emitter, "a")
    plain = recent.snapshot().to_dict()
    assert plain["requests"][0]["requestId"] == "a"
    assert plain["requests"][0]["prompt"] is None
    recent.clear()
    assert ids(recent) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": "many"},
        {"content": "yes"},
        {"content_limit_characters": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong) -> None:
    (name,) = wrong
    with pytest.raises(InvalidParameterError, match=name):
        RecentRequests(**wrong)


# ---- redrawing -----------------------------------------------------------------------------------


async def test_who_draws_is_told_of_changes_and_not_of_each_one() -> None:
    emitter = EventEmitter()
    recent = RecentRequests().attach(emitter)
    drawn: list[int] = []
    told = asyncio.Event()

    def redraw(revision: int) -> None:
        drawn.append(revision)
        told.set()

    before = recent.revision
    subscription = recent.subscribe(redraw)
    for number in range(100):
        start(emitter, f"r{number}")
    await told.wait()
    assert drawn == [recent.revision] == [before + 100]
    subscription.close()
    start(emitter, "one more")
    await asyncio.sleep(0)
    assert drawn == [before + 100]
    assert recent.revision == before + 101


# ---- content -------------------------------------------------------------------------------------


async def test_content_is_not_kept_unless_asked_for() -> None:
    async with echo() as provider:
        recent = RecentRequests().attach(provider)
        await provider.generate_completion("echo", "a secret thought")
        assert "thought" not in str(recent.snapshot().to_dict())


async def test_content_is_kept_when_asked_for_and_no_longer_after_detaching() -> None:
    async with LLMProviderManager() as manager:
        manager.register_provider(echo())
        recent = RecentRequests(content=True).attach(manager)
        manager.register_provider(echo(id="later"))
        for provider in ("echo", "later"):
            response = await manager.generate_chat_completion(
                f"{provider}/echo", [LLMMessage.system("Be brief."), LLMMessage.user("Hello you")]
            )
            assert response.text == "Hello you"
            record = recent.snapshot().requests[0]
            assert record.provider_id == provider
            assert record.prompt == "system: Be brief.\nuser: Hello you"
            assert (record.answer, record.content_cut) == ("Hello you", False)
        recent.detach()
        await manager.generate_completion("echo/echo", "not this")
        assert "not this" not in str(recent.snapshot().to_dict())


async def test_what_looks_like_a_key_is_masked_also_at_the_edge_and_across_pieces() -> None:
    async with echo() as provider:
        recent = RecentRequests(content=True, content_limit_characters=30).attach(provider)
        provider.script(EchoAnswer(text=f"Bearer {KEY}"))
        await provider.generate_completion("echo", f"my key is {KEY} here")
        # This one is cut in the middle of the key.
        await provider.generate_completion("echo", f"{'x' * 20} {KEY}")
        shown = str(recent.snapshot().to_dict())
        assert KEY[:8] not in shown
        cut, whole = recent.snapshot().requests
        assert whole.prompt == "user: my key is *** here"
        assert whole.answer == "Bearer ***"
        assert cut.content_cut


async def test_content_is_bounded_and_keeps_the_newest_of_the_prompt() -> None:
    async with echo() as provider:
        recent = RecentRequests(content=True, content_limit_characters=50).attach(provider)
        provider.script(EchoAnswer(text="word " * 1000))
        old = [LLMMessage.user("old " * 1000), LLMMessage.assistant("fine")]
        await provider.generate_chat_completion("echo", [*old, LLMMessage.user("newest")])
        (record,) = recent.snapshot().requests
        assert record.answer == ("word " * 1000)[:50]
        assert record.prompt is not None
        assert len(record.prompt) == 50
        assert record.prompt.endswith("assistant: fine\nuser: newest")
        assert record.content_cut
        kept = recent._contents[record.request_id]
        assert sum(map(len, (*kept._pieces, *kept._prompt))) < 1000


async def test_content_of_more_requests_at_once_than_are_remembered_is_not_lost() -> None:
    async with echo() as provider:
        recent = RecentRequests(limit=5, content=True).attach(provider)
        asked = [f"word {number}" for number in range(200)]
        await asyncio.gather(*(provider.generate_completion("echo", text) for text in asked))
        records = recent.snapshot().requests
        assert len(records) == 5
        for record in records:
            assert record.prompt == f"user: {record.answer}"
        for text in asked:
            await provider.generate_completion("echo", text)
        assert len(recent._contents) < 200


async def test_tool_calls_and_images_are_content_that_can_be_read() -> None:
    async with echo() as provider:
        recent = RecentRequests(content=True).attach(provider)
        provider.script(EchoAnswer(tool="look_up", arguments={"word": "penguin"}))
        image = ImagePart(data=b"\x89PNG" * 1000, media_type="image/png")
        call = ToolCall(id="1", name="clock", arguments_json="{}")
        await provider.generate_chat_completion(
            "echo",
            [
                LLMMessage.assistant(tool_calls=[call]),
                LLMMessage.tool("1", "noon"),
                LLMMessage.user(TextPart(text="What is it?"), image),
            ],
        )
        (record,) = recent.snapshot().requests
        assert record.prompt == "assistant: [clock] {}\ntool: noon\nuser: What is it?"
        assert record.answer == '[look_up] {"word":"penguin"}'


def test_the_content_of_what_sends_no_requests_cannot_be_kept() -> None:
    recent = RecentRequests(content=True)
    with pytest.raises(InvalidParameterError, match="content"):
        recent.attach(EventEmitter())
    assert not recent.attached


async def test_as_a_policy_without_content_it_is_not_in_the_way() -> None:
    async def exchange(request):
        yield None

    assert RecentRequests().wrap(exchange, None) is exchange
