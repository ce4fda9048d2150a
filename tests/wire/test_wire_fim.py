"""Fill in the middle: four ways to ask, three shapes of answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from llm_manager.errors import (
    ContextWindowExceededError,
    InvalidParameterError,
    InvalidResponseError,
    LLMError,
    ProviderAPIError,
    RateLimitError,
    StreamInterruptedError,
    UnsupportedFeatureError,
)
from llm_manager.messages import (
    FinishDelta,
    LLMRequest,
    LLMRequestOptions,
    MetaDelta,
    RawDelta,
    TextDelta,
    ToolDefinition,
    Usage,
    UsageDelta,
)
from llm_manager.wire import Codec
from llm_manager.wire.fim import fim_codec
from llm_manager.wire.llamacpp_infill import LlamaCppInfill
from llm_manager.wire.ollama_generate import OllamaGenerate
from llm_manager.wire.openai_chat import ChatDialect

from .wire_reading import bytewise, cut, places, quick, read

STYLES: dict[str, Codec] = {
    "mistral": fim_codec("mistral", ChatDialect(stream_usage=False, seed_name="random_seed")),
    "completions": fim_codec("completions", ChatDialect(stop_limit=2)),
    "llamacpp": fim_codec("llamacpp", ChatDialect()),
    "ollama": OllamaGenerate(),
}


def request(*, stream: bool = True, suffix: str = "}", **options: Any) -> LLMRequest:
    return LLMRequest(
        id="r1",
        model="coder",
        operation="fim",
        prefix="f() {",
        suffix=suffix,
        options=LLMRequestOptions(**options),
        stream=stream,
    )


def body(style: str, **how: Any) -> dict[str, Any]:
    return json.loads(STYLES[style].encode(request(**how)))


# ---- asking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "sent"),
    [
        ("mistral", {"model": "coder", "prompt": "f() {", "suffix": "}", "stream": True}),
        (
            "completions",
            {"model": "coder", "prompt": "f() {", "suffix": "}", "stream": True,
             "stream_options": {"include_usage": True}},
        ),
        ("llamacpp", {"model": "coder", "input_prefix": "f() {", "input_suffix": "}",
                      "stream": True}),
        ("ollama", {"model": "coder", "prompt": "f() {", "suffix": "}", "stream": True,
                    "shift": False, "truncate": False}),
    ],
)  # fmt: skip
def test_a_plain_request_says_no_more_than_it_must(style: str, sent: dict[str, Any]) -> None:
    assert body(style) == sent


OPTIONS = {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "seed": 7}


@pytest.mark.parametrize(
    ("style", "sent"),
    [
        ("mistral", {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"],
                     "random_seed": 7}),
        ("completions", {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"],
                         "seed": 7}),
        ("llamacpp", {"n_predict": 5, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"],
                      "seed": 7}),
        ("ollama", {"options": {"num_predict": 5, "temperature": 0.5, "top_p": 0.9,
                                "stop": ["\n"], "seed": 7}}),
    ],
)  # fmt: skip
def test_options_go_under_the_names_of_the_server(style: str, sent: dict[str, Any]) -> None:
    plain = body(style)
    assert {k: v for k, v in body(style, **OPTIONS).items() if k not in plain} == sent


@pytest.mark.parametrize("style", STYLES)
def test_extra_fields_win_and_what_is_no_json_is_refused(style: str) -> None:
    assert body(style, extra={"stream": False, "mine": 1}) == body(style) | {
        "stream": False,
        "mine": 1,
    }
    with pytest.raises(InvalidParameterError, match="cannot be written as JSON"):
        body(style, extra={"mine": object()})


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "options", [{"tools": [ToolDefinition(name="look")]}, {"response_format": "json_object"}]
)
def test_what_only_a_conversation_can_have_is_refused(style: str, options: Any) -> None:
    with pytest.raises(UnsupportedFeatureError, match=f"knows no {next(iter(options))}"):
        body(style, **options)


@pytest.mark.parametrize("style", STYLES)
def test_a_reasoning_effort_does_not_matter(style: str) -> None:
    assert body(style, reasoning_effort="high") == body(style)


def test_penalties_are_refused_where_the_server_takes_none() -> None:
    with pytest.raises(UnsupportedFeatureError, match="takes no penalties"):
        body("mistral", presence_penalty=0.0)
    for style in ("completions", "llamacpp"):
        assert body(style, presence_penalty=1, frequency_penalty=-1)["frequency_penalty"] == -1


def test_the_limits_of_the_dialect_count_here_too() -> None:
    with pytest.raises(InvalidParameterError, match="at most 2 stop texts"):
        body("completions", stop=["a", "b", "c"])


def test_ollama_goes_on_writing_when_nothing_stands_behind() -> None:
    sent = body("ollama", suffix="")
    assert sent["raw"] is True
    assert "suffix" not in sent


def test_settings_of_an_ollama_server_are_sent() -> None:
    codec = OllamaGenerate(truncate=True, num_ctx=512, keep_alive="1m")
    sent = json.loads(codec.encode(request()))
    assert (sent["truncate"], sent["shift"], sent["keep_alive"]) == (True, True, "1m")
    assert sent["options"] == {"num_ctx": 512}


def test_each_style_has_its_place() -> None:
    paths = {style: codec.path for style, codec in STYLES.items()}
    assert paths == {
        "mistral": "/fim/completions",
        "completions": "/completions",
        "llamacpp": "/../infill",
        "ollama": "/api/generate",
    }
    elsewhere = fim_codec("completions", ChatDialect(), "/../beta/completions")
    assert elsewhere.path == "/../beta/completions"


# ---- answers -------------------------------------------------------------------------------------


def sse(*events: Any) -> bytes:
    return b"".join(
        b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n"
        for e in events
    )


def ndjson(*lines: Any) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def chat(content: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return {"id": "1", "model": "coder", "choices": [choice], **more}


def legacy(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
    return {"id": "1", "model": "coder", "object": "text_completion", "choices": [choice], **more}


COUNTS = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
INFILL_END = {
    "content": "", "stop": True, "stop_type": "eos", "model": "coder", "tokens_predicted": 2,
    "tokens_evaluated": 9, "tokens_cached": 10, "timings": {"cache_n": 4},
}  # fmt: skip
GENERATE_END = {
    "model": "coder", "response": "", "done": True, "done_reason": "stop", "prompt_eval_count": 9,
    "eval_count": 2, "context": [1, 2],
}  # fmt: skip

STREAMS: dict[str, tuple[bytes, bytes]] = {  # the beginning and the end of each
    "mistral": (
        sse(chat("re"), chat("turn é")),
        sse(chat(finish="stop", usage=COUNTS), b"[DONE]"),
    ),
    "completions": (
        sse(legacy("re"), legacy("turn é")),
        sse(legacy(finish="stop"), {"id": "1", "choices": [], "usage": COUNTS}, b"[DONE]"),
    ),
    "llamacpp": (
        sse({"content": "re", "stop": False, "tokens": [1]}, {"content": "turn é", "stop": False}),
        sse(INFILL_END),
    ),
    "ollama": (
        ndjson({"model": "coder", "response": "re", "done": False},
               {"model": "coder", "response": "turn é", "done": False}),
        ndjson(GENERATE_END),
    ),
}  # fmt: skip
WHOLE: dict[str, bytes] = {
    "mistral": json.dumps(
        {"id": "1", "model": "coder", "usage": COUNTS,
         "choices": [{"index": 0, "message": {"content": "return é"}, "finish_reason": "stop"}]}
    ).encode(),
    "completions": json.dumps(legacy("return é", "stop", usage=COUNTS)).encode(),
    "llamacpp": json.dumps({**INFILL_END, "content": "return é"}).encode(),
    "ollama": json.dumps({**GENERATE_END, "response": "return é"}).encode(),
}  # fmt: skip


def decoded(style: str, pieces: list[bytes], **options: Any) -> tuple[list[Any], LLMError | None]:
    return read(STYLES[style].decoder(request(**options)), pieces)


def told(deltas: list[Any]) -> tuple[str, list[Any], list[Any], list[str | None]]:
    """The text, the ends, the counts and the models that the deltas tell."""
    return (
        "".join(d.text for d in deltas if type(d) is TextDelta),
        [d.reason for d in deltas if type(d) is FinishDelta],
        [d.usage for d in deltas if type(d) is UsageDelta],
        [d.model for d in deltas if type(d) is MetaDelta],
    )


def usage(style: str) -> Usage:
    cached = 4 if style == "llamacpp" else 0
    return Usage(prompt_tokens=9, completion_tokens=2, cached_tokens=cached)


@pytest.mark.parametrize("style", STYLES)
def test_a_stream_is_read(style: str) -> None:
    deltas, error = decoded(style, [b"".join(STREAMS[style])])
    assert error is None
    assert told(deltas) == ("return é", ["stop"], [usage(style)], ["coder"])
    assert [d.text for d in deltas if type(d) is TextDelta] == ["re", "turn é"]


@pytest.mark.parametrize("style", STYLES)
def test_an_answer_in_one_piece_is_read(style: str) -> None:
    deltas, error = decoded(style, [WHOLE[style]], stream=False)
    assert error is None
    assert told(deltas) == ("return é", ["stop"], [usage(style)], ["coder"])


@pytest.mark.parametrize("style", STYLES)
@quick
@given(places=places)
def test_where_the_network_cuts_does_not_matter(style: str, places: list[int]) -> None:
    for data in (b"".join(STREAMS[style]), WHOLE[style]):
        at_once = decoded(style, [data])
        assert decoded(style, cut(data, places)) == at_once
        assert decoded(style, bytewise(data)) == at_once


@pytest.mark.parametrize("style", STYLES)
@quick
@given(places=places)
def test_a_stream_that_never_ended_is_interrupted(style: str, places: list[int]) -> None:
    begin, end = STREAMS[style]
    for part in (begin, begin + end[:9]):
        deltas, error = decoded(style, cut(part, places))
        assert type(error) is StreamInterruptedError
        assert told(deltas)[:2] == ("return é", [])


@pytest.mark.parametrize("style", STYLES)
def test_half_an_answer_in_one_piece_is_no_answer(style: str) -> None:
    for data in (WHOLE[style][:40], b""):
        deltas, error = decoded(style, [data])
        assert isinstance(error, StreamInterruptedError | InvalidResponseError)
        assert deltas == []


@pytest.mark.parametrize("style", STYLES)
def test_a_web_page_is_no_answer(style: str) -> None:
    page = b"<html>\n<title>Welcome to the hotel</title>\n</html>"
    for pieces in ([page], bytewise(page)):
        _, error = decoded(style, pieces)
        assert type(error) is InvalidResponseError


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, RateLimitError),
        ({"error": {"code": 400, "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error"}}, ContextWindowExceededError),
        ({"error": {"code": 500, "message": "oops", "type": "server_error"}}, ProviderAPIError),
    ],
)  # fmt: skip
def test_an_error_in_the_stream_comes_behind_what_preceded_it(
    style: str, problem: Any, kind: type[LLMError]
) -> None:
    framed = ndjson(problem) if style == "ollama" else sse(problem)
    for pieces in ([STREAMS[style][0] + framed], bytewise(STREAMS[style][0] + framed), [framed]):
        deltas, error = decoded(style, pieces)
        assert type(error) is kind
        assert told(deltas)[0] in ("return é", "")
    assert told(decoded(style, [STREAMS[style][0] + framed])[0])[0] == "return é"


@pytest.mark.parametrize("style", STYLES)
def test_the_documents_are_kept_if_asked_for(style: str) -> None:
    deltas, _ = decoded(style, [b"".join(STREAMS[style])], include_raw=True)
    assert len([d for d in deltas if type(d) is RawDelta]) >= 3
    assert told(deltas)[0] == "return é"


# ---- the habits of llama.cpp ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "finish"),
    [
        ({"stop_type": "eos"}, FinishDelta("stop", "eos")),
        ({"stop_type": "word", "stopping_word": "\n"}, FinishDelta("stop", "word")),
        ({"stop_type": "limit"}, FinishDelta("length", "limit")),
        ({"stop_type": "thermal"}, FinishDelta("other", "thermal")),
        ({"stopped_limit": True, "stopped_eos": False}, FinishDelta("length", "limit")),
        ({"stopped_eos": True}, FinishDelta("stop", "eos")),
        ({}, FinishDelta("other", None)),
    ],
)
def test_why_llamacpp_stopped(end: dict[str, Any], finish: FinishDelta) -> None:
    data = sse({"content": "x", "stop": False}, {"content": "", "stop": True, **end})
    deltas, error = decoded("llamacpp", [data])
    assert (deltas, error) == ([TextDelta("x"), finish], None)


def test_comments_and_the_end_mark_of_others_are_no_events() -> None:
    data = b": ping\n\n" + b"".join(STREAMS["llamacpp"]) + sse(b"[DONE]")
    deltas, error = decoded("llamacpp", bytewise(data))
    assert (told(deltas)[0], error) == ("return é", None)
    assert type(decoded("llamacpp", [b": ping\n\n"])[1]) is StreamInterruptedError


@pytest.mark.parametrize("event", [b"[1]", b"no json", b"{nor this}"])
def test_an_event_that_is_no_object_is_refused(event: bytes) -> None:
    for pieces in ([sse(event)], [sse({"content": "x", "stop": False}, event)]):
        assert type(decoded("llamacpp", pieces)[1]) is InvalidResponseError


def test_a_line_that_is_too_long_is_an_error() -> None:
    decoder = LlamaCppInfill(max_line_bytes=100).decoder(request())
    _, error = read(decoder, [sse({"content": "x" * 200, "stop": False})])
    assert error is not None
    assert error.code == "line_too_long"


@pytest.mark.parametrize("style", STYLES)
def test_a_decoder_that_has_failed_stays_so(style: str) -> None:
    decoder = STYLES[style].decoder(request())
    problem = {"error": {"message": "oops"}}
    framed = ndjson(problem) if style == "ollama" else sse(problem)
    _, error = read(decoder, [framed])
    assert error is not None
    assert read(decoder, [STREAMS[style][1]])[1] is error
    assert read(decoder, [])[1] is error
