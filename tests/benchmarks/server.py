"""A server that writes pre-rendered answers: its own cost must not show in the figures.

Run as a process of its own; prints its port.  ``POST /v1/chat/completions`` streams as many chunks
as the body's ``max_tokens`` says, ``burst`` of them per write (set by the path's first part).
"""

from __future__ import annotations

import asyncio
import json
import sys

from . import anthropic_stream, openai_stream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk_of(content: dict[str, object], finish: str | None = None) -> bytes:
    """One event as the vendors send it, about 220 bytes."""
    document = {
        "id": "chatcmpl-0123456789abcdefghijklmnop",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": "benchmark-model",
        "system_fingerprint": "fp_0123456789",
        "choices": [{"index": 0, "delta": content, "logprobs": None, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(document).encode() + b"\n\n"


WORD = chunk_of({"content": " word"})
LAST = chunk_of({}, "stop") + b"data: [DONE]\n\n"
# By the last part of the path; everything else gets the dialect of OpenAI.
PIECES = {
    "messages": (anthropic_stream.FIRST, anthropic_stream.WORD, anthropic_stream.LAST),
    "responses": (openai_stream.FIRST, openai_stream.WORD, openai_stream.LAST),
}


def framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            path = head.split(" ", 2)[1]
            size = next((int(h[15:]) for h in head.split("\r\n") if h[:15] == "content-length:"), 0)
            body = json.loads(await reader.readexactly(size)) if size else {}
            burst = int(path.split("/")[1])
            names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
            left = next((int(body[name]) for name in names if name in body), 1)
            first, word, last = PIECES.get(path.rpartition("/")[2], (b"", WORD, LAST))
            writer.write(HEAD + (framed(first) if first else b""))
            while left > 0:
                now = min(burst, left)
                left -= now
                writer.write(framed(word * now))
                await writer.drain()
                if burst == 1:
                    await asyncio.sleep(0)  # one packet each, as a real server sends them
            writer.write(framed(last) + b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
