"""Listeners get every event in order, on their own thread, whatever other listeners do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from datetime import UTC, datetime

import msgspec
import pytest

from llm_manager import (
    AuthenticationError,
    EchoProvider,
    ErrorInfo,
    ErrorOccurred,
    Event,
    EventEmitter,
    InvalidParameterError,
    ListenerFailed,
    LLMModelInfo,
    LLMProviderStatus,
    ModelsChanged,
    ProviderStatus,
    Reason,
    RequestFinished,
    StatusChanged,
    Subscription,
    Usage,
    run_sync,
)
from llm_manager.machine import StatusMachine

from .helpers import EVENTS, QUICK, Record, echo

S = ProviderStatus
WAIT_S = 20  # an upper bound on what happens at once; reached only by a failure
KEY = "sk-abcdefghij0123456789"


@pytest.fixture
def emitter() -> EventEmitter:
    return EventEmitter()


@pytest.fixture
def machine(emitter) -> StatusMachine:
    """A state machine that has just been connected, nobody listening."""
    machine = StatusMachine(emitter, "p")
    machine.change(S.CONNECTING)
    machine.change(S.CONNECTED, Reason.RECOVERED)
    return machine


@pytest.fixture
def _eager_threads():
    """Let threads take turns often: races become likelier, and nobody waits for a busy writer."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    yield
    sys.setswitchinterval(usual)


def take_steps(machine: StatusMachine, *words: ProviderStatus) -> None:
    for word in words:
        assert machine.change(word)


def in_thread(work, *args) -> None:
    """Run ``work`` on a thread of its own, where no loop runs, to its end."""
    thread = threading.Thread(target=work, args=args)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def on_dispatcher(emitter: EventEmitter, event: str, listener, **how) -> None:
    """Register ``listener`` where no loop runs."""
    in_thread(lambda: emitter.on(event, listener, **how))


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, WAIT_S)


async def turns(count: int = 20) -> None:
    """Let the loop do whatever it has to do."""
    for _ in range(count):
        await asyncio.sleep(0)


# ---- what pyee means -----------------------------------------------------------------------------


async def test_a_listener_gets_the_arguments_of_every_emit_until_it_is_removed(emitter) -> None:
    seen = []

    def listener(*args, **kwargs) -> None:
        seen.append((args, kwargs))

    assert emitter.on("x", listener) is listener
    assert emitter.emit("x", 1, two=2) is True
    assert emitter.emit("x") is True
    await emitter.flush()
    emitter.remove_listener("x", listener)
    assert emitter.emit("x", 3) is False
    await turns()
    assert seen == [((1,), {"two": 2}), ((), {})]


async def test_registering_works_as_a_decorator_and_returns_the_function(emitter) -> None:
    seen = []

    @emitter.on("x")
    def first(value) -> None:
        seen.append(("first", value))

    @emitter.listens_to("x")
    def second(value) -> None:
        seen.append(("second", value))

    @emitter.once("x")
    def third(value) -> None:
        seen.append(("third", value))

    emitter.emit("x", 1)
    emitter.emit("x", 2)
    await emitter.flush()
    assert [callable(f) for f in (first, second, third)] == [True] * 3
    assert sorted(seen) == [
        ("first", 1), ("first", 2), ("second", 1), ("second", 2), ("third", 1),
    ]  # fmt: skip


async def test_emitting_never_runs_a_listener_before_it_returns(emitter) -> None:
    seen = []
    emitter.on("x", seen.append)
    emitter.emit("x", 1)
    assert seen == []
    await emitter.flush()
    assert seen == [1]


async def test_a_function_that_is_added_twice_is_called_once(emitter) -> None:
    seen = []
    for _ in range(2):
        emitter.add_listener("x", seen.append)
        emitter.on("x", seen.append)
    assert len(emitter.listeners("x")) == 1
    emitter.emit("x", 1)
    await emitter.flush()
    assert seen == [1]


async def test_listeners_and_event_names_tell_who_waits_for_what(emitter) -> None:
    def one() -> None: ...
    def two() -> None: ...

    assert (emitter.listeners("x"), emitter.event_names()) == ([], set())
    emitter.on("x", one)
    emitter.once("x", two)
    emitter.on("y", two)
    assert emitter.listeners("x") == [one, two]
    assert emitter.event_names() == {"x", "y"}
    emitter.emit("x")
    assert emitter.listeners("x") == [one]  # as in pyee: it will not hear of another one
    emitter.remove_all_listeners("x")
    assert emitter.event_names() == {"y"}
    emitter.remove_all_listeners()
    assert emitter.event_names() == set()
    await turns()


async def test_a_new_listener_is_announced_before_it_is_added(emitter) -> None:
    seen = []
    emitter.on("new_listener", lambda event, f: seen.append((event, f)), delivery="inline")

    def listener() -> None: ...

    emitter.on("x", listener)
    emitter.once("y", listener)
    emitter.subscribe(listener, "z")
    assert seen == [("x", listener), ("y", listener), ("z", listener)]


async def test_on_and_once_and_two_events_are_independent_registrations(emitter) -> None:
    seen = []
    emitter.on("x", seen.append)
    emitter.once("x", seen.append)
    emitter.on("y", seen.append)
    emitter.emit("x", "both")
    emitter.emit("x", "one")
    await emitter.flush()
    assert sorted(seen) == ["both", "both", "one"]
    emitter.remove_listener("x", seen.append)
    emitter.emit("x", "none")
    emitter.emit("y", "other event")
    await emitter.flush()
    assert seen[3:] == ["other event"]


async def test_removing_what_is_not_there_does_nothing(emitter) -> None:
    def listener() -> None: ...

    emitter.remove_listener("x", listener)
    emitter.on("x", listener)
    emitter.remove_listener("x", listener)
    emitter.remove_listener("x", listener)
    emitter.remove_all_listeners("nothing")
    assert emitter.event_names() == set()


@pytest.mark.parametrize(
    ("how", "text"),
    [({"delivery": "later"}, "'later'"), ({"limit": 0}, "limit must be 1 event or more, got 0")],
)
async def test_an_impossible_way_of_delivery_is_refused_at_once(emitter, how, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        emitter.subscribe(print, "x", **how)
    with pytest.raises(InvalidParameterError, match=text):
        emitter.on("x", print, **how)
    assert emitter.event_names() == set()


# ---- order ---------------------------------------------------------------------------------------


async def test_a_listener_that_is_slow_for_one_status_still_ends_on_the_last(machine) -> None:
    painted, gates = [], {"degraded": asyncio.Event(), "disconnected": asyncio.Event()}

    async def paint(event) -> None:
        await gates[event.current.status].wait()
        painted.append(event.current.status)

    machine._emitter.on("statusChanged", paint)
    take_steps(machine, S.DEGRADED, S.DISCONNECTED)
    gates["disconnected"].set()
    await turns()
    assert painted == []
    gates["degraded"].set()
    assert await machine._emitter.flush(WAIT_S)
    assert painted == ["degraded", "disconnected"]


@pytest.mark.parametrize("how", ["inline", "sync", "async"])
async def test_a_listener_that_disconnects_does_not_change_the_order_for_others(how) -> None:
    provider = echo()
    seen: dict[str, list[str]] = {"before": [], "after": [], "async": [], "inline": []}

    async def slowly(event) -> None:
        await asyncio.sleep(0)
        seen["async"].append(event.current.status)

    async def disconnect(_: object = None) -> None:
        await provider.disconnect()

    tasks = []
    provider.subscribe(lambda e: seen["before"].append(e.current.status))
    if how == "inline":
        # Re-entrant: the next step is taken while the first is still being delivered.
        provider.on("connected", lambda e: provider._machine.change(S.DRAINING), delivery="inline")
    elif how == "sync":
        provider.on("connected", lambda e: tasks.append(asyncio.create_task(disconnect())))
    else:
        provider.on("connected", disconnect)
    provider.subscribe(lambda e: seen["after"].append(e.current.status))
    provider.subscribe(lambda e: seen["inline"].append(e.current.status), delivery="inline")
    provider.subscribe(slowly)
    await provider.connect()
    await provider.wait_for(lambda s: not s.status.live, WAIT_S)
    if how == "inline":
        provider._machine.change(S.DISCONNECTED)
    await provider.wait_for("disconnected", WAIT_S)
    assert await provider.flush(WAIT_S)
    await asyncio.gather(*tasks)
    expected = ["disconnected", "connecting", "connected", "draining", "disconnected"]
    for words in seen.values():
        assert [w for i, w in enumerate(words) if i == 0 or w != words[i - 1]] == expected


@pytest.mark.usefixtures("_eager_threads")
async def test_four_writing_threads_are_seen_in_one_order_by_all_listeners(machine) -> None:
    emitter, seen = machine._emitter, [[] for _ in range(7)]
    limit = 5000  # nothing may be dropped however slow this machine is
    for numbers in seen[:3]:
        emitter.subscribe(lambda e, n=numbers: n.append(e.current.seq), limit=limit)
    for numbers in seen[3:6]:

        async def note(event, numbers=numbers) -> None:
            if event.current.seq % 7 == 0:
                await asyncio.sleep(0)
            numbers.append(event.current.seq)

        emitter.subscribe(note, limit=limit)
    done = threading.Event()
    first, last = machine.state.seq + 1, machine.state.seq + 1200

    def on_no_loop(event) -> None:
        seen[6].append(event.current.seq)
        if event.current.seq == last:
            done.set()

    on_dispatcher(emitter, "statusChanged", on_no_loop, limit=limit)
    barrier = threading.Barrier(4)

    def write(number: int) -> None:
        barrier.wait()
        for i in range(300):
            machine.change(attempt=1 + number * 300 + i)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    await until(done)
    assert await emitter.flush(WAIT_S)
    assert seen == [list(range(first, last + 1))] * 7


async def test_events_of_one_atomic_change_are_delivered_together_afterwards(emitter) -> None:
    seen = []
    emitter.on("x", seen.append, delivery="inline")
    with emitter.atomic():
        emitter.emit("x", 1)
        with emitter.atomic():
            emitter.emit("x", 2)
        assert seen == []
    assert seen == [1, 2]


async def test_one_listener_is_never_called_twice_at_the_same_time(emitter) -> None:
    running, most, calls = 0, 0, 0
    done = threading.Event()

    def listener(_: int) -> None:
        nonlocal running, most, calls
        running += 1
        most = max(most, running)
        running -= 1
        calls += 1
        if calls == 400:
            done.set()

    emitter.on("x", listener, delivery="inline")
    threads = [
        threading.Thread(target=lambda: [emitter.emit("x", i) for i in range(100)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    await until(done)
    assert (most, calls) == (1, 400)


# ---- place ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
async def test_an_event_from_a_thread_wakes_an_idle_loop(emitter, debug) -> None:
    loop, arrived, idle = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    loop.set_debug(debug)
    emitter.on("x", lambda: arrived.set())

    def emit_when_idle() -> None:
        idle.wait(WAIT_S)
        emitter.emit("x")

    thread = threading.Thread(target=emit_when_idle)
    thread.start()
    loop.call_soon(idle.set)
    async with asyncio.timeout(WAIT_S):
        await arrived.wait()
    thread.join()


def test_listeners_on_two_loops_run_each_on_its_own_thread(emitter) -> None:
    ran: dict[str, set[int]] = {"one": set(), "two": set()}
    ready, emitted = threading.Barrier(3), threading.Barrier(3)

    async def listen(name: str) -> int:
        got = asyncio.Event()

        def sync(_: int) -> None:
            ran[name].add(threading.get_ident())

        async def asynchronous(_: int) -> None:
            ran[name].add(threading.get_ident())
            got.set()

        emitter.on("x", sync)
        emitter.on("x", asynchronous)
        await asyncio.to_thread(ready.wait, WAIT_S)
        await asyncio.to_thread(emitted.wait, WAIT_S)
        await asyncio.wait_for(got.wait(), WAIT_S)
        await emitter.flush(WAIT_S)
        return threading.get_ident()

    idents: dict[str, int] = {}
    threads = [
        threading.Thread(target=lambda n=name: idents.update({n: asyncio.run(listen(n))}))
        for name in ran
    ]
    for thread in threads:
        thread.start()
    ready.wait(WAIT_S)
    emitter.emit("x", 1)
    emitted.wait(WAIT_S)
    for thread in threads:
        thread.join(WAIT_S)
    assert ran == {name: {ident} for name, ident in idents.items()}
    assert len(set(idents.values())) == 2
    # Both loops are closed now: emitting does not raise, and drops what was registered on them.
    emitter.emit("x", 2)
    assert emitter.emit("x", 3) is False
    assert emitter.event_names() == set()


def test_a_loop_that_closes_with_an_event_on_the_way_drops_its_subscriptions(emitter) -> None:
    loop = asyncio.new_event_loop()
    seen: list[int] = []

    async def register() -> Subscription:
        return emitter.subscribe(seen.append, "x")

    subscription = loop.run_until_complete(register())
    emitter.emit("x", 1)  # it is handed to the loop, which does not run any more
    loop.close()
    emitter.emit("x", 2)
    assert subscription.closed
    assert emitter.emit("x", 3) is False
    assert seen == []


def test_a_function_can_be_registered_again_after_its_loop_has_ended(emitter) -> None:
    seen: list[int] = []

    async def session(number: int) -> None:
        emitter.on("x", seen.append)
        emitter.emit("x", number)
        await emitter.flush()

    asyncio.run(session(1))
    asyncio.run(session(2))
    assert seen == [1, 2]


async def test_listeners_registered_where_no_loop_runs_share_one_thread(emitter) -> None:
    names, done = [], threading.Event()

    def sync() -> None:
        names.append(threading.current_thread().name)

    async def asynchronous() -> None:
        await asyncio.sleep(0)
        names.append(threading.current_thread().name)
        done.set()

    on_dispatcher(emitter, "x", sync)
    on_dispatcher(emitter, "x", asynchronous)
    emitter.emit("x")
    await until(done)
    assert names == ["llm_manager-events"] * 2
    assert threading.current_thread().name != "llm_manager-events"


async def test_a_stuck_listener_without_a_loop_does_not_hold_up_loops(emitter) -> None:
    release, stuck, after, seen = threading.Event(), threading.Event(), threading.Event(), []

    def block(_: int) -> None:
        stuck.set()
        release.wait(WAIT_S)

    on_dispatcher(emitter, "x", block)
    on_dispatcher(emitter, "x", lambda _: after.set())
    emitter.on("x", seen.append)
    try:
        emitter.emit("x", 1)
        await until(stuck)
        emitter.emit("x", 2)
        assert await emitter.flush(WAIT_S)
        assert seen == [1, 2]
        assert not after.is_set()  # only its own kind waits
    finally:
        release.set()
    await until(after)


async def test_a_listener_cannot_wait_for_a_synchronous_call(emitter) -> None:
    provider, caught, done = echo(), [], threading.Event()

    def listener() -> None:
        try:
            run_sync(provider.connect())
        except RuntimeError as error:
            caught.append(str(error))
        done.set()

    on_dispatcher(emitter, "x", listener)
    emitter.emit("x")
    await until(done)
    assert len(caught) == 1
    assert "called by a listener" in caught[0]
    assert "use a thread" in caught[0]


@pytest.mark.usefixtures("_eager_threads")
@pytest.mark.parametrize("batch", [1, 7])
def test_an_inline_listener_gets_the_events_of_all_threads_one_at_a_time(emitter, batch) -> None:
    sent: list[tuple[int, int]] = []
    seen: list[tuple[int, int]] = []
    inside: list[int] = []

    def listener(number: tuple[int, int]) -> None:
        inside.append(1)
        assert len(inside) == 1, "two threads deliver at once"
        seen.append(number)
        inside.clear()

    def write(thread: int) -> None:
        for number in range(1000):
            with emitter.atomic():  # so that `sent` has the order of the events
                sent.append((thread, number))
                emitter.emit("x", (thread, number))

    failed: list[object] = []
    emitter.on("listenerError", failed.append, delivery="inline")
    subscription = emitter.subscribe(listener, "x", delivery="inline", limit=4 * 1000, batch=batch)
    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while batch > 1 and any(thread.is_alive() for thread in threads):
        subscription.drain()
    for thread in threads:
        thread.join(WAIT_S)
    if batch > 1:
        subscription.drain()
    assert seen == sent
    assert failed == []


async def test_an_inline_listener_runs_where_the_event_is_emitted(emitter) -> None:
    idents = []
    emitter.on("x", lambda: idents.append(threading.get_ident()), delivery="inline")
    emitter.emit("x")
    assert idents == [threading.get_ident()]
    in_thread(emitter.emit, "x")
    assert len(set(idents)) == 2


async def test_an_inline_listener_may_emit_and_is_not_nested(emitter) -> None:
    seen, depth = [], 0

    def listener(number: int) -> None:
        nonlocal depth
        depth += 1
        assert depth == 1
        if number < 3000:
            emitter.emit("x", number + 1)
        seen.append(number)
        depth -= 1

    emitter.on("x", listener, delivery="inline")
    emitter.emit("x", 1)
    assert seen == list(range(1, 3001))


async def test_an_inline_listener_must_not_be_asynchronous(emitter, caplog) -> None:
    async def listener() -> None: ...

    emitter.on("x", listener, delivery="inline")
    emitter.emit("x")
    assert "must not be async" in caplog.text


# ---- the present state first ---------------------------------------------------------------------


async def test_who_subscribes_after_the_event_is_told_the_present_state_once() -> None:
    provider, seen = echo(), []
    await provider.connect()
    provider.subscribe(seen.append)
    await turns()
    assert [(e.current.status, e.replayed) for e in seen] == [("connected", True)]
    assert seen[0].previous == seen[0].current == provider.status


@pytest.mark.usefixtures("_eager_threads")
async def test_subscribing_beside_a_writing_thread_leaves_no_gap_and_no_repetition() -> None:
    provider, stop = echo(), threading.Event()
    machine = provider._machine

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            machine.change(attempt=number)
            time.sleep(0)  # whoever waits for the lock gets it now

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            seen, enough = [], asyncio.Event()

            def look(event, seen=seen, enough=enough) -> None:
                seen.append(event)
                if len(seen) >= 3:
                    enough.set()

            with provider.subscribe(look, limit=10**6):
                async with asyncio.timeout(WAIT_S):
                    await enough.wait()
            numbers = [e.current.seq for e in seen]
            assert [e.replayed for e in seen] == [True] + [False] * (len(seen) - 1)
            assert numbers == list(range(numbers[0], numbers[0] + len(seen)))
    finally:
        stop.set()
        writer.join()


async def test_a_plain_listener_is_not_told_the_present_state() -> None:
    provider, seen = echo(), []
    await provider.connect()
    provider.on("statusChanged", seen.append)
    await turns()
    assert seen == []


async def test_watching_leaves_out_what_a_slow_reader_misses_but_never_the_last() -> None:
    provider, seen, turn = echo(), [], asyncio.Event()
    await provider.connect()

    async def read() -> None:
        async for state in provider.watch():
            seen.append(state)
            await turn.wait()
            turn.clear()

    reader = asyncio.create_task(read())
    await turns()
    for _ in range(10):
        for _ in range(50):
            take_steps(provider._machine, S.DEGRADED, S.CONNECTED)
        turn.set()
        await turns()
    assert len(seen) < 15
    assert seen[-1] == provider.status
    closing = asyncio.create_task(provider.close())
    async with asyncio.timeout(WAIT_S):
        while not reader.done():
            turn.set()
            await asyncio.sleep(0)
    await closing
    assert seen[-1].status == "closed"
    assert [s.seq for s in seen] == sorted({s.seq for s in seen})


async def test_watching_ends_at_once_for_a_provider_that_is_closed() -> None:
    provider = echo()
    await provider.close()
    assert [s.status async for s in provider.watch()] == ["closed"]


async def test_who_stops_watching_is_forgotten() -> None:
    provider = echo()
    states = provider.watch()
    assert (await anext(states)).status == "disconnected"
    assert "statusChanged" in provider.event_names()
    await states.aclose()
    assert provider.event_names() == set()


async def test_a_conflating_listener_gets_the_newest_event_and_how_many_it_missed(machine) -> None:
    seen = []
    subscription = machine._emitter.subscribe(seen.append, conflate=True)
    for number in range(1, 101):
        machine.change(attempt=number)
    await machine._emitter.flush()
    assert [(e.current.attempt, e.coalesced) for e in seen] == [(100, 99)]
    assert subscription.coalesced == 99


# ---- waiting -------------------------------------------------------------------------------------


async def test_a_status_can_be_awaited_by_its_word_or_by_a_function() -> None:
    provider = echo()
    waiting = [
        asyncio.create_task(provider.wait_for(wanted, WAIT_S))
        for wanted in ("connecting", S.CONNECTED, lambda s: s.usable and s.seq > 1)
    ]
    await turns()
    await provider.connect()
    found = await asyncio.gather(*waiting)
    assert [s.status for s in found] == ["connecting", "connected", "connected"]
    assert (await provider.wait_for("connected")).seq == provider.status.seq
    assert provider.event_names() == set()


async def test_a_status_that_lasts_for_one_step_only_is_not_missed() -> None:
    provider = echo()
    waiting = asyncio.create_task(provider.wait_for("connecting", WAIT_S))
    await turns()
    take_steps(provider._machine, S.CONNECTING, S.CONNECTED)
    assert (await waiting).status == "connecting"


async def test_waiting_for_a_word_that_does_not_exist_says_which_do() -> None:
    with pytest.raises(InvalidParameterError, match=r"'online' is no status; use one of .*conn"):
        await echo().wait_for("online")


async def test_waiting_for_a_status_ends_in_time_and_leaves_nothing() -> None:
    provider = echo()
    with pytest.raises(TimeoutError):
        await provider.wait_for("connected", 0.01)
    assert provider.event_names() == set()


async def test_what_holds_already_is_found_without_waiting() -> None:
    provider = echo()
    assert (await provider.wait_for("disconnected", 0)).status == "disconnected"


async def test_an_error_in_the_awaited_condition_reaches_who_waits() -> None:
    provider = echo()

    def wrong(state) -> bool:
        return state.no_such_field

    async with asyncio.timeout(WAIT_S):
        with pytest.raises(AttributeError, match="no_such_field"):
            await provider.wait_for(wrong, 1)


async def test_connect_and_disconnect_return_after_listeners_were_told() -> None:
    provider, seen = echo(), []
    provider.on("statusChanged", lambda e: seen.append(e.current.status))
    await provider.connect()
    assert seen[-1] == "connected"
    await provider.disconnect()
    assert seen[-1] == "disconnected"
    await provider.close()
    assert seen[-1] == "closed"
    assert len(seen) == provider.status.seq


async def test_flush_waits_for_asynchronous_listeners_only_if_asked_to(emitter) -> None:
    gate, seen = asyncio.Event(), []

    async def stuck(_: int) -> None:
        await gate.wait()
        seen.append("async")

    emitter.on("x", stuck)
    emitter.on("x", lambda n: stuck(n))  # looks like a function until it is called
    emitter.on("x", lambda _: seen.append("sync"))
    emitter.emit("x", 1)
    async with asyncio.timeout(WAIT_S):
        assert await emitter.flush(3600, synchronous_only=True)
    assert seen == ["sync"]
    assert not await emitter.flush(0.01)
    gate.set()
    assert await emitter.flush(WAIT_S)
    assert seen == ["sync", "async", "async"]


async def test_flush_inside_a_listener_does_not_wait_for_that_listener(emitter) -> None:
    seen = []

    async def listener() -> None:
        seen.append(await emitter.flush(3600))

    emitter.on("x", listener)
    emitter.emit("x")
    async with asyncio.timeout(WAIT_S):
        assert await emitter.flush(3600)
    assert seen == [True]


async def test_flush_ends_when_what_it_waits_for_is_closed(emitter) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    async def stuck() -> None:
        started.set()
        await gate.wait()

    subscription = emitter.subscribe(stuck, "x")
    emitter.emit("x")
    await started.wait()
    flushing = asyncio.create_task(emitter.flush(3600))
    await turns()
    subscription.close()
    async with asyncio.timeout(WAIT_S):
        assert await flushing


# ---- bounds --------------------------------------------------------------------------------------


async def test_a_stuck_listener_costs_a_bounded_mailbox_and_gets_the_last_state(machine) -> None:
    emitter, gate, seen = machine._emitter, asyncio.Event(), []

    async def stuck(event) -> None:
        await gate.wait()
        seen.append(event)

    subscription = emitter.subscribe(stuck)
    machine.change(attempt=1)
    await turns()
    for number in range(2, 12_001):
        machine.change(attempt=number)
    gate.set()
    assert await emitter.flush(WAIT_S)
    assert 1000 < len(seen) <= 1025  # what it had in hand, and a full mailbox
    assert seen[-1].current == machine.state
    assert subscription.coalesced == 12_000 - len(seen)
    assert [e.coalesced for e in seen if e.coalesced] == [subscription.coalesced]


async def test_a_stuck_listener_without_a_loop_gets_the_last_state_too(machine) -> None:
    stuck, release, last = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def block(event) -> None:
        stuck.set()
        release.wait(WAIT_S)
        seen.append(event.current.attempt)
        if event.current.attempt == 3000:
            last.set()

    on_dispatcher(machine._emitter, "statusChanged", block)
    machine.change(attempt=1)
    await until(stuck)
    for number in range(2, 3001):
        machine.change(attempt=number)
    release.set()
    await until(last)
    assert len(seen) <= 1025
    assert seen == sorted(set(seen))


async def test_many_events_for_one_listener_leave_room_for_the_rest_of_the_loop(emitter) -> None:
    seen, order = [], []
    emitter.on("x", lambda n: seen.append(n))
    for number in range(1000):
        emitter.emit("x", number)
    asyncio.get_running_loop().call_soon(lambda: order.append(len(seen)))
    await emitter.flush(WAIT_S)
    assert seen == list(range(1000))
    assert order[0] < 1000


# ---- ending a subscription -----------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["loop", "inline"])
async def test_a_listener_that_is_removed_during_an_emit_is_not_called(emitter, delivery) -> None:
    seen = []

    def later(_: int) -> None:
        seen.append("later")

    def first(_: int) -> None:
        seen.append("first")
        emitter.remove_listener("x", later)
        emitter.remove_listener("x", later)

    emitter.on("x", first, delivery=delivery)
    emitter.on("x", later, delivery=delivery)
    emitter.emit("x", 1)
    await emitter.flush()
    assert seen == ["first"]


async def test_a_listener_for_one_event_can_be_removed_before_it_has_been_called(emitter) -> None:
    seen = []
    emitter.once("x", seen.append)
    emitter.emit("x", 1)
    emitter.remove_listener("x", seen.append)
    await turns()
    assert seen == []


async def test_closing_from_another_thread_ends_a_running_listener(emitter) -> None:
    started, ended, seen = asyncio.Event(), asyncio.Event(), []

    async def listener(number: int) -> None:
        seen.append(number)
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    subscription = emitter.subscribe(listener, "x")
    emitter.emit("x", 1)
    emitter.emit("x", 2)
    await started.wait()
    in_thread(subscription.close)
    emitter.emit("x", 3)
    async with asyncio.timeout(WAIT_S):
        await ended.wait()
    await turns()
    assert seen == [1]
    assert subscription.closed
    subscription.close()


@pytest.mark.parametrize("known_to_be_async", [True, False])
async def test_closing_before_an_asynchronous_listener_has_begun_is_silent(
    emitter, known_to_be_async
) -> None:
    calls = []

    async def listener() -> None:
        calls.append(1)

    target = listener if known_to_be_async else lambda: listener()
    subscription = emitter.subscribe(target, "x")
    emitter.emit("x")
    # Runs right after the event was taken from the mailbox, and before its task has begun.
    asyncio.get_running_loop().call_soon(subscription.close)
    await turns()
    gc.collect()  # a coroutine that was never awaited would warn now
    assert calls == []


async def test_a_listener_may_close_its_own_subscription(emitter) -> None:
    seen = []

    async def listener(number: int) -> None:
        subscription.close()
        await asyncio.sleep(0)
        seen.append(number)

    subscription = emitter.subscribe(listener, "x")
    emitter.emit("x", 1)
    emitter.emit("x", 2)
    await turns()
    assert seen == [1]


async def test_a_closed_subscription_keeps_nothing_alive(emitter) -> None:
    class Owner:
        def listen(self, _: object) -> None: ...

    owner = Owner()
    subscription = emitter.subscribe(owner.listen, "x")
    emitter.emit("x", owner)
    subscription.close()
    gone = weakref.ref(owner)
    del owner
    await turns()
    gc.collect()
    assert gone() is None
    assert subscription.listener is None


@pytest.mark.parametrize("kind", ["sync", "async", "inline"])
async def test_once_is_called_once_however_many_threads_emit(emitter, kind) -> None:
    seen, barrier = [], threading.Barrier(10)

    async def asynchronous(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(number)

    if kind == "async":
        emitter.once("x", asynchronous)
    else:
        emitter.once("x", seen.append, delivery="inline" if kind == "inline" else "loop")

    def emit() -> None:
        barrier.wait()
        for number in range(10):
            emitter.emit("x", number)

    threads = [threading.Thread(target=emit) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    await turns()
    assert seen == [0]
    assert emitter.event_names() == set()


# ---- weak listeners ------------------------------------------------------------------------------


class Panel:
    """A user interface object that listens by a bound method."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def show(self, what: object) -> None:
        self.seen.append(what)


async def test_a_weak_listener_lives_as_long_as_its_object_and_goes_silently(emitter) -> None:
    panel = Panel()
    subscription = emitter.subscribe(panel.show, "x", weak=True)
    emitter.emit("x", 1)
    await emitter.flush()
    assert panel.seen == [1]
    gone = weakref.ref(panel)
    del panel
    gc.collect()
    assert gone() is None
    assert emitter.emit("x", 2) is False
    assert (emitter.event_names(), emitter.listeners("x")) == (set(), [])
    assert (subscription.closed, subscription.listener) == (True, None)
    await turns()


async def test_a_weak_listener_may_vanish_in_the_middle_of_an_emit(emitter) -> None:
    panel = Panel()
    emitter.subscribe(panel.show, "x", weak=True, limit=1)
    emitter.emit("x", panel)  # from here on only the mailbox keeps it alive
    del panel
    in_thread(emitter.emit, "x", None)  # drops the first event, and the listener with it
    await turns()
    assert emitter.event_names() == set()


async def test_a_plain_listener_is_kept_alive(emitter) -> None:
    panel = Panel()
    seen = panel.seen
    emitter.on("x", panel.show)
    del panel
    gc.collect()
    emitter.emit("x", 1)
    await emitter.flush()
    assert seen == [1]


# ---- isolation -----------------------------------------------------------------------------------


class Odd(BaseException):
    """What some test runners and concurrency libraries raise."""


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


ODD_ERRORS = [
    ValueError("bad"), asyncio.CancelledError(), StopIteration(), StopAsyncIteration(),
    BaseExceptionGroup("several", [KeyError(1)]), GeneratorExit(), Odd(), Mute(),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["sync", "async", "awaiting", "inline"])
@pytest.mark.parametrize("error", ODD_ERRORS, ids=lambda e: type(e).__name__)
async def test_whatever_a_listener_raises_concerns_nobody_else(
    emitter, caplog, error, kind
) -> None:
    seen, failures = [], []

    def sync(number: int) -> None:
        seen.append(("bad", number))
        raise error

    async def asynchronous(number: int) -> None:
        sync(number)

    async def awaiting(number: int) -> None:
        await asyncio.sleep(0)
        sync(number)

    listener = {"sync": sync, "async": asynchronous, "awaiting": awaiting, "inline": sync}[kind]
    emitter.on("x", listener, delivery="inline" if kind == "inline" else "loop")
    emitter.on("x", lambda n: seen.append(("good", n)))
    emitter.on("listenerError", failures.append)
    emitter.emit("x", 1)
    emitter.emit("x", 2)
    assert await emitter.flush(WAIT_S)
    await turns()
    assert sorted(seen) == [("bad", 1), ("bad", 2), ("good", 1), ("good", 2)]
    assert [(f.event, f.consecutive) for f in failures] == [("x", 1), ("x", 2)]
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert not asyncio.current_task().cancelling()


async def test_the_report_of_a_failure_names_the_listener_without_its_arguments(emitter) -> None:
    failures = []

    def listener(_key: str, _: int) -> None:
        raise ValueError(f"could not use {KEY}")

    emitter.source_id = "p"
    emitter.on("listenerError", failures.append)
    emitter.on("x", functools.partial(listener, KEY))
    emitter.emit("x", 1)
    await emitter.flush()
    await turns()
    (failure,) = failures
    assert isinstance(failure, ListenerFailed)
    assert failure.listener.endswith("listener")
    assert (failure.provider_id, failure.error.code) == ("p", "listener_failed")
    assert failure.error.type == "ValueError"
    assert KEY not in json.dumps(failure.to_dict())


async def test_a_success_ends_a_row_of_failures(emitter) -> None:
    failures, moods = [], iter([True, True, False, True])

    def listener() -> None:
        if next(moods):
            raise ValueError

    emitter.on("listenerError", lambda f: failures.append(f.consecutive), delivery="inline")
    emitter.on("x", listener)
    for _ in range(4):
        emitter.emit("x")
    await emitter.flush()
    assert failures == [1, 2, 1]


def _broken(calls: list[object]):
    def listener(event: object) -> None:
        calls.append(event)
        raise RuntimeError("broken")

    return listener


def _broken_async(calls: list[object]):
    async def listener(event: object) -> None:
        calls.append(event)
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    return listener


@pytest.mark.parametrize("make", [_broken, _broken_async])
@pytest.mark.parametrize("event", ["error", "listenerError"])
async def test_a_broken_listener_for_errors_is_called_once_and_logged_once(
    emitter, caplog, make, event
) -> None:
    calls: list[object] = []
    emitter.on(event, make(calls))
    emitter.emit(event, "trouble")
    await emitter.flush(WAIT_S)
    await turns(200)
    assert calls == ["trouble"]
    assert [r.message for r in caplog.records] == [
        f"listener {make.__name__}.<locals>.listener for {event!r} failed"
    ]


async def test_an_error_that_nobody_listens_to_is_logged_and_hurts_nothing(caplog) -> None:
    provider = echo()
    provider.go_offline()
    assert provider.emit("error", ErrorInfo(code="x", type="X", message="m")) is False
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    with contextlib.suppress(Exception):
        await provider.connect()
    await provider.wait_for(lambda s: s.attempt >= 2, WAIT_S)
    provider.go_online()
    await provider.wait_for("connected", WAIT_S)
    await provider.close()


async def test_reconnecting_goes_on_whatever_listeners_do() -> None:
    provider, stuck, release = echo(), threading.Event(), threading.Event()

    async def never_returns(_: object) -> None:
        await asyncio.Event().wait()

    def blocks(_: object) -> None:
        stuck.set()
        release.wait(WAIT_S)

    def raises(_: object) -> None:
        raise RuntimeError("broken")

    for event in ("statusChanged", "reconnecting", "reconnectScheduled", "error"):
        provider.on(event, never_returns)
        provider.on(event, raises)
        provider.on(event, raises, delivery="inline")
        on_dispatcher(provider, event, blocks)
    await provider.connect()
    provider.go_offline()
    provider._connection.failed(provider._outage, provider.status.epoch)
    await until(stuck)
    await provider.wait_for(lambda s: s.status == "reconnecting" and s.attempt >= 3, WAIT_S)
    provider.go_online()
    await provider.wait_for("connected", WAIT_S)
    provider.remove_all_listeners()
    release.set()
    await provider.close()


async def test_the_same_trouble_again_is_told_once_and_attempts_are_told_each() -> None:
    provider = echo()
    record = Record(provider)
    provider.go_offline()  # every attempt raises a new exception that says the same
    with contextlib.suppress(Exception):
        await provider.connect()
    await provider.wait_for(lambda s: s.attempt >= 5, WAIT_S)
    await provider.close()
    scheduled = record.named("reconnectScheduled")
    assert [e.attempt for e in scheduled] == list(range(1, len(scheduled) + 1))
    assert record.statuses == [
        "connecting", "reconnecting", "draining", "disconnected", "closed",
    ]  # fmt: skip
    steps = [e for e in record.named("statusChanged") if e.current.status == "reconnecting"]
    assert [e.current.attempt for e in steps] == list(range(len(scheduled) + 1))
    assert len(record.named("error")) == 1


@pytest.mark.parametrize("inline", [False, True])
async def test_a_log_handler_that_emits_does_not_recurse(emitter, inline) -> None:
    log, seen = logging.getLogger("tests.events"), []

    class Emitting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emitter.emit("logged", record.getMessage())
            emitter.emit("error", record.getMessage())  # which is logged itself: nobody listens

    def listener(number: int) -> None:
        log.debug("got %s", number)

    handler = Emitting(logging.DEBUG)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        emitter.on("x", listener, delivery="inline" if inline else "loop")
        emitter.on("logged", seen.append)
        emitter.emit("x", 1)
        emitter.emit("x", 2)
        assert await emitter.flush(WAIT_S)
        await turns()
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
    ours = [text for text in seen if text.startswith("got")]
    assert ours == ["got 1", "got 2"]
    assert len([text for text in seen if text.startswith("unhandled error")]) >= 2
    assert len(seen) < 20


async def test_a_log_handler_that_raises_does_not_stop_delivery(emitter) -> None:
    class Gone(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the window is closed")

    def failing(_: int) -> None:
        seen.append("bad")
        raise ValueError

    async def failing_later(_: int) -> None:
        await asyncio.sleep(0)
        seen.append("bad async")
        raise ValueError

    seen: list[str] = []
    loop, reported, handler = asyncio.get_running_loop(), [], Gone()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    log = logging.getLogger("llm_manager.events")
    log.addHandler(handler)
    try:
        emitter.on("x", failing)
        emitter.on("x", failing_later)
        emitter.on("x", lambda _: seen.append("good"))
        emitter.emit("x", 1)
        await turns()
        emitter.emit("x", 2)
        await turns()
        gc.collect()
    finally:
        log.removeHandler(handler)
    assert sorted(seen) == sorted(["bad", "bad async", "good"] * 2)
    assert {str(c["exception"]) for c in reported} == {"the window is closed"}


async def test_an_exit_in_one_listener_does_not_end_the_thread_of_all(emitter, caplog) -> None:
    seen, done = [], threading.Event()

    def leave(number: int) -> None:
        seen.append(("sync", number))
        sys.exit(1)

    async def leave_later(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(("async", number))
        if number == 3:
            done.set()
        sys.exit(1)

    on_dispatcher(emitter, "x", leave)
    on_dispatcher(emitter, "x", leave_later)
    for number in (1, 2, 3):
        emitter.emit("x", number)
    await until(done)
    gc.collect()
    assert caplog.records == []
    assert sorted(seen) == sorted((kind, n) for kind in ("sync", "async") for n in (1, 2, 3))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_exit_in_a_listener_on_the_loop_of_the_program_ends_the_program(asynchronous) -> None:
    seen = []

    def leave(number: int) -> None:
        seen.append(number)
        if number == 1:
            sys.exit(3)

    async def leave_later(number: int) -> None:
        await asyncio.sleep(0)
        leave(number)

    async def main() -> None:
        emitter = EventEmitter()
        emitter.on("x", leave_later if asynchronous else leave)
        emitter.emit("x", 1)
        emitter.emit("x", 2)
        try:
            await asyncio.sleep(WAIT_S)
        finally:
            seen.append("cleaned up")

    with pytest.raises(SystemExit) as exited:
        asyncio.run(main())
    assert exited.value.code == 3
    assert "cleaned up" in seen


async def test_an_exit_in_an_inline_listener_leaves_all_listeners_in_service(emitter) -> None:
    seen = []

    def leave(number: int) -> None:
        seen.append(("inline", number))
        if number == 1:
            raise KeyboardInterrupt

    emitter.on("x", leave, delivery="inline")
    emitter.on("x", lambda n: seen.append(("loop", n)))
    with pytest.raises(KeyboardInterrupt):
        emitter.emit("x", 1)
    emitter.emit("x", 2)
    await emitter.flush()
    assert sorted(seen) == [("inline", 1), ("inline", 2), ("loop", 1), ("loop", 2)]


async def test_no_listener_runs_while_a_lock_is_held(emitter) -> None:
    other, stuck = EventEmitter(), []

    def listener(*_: object) -> None:
        for one in (emitter, other):
            thread = threading.Thread(target=one.event_names)
            thread.start()
            thread.join(1)
            stuck.append(thread.is_alive())

    emitter.on("x", listener, delivery="inline")
    other.on("y", listener, delivery="inline")
    emitter.on("new_listener", listener, delivery="inline")
    with other.atomic(), emitter.atomic():
        emitter.emit("x")
        other.emit("y")
    emitter.on("z", print)
    assert stuck == [False] * 6


# ---- payloads ------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def all_events() -> list[type[Event]]:
    found = [Event]
    for kind in found:
        found.extend(kind.__subclasses__())
    return sorted({k for k in found[1:] if k.__module__ == "llm_manager.events"}, key=str)


def sample(kind: type[Event]) -> Event:
    """An event with something in every field that has to be given."""
    values = {
        "previous": LLMProviderStatus(provider_id="p"),
        "current": LLMProviderStatus(provider_id="p", seq=1, error=INFO),
        "error": INFO,
        "status": LLMProviderStatus(provider_id="p"),
        "retry_at": NOW,
        "reason": Reason.REFUSED,
        "keys": ("api_key",),
    }
    if kind is not StatusChanged:
        values |= {"previous": "a", "current": "b"}
    plain = {"str": "text", "int": 1, "float": 1.5}
    given = {}
    for field in msgspec.structs.fields(kind):
        if field.required:
            choices = getattr(field.type, "__args__", ())
            given[field.name] = values.get(field.name) or plain.get(
                getattr(field.type, "__name__", ""), choices[0] if choices else None
            )
    return kind(provider_id="p", **given)


INFO = ErrorInfo(code="refused", type="ProviderConnectionError", message="no", retry_after_s=1.0)


@pytest.mark.parametrize("kind", all_events(), ids=lambda k: k.__name__)
def test_every_event_is_json_ready_in_camel_case_with_its_schema(kind) -> None:
    event = sample(kind)
    plain = json.loads(json.dumps(event.to_dict()))
    assert plain["event"] == kind.name
    assert (plain["providerId"], plain["schema"], plain["gseq"]) == ("p", 1, None)
    assert datetime.fromisoformat(plain["at"]).tzinfo is not None

    def keys(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key
                yield from keys(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from keys(inner)

    assert [k for k in keys(plain) if "_" in k or k[0].isupper()] == []


def test_the_record_of_the_tests_knows_every_event() -> None:
    assert {kind.name for kind in all_events()} == set(EVENTS)


@pytest.mark.parametrize("kind", all_events(), ids=lambda k: k.__name__)
def test_no_event_can_be_changed_by_who_receives_it(kind) -> None:
    event = sample(kind)
    for field in event.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(event, field, None)
    assert list(_mutable_fields(msgspec.inspect.type_info(kind))) == []


def _mutable_fields(info, seen: frozenset = frozenset()):
    """The names of containers that could be changed, anywhere below a type."""
    if isinstance(info, msgspec.inspect.StructType) and info.cls not in seen:
        if not info.cls.__struct_config__.frozen:
            yield info.cls.__name__
        for field in info.fields:
            for name in _mutable_fields(field.type, seen | {info.cls}):
                yield f"{field.name}.{name}"
    elif isinstance(info, msgspec.inspect.UnionType):
        for one in info.types:
            yield from _mutable_fields(one, seen)
    elif isinstance(info, msgspec.inspect.VarTupleType):
        yield from _mutable_fields(info.item_type, seen)
    elif isinstance(info, msgspec.inspect.TupleType):
        for one in info.item_types:
            yield from _mutable_fields(one, seen)
    elif isinstance(
        info,
        msgspec.inspect.ListType
        | msgspec.inspect.SetType
        | msgspec.inspect.DictType
        | msgspec.inspect.AnyType,
    ):
        yield type(info).__name__


async def test_one_listener_cannot_change_what_another_one_gets() -> None:
    provider, got, refused = echo(), [], []

    def tamper(event: StatusChanged) -> None:
        for change in (
            lambda: setattr(event, "current", None),
            lambda: setattr(event.current, "status", S.FAILED),
            lambda: setattr(event.current.error, "message", "nothing"),
            lambda: delattr(event, "previous"),
        ):
            try:
                change()
            except AttributeError:
                refused.append(change)

    provider.subscribe(tamper)
    provider.subscribe(lambda e: got.append(e.current))
    provider._machine.change(S.CONNECTING, error=INFO)
    await provider.flush()
    await turns()
    assert len(refused) == 8
    assert [(s.status, s.error and s.error.message) for s in got] == [
        ("disconnected", None),
        ("connecting", "no"),
    ]


async def test_every_status_word_is_emitted_with_the_same_object(machine) -> None:
    seen = {}
    machine._emitter.on("statusChanged", lambda e: seen.update(changed=e), delivery="inline")
    machine._emitter.on("degraded", lambda e: seen.update(word=e), delivery="inline")
    take_steps(machine, S.DEGRADED)
    assert seen["changed"] is seen["word"]
    first = seen["word"]
    machine.change(attempt=3)  # the word stays, so only the one event
    assert seen["changed"].current.attempt == 3
    assert seen["word"] is first


async def test_no_event_shows_a_key() -> None:
    class Leaky(EchoProvider):
        async def _list_models(self):
            raise AuthenticationError(f"wrong key {KEY}", hint=f"is {KEY} right?")

    provider = Leaky(reconnect=QUICK, words_per_s=float("inf"))
    record = Record(provider)
    with pytest.raises(AuthenticationError):
        await provider.connect()
    error = ErrorInfo.of(ValueError(f"Authorization: Bearer {KEY}"))
    provider.publish(ErrorOccurred(provider_id="echo", error=error))
    assert "failed" in record.statuses
    assert len(record) >= 5
    for event in record:
        assert KEY not in json.dumps(event.to_dict())
        assert KEY not in repr(event)


def test_an_event_holds_whole_models_and_usage() -> None:
    models = ModelsChanged(models=(LLMModelInfo.known("registry", id="m", provider_id="p"),))
    assert models.to_dict()["models"][0]["providerId"] == "p"
    finished = RequestFinished(
        request_id="r", model="m", operation="chat", outcome="ok", usage=Usage(prompt_tokens=1)
    )
    assert finished.to_dict()["usage"]["promptTokens"] == 1


# ---- processes -----------------------------------------------------------------------------------


def run_script(script: str) -> str:
    """Run ``script`` in a fresh interpreter; it has to end well and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


FORK = """
import asyncio, os, signal, sys, threading
from llm_manager import EchoProvider
from llm_manager.machine import StatusMachine

provider = EchoProvider(words_per_s=float("inf"))
parent, delivered = os.getpid(), threading.Event()
calls = []

def on_thread(number):
    calls.append(("thread", os.getpid(), number))
    delivered.set()

def on_loop(number):
    calls.append(("loop", os.getpid(), number))

provider.on("x", on_thread)
loop = asyncio.new_event_loop()

async def register():
    provider.on("x", on_loop)
    await provider.connect()

loop.run_until_complete(register())
stop = threading.Event()

def disturb():  # holds every lock now and then
    while not stop.is_set():
        provider._machine.change(attempt=provider.status.attempt + 1)
        provider.emit("y")

threading.Thread(target=disturb, daemon=True).start()

def child():
    signal.alarm(10)
    calls.clear()
    delivered.clear()
    state = provider.status
    assert (state.status, state.reason) == ("disconnected", "forked"), state
    assert state.instance_id != before.instance_id
    assert provider.emit("x", 1) is True
    assert delivered.wait(5)
    provider.on("z", on_loop)
    assert provider.emit("z", 2) is True
    asyncio.run(again())
    assert calls[0] == ("thread", os.getpid(), 1), calls
    assert ("loop", os.getpid(), 1) not in calls, calls

async def again():
    provider.on("w", on_loop)
    provider.emit("w", 3)
    await provider.flush()
    assert ("loop", os.getpid(), 3) in calls
    await provider.connect()
    assert provider.status.status == "connected"
    assert (await provider.generate_completion(None, "a b")).text == "a b"

for _ in range(10):
    before = provider.status
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)
    _, code = os.waitpid(pid, 0)
    assert code == 0, code
stop.set()
assert provider.status.status == "connected"
calls.clear()
provider.emit("x", 4)
loop.run_until_complete(provider.flush())
assert ("loop", parent, 4) in calls
loop.close()
print("done")
"""

HEAL_AFTER_FORK = """
import asyncio, logging, os, signal, sys
from llm_manager import Backoff, EchoProvider, ProviderConnectionError

logging.disable(logging.WARNING)  # the failing attempts have no listener
provider = EchoProvider(words_per_s=float("inf"), reconnect=Backoff(first_s=0.01, max_s=0.02))
provider.go_offline()
loop = asyncio.new_event_loop()

async def connect():
    try:
        await provider.connect()
    except ProviderConnectionError:
        pass
    assert provider.status.status == "reconnecting", provider.status

async def heal():
    await connect()
    provider.go_online()
    await provider.wait_for("connected", 5)
    await provider.close()

loop.run_until_complete(connect())
pid = os.fork()
if pid == 0:
    signal.alarm(10)
    asyncio.run(heal())
    sys.exit(0)
_, code = os.waitpid(pid, 0)
loop.run_until_complete(heal())
loop.close()
print(code)
"""

FORKS = {"used anew": (FORK, "done\n"), "heals": (HEAL_AFTER_FORK, "0\n")}


@pytest.mark.parametrize("what", FORKS if hasattr(os, "fork") else ())
def test_a_forked_child_begins_anew_and_disturbs_nobody(what) -> None:
    script, says = FORKS[what]
    assert run_script(script) == says


STUCK = """
import threading
from llm_manager import EventEmitter

emitter, started = EventEmitter(), threading.Event()

def stuck(_):
    started.set()
    threading.Event().wait()

emitter.on("x", stuck)
emitter.emit("x", 1)
emitter.emit("x", 2)
assert started.wait(5)
"""

PENDING = """
import asyncio, threading
from llm_manager import EventEmitter

emitter, started = EventEmitter(), threading.Event()

async def slow(_):
    started.set()
    await asyncio.sleep(3600)

emitter.on("x", slow)
emitter.emit("x", 1)
emitter.emit("x", 2)
assert started.wait(5)
"""

LOOP_ENDS = """
import asyncio
from llm_manager import EchoProvider

provider = EchoProvider(words_per_s=float("inf"))

async def slow(_):
    await asyncio.sleep(3600)

async def main():
    provider.on("statusChanged", slow)
    provider.on("requestFinished", slow)
    provider.subscribe(slow)
    await provider.connect()
    await provider.generate_completion(None, "hello")
    provider.emit("statusChanged", None)

asyncio.run(main())
provider.emit("statusChanged", None)
asyncio.run(main())
"""

AT_EXIT = """
import atexit

class Late:
    def __del__(self):
        emitter.emit("x", 3)

def late():
    emitter.emit("x", 2)
    emitter.emit("error", 2) if emitter.listeners("error") else None

atexit.register(late)
from llm_manager import EventEmitter

emitter, keep = EventEmitter(), Late()
emitter.on("x", lambda n: None)
emitter.emit("x", 1)
"""


@pytest.mark.parametrize(
    "script",
    [STUCK, PENDING, LOOP_ENDS, AT_EXIT],
    ids=["stuck listener", "waiting listener", "loop ends", "events at exit"],
)
def test_a_process_that_has_listeners_ends_without_noise(script) -> None:
    assert run_script(script) == ""


# ---- several events at once ----------------------------------------------------------------------


def test_one_listener_of_several_events_gets_them_in_their_common_order() -> None:
    emitter, seen = EventEmitter(), []
    emitter.subscribe(seen.append, ("first", "second"), delivery="inline")
    for number in range(3):
        emitter.emit("second", number)
        emitter.emit("first", -number)
    assert seen == [0, 0, 1, -1, 2, -2]


def test_a_batch_is_delivered_when_it_is_full_or_asked_for() -> None:
    emitter, seen = EventEmitter(), []
    subscription = emitter.subscribe(seen.append, "tick", delivery="inline", batch=3)
    emitter.emit("tick", 1)
    emitter.emit("tick", 2)
    assert seen == []
    emitter.emit("tick", 3)
    assert seen == [1, 2, 3]
    emitter.emit("tick", 4)
    subscription.drain()
    subscription.drain()
    assert seen == [1, 2, 3, 4]


def test_a_batch_may_be_made_smaller_at_any_time() -> None:
    emitter, seen = EventEmitter(), []
    subscription = emitter.subscribe(seen.append, "tick", delivery="inline", batch=100)
    emitter.emit("tick", 1)
    subscription.batch = 1
    emitter.emit("tick", 2)
    assert seen == [1, 2]


@pytest.mark.parametrize("how", [{"batch": 0, "delivery": "inline"}, {"batch": 2}])
def test_a_batch_that_cannot_be_is_refused(how) -> None:
    with pytest.raises(InvalidParameterError, match="batch must be"):
        EventEmitter().subscribe(print, "tick", **how)


def test_a_listener_that_only_adds_up_does_not_watch() -> None:
    emitter = EventEmitter()
    adding = emitter.subscribe(print, "tick", delivery="inline", watches=False)
    assert not emitter.is_watched
    display = emitter.subscribe(print, "tick")
    assert emitter.is_watched
    display.close()
    assert not emitter.is_watched
    adding.close()


def test_a_failing_listener_of_several_events_that_reports_failures_is_not_told_of_itself() -> None:
    emitter, calls = EventEmitter(), []

    def fails(event: object) -> None:
        calls.append(event)
        raise ValueError("no")

    emitter.subscribe(fails, ("tick", "listenerError"), delivery="inline")
    emitter.emit("tick", 1)
    assert calls == [1]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("statuschanged", "statusChanged"),
        ("request_finished", "requestFinished"),
        ("Closed", "closed"),
    ],
)
def test_the_name_of_an_event_in_other_letters_is_refused(emitter, wrong, right) -> None:
    for listen in (emitter.on, emitter.once, lambda name, f: emitter.subscribe(f, name)):
        with pytest.raises(InvalidParameterError, match=f"did you mean '{right}'"):
            listen(wrong, print)
    emitter.on("an event of my own", print)
