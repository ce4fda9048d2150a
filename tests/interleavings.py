"""Random interleavings of everything that can be done to a provider; it must end on the truth.

::

    python -m tests.interleavings 1000 60             1,000 episodes, or as many as fit in 60 s
    python -m tests.interleavings 1 60 --seed 4711    one of them again

An episode is a list of actions, made from a seed, that are begun one after the other without
waiting for each other, on one or two event loops.  Then the server is well again, and the provider
has to be as well: it connects, answers, closes, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import gc
import inspect
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Literal

from llm_manager import (
    Backoff,
    BaseLLMProvider,
    CircuitBreaker,
    ConcurrencyLimit,
    ConfigurationError,
    CooldownPolicy,
    DeadlinePolicy,
    DependencyMissingError,
    EchoProvider,
    InvalidParameterError,
    LLMError,
    LLMStream,
    OpenAICompatibleProvider,
    RetryPolicy,
    Stage,
    StatusChanged,
    UnsupportedFeatureError,
)
from llm_manager._threads import LoopThread
from llm_manager.machine import StatusMachine
from llm_manager.providers.echo import EchoAnswer
from llm_manager.status import LEGAL_TRANSITIONS
from llm_manager.testing import Reply, ScriptedPeer
from llm_manager.testing.peer import Request

from .soak.watch import Noise

Mode = Literal["echo", "http"]
GOOD_KEY, OTHER_KEY, WRONG_KEY = "key-good-0001", "key-good-0002", "key-wrong-0003"
TEXT = "one two three four"
QUICK = Backoff(first_s=0.004, max_s=0.02)
OPTIONS: dict[str, Any] = {
    "timeouts": {"first_token_s": 3.0, "total_s": 6.0},
    "retries": {"attempts": 2, "wait_s": 0.003, "wait_max_s": 0.01},
}
FAULTS = ("ok", "401", "402", "403", "404", "429", "500", "503", "hang", "reset", "close", "half",
          "junk", "silent")  # fmt: skip
PATIENCE_S = 8.0
# Nothing that is done here is a mistake of whoever does it.
NEVER = (
    ConfigurationError, DependencyMissingError, InvalidParameterError, UnsupportedFeatureError,
)  # fmt: skip

second = LoopThread("second-loop")


@dataclass(frozen=True)
class Action:
    """Something to do, begun on the first or on the second loop.

    Attributes:
        what: name of the method of `Episode` that does it.
        how: its argument.
        place: 0 or 1, the loop.
        pause_s: how long to wait before the next one; below 0: so many turns of the loop.
    """

    what: str
    how: Any = None
    place: int = 0
    pause_s: float = 0.0

    def __str__(self) -> str:
        shown = "" if self.how is None else repr(self.how)
        return f"{self.what}({shown}){' on 2' if self.place else ''} then {self.pause_s:g}"


def plan(seed: int) -> list[Action]:
    """The actions of an episode."""
    chance = random.Random(seed)
    two_loops = chance.random() < 0.4
    return [
        replace(
            _action(chance),
            place=chance.randrange(2) if two_loops else 0,
            pause_s=chance.choice((0, 0, -1, -2, -5, -8, 0.001, 0.004)),
        )
        for _ in range(chance.randint(4, 35))
    ]


def _action(chance: random.Random) -> Action:
    what = chance.choice(
        ("ask",) * 9 + ("fault",) * 5 + ("cancel", "cancel_task") * 3
        + ("connect", "disconnect", "update") * 3 + ("available", "models") * 2
        + ("cancel_twice", "reconnect_now", "down", "up", "up")
        + (("close",) if chance.random() < 0.1 else ())
    )  # fmt: skip
    how: Any = {
        "ask": lambda: (
            chance.choice(("await", "await", "break", "with", "drop", "callback")),
            chance.choice((None, None, None, 0.004, 0.03)),
        ),
        "fault": lambda: (chance.choice(("answers", "answers", "models")), chance.choice(FAULTS)),
        "cancel": lambda: chance.random(),
        "cancel_twice": lambda: chance.random(),
        "cancel_task": lambda: chance.random(),
        "connect": lambda: chance.choice(
            (("attempt", None), ("attempt", 0.003), ("none", None), ("ready", 0.05))
        ),
        "disconnect": lambda: chance.choice((0.0, 0.002, 0.02)),
        "close": lambda: chance.choice((0.0, 0.01)),
        "update": lambda: chance.choice(
            ({"api_key": OTHER_KEY}, {"api_key": GOOD_KEY}, {"api_key": WRONG_KEY},
             {"timeouts": {"first_token_s": 2.0}})
        ),
        "models": lambda: chance.random() < 0.7,
    }.get(what, lambda: None)()  # fmt: skip
    return Action(what, how)


class Episode:
    """One run of a list of actions.

    Attributes:
        problems: what should not have happened.
        story: the steps of the status, for people.
    """

    def __init__(self, mode: Mode, peer: ScriptedPeer, peer_loop: LoopThread) -> None:
        self.problems: list[str] = []
        self.story: list[str] = []
        self.mode = mode
        self._peer, self._peer_loop = peer, peer_loop
        self._faults = {"answers": "ok", "models": "ok"}
        self._tasks: list[asyncio.Task[None] | concurrent.futures.Future[None]] = []
        self._streams: list[LLMStream] = []
        self._running: Counter[str] = Counter()
        self._finished: set[str] = set()
        self._closed = False
        self._server_work: concurrent.futures.Future[None] | None = None
        self.provider = self._new_provider()
        listen = self.provider.on
        listen("statusChanged", self._step, delivery="inline")
        listen("requestStarted", self._started, delivery="inline")
        listen("requestFinished", self._ended, delivery="inline")
        listen("error", lambda _: None)

    def _new_provider(self) -> BaseLLMProvider:
        common: dict[str, Any] = {
            "default_model": "m", "default_options": OPTIONS, "reconnect": QUICK,
            "policies": new_policies(),
        }  # fmt: skip
        if self.mode == "echo":
            return EchoProvider(models=["m"], words_per_s=1000.0, connect_delay_s=0.001, **common)
        for path in ("/v1/models", "/v1/chat/completions"):
            self._peer.route(path, self._reply)
        return OpenAICompatibleProvider(
            base_url=f"{self._peer.base_url}/v1", api_key=GOOD_KEY, **common
        )

    # ---- the course of it ------------------------------------------------------------------------

    async def run(self, actions: list[Action]) -> None:
        noise = Noise()
        noise.on_loop(asyncio.get_running_loop())
        noise.on_loop(second.loop)
        try:
            for action in actions:
                self._do(action)
                await _pause(action.pause_s)
            await self._settle()
            await self._check_rest()
            if not self._closed:
                await self._check_truth()
            await self._check_end()
        finally:
            asyncio.get_running_loop().set_exception_handler(None)
        self.problems += noise.heard

    def _do(self, action: Action) -> None:
        method = getattr(self, f"do_{action.what}")
        if not inspect.iscoroutinefunction(method):
            method(action.how)
        elif action.place == 0:
            work = self._judged(method, action.how)
            self._tasks.append(asyncio.get_running_loop().create_task(work))
        else:
            work = self._judged(method, action.how)
            self._tasks.append(asyncio.run_coroutine_threadsafe(work, second.loop))

    async def _judged(self, method: Callable[[Any], Coroutine[Any, Any, None]], how: Any) -> None:
        """Do an action; what it may raise is what a user has to expect."""
        try:
            await method(how)
        except LLMError as error:
            if error.code == "unexpected" or isinstance(error, NEVER):
                self.problems.append(f"{method.__name__}: {error!r} {error.original}")
        except Boom:
            pass
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.problems.append(f"{method.__name__} raised {type(error).__name__}: {error}")

    async def _settle(self) -> None:
        """Everything is well again, and everybody comes to an end."""
        self._faults = {"answers": "ok", "models": "ok"}
        if isinstance(self.provider, EchoProvider):
            self.provider.go_online()
            self.provider._script.clear()
        for stream in self._streams[::2]:
            stream.cancel()
        # What hangs on a connection is ended, as by a server that is started anew.
        self._server_follows(self._peer.stop())
        self._server_follows(self._peer.start())
        assert self._server_work is not None
        await asyncio.wrap_future(self._server_work)
        if self.mode == "echo":  # nobody ends what hangs there
            for stream in self._streams:
                stream.cancel()
        futures = [
            asyncio.wrap_future(t) if isinstance(t, concurrent.futures.Future) else t
            for t in self._tasks
        ]
        if futures:
            _, late = await asyncio.wait(futures, timeout=PATIENCE_S)
            if late:
                self.problems.append(f"hangs: {late} while {self.provider.status}")
            await asyncio.gather(*(f for f in futures if f not in late), return_exceptions=True)
        # What was cancelled from here ends on its own loop some turns later.
        for _ in range(3):
            turn = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), second.loop)
            await asyncio.wrap_future(turn)

    async def _check_rest(self) -> None:
        """Nobody does anything any more, and the server is well: nothing stays half done."""
        until_s = time.monotonic() + PATIENCE_S
        provider = self.provider
        passing = ("connecting", "reconnecting", "draining")
        # Who disconnects and is cancelled leaves a drain behind that goes on by itself.
        while provider.status.status in passing or provider._connection._stopping.running:
            if time.monotonic() > until_s:
                self.problems.append(f"it stays as it is: {self.provider.status}")
                return
            await asyncio.sleep(0.005)

    async def _check_truth(self) -> None:
        """The server is well and the key is right: the provider is usable, and says so."""
        provider = self.provider
        if self.mode == "http":
            await provider.update_config(api_key=GOOD_KEY)
        try:
            await provider.connect(wait="ready", timeout_s=PATIENCE_S)
            answer = await provider.generate_completion("m", TEXT)
            await provider.get_available_models(refresh=True)
        except LLMError as error:
            self.problems.append(f"not well at the end: {error!r} {provider.status}")
            return
        if answer.text != TEXT:
            self.problems.append(f"the answer at the end is {answer.text!r}")
        if provider.status.status != "connected":
            self.problems.append(f"it works, and says {provider.status}")

    async def _check_end(self) -> None:
        provider = self.provider
        began_s = time.monotonic()
        await provider.close(0.2)
        if time.monotonic() - began_s > 3:
            self.problems.append(f"closing took {time.monotonic() - began_s:.1f} s")
        for _ in range(50):
            left = self._left()
            if not left:
                break
            await asyncio.sleep(0.02)
        self.problems += left
        for request, count in self._running.items():
            if count:
                self.problems.append(f"{request} never finished")

    def _left(self) -> list[str]:
        now = self.provider.status
        left = []
        if now.status != "closed" or now.in_flight or now.queued:
            left.append(f"after the end it is {now}")
        if self._peer.open_connections:
            left.append(f"{self._peer.open_connections} connections are open")
        mine = {asyncio.current_task()}
        tasks = (asyncio.all_tasks() - mine) | asyncio.all_tasks(second.loop)
        return left + [f"left behind: {task}" for task in tasks]

    # ---- the actions -----------------------------------------------------------------------------

    async def do_connect(self, how: tuple[Any, float | None]) -> None:
        await self.provider.connect(wait=how[0], timeout_s=how[1])

    async def do_disconnect(self, drain_s: float) -> None:
        await self.provider.disconnect(drain_s)

    async def do_close(self, drain_s: float) -> None:
        self._closed = True
        await self.provider.close(drain_s)

    async def do_available(self, _: None) -> None:
        if not isinstance(await self.provider.is_available(), bool):
            self.problems.append("is_available() gave no bool")

    async def do_models(self, refresh: bool) -> None:
        await self.provider.get_available_models(refresh=refresh)

    async def do_update(self, settings: dict[str, Any]) -> None:
        if self.mode == "echo":
            settings = {name: value for name, value in settings.items() if name != "api_key"}
        await self.provider.update_config(**settings)

    async def do_ask(self, how: tuple[str, float | None]) -> None:
        way, limit_s = how
        options = {} if limit_s is None else {"timeouts": {"first_token_s": limit_s}}
        seen: list[Any] = []

        def callback(event: Any) -> None:
            seen.append(event)
            if len(seen) == 2:
                raise Boom

        asked = callback if way == "callback" else None
        stream = self.provider.stream_completion("m", TEXT, None, options, asked)
        self._streams.append(stream)
        if way in ("await", "callback"):
            await stream
        elif way == "drop":
            await anext(aiter(stream))
        elif way == "with":
            async with stream:
                async for _ in stream:
                    return
        else:
            async for _ in stream:
                break

    def do_cancel(self, which: float) -> None:
        if self._streams:
            self._streams[int(which * len(self._streams))].cancel()

    def do_cancel_twice(self, which: float) -> None:
        self.do_cancel(which)
        self.do_cancel_task(which)
        self.do_cancel_task(which)

    def do_cancel_task(self, which: float) -> None:
        if self._tasks:
            self._tasks[int(which * len(self._tasks))].cancel()

    def do_reconnect_now(self, _: None) -> None:
        self.provider.reconnect_now()

    def do_fault(self, how: tuple[str, str]) -> None:
        where, fault = how
        self._faults[where] = fault
        provider = self.provider
        if isinstance(provider, EchoProvider):
            hang = EchoAnswer(hang_after_words=1)
            provider.go_online()
            if fault in ("hang", "half"):
                provider.script(hang)
            elif fault in ("reset", "close"):
                provider.go_offline()

    def do_down(self, _: None) -> None:
        if isinstance(self.provider, EchoProvider):
            self.provider.go_offline()
        else:
            self._server_follows(self._peer.stop())

    def do_up(self, _: None) -> None:
        if isinstance(self.provider, EchoProvider):
            self.provider.go_online()
        else:
            self._server_follows(self._peer.stop())
            self._server_follows(self._peer.start())

    def _server_follows(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something to the server after what is done to it already."""

        async def in_turn(before: concurrent.futures.Future[None] | None) -> None:
            if before is not None:
                await asyncio.wrap_future(before)
            await work

        before = self._server_work
        self._server_work = asyncio.run_coroutine_threadsafe(in_turn(before), self._peer_loop.loop)

    # ---- the server ------------------------------------------------------------------------------

    def _reply(self, request: Request) -> Reply:
        asks_models = request.method == "GET"
        fault = self._faults["models" if asks_models else "answers"]
        if request.headers.get("authorization", "").endswith(WRONG_KEY):
            fault = "401"
        if fault.isdigit():
            body = {"error": {"message": "a drill"}}
            return Reply.json(body, status=int(fault), headers={"retry-after-ms": "5"})
        if fault in ("hang", "reset", "close"):
            return Reply(instead=fault)
        if fault == "junk":
            return Reply(body=[b"<html>"], framing="length")
        if asks_models:
            return Reply.json({"data": [{"id": "m"}]})
        words = [_delta(f"{word} ") for word in TEXT.split()[:-1]] + [_delta(TEXT.split()[-1])]
        steps = [step for word in words for step in (word, 0.001)]
        if fault == "half":
            return Reply.sse(steps[:3], ending="half_chunk")
        if fault == "silent":
            return Reply.sse(steps[:3], ending="hang")
        return Reply.sse([*steps, _delta(None), "[DONE]"])

    # ---- what the provider says ------------------------------------------------------------------

    def _step(self, event: StatusChanged) -> None:
        before, now = event.previous, event.current
        self.story.append(f"{now.seq} {now.status} ({now.reason}) epoch {now.epoch}")
        if now.seq != before.seq + 1:
            self.problems.append(f"seq {before.seq} -> {now.seq}")
        legal = now.status == before.status or now.status in LEGAL_TRANSITIONS[before.status]
        if not legal:
            self.problems.append(f"{before.status} -> {now.status}")

    def _started(self, event: Any) -> None:
        self._running[event.request_id] += 1
        if self._running[event.request_id] > 1 or event.request_id in self._finished:
            self.problems.append(f"{event.request_id} started twice")

    def _ended(self, event: Any) -> None:
        self._running[event.request_id] -= 1
        if self._running[event.request_id] < 0 or event.request_id in self._finished:
            self.problems.append(f"{event.request_id} finished twice, or without a start")
        self._finished.add(event.request_id)


def new_policies() -> tuple[Stage, ...]:
    """The usual ones, with a circuit that soon closes again."""
    circuit = CircuitBreaker(open_s=0.02, open_max_s=0.1)
    return (circuit, ConcurrencyLimit(), CooldownPolicy(), DeadlinePolicy(), RetryPolicy())


class Boom(Exception):
    """What a user's callback raises."""


def _delta(text: str | None) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    finish = "stop" if text is None else None
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


async def _pause(pause_s: float) -> None:
    if pause_s > 0:
        await asyncio.sleep(pause_s)
    for _ in range(int(-pause_s)):
        await asyncio.sleep(0)


# ---- many of them --------------------------------------------------------------------------------


def broken(mode: Mode, actions: list[Action]) -> tuple[list[str], list[str]]:
    """What goes wrong in an episode, and its story."""
    server = LoopThread("scripted-peer")
    peer = ScriptedPeer()

    def on_server(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, server.loop).result()

    on_server(peer.start())
    try:
        episode = Episode(mode, peer, server)
        asyncio.run(episode.run(actions))
    finally:
        on_server(peer.stop())
        server.stop()
    return episode.problems, episode.story


def shrunk(mode: Mode, actions: list[Action], tries: int = 60) -> list[Action]:
    """A shorter list that goes wrong as well, as far as that can be found with so many tries."""
    size = max(len(actions) // 2, 1)
    while size:
        at = 0
        while at < len(actions) and tries:
            shorter = actions[:at] + actions[at + size :]
            tries -= 1
            if shorter and broken(mode, shorter)[0]:
                actions = shorter
            else:
                at += size
        size = size // 2 if tries else 0
    return actions


def failure_of(mode: Mode, seed: int) -> str | None:
    """Why the episode of this seed is broken, told so that it can be understood; or None."""
    actions = plan(seed)
    problems, story = broken(mode, actions)
    if not problems:
        return None
    least = shrunk(mode, actions)
    lines = [f"python -m tests.interleavings 1 60 --mode {mode} --seed {seed}", *problems]
    lines += ["", f"{len(actions)} actions; these may be enough:", *(f"  {a}" for a in least)]
    lines += ["", "the status of the whole episode:", *(f"  {step}" for step in story)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interleavings", description=__doc__)
    parser.add_argument("episodes", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=("echo", "http"))
    asked = parser.parse_args()
    StatusMachine.strict = True
    until_s = time.monotonic() + asked.seconds
    done, failures = 0, 0
    with Noise() as noise:
        for seed in range(asked.seed, asked.seed + asked.episodes):
            for mode in (asked.mode,) if asked.mode else ("echo", "http"):
                failure = failure_of(mode, seed)
                if failure is not None:
                    failures += 1
                    sys.stdout.write(f"{failure}\n\n")
                    sys.stdout.flush()
            done += 1
            if time.monotonic() > until_s:
                break
        gc.collect()
    sys.stdout.write("".join(f"{heard}\n" for heard in noise.heard))
    sys.stdout.write(f"{done} seeds, {failures} episodes broken\n")
    return 1 if failures or noise.heard else 0


if __name__ == "__main__":
    sys.exit(main())
