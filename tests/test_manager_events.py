"""The manager tells every event of every provider once, in one order, numbered without gaps."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable

import msgspec
import pytest

from llm_manager import (
    EchoProvider,
    HealthCheck,
    LLMProviderManager,
    ProviderConnectionError,
    ProviderStatus,
    Reason,
)

from .helpers import EVENTS, Record, echo

S = ProviderStatus
WAIT_S = 20
WORDS = [status.value for status in S]


@pytest.fixture
async def manager():
    async with LLMProviderManager() as manager:
        yield manager


@pytest.fixture
def _eager_threads():
    """Let threads take turns often: races become likelier, and nobody waits for a busy writer."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    yield
    sys.setswitchinterval(usual)


def three(manager: LLMProviderManager) -> list[EchoProvider]:
    return [manager.register_provider(echo(id=name)) for name in ("a", "b", "c")]


def step(provider: EchoProvider, number: int) -> None:
    """Take any legal step that is a change."""
    provider._machine.change(attempt=number)


class Writers:
    """A thread for each provider that changes it all the time, or ``turns`` times."""

    def __init__(
        self, providers: list[EchoProvider], turns: int | None = None, work: Callable = step
    ) -> None:
        self._stop = threading.Event()
        self._turns = turns
        self._work = work
        self._threads = [threading.Thread(target=self._write, args=(p,)) for p in providers]

    def _write(self, provider: EchoProvider) -> None:
        number = 0
        while not self._stop.is_set() and number != self._turns:
            number += 1
            self._work(provider, number)
            time.sleep(0)  # whoever waits for a lock gets it now

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()


def everything(manager: LLMProviderManager) -> list[tuple[str, object]]:
    """All events from now on with the names under which they came."""
    seen: list[tuple[str, object]] = []
    for name in (*EVENTS, *WORDS):
        manager.on(name, lambda e, n=name: seen.append((n, e)), limit=10**6)
    return seen


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_eager_threads")
async def test_three_providers_that_change_at_once_are_numbered_without_gaps(manager) -> None:
    providers = three(manager)
    before = manager.snapshot().gseq
    seen = everything(manager)

    def work(provider: EchoProvider, number: int) -> None:
        if number == 1:
            provider._machine.change(S.CONNECTING)
        provider._machine.change(S.CONNECTED if number % 2 else S.DEGRADED)
        provider.publish(HealthCheck(provider_id=provider.id, phase="started"))
        step(provider, number)

    with Writers(providers, turns=100, work=work) as writers:
        await asyncio.to_thread(writers.join)
    assert await manager.flush(WAIT_S)
    numbers = [e.gseq for name, e in seen if name not in WORDS]
    assert sorted(numbers) == list(range(before + 1, before + 1 + 3 * 301))
    assert manager.snapshot().gseq == max(numbers)


async def test_the_numbers_of_one_listener_only_grow(manager) -> None:
    providers, seen = three(manager), []
    before = manager.snapshot().gseq

    async def asynchronous(event) -> None:
        if event.gseq % 5 == 0:
            await asyncio.sleep(0)
        seen.append(event.gseq)

    manager.on("statusChanged", asynchronous, limit=10**6)
    with Writers(providers, turns=200) as writers:
        await asyncio.to_thread(writers.join)
    assert await manager.flush(WAIT_S)
    assert seen == list(range(before + 1, before + 601))


async def test_each_provider_is_told_in_its_own_order(manager) -> None:
    providers, seen = three(manager), defaultdict(list)
    manager.on("statusChanged", lambda e: seen[e.provider_id].append(e.current.seq), limit=10**6)
    with Writers(providers, turns=200) as writers:
        await asyncio.to_thread(writers.join)
    assert await manager.flush(WAIT_S)
    assert seen == {p.id: list(range(1, 201)) for p in providers}


async def test_a_status_change_has_one_number_under_both_names(manager) -> None:
    providers = three(manager)
    by_number, words = {}, []
    manager.on("statusChanged", lambda e: by_number.update({e.gseq: e}), limit=10**6)
    for word in ("connecting", "connected", "degraded"):
        manager.on(word, lambda e, w=word: words.append((w, e)), limit=10**6)

    def flip(provider: EchoProvider, number: int) -> None:
        if number == 1:
            provider._machine.change(S.CONNECTING)
        provider._machine.change(S.CONNECTED if number % 2 else S.DEGRADED)

    with Writers(providers, turns=200, work=flip) as writers:
        await asyncio.to_thread(writers.join)
    assert await manager.flush(WAIT_S)
    assert len(words) == 3 * 201
    for word, event in words:
        assert event.current.status == word
        assert by_number[event.gseq] is event


async def test_a_provider_tells_its_own_listeners_without_a_number(manager) -> None:
    provider = manager.register_provider(echo())
    own, relayed = Record(provider), Record(manager)
    await provider.connect()
    await provider.generate_completion(None, "hello")
    provider.set_active_model(None)
    assert {e.gseq for e in own} == {None}
    assert {"statusChanged", "modelsChanged", "requestStarted", "requestFinished",
            "modelChanged", "healthCheck"} <= {e.name for e in own}  # fmt: skip
    assert [msgspec.structs.replace(e, gseq=None) for e in relayed] == list(own)
    assert {e.provider_id for e in relayed} == {"echo"}


async def test_events_of_the_manager_itself_are_numbered_like_the_others(manager) -> None:
    record = Record(manager)
    provider = manager.register_provider(echo(id="a"))
    await provider.connect()
    manager.register_provider(echo(id="b"))
    manager.set_active_provider("b")
    await manager.unregister_provider("a")
    numbers = [e.gseq for e in record]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {"providerAdded", "activeProviderChanged", "providerRemoved"} <= {e.name for e in record}


async def test_a_failing_listener_of_the_manager_is_reported_with_a_number(manager) -> None:
    record = Record(manager)
    provider = manager.register_provider(echo())

    def broken(_: object) -> None:
        raise ValueError("broken")

    manager.on("statusChanged", broken)
    step(provider, 1)
    await manager.flush()
    (failure,) = record.named("listenerError")
    assert (failure.event, failure.error.type) == ("statusChanged", "ValueError")
    numbers = [e.gseq for e in record]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_failing_listener_of_a_provider_is_reported_by_the_manager_too(manager) -> None:
    provider = manager.register_provider(echo())
    record = Record(manager)

    def broken(_: object) -> None:
        raise ValueError("broken")

    provider.on("statusChanged", broken)
    step(provider, 1)
    await provider.flush()
    assert [(e.provider_id, e.event) for e in record.named("listenerError")] == [
        ("echo", "statusChanged")
    ]


async def test_what_is_no_event_of_ours_is_not_passed_on(manager) -> None:
    provider, seen = manager.register_provider(echo()), []
    manager.on("custom", seen.append, delivery="inline")
    assert provider.emit("custom", {"own": True}) is False
    assert provider.emit("custom") is False
    assert seen == []


async def test_a_listener_of_the_manager_that_is_stuck_holds_up_no_provider(manager) -> None:
    provider, gate, seen = manager.register_provider(echo()), asyncio.Event(), []

    async def stuck(event) -> None:
        await gate.wait()
        seen.append(event)

    manager.subscribe(stuck)
    await provider.connect()
    assert (await provider.generate_completion(None, "one two")).text == "one two"
    assert seen == []
    gate.set()
    assert await manager.flush(WAIT_S)
    assert seen[-1].current.status == "connected"


# ---- the present state first ---------------------------------------------------------------------


async def test_who_subscribes_is_told_the_status_of_all_providers_first(manager) -> None:
    one, two, three_ = three(manager)
    await one.connect()
    two._machine.change(S.CONNECTING)
    seen = []
    manager.subscribe(seen.append)
    step(three_, 1)
    await manager.flush()
    assert [(e.provider_id, e.current.status, e.replayed) for e in seen] == [
        ("a", "connected", True),
        ("b", "connecting", True),
        ("c", "disconnected", True),
        ("c", "disconnected", False),
    ]
    assert {e.gseq for e in seen[:3]} == {seen[3].gseq - 1}


@pytest.mark.usefixtures("_eager_threads")
async def test_subscribing_beside_writing_threads_leaves_no_gap_and_no_repetition(manager) -> None:
    providers = three(manager)
    with Writers(providers):
        for _ in range(60):
            seen, enough = [], asyncio.Event()

            def look(event, seen=seen, enough=enough) -> None:
                seen.append(event)
                if len(seen) >= 12:
                    enough.set()

            with manager.subscribe(look, limit=10**6):
                async with asyncio.timeout(WAIT_S):
                    await enough.wait()
            assert [e.replayed for e in seen] == [True] * 3 + [False] * (len(seen) - 3)
            assert [e.provider_id for e in seen[:3]] == ["a", "b", "c"]
            start = seen[0].gseq
            assert [e.gseq for e in seen] == [start] * 3 + list(
                range(start + 1, start + 1 + len(seen) - 3)
            )
            for provider in providers:
                steps = [e.current.seq for e in seen if e.provider_id == provider.id]
                assert steps == list(range(steps[0], steps[0] + len(steps)))


class Registers(EchoProvider):
    """Lets something happen in the moment in which its lock is asked for."""

    meanwhile: Callable[[], None] | None = None

    def atomic(self):
        if self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            work()
        return super().atomic()


class Hesitates(EchoProvider):
    """Changes its state, and tells so only after a while; its lock is held in between."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.changed, self.tell = threading.Event(), threading.Event()

    def publish(self, event) -> bool:
        self.changed.set()
        self.tell.wait(WAIT_S)
        return super().publish(event)


async def test_a_provider_that_comes_while_somebody_subscribes_is_told_once(manager) -> None:
    first, late, seen = Registers(id="first"), Hesitates(id="late"), []
    manager.register_provider(first)
    threads = [threading.Thread(target=step, args=(late, 1)), threading.Timer(0.2, late.tell.set)]

    def meanwhile() -> None:
        registering = threading.Thread(target=manager.register_provider, args=(late,))
        registering.start()
        registering.join(WAIT_S)
        for thread in threads:
            thread.start()
        assert late.changed.wait(WAIT_S)

    first.meanwhile = meanwhile
    manager.subscribe(seen.append)
    for thread in threads:
        await asyncio.to_thread(thread.join, WAIT_S)
    await manager.flush()
    steps = [e.current.seq for e in seen if e.provider_id == "late"]
    assert steps in ([1], [0, 1])


async def test_a_conflating_listener_ends_on_the_last_state_of_every_provider(manager) -> None:
    providers, seen = three(manager), []
    subscription = manager.subscribe(seen.append, conflate=True)
    for number in range(1, 101):
        for provider in providers:
            step(provider, number)
    await manager.flush()
    assert [(e.provider_id, e.current.attempt) for e in seen] == [
        ("a", 100), ("b", 100), ("c", 100),
    ]  # fmt: skip
    assert subscription.coalesced == 300
    step(providers[1], 200)
    await manager.flush()
    assert (seen[-1].provider_id, seen[-1].current.attempt) == ("b", 200)


@pytest.mark.usefixtures("_eager_threads")
async def test_a_snapshot_and_the_events_after_it_tell_the_present_state(manager) -> None:
    providers, seen = three(manager), []
    manager.on("statusChanged", seen.append, limit=10**6)
    with Writers(providers, turns=300) as writers:
        snapshots = []
        for _ in range(20):
            snapshots.append(manager.snapshot())
            await asyncio.sleep(0)
        await asyncio.to_thread(writers.join)
    assert await manager.flush(WAIT_S)
    for snapshot in snapshots:
        told = {p.id: p.status for p in snapshot.providers}
        for event in seen:
            if event.gseq <= snapshot.gseq:
                assert event.current.seq <= told[event.provider_id].seq
            elif event.current.seq > told[event.provider_id].seq:
                assert event.previous == told[event.provider_id]
                told[event.provider_id] = event.current
        assert told == {p.id: p.status for p in providers}


# ---- coming and going ----------------------------------------------------------------------------


async def test_removing_a_provider_is_told_after_its_last_status(manager) -> None:
    provider = manager.register_provider(echo(id="a"))
    await provider.connect()
    record = Record(manager)
    await manager.unregister_provider("a")
    assert [e.name for e in record] == [
        "statusChanged", "statusChanged", "statusChanged", "activeProviderChanged",
        "providerRemoved",
    ]  # fmt: skip
    assert record.statuses == ["draining", "disconnected", "closed"]
    assert record[-1].provider_id == "a"
    assert (record[-2].previous, record[-2].current, record[-2].reason) == ("a", None, "removed")


async def test_a_provider_that_was_removed_is_not_heard_any_more(manager) -> None:
    provider = manager.register_provider(echo())
    await manager.unregister_provider("echo")
    record = Record(manager)
    step(provider, 1)
    provider.publish(HealthCheck(provider_id="echo", phase="started"))
    assert record == []
    other = manager.register_provider(echo())
    step(other, 1)
    assert [e.name for e in record] == [
        "providerAdded",
        "activeProviderChanged",
        "statusChanged",  # its first status
        "statusChanged",
    ]


async def test_providers_that_come_and_go_in_threads_leave_no_gap() -> None:
    manager = LLMProviderManager()
    numbers: list[int] = []
    for name in EVENTS:
        manager.on(name, lambda e: numbers.append(e.gseq), limit=10**6)

    async def live(name: str) -> None:
        for _ in range(10):
            provider = manager.register_provider(echo(id=name))
            await provider.connect()
            await manager.unregister_provider(name)

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(
            *(asyncio.to_thread(lambda n=n: asyncio.run(live(n))) for n in ("a", "b", "c", "d"))
        )
    assert await manager.flush(WAIT_S)
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert manager.providers == {}


async def test_no_listener_of_the_manager_runs_while_a_lock_is_held(manager) -> None:
    stuck = []

    def listener(event) -> None:
        """Another thread could use the manager and its providers meanwhile."""
        for look in (manager.snapshot, *(p.event_names for p in providers)):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join(1)
            stuck.append(thread.is_alive())

    providers = [echo(id="a"), echo(id="b")]
    for name in ("providerAdded", "providerRemoved", "activeProviderChanged", "statusChanged"):
        manager.on(name, listener, delivery="inline")
    for provider in providers:
        manager.register_provider(provider)
    manager.subscribe(listener, delivery="inline")
    step(providers[0], 1)
    await manager.unregister_provider("b")
    assert len(stuck) > 20
    assert not any(stuck)


async def test_an_error_that_only_the_manager_listens_to_is_not_called_unheard(
    manager, caplog
) -> None:
    provider = manager.register_provider(echo())
    heard = []
    manager.on("error", heard.append)
    provider.go_offline()
    with pytest.raises(ProviderConnectionError):
        await provider.connect()
    await provider.wait_for(lambda s: s.attempt >= 2, WAIT_S)
    await manager.flush()
    assert [e.operation for e in heard] == ["reconnect"]
    assert caplog.records == []


async def test_two_providers_of_one_kind_are_told_apart_by_their_ids(manager) -> None:
    seen = defaultdict(list)
    manager.subscribe(lambda e: seen[e.provider_id].append(str(e.current.status)))
    for name in ("one", "two"):
        manager.register_provider("echo", id=name)
    manager.get_provider("two")._machine.change(S.CONNECTING, Reason.USER)
    await manager.flush()
    assert seen == {"one": ["disconnected"], "two": ["disconnected", "connecting"]}
