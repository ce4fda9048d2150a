"""What can be wrong with an answer: one small script for each fault."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from .server import Request, Script, Talk, chunk, head

_PAGE = b"<!doctype html><html><head><title>Sign in to HotelNet</title></head></html>"
_SLOW_S = 0.05
_LOADING = b'{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}'


# ---- the connection ------------------------------------------------------------------------------


async def hang(talk: Talk, request: Request) -> None:
    await talk.hang()


async def close_without_a_word(talk: Talk, request: Request) -> None:
    talk.close()


async def reset_before_headers(talk: Talk, request: Request) -> None:
    talk.reset()


async def reset_during_headers(talk: Talk, request: Request) -> None:
    await talk.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    talk.reset()


async def reset_after_headers(talk: Talk, request: Request) -> None:
    await talk.begin()
    talk.reset()


async def reset_after_a_piece(talk: Talk, request: Request) -> None:
    await talk.begin()
    await talk.piece(talk.dialect.begins)
    # A reset takes what has not been read yet away; the client must have had its turn.
    await asyncio.sleep(_SLOW_S)
    talk.reset()


async def half_a_chunk(talk: Talk, request: Request) -> None:
    await talk.begin()
    await talk.piece(talk.dialect.begins)
    await talk.send(chunk(talk.dialect.goes_on)[:20])
    talk.close()


async def slow_headers(talk: Talk, request: Request) -> None:
    for letter in head(200, {"content-type": talk.dialect.media, "x-padding": "x" * 1000}):
        await talk.send(bytes([letter]))
        await asyncio.sleep(_SLOW_S)


async def endless_headers(talk: Talk, request: Request) -> None:
    await talk.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await talk.send(b"x-more: " + b"x" * 10_000 + b"\r\n")


async def no_http(talk: Talk, request: Request) -> None:
    await talk.send(b"220 mail.example.com ESMTP ready\r\n")
    talk.close()


# ---- the stream ----------------------------------------------------------------------------------


async def byte_by_byte(talk: Talk, request: Request) -> None:
    dialect = talk.dialect
    await talk.begin()
    whole = b"".join(map(chunk, (dialect.begins, dialect.goes_on, dialect.ends)))
    for letter in whole:
        await talk.send(bytes([letter]))
    await talk.end()


async def no_terminator(talk: Talk, request: Request) -> None:
    await talk.begin()
    await talk.piece(talk.dialect.begins)
    await talk.piece(talk.dialect.goes_on)
    await talk.end()


async def empty_stream(talk: Talk, request: Request) -> None:
    await talk.begin()
    await talk.end()


async def falls_silent(talk: Talk, request: Request) -> None:
    await talk.begin()
    await talk.piece(talk.dialect.begins)
    await talk.hang()


async def comments_only(talk: Talk, request: Request) -> None:
    await talk.begin()
    while True:
        await talk.piece(talk.dialect.comment)
        await asyncio.sleep(_SLOW_S)


async def comments_after_a_piece(talk: Talk, request: Request) -> None:
    await talk.begin()
    await talk.piece(talk.dialect.begins)
    while True:
        await talk.piece(talk.dialect.comment)
        await asyncio.sleep(_SLOW_S)


async def endless_text(talk: Talk, request: Request) -> None:
    await talk.begin()
    await talk.piece(talk.dialect.begins)
    while True:
        await talk.piece(talk.dialect.goes_on)
        await asyncio.sleep(_SLOW_S)


async def endless_line(talk: Talk, request: Request) -> None:
    await talk.begin()
    await talk.piece(talk.dialect.begins)
    await talk.piece(talk.dialect.line + b'{"x": "')
    block = b"x" * (1 << 20)
    while True:
        await talk.piece(block)


async def deep_event(talk: Talk, request: Request) -> None:
    await talk.begin()
    await talk.piece(talk.dialect.begins)
    await talk.piece(talk.dialect.line + b'{"x":' * 200_000 + b"\n\n")
    await talk.piece(talk.dialect.goes_on)
    await talk.end()


async def broken_event(talk: Talk, request: Request) -> None:
    await talk.begin()
    await talk.piece(talk.dialect.begins)
    await talk.piece(talk.dialect.broken)
    await talk.piece(talk.dialect.goes_on)
    await talk.end()


async def no_text_at_all(talk: Talk, request: Request) -> None:
    await talk.answer(200, bytes(range(128, 256)) * 4, media="application/octet-stream")


def fails_inside(status: int, *, after_text: bool = True) -> Script:
    """An error where 200 was said already."""

    async def script(talk: Talk, request: Request) -> None:
        await talk.begin()
        if after_text:
            await talk.piece(talk.dialect.begins)
        await talk.piece(talk.dialect.error_event(status))
        await talk.end()

    return script


# ---- answers that say no -------------------------------------------------------------------------


def says(status: int, **headers: str) -> Script:
    """A status with the words that the service has for it."""

    async def script(talk: Talk, request: Request) -> None:
        await talk.answer(status, talk.dialect.error_body(status), **headers)

    return script


async def error_with_200(talk: Talk, request: Request) -> None:
    await talk.answer(200, talk.dialect.error_body(529))


async def repeats_key(talk: Talk, request: Request) -> None:
    key = request.headers.get("x-api-key") or request.headers["authorization"]
    words = talk.dialect.says(f"Incorrect API key provided: {key}", "invalid_api_key", key)
    await talk.answer(401, json.dumps(words).encode(), x_request_id=key)


async def page_of_a_gateway(talk: Talk, request: Request) -> None:
    await talk.answer(502, b"<html><title>502 Bad Gateway</title></html>", media="text/html")


async def come_back_at(talk: Talk, request: Request) -> None:
    now = datetime.now(UTC)
    dates = {"date": format_datetime(now, usegmt=True)}
    dates["retry_after"] = format_datetime(now + timedelta(seconds=7), usegmt=True)
    await talk.answer(429, talk.dialect.error_body(429), **dates)


async def loading(talk: Talk, request: Request) -> None:
    await talk.answer(503, _LOADING)


# ---- a network that answers in place of the server -----------------------------------------------


async def web_page(talk: Talk, request: Request) -> None:
    await talk.answer(200, _PAGE, media="text/html")


async def sign_in_first(talk: Talk, request: Request) -> None:
    await talk.answer(511, _PAGE, media="text/html")


async def sends_elsewhere(talk: Talk, request: Request) -> None:
    # Another name for this very server: it would see whoever follows.
    port = request.headers["host"].rpartition(":")[2]
    await talk.answer(302, b"", location=f"http://localhost:{port}/elsewhere")


# ---- connections that were kept for the next request ---------------------------------------------


async def dies_under_the_next_request(talk: Talk, request: Request) -> None:
    """End a connection that has served before; answer on a new one."""
    if request.connection == 1:
        talk.reset()
    else:
        await talk.well(request)
