"""Ollama's own chat dialect, in both directions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    InvalidParameterError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    ProviderAPIError,
    StreamInterruptedError,
    UnsupportedFeatureError,
)
from llm_manager.messages import (
    FilePart,
    FinishDelta,
    ImagePart,
    LLMMessage,
    MetaDelta,
    RawDelta,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolDefinition,
    Usage,
    UsageDelta,
)
from llm_manager.wire.ollama_chat import OllamaChat

from .wire_reading import bytewise, cut, places, quick, read, request_for

META = MetaDelta("llama")
TOOL = ToolDefinition(name="look", description="Looks.", parameters={"type": "object"})
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


# ---- encoding ------------------------------------------------------------------------------------


def body(*messages: LLMMessage, codec: OllamaChat | None = None, **options: Any) -> dict[str, Any]:
    return json.loads((codec or OllamaChat()).encode(request_for(*messages, **options)))


def test_a_plain_request_says_no_more_than_it_must_and_forbids_silent_losses() -> None:
    assert body() == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "truncate": False,
        "shift": False,
    }
    assert body(stream=False)["stream"] is False


def test_settings_of_the_codec() -> None:
    sent = body(codec=OllamaChat(truncate=True, keep_alive="10m", num_ctx=8192))
    assert (sent["truncate"], sent["shift"], sent["keep_alive"]) == (True, True, "10m")
    assert sent["options"] == {"num_ctx": 8192}
    assert body(codec=OllamaChat(keep_alive=0))["keep_alive"] == 0


def test_options_go_under_the_names_of_ollama() -> None:
    sent = body(
        temperature=0,
        max_tokens=5,
        top_p=0.5,
        presence_penalty=1,
        frequency_penalty=-1,
        stop="a",
        seed=0,
    )
    assert sent["options"] == {
        "temperature": 0,
        "num_predict": 5,
        "top_p": 0.5,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "stop": ["a"],
        "seed": 0,
    }


def test_extra_options_join_the_others_and_extra_fields_win() -> None:
    codec = OllamaChat(num_ctx=4096)
    extra = {"options": {"top_k": 5, "num_ctx": 512}, "truncate": True, "logprobs": True}
    sent = body(codec=codec, temperature=1, extra=extra)
    assert sent["options"] == {"temperature": 1, "top_k": 5, "num_ctx": 512}
    assert (sent["truncate"], sent["logprobs"]) == (True, True)
    with pytest.raises(InvalidParameterError, match="dictionary, got list"):
        body(extra={"options": []})


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"),
     ("max", "max")],
)  # fmt: skip
def test_thinking_is_asked_for_only_if_the_caller_does(effort: Any, think: bool | str) -> None:
    assert body(reasoning_effort=effort)["think"] == think
    assert "think" not in body()


def test_response_formats() -> None:
    assert body(response_format="json_object")["format"] == "json"
    assert body(response_format=SCHEMA)["format"] == SCHEMA
    assert "format" not in body(response_format="text")


def test_tools() -> None:
    function = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
    expected = [{"type": "function", "function": function}]
    assert body(tools=[TOOL])["tools"] == expected
    assert body(tools=[TOOL], tool_choice="auto")["tools"] == expected
    assert "tools" not in body(tools=[TOOL], tool_choice="none")
    for choice in ("required", "look"):
        with pytest.raises(UnsupportedFeatureError, match=choice):
            body(tools=[TOOL], tool_choice=choice)


def test_a_conversation_with_tools() -> None:
    call = ToolCall(id="c1", name="look", arguments_json='{"at": "é"}')
    sent = body(
        LLMMessage.user("hi"),
        LLMMessage(role="assistant", tool_calls=(call,), reasoning="hm"),
        LLMMessage.tool("c1", "a bird"),
        LLMMessage.tool("other", "?"),
        LLMMessage(role="assistant", content="A bird.", reasoning="hm"),
        LLMMessage.user("a", "b"),
        LLMMessage.assistant(tool_calls=[ToolCall(id="c2", name="f", arguments_json="")]),
    )
    function = {"name": "look", "arguments": {"at": "é"}}
    assert sent["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "thinking": "hm",
         "tool_calls": [{"id": "c1", "function": function}]},
        {"role": "tool", "content": "a bird", "tool_call_id": "c1", "tool_name": "look"},
        {"role": "tool", "content": "?", "tool_call_id": "other"},
        {"role": "assistant", "content": "A bird."},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "",
         "tool_calls": [{"id": "c2", "function": {"name": "f", "arguments": {}}}]},
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", ["[1]", "{", "nothing"])
def test_arguments_that_are_no_object_cannot_be_sent(arguments: str) -> None:
    call = ToolCall(id="c1", name="f", arguments_json=arguments)
    with pytest.raises(InvalidParameterError, match="c1"):
        body(LLMMessage.assistant(tool_calls=[call]))


def test_images_go_without_a_prefix() -> None:
    image = ImagePart(data=b"\x89PNG", media_type="image/png")
    inline = ImagePart(url="data:image/png;base64,iVBORw==")
    (sent,) = body(LLMMessage.user("what", image, " is", inline))["messages"]
    assert sent == {"role": "user", "content": "what is", "images": ["iVBORw==", "iVBORw=="]}


@pytest.mark.parametrize(
    "part",
    [
        ImagePart(url="https://x/y.png"),
        ImagePart(url="data:image/svg+xml,<svg/>"),
        FilePart(data=b"x", media_type="text/plain"),
    ],
)
def test_what_ollama_cannot_take_is_refused_with_a_way_out(part: Any) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        body(LLMMessage.user("hi", part))
    assert caught.value.hint


def test_what_is_not_json_is_refused_before_sending() -> None:
    with pytest.raises(InvalidParameterError, match="JSON"):
        body(extra={"x": object()})


# ---- decoding ------------------------------------------------------------------------------------


def line(**fields: Any) -> bytes:
    document = {"model": "llama", "created_at": "2026-11-20T12:00:00Z", **fields}
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


def say(text: Any, **more: Any) -> bytes:
    return line(message={"role": "assistant", "content": text, **more}, done=False)


def end(reason: str | None = "stop", **more: Any) -> bytes:
    why = {} if reason is None else {"done_reason": reason}
    return line(message={"role": "assistant", "content": ""}, done=True, **why, **more)


def decode(data: bytes | list[bytes], **options: Any) -> tuple[list[Any], LLMError | None]:
    """What comes out; that the cutting of the bytes makes no difference is checked on the way."""
    data = data if isinstance(data, bytes) else b"".join(data)
    out, error = read(OllamaChat().decoder(request_for(**options)), [data])
    for pieces in (bytewise(data), [data[:-1], data[-1:]], bytewise(data.replace(b"\n", b"\r\n"))):
        other_out, other_error = read(OllamaChat().decoder(request_for(**options)), pieces)
        assert other_out == out
        assert (type(other_error), str(other_error)) == (type(error), str(error))
    return out, error


def complete(data: bytes | list[bytes], **options: Any) -> list[Any]:
    out, error = decode(data, **options)
    assert error is None
    return out


def test_a_stream_becomes_deltas_with_the_facts_in_front() -> None:
    data = [say("Hé"), say("llo 😀"), end(prompt_eval_count=3, eval_count=2)]
    assert complete(data) == [
        META,
        TextDelta("Hé"),
        TextDelta("llo 😀"),
        FinishDelta("stop", "stop"),
        UsageDelta(Usage(prompt_tokens=3, completion_tokens=2)),
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([say("Hi"), end()], id="usual"),
        pytest.param([say("Hi"), end().rstrip()], id="no line end at the end"),
        pytest.param([b"\n", say("Hi"), b"\n\n", end()], id="empty lines"),
        pytest.param([b"\xef\xbb\xbf", say("Hi"), end()], id="byte order mark"),
        pytest.param([say(""), say("Hi"), say(""), end()], id="empty pieces"),
        pytest.param([line(done=False), say("Hi"), line(message=None), end()], id="no message"),
        pytest.param([line(message="?"), say("Hi"), say(7), say(None), end()], id="wrong types"),
        pytest.param([say("Hi", thinking=3, tool_calls=7), end()], id="wrong types inside"),
        pytest.param([say("Hi"), end(), say("more"), b"garbage"[:0]], id="behind the end"),
        pytest.param([say("Hi"), end(), b'{"half'], id="half a line behind the end"),
        pytest.param(line(message={"content": "Hi"}, done=True, done_reason="stop"), id="whole"),
    ],
)
def test_an_odd_but_complete_answer_is_the_same_answer(data: bytes | list[bytes]) -> None:
    assert complete(data) == [META, TextDelta("Hi"), FinishDelta("stop", "stop")]


def test_thinking() -> None:
    out = complete([say("", thinking="hm"), say("Hi", thinking="!"), end()])
    assert out[1:4] == [ReasoningDelta("hm"), ReasoningDelta("!"), TextDelta("Hi")]


def call(name: Any, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **more}


def test_tool_calls_come_whole_and_are_numbered() -> None:
    first = say("", tool_calls=[call("f", {"x": "é"}, id="a"), call("g", {})])
    out = complete([first, say("", tool_calls=[call("f", {"x": [1]})]), end()])
    assert out == [
        META,
        ToolCallDelta(0, "a", "f", '{"x":"é"}'),
        ToolCallDelta(1, "call_r1_1", "g", "{}"),
        ToolCallDelta(2, "call_r1_2", "f", '{"x":[1]}'),
        FinishDelta("tool_calls", "stop"),
    ]


def test_odd_tool_calls() -> None:
    odd = [None, 7, {}, call(None, {}), call("", {}), call("f", None), call("g", '{"x":1}'),
           call("h", "")]  # fmt: skip
    out = complete([say("", tool_calls=odd), end()])
    assert [(d.name, d.arguments) for d in out if isinstance(d, ToolCallDelta)] == [
        ("f", "{}"),
        ("g", '{"x":1}'),
        ("h", "{}"),
    ]


@pytest.mark.parametrize(
    ("word", "reason"),
    [("stop", "stop"), ("length", "length"), ("load", "other"), ("unload", "other"),
     ("new", "other"), (None, "stop"), ("", "stop")],
)  # fmt: skip
def test_finish_reasons_are_translated_and_kept(word: str | None, reason: str) -> None:
    assert complete([say("Hi"), end(word)])[-1] == FinishDelta(reason, word or None)


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"prompt_eval_count": 3, "eval_count": 2}, Usage(prompt_tokens=3, completion_tokens=2)),
        ({"eval_count": 2}, Usage(completion_tokens=2)),
        ({"prompt_eval_count": 3}, Usage(prompt_tokens=3)),
        ({"prompt_eval_count": 0, "eval_count": 0}, None),
        ({"prompt_eval_count": "x", "eval_count": -1}, None),
        ({}, None),
    ],
)
def test_usage(counts: dict[str, Any], usage: Usage | None) -> None:
    out = complete([say("Hi"), end(**counts)])
    assert [d.usage for d in out if isinstance(d, UsageDelta)] == ([] if usage is None else [usage])


@pytest.mark.parametrize("rest", [b"", say("x")[:20], b"{", b"\n"])
def test_an_answer_that_is_never_done_is_interrupted(rest: bytes) -> None:
    out, error = decode([say("Hi"), rest])
    assert out == [META, TextDelta("Hi")]
    assert isinstance(error, StreamInterruptedError)


@pytest.mark.parametrize("data", [b'{"model":"llama","mess', line(done=False)])
def test_an_answer_that_breaks_off_before_anything_was_said_is_interrupted(data: bytes) -> None:
    out, error = decode(data)
    assert (out, type(error)) == ([], StreamInterruptedError)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"error":"model runner has unexpectedly stopped"}\n', ProviderAPIError),
        (b'{"error":"unauthorized","signin_url":"https://x/y"}\n', AuthenticationError),
        (b'{"error":"the prompt exceeds the available context size"}\n',
         ContextWindowExceededError),
        (b'{"error":"model \'x\' not found"}', ModelNotFoundError),
        (line(error={"code": 404, "message": "model 'x' not found"}), ModelNotFoundError),
    ],
)  # fmt: skip
def test_an_error_line_is_raised_behind_the_text(data: bytes, kind: type[LLMError]) -> None:
    for first in ([], [say("Hi")]):
        out, error = decode([*first, data])
        assert out == ([META, TextDelta("Hi")] if first else [])
        assert type(error) is kind


@pytest.mark.parametrize("nothing", [None, "", {}])
def test_an_empty_error_is_none(nothing: Any) -> None:
    assert complete([line(message={"content": "Hi"}, error=nothing), end()])[1] == TextDelta("Hi")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"<!DOCTYPE html>\n<html><title>Login</title></html>", "web page"),
        (b"Ollama is running", "Ollama is running"),
        (b"[1]\n", "[1]"),
        (b"7\n", "7"),
        (b'{"a": tru}\n', "tru"),
        (b'{"a": ' + b"[" * 50_000 + b"\n", "recursion"),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes, words: str) -> None:
    out, error = read(OllamaChat().decoder(request_for()), [data])
    assert out == []
    assert isinstance(error, InvalidResponseError)
    assert words in str(error)
    assert len(str(error)) < 400


def test_a_broken_line_is_refused_behind_the_text_with_a_short_quote_and_no_key() -> None:
    out, error = decode([say("Hi"), b'{"key": "sk-abcdefghijklmnop", ' + b"x" * 900 + b"\n"])
    assert out == [META, TextDelta("Hi")]
    assert isinstance(error, InvalidResponseError)
    assert "abcdefgh" not in str(error)
    assert len(str(error)) < 300


def test_an_error_is_raised_again_by_a_decoder_that_is_asked_again() -> None:
    decoder = OllamaChat().decoder(request_for())
    _, error = read(decoder, [say("Hi") + b'{"error":"no"}\n'])
    for again in (lambda: decoder.feed(say("more")), decoder.close):
        with pytest.raises(ProviderAPIError) as caught:
            again()
        assert caught.value is error


@pytest.mark.parametrize("size", [1, 64, 10_000])
def test_a_line_above_the_limit_is_refused(size: int) -> None:
    data = say("Hi") + b"x" * 600
    decoder = OllamaChat(max_line_bytes=500).decoder(request_for())
    out, error = read(decoder, [data[i : i + size] for i in range(0, len(data), size)])
    assert out == [META, TextDelta("Hi")]
    assert isinstance(error, InvalidResponseError)
    assert "500 bytes" in str(error)


def test_raw_documents_come_on_request() -> None:
    out = complete([say("Hi"), end()], include_raw=True)
    assert [type(d) for d in out] == [MetaDelta, RawDelta, TextDelta, RawDelta, FinishDelta]
    assert out[1].document["message"]["content"] == "Hi"
    assert not any(isinstance(d, RawDelta) for d in complete([say("Hi"), end()]))


SCRAPS = [
    say("Hé😀"),
    say("", thinking="hm"),
    say("", tool_calls=[call("f", {})]),
    end(eval_count=1),
    b"\n",
    b"\r\n",
    b'{"error":"no"}\n',
    b"garbage\n",
    b'{"half',
]


@quick
@given(st.lists(st.sampled_from(SCRAPS), max_size=8), places)
def test_where_an_answer_is_cut_makes_no_difference(scraps: list[bytes], where: list[int]) -> None:
    data = b"".join(scraps)
    out, error = read(OllamaChat().decoder(request_for()), [data])
    other_out, other_error = read(OllamaChat().decoder(request_for()), cut(data, where))
    assert other_out == out
    assert (type(other_error), str(other_error)) == (type(error), str(error))


@quick
@given(st.binary(max_size=300), places)
def test_any_bytes_end_in_an_error_of_ours_or_in_an_answer(data: bytes, where: list[int]) -> None:
    for start in (b"", b"{", say("Hi")):
        out, error = read(OllamaChat().decoder(request_for()), cut(start + data, where))
        assert error is not None or isinstance(out[-1], FinishDelta | UsageDelta)
