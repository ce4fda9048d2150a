"""`generate(stream=True)`: text for a thread, and for a task, that may leave at any time."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llm_manager import (
    LLM,
    BaseLLMProvider,
    EchoAnswer,
    FinishDelta,
    InvalidParameterError,
    RequestCancelledError,
    StreamInterruptedError,
    TextDelta,
    TextStream,
    ToolCallRequest,
    ToolDefinition,
    create_llm,
    run_sync,
)
from llm_manager._blocking import SyncIterator
from llm_manager.testing import Reply, ScriptedPeer

from .helpers import Record
from .test_create_llm import PNG, add, asks_to_add, last_request, script

ROOT = Path(__file__).parent.parent
WAIT_S = 30.0
END_S = 5.0
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def chunk(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def endless(*texts: str) -> Reply:
    """An answer that begins and then falls silent."""
    return Reply.sse([chunk(text) for text in texts], ending="hang")


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    with ScriptedPeer() as peer:
        yield peer


@pytest.fixture
def llm(peer: ScriptedPeer) -> Iterator[LLM]:
    llm = create_llm(
        "compatible", base_url=f"{peer.base_url}/v1", model="m", retries={"attempts": 1}
    )
    yield llm
    run_sync(llm.provider.close(0))


@pytest.fixture
def echo_llm() -> Iterator[LLM]:
    with create_llm("echo", words_per_s=float("inf")) as made:
        yield made


def the_peer_sees_the_end(peer: ScriptedPeer) -> None:
    peer._on_thread(peer.wait_for_disconnect(timeout_s=WAIT_S))


# ---- in a thread ---------------------------------------------------------------------------------


def test_the_text_comes_piece_by_piece_and_the_response_behind_it(echo_llm: LLM) -> None:
    stream = echo_llm.generate("one two three", stream=True)
    assert isinstance(stream, TextStream)
    assert iter(stream) is stream
    assert stream.response is None
    assert next(stream) == "one "
    assert list(stream) == ["two ", "three"]
    assert list(stream) == []
    assert stream.result == "one two three"
    assert stream.response == echo_llm.last_response
    assert stream.response is not None
    assert stream.response.usage is not None


def test_nothing_is_sent_before_somebody_reads(echo_llm: LLM) -> None:
    heard = Record(echo_llm.provider)
    echo_llm.generate("hello", stream=True)
    gc.collect()
    assert heard == []


def test_pieces_are_there_before_the_answer_is_complete(llm: LLM, peer: ScriptedPeer) -> None:
    peer.script(endless("first ", "second"))
    with llm.generate("hello", stream=True) as stream:
        assert [next(stream), next(stream)] == ["first ", "second"]


def test_leaving_the_loop_closes_the_connection(llm: LLM, peer: ScriptedPeer) -> None:
    peer.script(endless("first ", "second"))
    heard = Record(llm.provider)
    for text in llm.generate("hello", stream=True):
        assert text == "first "
        break
    the_peer_sees_the_end(peer)
    assert [event.outcome for event in heard.named("requestFinished")] in (
        ["cancelled"],
        ["abandoned"],
    )
    assert llm.last_response is None


def test_dropping_the_stream_closes_the_connection(llm: LLM, peer: ScriptedPeer) -> None:
    peer.script(endless("first"))
    stream = llm.generate("hello", stream=True)
    assert next(stream) == "first"
    del stream
    the_peer_sees_the_end(peer)


@pytest.mark.parametrize("how", ["with", "close", "an error of the reader"])
def test_a_stream_that_is_still_held_is_closed_by_hand(llm: LLM, peer: ScriptedPeer, how) -> None:
    peer.script(endless("first"))
    stream = llm.generate("hello", stream=True)
    if how == "close":
        next(stream)
        stream.close()
    else:
        error = RuntimeError if how == "an error of the reader" else ()
        with pytest.raises(error) if error else stream, stream:
            next(stream)
            if error:
                raise RuntimeError("mine")
    the_peer_sees_the_end(peer)
    assert list(stream) == []


def test_closing_from_another_thread_wakes_the_reader(llm: LLM, peer: ScriptedPeer) -> None:
    peer.script(endless("first"))
    stream = llm.generate("hello", stream=True)
    assert next(stream) == "first"
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(next, stream)
        stream.close()
        with pytest.raises((RequestCancelledError, StopIteration)):
            reading.result(WAIT_S)
    the_peer_sees_the_end(peer)


def test_an_error_comes_behind_the_text_before_it_and_has_it(llm: LLM, peer: ScriptedPeer) -> None:
    peer.script(Reply.sse([chunk("first "), chunk("second")], ending="reset"))
    stream = llm.generate("hello", stream=True)
    assert [next(stream), next(stream)] == ["first ", "second"]
    with pytest.raises(StreamInterruptedError) as broken:
        next(stream)
    assert broken.value.partial is not None
    assert broken.value.partial.text == "first second"
    assert list(stream) == []


def test_what_is_wrong_is_said_at_once_and_files_when_they_are_read(echo_llm: LLM) -> None:
    with pytest.raises(InvalidParameterError, match="temperature"):
        echo_llm.generate("hello", stream=True, temperature=9)
    stream = echo_llm.generate("hello", stream=True, files=["/no/such/file"])
    with pytest.raises(InvalidParameterError, match="does not exist"):
        next(stream)
    assert len(list(echo_llm.generate("hello you", stream=True, files=[PNG]))) == 2


class Counting(BaseLLMProvider):
    """Never ends, and counts how far it has come."""

    kind = "counting"
    sent = 0

    async def _open(self) -> None: ...
    async def _close(self) -> None: ...
    async def _list_models(self) -> list[Any]:
        return []

    async def _exchange(self, request: Any) -> AsyncGenerator[Any, None]:
        while True:
            self.sent += 1
            yield TextDelta("word ")
            if self.sent == 100_000:
                yield FinishDelta("stop")
                return


def test_a_slow_reader_holds_up_the_provider_and_not_the_memory() -> None:
    llm = create_llm(Counting, model="m")
    assert isinstance(llm.provider, Counting)
    with llm, llm.generate("hello", stream=True) as stream:
        next(stream)
        asked = threading.Event()
        # Whatever the loop was doing, it has gone round before it can do this.
        run_sync(_turns(100))
        asked.set()
        ahead = llm.provider.sent
        assert ahead < 1000
        run_sync(_turns(100))
        assert llm.provider.sent == ahead
        assert sum(1 for _ in stream) == 99_999


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_a_slow_reader_holds_up_the_server(llm: LLM, peer: ScriptedPeer) -> None:
    pieces = 20_000
    text = "x" * 1000
    peer.script(Reply.sse([*[chunk(text)] * pieces, END, "[DONE]"]))
    with llm.generate("hello", stream=True) as stream:
        assert next(stream) == text
        run_sync(_turns(100))
        (connection,) = peer._connections
        assert not connection.idle, "the server has sent 20 MB to somebody who does not read"
        assert sum(map(len, stream)) == (pieces - 1) * len(text)


def test_twenty_threads_read_streams_of_their_own(echo_llm: LLM) -> None:
    def read(number: int) -> bool:
        text = " ".join(f"{number}-{word}" for word in range(500))
        return "".join(echo_llm.generate(text, stream=True)) == text

    with ThreadPoolExecutor(20) as threads:
        assert all(threads.map(read, range(40)))


def test_two_threads_may_share_one_stream(echo_llm: LLM) -> None:
    stream = echo_llm.generate(" ".join(map(str, range(2000))), stream=True)
    with ThreadPoolExecutor(2) as threads:
        parts = [future.result(WAIT_S) for future in [threads.submit(list, stream) for _ in "ab"]]
    assert sorted(int(word) for part in parts for word in part) == list(range(2000))


def test_work_on_the_background_loop_cannot_wait_for_itself(echo_llm: LLM) -> None:
    async def read() -> list[str]:
        return list(echo_llm.generate("hello", stream=True))

    with pytest.raises(RuntimeError, match="wait for itself"):
        run_sync(read())


def test_a_stream_handed_to_the_background_loop_cannot_wait_for_itself() -> None:
    async def silence() -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.Event().wait()

    with SyncIterator(silence()) as numbers:
        assert next(numbers) == 1

        async def read() -> int:
            return next(numbers)

        with pytest.raises(RuntimeError, match="loop that feeds it"):
            run_sync(read())


# ---- with tools ----------------------------------------------------------------------------------


def test_all_rounds_with_tools_are_one_stream(echo_llm: LLM) -> None:
    script(echo_llm, asks_to_add("Let me see. "), EchoAnswer(text="It is 3."))
    stream = echo_llm.generate("1 + 2?", tools=[add], stream=True)
    assert list(stream) == ["Let ", "me ", "see. ", "It ", "is ", "3."]
    assert stream.result == "It is 3."


def test_the_call_for_a_bare_definition_is_the_result_of_the_stream(echo_llm: LLM) -> None:
    script(echo_llm, asks_to_add("Let me see. "))
    stream = echo_llm.generate("1 + 2?", tools=[ToolDefinition.from_function(add)], stream=True)
    assert "".join(stream) == "Let me see. "
    assert isinstance(stream.result, ToolCallRequest)
    assert stream.result.tool_calls[0].arguments == {"a": 1, "b": 2}


def test_leaving_a_stream_stops_its_tools(echo_llm: LLM) -> None:
    begun, stopped = threading.Event(), threading.Event()

    async def wait_for_ever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    script(echo_llm, EchoAnswer(text="Well. ", tool="wait_for_ever"))
    for _ in echo_llm.generate("hello", tools=[wait_for_ever], stream=True):
        assert begun.wait(WAIT_S)
        break
    assert stopped.wait(WAIT_S)


def test_an_error_in_a_run_with_tools_reaches_the_reader(echo_llm: LLM) -> None:
    script(
        echo_llm,
        asks_to_add("Let me see. "),
        EchoAnswer(text="It is", error=StreamInterruptedError("broken off"), after_words=1),
    )
    stream = echo_llm.generate("1 + 2?", tools=[add], stream=True)
    read: list[str] = []
    with pytest.raises(StreamInterruptedError) as broken:
        read.extend(stream)
    assert broken.value.tool_run is not None
    assert len(broken.value.tool_run.calls) == 1


def test_more_text_than_can_wait_comes_through_a_run_with_tools(echo_llm: LLM) -> None:
    text = " ".join(map(str, range(3000)))
    script(echo_llm, asks_to_add(text), EchoAnswer(text="done"))
    assert len(list(echo_llm.generate("hello", tools=[add], stream=True))) == 3001


# ---- in a task -----------------------------------------------------------------------------------


async def test_a_task_reads_on_its_own_loop() -> None:
    async with create_llm("echo", words_per_s=float("inf")) as llm:
        stream = await llm.generate_async("one two", stream=True)
        assert [text async for text in stream] == ["one ", "two"]
        assert stream.result == "one two"
        script(llm, asks_to_add("Well. "), EchoAnswer(text="3"))
        with_tools = await llm.generate_async("1 + 2?", stream=True, tools=[add])
        assert [text async for text in with_tools] == ["Well. ", "3"]
        assert last_request(llm).messages[-1].text == "3"


@pytest.mark.parametrize("how", ["break", "async with", "aclose", "cancel"])
async def test_a_task_that_leaves_closes_the_connection(how: str) -> None:
    async with ScriptedPeer() as peer:
        peer.script(endless("first"))
        async with create_llm("compatible", base_url=f"{peer.base_url}/v1", model="m") as llm:
            begun = asyncio.Event()

            async def read() -> None:
                stream = await llm.generate_async("hello", stream=True)
                if how == "async with":
                    async with stream:
                        await anext(stream)
                    return
                async for _ in stream:
                    begun.set()
                    if how == "aclose":
                        await stream.aclose()
                    if how != "cancel":
                        break

            task = asyncio.create_task(read())
            if how == "cancel":
                await begun.wait()
                task.cancel()
            await asyncio.wait([task])
            await peer.wait_for_disconnect()
            assert llm.provider.status.in_flight == 0


def test_a_loop_that_runs_is_held_up_on_purpose(echo_llm: LLM) -> None:
    async def notebook() -> list[str]:
        return list(echo_llm.generate("one two", stream=True))

    assert asyncio.run(notebook()) == ["one ", "two"]


# ---- processes -----------------------------------------------------------------------------------

LEAVES_A_STREAM_OPEN = """
import sys
from llm_manager import create_llm

llm = create_llm("compatible", base_url=sys.argv[1], model="m")
stream = llm.generate("hello", stream=True)
print(next(stream), flush=True)
"""

WAITS_FOR_THE_NEXT_PIECE = """
import sys
from llm_manager import create_llm

llm = create_llm("compatible", base_url=sys.argv[1], model="m")
try:
    for text in llm.generate("hello", stream=True):
        print(text, flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""

READS_IN_A_DAEMON = """
import sys, threading
from llm_manager import RequestCancelledError, create_llm

llm = create_llm("compatible", base_url=sys.argv[1], model="m")
begun = threading.Event()

def read():
    try:
        for text in llm.generate("hello", stream=True):
            print(text, flush=True)
            begun.set()
    except RequestCancelledError:
        pass  # the interpreter ends

threading.Thread(target=read, daemon=True).start()
begun.wait()
"""

FORKS = """
import os, sys
from llm_manager import RequestCancelledError, create_llm

llm = create_llm("compatible", base_url=sys.argv[1], model="m")
stream = llm.generate("hello", stream=True)
assert next(stream) == "first"
pid = os.fork()
if pid == 0:
    try:
        next(stream)
    except RequestCancelledError:
        assert llm.generate("and the child?") == "fine"
        del stream
        os._exit(7)
    os._exit(1)
_, code = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(code), flush=True)
stream.close()
assert llm.generate("and the parent?") == "fine"
llm.close()
"""


def started(source: str, peer: ScriptedPeer) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source, f"{peer.base_url}/v1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("source", [LEAVES_A_STREAM_OPEN, READS_IN_A_DAEMON])
def test_a_script_ends_at_once_while_a_stream_is_open(peer: ScriptedPeer, source: str) -> None:
    peer.script(endless("first"))
    process = started(source, peer)
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    began_s = time.monotonic()
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out, err) == (0, "", "")
    assert time.monotonic() - began_s < END_S
    the_peer_sees_the_end(peer)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_a_stream_that_waits(peer: ScriptedPeer) -> None:
    peer.script(endless("first"))
    process = started(WAITS_FOR_THE_NEXT_PIECE, peer)
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_does_not_wait_for_a_stream_of_its_parent(peer: ScriptedPeer) -> None:
    fine = Reply.sse([chunk("fine"), END, "[DONE]"])
    peer.script(endless("first"), fine, fine)
    process = started(FORKS, peer)
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out, err) == (0, "7\n", "")
