"""Decoding OpenAI chat completions: what servers do, one row each."""

from __future__ import annotations

import itertools
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    InvalidRequestError,
    InvalidResponseError,
    LLMError,
    ProviderAPIError,
    ProviderOverloadedError,
    QuotaExceededError,
    RateLimitError,
    StreamInterruptedError,
)
from llm_manager.messages import (
    FinishDelta,
    MetaDelta,
    RawDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from llm_manager.wire.openai_chat import ChatDialect, OpenAIChat

from .wire_reading import bytewise, cut, places, quick, read, request_for

USUAL = ChatDialect()
META = MetaDelta("gpt", "c1")
DONE = b"data: [DONE]\n\n"


def event(document: Any, name: str = "") -> bytes:
    text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + b"data: " + text.encode() + b"\n\n"


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return event({"id": "c1", "model": "gpt", "choices": [choice], **more})


def say(text: str) -> bytes:
    return chunk({"content": text})


STOP = chunk(finish="stop")


def decode(
    data: bytes | list[bytes], dialect: ChatDialect = USUAL, **options: Any
) -> tuple[list[Any], LLMError | None]:
    """What comes out; that the cutting of the bytes makes no difference is checked on the way."""
    codec, request = OpenAIChat(dialect), request_for(**options)
    data = data if isinstance(data, bytes) else b"".join(data)
    out, error = read(codec.decoder(request), [data])
    for pieces in (bytewise(data), [data[:-1], data[-1:]], bytewise(data.replace(b"\n", b"\r\n"))):
        other_out, other_error = read(codec.decoder(request), pieces)
        assert other_out == out
        assert (type(other_error), str(other_error)) == (type(error), str(error))
    return out, error


def complete(data: bytes | list[bytes], *args: Any, **options: Any) -> list[Any]:
    out, error = decode(data, *args, **options)
    assert error is None
    return out


def text_of(deltas: list[Any]) -> str:
    return "".join(d.text for d in deltas if isinstance(d, TextDelta))


def reasoning_of(deltas: list[Any]) -> str:
    return "".join(d.text for d in deltas if isinstance(d, ReasoningDelta))


# ---- text, reasoning, usage ----------------------------------------------------------------------


def test_a_stream_becomes_deltas_with_the_facts_in_front() -> None:
    role = chunk({"role": "assistant", "content": ""})
    usage = event({"id": "c1", "choices": [],
                   "usage": {"prompt_tokens": 3, "completion_tokens": 2}})  # fmt: skip
    assert complete([role, say("Hé"), say("llo 😀"), STOP, usage, DONE]) == [
        META,
        TextDelta("Hé"),
        TextDelta("llo 😀"),
        FinishDelta("stop", "stop"),
        UsageDelta(Usage(prompt_tokens=3, completion_tokens=2)),
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([say("Hi"), STOP, DONE], id="usual"),
        pytest.param([say("Hi"), STOP], id="no done mark"),
        pytest.param([say("Hi"), STOP.rstrip()], id="no line end at the end"),
        pytest.param([say("Hi"), STOP, b"data: [DONE]"], id="done mark without line end"),
        pytest.param([say("Hi"), STOP, b"data: [DO"], id="half a done mark behind the end"),
        pytest.param([b"\xef\xbb\xbf", say("Hi"), STOP, DONE], id="byte order mark"),
        pytest.param([b"\n\n", say("Hi"), STOP, DONE], id="empty lines first"),
        pytest.param([b": wait\n\n", say("Hi"), b": wait\n\n", STOP, DONE], id="comments"),
        pytest.param([b": " + b"x" * 500 + b"\n\n", say("Hi"), STOP, DONE], id="long comment"),
        pytest.param([say("Hi").replace(b"data: ", b"data:"), STOP, DONE], id="no space"),
        pytest.param([say("Hi").replace(b'"model"', b'\ndata: "model"'), STOP, DONE],
                     id="several data lines"),
        pytest.param([b"id: 7\n", say("Hi"), STOP, DONE], id="event ids"),
        pytest.param([event("{}", "ping"), say("Hi"), STOP, DONE], id="ping"),
        pytest.param([event({"type": "ping"}), say("Hi"), STOP, DONE], id="ping without a name"),
        pytest.param([b"data:\n\n", say("Hi"), STOP, DONE], id="empty data"),
        pytest.param([b"event: message\n", say("Hi"), STOP, DONE], id="named events"),
        pytest.param([chunk({"role": "assistant", "content": "H"}),
                      chunk({"role": "assistant", "content": "i"}), STOP, DONE], id="role again"),
        pytest.param([event({"id": "c1", "model": "gpt", "choices": None}), say("Hi"), STOP, DONE],
                     id="choices null"),
        pytest.param([event({"id": "c1", "model": "gpt", "choices": []}), say("Hi"), STOP, DONE],
                     id="no choices"),
        pytest.param([event({"choices": [{"index": 0}]}), say("Hi"), STOP, DONE],
                     id="a choice without delta and message"),
        pytest.param([event({"choices": [{"delta": None, "message": None}]}), say("Hi"), STOP],
                     id="delta and message null"),
        pytest.param([chunk([]), say("Hi"), chunk([], "stop")], id="delta is a list"),
        pytest.param([chunk(""), say("Hi"), chunk("", "stop")], id="delta is a text"),
        pytest.param([event({"choices": {}}), say("Hi"), STOP], id="choices is an object"),
        pytest.param([event({"choices": ["?"]}), say("Hi"), STOP], id="a choice is a text"),
        pytest.param([say("Hi"), chunk({"content": 3}), chunk({"content": {}}), STOP],
                     id="content of a wrong type"),
        pytest.param([say("Hi"), chunk({"content": None}, ""), STOP], id="empty finish reason"),
        pytest.param([say("Hi"), chunk({}, "null"), STOP], id="null as a text"),
        pytest.param([say("Hi"), STOP, chunk({}, "stop"), DONE], id="finish reason twice"),
        pytest.param([say("Hi"), STOP, DONE, say("more"), event("garbage")], id="behind the end"),
        pytest.param([say("Hi"), event({"choices": [{"index": 1, "delta": {"content": "x"}}]}),
                      STOP], id="a second choice"),
        pytest.param([event({"id": "c1", "model": "gpt", "choices": [
                          {"index": 0, "delta": {"content": "Hi"}},
                          {"index": 1, "delta": {"content": "x"}}]}), STOP], id="two at once"),
        pytest.param([say("H"), event({"choices": [
                          {"index": 0, "delta": {"content": "i"}},
                          {"index": 1, "delta": {"content": "x"}}]}), STOP],
                     id="two at once, late"),
        pytest.param([say("Hi"), event({"choices": [{"message": {"content": "Hi"},
                                                     "finish_reason": "stop"}]})],
                     id="the whole message again at the end"),
        pytest.param([event({"id": "c1", "model": "gpt", "object": "chat.completion",
                             "choices": [{"delta": {"content": "Hi"},
                                          "message": {"content": "Hi, so far"}}]}), STOP],
                     id="delta and message together"),
        pytest.param([chunk({"content": [{"type": "text", "text": "Hi"}]}), STOP],
                     id="content in parts"),
    ],
)  # fmt: skip
def test_an_odd_but_complete_stream_gives_the_same_answer(data: list[bytes]) -> None:
    out = complete(data)
    assert out[0] == META
    assert text_of(out) == "Hi"
    assert out[-1] == FinishDelta("stop", "stop")
    assert len([d for d in out if isinstance(d, FinishDelta | MetaDelta)]) == 2


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm", "content": ""},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"content": [{"type": "thinking", "thinking": "hm"}]},
    ],
)
def test_reasoning_is_found_wherever_the_server_puts_it(delta: dict[str, Any]) -> None:
    assert complete([chunk(delta), say("Hi"), STOP]) == [
        META,
        ReasoningDelta("hm"),
        TextDelta("Hi"),
        FinishDelta("stop", "stop"),
    ]


def test_reasoning_and_text_in_one_chunk_come_in_that_order() -> None:
    out = complete([say("a"), chunk({"content": "b", "reasoning": "hm"}), STOP])
    assert out[1:4] == [TextDelta("a"), ReasoningDelta("hm"), TextDelta("b")]


def test_encrypted_reasoning_is_no_text() -> None:
    details = [{"type": "reasoning.encrypted", "data": "xyz"}]
    out = complete([chunk({"reasoning_details": details, "content": "Hi"}), STOP])
    assert reasoning_of(out) == ""


def test_a_refusal_is_shown_as_the_answer_and_says_so() -> None:
    out = complete([chunk({"refusal": "I can"}), chunk({"refusal": "not"}), STOP])
    assert text_of(out) == "I cannot"
    assert out[-1] == FinishDelta("content_filter", "stop")


FULL = {"prompt_tokens": 30, "completion_tokens": 20}


@pytest.mark.parametrize(
    ("more", "usage"),
    [
        ({"usage": FULL}, Usage(prompt_tokens=30, completion_tokens=20)),
        ({"usage": {**FULL, "prompt_tokens_details": {"cached_tokens": 9},
                    "completion_tokens_details": {"reasoning_tokens": 7}}},
         Usage(prompt_tokens=30, completion_tokens=20, cached_tokens=9, reasoning_tokens=7)),
        ({"usage": {**FULL, "prompt_tokens_details": None, "completion_tokens_details": None}},
         Usage(prompt_tokens=30, completion_tokens=20)),
        ({"usage": {**FULL, "prompt_cache_hit_tokens": 9, "prompt_cache_miss_tokens": 21}},
         Usage(prompt_tokens=30, completion_tokens=20, cached_tokens=9)),
        ({"usage": {**FULL, "cached_tokens": 9}},
         Usage(prompt_tokens=30, completion_tokens=20, cached_tokens=9)),
        ({"x_groq": {"id": "req", "usage": FULL}}, Usage(prompt_tokens=30, completion_tokens=20)),
        ({"usage": {"input_tokens": 30, "output_tokens": 20}},
         Usage(prompt_tokens=30, completion_tokens=20)),
        ({"usage": {"prompt_tokens": "30", "completion_tokens": 20.0, "total_tokens": None}},
         Usage(prompt_tokens=30, completion_tokens=20)),
        ({"usage": {**FULL, "completion_tokens_details": {"reasoning_tokens": 5},
                    "total_tokens": 55}},
         Usage(prompt_tokens=30, completion_tokens=25, reasoning_tokens=5)),
        ({"usage": {**FULL, "completion_tokens_details": {"reasoning_tokens": 5},
                    "total_tokens": 50}},
         Usage(prompt_tokens=30, completion_tokens=20, reasoning_tokens=5)),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, None),
        ({"usage": {"prompt_tokens": True, "completion_tokens": -1}}, None),
        ({"usage": "none"}, None),
        ({"usage": []}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["with the text", "with the end", "behind the end"])
def test_usage_is_read_from_any_chunk_and_any_field(
    more: dict[str, Any], usage: Usage | None, place: str
) -> None:
    data = {
        "with the text": [say("Hi"), chunk({"content": "!"}, **more), STOP],
        "with the end": [say("Hi"), chunk({}, "stop", **more)],
        "behind the end": [say("Hi"), STOP, event({"choices": [], **more}), DONE],
    }[place]
    out = complete(data)
    assert [d.usage for d in out if isinstance(d, UsageDelta)] == ([] if usage is None else [usage])


def test_usage_that_does_not_change_is_told_once() -> None:
    out = complete([chunk({"content": c}, usage=FULL) for c in "abc"] + [STOP])
    assert len([d for d in out if isinstance(d, UsageDelta)]) == 1


def test_running_usage_is_told_each_time_it_changes() -> None:
    running = [chunk({"content": c}, usage={**FULL, "completion_tokens": i + 1})
               for i, c in enumerate("abc")]  # fmt: skip
    out = complete([*running, STOP])
    assert [d.usage.completion_tokens for d in out if isinstance(d, UsageDelta)] == [1, 2, 3]


# ---- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("tool_use", "tool_calls"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("something_new", "other"),
        (7, "other"),
    ],
)
def test_finish_reasons_are_translated_and_kept(word: Any, reason: str) -> None:
    assert complete([say("Hi"), chunk({}, word), DONE])[-1] == FinishDelta(reason, str(word))


@pytest.mark.parametrize(
    "word", ["error", "network_error", "abort", "insufficient_system_resource"]
)
def test_a_word_for_breaking_off_is_no_end(word: str) -> None:
    for data in ([say("Hi"), chunk({}, word), DONE], [chunk({"content": "Hi"}, word)]):
        out, error = decode(data)
        assert out == [META, TextDelta("Hi")]
        assert isinstance(error, StreamInterruptedError)
        assert error.provider_code == word


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([say("Hi")], id="a clean end"),
        pytest.param([say("Hi"), b": keep-alive\n\n"], id="a comment"),
        pytest.param([say("Hi"), b'data: {"choices":[{"delta":{"con'], id="half an event"),
        pytest.param([say("Hi"), b"data: [DON"], id="half a done mark"),
        pytest.param([say("Hi"), b"da"], id="half a field"),
    ],
)
def test_a_stream_without_done_or_finish_reason_is_interrupted(data: list[bytes]) -> None:
    out, error = decode(data)
    assert out == [META, TextDelta("Hi")]
    assert isinstance(error, StreamInterruptedError)
    assert error.retryable


@pytest.mark.parametrize(
    "data", [[b": keep-alive\n\n"], [chunk({"role": "assistant"})], [b"data: {"], [b"event: x\n"]]
)
def test_a_stream_that_ends_before_anything_was_said_is_interrupted(data: list[bytes]) -> None:
    out, error = decode(data)
    assert out == []
    assert isinstance(error, StreamInterruptedError)


@pytest.mark.parametrize("dialect", [ChatDialect(), ChatDialect(requires_finish=False)])
def test_done_without_a_finish_reason_is_an_end_without_a_reason(dialect: ChatDialect) -> None:
    assert complete([say("Hi"), DONE], dialect)[-1] == FinishDelta("other", None)


def test_a_gateway_that_sends_no_end_at_all_is_believed_if_its_dialect_says_so() -> None:
    lenient = ChatDialect(requires_finish=False)
    assert complete([say("Hi")], lenient)[-1] == FinishDelta("other", None)
    out, error = decode([b": keep-alive\n\n"], lenient)
    assert (out, type(error)) == ([], StreamInterruptedError)


def test_done_before_anything_was_said_is_no_answer() -> None:
    for data in (DONE, chunk({"role": "assistant"}) + DONE):
        out, error = decode(data)
        assert out == []
        assert isinstance(error, InvalidResponseError)
        assert error.code == "empty_response"


def test_an_empty_answer_with_a_finish_reason_is_an_answer() -> None:
    assert complete([STOP, DONE]) == [META, FinishDelta("stop", "stop")]


# ---- errors inside a successful answer -----------------------------------------------------------

RATE = {"message": "Rate limit reached", "type": "rate_limit_error", "code": "rate_limit_exceeded"}


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        pytest.param(event({"error": RATE}), RateLimitError, None, id="object"),
        pytest.param(event({"error": RATE}, "error"), RateLimitError, None, id="named event"),
        pytest.param(event(RATE, "error"), RateLimitError, None, id="flat in a named event"),
        pytest.param(event("rate limit exceeded", "error"), RateLimitError, None, id="prose"),
        pytest.param(event('"rate limit exceeded"', "error"), RateLimitError, None, id="text"),
        pytest.param(event({"error": {"code": 429, "message": "slow down"}}), RateLimitError, 429,
                     id="a status as code"),
        pytest.param(event({"error": {"code": "429", "message": "slow down"}}), RateLimitError,
                     429, id="a status as text"),
        pytest.param(
            event({"id": "c1", "error": {"code": 502, "message": "Provider disconnected"},
                   "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}),
            ProviderAPIError, 502, id="beside choices"),
        pytest.param(event({"choices": [{"delta": {}, "finish_reason": "error",
                                         "error": {"code": 503, "message": "busy"}}]}),
                     ProviderOverloadedError, 503, id="inside a choice"),
        pytest.param(event({"error": "the model is overloaded"}), ProviderOverloadedError, None,
                     id="error is a text"),
        pytest.param(event({"object": "error", "message": "bad", "type": "BadRequestError",
                            "code": 400}), InvalidRequestError, 400, id="not called error"),
        pytest.param(event({"code": "invalid_api_key", "message": "no"}), AuthenticationError, None,
                     id="a code and a message"),
        pytest.param(event({"choices": None,
                            "base_resp": {"status_code": 1008, "status_msg":
                                          "insufficient balance"}}),
                     QuotaExceededError, None, id="a status block"),
        pytest.param(event({"choices": [], "x_groq": {"error": "over_capacity"}}),
                     ProviderAPIError, None, id="a vendor's block"),
        pytest.param(event([{"error": {"code": 429, "message": "x"}}]), RateLimitError, 429,
                     id="a list"),
        pytest.param(
            event({"error": {"message": "This model's maximum context length is 8192 tokens.",
                             "code": "context_length_exceeded"}}),
            ContextWindowExceededError, None, id="prompt too long"),
    ],
)  # fmt: skip
def test_an_error_inside_a_stream_is_raised_behind_the_text(
    data: bytes, kind: type[LLMError], status: int | None
) -> None:
    for first in ([], [say("Hi")]):
        out, error = decode([*first, data, DONE])
        assert text_of(out) == ("Hi" if first else "")
        assert type(error) is kind
        assert error.http_status == status
        assert type(pickle.loads(pickle.dumps(error))) is kind


@pytest.mark.parametrize("nothing", [None, "", {}, []])
def test_an_empty_error_is_none(nothing: Any) -> None:
    out = complete([chunk({"content": "Hi"}, error=nothing), chunk({}, "stop", error=nothing)])
    assert text_of(out) == "Hi"


def test_an_error_is_raised_again_by_a_decoder_that_is_asked_again() -> None:
    decoder = OpenAIChat().decoder(request_for())
    out, error = read(decoder, [say("Hi") + event({"error": RATE})])
    assert out == [META, TextDelta("Hi")]
    for again in (lambda: decoder.feed(say("more")), decoder.close):
        with pytest.raises(RateLimitError) as caught:
            again()
        assert caught.value is error


def test_invalid_json_is_refused_with_a_short_quote_and_no_key() -> None:
    broken = b'data: {"key": "sk-abcdefghijklmnop", "x": ' + b"y" * 1000 + b"}\n\n"
    out, error = decode([say("Hi"), broken])
    assert out == [META, TextDelta("Hi")]
    assert isinstance(error, InvalidResponseError)
    assert '{"key": "***"' in str(error)
    assert "abcdefghijklmnop" not in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize("text", ["3", '"text"', "[1]", "tru", "{'a': 1}"])
def test_data_that_is_no_object_is_refused(text: str) -> None:
    _, error = decode([say("Hi"), event(text), STOP])
    assert isinstance(error, InvalidResponseError)


def test_deeply_nested_json_is_refused_like_any_other_nonsense() -> None:
    bomb = b'data: {"choices": ' + b"[" * 50_000 + b"]" * 50_000 + b"}\n\n"
    out, error = read(OpenAIChat().decoder(request_for()), [say("Hi"), bomb])
    assert out == [META, TextDelta("Hi")]
    assert isinstance(error, InvalidResponseError)


@pytest.mark.parametrize("size", [1, 64, 10_000])
def test_a_line_above_the_limit_is_refused(size: int) -> None:
    data = say("Hi") + b"data: " + b"x" * 600
    decoder = OpenAIChat(max_line_bytes=500).decoder(request_for())
    out, error = read(decoder, [data[i : i + size] for i in range(0, len(data), size)])
    assert out == [META, TextDelta("Hi")]
    assert isinstance(error, InvalidResponseError)
    assert "500 bytes" in str(error)


@pytest.mark.parametrize("half", [b"\\ud83d", b"\xf0\x9f"])
def test_half_a_character_costs_one_character_and_not_the_answer(half: bytes) -> None:
    out = complete([say("a"), say("HALF").replace(b"HALF", half), say("b"), STOP])
    text = text_of(out)
    assert (text[0], text[-1]) == ("a", "b")
    assert "\ufffd" in text


# ---- what is not a stream ------------------------------------------------------------------------


def whole(message: dict[str, Any], finish: Any = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "c1", "model": "gpt", "object": "chat.completion", "choices": [choice], **more}


@pytest.mark.parametrize("before", [b"", b"\n\n  ", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_answer_in_one_piece_is_recognised_whatever_was_asked(
    before: bytes, indent: int | None
) -> None:
    document = whole({"role": "assistant", "content": "Hé", "reasoning_content": "hm"}, usage=FULL)
    out = complete(before + json.dumps(document, indent=indent).encode() + b"\n")
    assert out == [
        META,
        ReasoningDelta("hm"),
        TextDelta("Hé"),
        FinishDelta("stop", "stop"),
        UsageDelta(Usage(prompt_tokens=30, completion_tokens=20)),
    ]


def test_tool_calls_in_one_piece() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]
    out = complete(json.dumps(whole({"content": None, "tool_calls": calls}, "stop")).encode())
    assert out == [
        META,
        ToolCallDelta(0, "a", "f", '{"x":1}'),
        ToolCallDelta(1, "b", "f", "{}"),
        FinishDelta("tool_calls", "stop"),
    ]


def test_an_answer_in_one_piece_without_a_finish_reason_is_complete() -> None:
    out = complete(json.dumps(whole({"content": ""}, None)).encode())
    assert out == [META, FinishDelta("other", None)]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", InvalidResponseError, "empty"),
        (b" \n", InvalidResponseError, "empty"),
        (b"<html><head><title>Hotel  Wi-Fi</title></head></html>", InvalidResponseError,
         "Hotel Wi-Fi"),
        (b"\n<!DOCTYPE html><html><body>x</body></html>", InvalidResponseError, "web page"),
        (b"Ollama is running", InvalidResponseError, "Ollama is running"),
        (b"data is not here", InvalidResponseError, "data is not here"),
        (b'{"id": "c1", "choices": [', InvalidResponseError, "chat completion"),
        (b'{"id": "c1", "choices": []}', InvalidResponseError, "no choices"),
        (b'{"id": "c1", "choices": null}', InvalidResponseError, "no choices"),
        (b"{}", InvalidResponseError, "no choices"),
        (b"[]", InvalidResponseError, "no choices"),
        (b'{"error": {"message": "bad key", "code": "invalid_api_key"}}', AuthenticationError,
         "bad key"),
        (b'{"error": {"message": "Provider returned error", "code": 429, "metadata": '
         b'{"raw": "upstream is busy"}}}', RateLimitError, "upstream is busy"),
        (b'[{"error": {"code": 400, "message": "API key not valid.", '
         b'"status": "INVALID_ARGUMENT"}}]', AuthenticationError, "not valid"),
        (b'{"detail": "model is required"}', ProviderAPIError, "model is required"),
    ],
)  # fmt: skip
def test_a_successful_answer_that_is_none_is_refused(
    data: bytes, kind: type[LLMError], words: str
) -> None:
    out, error = decode(data)
    assert out == []
    assert type(error) is kind
    assert words in str(error)


def test_a_web_page_comes_with_a_hint_about_the_address_and_the_network() -> None:
    _, error = decode(b"<html><title>Sign in</title>")
    assert error is not None
    assert error.code == "captive_portal"
    assert "base_url" in str(error.hint)
    assert "network" in str(error.hint)


def test_a_document_above_the_limit_is_refused() -> None:
    decoder = OpenAIChat(max_line_bytes=100).decoder(request_for())
    _, error = read(decoder, [b"{" + b" " * 60, b" " * 60])
    assert isinstance(error, InvalidResponseError)
    assert error.code == "line_too_long"


# ---- tool calls ----------------------------------------------------------------------------------


def calls(*pieces: Any) -> bytes:
    return chunk({"tool_calls": list(pieces)})


def piece(
    arguments: Any = None, name: str | None = None, id: str | None = None, index: Any = None
) -> dict[str, Any]:
    function = {} if name is None else {"name": name}
    if arguments is not None:
        function["arguments"] = arguments
    out: dict[str, Any] = {"type": "function", "function": function}
    if id is not None:
        out["id"] = id
    if index is not None:
        out["index"] = index
    return out


def assembled(deltas: list[Any]) -> list[tuple[str, str, str]]:
    found: dict[int, list[str]] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            call = found.setdefault(delta.index, ["", "", ""])
            assert not (call[0] and delta.id), "the id is told once"
            assert not (call[1] and delta.name), "the name is told once"
            call[0] += delta.id
            call[1] += delta.name
            call[2] += delta.arguments
    assert list(found) == list(range(len(found))), "calls are numbered in their order"
    return [tuple(call) for call in found.values()]


ONE = [("a", "f", '{"x":1}')]
TWO = [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')]
TWINS = [("a", "f", '{"x":1}'), ("b", "f", '{"y":2}')]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param([calls(piece("", "f", "a", 0)), calls(piece('{"x"', index=0)),
                      calls(piece(":1}", index=0))], ONE, id="as OpenAI does"),
        pytest.param([calls(piece('{"x":1}', "f", "a", 0))], ONE, id="whole"),
        pytest.param([calls(piece({"x": 1}, "f", "a", 0))], ONE, id="arguments as an object"),
        pytest.param([calls(piece(None, "f", "a", 0)), calls(piece('{"x":1}', index=0))], ONE,
                     id="arguments null at first"),
        pytest.param([calls(piece('{"x"', "f", "a", 0)), calls(piece(":1}", "f", "a", 0))], ONE,
                     id="name and id in each piece"),
        pytest.param([calls(piece('{"x"', "f", "a", 0)), calls(piece(":1}", "", "", 0))], ONE,
                     id="name and id empty later"),
        pytest.param([calls(piece('{"x"', "f", "a", 0)), calls(piece(":1}", None, "z", 0))], ONE,
                     id="another id in each piece, the name once"),
        pytest.param([calls(piece('{"x"', "f", "a")), calls(piece(":1}"))], ONE, id="no index"),
        pytest.param([calls(piece('{"x"', "f", "a")), calls(piece(":1}", "f", "a"))], ONE,
                     id="no index, name and id in each piece"),
        pytest.param([calls(piece('{"x"', "f", "a")), calls(piece(":1}", None, "a"))], ONE,
                     id="no index, id in each piece"),
        pytest.param([calls(piece('{"x"', "f", "a")), calls(piece(":1}", index=0))], ONE,
                     id="no index at first"),
        pytest.param([calls(piece('{"x"', "f", "a", 0)), calls(piece(":1}"))], ONE,
                     id="an index at first only"),
        pytest.param([calls(piece('{"x"', "f", "a", "0")), calls(piece(":1}", index="0"))], ONE,
                     id="index as a text"),
        pytest.param([calls(piece('{"x"', None, "a", 0)), calls(piece(":1}", "f", None, 0))], ONE,
                     id="name in the second piece"),
        pytest.param([calls(piece('{"x":1}', "f", "a", 0)), calls(piece("", None, None, 0))], ONE,
                     id="an empty piece at the end"),
        pytest.param([calls(piece("", "f", "a", 0)), calls(piece("", "g", "b", 1)),
                      calls(piece('{"x"', index=0)), calls(piece('{"y"', index=1)),
                      calls(piece(":1}", index=0)), calls(piece(":2}", index=1))], TWO,
                     id="two, interleaved"),
        pytest.param([calls(piece('{"x":1}', "f", "a", 0), piece('{"y":2}', "g", "b", 1))], TWO,
                     id="two in one chunk"),
        pytest.param([calls(piece('{"x":1}', "f", "a", 0)), calls(piece('{"y":2}', "f", "b", 0))],
                     TWINS, id="two, all with index 0"),
        pytest.param([calls(piece('{"x":1}', "f", "a")), calls(piece('{"y":2}', "f", "b"))],
                     TWINS, id="two, told apart by id"),
        pytest.param([calls(piece('{"x"', "f", "a")), calls(piece('{"y"', "g", "b")),
                      calls(piece(":1}", None, "a")), calls(piece(":2}", None, "b"))], TWO,
                     id="two, interleaved by id"),
        pytest.param([calls(piece('{"x":1}', "f", "a", 1)), calls(piece('{"y":2}', "g", "b", 2))],
                     TWO, id="counted from one"),
    ],
)  # fmt: skip
def test_pieces_of_tool_calls_find_their_call(
    data: list[bytes], expected: list[tuple[str, str, str]]
) -> None:
    out = complete([*data, chunk({}, "tool_calls"), DONE])
    assert assembled(out) == expected
    assert out[-1] == FinishDelta("tool_calls", "tool_calls")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param([calls(piece('{"x"', "f")), calls(piece(":1}"))], [("f", '{"x":1}')],
                     id="neither index nor id"),
        pytest.param([calls(piece('{"x"', "f")), calls(piece(":1}", "f"))], [("f", '{"x":1}')],
                     id="the name in each piece"),
        pytest.param([calls(piece("{}", "f")), calls(piece("{}", "g"))], [("f", "{}"), ("g", "{}")],
                     id="another name"),
        pytest.param([calls(piece("{}", "f")), calls(piece("{}", "f"))], [("f", "{}"), ("f", "{}")],
                     id="the same tool again"),
        pytest.param([calls(piece('{"x"', "f")), calls(piece(":{}", "f")), calls(piece("}", "f"))],
                     [("f", '{"x":{}}')], id="a brace that does not end it"),
        pytest.param([calls(piece("{}", "f"), piece("{}", "f"))], [("f", "{}"), ("f", "{}")],
                     id="twice in one chunk"),
        pytest.param([chunk({"function_call": {"name": "f", "arguments": "{"}}),
                      chunk({"function_call": {"arguments": "}"}})], [("f", "{}")],
                     id="the old form"),
        pytest.param([calls(piece("{}", "f", index=0)), calls(piece("{}", "f", index=1))],
                     [("f", "{}"), ("f", "{}")], id="index without id"),
    ],
)  # fmt: skip
def test_a_call_without_an_id_gets_one_of_its_own(
    data: list[bytes], expected: list[tuple[str, str]]
) -> None:
    found = assembled(complete([*data, STOP]))
    assert [call[1:] for call in found] == expected
    ids = [call[0] for call in found]
    assert all("r1" in id for id in ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("nonsense", ["x", {}, [1, None, "x"], [{}, {"index": 0}], 7])
def test_tool_calls_of_a_wrong_type_are_left_out(nonsense: Any) -> None:
    out = complete([chunk({"content": "Hi", "tool_calls": nonsense}), STOP])
    assert out == [META, TextDelta("Hi"), FinishDelta("stop", "stop")]


@pytest.mark.parametrize(
    ("word", "reason"),
    [("stop", "tool_calls"), ("eos", "tool_calls"), ("odd", "tool_calls"), ("length", "length"),
     ("content_filter", "content_filter")],
)  # fmt: skip
def test_an_answer_with_tool_calls_ends_with_tool_calls(word: str, reason: str) -> None:
    out = complete([calls(*[piece("{}", "f", "a", 0)]), chunk({}, word)])
    assert out[-1] == FinishDelta(reason, word)


def test_done_behind_tool_calls_ends_with_tool_calls() -> None:
    out = complete([calls(piece("{}", "f", "a", 0)), DONE])
    assert out[-1] == FinishDelta("tool_calls", None)


def test_long_arguments_in_many_pieces_without_index_or_id() -> None:
    text = json.dumps({"text": "}" * 20_000})
    data = [calls(piece("", "f"))] + [calls(piece(text[i : i + 10], "f"))
                                      for i in range(0, len(text), 10)]  # fmt: skip
    out, error = read(OpenAIChat().decoder(request_for()), [b"".join(data) + STOP])
    assert error is None
    assert [call[1:] for call in assembled(out)] == [("f", text)]


# ---- facts and raw documents ---------------------------------------------------------------------


def test_the_facts_wait_for_the_first_delta_and_for_a_chunk_that_knows_them() -> None:
    unknown = event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    assert complete([unknown, say("b"), say("c"), STOP])[:4] == [
        TextDelta("a"),
        META,
        TextDelta("b"),
        TextDelta("c"),
    ]


def test_an_answer_that_never_tells_its_model_has_no_facts() -> None:
    data = [event({"choices": [{"delta": {"content": c}}]}) for c in "ab"]
    out = complete([*data, event({"choices": [{"delta": {}, "finish_reason": "stop"}]})])
    assert out == [TextDelta("a"), TextDelta("b"), FinishDelta("stop", "stop")]


def test_raw_documents_come_on_request_each_before_what_it_says() -> None:
    out = complete([chunk({"role": "assistant"}), say("Hi"), STOP, DONE], include_raw=True)
    assert [type(d) for d in out] == [
        MetaDelta, RawDelta, RawDelta, TextDelta, RawDelta, FinishDelta,
    ]  # fmt: skip
    assert out[2].document["choices"][0]["delta"] == {"content": "Hi"}
    assert not any(isinstance(d, RawDelta) for d in complete([say("Hi"), STOP]))


def test_the_raw_document_of_an_answer_in_one_piece() -> None:
    document = whole({"content": "Hi"})
    out = complete(json.dumps(document).encode(), include_raw=True)
    assert [d.document for d in out if isinstance(d, RawDelta)] == [document]


def test_an_error_is_no_raw_document() -> None:
    inside = {"choices": [{"delta": {}, "error": {"code": 503, "message": "busy"}}]}
    for document in (inside, {"error": RATE}, RATE):
        out, error = decode(event(document), include_raw=True)
        assert out == []
        assert error is not None


def test_raw_documents_alone_are_no_answer() -> None:
    out, error = decode([chunk({"role": "assistant"}), DONE], include_raw=True)
    assert [type(d) for d in out] == [MetaDelta, RawDelta]
    assert isinstance(error, InvalidResponseError)


# ---- reasoning in tags ---------------------------------------------------------------------------

THINKS = ChatDialect(think_tags=True)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>hm</think>Hi", "hm", "Hi"),
        ("<think>\nhm\n</think>\n\nHi\n", "hm\n", "Hi\n"),
        ("\n<think>hm</think> Hi", "hm", "Hi"),
        ("<think></think>Hi", "", "Hi"),
        ("<think>\n\n</think>\n\nHi", "", "Hi"),
        ("Hi", "", "Hi"),
        ("\n Hi", "", "\n Hi"),
        ("Say <think>hm</think>", "", "Say <think>hm</think>"),
        ("<thin", "", "<thin"),
        ("<thinking>x", "", "<thinking>x"),
        ("<think>hm", "hm", ""),
        ("<think>a </b> </thi", "a </b> </thi", ""),
        ("<think>a</think>b</think>c<think>", "a", "b</think>c<think>"),
        ("<think>é😀</think>é😀", "é😀", "é😀"),
        ("", "", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_reasoning_in_tags_is_taken_out_however_the_text_is_cut(
    text: str, reasoning: str, answer: str, size: int
) -> None:
    pieces = [say(text[i : i + size]) for i in range(0, len(text), size)]
    out = complete([*pieces, STOP], THINKS)
    assert (reasoning_of(out), text_of(out)) == (reasoning, answer)
    assert isinstance(out[-1], FinishDelta)


def test_what_might_have_become_a_tag_is_not_lost_when_the_stream_breaks_off() -> None:
    out, error = decode([say("<think>hm</thi")], THINKS)
    assert reasoning_of(out) == "hm</thi"
    assert isinstance(error, StreamInterruptedError)


def test_tags_are_taken_out_of_an_answer_in_one_piece_too() -> None:
    out = complete(json.dumps(whole({"content": "<think>hm</think>Hi"})).encode(), THINKS)
    assert (reasoning_of(out), text_of(out)) == ("hm", "Hi")


def test_tags_are_text_where_the_dialect_does_not_say_otherwise() -> None:
    assert text_of(complete([say("<think>hm</think>Hi"), STOP])) == "<think>hm</think>Hi"


# ---- any cutting ---------------------------------------------------------------------------------

SCRAPS = [
    say("Hé😀"),
    chunk({"reasoning": "hm"}),
    calls(piece('{"x"', "f", "a", 0)),
    calls(piece(":1}", index=0)),
    chunk({}, "stop", usage=FULL),
    event({"choices": [], "usage": FULL}),
    b": keep-alive\n\n",
    b"event: message\n",
    b"\r\n",
    DONE,
    event({"error": RATE}),
    event("garbage"),
    b'data: {"half',
]


@quick
@given(st.lists(st.sampled_from(SCRAPS), max_size=8), places, st.booleans())
def test_where_an_answer_is_cut_makes_no_difference(
    scraps: list[bytes], where: list[int], with_cr: bool
) -> None:
    data = b"".join(scraps)
    if with_cr:
        data = data.replace(b"\n", b"\r\n")
    out, error = read(OpenAIChat().decoder(request_for()), [data])
    other_out, other_error = read(OpenAIChat().decoder(request_for()), cut(data, where))
    assert other_out == out
    assert (type(other_error), str(other_error)) == (type(error), str(error))


@quick
@given(st.text(max_size=200), st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_any_text_arrives_as_it_was_sent(text: str, where: list[int], escaped: bool) -> None:
    edges = [0, *sorted({w % (len(text) + 1) for w in where}), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    data = b"".join(
        b"data: " + json.dumps({"choices": [{"delta": {"content": p}}]}, ensure_ascii=escaped)
        .encode() + b"\n\n" for p in pieces
    )  # fmt: skip
    out, error = read(OpenAIChat().decoder(request_for()), [data, STOP])
    assert error is None
    assert text_of(out) == text


@quick
@given(st.binary(max_size=300), places)
def test_any_bytes_end_in_an_error_of_ours_or_in_an_answer(data: bytes, where: list[int]) -> None:
    for start in (b"", b"data: ", b"{", b"data: {}\n\n"):
        out, error = read(OpenAIChat().decoder(request_for()), cut(start + data, where))
        assert error is not None or isinstance(out[-1], FinishDelta | UsageDelta)
