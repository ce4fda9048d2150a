"""Writing requests to Anthropic's Messages API."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager.errors import InvalidParameterError, LLMError, UnsupportedFeatureError
from llm_manager.messages import (
    FilePart,
    ImagePart,
    LLMMessage,
    OpaquePart,
    TextPart,
    ToolCall,
    ToolDefinition,
)
from llm_manager.wire.anthropic_content import encode_part, tool_id
from llm_manager.wire.anthropic_messages import AnthropicMessages
from llm_manager.wire.anthropic_models import ModelTraits, traits_of_name
from llm_manager.wire.anthropic_request import encode_count, left_out, reasoning_fields
from llm_manager.wire.anthropic_schema import closed_schema

from .wire_reading import quick, request_for

ADAPTIVE = traits_of_name("claude-opus-4-6")
BUDGETED = traits_of_name("claude-sonnet-4-5")
NEWEST = traits_of_name("claude-opus-5")
user, assistant, tool = LLMMessage.user, LLMMessage.assistant, LLMMessage.tool


def body(*messages: LLMMessage, traits: ModelTraits = ADAPTIVE, **options: Any) -> dict[str, Any]:
    encoded = AnthropicMessages(lambda _: traits).encode(request_for(*messages, **options))
    decoded: dict[str, Any] = json.loads(encoded)
    return decoded


def turns(*messages: LLMMessage) -> list[tuple[str, list[Any]]]:
    return [(turn["role"], turn["content"]) for turn in body(*messages)["messages"]]


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def opaque(kind: str, origin: str = "anthropic", **data: Any) -> OpaquePart:
    return OpaquePart(origin=origin, kind=kind, data={"type": kind, **data})


# ---- the conversation ----------------------------------------------------------------------------


def test_the_smallest_request() -> None:
    assert body(user("hi")) == {
        "model": "some-model",
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": [said("hi")]}],
        "stream": True,
    }


def test_system_messages_become_the_system_prompt() -> None:
    sent = body(LLMMessage.system("Be brief."), user("hi"), LLMMessage.system("Be kind."))
    assert sent["system"] == [said("Be brief."), said("Be kind.")]
    assert [turn["role"] for turn in sent["messages"]] == ["user"]


def test_neighbours_of_one_side_are_one_turn_and_results_stand_first() -> None:
    calls = [ToolCall(id="t1", name="f", arguments_json='{"a": 1}'), ToolCall(id="t2", name="g")]
    assert turns(
        user("a"), user("b"), assistant("Looking", tool_calls=calls), user("and?"),
        tool("t1", "one"), tool("t2", ""),
    ) == [
        ("user", [said("a"), said("b")]),
        ("assistant", [said("Looking"),
                       {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                       {"type": "tool_use", "id": "t2", "name": "g", "input": {}}]),
        ("user", [{"type": "tool_result", "tool_use_id": "t1", "content": [said("one")]},
                  {"type": "tool_result", "tool_use_id": "t2"},
                  said("and?")]),
    ]  # fmt: skip


def test_empty_text_which_the_service_refuses_is_not_sent() -> None:
    message = LLMMessage(role="user", content=(TextPart(text=" \n"), TextPart(text="hi")))
    assert turns(message, assistant(""), user("?")) == [("user", [said("hi"), said("?")])]


def test_images_go_as_data_or_by_url() -> None:
    image = ImagePart(data=b"\x89PNG", media_type="image/png")
    encoded = b64encode(b"\x89PNG").decode()
    inline = {"type": "base64", "media_type": "image/png", "data": encoded}
    assert encode_part(image) == {"type": "image", "source": inline}
    from_url = ImagePart(url=f"data:image/png;base64,{encoded}")
    assert encode_part(from_url) == {"type": "image", "source": inline}
    remote = ImagePart(url="https://example.org/a.png")
    assert encode_part(remote)["source"] == {"type": "url", "url": "https://example.org/a.png"}


def test_documents_go_as_data_as_text_or_by_url() -> None:
    pdf = FilePart(data=b"%PDF", media_type="application/pdf", filename="a.pdf")
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
    assert encode_part(pdf) == {"type": "document", "source": source, "title": "a.pdf"}
    text = FilePart(data=b"H\xc3\xa9", media_type="text/markdown; charset=utf-8")
    source = {"type": "text", "media_type": "text/plain", "data": "Hé"}
    assert encode_part(text) == {"type": "document", "source": source}
    remote = FilePart(url="https://example.org/a.pdf")
    assert encode_part(remote)["source"] == {"type": "url", "url": "https://example.org/a.pdf"}


def test_a_tool_may_answer_with_an_image() -> None:
    image = ImagePart(data=b"x", media_type="image/webp")
    result = LLMMessage(role="tool", tool_call_id="t", content=(TextPart(text="see"), image))
    assert turns(result)[0][1][0]["content"] == [said("see"), encode_part(image)]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(user(ImagePart(data=b"x", media_type="image/bmp")), id="bitmap"),
        pytest.param(user(FilePart(data=b"x", media_type="application/zip")), id="archive"),
        pytest.param(LLMMessage(role="assistant", content=(ImagePart(url="https://e.org/a"),)),
                     id="image of the assistant"),
        pytest.param(LLMMessage(role="system", content=(FilePart(url="https://e.org/a"),)),
                     id="file in the system prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_with_a_way_out(message: LLMMessage) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        body(user("hi"), message)
    assert caught.value.hint


def test_a_conversation_of_system_messages_alone_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="no message to answer"):
        body(LLMMessage.system("Be brief."))


# ---- what goes back unchanged --------------------------------------------------------------------


def test_private_parts_go_back_verbatim_and_in_order_those_of_others_do_not() -> None:
    thought = opaque("thinking", thinking="hm", signature="c2ln")
    search = opaque("server_tool_use", id="srv.1", name="web_search", input={"q": 1})
    found = opaque("web_search_tool_result", tool_use_id="srv.1", content=[])
    foreign = opaque("reasoning", origin="openai", encrypted="x")
    message = LLMMessage(
        role="assistant",
        content=(thought, search, found, foreign, TextPart(text="So")),
        tool_calls=(ToolCall(id="t1", name="f"),),
        reasoning="hm",
    )
    assert turns(user("?"), message)[1][1] == [
        thought.data,
        search.data,
        found.data,
        said("So"),
        {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
    ]


def test_a_part_can_be_written_on_its_own_unless_it_is_another_s() -> None:
    codec = AnthropicMessages()
    assert codec.encode_part(TextPart(text="hi")) == said("hi")
    with pytest.raises(UnsupportedFeatureError, match="openai"):
        codec.encode_part(opaque("reasoning", origin="openai"))


def test_a_call_that_is_kept_as_a_part_stands_in_its_place_once() -> None:
    first = opaque("tool_use", id="t1", name="f", input={"a": 1}, caller={"type": "direct"})
    dropped = opaque("tool_use", id="t9", name="f", input={})
    thought = opaque("thinking", thinking="hm", signature="s")
    calls = (ToolCall(id="t1", name="f", arguments_json='{"a": 1}'), ToolCall(id="t2", name="g"))
    message = LLMMessage(role="assistant", content=(first, dropped, thought), tool_calls=calls)
    last = {"type": "tool_use", "id": "t2", "name": "g", "input": {}}
    assert turns(message) == [("assistant", [first.data, thought.data, last])]


def test_broken_arguments_stay_visible_to_the_model() -> None:
    call = ToolCall(id="t", name="f", arguments_json='{"a": ')
    assert turns(assistant(tool_calls=[call]))[0][1][0]["input"] == {"INVALID_JSON": '{"a": '}


@quick
@given(st.text(min_size=1, max_size=20))
def test_ids_of_calls_are_made_acceptable_alike_on_both_sides(id: str) -> None:
    blocks = turns(assistant(tool_calls=[ToolCall(id=id, name="f")]), tool(id, "x"))
    call, result = blocks[0][1][0], blocks[1][1][0]
    assert call["id"] == result["tool_use_id"]
    assert call["id"].replace("_", "").replace("-", "").isalnum() or set(call["id"]) <= {"_", "-"}
    assert call["id"].isascii()


def test_different_ids_stay_different() -> None:
    assert len({tool_id(id) for id in ("call.1", "call:1", "call 1", "call_1")}) == 4
    assert tool_id("toolu_1-A") == "toolu_1-A"


# ---- options -------------------------------------------------------------------------------------

TOOL = ToolDefinition(name="f", description="Does f.", parameters={"properties": {"a": {}}})


def test_options_have_the_service_s_names() -> None:
    sent = body(
        temperature=0.5, top_p=0.9, max_tokens=100, stop="END", extra={"top_k": 5, "speed": "fast"}
    )
    del sent["model"], sent["messages"]
    assert sent == {"max_tokens": 100, "temperature": 0.5, "top_p": 0.9, "stop_sequences": ["END"],
                    "top_k": 5, "speed": "fast", "stream": True}  # fmt: skip


def test_max_tokens_is_what_the_model_can_where_that_is_known() -> None:
    able = ModelTraits(thinking=frozenset(), efforts=frozenset(), max_output_tokens=64_000)
    assert body(traits=able)["max_tokens"] == 64_000
    assert body(traits=able, max_tokens=7)["max_tokens"] == 7


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("f", None, {"type": "tool", "name": "f"}),
        ("f", False, {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
        ("none", None, {"type": "none"}),
        ("none", False, {"type": "none"}),
        ("auto", True, {"type": "auto"}),
    ],
)
def test_tools_and_their_choice(choice: Any, parallel: Any, sent: Any) -> None:
    encoded = body(tools=[TOOL], tool_choice=choice, parallel_tool_calls=parallel)
    schema = {"type": "object", "properties": {"a": {}}}
    assert encoded["tools"] == [{"name": "f", "description": "Does f.", "input_schema": schema}]
    assert encoded.get("tool_choice") == sent


@pytest.mark.parametrize(
    ("options", "kind", "word"),
    [
        ({"temperature": 1.5}, InvalidParameterError, "temperature"),
        ({"seed": 3}, UnsupportedFeatureError, "seed"),
        ({"presence_penalty": 1}, UnsupportedFeatureError, "presence_penalty"),
        ({"frequency_penalty": 1}, UnsupportedFeatureError, "frequency_penalty"),
        ({"response_format": "json_object"}, UnsupportedFeatureError, "JSON"),
        ({"extra": {"x": object()}}, InvalidParameterError, "JSON"),
    ],
)
def test_what_the_service_does_not_know_is_refused(
    options: dict[str, Any], kind: type[LLMError], word: str
) -> None:
    with pytest.raises(kind, match=word):
        body(**options)


def test_cache_marks_stand_where_they_are_asked_for() -> None:
    system = LLMMessage(role="system", content="Long rules.", cache="1h")
    thought = opaque("thinking", thinking="hm", signature="s")
    parts = (TextPart(text="So"), thought)
    marked = LLMMessage(role="assistant", content=parts, cache="5m")
    result = LLMMessage(role="tool", tool_call_id="t", content="x", cache="5m")
    sent = body(system, user("a"), marked, result, prompt_cache="1h")
    mark = {"type": "ephemeral", "ttl": "5m"}
    assert sent["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert sent["system"] == [{**said("Long rules."), "cache_control": sent["cache_control"]}]
    # A signed block takes no mark; the one before it does.
    assert sent["messages"][1]["content"] == [{**said("So"), "cache_control": mark}, thought.data]
    assert sent["messages"][2]["content"][0]["cache_control"] == mark
    assert "cache_control" not in thought.data


# ---- reasoning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "level"),
    [
        ("claude-opus-4-6", "minimal", "adaptive", "low"),
        ("claude-opus-4-6", "medium", "adaptive", "medium"),
        ("claude-opus-4-6", "max", "adaptive", "max"),
        ("claude-opus-4-6", "none", None, None),
        ("claude-opus-5", "high", "adaptive", "high"),
        ("claude-opus-5", "none", "disabled", None),
        ("claude-sonnet-4-5", "none", None, None),
        ("some-model", "low", "adaptive", "low"),
    ],
)
def test_effort_is_said_as_the_model_understands_it(
    model: str, effort: Any, thinking: str | None, level: str | None
) -> None:
    sent = body(traits=traits_of_name(model), reasoning_effort=effort)
    assert sent.get("thinking", {}).get("type") == thinking
    assert sent.get("output_config", {}).get("effort") == level


@pytest.mark.parametrize(
    ("effort", "max_tokens", "budget"),
    [("minimal", 32_000, 1024), ("low", 32_000, 2048), ("medium", 32_000, 8192),
     ("high", 32_000, 16_000), ("max", 64_000, 32_000), ("max", 100_000, 32_768),
     ("high", 2048, 1024)],
)  # fmt: skip
def test_older_models_get_a_budget_that_leaves_room_for_the_answer(
    effort: Any, max_tokens: int, budget: int
) -> None:
    sent = reasoning_fields(effort, max_tokens, BUDGETED)
    assert sent == {"thinking": {"type": "enabled", "budget_tokens": budget}}


def test_a_budget_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="max_tokens of at least 2048"):
        body(traits=BUDGETED, reasoning_effort="low", max_tokens=500)


@pytest.mark.parametrize(
    ("types", "effort", "word"),
    [({"adaptive"}, "none", "always reasons"), ({"disabled"}, "low", "does not reason")],
)
def test_what_a_model_cannot_do_about_reasoning_is_refused(
    types: set[str], effort: Any, word: str
) -> None:
    traits = ModelTraits(thinking=frozenset(types), efforts=frozenset())
    with pytest.raises(UnsupportedFeatureError, match=word):
        body(traits=traits, reasoning_effort=effort)


def test_a_model_that_only_thinks_between_tools_is_quietened_so() -> None:
    types = frozenset({"adaptive", "between_tools"})
    sent = body(traits=ModelTraits(thinking=types, efforts=frozenset()), reasoning_effort="none")
    assert sent["thinking"] == {"type": "between_tools"}


@pytest.mark.parametrize(
    ("traits", "effort", "sends"),
    [(ADAPTIVE, None, True), (ADAPTIVE, "none", True), (ADAPTIVE, "low", False),
     (BUDGETED, "low", False), (NEWEST, None, False), (NEWEST, "none", False)],
)  # fmt: skip
def test_sampling_is_left_out_where_it_would_be_refused_and_that_can_be_told(
    traits: ModelTraits, effort: Any, sends: bool
) -> None:
    options = {"temperature": 0.2, "top_p": 0.5, "reasoning_effort": effort}
    sent = body(traits=traits, **options)
    assert ("temperature" in sent, "top_p" in sent) == (sends, sends)
    missing = left_out(request_for(**options), traits)
    assert missing == (() if sends else ("temperature", "top_p"))


# ---- structured answers --------------------------------------------------------------------------


@dataclass
class City:
    name: str
    people: int | None = None


def test_a_schema_is_sent_natively_next_to_the_effort() -> None:
    sent = body(response_format=City, reasoning_effort="low")
    assert sent["output_config"]["effort"] == "low"
    assert sent["output_config"]["format"]["type"] == "json_schema"
    city = sent["output_config"]["format"]["schema"]
    assert (city["additionalProperties"], city["required"]) == (False, ["name"])


def test_limits_that_cannot_be_enforced_are_put_into_words() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": True,
        "description": "A person.",
        "properties": {
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "mail": {"type": "string", "format": "email", "description": "Where?"},
            "code": {"type": "string", "format": "zip", "pattern": "^x"},
            "names": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "object",
                      "properties": {"n": {"type": "string"}}}},
            "either": {"oneOf": [{"type": "string"}, {"type": "null"}]},
            "any": True,
        },
        "required": ["age"],
    }  # fmt: skip
    closed = closed_schema(schema)
    assert closed["additionalProperties"] is False
    assert (closed["description"], closed["required"]) == ("A person.", ["age"])
    assert closed["properties"] == {
        "age": {"type": "integer", "description": '{"minimum":0,"maximum":150}'},
        "mail": {"type": "string", "format": "email", "description": "Where?"},
        "code": {"type": "string", "description": '{"format":"zip","pattern":"^x"}'},
        "names": {"type": "array", "minItems": 1, "description": '{"maxItems":3}',
                  "items": {"type": "object", "properties": {"n": {"type": "string"}},
                            "additionalProperties": False}},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "any": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [{"type": "object"}, {"type": "object", "additionalProperties": {"type": "integer"}},
     {"type": "array", "items": {"type": "object", "additionalProperties": True}}],
)  # fmt: skip
def test_an_object_with_free_keys_is_refused_rather_than_emptied(schema: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFeatureError, match="free"):
        closed_schema(schema)


# ---- counting ------------------------------------------------------------------------------------


def test_counting_sends_what_counts_and_nothing_else() -> None:
    options = {"tools": [TOOL], "temperature": 0.1, "max_tokens": 5, "stop": "x",
               "reasoning_effort": "low", "extra": {"speed": "fast"}}  # fmt: skip
    request = request_for(LLMMessage.system("s"), user("hi"), **options)
    counted = json.loads(encode_count(request, ADAPTIVE))
    assert sorted(counted) == ["messages", "model", "output_config", "system", "thinking", "tools"]
