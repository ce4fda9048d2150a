"""Encoding OpenAI chat requests: what is sent for what was asked."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llm_manager.errors import InvalidParameterError, UnsupportedFeatureError
from llm_manager.messages import (
    FilePart,
    ImagePart,
    LLMMessage,
    TextPart,
    ToolCall,
    ToolDefinition,
)
from llm_manager.wire.openai_chat import ChatDialect, OpenAIChat

from .wire_reading import request_for

USUAL = ChatDialect()
TOOL = ToolDefinition(name="look", description="Looks.", parameters={"type": "object"})
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def body(*messages: LLMMessage, dialect: ChatDialect = USUAL, **options: Any) -> dict[str, Any]:
    return json.loads(OpenAIChat(dialect).encode(request_for(*messages, **options)))


def message(sent: LLMMessage, dialect: ChatDialect = USUAL) -> dict[str, Any]:
    return body(sent, dialect=dialect)["messages"][0]


def test_a_plain_request_says_no_more_than_it_must() -> None:
    assert body() == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert body(stream=False) == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    }


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (LLMMessage.system("be brief"), {"role": "system", "content": "be brief"}),
        (LLMMessage(role="user", content="é😀", name="ann"),
         {"role": "user", "content": "é😀", "name": "ann"}),
        (LLMMessage.user(TextPart(text="a"), TextPart(text="b")),
         {"role": "user", "content": "ab"}),
        (LLMMessage.assistant("Hi"), {"role": "assistant", "content": "Hi"}),
        (LLMMessage.tool("c1", "42"), {"role": "tool", "content": "42", "tool_call_id": "c1"}),
        (LLMMessage.assistant(tool_calls=[ToolCall(id="c1", name="f", arguments_json='{"x":1}')]),
         {"role": "assistant", "content": None, "tool_calls": [
             {"id": "c1", "type": "function",
              "function": {"name": "f", "arguments": '{"x":1}'}}]}),
        (LLMMessage.assistant("Well", tool_calls=[ToolCall(id="c1", name="f", arguments_json="")]),
         {"role": "assistant", "content": "Well", "tool_calls": [
             {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}),
        (LLMMessage(role="assistant", content="Hi", reasoning="hm"),
         {"role": "assistant", "content": "Hi"}),
        (LLMMessage.user("what?", ImagePart(data=b"\x89PNG", media_type="image/png")),
         {"role": "user", "content": [
             {"type": "text", "text": "what?"},
             {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}]}),
        (LLMMessage.user(ImagePart(url="https://x/y.png", detail="low")),
         {"role": "user", "content": [
             {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}]}),
        (LLMMessage.user(FilePart(data=b"%PDF", media_type="application/pdf", filename="a.pdf")),
         {"role": "user", "content": [
             {"type": "file", "file": {"filename": "a.pdf",
                                       "file_data": "data:application/pdf;base64,JVBERg=="}}]}),
        (LLMMessage.user(FilePart(url="data:text/plain;base64,aGk=")),
         {"role": "user", "content": [
             {"type": "file", "file": {"filename": "file",
                                       "file_data": "data:text/plain;base64,aGk="}}]}),
    ],
)  # fmt: skip
def test_each_kind_of_message(sent: LLMMessage, expected: dict[str, Any]) -> None:
    assert message(sent) == expected


def test_options_are_sent_under_their_names_and_only_if_given() -> None:
    sent = body(
        temperature=0,
        max_tokens=5,
        top_p=0.5,
        presence_penalty=1,
        frequency_penalty=-1,
        stop=["a", "b"],
        seed=0,
        reasoning_effort="low",
        response_format="text",
    )
    for name in ("model", "messages", "stream", "stream_options"):
        del sent[name]
    assert sent == {
        "temperature": 0,
        "max_tokens": 5,
        "top_p": 0.5,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "stop": ["a", "b"],
        "seed": 0,
        "reasoning_effort": "low",
    }


def test_tools_and_the_choice_among_them() -> None:
    function = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
    sent = body(tools=[TOOL])
    assert sent["tools"] == [{"type": "function", "function": function}]
    assert "tool_choice" not in sent
    for choice in ("auto", "none", "required"):
        assert body(tools=[TOOL], tool_choice=choice)["tool_choice"] == choice
    named = {"type": "function", "function": {"name": "look"}}
    assert body(tools=[TOOL], tool_choice="look")["tool_choice"] == named
    assert "description" not in body(tools=[ToolDefinition(name="x")])["tools"][0]["function"]


def test_a_choice_without_tools_is_not_sent() -> None:
    assert "tool_choice" not in body(tool_choice="auto")


def test_response_formats() -> None:
    assert body(response_format="json_object")["response_format"] == {"type": "json_object"}
    assert body(response_format=SCHEMA)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": False, "schema": SCHEMA},
    }


def test_a_schema_is_strict_exactly_if_that_changes_nothing_about_it() -> None:
    strict = {**SCHEMA, "required": ["a"]}
    sent = body(response_format=strict)["response_format"]["json_schema"]
    assert sent["strict"] is True
    assert sent["schema"] == {**strict, "additionalProperties": False}
    for loose in (
        {**strict, "additionalProperties": True, "properties": {}},
        {**strict, "patternProperties": {"^x": {}}},
        {**strict, "properties": {"a": {"type": "string", "minLength": 3}}},
        {**strict, "properties": {"a": {"type": "string", "format": "uri"}}},
        {**strict, "properties": {"a": True}},
        {**strict, "properties": {"a": {"anyOf": [{"allOf": []}]}}},
        {**strict, "properties": {"a": {"type": "object", "additionalProperties": {}}}},
        {"anyOf": [strict]},
        {"type": "array", "items": strict},
    ):
        sent = body(response_format=loose)["response_format"]["json_schema"]
        assert (sent["strict"], sent["schema"]) == (False, loose)


def test_tools_are_strict_where_the_dialect_and_the_schema_allow_it() -> None:
    free = ToolDefinition(name="free", parameters=SCHEMA)
    bound = ToolDefinition(name="bound", parameters={**SCHEMA, "required": ["a"]})
    dialect = ChatDialect(strict_tools=True)
    first, second = (t["function"] for t in body(dialect=dialect, tools=[free, bound])["tools"])
    assert "strict" not in first
    assert (second["strict"], second["parameters"]["additionalProperties"]) == (True, False)
    assert "strict" not in body(tools=[bound])["tools"][0]["function"]


def test_parallel_calls_can_be_forbidden_where_there_are_tools() -> None:
    assert body(tools=[TOOL], parallel_tool_calls=False)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in body(tools=[TOOL])
    assert "parallel_tool_calls" not in body(parallel_tool_calls=True)


OWN = ChatDialect(openai_models=True)


def of_model(model: str, dialect: ChatDialect = OWN, **options: Any) -> dict[str, Any]:
    request = msgspec.structs.replace(request_for(**options), model=model)
    return json.loads(OpenAIChat(dialect).encode(request))


def test_what_a_model_of_openai_refuses_while_it_reasons_is_left_out_and_named() -> None:
    options: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 1,
                               "frequency_penalty": 1}  # fmt: skip
    for model, effort, refuses in (
        ("o3", None, True), ("gpt-5", None, True), ("gpt-5.1", None, False),
        ("gpt-5.1", "low", True), ("gpt-5.5", "none", False), ("gpt-4o", None, False),
        ("gpt-5-chat-latest", None, False), ("gpt-5.2-chat-latest", None, True),
        ("openai/gpt-6-astra", None, True), ("ft:o4-mini:org", None, True),
    ):  # fmt: skip
        sent = of_model(model, reasoning_effort=effort, **options)
        assert options.keys().isdisjoint(sent) is refuses, model
        request = request_for(reasoning_effort=effort, **options)
        request = msgspec.structs.replace(request, model=model)
        assert set(OpenAIChat(OWN).left_out(request)) == (set(options) if refuses else set())
        assert OpenAIChat().left_out(request) == ()


def test_an_effort_becomes_one_that_the_model_of_openai_takes() -> None:
    for model, effort, word in (
        ("o3", "minimal", "low"), ("gpt-5", "minimal", "minimal"), ("gpt-5.1", "max", "high"),
        ("gpt-5.2", "max", "xhigh"), ("gpt-6.1-sol", "max", "max"),
        ("gpt-5.3-chat", "max", "medium"), ("gpt-5-codex", "minimal", "low"),
        ("gpt-5.1-codex-max", "max", "xhigh"), ("deployment", "max", "high"),
    ):  # fmt: skip
        assert of_model(model, reasoning_effort=effort)["reasoning_effort"] == word, model


def test_extra_fields_come_last_and_win() -> None:
    sent = body(temperature=1, extra={"temperature": 2, "logprobs": True, "stream_options": None})
    assert (sent["temperature"], sent["logprobs"], sent["stream_options"]) == (2, True, None)


# ---- dialects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "options", "expected"),
    [
        ({"max_tokens_name": "max_completion_tokens"}, {"max_tokens": 5},
         {"max_completion_tokens": 5}),
        ({"seed_name": "random_seed"}, {"seed": 5}, {"random_seed": 5}),
        ({"seed_name": None}, {}, {}),
        ({"max_effort": "xhigh"}, {"reasoning_effort": "max"}, {"reasoning_effort": "xhigh"}),
        ({}, {"reasoning_effort": "max"}, {"reasoning_effort": "high"}),
        ({}, {"reasoning_effort": "none"}, {"reasoning_effort": "none"}),
        ({"reasoning_input": "openrouter"}, {"reasoning_effort": "low"},
         {"reasoning": {"effort": "low"}}),
        ({"reasoning_input": "thinking"}, {"reasoning_effort": "low"},
         {"thinking": {"type": "enabled"}}),
        ({"reasoning_input": "thinking"}, {"reasoning_effort": "none"},
         {"thinking": {"type": "disabled"}}),
        ({"reasoning_input": "enable_thinking"}, {"reasoning_effort": "max"},
         {"enable_thinking": True}),
        ({"reasoning_input": "enable_thinking"}, {"reasoning_effort": "none"},
         {"enable_thinking": False}),
        ({"stop_limit": 2}, {"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"temperature_range": (0.1, 1.0)}, {"temperature": 1}, {"temperature": 1}),
        ({"forced_tool_choice": False}, {"tools": [TOOL], "tool_choice": "none"},
         {"tool_choice": "none"}),
    ],
)  # fmt: skip
def test_a_dialect_changes_what_is_sent(
    dialect: dict[str, Any], options: dict[str, Any], expected: dict[str, Any]
) -> None:
    sent = body(dialect=ChatDialect(**dialect), **options)
    sent.pop("tools", None)
    assert sent == body() | expected


@pytest.mark.parametrize(
    ("dialect", "options", "words"),
    [
        ({"seed_name": None}, {"seed": 1}, "seed"),
        ({"reasoning_input": None}, {"reasoning_effort": "low"}, "reasoning"),
        ({"json_object": False}, {"response_format": "json_object"}, "JSON mode"),
        ({"json_schema": False}, {"response_format": SCHEMA}, "json_object"),
        ({"json_schema": False, "json_object": False}, {"response_format": SCHEMA}, "Schema"),
        ({"forced_tool_choice": False}, {"tools": [TOOL], "tool_choice": "required"}, "auto"),
        ({"forced_tool_choice": False}, {"tools": [TOOL], "tool_choice": "look"}, "'look'"),
    ],
)
def test_what_a_dialect_cannot_say_is_refused_with_a_way_out(
    dialect: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnsupportedFeatureError, match=words) as caught:
        body(dialect=ChatDialect(**dialect), **options)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("dialect", "options", "words"),
    [
        ({"stop_limit": 4}, {"stop": list("abcde")}, "at most 4 stop texts, got 5"),
        ({"temperature_range": (0.0, 1.0)}, {"temperature": 1.5}, "between 0 and 1 .* got 1.5"),
        ({"temperature_range": (0.1, 1.0)}, {"temperature": 0}, "between 0.1 and 1"),
    ],
)
def test_a_value_beyond_a_limit_of_the_server_is_refused_with_the_limit(
    dialect: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        body(dialect=ChatDialect(**dialect), **options)


@pytest.mark.parametrize(
    ("dialect", "part"),
    [
        ({"files": False}, FilePart(data=b"x", media_type="text/plain")),
        ({}, FilePart(url="https://x/y.pdf")),
    ],
)
def test_files_that_a_server_cannot_take_are_refused(
    dialect: dict[str, Any], part: FilePart
) -> None:
    with pytest.raises(UnsupportedFeatureError, match="file"):
        message(LLMMessage.user(part), ChatDialect(**dialect))


def test_a_server_that_fetches_files_gets_their_url() -> None:
    sent = message(LLMMessage.user(FilePart(url="https://x/y.pdf")), ChatDialect(file_urls=True))
    assert sent["content"][0]["file"]["file_data"] == "https://x/y.pdf"


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_images_outside_of_user_messages_are_refused(role: Any) -> None:
    image = ImagePart(url="https://x/y.png")
    with pytest.raises(UnsupportedFeatureError, match=role):
        message(LLMMessage(role=role, content=(image,)))


def test_usage_is_not_asked_of_a_server_that_refuses_the_question() -> None:
    assert "stream_options" not in body(dialect=ChatDialect(stream_usage=False))


@pytest.mark.parametrize("wanted", ["json_object", SCHEMA])
def test_a_server_that_cannot_stream_json_is_asked_for_the_whole(wanted: Any) -> None:
    dialect = ChatDialect(stream_with_response_format=False)
    sent = body(dialect=dialect, response_format=wanted)
    assert sent["stream"] is False
    assert "stream_options" not in sent
    assert body(dialect=dialect)["stream"] is True
    assert body(dialect=dialect, response_format="text")["stream"] is True


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_goes_back_with_tool_calls_where_the_server_needs_it(name: Any) -> None:
    call = ToolCall(id="c1", name="f")
    dialect = ChatDialect(reasoning_sent_back=name)
    with_call = LLMMessage(role="assistant", tool_calls=(call,), reasoning="hm")
    assert message(with_call, dialect)[name] == "hm"
    assert name not in message(with_call)
    assert name not in message(LLMMessage(role="assistant", content="x", reasoning="hm"), dialect)


# ---- what cannot be sent -------------------------------------------------------------------------


def test_what_is_not_json_is_refused_before_sending() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for extra in ({"x": object()}, {"x": "\ud800"}, {"x": endless}, {"x": {(1, 2): 3}}):
        with pytest.raises(InvalidParameterError, match="JSON"):
            body(extra=extra)
