"""A real server program with a real model: `transformers serve` on a tiny Llama."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from llm_manager import (
    LLMRequestOptions,
    ModelNotFoundError,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    StreamInterruptedError,
)
from llm_manager.providers.rows import ROWS

from ..helpers import QUICK, Record
from ..tiny_model import build_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

START_S = 300
"""How long it may take to start: it imports torch, perhaps on a busy machine."""

SHORT = LLMRequestOptions(max_tokens=12)
# The server answers one request after the other, and this one would take minutes.
ENDLESS = LLMRequestOptions(max_tokens=1_000_000)


class Server:
    """The server program; `start` and `stop` it as often as needed, always on the same port."""

    def __init__(self, model: Path, home: Path) -> None:
        self.model = str(model)
        self._home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        log = (self._home / "log.txt").open("wb")
        with log:
            self._process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("transformers"), "serve", self.model,
                    "--host", "127.0.0.1", "--port", str(self._port), "--device", "cpu",
                ],
                env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(self._home)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not self._is_up():
            said = (self._home / "log.txt").read_text(errors="replace")[-3000:]
            assert self._process.poll() is None, f"the server did not start:\n{said}"
            assert time.monotonic() < deadline, f"not up after {START_S} s:\n{said}"
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._port}/health", timeout=5
            ) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("transformers-serve")
    server = Server(build_tiny_model(folder / "model"), folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def provider(server: Server) -> AsyncIterator[OpenAICompatibleProvider]:
    provider = OpenAICompatibleProvider(
        row=ROWS["transformers-serve"],
        base_url=server.base_url,
        default_model=server.model,
        reconnect=QUICK,
    )
    await provider.connect()
    yield provider
    await provider.close()


async def test_it_connects_and_answers(provider, server) -> None:
    assert provider.status.status == "connected"
    assert [m.id for m in await provider.get_available_models()] == [server.model]
    answer = await provider.generate_chat_completion(server.model, "hello", SHORT)
    assert answer.text
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens > 0


async def test_a_streamed_answer_is_the_same_answer(provider, server) -> None:
    whole = await provider.generate_chat_completion(server.model, "hello", SHORT)
    async with provider.stream_chat_completion(server.model, "hello", SHORT) as stream:
        events = [event async for event in stream]
    assert len([e for e in events if e.kind == "text"]) > 1
    assert "".join(e.text for e in events if e.kind == "text") == whole.text
    streamed = events[-1].response
    assert (streamed.text, streamed.finish_reason) == (whole.text, whole.finish_reason)
    assert streamed.usage == whole.usage


async def test_a_stop_text_ends_the_answer(provider, server) -> None:
    whole = await provider.generate_chat_completion(server.model, "hello", SHORT)
    stop = next(c for c in whole.text[1:] if c.isascii() and c.isprintable())
    options = LLMRequestOptions(max_tokens=12, stop=(stop,))
    answer = await provider.generate_chat_completion(server.model, "hello", options)
    assert answer.finish_reason == "stop"
    assert len(answer.text) < len(whole.text)


async def test_leaving_a_stream_frees_the_server(provider, server) -> None:
    async with provider.stream_chat_completion(server.model, "hello", ENDLESS) as stream:
        async for event in stream:
            if event.index == 5:
                break
    answer = await provider.generate_chat_completion(server.model, "hello", SHORT)
    assert answer.finish_reason == "length"


async def test_another_model_than_the_one_it_serves_is_named(provider, server) -> None:
    with pytest.raises(ModelNotFoundError, match="pinned") as caught:
        await provider.generate_chat_completion("someone/else", "hello", SHORT)
    assert server.model in caught.value.hint
    assert provider.status.status == "connected"


async def test_a_server_that_is_killed_is_found_again_when_it_is_back(provider, server) -> None:
    record = Record(provider)
    try:
        with pytest.raises(StreamInterruptedError) as caught:
            async with provider.stream_chat_completion(server.model, "hello", ENDLESS) as stream:
                async for event in stream:
                    if event.index == 5:
                        server.stop(signal.SIGKILL)
        assert caught.value.partial.text
        # One broken answer proves little; that nobody listens any more does.
        with pytest.raises(ProviderConnectionError):
            await provider.generate_chat_completion(server.model, "hello", SHORT)
        assert provider.status.status == "reconnecting"
    finally:
        server.start()
    await provider.wait_for("connected", 60)
    assert record.statuses == ["reconnecting", "connected"]
    answer = await provider.generate_chat_completion(server.model, "hello", SHORT)
    assert answer.finish_reason == "length"
