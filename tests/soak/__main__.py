"""A soak: many streams, faults, restarts and new keys at the same time; nothing may be left over.

``python -m tests.soak --minutes 10`` prints what happened, and exits with 1 if a rule is broken:

* every request that started has finished, once, and no number of an event is missing;
* no answer holds a piece of another, and no part looks like the whole;
* at the end no task, thread, socket or descriptor is left, and every provider works;
* memory has grown by less than 5 MB since the warm-up, which is the first fifth, and not less than
  half a minute, as long as the allocator takes to find its size (a short soak: the first half);
* nothing was raised where nobody handles it, warnings included.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from llm_manager import (
    Backoff,
    CircuitBreaker,
    ConcurrencyLimit,
    CooldownPolicy,
    DeadlinePolicy,
    LLMProviderManager,
    RetryPolicy,
    Stage,
    _blocking,
    subscription,
)

from .controller import ServerProcess
from .watch import Ledger, Noise, descriptors, settled_rss_bytes, threads
from .work import Crowd, trouble, works_again

GROWTH_LIMIT_BYTES = 5_000_000
WARM_UP_S = 30.0
SHARE_OF_FAULTS = 0.1
SYNCHRONOUS = 3
OPTIONS = {
    "timeouts": {"first_token_s": 8.0, "idle_s": 3.0, "total_s": 30.0},
    "retries": {"attempts": 3, "wait_s": 0.1, "wait_max_s": 1.0},
}
RECONNECT = Backoff(first_s=0.1, max_s=1.0)


@dataclass
class Report:
    """What a soak has seen."""

    problems: list[str] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    rotations: Counter[str] = field(default_factory=Counter)
    keys: int = 0
    restarts: int = 0
    rss_bytes: tuple[int, int] = (0, 0)
    latest_ms: float = 0.0

    def lines(self) -> list[str]:
        before, after = self.rss_bytes
        return [
            f"requests     {self.events['requestFinished']}, {_counts(self.outcomes)}",
            f"readers saw  {_counts(self.ended)}",
            f"faults       {self.faults.total()}, {_counts(self.faults)}",
            f"rotations    {self.rotations.total()}; the server saw {self.keys} keys",
            f"restarts     {self.restarts}",
            f"events       {self.events.total()}, {_counts(self.events)}",
            f"memory       {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB under load "
            f"({(after - before) / 1e6:+.1f} MB since the warm-up)",
            f"loop         at most {self.latest_ms:.0f} ms late",
            *(f"BROKEN       {problem}" for problem in self.problems[:30]),
            f"result       {f'{len(self.problems)} problems' if self.problems else 'no problem'}",
        ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counter.most_common())


async def soak(seconds: float, streams: int, seed: int, noise: Noise) -> Report:
    """Run it on this event loop; what only the end of the loop can tell is for the caller."""
    report = Report()
    noise.on_loop(asyncio.get_running_loop())
    noise.on_loop(_blocking._worker.loop)
    noise.on_loop(subscription._dispatcher.loop)
    server = ServerProcess(seed)
    await server.start()
    manager = LLMProviderManager(default_options=OPTIONS)
    ledger = Ledger(manager)
    _register(manager, server.base_url)
    await manager.connect_all()
    crowd = Crowd(manager, seed)
    helpers = crowd.threads(SYNCHRONOUS)
    for thread in helpers:
        thread.start()
    readers = [asyncio.create_task(crowd.read_for_ever()) for _ in range(streams)]
    await server.tell(SHARE_OF_FAULTS)
    troubles = [
        asyncio.create_task(trouble(manager, seed, report.rotations, report.problems)),
        asyncio.create_task(_restart_for_ever(server, seconds)),
        asyncio.create_task(_measure_lateness(report)),
    ]
    warm_up_s = min(max(seconds * 0.2, WARM_UP_S), seconds / 2)
    await asyncio.sleep(warm_up_s)
    warm = await settled_rss_bytes()
    await asyncio.sleep(seconds - warm_up_s)
    report.rss_bytes = (warm, await settled_rss_bytes())
    report.problems += await _ended(troubles)
    await server.start_if_down()
    await server.tell(0.0)
    crowd.stop()
    _, late = await asyncio.wait(readers, timeout=60)
    if late:
        report.problems.append(f"{len(late)} readers do not come to an end: {next(iter(late))}")
    for thread in helpers:
        await asyncio.to_thread(thread.join, 30)
    report.problems += await works_again(manager)
    await manager.close(drain_timeout_s=1.0)
    report.problems += await _left_over(manager, server)
    await server.kill()
    ledger.conclude()
    report.problems += [*ledger.problems, *crowd.problems]
    report.ended, report.outcomes, report.events = crowd.ended, ledger.outcomes, ledger.events
    report.restarts = server.restarts
    keys: set[str] = set()
    for told in server.told:
        report.faults.update(told["faults"])
        keys.update(told["keys"])
    report.keys = len(keys)
    if (grown := report.rss_bytes[1] - warm) > GROWTH_LIMIT_BYTES:
        report.problems.append(f"memory has grown by {grown / 1e6:.1f} MB")
    return report


def _new_policies() -> tuple[Stage, ...]:
    """The usual ones, with a circuit that opens and closes often enough to be seen."""
    circuit = CircuitBreaker(open_s=1.0, open_max_s=3.0)
    return (circuit, ConcurrencyLimit(), CooldownPolicy(), DeadlinePolicy(), RetryPolicy())


def _register(manager: LLMProviderManager, base_url: str) -> None:
    for id in ("first", "second"):
        manager.register_provider(
            "compatible", id=id, base_url=f"{base_url}/v1", api_key=f"key-soak-{id}-begin",
            reconnect=RECONNECT, policies=_new_policies(),
        )  # fmt: skip
    manager.register_provider(
        "ollama", base_url=base_url, reconnect=RECONNECT, policies=_new_policies()
    )
    manager.register_provider("echo", models=["m"], words_per_s=10.0)
    if importlib.util.find_spec("openai") is not None:
        manager.register_provider(
            "openai", base_url=f"{base_url}/v1", api_key="key-soak-openai-begin",
            api="chat", reconnect=RECONNECT, policies=_new_policies(),
        )  # fmt: skip


async def _restart_for_ever(server: ServerProcess, seconds: float) -> None:
    every_s = max(min(12.0, seconds / 3), 1.5)
    while True:
        await asyncio.sleep(every_s)
        await server.restart(0.1 + 0.9 * (server.restarts % 2))


async def _measure_lateness(report: Report) -> None:
    """How long the loop leaves others waiting; more than a second spoils every time limit."""
    while True:
        began_s = time.monotonic()
        await asyncio.sleep(0.1)
        late_ms = (time.monotonic() - began_s - 0.1) * 1000
        report.latest_ms = max(report.latest_ms, late_ms)


async def _ended(tasks: list[asyncio.Task[None]]) -> list[str]:
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [
        f"trouble itself failed: {each!r}"
        for each in outcomes
        if each is not None and not isinstance(each, asyncio.CancelledError)
    ]


async def _left_over(manager: LLMProviderManager, server: ServerProcess) -> list[str]:
    """What is still there although everything is closed; looked for during a second."""
    for _ in range(20):
        found = [
            f"{provider!r} has {provider.status.in_flight} requests, {provider.status.queued} wait"
            for provider in manager.providers.values()
            if provider.status.in_flight or provider.status.queued
            or provider.status.status != "closed"
        ]  # fmt: skip
        others = asyncio.all_tasks() - {asyncio.current_task()}
        found += [f"a task is left: {task}" for task in others]
        if connections := (await server.ask())["open"]:
            found.append(f"the server has {connections} open connections")
        if not found:
            break
        await asyncio.sleep(0.05)
    return found


def run(seconds: float, streams: int, seed: int) -> Report:
    """The whole soak, with what the process holds before and after it."""
    before_threads, before_descriptors = threads(), descriptors()
    with Noise() as noise:
        report = asyncio.run(soak(seconds, streams, seed, noise))
        extra = Counter(threads()) - Counter(before_threads)
        own = Counter(["llm_manager-sync", "llm_manager-events"])
        # The loop behind synchronous calls loads libraries in threads, as every loop does.
        if others := [name for name in extra - own if not name.startswith("asyncio_")]:
            report.problems.append(f"threads are left: {others}")
        _blocking._worker.stop()
        subscription._dispatcher.stop()
    report.problems += noise.heard
    if left := Counter(threads()) - Counter(before_threads):
        report.problems.append(f"threads are left after the end: {left}")
    if opened := descriptors() - before_descriptors:
        report.problems.append(f"descriptors are left: {opened}")
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float)
    length.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    seconds = asked.seconds if asked.minutes is None else asked.minutes * 60
    report = run(seconds, asked.streams, asked.seed)
    sys.stdout.write("\n".join([f"seed         {asked.seed}", *report.lines(), ""]))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
