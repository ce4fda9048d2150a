"""One contestant per process: streams an answer and prints what that cost.

``python -m tests.benchmarks.contestants NAME PORT BURST CHUNKS REPEAT`` prints one JSON object:
CPU microseconds per chunk (least of the repetitions), milliseconds of CPU to the first token since
the process began, and the longest gap of the event loop in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

from . import anthropic_stream, openai_stream

MESSAGES = [{"role": "user", "content": "go"}]


async def raw(url: str, chunks: int) -> AsyncIterator[str]:
    """httpx2 and json, as one writes it by hand."""
    global _client
    import httpx2

    if _client is None:
        _client = httpx2.AsyncClient(timeout=None)
    body = {"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": chunks}
    async with _client.stream("POST", f"{url}/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line[6:])["choices"][0]["delta"].get("content", "")


async def ours(url: str, chunks: int) -> AsyncIterator[str]:
    """This library: manager, default policies, one listener on the status."""
    global _manager
    from llm_manager import LLMProviderManager

    if _manager is None:
        _manager = LLMProviderManager()
        provider = _manager.register_provider("compatible", id="bench", base_url=url)
        provider.subscribe(lambda event: None)
    stream = _manager.stream_chat_completion("bench/m", MESSAGES, {"max_tokens": chunks})
    async for event in stream:
        yield event.text


_client = _manager = None

CONTESTANTS = {
    "raw": raw,
    "ours": ours,
    **openai_stream.CONTESTANTS,
    **anthropic_stream.CONTESTANTS,
}


class Gaps:
    """The longest time for which the event loop could not run anything else."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0.0005)
            now = time.perf_counter()
            self.longest_s = max(self.longest_s, now - before - 0.0005)
            before = now

    def end(self) -> float:
        self._task.cancel()
        return self.longest_s


async def main(name: str, url: str, chunks: int, repeat: int) -> dict[str, float]:
    contestant = CONTESTANTS[name]
    async for text in contestant(url, 5):
        if text:
            break
    first_token_ms = time.process_time() * 1000
    costs = []
    for _ in range(repeat):
        began, words = time.process_time(), 0
        async for text in contestant(url, chunks):
            words += bool(text)
        costs.append((time.process_time() - began) / chunks * 1e6)
        if words != chunks:
            raise SystemExit(f"{name}: {words} of {chunks} words arrived")
    gaps = Gaps()
    async for _ in contestant(url, 5000):
        pass
    return {
        "cpu_us_per_chunk": min(costs),
        "first_token_cpu_ms": first_token_ms,
        "longest_gap_ms": gaps.end() * 1000,
    }


if __name__ == "__main__":
    _, name, port, burst, chunks, repeat = sys.argv
    url = f"http://127.0.0.1:{port}/{burst}"
    sys.stdout.write(json.dumps(asyncio.run(main(name, url, int(chunks), int(repeat)))) + "\n")
