"""What a program pays for providers that have nothing to do: next to nothing.

The times themselves are measured by ``python -m tests.benchmarks``; here stands what does not
depend on the machine.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from llm_manager import EchoProvider, ProviderStatus, Reason
from llm_manager.events import HealthCheck
from llm_manager.sleepwatch import BEAT_S

from . import virtual_time

ROOT = Path(__file__).parents[2]
MINUTE_S = 60


def providers(count: int, **settings) -> list[EchoProvider]:
    clock = virtual_time.here().clock
    return [EchoProvider(id=f"p{n}", clock=clock, **settings) for n in range(count)]


async def wake_ups_of_a_minute() -> int:
    loop = virtual_time.here()
    before = loop.wake_ups
    await asyncio.sleep(MINUTE_S)
    return loop.wake_ups - before


def test_a_thousand_connected_services_wake_nobody_while_nobody_asks_them() -> None:
    async def main() -> tuple[int, int]:
        probes: list[HealthCheck] = []
        crowd = providers(1000)
        for provider in crowd:
            await provider.connect()
            provider.on("statusChanged", lambda event: None)
            provider.on("healthCheck", probes.append)
        woken = await wake_ups_of_a_minute()
        for provider in crowd:
            await provider.close()
        return woken, len(probes)

    woken, probes = virtual_time.run(main())
    assert probes == 0
    # Whether the computer has slept is looked at once for all of them, and our own sleep ends.
    assert woken <= MINUTE_S / BEAT_S + 2


def test_a_local_server_is_looked_after_while_somebody_listens_and_only_then() -> None:
    async def probes_of_a_minute(*, watched: bool) -> int:
        asked = 0

        class Local(EchoProvider):
            async def _list_models(self):
                nonlocal asked
                asked += 1
                return await super()._list_models()

        provider = Local(probe_interval_s=10, clock=virtual_time.here().clock)
        await provider.connect()
        if watched:
            provider.on("statusChanged", lambda event: None)
        asked = 0
        await asyncio.sleep(MINUTE_S + 1)
        await provider.close()
        return asked

    assert virtual_time.run(probes_of_a_minute(watched=True)) == 6
    assert virtual_time.run(probes_of_a_minute(watched=False)) == 0


def test_a_local_server_is_not_asked_how_it_is_while_it_answers() -> None:
    async def main() -> int:
        clock = virtual_time.here().clock
        provider = EchoProvider(words_per_s=1, probe_interval_s=10, clock=clock)
        probes: list[HealthCheck] = []
        await provider.connect()
        provider.on("healthCheck", probes.append)
        await provider.generate_completion("echo", " ".join(["word"] * MINUTE_S))
        await provider.close()
        return len(probes)

    assert virtual_time.run(main()) == 0


def test_a_provider_that_was_stopped_leaves_no_timer_behind() -> None:
    async def main() -> int:
        (provider,) = providers(1, probe_interval_s=0.5)
        provider.on("statusChanged", lambda event: None)
        await provider.connect()
        await asyncio.sleep(5)
        await provider.disconnect()
        await asyncio.sleep(BEAT_S + 1)  # the last look
        return await wake_ups_of_a_minute()

    assert virtual_time.run(main()) == 1  # our own sleep


def test_a_burst_of_steps_is_brought_to_ten_listeners_in_few_turns_of_the_loop() -> None:
    steps, listeners = 1000, 10

    async def main() -> tuple[int, int]:
        (provider,) = providers(1)
        seen, turns = [0] * listeners, 0

        def listen(number: int):
            async def listener(event) -> None:
                seen[number] += 1

            return listener

        for number in range(listeners):
            provider.on("statusChanged", listen(number))
        machine, loop, done = provider._machine, asyncio.get_running_loop(), False

        def count_turn() -> None:
            nonlocal turns
            turns += 1
            if not done:
                loop.call_soon(count_turn)

        count_turn()
        machine.change(ProviderStatus.CONNECTING)
        for number in range(steps):
            word = (ProviderStatus.CONNECTED, ProviderStatus.DEGRADED)[number % 2]
            machine.change(word, Reason.RECOVERED)
        assert await provider.flush()
        done = True
        return min(seen), turns

    seen, turns = virtual_time.run(main())
    assert seen == steps + 1
    assert turns < steps  # one turn brings several of them, to all ten


def test_importing_and_registering_six_providers_starts_no_thread_and_opens_no_descriptor() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIX_PROVIDERS],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"threads": 1, "descriptors": 0}


SIX_PROVIDERS = """
import json, os, threading

def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0

before = descriptors()
import llm_manager
manager = llm_manager.LLMProviderManager.get_instance()
for kind in ("echo", "ollama", "openai", "anthropic", "groq", "lmstudio"):
    manager.register_provider(kind)
print(json.dumps({
    "threads": threading.active_count(), "descriptors": descriptors() - before,
}))
"""
