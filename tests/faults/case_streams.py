"""Streams that are broken, and errors inside of them."""

from __future__ import annotations

from llm_manager import (
    AuthenticationError,
    InvalidResponseError,
    LLMError,
    ProviderOverloadedError,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
)

from . import scripts
from .dialects import FIRST, SECOND
from .fault import Fault, Seen, fails, lost, only_this_answer
from .server import Script

_HERE = only_this_answer()


def _stream(name: str, what: str, script: Script, seen: Seen, **more: object) -> Fault:
    return Fault(name=name, what=what, script=script, seen=seen, **more)  # type: ignore[arg-type]


def _cut(error: type[LLMError], code: str | None = None, *, text: str = FIRST) -> Seen:
    """An answer that began is never asked for again."""
    return fails(error, code, attempts=1, text=text, **_HERE)


STREAMS = (
    _stream(
        "byte_by_byte",
        "the whole answer in pieces of one byte",
        scripts.byte_by_byte,
        Seen(text=FIRST + SECOND, **_HERE),
    ),
    _stream(
        "reset_after_a_piece",
        "reset in the middle of the answer",
        scripts.reset_after_a_piece,
        _cut(StreamInterruptedError),
    ),
    _stream(
        "half_a_chunk",
        "closed in the middle of a chunk",
        scripts.half_a_chunk,
        _cut(StreamInterruptedError),
    ),
    _stream(
        "no_terminator",
        "the last event is missing",
        scripts.no_terminator,
        _cut(StreamInterruptedError, text=FIRST + SECOND),
    ),
    _stream(
        "empty_stream",
        "a stream without any event",
        scripts.empty_stream,
        fails(
            InvalidResponseError,
            "empty_response",
            **only_this_answer(first="reconnecting (server_error)"),
        ),
    ),
    _stream(
        "falls_silent",
        "the answer begins, and nothing more comes",
        scripts.falls_silent,
        _cut(StreamInterruptedError, "idle_timeout"),
        clock="idle_s",
    ),
    _stream(
        "comments_only",
        "nothing but keep-alive comments",
        scripts.comments_only,
        fails(
            RequestTimeoutError,
            "first_token_timeout",
            attempts=1,
            **only_this_answer(first="reconnecting (timeout)"),
        ),
        clock="first_token_s",
    ),
    _stream(
        "comments_after_a_piece",
        "the answer begins, then nothing but keep-alive comments",
        scripts.comments_after_a_piece,
        _cut(StreamInterruptedError, "content_idle_timeout"),
        clock="content_idle_s",
    ),
    _stream(
        "endless_text",
        "an answer without an end",
        scripts.endless_text,
        _cut(RequestTimeoutError, "total_timeout", text=f"{FIRST}{SECOND} …"),
        clock="total_s",
    ),
    _stream(
        "endless_line",
        "a line without an end",
        scripts.endless_line,
        _cut(InvalidResponseError, "line_too_long"),
    ),
    _stream(
        "broken_event",
        "an event that is no JSON",
        scripts.broken_event,
        _cut(InvalidResponseError),
    ),
    _stream(
        "deep_event",
        "an event of JSON that is nested 200,000 deep",
        scripts.deep_event,
        _cut(InvalidResponseError),
    ),
    _stream(
        "no_text_at_all",
        "bytes that are no text, with status 200",
        scripts.no_text_at_all,
        fails(InvalidResponseError, **lost("server_error")),
        everywhere=True,
    ),
    _stream(
        "auth_inside",
        "a wrong key, said in a stream that began with 200",
        scripts.fails_inside(401),
        _cut(AuthenticationError),
    ),
    _stream(
        "rate_limit_inside",
        "a rate limit, said in a stream that began with 200",
        scripts.fails_inside(429),
        fails(
            RateLimitError,
            attempts=1,
            text=FIRST,
            first="degraded (rate_limited)",
            worked="degraded (rate_limited)",
        ),
    ),
    _stream(
        "overloaded_at_once",
        "overload, said before the first piece of a stream that began with 200",
        scripts.fails_inside(529, after_text=False),
        fails(ProviderOverloadedError, **only_this_answer(first="reconnecting (overloaded)")),
    ),
    _stream(
        "error_with_200",
        "an error as the whole answer, with status 200",
        scripts.error_with_200,
        fails(ProviderOverloadedError, **only_this_answer(first="reconnecting (overloaded)")),
    ),
    _stream(
        "overloaded_inside",
        "overload, said in a stream that began with 200",
        scripts.fails_inside(529),
        _cut(ProviderOverloadedError),
    ),
)
