"""What some servers of the OpenAI dialect insist on."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager.errors import UnsupportedFeatureError
from llm_manager.messages import LLMMessage, ToolCall, ToolDefinition
from llm_manager.wire.dialect_habits import alphanumeric_9
from llm_manager.wire.openai_chat import ChatDialect, OpenAIChat

from .wire_reading import quick, request_for

CALL = ToolCall(id="call_abc-1", name="look")
HISTORY = (
    LLMMessage.user("look"),
    LLMMessage(role="assistant", content="I look.", reasoning="Hm.", tool_calls=(CALL,)),
    LLMMessage.tool("call_abc-1", "a cat"),
)


def body(*messages: LLMMessage, dialect: ChatDialect, **options: Any) -> dict[str, Any]:
    return json.loads(OpenAIChat(dialect).encode(request_for(*messages, **options)))


# ---- ids of tool calls ---------------------------------------------------------------------------


@quick
@given(st.text())
def test_an_id_becomes_nine_letters_and_digits_always_the_same(id: str) -> None:
    short = alphanumeric_9(id)
    assert re.fullmatch("[A-Za-z0-9]{9}", short)
    assert alphanumeric_9(id) == short == alphanumeric_9(short)


def test_a_call_and_its_result_keep_belonging_together() -> None:
    sent = body(*HISTORY, dialect=ChatDialect(tool_call_ids="alphanumeric_9"))["messages"]
    id = sent[1]["tool_calls"][0]["id"]
    assert id == sent[2]["tool_call_id"] == alphanumeric_9("call_abc-1") != "call_abc-1"
    plain = body(*HISTORY, dialect=ChatDialect())["messages"]
    assert plain[2]["tool_call_id"] == "call_abc-1"


def test_a_server_that_cannot_be_told_about_parallel_calls_is_not_told() -> None:
    asked = {"tools": [ToolDefinition(name="look")], "parallel_tool_calls": False}
    assert body(dialect=ChatDialect(), **asked)["parallel_tool_calls"] is False
    with pytest.raises(UnsupportedFeatureError, match="how many tools to call at once"):
        body(dialect=ChatDialect(parallel_tool_calls=False), **asked)


# ---- system messages -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "sent"),
    [
        ("u", ["u:0"]),
        ("su", ["s:0", "u:1"]),
        ("ssu", ["s:0\n\n1", "u:2"]),
        ("us", ["s:1", "u:0"]),
        ("suas", ["s:0\n\n3", "u:1", "a:2"]),
    ],
)
def test_several_system_messages_become_one_at_the_beginning(roles: str, sent: list[str]) -> None:
    words = {"u": "user", "s": "system", "a": "assistant"}
    messages = [LLMMessage(role=words[r], content=str(i)) for i, r in enumerate(roles)]
    found = body(*messages, dialect=ChatDialect(one_system_message=True))["messages"]
    assert [f"{m['role'][0]}:{m['content']}" for m in found] == sent


# ---- reasoning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("efforts", "asked", "sent"),
    [
        ((), "minimal", "minimal"),
        (("none", "high"), "none", "none"),
        (("none", "high"), "minimal", "high"),
        (("none", "high"), "medium", "high"),
        (("none", "high"), "max", "high"),
        (("low", "medium"), "high", "medium"),
        (("low", "high"), "medium", "high"),
        (("low", "max"), "high", "max"),
    ],
)
def test_an_effort_becomes_a_word_of_the_server(efforts: Any, asked: Any, sent: str) -> None:
    found = body(dialect=ChatDialect(efforts=efforts), reasoning_effort=asked)
    assert found["reasoning_effort"] == sent


def test_reasoning_that_cannot_be_switched_off_is_not_quietly_left_on() -> None:
    with pytest.raises(UnsupportedFeatureError, match="cannot switch the reasoning off"):
        body(dialect=ChatDialect(efforts=("low", "high")), reasoning_effort="none")


def test_reasoning_goes_back_as_tags_and_only_to_those_who_want_it() -> None:
    dialect = ChatDialect(reasoning_sent_back="think_tags")
    assert body(*HISTORY, dialect=dialect)["messages"][1]["content"] == (
        "<think>\nHm.\n</think>\n\nI look."
    )
    to_some = ChatDialect(reasoning_sent_back="think_tags", reasoning_sent_back_to=("some-",))
    assert body(*HISTORY, dialect=to_some) == body(*HISTORY, dialect=dialect)
    to_others = ChatDialect(reasoning_sent_back="think_tags", reasoning_sent_back_to=("glm",))
    assert body(*HISTORY, dialect=to_others)["messages"][1]["content"] == "I look."


@pytest.mark.parametrize(
    ("choice", "effort", "refused"),
    [
        ("required", "low", True),
        ("look", "low", True),
        ("required", "none", False),
        ("required", None, False),
        ("auto", "low", False),
    ],
)
def test_a_tool_cannot_be_forced_while_the_model_reasons(choice, effort, refused) -> None:
    dialect = ChatDialect(forced_tool_choice_while_reasoning=False)
    asked = {
        "tools": [ToolDefinition(name="look")],
        "tool_choice": choice,
        "reasoning_effort": effort,
    }
    if refused:
        with pytest.raises(UnsupportedFeatureError, match="to call a tool while it reasons"):
            body(dialect=dialect, **asked)
    else:
        assert body(dialect=dialect, **asked)["tool_choice"]
