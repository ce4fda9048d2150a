"""The hard cases of delivery that `tests/test_events.py` does not show already."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llm_manager import (
    EventEmitter,
    LLMProviderManager,
    ProviderConnectionError,
    ProviderStatus,
    Subscription,
)
from llm_manager.machine import IllegalTransitionError, StatusMachine
from llm_manager.testing import EventRecorder

from ..helpers import echo

WAIT_S = 20


@pytest.mark.parametrize("place", ["loop", "dispatcher"])
async def test_nothing_is_delivered_any_more_once_close_has_returned_on_another_thread(
    place,
) -> None:
    emitter, seen = EventEmitter(), []
    entered, release = threading.Event(), threading.Event()

    def busy(number: int) -> None:
        seen.append(number)
        entered.set()
        release.wait(WAIT_S)

    def close() -> None:
        entered.wait(WAIT_S)
        subscription.close()  # while it runs; what has come after it is still in its mailbox
        release.set()

    subscription = await _subscribed(emitter, busy, place)
    closing = threading.Thread(target=close)
    closing.start()
    for number in range(5):
        emitter.emit("x", number)
    await asyncio.to_thread(closing.join, WAIT_S)
    emitter.emit("x", 5)
    barrier: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    last = await _subscribed(emitter, lambda: _resolve(barrier), place, event="last")
    emitter.emit("last")  # delivered after everything that was before it
    async with asyncio.timeout(WAIT_S):
        await barrier
    last.close()
    assert seen == [0]


async def test_what_two_windows_draw_from_one_provider_agrees_whatever_their_speed() -> None:
    """One draws at once, one needs its time for each picture, one only wants the newest."""
    provider = echo()
    drawn: dict[str, list[tuple[int, str]]] = {"quick": [], "slow": [], "newest": []}

    def draw(window: str, event) -> None:
        drawn[window].append((event.current.seq, event.current.status.value))

    async def draw_slowly(event) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        draw("slow", event)

    provider.subscribe(lambda event: draw("quick", event))
    provider.subscribe(draw_slowly)
    provider.subscribe(lambda event: draw("newest", event), conflate=True)
    for _ in range(3):
        await provider.connect()
        provider.go_offline()
        with pytest.raises(ProviderConnectionError):
            await provider.generate_completion("echo", "Hi", options={"retries": {"attempts": 1}})
        await provider.wait_for("reconnecting", WAIT_S)
        provider.go_online()
        await provider.wait_for("connected", WAIT_S)
        await provider.disconnect()
    assert await provider.flush(WAIT_S)
    present = (provider.status.seq, "disconnected")
    assert [pictures[-1] for pictures in drawn.values()] == [present] * 3
    assert drawn["slow"] == drawn["quick"]
    numbers = [seq for seq, _ in drawn["quick"]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    await provider.close()


async def test_a_window_of_a_manager_that_opens_late_agrees_with_one_that_was_there() -> None:
    manager = LLMProviderManager()
    early = EventRecorder(manager)
    providers = [manager.register_provider(echo(id=f"p{n}")) for n in range(3)]
    await asyncio.gather(*(provider.connect() for provider in providers))
    late: dict[str, str] = {}
    manager.subscribe(lambda event: late.update({event.provider_id: event.current.status}))
    await providers[1].disconnect()
    assert await manager.flush(WAIT_S)
    known = {event.provider_id: event.current.status for event in early.named("statusChanged")}
    assert late == known == {"p0": "connected", "p1": "disconnected", "p2": "connected"}
    numbers = [event.gseq for event in early]
    # A step to another word is told under two names and has one number.
    assert sorted(set(numbers)) == list(range(numbers[0], numbers[0] + len(set(numbers))))
    await manager.close()


async def test_a_step_that_is_illegal_is_seen_by_nobody_and_costs_no_number() -> None:
    writers, emitter = 4, EventEmitter()
    machine = StatusMachine(emitter, "p")
    seen: list[int] = []
    emitter.on("statusChanged", lambda event: seen.append(event.current.seq), delivery="inline")
    barrier = threading.Barrier(writers)

    def write(number: int) -> None:
        barrier.wait()
        for attempt in range(100):
            machine.change(attempt=1 + number * 100 + attempt)
            with pytest.raises(IllegalTransitionError):
                machine.change(ProviderStatus.CONNECTED)  # not from disconnected

    before = machine.state.seq
    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, WAIT_S)
    assert seen == list(range(before + 1, before + 1 + writers * 100))


async def _subscribed(emitter: EventEmitter, listener, place: str, event: str = "x"):
    """Registered where a loop runs, or where none does."""
    if place == "loop":
        return emitter.subscribe(listener, event)
    found: list[Subscription] = []
    thread = threading.Thread(target=lambda: found.append(emitter.subscribe(listener, event)))
    thread.start()
    await asyncio.to_thread(thread.join, WAIT_S)
    return found[0]


def _resolve(future: asyncio.Future[None]) -> None:
    future.get_loop().call_soon_threadsafe(future.set_result, None)
