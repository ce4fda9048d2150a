"""OpenAI's Responses API on the wire."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager import LLMMessage, LLMResponse, ToolCall, ToolDefinition
from llm_manager.errors import (
    ContextWindowExceededError,
    InvalidResponseError,
    LLMError,
    ProviderAPIError,
    RateLimitError,
    StreamInterruptedError,
    UnsupportedFeatureError,
)
from llm_manager.messages import (
    FilePart,
    FinishDelta,
    ImagePart,
    MetaDelta,
    OpaquePart,
    PartDelta,
    RawDelta,
    ReasoningDelta,
    TextDelta,
    TextPart,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from llm_manager.stream import Assembly
from llm_manager.wire.openai_responses import ORIGIN, OpenAIResponses

from .response_events import (
    added,
    answer,
    call_item,
    done,
    end,
    of_item,
    one,
    reasoning_item,
    rendered,
    response,
    text_item,
    whole,
)
from .wire_reading import bytewise, cut, places, quick, read, request_for

META = MetaDelta("gpt", "resp_1")
USAGE = UsageDelta(
    Usage(prompt_tokens=30, completion_tokens=12, cached_tokens=20, cache_write_tokens=4,
          reasoning_tokens=5)
)  # fmt: skip
STOP = FinishDelta("stop", "completed")
CALLS = FinishDelta("tool_calls", "completed")
TOOL = ToolDefinition(name="look", description="Looks.")


def decode(data: Any, **options: Any) -> tuple[list[Any], LLMError | None]:
    """What comes out; that the cutting of the bytes makes no difference is checked on the way."""
    data = data if isinstance(data, bytes) else rendered(data)
    codec, request = OpenAIResponses(), request_for(**options)
    out, error = read(codec.decoder(request), [data])
    for pieces in (bytewise(data), [data[:-1], data[-1:]], bytewise(data.replace(b"\n", b"\r\n"))):
        other_out, other_error = read(codec.decoder(request), pieces)
        assert other_out == out
        assert (type(other_error), str(other_error)) == (type(error), str(error))
    return out, error


def complete(data: Any, **options: Any) -> list[Any]:
    out, error = decode(data, **options)
    assert error is None
    return out


def assembled(data: Any) -> LLMResponse:
    assembly = Assembly(request_for(), "openai")
    for delta in complete(data):
        assembly.add(delta)
    return assembly.response()


def body(
    *messages: LLMMessage, model: str = "gpt-5", codec: Any = None, **options: Any
) -> dict[str, Any]:
    request = msgspec.structs.replace(request_for(*messages, **options), model=model)
    return json.loads((codec or OpenAIResponses()).encode(request))


def opaque(kind: str, **data: Any) -> OpaquePart:
    return OpaquePart(origin=ORIGIN, kind=kind, data=data)


def item_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    return events[-1]["item"]


# ---- answers -------------------------------------------------------------------------------------


def test_text_piece_by_piece() -> None:
    assert complete(answer(text_item("Hel", "lo", " é😀"))) == [
        META, TextDelta("Hel"), TextDelta("lo"), TextDelta(" é😀"), USAGE, STOP,
    ]  # fmt: skip


def test_reasoning_is_shown_and_kept_as_it_came() -> None:
    thought = reasoning_item("Look", "Then say", index=0)
    out = complete(answer(thought, text_item("Hi", index=1)))
    assert out == [
        META, ReasoningDelta("Lo"), ReasoningDelta("ok"), ReasoningDelta("\n\nTh"),
        ReasoningDelta("en say"), PartDelta(opaque("reasoning", **item_of(thought))),
        TextDelta("Hi"), USAGE, STOP,
    ]  # fmt: skip


def test_reasoning_text_of_open_models_is_shown() -> None:
    pieces = [of_item(0, "reasoning_text.delta", content_index=0, delta=word) for word in "ab"]
    out = complete(answer([added(0, "reasoning"), *pieces, done(0, "reasoning", summary=[])]))
    assert out[1:3] == [ReasoningDelta("a"), ReasoningDelta("b")]


def test_calls_come_in_pieces_and_in_order() -> None:
    items = (call_item("call_a", "look", '{"at":', '"sea"}'), call_item("call_b", "go", index=1))
    assert complete(answer(*items)) == [
        META, ToolCallDelta(0, "call_a", "look"), ToolCallDelta(0, arguments='{"at":'),
        ToolCallDelta(0, arguments='"sea"}'), ToolCallDelta(1, "call_b", "go"), USAGE, CALLS,
    ]  # fmt: skip


def test_arguments_that_come_only_with_the_end_of_a_call_are_taken() -> None:
    late = [added(0, "function_call", call_id="c", name="f"),
            done(0, "function_call", call_id="c", name="f", arguments='{"a":1}')]  # fmt: skip
    calls = assembled(answer(late)).tool_calls
    assert calls == (ToolCall(id="c", name="f", arguments_json='{"a":1}'),)


def test_a_call_without_an_id_gets_one() -> None:
    item = {"type": "function_call", "name": "f", "arguments": "{}"}
    events = [{"type": "response.output_item.done", "output_index": 0, "item": item}]
    assert assembled(answer(events)).tool_calls[0].id == "call_r1_0"


def test_an_answer_in_one_piece_is_the_same_as_one_in_events() -> None:
    items = (
        reasoning_item("Hm"),
        text_item("Let me look", index=1, phase="commentary"),
        call_item("call_a", "look", '{"at":"sea"}', index=2),
        call_item("call_b", "go", "{}", index=3),
        reasoning_item("So", index=4),
        call_item("call_c", "go", "{}", index=5),
    )
    document = json.dumps(whole(*items)).encode()
    assert facts(assembled(document)) == facts(assembled(answer(*items)))


def facts(answer: LLMResponse) -> dict[str, Any]:
    return {name: value for name, value in answer.to_dict().items() if name != "timings"}


def test_a_refusal_is_shown_as_the_answer_and_says_so() -> None:
    pieces = [of_item(0, "refusal.delta", delta=word) for word in ("I can", "not")]
    content = [{"type": "refusal", "refusal": "I cannot"}]
    refused = [added(0, "message"), *pieces, done(0, "message", content=content)]
    expected = FinishDelta("content_filter", "completed")
    assert complete(answer(refused)) == [
        META, TextDelta("I can"), TextDelta("not"), USAGE, expected,
    ]  # fmt: skip
    only_end = complete(answer([refused[-1]]))
    assert (only_end[1], only_end[-1]) == (TextDelta("I cannot"), expected)


@pytest.mark.parametrize(
    ("why", "reason"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("steered", "other")],
)
def test_why_an_answer_is_incomplete(why: str, reason: Any) -> None:
    last = end("incomplete", incomplete_details={"reason": why})
    assert complete(answer(text_item("Hi"), last=last))[-1] == FinishDelta(reason, why)
    document = json.dumps(
        whole(text_item("Hi"), status="incomplete", incomplete_details={"reason": why})
    )
    assert complete(document.encode())[-1] == FinishDelta(reason, why)


def test_items_that_nobody_knows_are_kept_and_events_that_nobody_knows_do_no_harm() -> None:
    search = [
        added(0, "web_search_call"),
        of_item(0, "web_search_call.searching"),
        of_item(0, "brand_new.delta", delta="x"),
        done(0, "web_search_call", action={"type": "search", "query": "x"}),
    ]
    out = complete(answer(search, text_item("Hi", index=1)))
    assert out[1] == PartDelta(opaque("web_search_call", **item_of(search)))
    assert out[2:] == [TextDelta("Hi"), USAGE, STOP]


def test_raw_documents_come_along_when_asked() -> None:
    events = answer(text_item("Hi"))
    out = complete(events, include_raw=True)
    raw = [d.document["type"] for d in out if isinstance(d, RawDelta)]
    assert raw == [event["type"] for event in events]
    assert [d for d in out if not isinstance(d, RawDelta)] == [META, TextDelta("Hi"), USAGE, STOP]
    document = whole(text_item("Hi"))
    assert RawDelta(document) in complete(json.dumps(document).encode(), include_raw=True)


def test_a_mark_of_another_dialect_behind_the_end_does_no_harm() -> None:
    assert complete(rendered(answer(text_item("Hi"))) + b"data: [DONE]\n\n")[-1] == STOP


def test_events_without_an_index_are_told_apart_by_their_item() -> None:
    def plain(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in event.items() if k != "output_index"} for event in events]

    items = (call_item("a", "f", "{}"), call_item("b", "g", "{ }", index=1))
    calls = assembled(answer(*map(plain, items))).tool_calls
    assert [(c.id, c.name, c.arguments_json) for c in calls] == [
        ("a", "f", "{}"),
        ("b", "g", "{ }"),
    ]


@given(cuts=places)
@quick
def test_the_cutting_of_the_bytes_makes_no_difference(cuts: list[int]) -> None:
    items = (reasoning_item("Look"), text_item("a", "é", "😀", index=1),
             call_item("c", "f", '{"a":', "1}", index=2))  # fmt: skip
    data = rendered(answer(*items))
    codec, request = OpenAIResponses(), request_for()
    assert read(codec.decoder(request), cut(data, cuts)) == read(codec.decoder(request), [data])


@given(data=st.binary(max_size=200))
@quick
def test_no_bytes_raise_anything_but_an_error_of_ours(data: bytes) -> None:
    for noise in (data, b"data: " + data + b"\n\n", b'{"output":[' + data + b"]}"):
        read(OpenAIResponses().decoder(request_for()), [noise])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "item", "response", "content", "summary", "delta", "id"]),
            inner,
            max_size=4,
        ),
        max_leaves=12,
    ),
    st.sampled_from(["response.output_item.added", "response.output_item.done",
                     "response.output_text.delta", "response.created", "response.completed",
                     "response.function_call_arguments.delta", "response.failed"]),
)  # fmt: skip
@quick
def test_no_odd_event_raises_anything_but_an_error_of_ours(value: Any, kind: str) -> None:
    fields = value if isinstance(value, dict) else {"delta": value, "item": value}
    read(OpenAIResponses().decoder(request_for()), [one({**fields, "type": kind})])


# ---- answers that fail ---------------------------------------------------------------------------


def test_a_stream_without_an_end_is_interrupted() -> None:
    out, error = decode(answer(text_item("Hi"))[:-1])
    assert out == [META, TextDelta("Hi")]
    assert isinstance(error, StreamInterruptedError)


def test_half_an_event_at_the_end_is_no_end() -> None:
    data = rendered(answer(text_item("Hi")))
    out, error = decode(data[:-60])
    assert TextDelta("Hi") in out
    assert isinstance(error, StreamInterruptedError)


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        ("server_error", ProviderAPIError, True),
        ("rate_limit_exceeded", RateLimitError, True),
        ("context_length_exceeded", ContextWindowExceededError, False),
    ],
)
def test_a_failed_answer_and_an_error_event_have_the_class_of_their_code(
    code: str, kind: type[LLMError], retryable: bool
) -> None:
    problem = {"code": code, "message": "It went wrong."}
    for last in (
        end("failed", error=problem),
        {"type": "error", "param": None, **problem},
        {"type": "error", "error": {"type": code, **problem}},
    ):
        out, error = decode(answer(text_item("Hi"), last=last))
        assert out == [META, TextDelta("Hi")]
        assert type(error) is kind
        assert (error.retryable, error.provider_code) == (retryable, code)
        assert "It went wrong." in str(error)


def test_an_error_of_a_gateway_is_one_here_too() -> None:
    _, error = decode(b'data: {"error": {"message": "slow down", "code": 429}}\n\n')
    assert type(error) is RateLimitError
    _, error = decode(b"event: error\ndata: it broke\n\n")
    assert isinstance(error, ProviderAPIError)
    assert "it broke" in str(error)


def test_an_answer_that_was_cancelled_at_the_service_is_interrupted() -> None:
    out, error = decode(answer(text_item("Hi"), last=end("cancelled")))
    assert out[1] == TextDelta("Hi")
    assert isinstance(error, StreamInterruptedError)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_response"),
        (b"<html><title>Sign in</title></html>", "captive_portal"),
        (b'{"object": "response"}', "invalid_response"),
        (b"plainly wrong", "invalid_response"),
        (b"data: {broken\n\n", "invalid_response"),
    ],
)
def test_what_is_no_answer_is_invalid(data: bytes, code: str) -> None:
    out, error = decode(data)
    assert out == []
    assert isinstance(error, InvalidResponseError)
    assert error.code == code


def test_a_document_that_reports_an_error_is_that_error() -> None:
    failed = response("failed", error={"code": "rate_limit_exceeded", "message": "later"})
    _, error = decode(json.dumps(failed).encode())
    assert type(error) is RateLimitError


def test_a_document_or_event_that_is_too_long_is_refused() -> None:
    codec = OpenAIResponses(max_line_bytes=100)
    for data in (b"{" + b" " * 200, b"data: " + b"x" * 200):
        _, error = read(codec.decoder(request_for()), [data])
        assert error is not None
        assert error.code == "line_too_long"


def test_after_an_error_nothing_more_comes() -> None:
    decoder = OpenAIResponses().decoder(request_for())
    with pytest.raises(RateLimitError):
        decoder.feed(one({"type": "error", "code": "rate_limit_exceeded", "message": "x"}))
    for again in (lambda: decoder.feed(one(end())), decoder.close):
        with pytest.raises(RateLimitError):
            again()


# ---- requests ------------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    assert body(LLMMessage.system("Be kind."), LLMMessage.user("Hi"), model="gpt-4o") == {
        "model": "gpt-4o",
        "input": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
        ],
        "store": False,
        "stream": True,
    }


def test_a_model_that_reasons_is_asked_for_its_reasoning() -> None:
    sent = body(model="gpt-5")
    assert sent["include"] == ["reasoning.encrypted_content"]
    assert sent["reasoning"] == {"summary": "auto"}
    silent = body(model="gpt-5", codec=OpenAIResponses(summary=None), reasoning_effort="low")
    assert silent["reasoning"] == {"effort": "low"}
    assert body(model="gpt-5.1")["include"] == ["reasoning.encrypted_content"]
    assert "reasoning" not in body(model="gpt-5.1")
    # Of a deployment nobody knows what it is, but the caller says it.
    named = body(model="my-deployment", reasoning_effort="max")
    assert named["reasoning"] == {"effort": "high", "summary": "auto"}
    assert named["include"] == ["reasoning.encrypted_content"]


@pytest.mark.parametrize(
    ("model", "effort", "word"),
    [
        ("o3", "minimal", "low"), ("o3", "max", "high"), ("gpt-5", "minimal", "minimal"),
        ("gpt-5.1", "minimal", "low"), ("gpt-5.2", "max", "xhigh"), ("gpt-5.6-sol", "max", "max"),
        ("gpt-5.2", "none", "none"), ("gpt-5-pro", "low", "high"),
    ],
)  # fmt: skip
def test_an_effort_becomes_one_that_the_model_takes(model: str, effort: Any, word: str) -> None:
    assert body(model=model, reasoning_effort=effort)["reasoning"]["effort"] == word


def test_reasoning_that_cannot_be_switched_off_is_refused_before_sending() -> None:
    with pytest.raises(UnsupportedFeatureError, match="off"):
        body(model="o3", reasoning_effort="none")


def test_options_have_the_names_of_this_api() -> None:
    sent = body(model="gpt-4o", max_tokens=50, temperature=0.5, top_p=0.9)
    assert (sent["max_output_tokens"], sent["temperature"], sent["top_p"]) == (50, 0.5, 0.9)


def test_what_the_model_or_the_api_does_not_take_is_left_out_and_named() -> None:
    options: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 1, "seed": 3}
    names = {"gpt-5": set(options), "gpt-4o": {"presence_penalty", "seed"}}
    for model, missing in names.items():
        request = msgspec.structs.replace(request_for(**options), model=model)
        assert set(OpenAIResponses().left_out(request)) == missing
        assert options.keys() - body(model=model, **options).keys() == missing


def test_stop_texts_are_refused_before_sending() -> None:
    with pytest.raises(UnsupportedFeatureError, match="stop"):
        body(stop="x")


def test_images_and_documents() -> None:
    message = LLMMessage.user(
        "Look",
        ImagePart(data=b"\x89PNG", media_type="image/png", detail="low"),
        ImagePart(url="https://example.org/a.png"),
        FilePart(data=b"%PDF", media_type="application/pdf", filename="a.pdf"),
        FilePart(url="https://example.org/b.pdf"),
    )
    assert body(message)["input"][0]["content"] == [
        {"type": "input_text", "text": "Look"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw==", "detail": "low"},
        {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"},
        {
            "type": "input_file",
            "filename": "a.pdf",
            "file_data": "data:application/pdf;base64,JVBERg==",
        },
        {"type": "input_file", "file_url": "https://example.org/b.pdf"},
    ]


def test_parts_that_only_others_understand_are_left_out_of_messages_and_refused_alone() -> None:
    foreign = OpaquePart(origin="anthropic", kind="thinking", data={"signature": "x"})
    assert body(LLMMessage.user("Hi", foreign))["input"] == [{"role": "user", "content": "Hi"}]
    answered = LLMMessage(role="assistant", content=(foreign, TextPart(text="Hello")))
    assert body(answered)["input"] == [{"role": "assistant", "content": "Hello"}]
    assert OpenAIResponses().encode_part(TextPart(text="x")) == {"type": "input_text", "text": "x"}
    with pytest.raises(UnsupportedFeatureError, match="anthropic"):
        OpenAIResponses().encode_part(foreign)


def test_an_image_in_an_answer_cannot_go_back() -> None:
    image = ImagePart(url="https://example.org/a.png")
    with pytest.raises(UnsupportedFeatureError, match="assistant"):
        body(LLMMessage(role="assistant", content=(image,)))


def test_tools_and_the_choice_among_them() -> None:
    closed = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    sent = body(tools=[TOOL], tool_choice="look", parallel_tool_calls=False)
    assert sent["tools"] == [
        {"type": "function", "name": "look", "description": "Looks.", "parameters": closed,
         "strict": True}
    ]  # fmt: skip
    assert sent["tool_choice"] == {"type": "function", "name": "look"}
    assert sent["parallel_tool_calls"] is False
    for choice in ("auto", "none", "required"):
        assert body(tools=[TOOL], tool_choice=choice)["tool_choice"] == choice
    free = {"type": "object", "properties": {"a": {"type": "string"}}}
    (tool,) = body(tools=[ToolDefinition(name="x", parameters=free)])["tools"]
    assert (tool["parameters"], tool["strict"]) == (free, False)


def test_formats_of_answers() -> None:
    assert "text" not in body(response_format="text")
    assert body(response_format="json_object")["text"] == {"format": {"type": "json_object"}}
    loose = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert body(response_format=loose)["text"]["format"] == {
        "type": "json_schema", "name": "answer", "strict": False, "schema": loose,
    }  # fmt: skip
    strict = body(response_format={**loose, "required": ["a"]})["text"]["format"]
    assert strict["strict"] is True
    assert strict["schema"]["additionalProperties"] is False


def test_extra_fields_come_last_and_win() -> None:
    sent = body(extra={"store": True, "service_tier": "flex"})
    assert (sent["store"], sent["service_tier"]) == (True, "flex")


def test_an_answer_in_one_piece_can_be_asked_for() -> None:
    request = request_for(stream=False)
    assert json.loads(OpenAIResponses().encode(request))["stream"] is False


# ---- the history ---------------------------------------------------------------------------------


def history(*items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items that go back after an answer of these."""
    message = assembled(answer(*items)).to_message()
    stored = json.loads(json.dumps(message.to_dict()))
    sent = body(message)["input"]
    # It may lie in a file in between.
    assert body(msgspec.convert(stored, LLMMessage))["input"] == sent
    return sent


def test_reasoning_goes_back_in_front_of_the_call_that_it_led_to() -> None:
    thought = reasoning_item("Look")
    call = call_item("call_a", "look", '{"at":"sea"}', index=1)
    assert history(thought, call) == [
        item_of(thought),
        {"type": "function_call", "call_id": "call_a", "name": "look",
         "arguments": '{"at":"sea"}'},
    ]  # fmt: skip


def test_reasoning_between_calls_goes_back_between_them() -> None:
    items = (reasoning_item("a"), call_item("c1", "f", "{}", index=1),
             reasoning_item("b", index=2), call_item("c2", "f", "{}", index=3),
             call_item("c3", "f", "{}", index=4), text_item("So", index=5))  # fmt: skip
    sent = history(*items)
    assert [item.get("call_id") or item.get("content") or item["type"] for item in sent] == [
        "reasoning", "c1", "reasoning", "c2", "c3", "So",
    ]  # fmt: skip


def test_the_phase_of_a_message_goes_back_with_it() -> None:
    items = (text_item("I look", index=0, phase="commentary"),
             text_item("Here", index=1, phase="final_answer"))  # fmt: skip
    assert history(*items) == [
        {"role": "assistant", "content": "I look", "phase": "commentary"},
        {"role": "assistant", "content": "Here", "phase": "final_answer"},
    ]


def test_what_a_call_has_besides_its_arguments_goes_back_with_it() -> None:
    (sent,) = history(call_item("c", "f", "{}", namespace="tools"))
    assert sent == {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}",
                    "namespace": "tools"}  # fmt: skip


def test_reasoning_without_its_content_or_without_what_it_led_to_stays_here() -> None:
    unreadable = reasoning_item("a", encrypted=None)
    assert history(unreadable, text_item("x", index=1)) == [{"role": "assistant", "content": "x"}]
    assert history(text_item("x"), reasoning_item("a", index=1)) == [
        {"role": "assistant", "content": "x"}
    ]


def test_results_of_tools_go_back_as_text_or_with_images() -> None:
    image = ImagePart(url="https://example.org/a.png")
    with_image = LLMMessage(role="tool", tool_call_id="c2", content=(TextPart(text="a"), image))
    sent = body(LLMMessage.tool("c1", "3 degrees"), with_image)["input"]
    assert sent[0] == {"type": "function_call_output", "call_id": "c1", "output": "3 degrees"}
    assert [part["type"] for part in sent[1]["output"]] == ["input_text", "input_image"]


def test_calls_of_another_dialect_go_back_as_calls() -> None:
    calls = (ToolCall(id="a", name="f"), ToolCall(id="b", name="g", arguments_json='{"x":1}'))
    sent = body(LLMMessage.assistant("Let me see", tool_calls=calls))["input"]
    assert sent[0] == {"role": "assistant", "content": "Let me see"}
    assert [item["call_id"] for item in sent[1:]] == ["a", "b"]
