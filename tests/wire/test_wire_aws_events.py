"""The binary event streams of Amazon Bedrock."""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager.errors import InvalidResponseError, RateLimitError, StreamInterruptedError
from llm_manager.messages import TextDelta
from llm_manager.wire.anthropic_messages import AnthropicMessages
from llm_manager.wire.aws_events import AwsEventFramer

from .anthropic_events import answer, rendered, text_block, thinking_block
from .wire_reading import bytewise, cut, places, quick, read, request_for


def header(name: str, value: str) -> bytes:
    text = value.encode()
    return bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(text)) + text


def frame(payload: Any, *headers: bytes) -> bytes:
    head, body = b"".join(headers), json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(head) + len(body), len(head))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + body
    return message + struct.pack(">I", zlib.crc32(message))


def event(document: Any) -> bytes:
    number = b"\x01n\x04\x00\x00\x00\x07"  # a header that is no text
    inner = b64encode(json.dumps(document).encode()).decode()
    return frame({"bytes": inner, "p": "abc"}, header(":event-type", "chunk"), number,
                 header(":message-type", "event"))  # fmt: skip


EVENTS = answer(thinking_block("hm"), text_block("Hé", "llo", index=1))
BINARY = b"".join(map(event, EVENTS))


def decode(*pieces: bytes) -> Any:
    return read(AnthropicMessages().decoder(request_for()), pieces)


def test_a_binary_stream_says_the_same_as_a_textual_one() -> None:
    assert decode(BINARY) == decode(rendered(EVENTS))
    assert decode(*bytewise(BINARY)) == decode(rendered(EVENTS))


@quick
@given(places)
def test_cutting_makes_no_difference(where: list[int]) -> None:
    assert decode(*cut(BINARY, where)) == decode(BINARY)


def test_a_stream_that_breaks_off_is_interrupted() -> None:
    _, error = decode(BINARY[:-10])
    assert type(error) is StreamInterruptedError


def test_an_exception_comes_behind_what_had_arrived() -> None:
    refusal = frame({"message": "Slow down"}, header(":message-type", "exception"),
                    header(":exception-type", "throttlingException"))  # fmt: skip
    out, error = decode(b"".join(map(event, EVENTS[:-2])) + refusal)
    assert TextDelta("llo") in out
    assert type(error) is RateLimitError
    assert "Slow down" in error.message


def test_garbage_behind_good_frames_comes_behind_their_events() -> None:
    good = b"".join(map(event, EVENTS[:-2]))
    out, error = decode(good + b"garbage without end")
    assert TextDelta("llo") in out
    assert type(error) is InvalidResponseError


def test_frames_without_an_event_mean_nothing() -> None:
    for payload in ({}, {"bytes": 3}, {"bytes": "a"}, []):
        assert AwsEventFramer().feed(frame(payload)) == []


@pytest.mark.parametrize(
    "data",
    [b"\0" * 20, BINARY[:8] + b"\0\0\0\0" + BINARY[12:], b"\0\0\0\x10"],
    ids=["zeros", "wrong checksum", "nothing more"],
)
def test_what_is_no_such_stream_is_an_invalid_response(data: bytes) -> None:
    out, error = decode(data)
    assert out == []
    assert type(error) is InvalidResponseError


def test_a_frame_that_is_too_long_is_refused_before_it_is_read() -> None:
    framer = AwsEventFramer(max_line_bytes=50)
    with pytest.raises(InvalidResponseError) as caught:
        framer.feed(event({"type": "x" * 100})[:12])
    assert caught.value.code == "line_too_long"


@quick
@given(st.binary(max_size=60))
def test_whatever_the_headers_are_nothing_breaks(head: bytes) -> None:
    AwsEventFramer().feed(frame({"message": "x"}, head))
