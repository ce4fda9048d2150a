"""Framing: the same events and lines come out wherever the network cuts the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager.errors import InvalidResponseError, ProviderError
from llm_manager.wire.framing import NDJSONFramer, SSEFramer, ThenError

from .wire_reading import bytewise, cut, places, quick, read

EVENTS = [
    pytest.param(b"data: a\n\n", [("", b"a")], id="one event"),
    pytest.param(b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")], id="two events"),
    pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")], id="CR LF"),
    pytest.param(b"data: a\r\rdata: b\r\r", [("", b"a"), ("", b"b")], id="CR"),
    pytest.param(b"data: a\r\n\ndata: b\n\r", [("", b"a"), ("", b"b")], id="mixed line ends"),
    pytest.param(b"data:a\n\ndata:b\n\n", [("", b"a"), ("", b"b")], id="no space"),
    pytest.param(b"data:  a\n\n", [("", b" a")], id="only one space is taken away"),
    pytest.param(b"data: a\ndata: b\n\n", [("", b"a\nb")], id="several data lines"),
    pytest.param(b"data: a\ndata:\ndata: b\n\n", [("", b"a\n\nb")], id="an empty data line"),
    pytest.param(b"data: \n\n", [("", b"")], id="empty data"),
    pytest.param(b"data\n\n", [("", b"")], id="a field without colon"),
    pytest.param(b"event: error\ndata: a\n\n", [("error", b"a")], id="a name"),
    pytest.param(b"data: a\nevent: e\n\ndata: b\n\n", [("e", b"a"), ("", b"b")], id="name ends"),
    pytest.param(b"event: ping\n\ndata: a\n\n", [("", b"a")], id="a name without data"),
    pytest.param(b": keep-alive\n\ndata: a\n\n: x\ndata: b\n\n", [("", b"a"), ("", b"b")],
                 id="comments"),
    pytest.param(b"id: 1\nretry: 5\nother: 3\ndata: a\n\n", [("", b"a")], id="other fields"),
    pytest.param(b"\xef\xbb\xbfdata: a\n\n", [("", b"a")], id="byte order mark"),
    pytest.param(b"data: \xef\xbb\xbfa\n\n", [("", b"\xef\xbb\xbfa")], id="only at the start"),
    pytest.param(b"\n\n\ndata: a\n\n\n\n", [("", b"a")], id="empty lines"),
    pytest.param("data: é😀\n\n".encode(), [("", "é😀".encode())], id="long characters"),
    pytest.param(b"data: a\n\ndata: b\n", [("", b"a"), ("", b"b")], id="no empty line at the end"),
    pytest.param(b"data: a\n\ndata: b", [("", b"a"), ("", b"b")], id="no line end at the end"),
    pytest.param(b"data: a\n\n\r\n", [("", b"a")], id="only line ends at the end"),
    pytest.param(b"", [], id="nothing"),
    pytest.param(b"\xef\xbb", [], id="half a byte order mark"),
    pytest.param(b": nothing but a comment\n\n", [], id="only a comment"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "events"), EVENTS)
def test_a_stream_is_split_into_its_events_however_it_is_cut(data: bytes, events: list) -> None:
    assert read(SSEFramer(), [data]) == (events, None)
    assert read(SSEFramer(), bytewise(data)) == (events, None)
    assert read(SSEFramer(), [b"", data[:1], b"", data[1:]]) == (events, None)


lines = st.sampled_from(
    ["data: {}", "data:", "data", "data: é", "data: a: b", "event: x", "id: 1", ": c", "", "\ufeff"]
).map(str.encode)
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@quick
@given(st.lists(st.tuples(lines, line_ends), max_size=20), places)
def test_where_an_event_stream_is_cut_makes_no_difference(
    parts: list[tuple[bytes, bytes]], where: list[int]
) -> None:
    data = b"".join(line + end for line, end in parts)
    whole = read(SSEFramer(), [data])
    assert read(SSEFramer(), cut(data, where)) == whole
    assert read(SSEFramer(), bytewise(data)) == whole


@quick
@given(st.lists(st.tuples(lines, line_ends), max_size=20))
def test_the_shortcut_for_the_usual_shape_agrees_with_the_specification(
    parts: list[tuple[bytes, bytes]],
) -> None:
    data = b"".join(line + end for line, end in parts)
    # A comment in front of every piece keeps the framer from its shortcut and changes no event.
    assert read(SSEFramer(), [b":\n" + data.removeprefix(b"\xef\xbb\xbf")]) == read(
        SSEFramer(), [data]
    )


LINES = [
    pytest.param(b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}'], id="two lines"),
    pytest.param(b'{"a":1}\r\n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}'], id="CR LF"),
    pytest.param(b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}'], id="no line end at the end"),
    pytest.param(b'\n \n{"a":1}\n\r\n', [b'{"a":1}'], id="empty lines"),
    pytest.param(b'\xef\xbb\xbf{"a":1}\n', [b'{"a":1}'], id="byte order mark"),
    pytest.param('"é😀"\n'.encode(), ['"é😀"'.encode()], id="long characters"),
    pytest.param(b"", [], id="nothing"),
]


@pytest.mark.parametrize(("data", "lines"), LINES)
def test_a_body_is_split_into_its_lines_however_it_is_cut(data: bytes, lines: list[bytes]) -> None:
    assert read(NDJSONFramer(), [data]) == (lines, None)
    assert read(NDJSONFramer(), bytewise(data)) == (lines, None)


@quick
@given(st.lists(st.sampled_from([b"{}", b"", b" ", b"\r", "é".encode(), b"\xef\xbb\xbf"])), places)
def test_where_a_body_of_lines_is_cut_makes_no_difference(
    parts: list[bytes], where: list[int]
) -> None:
    data = b"\n".join(parts)
    assert read(NDJSONFramer(), cut(data, where)) == read(NDJSONFramer(), [data])


@pytest.mark.parametrize("framer", [SSEFramer, NDJSONFramer])
@pytest.mark.parametrize(
    "tail", [b"x" * 101, b"x" * 101 + b"\n", b"x" * 5000 + b"\n\n"], ids=["open", "ended", "huge"]
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_line_above_the_limit_is_refused_behind_what_came_before(
    framer: type, tail: bytes, size: int
) -> None:
    data = b"data: ok\n\ndata: " + tail
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    out, error = read(framer(max_line_bytes=100), pieces)
    assert out[:1] == ([("", b"ok")] if framer is SSEFramer else [b"data: ok"])
    assert len(out) == 1
    assert isinstance(error, InvalidResponseError)
    assert error.code == "line_too_long"
    assert "100 bytes" in str(error)


@pytest.mark.parametrize("framer", [SSEFramer, NDJSONFramer])
def test_a_line_of_just_the_limit_is_accepted(framer: type) -> None:
    out, error = read(framer(max_line_bytes=100), [b"data: " + b"x" * 94 + b"\n"])
    assert (len(out), error) == (1, None)


def test_an_event_of_many_short_lines_cannot_grow_beyond_the_limit() -> None:
    out, error = read(SSEFramer(max_line_bytes=100), [b"data: 123456789\n"] * 50)
    assert out == []
    assert isinstance(error, InvalidResponseError)


def test_a_framer_that_has_seen_too_long_a_line_stays_refusing() -> None:
    framer = SSEFramer(max_line_bytes=10)
    for _ in range(2):
        with pytest.raises(InvalidResponseError):
            framer.feed(b"x" * 11)
    with pytest.raises(InvalidResponseError):
        framer.close()


def test_a_long_line_in_many_pieces_is_joined_once() -> None:
    # Joining at every piece would move about 16 GB; this takes a moment.
    line = b"data: " + b"x" * 8_000_000
    framer = SSEFramer()
    for i in range(0, len(line), 2000):
        assert framer.feed(line[i : i + 2000]) == []
    assert framer.feed(b"\n\n") == [("", line[6:])]


def test_items_before_an_error_are_read_before_it_is_raised() -> None:
    items = ThenError([1, 2], ProviderError("no"))
    seen = []
    with pytest.raises(ProviderError, match="no"):
        for item in items:
            seen.append(item)
    assert seen == [1, 2]
