"""Decoding answers of Anthropic's Messages API."""

from __future__ import annotations

import itertools
import json
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
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderAPIError,
    ProviderOverloadedError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from llm_manager.messages import (
    FinishDelta,
    MetaDelta,
    OpaquePart,
    PartDelta,
    RawDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from llm_manager.wire.anthropic_messages import AnthropicMessages

from .anthropic_events import (
    PING,
    STOP,
    answer,
    begin,
    call_block,
    end,
    finish,
    one,
    piece,
    rendered,
    say,
    start,
    text_block,
    thinking_block,
)
from .wire_reading import bytewise, cut, places, quick, read, request_for

META = MetaDelta("claude", "msg_1")
FIRST_USAGE = UsageDelta(Usage(prompt_tokens=3, completion_tokens=1))
LAST_USAGE = UsageDelta(Usage(prompt_tokens=3, completion_tokens=2))
LEAD = [META, FIRST_USAGE]


def decode(data: Any, **options: Any) -> tuple[list[Any], LLMError | None]:
    """What comes out; that the cutting of the bytes makes no difference is checked on the way."""
    data = data if isinstance(data, bytes) else rendered(data)
    codec, request = AnthropicMessages(), request_for(**options)
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


def kept(kind: str, **data: Any) -> PartDelta:
    return PartDelta(OpaquePart(origin="anthropic", kind=kind, data={"type": kind, **data}))


# ---- text, reasoning, tools ----------------------------------------------------------------------


def test_a_stream_becomes_deltas_with_the_facts_in_front() -> None:
    assert complete(answer(text_block("Hé", "llo 😀"))) == [
        *LEAD,
        TextDelta("Hé"),
        TextDelta("llo 😀"),
        LAST_USAGE,
        FinishDelta("stop", "end_turn"),
    ]


def test_nothing_comes_out_before_the_first_piece_of_the_answer() -> None:
    decoder = AnthropicMessages().decoder(request_for())
    assert decoder.feed(rendered([start(), PING, begin(0, "text", text="")])) == []
    assert decoder.feed(one(say("Hi"))) == [*LEAD, TextDelta("Hi")]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(answer(text_block("Hi")), id="usual"),
        pytest.param([start(), begin(0, "text", text="Hi"), end(), finish(), STOP],
                     id="text in the start of the block"),
        pytest.param([start(), say("Hi"), finish(), STOP], id="a block that is never opened"),
        pytest.param([start(), begin(0, "text", text=""), say("Hi"), finish(), STOP],
                     id="a block that is never closed"),
        pytest.param([start(), {"type": "news"}, *text_block("", "Hi"), finish(), STOP],
                     id="an unknown event"),
        pytest.param([start(), *text_block("Hi"), finish(None), finish(), STOP],
                     id="counts without a reason"),
        pytest.param([*answer(text_block("Hi")), say("more"), {"type": "error"}],
                     id="something behind the end"),
        pytest.param([start(), begin(0, "text", text=""), say("Hi"),
                      piece(0, "citations_delta", citation={"cited_text": "x"}), end(), finish(),
                      STOP], id="citations"),
        pytest.param([start(), {"type": "content_block_delta", "index": 0, "delta": [1]},
                      *text_block("Hi"), finish(), STOP], id="a delta that is no object"),
    ],
)  # fmt: skip
def test_one_answer_has_many_shapes(events: list[Any]) -> None:
    finished = FinishDelta("stop", "end_turn")
    assert complete(events) == [*LEAD, TextDelta("Hi"), LAST_USAGE, finished]


@pytest.mark.parametrize("blank", [b": wait\n\n", b"\n", b"event: ping\ndata: \n\n"])
def test_comments_and_empty_events_mean_nothing(blank: bytes) -> None:
    events = map(one, answer(text_block("H", "i")))
    assert complete(blank + blank.join(events)) == complete(answer(text_block("H", "i")))


def test_reasoning_is_shown_and_kept_whole_with_its_signature() -> None:
    events = answer(thinking_block("Let me ", "see", signature="c2ln"), text_block("4", index=1))
    assert complete(events) == [
        *LEAD,
        ReasoningDelta("Let me "),
        ReasoningDelta("see"),
        kept("thinking", thinking="Let me see", signature="c2ln"),
        TextDelta("4"),
        LAST_USAGE,
        FinishDelta("stop", "end_turn"),
    ]


def test_what_is_neither_text_nor_a_call_is_kept_whole_and_in_order() -> None:
    query = [
        begin(1, "server_tool_use", id="srv_1", name="web_search", input={}),
        piece(1, "input_json_delta", partial_json='{"query": '),
        piece(1, "input_json_delta", partial_json='"x"}'),
        end(1),
    ]
    found = [begin(2, "web_search_tool_result", tool_use_id="srv_1", content=[{"a": 1}]), end(2)]
    invented = [begin(3, "dream", mood="odd", story="Once"),
                piece(3, "dream_delta", story=" upon", colour="red"), end(3)]  # fmt: skip
    hidden = [begin(0, "redacted_thinking", data="xyz"), end()]
    events = answer(hidden, query, found, invented, text_block("So", index=4))
    assert complete(events)[2:-2] == [
        kept("redacted_thinking", data="xyz"),
        kept("server_tool_use", id="srv_1", name="web_search", input={"query": "x"}),
        kept("web_search_tool_result", tool_use_id="srv_1", content=[{"a": 1}]),
        kept("dream", mood="odd", story="Once upon", colour="red"),
        TextDelta("So"),
    ]


def test_parallel_calls_are_numbered_in_their_order() -> None:
    events = answer(
        text_block("Looking"),
        call_block("toolu_1", "weather", "", '{"city": ', '"Oslo"}', index=1),
        call_block("toolu_2", "time", index=2),
        reason="tool_use",
    )
    assert complete(events)[2:] == [
        TextDelta("Looking"),
        ToolCallDelta(0, "toolu_1", "weather"),
        ToolCallDelta(0, arguments='{"city": '),
        ToolCallDelta(0, arguments='"Oslo"}'),
        ToolCallDelta(1, "toolu_2", "time"),
        LAST_USAGE,
        FinishDelta("tool_calls", "tool_use"),
    ]


def test_a_call_whose_arguments_come_with_its_start_has_them() -> None:
    events = answer([begin(0, "tool_use", id="t", name="f", input={"a": 1}), end()])
    assert complete(events)[2:4] == [
        ToolCallDelta(0, "t", "f"),
        ToolCallDelta(0, arguments='{"a":1}'),
    ]


def test_a_call_that_something_follows_is_kept_in_its_place() -> None:
    events = answer(
        call_block("t1", "f", '{"a": 1}'),
        thinking_block("hm", index=1),
        call_block("t2", "f", index=2),
        reason="tool_use",
    )
    parts = [d for d in complete(events) if isinstance(d, PartDelta)]
    assert parts == [
        kept("tool_use", id="t1", name="f", input={"a": 1}),
        kept("thinking", thinking="hm", signature="sig=="),
    ]


def test_a_call_with_more_than_name_and_arguments_is_kept_whole() -> None:
    events = answer(call_block("t1", "f", caller={"type": "direct"}), reason="tool_use")
    assert kept("tool_use", id="t1", name="f", input={}, caller={"type": "direct"}) in complete(
        events
    )


# ---- counts and ends -----------------------------------------------------------------------------


def test_the_prompt_includes_what_a_cache_had_to_do_with() -> None:
    counts = {"input_tokens": 10, "cache_read_input_tokens": 200,
              "cache_creation_input_tokens": 30, "output_tokens": 1}  # fmt: skip
    last = finish(
        output_tokens=50, input_tokens=None, output_tokens_details={"thinking_tokens": 20}
    )
    usages = [d.usage for d in complete([start(**counts), *text_block("x"), last, STOP])
              if isinstance(d, UsageDelta)]  # fmt: skip
    assert usages[-1] == Usage(
        prompt_tokens=240,
        completion_tokens=50,
        cached_tokens=200,
        cache_write_tokens=30,
        reasoning_tokens=20,
    )


@pytest.mark.parametrize(
    ("creation", "for_an_hour"),
    [
        ({"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}, 20),
        ({"ephemeral_1h_input_tokens": 500}, 30),  # never more than was written at all
        ({"ephemeral_1h_input_tokens": "many"}, 0),
        (None, 0),
        (7, 0),
    ],
)
def test_what_is_kept_for_an_hour_is_counted_by_itself(creation: Any, for_an_hour: int) -> None:
    counts = {"input_tokens": 10, "cache_creation_input_tokens": 30, "cache_creation": creation}
    events = [start(**counts), *text_block("x"), finish(output_tokens=5), STOP]
    usages = [d.usage for d in complete(events) if isinstance(d, UsageDelta)]
    assert usages[-1].cache_write_tokens == 30
    assert usages[-1].cache_write_1h_tokens == for_an_hour


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "other"),
        ("brand_new", "other"),
    ],
)
def test_every_stop_reason_has_a_meaning(word: str, reason: Any) -> None:
    assert complete(answer(text_block("x"), reason=word))[-1] == FinishDelta(reason, word)


def test_an_end_without_a_reason_is_an_end() -> None:
    assert complete([start(), *text_block("x"), STOP])[-1] == FinishDelta("other", None)


def test_raw_documents_are_kept_in_their_order() -> None:
    events = [e for e in answer(text_block("a", "b")) if e != PING]
    out = complete(answer(text_block("a", "b")), include_raw=True)
    assert [d.document for d in out if isinstance(d, RawDelta)] == events
    assert out[0] == META
    assert [d for d in out if not isinstance(d, RawDelta)] == complete(answer(text_block("a", "b")))


# ---- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("kept_events", range(1, 6))
def test_a_stream_without_message_stop_is_interrupted(kept_events: int) -> None:
    events = [e for e in answer(text_block("Hi")) if e != PING]
    out, error = decode(events[:kept_events])
    assert type(error) is StreamInterruptedError
    assert [d for d in out if isinstance(d, TextDelta)] == ([TextDelta("Hi")] if kept_events > 2
                                                            else [])  # fmt: skip


def test_half_an_event_at_the_end_is_an_interruption() -> None:
    _, error = decode(rendered(answer(text_block("Hi"))[:4]) + one(say("more"))[:-9])
    assert type(error) is StreamInterruptedError


def test_the_last_event_needs_no_empty_line() -> None:
    assert complete(rendered(answer(text_block("Hi"))).rstrip()) == complete(
        answer(text_block("Hi"))
    )


@pytest.mark.parametrize(
    ("type_", "text", "kind", "retryable"),
    [
        ("overloaded_error", "Overloaded", ProviderOverloadedError, True),
        ("rate_limit_error", "slow down", RateLimitError, True),
        ("api_error", "Internal server error", ProviderAPIError, True),
        ("timeout_error", "too slow", RequestTimeoutError, True),
        ("invalid_request_error", "messages: wrong", InvalidRequestError, False),
        ("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum",
         ContextWindowExceededError, False),
        ("authentication_error", "wrong key", AuthenticationError, False),
        ("permission_error", "not yours", PermissionDeniedError, False),
        ("not_found_error", "model: claude-9", ModelNotFoundError, False),
        ("request_too_large", "Request exceeds the maximum size", InvalidRequestError, False),
        ("billing_error", "Your credit balance is too low", QuotaExceededError, False),
    ],
)  # fmt: skip
def test_an_error_in_the_stream_comes_behind_what_had_arrived(
    type_: str, text: str, kind: type[LLMError], retryable: bool
) -> None:
    failure = {"type": "error", "error": {"type": type_, "message": text}, "request_id": "req_9"}
    out, error = decode([start(), begin(0, "text", text=""), say("Hi"), failure])
    assert out == [*LEAD, TextDelta("Hi")]
    assert type(error) is kind
    assert (error.retryable, error.provider_request_id) == (retryable, "req_9")
    assert text in error.message
    # The same in an answer without events.
    assert type(decode(json.dumps(failure).encode())[1]) is kind


def test_behind_an_error_there_is_only_that_error() -> None:
    decoder = AnthropicMessages().decoder(request_for())
    failure = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    for act in (lambda: decoder.feed(one(failure)), lambda: decoder.feed(one(say("x"))),
                decoder.close):  # fmt: skip
        with pytest.raises(ProviderOverloadedError):
            act()


def test_an_error_event_need_not_be_well_formed() -> None:
    _, error = decode(b"event: error\ndata: it fell over\n\n")
    assert "it fell over" in str(error)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_response"),
        (b"<html><title>Sign in</title></html>", "captive_portal"),
        (b"no such thing", "invalid_response"),
        (b'{"answer": 42}', "invalid_response"),
        (b'event: message_start\ndata: {"broken\n\n', "invalid_response"),
        (b"data: [1]\n\n", "invalid_response"),
    ],
)
def test_what_is_no_message_is_an_invalid_response(data: bytes, code: str) -> None:
    out, error = decode(data)
    assert out == []
    assert type(error) is InvalidResponseError
    assert error.code == code


def test_an_answer_in_one_piece_says_the_same_as_the_stream() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
    ]
    message = {**start()["message"], "content": blocks, "stop_reason": "tool_use",
               "usage": {"input_tokens": 3, "output_tokens": 2}}  # fmt: skip
    assert complete(json.dumps(message).encode()) == [
        META,
        LAST_USAGE,
        ReasoningDelta("hm"),
        kept("thinking", thinking="hm", signature="s"),
        TextDelta("Hi"),
        ToolCallDelta(0, "t1", "f"),
        ToolCallDelta(0, arguments='{"a":1}'),
        FinishDelta("tool_calls", "tool_use"),
    ]
    raw = complete(json.dumps(message).encode(), include_raw=True)
    assert [d.document for d in raw if isinstance(d, RawDelta)] == [message]


def test_an_answer_that_is_too_long_is_refused() -> None:
    codec = AnthropicMessages(max_line_bytes=1000)
    for data in (one(say("x" * 2000)), json.dumps({"content": "x" * 2000}).encode()):
        for pieces in ([data], bytewise(data)):
            out, error = read(codec.decoder(request_for()), pieces)
            assert out == []
            assert type(error) is InvalidResponseError
            assert error.code == "line_too_long"


# ---- any cutting, any garbage --------------------------------------------------------------------

LONG = rendered(
    answer(
        thinking_block("a", "ö"),
        text_block("Hé", "llo\n\n", "event: x", index=1),
        call_block("t1", "f", '{"a"', ": 1}", index=2),
        text_block("end", index=3),
        reason="tool_use",
    )
)


@quick
@given(places)
def test_cutting_makes_no_difference(where: list[int]) -> None:
    whole, _ = read(AnthropicMessages().decoder(request_for()), [LONG])
    assert read(AnthropicMessages().decoder(request_for()), cut(LONG, where)) == (whole, None)


@quick
@given(st.lists(st.sampled_from([*map(one, answer(text_block("a", "b"))), b"data: {}\n\n",
                                 b"event: x\n", b"data: ", b"\n\n", b'{"delta": 3}', b"\xff"]),
                max_size=12))  # fmt: skip
def test_whatever_comes_only_our_errors_come_out(pieces: list[bytes]) -> None:
    read(AnthropicMessages().decoder(request_for()), pieces)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                               max_size=3),
    max_leaves=6,
)  # fmt: skip


@quick
@given(st.lists(st.tuples(st.sampled_from(answer(call_block("t", "f", "{}"), text_block("x"))),
                          st.sampled_from(["type", "index", "delta", "content_block", "message",
                                           "usage"]), JSON), max_size=6))  # fmt: skip
def test_no_value_of_a_wrong_type_makes_a_mistake_of_ours(
    changes: list[tuple[dict[str, Any], str, Any]],
) -> None:
    events = [{**event, name: value} for event, name, value in changes]
    data = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)
    out, error = read(AnthropicMessages().decoder(request_for()), [start_bytes(), data])
    assert error is not None or out
    for a, b in itertools.pairwise(out):
        assert not (isinstance(a, FinishDelta) and isinstance(b, FinishDelta))


def start_bytes() -> bytes:
    return one(start())
