"""A cache of answers: what is kept, for whom, for how long, and what happens when it breaks."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_manager import (
    Backoff,
    BaseLLMProvider,
    CachePolicy,
    ConfigurationError,
    EchoAnswer,
    EchoProvider,
    ImagePart,
    InvalidParameterError,
    LLMMessage,
    LLMProviderManager,
    LLMRequestOptions,
    MemoryStore,
    OllamaProvider,
    OpenAICompatibleProvider,
    ProviderOverloadedError,
    RequestFinished,
    Retries,
    SqliteStore,
    StreamInterruptedError,
    TextPart,
    Timeouts,
    ToolDefinition,
)
from llm_manager.messages import (
    Delta,
    FinishDelta,
    KeepAliveDelta,
    LLMRequest,
    MetaDelta,
    OpaquePart,
    PartDelta,
    RawDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
    VectorsDelta,
    as_options,
)
from llm_manager.policy.cache_key import cache_key
from llm_manager.testing import ScriptedProvider
from llm_manager.testing.clock import FakeClock
from tests.helpers import FakeHost, Record, echo

EXACT = {"temperature": 0}


def cached_echo(cache: CachePolicy | None = None, **settings: Any) -> Any:
    provider = echo(**settings)
    provider.add_policy(cache or CachePolicy())
    return provider


async def ask(provider: BaseLLMProvider, text: str = "hello there", **options: Any) -> Any:
    return await provider.generate_completion(None, text, options={**EXACT, **options})


def ends(emitter: Any) -> list[RequestFinished]:
    found: list[RequestFinished] = []
    emitter.subscribe(found.append, "requestFinished", delivery="inline")
    return found


# ---- hits ----------------------------------------------------------------------------------------


async def test_the_same_question_is_answered_once_by_the_provider_and_then_by_the_cache() -> None:
    cache = CachePolicy()
    async with cached_echo(cache) as provider:
        finished = ends(provider)
        first, second = await ask(provider), await ask(provider)
        assert len(provider.requests) == 1
    assert (first.text, first.cached) == (second.text, False)
    assert second.cached
    assert (second.usage, second.model, second.response_id) == (
        first.usage, first.model, first.response_id,
    )  # fmt: skip
    assert second.request_id != first.request_id
    assert [event.cached for event in finished] == [False, True]
    assert finished[1].attempts == 0
    assert (cache.stats.hits, cache.stats.misses, cache.stats.stored) == (1, 1, 1)


async def test_a_stream_is_given_again_with_the_same_events() -> None:
    async with cached_echo() as provider:
        provider.script(EchoAnswer(text="one two three", reasoning="let me think"))
        runs = []
        for _ in range(2):
            stream = provider.stream_completion(None, "count", options=EXACT)
            runs.append([event async for event in stream])
    first, second = ([e for e in run if e.kind != "done"] for run in runs)
    assert first == second
    assert [e.kind for e in first].count("text") == 3
    done = [run[-1].response for run in runs]
    changed = {"cached", "timings", "request_id"}
    for name in type(done[0]).__struct_fields__:
        assert (getattr(done[0], name) == getattr(done[1], name)) != (name in changed), name


EVERY_DELTA: list[Delta] = [
    MetaDelta("model-1", "id-1"),
    ReasoningDelta("hm"),
    TextDelta("näive ☃ "),
    KeepAliveDelta(),
    ToolCallDelta(0, "call-1", "look", '{"a": '),
    ToolCallDelta(0, arguments="1}"),
    PartDelta(ImagePart(data=b"\x00\xff", media_type="image/png")),
    PartDelta(OpaquePart(origin="o", kind="k", data={"x": [1, 2.5, None]})),
    VectorsDelta([[0.1, 0.2], [0.3, 0.4]]),
    RawDelta({"b": 1, "a": [True]}),
    UsageDelta(Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=1)),
    FinishDelta("tool_calls", "tool_use"),
]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_every_kind_of_piece_comes_back_as_it_was(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "answers")

    async def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        for delta in EVERY_DELTA:
            yield delta

    wrapped = CachePolicy(store).wrap(exchange, FakeHost())
    request = a_request()
    assert [d async for d in wrapped(request)] == EVERY_DELTA
    again = [d async for d in wrapped(request)]
    assert again[0] == MetaDelta(cached=True)
    assert again[1:] == [d for d in EVERY_DELTA if not isinstance(d, KeepAliveDelta)]
    if isinstance(store, SqliteStore):
        store.close()


async def test_what_a_reader_does_to_an_answer_does_not_reach_the_cache() -> None:
    provider = ScriptedProvider().vectors([1.0, 2.0])
    provider.add_policy(CachePolicy())
    async with provider:
        for _ in range(3):
            answer = await provider.embed("scripted", ["text"])
            assert answer.vectors == ([1.0, 2.0],)
            answer.vectors[0].clear()


async def test_tools_and_structured_answers_are_kept() -> None:
    tool = ToolDefinition(name="look", parameters={"type": "object", "properties": {}})
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    provider = ScriptedProvider().tool_call("look").answer('{"a": 1}')
    provider.add_policy(CachePolicy())
    async with provider:
        calls = [await ask(provider, tools=(tool,)) for _ in range(2)]
        objects = [await ask(provider, response_format=schema) for _ in range(2)]
    assert [c.cached for c in calls] == [o.cached for o in objects] == [False, True]
    assert calls[1].tool_calls == calls[0].tool_calls
    assert objects[1].parse(dict) == {"a": 1}


async def test_an_answer_that_does_not_follow_its_schema_is_not_kept() -> None:
    schema = {"type": "object", "required": ["a"]}
    provider = ScriptedProvider().answer('{"b": 1}').answer('{"a": 1}')
    provider.add_policy(CachePolicy())
    async with provider:
        with pytest.raises(Exception, match="does not follow"):
            await ask(provider, response_format=schema)
        assert (await ask(provider, response_format=schema)).text == '{"a": 1}'


async def test_a_mended_answer_is_a_hit_only_if_both_of_its_rounds_are() -> None:
    provider = ScriptedProvider(capabilities=["chat", "completion"])  # which takes no schema
    provider.answer("no JSON").fail(ProviderOverloadedError("too much")).answer('{"a": 1}')
    provider.add_policy(CachePolicy())
    finished = ends(provider)
    schema = {"type": "object", "required": ["a"]}
    wanted: dict[str, Any] = {"response_format": schema, "retries": Retries(attempts=1)}
    async with provider:
        with pytest.raises(ProviderOverloadedError):
            await ask(provider, **wanted)
        half, whole = [await ask(provider, **wanted) for _ in range(2)]
    assert [half.text, whole.text] == ['{"a": 1}', '{"a": 1}']
    assert [half.cached, whole.cached] == [False, True]
    assert [event.cached for event in finished] == [False, False, True]
    # What was not given again is all that it has taken.
    assert half.usage.completion_tokens == 2


async def test_a_long_answer_from_the_cache_leaves_the_loop_to_others() -> None:
    async with cached_echo() as provider:
        await ask(provider, "word " * 2000)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        await asyncio.sleep(0)
        before = turns
        assert (await ask(provider, "word " * 2000)).cached
        assert turns - before >= 5
        task.cancel()


# ---- which requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"seed": 7}, True),
        ({"temperature": 0.7}, False),
        ({}, False),
        ({"response_cache": "use"}, True),
        ({"temperature": 0, "response_cache": "off"}, False),
    ],
)
async def test_only_requests_that_are_meant_to_be_repeatable_are_served(options, kept) -> None:
    async with cached_echo() as provider:
        for _ in range(2):
            answer = await provider.generate_completion(None, "hi", options=options)
        assert answer.cached is kept


async def test_all_requests_are_served_when_told_so_but_those_that_say_off() -> None:
    async with cached_echo(CachePolicy(only_deterministic=False)) as provider:
        await provider.generate_completion(None, "hi")
        assert (await provider.generate_completion(None, "hi")).cached
        off = await provider.generate_completion(None, "hi", options={"response_cache": "off"})
        assert not off.cached


async def test_refresh_asks_anew_and_keeps_the_new_answer() -> None:
    provider = ScriptedProvider().answer("old").answer("new")
    provider.add_policy(CachePolicy())
    async with provider:
        assert (await ask(provider)).text == "old"
        fresh = await ask(provider, response_cache="refresh")
        assert (fresh.text, fresh.cached) == ("new", False)
        again = await ask(provider)
        assert (again.text, again.cached) == ("new", True)


async def test_only_models_that_fit_a_pattern_are_served() -> None:
    async with cached_echo(CachePolicy(models=["small-*"]), models=("small-1", "big")) as provider:
        for model, cached in (("small-1", True), ("big", False)):
            await provider.generate_completion(model, "hi", options=EXACT)
            answer = await provider.generate_completion(model, "hi", options=EXACT)
            assert answer.cached is cached


async def test_one_cache_of_a_manager_keeps_the_answers_of_providers_apart() -> None:
    manager = LLMProviderManager()
    cache = CachePolicy()
    manager.add_policy(cache)
    one, two = echo(id="one"), echo(id="two")
    manager.register_provider(one)
    manager.register_provider(two)
    await ask(one)
    assert not (await ask(two)).cached
    assert (await ask(one)).cached
    assert cache.stats.entries == 2
    await manager.close(0)


async def test_a_provider_that_passes_requests_on_leaves_the_cache_to_the_others() -> None:
    host = FakeHost()
    host.is_composite = True

    async def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield TextDelta("x")

    assert CachePolicy().wrap(exchange, host) is exchange


# ---- what is not kept ----------------------------------------------------------------------------


async def test_failures_are_not_kept() -> None:
    provider = ScriptedProvider().fail(ProviderOverloadedError("full")).answer("fine")
    provider.add_policy(CachePolicy())
    async with provider:
        with pytest.raises(ProviderOverloadedError):
            await ask(provider, retries=Retries(attempts=1))
        assert (await ask(provider)).text == "fine"


async def test_an_answer_that_breaks_off_is_not_kept() -> None:
    provider = ScriptedProvider().cut_after(1, "one two").answer("one two")
    provider.add_policy(cache := CachePolicy())
    async with provider:
        with pytest.raises(StreamInterruptedError):
            await ask(provider)
        assert cache.stats.stored == 0
        assert (await ask(provider)).text == "one two"


async def test_an_answer_that_its_reader_leaves_is_not_kept() -> None:
    cache = CachePolicy()
    async with cached_echo(cache) as provider:
        async with provider.stream_completion(None, "a b c", options=EXACT) as stream:
            async for _ in stream:
                break
        assert cache.stats.stored == 0
        assert (await ask(provider, "a b c")).text == "a b c"


async def test_a_cancelled_answer_is_not_kept() -> None:
    provider = ScriptedProvider().hang(text="one two", after_words=1).answer("whole")
    provider.add_policy(cache := CachePolicy())
    async with provider:
        stream = provider.stream_completion(None, "hi", options=EXACT)
        with pytest.raises(Exception, match="enough"):
            async for _ in stream:
                stream.cancel("enough")
        assert cache.stats.stored == 0
        assert (await ask(provider, "hi")).text == "whole"


@pytest.mark.parametrize(
    ("finish", "options", "kept"),
    [
        ("stop", {}, True),
        ("tool_calls", {}, True),
        ("content_filter", {}, False),
        ("other", {}, False),
        (None, {}, False),
        ("length", {}, False),
        ("length", {"max_tokens": 5}, True),
    ],
)
async def test_how_an_answer_ended_decides_whether_it_is_kept(finish, options, kept) -> None:
    async def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield TextDelta("x")
        if finish is not None:
            yield FinishDelta(finish)

    cache = CachePolicy()
    async for _ in cache.wrap(exchange, FakeHost())(a_request(**options)):
        pass
    assert cache.stats.stored == kept


async def test_an_answer_from_another_cache_is_not_kept_a_second_time() -> None:
    outer, inner = CachePolicy(), CachePolicy()
    async with echo() as provider:
        provider.add_policy(inner)
        await ask(provider)
        provider.remove_policy(inner)
        provider.add_policy(outer)
        provider.add_policy(inner)
        assert (await ask(provider)).cached
    assert outer.stats.stored == 0


# ---- the key -------------------------------------------------------------------------------------


def a_request(text: Any = "hello", **options: Any) -> LLMRequest:
    return LLMRequest(
        id="req-1",
        model="m",
        messages=(LLMMessage(role="user", content=text),),
        options=LLMRequestOptions(**{**EXACT, **options}),
    )


async def key_of(request: LLMRequest, host: Any = None) -> str | None:
    return await cache_key(request, host or FakeHost())


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.0},
        {"timeouts": {"total_s": 3.0}},
        {"retries": {"attempts": 9}},
        {"priority": "background"},
        {"supersede_key": "editor"},
        {"force": True},
        {"conversation_id": "c-1"},
        {"response_cache": "use"},
        {"prompt_cache": "5m"},
    ],
)
async def test_how_a_request_is_sent_does_not_change_its_key(more: dict[str, Any]) -> None:
    request = a_request()
    changed = as_options({**EXACT, **more})
    same = msgspec.structs.replace(
        request, options=changed, id="req-2", stream=False, parent_id="r"
    )
    assert await key_of(same) == await key_of(request)


@pytest.mark.parametrize(
    "more",
    [
        {"max_tokens": 5},
        {"top_p": 0.5},
        {"presence_penalty": 1.0},
        {"frequency_penalty": 1.0},
        {"stop": ("x",)},
        {"seed": 1},
        {"tools": (ToolDefinition(name="t"),)},
        {"tool_choice": "none"},
        {"parallel_tool_calls": False},
        {"response_format": "json_object"},
        {"reasoning_effort": "low"},
        {"include_raw": True},
        {"extra": {"top_k": 3}},
    ],
)
async def test_what_changes_the_answer_changes_the_key(more: dict[str, Any]) -> None:
    assert await key_of(a_request()) != await key_of(a_request(**more))


async def test_the_order_in_dictionaries_does_not_matter() -> None:
    one = a_request(extra={"a": 1, "b": {"c": 2, "d": 3}})
    two = a_request(extra={"b": {"d": 3, "c": 2}, "a": 1})
    assert await key_of(one) == await key_of(two)


async def test_the_place_is_part_of_the_key() -> None:
    request, other = a_request(), FakeHost()
    other.address = "http://127.0.0.1:8080/v1"
    assert await key_of(request) != await key_of(request, other)
    other = FakeHost()
    other.kind = "other"
    assert await key_of(request) != await key_of(request, other)
    other = FakeHost()
    other.set(provider_id="second")
    assert await key_of(request) != await key_of(request, other)


async def test_settings_that_may_change_answers_are_part_of_the_key() -> None:
    def of(**settings: Any) -> str:
        return OllamaProvider(base_url="http://127.0.0.1:9", **settings)._host.settings

    request, other = a_request(), FakeHost()
    other.settings = of(context_tokens=2048)
    assert await key_of(request) != await key_of(request, other)
    assert of(context_tokens=2048) != of(context_tokens=4096)
    assert of() == of(timeouts={"total_s": 5}, id="x", default_model="m", reconnect=Backoff())
    assert of(headers={"x": "1", "y": "2"}) == of(headers={"y": "2", "x": "1"})


def test_settings_of_any_kind_are_shown_in_one_order() -> None:
    class Own(EchoProvider):
        def __init__(self, *, memory: Any = None, **common: Any) -> None:
            super().__init__(**common)

    def of(memory: Any) -> str:
        return Own(memory=memory)._host.settings

    assert of({0: "10GiB", "cpu": "30GiB"}) == of({"cpu": "30GiB", 0: "10GiB"})
    assert of({0: "10GiB"}) != of({0: "20GiB"})
    assert of(Timeouts(total_s=1)) != of(Timeouts(total_s=2))
    assert of(len) == of(print)


async def test_new_settings_are_asked_anew() -> None:
    async with echo(words_per_s=1000) as provider:
        provider.add_policy(CachePolicy(only_deterministic=False))
        for cached in (False, True):
            assert (await provider.generate_completion("echo", "hello")).cached is cached
        await provider.update_config(words_per_s=2000)
        for cached in (False, True):
            assert (await provider.generate_completion("echo", "hello")).cached is cached


def test_no_key_is_in_what_is_shown_of_settings() -> None:
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz"
    provider = OpenAICompatibleProvider(
        base_url="http://127.0.0.1:9",
        api_key=key,
        headers={"X-Token": "my-own-token-12345678", "Authorization": f"Bearer {key}"},
    )
    shown = provider._host.settings
    assert "X-Token" in shown
    assert key not in shown
    assert "my-own-token" not in shown


async def test_images_are_compared_by_their_content() -> None:
    def with_image(data: bytes) -> LLMRequest:
        return a_request(
            (TextPart(text="what is it?"), ImagePart(data=data, media_type="image/png"))
        )

    large = b"x" * 2_000_000
    assert await key_of(with_image(b"one")) == await key_of(with_image(b"one"))
    assert await key_of(with_image(b"one")) != await key_of(with_image(b"two"))
    assert await key_of(with_image(large)) == await key_of(with_image(bytes(large)))
    assert await key_of(with_image(large)) != await key_of(with_image(large + b"x"))


async def test_a_key_is_a_hash_and_holds_no_secret() -> None:
    key = await key_of(a_request("my password is hunter2", extra={"api_key": "sk-12345"}))
    assert key is not None
    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")


async def test_what_cannot_be_compared_is_sent_and_not_kept() -> None:
    async def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield TextDelta("x")
        yield FinishDelta("stop")

    cache = CachePolicy()
    wrapped = cache.wrap(exchange, FakeHost())
    for _ in range(2):
        assert len([d async for d in wrapped(a_request(extra={"o": object()}))]) == 2
    assert cache.stats.stored == 0


# ---- limits --------------------------------------------------------------------------------------


async def test_the_least_recently_used_answer_goes_first() -> None:
    async with cached_echo(CachePolicy(max_entries=2)) as provider:
        await ask(provider, "one")
        await ask(provider, "two")
        await ask(provider, "one")
        await ask(provider, "three")
        assert (await ask(provider, "one")).cached
        assert not (await ask(provider, "two")).cached


async def test_memory_is_bounded_in_bytes() -> None:
    cache = CachePolicy(max_bytes=2000)
    async with cached_echo(cache) as provider:
        for number in range(50):
            await ask(provider, f"{number} " + "x" * 300)
        assert 0 < cache.stats.size_bytes <= 2000
        before = cache.stats
        await ask(provider, "y" * 5000)
        assert not (await ask(provider, "y" * 5000)).cached
        assert cache.stats.entries == before.entries


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_an_answer_becomes_too_old(kind: str, tmp_path: Path) -> None:
    clock = FakeClock()
    store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "answers")
    async with cached_echo(CachePolicy(store, max_age_s=60, clock=clock)) as provider:
        await ask(provider)
        clock.advance(50)
        assert (await ask(provider)).cached
        clock.advance(20)
        assert not (await ask(provider)).cached
    if isinstance(store, SqliteStore):
        store.close()


async def test_clearing_forgets_everything() -> None:
    cache = CachePolicy()
    async with cached_echo(cache) as provider:
        await ask(provider)
        await cache.clear()
        assert (cache.stats.entries, cache.stats.size_bytes) == (0, 0)
        assert not (await ask(provider)).cached


@pytest.mark.parametrize(
    "settings",
    [
        {"max_entries": 0},
        {"max_bytes": -1},
        {"max_age_s": 0},
        {"max_age_s": "1"},
        {"only_deterministic": "yes"},
        {"models": []},
        {"models": [1]},
        {"models": 5},
        {"store": object()},
        {"store": MemoryStore},
        {"store": MemoryStore(), "max_bytes": 5},
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError):
        CachePolicy(**settings)


# ---- the file ------------------------------------------------------------------------------------


async def test_a_file_outlives_the_process_that_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.sqlite"
    for cached in (False, True):
        with SqliteStore(path) as store:
            async with cached_echo(CachePolicy(store)) as provider:
                assert (await ask(provider)).cached is cached
    assert os.listdir(path.parent) == ["answers.sqlite"]


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
async def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "answers") as store:
        async with cached_echo(CachePolicy(store)) as provider:
            await ask(provider)
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {0o600}


async def test_a_file_holds_no_prompt(tmp_path: Path) -> None:
    provider = ScriptedProvider().answer("a harmless answer")
    with SqliteStore(tmp_path / "answers") as store:
        provider.add_policy(CachePolicy(store))
        async with provider:
            await ask(provider, "my very private question")
    data = (tmp_path / "answers").read_bytes()
    assert b"harmless" in data
    assert b"private" not in data


async def test_a_file_is_bounded_and_forgets_what_was_not_used_for_longest(tmp_path: Path) -> None:
    clock = FakeClock()
    with SqliteStore(tmp_path / "answers", max_entries=3, max_bytes=10_000) as store:
        cache = CachePolicy(store, clock=clock)
        async with cached_echo(cache) as provider:
            for text in ("one", "two", "three"):
                await ask(provider, text)
                clock.advance(100)
            assert (await ask(provider, "one")).cached
            clock.advance(100)
            await ask(provider, "four")
            assert cache.stats.entries == 3
            assert (await ask(provider, "one")).cached
            assert not (await ask(provider, "two")).cached
            await ask(provider, "x" * 9_000)
            assert cache.stats.size_bytes <= 10_000


async def test_clearing_a_file_makes_it_small(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with SqliteStore(path) as store:
        cache = CachePolicy(store)
        async with cached_echo(cache) as provider:
            await ask(provider, "x" * 500_000)
            await cache.clear()
            assert not (await ask(provider, "short")).cached
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize(
    "content",
    [b"this is no database, and never was" * 100, b"SQLite format 3\x00" + b"\xff" * 5000],
)
async def test_a_corrupt_file_is_renamed_aside_and_a_new_one_begun(tmp_path, content) -> None:
    path = tmp_path / "answers"
    path.write_bytes(content)
    with SqliteStore(path) as store:
        cache = CachePolicy(store)
        async with cached_echo(cache) as provider:
            errors: list[Any] = []
            provider.subscribe(errors.append, "error", delivery="inline")
            assert (await ask(provider)).text == "hello there"
            assert (await ask(provider)).cached
    (aside,) = tmp_path.glob("answers.corrupt-*")
    assert aside.read_bytes() == content
    (event,) = errors
    assert (event.error.code, event.operation) == ("cache_corrupt", "cache")
    assert aside.name in event.error.message
    assert event.request_id is not None
    assert cache.stats.failures == 1


async def test_a_file_that_is_damaged_while_it_is_open_is_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with SqliteStore(path) as store:
        async with cached_echo(CachePolicy(store)) as provider:
            for number in range(20):
                await ask(provider, f"{number} " + "x" * 2000)
            store.close()
            whole = path.read_bytes()
            path.write_bytes(whole[:4096] + b"\x99" * (len(whole) - 4096))
            for number in range(20):
                assert (await ask(provider, f"{number} " + "x" * 2000)).text
    assert list(tmp_path.glob("answers.corrupt-*"))


async def test_damaged_answers_in_a_sound_file_are_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with SqliteStore(path) as store:
        async with cached_echo(CachePolicy(store)) as provider:
            await ask(provider)
            store.close()
            with sqlite3.connect(path) as db:
                db.execute("UPDATE answers SET body = x'93ff00'")
            db.close()
            assert not (await ask(provider)).cached
            assert (await ask(provider)).cached


async def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE answers (money INTEGER)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with SqliteStore(path) as store:
        cache = CachePolicy(store)
        async with cached_echo(cache) as provider:
            assert (await ask(provider)).text == "hello there"
        with pytest.raises(ConfigurationError, match="something else"):
            await cache.clear()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["accounts"]


async def test_a_file_of_another_format_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with SqliteStore(path) as store:
        async with cached_echo(CachePolicy(store)) as provider:
            await ask(provider)
            store.close()
            db = sqlite3.connect(path)
            db.execute("PRAGMA user_version = 999")
            db.close()
            assert not (await ask(provider)).cached
            assert (await ask(provider)).cached


async def test_a_place_that_cannot_be_written_to_fails_no_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with SqliteStore(tmp_path / "file" / "answers") as store:
        cache = CachePolicy(store)
        async with cached_echo(cache) as provider:
            assert (await ask(provider)).text == "hello there"
    assert cache.stats.failures == 2
    with pytest.raises(ConfigurationError) as caught:
        await cache.clear()
    assert caught.value.code == "cache_unusable"


async def test_a_file_that_another_process_holds_locked_fails_no_request(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with SqliteStore(path) as store:
        async with cached_echo(CachePolicy(store)) as provider:
            await ask(provider, "first")
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            assert (await ask(provider, "second")).text == "second"
            other.execute("ROLLBACK")
            other.close()
            assert not list(tmp_path.glob("*.corrupt-*"))
            assert (await ask(provider, "first")).cached


async def test_requests_do_not_queue_up_behind_a_file_that_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with SqliteStore(path) as store:
        async with cached_echo(CachePolicy(store)) as provider:
            await ask(provider, "first")
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.timeout(10):  # each of them waited for a second
                await asyncio.gather(*(ask(provider, f"number {n}") for n in range(20)))
            other.execute("ROLLBACK")
            other.close()
            await ask(provider, "second")
            assert (await ask(provider, "second")).cached


@pytest.mark.parametrize("max_age_s", [None, 1800])
async def test_a_hit_is_one_although_its_use_cannot_be_noted(tmp_path, max_age_s) -> None:
    clock = FakeClock()
    path = tmp_path / "answers"
    with SqliteStore(path) as store:
        cache = CachePolicy(store, clock=clock, max_age_s=max_age_s)
        async with cached_echo(cache) as provider:
            await ask(provider)
            clock.advance(900)
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            assert (await ask(provider)).cached
            assert cache.stats.failures == 0
            other.close()


@pytest.mark.parametrize("gone", ["file", "file and what is beside it", "folder"])
async def test_a_file_that_is_deleted_while_it_is_open_is_begun_anew(tmp_path, gone: str) -> None:
    path = tmp_path / "folder" / "answers"
    with SqliteStore(path) as store:
        async with cached_echo(CachePolicy(store)) as provider:
            await ask(provider, "first")
            for file in path.parent.iterdir():
                if file == path or gone != "file":
                    file.unlink()
            if gone == "folder":
                path.parent.rmdir()
            await ask(provider, "second")
            with SqliteStore(path) as of_another_process:
                other = CachePolicy(of_another_process)
                async with cached_echo(other) as another:
                    assert (await ask(another, "second")).cached


@pytest.mark.parametrize("change", ["body = 10000000000000", "created_s = 'x'", "used_s = x'00'"])
async def test_values_of_another_type_are_asked_for_again(tmp_path: Path, change: str) -> None:
    path = tmp_path / "answers"
    with SqliteStore(path) as store:
        async with cached_echo(CachePolicy(store)) as provider:
            await ask(provider)
            store.close()
            with sqlite3.connect(path) as db:
                db.execute(f"UPDATE answers SET {change}")
            db.close()
            assert not (await ask(provider)).cached
            assert (await ask(provider)).cached


async def test_a_file_cut_off_or_damaged_anywhere_fails_no_request(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with SqliteStore(whole) as store:
        for number in range(40):
            await store.put(f"{number:064x}", b"body" * number, now_s=1000.0 + number)
    content = whole.read_bytes()
    damaged = [content[:end] for end in range(0, len(content), 512)]
    damaged += [
        content[:at] + b"\xe0" + content[at + 1 :]
        for at in (*range(100), *range(content.index(b"CREATE"), content.rindex(b"size)")))
    ]
    for number, left in enumerate(damaged):
        path = tmp_path / str(number)
        path.write_bytes(left)
        with SqliteStore(path) as store:
            for _ in range(2):
                with suppress(ConfigurationError):
                    await store.get(f"{3:064x}", now_s=2000.0, oldest_s=0.0)
                with suppress(ConfigurationError):
                    await store.put("key", b"body", now_s=2000.0)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits for the size of files")
def test_a_full_disk_fails_no_request(tmp_path: Path) -> None:
    code = """
import asyncio, resource, sys
from llm_manager import CachePolicy, EchoProvider, SqliteStore

async def main():
    exact = {"temperature": 0}
    with SqliteStore(sys.argv[1]) as store:
        cache = CachePolicy(store)
        async with EchoProvider(words_per_s=float("inf")) as provider:
            provider.add_policy(cache)
            await provider.generate_completion(None, "small", options=exact)
            resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))
            large = "word " * 20_000
            for _ in range(2):
                answer = await provider.generate_completion(None, large, options=exact)
                assert len(answer.text) > 90_000
            assert not answer.cached
            assert cache.stats.failures == 2, cache.stats
            assert (await provider.generate_completion(None, "small", options=exact)).cached

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "answers")], check=True, timeout=60)


WRITER = """
import asyncio, sys
from llm_manager import CachePolicy, EchoProvider, SqliteStore

async def main(path, name):
    errors = []
    with SqliteStore(path) as store:
        provider = EchoProvider(words_per_s=float("inf"))
        provider.add_policy(CachePolicy(store))
        provider.subscribe(errors.append, "error", delivery="inline")
        async with provider:
            for number in range(30):
                await provider.generate_completion(
                    None, f"{name} {number}", options={"temperature": 0}
                )
    print(len(errors), errors[:1])

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


async def test_several_processes_share_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "answers")
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", WRITER, path, name,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name in ("one", "two", "three")
    ]  # fmt: skip
    for writer in writers:
        out, err = await writer.communicate()
        assert (writer.returncode, out.split()[:1]) == (0, [b"0"]), (out, err)
    with SqliteStore(path) as store:
        async with cached_echo(CachePolicy(store)) as provider:
            assert (await ask(provider, "two 29")).cached
        assert store.entries == 90


async def test_a_store_that_is_dropped_closes_its_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "answers")
    await store.put("k", b"body", now_s=1.0)
    assert len(os.listdir(tmp_path)) > 1
    del store
    # The thread that has worked for it may hold it for a moment longer; nothing tells when not.
    async with asyncio.timeout(10):
        while os.listdir(tmp_path) != ["answers"]:
            gc.collect()
            await asyncio.sleep(0.01)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
async def test_a_forked_child_opens_the_file_for_itself(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys
from llm_manager import SqliteStore
store = SqliteStore(sys.argv[1])
asyncio.run(store.put("k", b"body", now_s=1.0))
child = os.fork()
if child == 0:
    body = asyncio.run(store.get("k", now_s=2.0, oldest_s=0.0))
    asyncio.run(store.put("child", b"c", now_s=2.0))
    store.close()
    os._exit(0 if body == b"body" else 1)
assert os.waitpid(child, 0)[1] == 0
assert asyncio.run(store.get("child", now_s=3.0, oldest_s=0.0)) == b"c"
store.close()
"""
    subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code, str(tmp_path / "answers")],
        check=True,
        timeout=60,
    )


def test_a_path_that_is_none_is_refused() -> None:
    for path in ("", None, 5, b"answers", "answers\0"):
        with pytest.raises(InvalidParameterError):
            SqliteStore(path)  # type: ignore[arg-type]


async def test_a_store_of_ones_own_can_be_given() -> None:
    class JsonStore:
        def __init__(self) -> None:
            self.kept: dict[str, str] = {}

        entries = size_bytes = 0

        async def get(self, key: str, *, now_s: float, oldest_s: float) -> bytes | None:
            found = self.kept.get(key)
            return None if found is None else bytes(json.loads(found))

        async def put(self, key: str, body: bytes, *, now_s: float) -> None:
            self.kept[key] = json.dumps(list(body))

        async def clear(self) -> None:
            self.kept.clear()

    async with cached_echo(CachePolicy(JsonStore())) as provider:
        await ask(provider)
        assert (await ask(provider)).cached


async def test_an_answer_that_comes_after_new_settings_is_not_kept_for_the_old_ones() -> None:
    cache = CachePolicy(only_deterministic=False)
    async with echo() as provider:
        provider.add_policy(cache)
        pieces = aiter(provider.stream_completion("echo", "one two three"))
        await anext(pieces)
        await provider.update_config(words_per_s=1e6)
        assert [piece.kind async for piece in pieces][-1] == "done"
        assert cache.stats.stored == 0
        await provider.generate_completion("echo", "one two three")
        assert cache.stats.stored == 1


async def test_a_store_that_raises_anything_fails_no_request() -> None:
    class Broken(MemoryStore):
        async def get(self, key: str, **times: float) -> bytes | None:
            raise OSError("the disk is gone")

        async def put(self, key: str, body: bytes, **times: float) -> None:
            raise ValueError("no")

    async with echo() as provider:
        record = Record(provider)
        provider.add_policy(CachePolicy(Broken(), only_deterministic=False))
        assert (await provider.generate_completion("echo", "hi")).text == "hi"
        await provider.flush()
        assert [event.error.type for event in record.named("error")] == [
            "ProviderConnectionError", "ProviderError",
        ]  # fmt: skip


async def test_settings_that_cannot_be_shown_are_like_no_others() -> None:
    class Own(EchoProvider):
        def __init__(self, *, memory: Any = None, **common: Any) -> None:
            super().__init__(**common)

    endless: list[Any] = []
    endless.append(endless)
    assert Own(memory=endless)._host.settings != Own(memory=endless)._host.settings
