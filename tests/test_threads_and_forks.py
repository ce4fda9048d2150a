"""Providers in programs with several event loops, threads and processes, up to their end."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_manager import (
    BaseLLMProvider,
    ConfigurationError,
    EchoProvider,
    LLMProviderManager,
    OpenAICompatibleProvider,
    _threads,
    run_sync,
)
from llm_manager.testing import Reply, ScriptedPeer
from llm_manager.testing.peer import Request

ROOT = Path(__file__).parent.parent
WAIT_S = 30.0
# An end that takes longer than this is one that hangs.
END_S = 3.0


def answer(request: Request) -> Reply:
    """What was asked, said again in two pieces."""
    asked = request.json()["messages"][-1]["content"]
    pieces = [{"content": asked[:2]}, {"content": asked[2:]}, {}]
    return Reply.sse(
        [
            *({"choices": [{"index": 0, "delta": piece}]} for piece in pieces),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            "[DONE]",
        ]
    )


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    with ScriptedPeer() as peer:
        peer.route("/v1/chat/completions", answer)
        peer.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
        yield peer


def provider_at(peer: ScriptedPeer, **settings: Any) -> OpenAICompatibleProvider:
    return OpenAICompatibleProvider(base_url=f"{peer.base_url}/v1", **settings)


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


# ---- loops and threads ---------------------------------------------------------------------------


def test_a_thousand_calls_from_two_loops_and_a_thread_are_all_answered(peer: ScriptedPeer) -> None:
    provider = provider_at(peer)
    finished: list[str] = []
    provider.on("requestFinished", lambda e: finished.append(e.request_id), delivery="inline")
    wrong: list[str] = []

    async def ask(text: str) -> None:
        got = (await provider.generate_completion("m", text)).text
        if got != text:
            wrong.append(f"{text!r} was answered with {got!r}")

    async def ask_many(who: str) -> None:
        for start in range(0, 400, 8):
            await asyncio.gather(*(ask(f"{who} {n}") for n in range(start, start + 8)))

    def ask_synchronously() -> None:
        for number in range(200):
            run_sync(ask(f"thread {number}"))

    together(
        lambda: asyncio.run(ask_many("one")), lambda: asyncio.run(ask_many("two")),
        ask_synchronously,
    )  # fmt: skip
    assert wrong == []
    assert len(finished) == len(set(finished)) == 1000
    assert (provider.status.status, provider.status.in_flight) == ("connected", 0)
    run_sync(provider.close())
    assert provider.status.status == "closed"


def together(*works: Callable[[], None]) -> None:
    """Run all at the same time, each in a thread, and raise what one of them raises."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def test_a_hundred_event_loops_on_one_manager_hold_no_descriptor(peer: ScriptedPeer) -> None:
    manager = LLMProviderManager()
    manager.register_provider(provider_at(peer))

    def ask() -> str:
        return asyncio.run(manager.generate_completion("m", "hello")).text

    assert ask() == "hello"
    gc.collect()
    before = descriptors()
    assert {ask() for _ in range(100)} == {"hello"}
    gc.collect()  # what was not closed would warn now, and warnings are errors
    # The server closes its end of the last connection a moment later, in a thread of its own.
    deadline_s = time.monotonic() + 10
    while descriptors() > before and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert descriptors() <= before
    assert manager.snapshot().providers[0].status.in_flight == 0
    asyncio.run(manager.close())


async def test_the_manager_of_the_process_can_be_made_anew_five_hundred_times() -> None:
    async def once() -> None:
        manager = LLMProviderManager.get_instance()
        manager.register_provider("echo", words_per_s=float("inf"))
        manager.subscribe(lambda event: None)
        assert (await manager.generate_completion(None, "hello")).text == "hello"
        await manager.close()
        LLMProviderManager.reset_instance()

    def held() -> tuple[int, int, int, int]:
        gc.collect()
        return (
            threading.active_count(), descriptors(), len(asyncio.all_tasks()),
            len(_threads._resettable),
        )  # fmt: skip

    await once()
    before = held()
    for _ in range(500):
        await once()
    assert held() == before


@pytest.mark.parametrize("where", ["in its own work", "in a listener", "on a loop"])
def test_a_synchronous_call_that_would_wait_for_itself_is_refused_at_once(where: str) -> None:
    provider = EchoProvider()
    refused: list[str] = []
    done = threading.Event()

    def ask(_: object = None) -> None:
        try:
            run_sync(provider.connect())
        except RuntimeError as error:
            refused.append(str(error))
        done.set()

    async def ask_here() -> None:
        ask()

    if where == "in its own work":
        run_sync(ask_here())
    elif where == "on a loop":
        asyncio.run(ask_here())
    else:
        provider.on("hello", ask)
        provider.emit("hello", 1)
        assert done.wait(WAIT_S)
    says = {"in its own work": "wait for itself", "in a listener": "listener", "on a loop": "await"}
    assert [says[where] in text for text in refused] == [True]


# ---- processes -----------------------------------------------------------------------------------

FORK = """
import asyncio, os, signal, sys, threading
from llm_manager import LLMProviderManager, _blocking, run_sync, subscription

address = sys.argv[1]
manager = LLMProviderManager()
provider = manager.register_provider("compatible", base_url=address)
loop = asyncio.new_event_loop()
heard = []

async def listen():
    provider.on("requestFinished", lambda event: heard.append(os.getpid()))
    provider.on("hello", lambda n: heard.append(os.getpid()))

async def ask():
    answer = await manager.generate_completion("m", "hello")
    assert answer.text == "hello", answer

loop.run_until_complete(listen())
loop.run_until_complete(ask())
run_sync(ask())  # both threads of the library run when it is forked
manager.on("hello", lambda n: None)

def hold(holding, done):
    events = subscription._dispatcher
    with provider.atomic(), manager.atomic(), _blocking._worker._lock, events._lock:
        holding.set()
        done.wait()

def child():
    signal.alarm(20)
    heard.clear()
    provider.emit("hello", 1)
    asyncio.run(ask())
    run_sync(ask())
    assert provider.status.status == "connected", provider.status
    assert heard == [], "a listener of the parent's loop was called"
    asyncio.run(manager.close())

for _ in range(20):
    holding, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold, args=(holding, done))
    thread.start()
    holding.wait()
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)
    done.set()
    thread.join()
    _, code = os.waitpid(pid, 0)
    assert code == 0, code
    loop.run_until_complete(ask())
    run_sync(ask())
assert len(heard) >= 20 and set(heard) == {os.getpid()}
loop.run_until_complete(manager.close())
loop.run_until_complete(loop.shutdown_asyncgens())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_while_every_lock_is_held_harms_neither_side(peer: ScriptedPeer) -> None:
    process = started(FORK, f"{peer.base_url}/v1")
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out, err) == (0, "done\n", "")
    # The parent's two loops kept the connection that each of them had, whatever children did.
    by_connection = [request.connection for request in peer.requests]
    assert sorted(map(by_connection.count, set(by_connection)))[-2:] >= [21, 21]


def ask_in_another_process(provider: BaseLLMProvider) -> tuple[str, str, str]:
    """What a copy of the provider answers, its status before, and its id."""
    before = str(provider.status.status)
    answer = run_sync(provider.generate_completion("m", "hello from afar"))
    run_sync(provider.close())
    return answer.text, before, provider.id


def test_a_provider_goes_to_another_process_as_its_settings(peer: ScriptedPeer) -> None:
    provider = provider_at(peer, id="mine")
    run_sync(provider.connect())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        told = pool.apply_async(ask_in_another_process, (provider,)).get(WAIT_S)
    assert told == ("hello from afar", "disconnected", "mine")
    assert provider.status.status == "connected"
    run_sync(provider.close())


def test_a_key_does_not_go_to_another_process(peer: ScriptedPeer) -> None:
    with pytest.raises(ConfigurationError, match="hold a key"):
        pickle.dumps(provider_at(peer, api_key="anything-at-all"))


# ---- the end -------------------------------------------------------------------------------------

LEAVES_A_TASK = """
import asyncio, sys
from llm_manager import OpenAICompatibleProvider

provider = OpenAICompatibleProvider(base_url=sys.argv[1])

async def main():
    stream = provider.stream_completion("m", "hello")
    provider.on("requestFinished", lambda event: None)
    task = asyncio.create_task(stream._run())
    other = provider.stream_completion("m", "hello")
    await anext(aiter(other))
    print("asked", flush=True)

asyncio.run(main())
"""

LEAVES_A_THREAD = """
import sys, threading
from llm_manager import LLMError, OpenAICompatibleProvider, run_sync

provider = OpenAICompatibleProvider(base_url=sys.argv[1])
begun = threading.Event()

def ask():
    try:
        run_sync(provider.generate_completion("m", "hello"))
    except LLMError:
        pass

provider.on("statusChanged", lambda event: begun.set())
threading.Thread(target=ask, daemon=True).start()
begun.wait()
print("asked", flush=True)
"""

EXITS = """
import asyncio, sys
from llm_manager import OpenAICompatibleProvider

provider = OpenAICompatibleProvider(base_url=sys.argv[1])

async def main():
    async for event in provider.stream_completion("m", "hello"):
        print("asked", flush=True)
        sys.exit(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("script", [LEAVES_A_TASK, LEAVES_A_THREAD, EXITS],
                         ids=["a task", "a thread", "an exit"])  # fmt: skip
def test_a_program_that_ends_while_it_is_answered_ends_at_once_and_quietly(
    script: str, peer: ScriptedPeer
) -> None:
    begins = {"choices": [{"index": 0, "delta": {"content": "he"}}]}
    peer.route("/v1/chat/completions", Reply.sse([begins], ending="hang"))
    process = started(script, f"{peer.base_url}/v1")
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    out, err = process.communicate(timeout=END_S)
    assert (process.returncode, out, err) == (0, "", "")


DRAINS = """
import asyncio, sys
from llm_manager import LLMError, OpenAICompatibleProvider

provider = OpenAICompatibleProvider(base_url=sys.argv[1])

async def read():
    async for event in provider.stream_completion("m", "hello"):
        pass

async def main():
    task = asyncio.create_task(read())
    provider.on("draining", lambda event: print("drains", flush=True))
    while provider.status.status != "connected":
        await asyncio.sleep(0.01)
    try:
        await provider.disconnect(drain_timeout_s=3600)
    finally:
        print("told to stop", flush=True)
        await provider.disconnect(drain_timeout_s=3600)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal to send")
def test_pressing_ctrl_c_twice_ends_a_program_that_drains(peer: ScriptedPeer) -> None:
    begins = {"choices": [{"index": 0, "delta": {"content": "he"}}]}
    peer.route("/v1/chat/completions", Reply.sse([begins], ending="hang"))
    process = started(DRAINS, f"{peer.base_url}/v1")
    assert process.stdout is not None
    assert process.stdout.readline() == "drains\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "told to stop\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=END_S)
    assert (process.returncode, out, err) == (0, "interrupted\n", "")


def started(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
