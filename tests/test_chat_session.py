"""`LLM.chat`: a conversation that remembers whole exchanges, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from llm_manager import (
    LLM,
    ChatSession,
    ContextWindowExceededError,
    EchoAnswer,
    InvalidParameterError,
    LLMMessage,
    LLMProviderManager,
    ProviderOverloadedError,
    StreamInterruptedError,
    ToolDefinition,
    create_llm,
    run_sync,
    trim_messages,
)

from .helpers import Record
from .test_create_llm import PNG, add, asks_to_add, last_request, roles_and_texts, script


@pytest.fixture
def llm() -> Iterator[LLM]:
    with create_llm("echo", words_per_s=float("inf")) as made:
        yield made


def texts(session: ChatSession) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in session.messages]


ONE_AND_TWO = [("user", "one"), ("assistant", "one"), ("user", "two"), ("assistant", "two")]


def test_a_session_sends_what_was_said_before(llm: LLM) -> None:
    session = llm.chat("Be brief.")
    assert session.send("one") == "one"
    assert session.send("two") == "two"
    assert roles_and_texts(llm) == [("system", "Be brief."), *ONE_AND_TWO[:3]]
    assert texts(session) == [("system", "Be brief."), *ONE_AND_TWO]
    assert len(session) == 2


def test_without_a_system_prompt_it_takes_the_one_that_is_set(llm: LLM) -> None:
    llm.set_config(system_prompt="Be kind.")
    assert texts(llm.chat()) == [("system", "Be kind.")]
    assert texts(llm.chat("Be brief.")) == [("system", "Be brief.")]


def test_a_stream_counts_when_it_was_read_to_its_end(llm: LLM) -> None:
    session = llm.chat()
    assert list(session.send("one two", stream=True)) == ["one ", "two"]
    for _ in session.send("three four", stream=True):
        break
    assert texts(session) == [("user", "one two"), ("assistant", "one two")]


async def test_a_task_sends_as_well(llm: LLM) -> None:
    session = llm.chat()
    assert await session.send_async("one") == "one"
    assert [text async for text in await session.send_async("two", stream=True)] == ["two"]
    assert texts(session) == ONE_AND_TWO


@pytest.mark.parametrize("after_words", [0, 2])
def test_a_question_that_failed_leaves_no_trace(llm: LLM, after_words: int) -> None:
    session = llm.chat()
    session.send("one")
    error = StreamInterruptedError("broken off") if after_words else ProviderOverloadedError("no")
    script(llm, EchoAnswer(error=error, text="a b c", after_words=after_words))
    with pytest.raises(type(error)):
        session.send("two", retries={"attempts": 1})
    assert texts(session) == ONE_AND_TWO[:2]
    session.send("two")
    assert texts(session) == ONE_AND_TWO


def test_calls_of_tools_belong_to_their_exchange(llm: LLM) -> None:
    session = llm.chat()
    script(llm, asks_to_add("Well."), EchoAnswer(text="3"))
    assert session.send("1 + 2?", tools=[add]) == "3"
    assert [message.role for message in session.messages] == [
        "user", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert len(session) == 1
    script(llm, asks_to_add("Well."), EchoAnswer(text="3"))
    assert "".join(session.send("again?", tools=[add], stream=True)) == "Well.3"
    assert len(session.messages) == 8
    session.send("and now?")
    assert [message.role for message in last_request(llm).messages][:4] == [
        "user", "assistant", "tool", "assistant",
    ]  # fmt: skip


def test_a_definition_alone_is_refused(llm: LLM) -> None:
    for tool in (ToolDefinition(name="add"), {"name": "add"}):
        with pytest.raises(InvalidParameterError, match="cannot be run"):
            llm.chat().send("1 + 2?", tools=[tool])  # type: ignore[list-item]


def test_files_stay_in_the_history(llm: LLM) -> None:
    session = llm.chat()
    session.send("What is this?", files=[PNG])
    session.send("And now?")
    assert len(last_request(llm).messages[0].content) == 2


def test_undo_takes_back_the_last_exchange(llm: LLM) -> None:
    session = llm.chat("Be brief.")
    session.send("one")
    session.send("two")
    assert [message.text for message in session.undo()] == ["two", "two"]
    assert texts(session) == [("system", "Be brief."), *ONE_AND_TWO[:2]]
    session.undo()
    assert session.undo() == ()
    assert texts(session) == [("system", "Be brief.")]


def test_clear_begins_anew_and_leaves_out_what_is_still_to_come(llm: LLM) -> None:
    session = llm.chat("Be brief.")
    session.send("one")
    stream = session.send("two three", stream=True)
    next(stream)
    session.clear()
    assert list(stream) == ["three"]
    assert texts(session) == [("system", "Be brief.")]
    session.send("four")
    assert len(session) == 1


def test_a_session_goes_on_where_another_ended(llm: LLM) -> None:
    session = llm.chat("Be brief.")
    session.send("one")
    later = llm.chat(messages=session.messages)
    later.send("two")
    assert texts(later) == [("system", "Be brief."), *ONE_AND_TWO]
    later.clear()
    assert texts(later) == texts(session)
    with pytest.raises(InvalidParameterError, match="system message already"):
        llm.chat("Be long.", messages=session.messages)


def test_a_message_as_a_dictionary_will_do(llm: LLM) -> None:
    session = llm.chat(messages=[{"role": "user", "content": "one"},
                                 {"role": "assistant", "content": "one"}])  # fmt: skip
    session.send("two")
    assert texts(session) == ONE_AND_TWO


def test_questions_at_the_same_time_leave_whole_exchanges(llm: LLM) -> None:
    session = llm.chat()
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(session.send, map(str, range(50))))
    pairs = [(a.text, b.text) for a, b in zip(*[iter(session.messages)] * 2, strict=True)]
    assert sorted(pairs) == sorted((str(n), str(n)) for n in range(50))


def test_a_session_is_told_by_its_id(llm: LLM) -> None:
    manager = LLMProviderManager()
    manager.register_provider(llm.provider)
    heard = Record(manager)
    session = llm.chat()
    session.send("one")
    session.send("two", conversation_id="mine")
    told = [event.conversation_id for event in heard.named("requestFinished")]
    assert told == [session.id, "mine"]
    assert llm.chat().id != session.id


# ---- trimming ------------------------------------------------------------------------------------


def last_two(messages: Sequence[LLMMessage]) -> Sequence[LLMMessage]:
    return messages[-2:]


async def last_two_async(messages: Sequence[LLMMessage]) -> Sequence[LLMMessage]:
    await asyncio.sleep(0)
    return messages[-2:]


@pytest.mark.parametrize("trim", [last_two, last_two_async, lambda m: last_two_async(m)])
def test_what_is_sent_is_trimmed_and_what_is_kept_is_not(llm: LLM, trim: Any) -> None:
    session = llm.chat(trim=trim)
    session.send("one")
    session.send("two")
    assert roles_and_texts(llm) == [("assistant", "one"), ("user", "two")]
    script(llm, asks_to_add(), EchoAnswer(text="3"))
    session.send("1 + 2?", tools=[add])
    assert [text for _, text in texts(session)] == [
        "one",
        "one",
        "two",
        "two",
        "1 + 2?",
        "",
        "3",
        "3",
    ]


def test_a_strategy_leaves_out_what_the_model_cannot_read_and_tells(llm: LLM) -> None:
    run_sync(llm.provider.connect())  # now the window of its model is known: 8192 tokens
    session = llm.chat("Be brief.", trim="drop_oldest")
    session.send("word " * 4000)
    assert session.trimmed is not None
    assert session.trimmed.dropped == ()
    session.send("again " * 4000)
    assert [message.role for message in last_request(llm).messages] == ["system", "user"]
    assert [message.role for message in session.trimmed.dropped] == ["user", "assistant"]
    assert len(session.messages) == 5


def test_the_room_for_the_answer_is_kept_free(llm: LLM) -> None:
    run_sync(llm.provider.connect())
    session = llm.chat(trim="drop_oldest")
    llm.set_config(max_tokens=8000)
    with pytest.raises(ContextWindowExceededError):
        session.send("word " * 1000)
    assert len(session) == 0


def test_trim_messages_with_a_limit_of_ones_own_will_do(llm: LLM) -> None:
    session = llm.chat(trim=partial(trim_messages, max_tokens=100))
    for _ in range(10):
        session.send("one two three four")
    assert session.trimmed is not None
    assert session.trimmed.dropped
    assert len(last_request(llm).messages) < 12
    assert len(session.messages) == 20


def test_a_strategy_that_is_none_is_refused(llm: LLM) -> None:
    with pytest.raises(InvalidParameterError, match="strategy"):
        llm.chat(trim="drop_newest").send("one")  # type: ignore[arg-type]


def test_a_function_that_trims_too_much_is_told(llm: LLM) -> None:
    session = llm.chat(trim=lambda messages: ())
    with pytest.raises(InvalidParameterError, match="messages is empty"):
        session.send("one")
    assert len(session) == 0


def test_it_shows_how_long_it_is_and_nothing_that_was_said(llm: LLM) -> None:
    session = llm.chat()
    session.send("a private matter")
    assert repr(session) == f"<ChatSession {session.id}, 1 exchanges>"
    assert run_sync(session.send_async("more")) == "more"
