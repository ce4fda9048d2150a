"""The server of the soak: a process of its own, on raw sockets, that misbehaves when it is told to.

It speaks the stream of OpenAI's dialect and that of Ollama.  An answer repeats the last message and
counts, one piece after the other, so that its reader can tell whether it got its own answer, whole.
A line that begins with ``CONTROL`` in place of a request is for the server itself.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import sys
from collections import Counter
from typing import Any

FAULTS = ("reset", "500", "429", "503", "half", "silence", "stall", "garbage")
PIECES = 12
PAUSE_S = 0.12
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"

MODELS = {
    "/v1/models": {"object": "list", "data": [{"id": "m", "object": "model"}]},
    "/api/tags": {"models": [{"name": "m", "model": "m"}]},
    "/api/ps": {"models": []},
}


class Server:
    """Answers, or does one of `FAULTS` instead.

    Attributes:
        share: how many of the requests for an answer go wrong, 0 to 1.
        faults: how often each fault was done.
        keys: how many requests came with each key.
    """

    def __init__(self, seed: int) -> None:
        self.share = 0.0
        self.faults: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        self.open_connections = 0
        self.asked = 0
        self._random = random.Random(seed)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has had enough
        finally:
            self.open_connections -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; says whether another may follow on this connection."""
        line = (await reader.readuntil(b"\n")).decode()
        if line.startswith("CONTROL"):
            self.open_connections -= 1
            writer.write(json.dumps(self._told(json.loads(line[7:]))).encode() + b"\n")
            await writer.drain()
            self.open_connections += 1
            return False
        _, path, _ = line.split(" ", 2)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {k.lower(): v.strip() for k, _, v in (each.partition(":") for each in lines)}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        if path in MODELS:
            writer.write(_whole(200, json.dumps(MODELS[path]).encode()))
            return True
        self.asked += 1
        self.keys[fields.get("authorization", "none").rpartition(" ")[2]] += 1
        fault = self._random.choice(FAULTS) if self._random.random() < self.share else None
        if fault is not None:
            self.faults[fault] += 1
        return await _answer(reader, writer, path, json.loads(body), fault)

    def _told(self, order: dict[str, float]) -> dict[str, object]:
        self.share = order.get("share", self.share)
        return {
            "asked": self.asked,
            "faults": self.faults,
            "keys": self.keys,
            "open": self.open_connections,
        }


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    asked: dict[str, Any],
    fault: str | None,
) -> bool:
    """Answer one request; says whether another may follow on this connection."""
    if fault == "silence":
        await _hang(reader)
        return False
    if fault == "reset":
        _reset(writer)
        return False
    if fault in ("500", "503", "429"):
        error = {"error": {"message": "this is a drill"}}
        writer.write(_whole(int(fault), json.dumps(error).encode(), retry_after_ms=50))
        return True
    text = asked["messages"][-1]["content"]
    form = _ollama if path == "/api/chat" else _openai
    writer.write(HEAD)
    for number in range(PIECES):
        if reader.at_eof():
            return False
        if number == PIECES // 2 and fault is not None:
            await _break_off(reader, writer, fault)
            return False
        writer.write(_chunk(form(f"{text}:{number} ")))
        await writer.drain()
        await asyncio.sleep(PAUSE_S)
    writer.write(_chunk(form(None)) + b"0\r\n\r\n")
    await writer.drain()
    return True


async def _break_off(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: str
) -> None:
    """Do in the middle of an answer what goes wrong there; what is left is to close."""
    if fault == "stall":
        await _hang(reader)
    elif fault == "garbage":
        writer.write(_chunk(b'data: {"choices": [{"del\xff\n\n{"mess\n'))
        await writer.drain()


async def _hang(reader: asyncio.StreamReader) -> None:
    """Say nothing more until the client has gone."""
    while not reader.at_eof():
        await asyncio.sleep(0.1)


def _openai(piece: str | None) -> bytes:
    delta = {} if piece is None else {"content": piece}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if piece is None else None}
    data = json.dumps({"id": "c", "model": "m", "choices": [choice]})
    return f"data: {data}\n\n{'data: [DONE]' if piece is None else ':'}\n\n".encode()


def _ollama(piece: str | None) -> bytes:
    done = piece is None
    message = {"role": "assistant", "content": piece or ""}
    line = {"model": "m", "message": message, "done": done}
    return json.dumps({**line, "done_reason": "stop"} if done else line).encode() + b"\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(status: int, body: bytes, *, retry_after_ms: int = 0) -> bytes:
    wait = f"retry-after-ms: {retry_after_ms}\r\n" if retry_after_ms else ""
    head = f"HTTP/1.1 {status} Status\r\ncontent-length: {len(body)}\r\n{wait}"
    return f"{head}content-type: application/json\r\n\r\n".encode() + body


def _reset(writer: asyncio.StreamWriter) -> None:
    tcp = writer.get_extra_info("socket")
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main(port: int, seed: int) -> None:
    server = await asyncio.start_server(
        Server(seed).connected, "127.0.0.1", port, backlog=1000, reuse_address=True
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
