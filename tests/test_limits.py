"""Few run at once, the others wait in three lanes; nobody starves, and nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import random
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import pytest

from llm_manager import (
    CircuitBreaker,
    ConcurrencyLimit,
    CooldownPolicy,
    EchoAnswer,
    InvalidParameterError,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    QueueFullError,
    RequestCancelledError,
)
from llm_manager.messages import Delta, TextDelta
from llm_manager.policy import Exchange

from .helpers import FakeHost, Record, echo
from .test_docs_tables import table


def request(name: str, priority: str | None = None) -> LLMRequest:
    options = LLMRequestOptions(priority=priority)
    return LLMRequest(id=name, model="m", messages=(LLMMessage.user("x"),), options=options)


class Server:
    """An exchange whose answers end when they are told to; remembers in which order they began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.open: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def __call__(self, asked: LLMRequest) -> AsyncGenerator[Delta, None]:
        self.began.append(asked.id)
        self.open.append(asked.id)
        self._ends[asked.id] = asyncio.Event()
        try:
            yield TextDelta("first")
            await self._ends[asked.id].wait()
            yield TextDelta("last")
        finally:
            self.open.remove(asked.id)

    def end(self, name: str) -> None:
        self._ends[name].set()


class Desk:
    """Requests to one server behind a limit."""

    def __init__(self, *limits: int) -> None:
        self.host, self.server = FakeHost(), Server()
        self.exchange: Exchange = ConcurrencyLimit(*limits).wrap(self.server, self.host)
        self.tasks: dict[str, asyncio.Task[list[str]]] = {}

    async def ask(self, *names: str) -> None:
        """Send requests in this order; those called ``i…`` and ``b…`` are in the other lanes."""
        for name in names:
            lane = {"i": "interactive", "b": "background"}.get(name[0])
            self.tasks[name] = asyncio.create_task(self._read(request(name, lane)))
            await settled()

    async def _read(self, asked: LLMRequest) -> list[str]:
        async with aclosing(self.exchange(asked)) as deltas:
            return [delta.text async for delta in deltas]

    async def end(self, *names: str) -> None:
        for name in names:
            self.server.end(name)
            assert await self.tasks[name] == ["first", "last"]
            await settled()

    async def end_all(self) -> None:
        while self.server.open:
            await self.end(self.server.open[0])

    @property
    def queued(self) -> list[tuple[str, int]]:
        events = self.host.named("requestQueued")
        assert all(event.reason == "concurrency" for event in events)
        return [(event.request_id, event.position) for event in events]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


# ---- how many ------------------------------------------------------------------------------------


async def test_no_more_run_than_may_and_the_others_follow_in_their_order() -> None:
    desk = Desk(2)
    await desk.ask("n1", "n2", "n3", "n4")
    assert desk.server.began == ["n1", "n2"]
    assert desk.queued == [("n3", 0), ("n4", 1)]
    assert desk.host.status.queued == 2
    await desk.end("n2")
    assert desk.server.began == ["n1", "n2", "n3"]
    assert desk.host.status.queued == 1
    await desk.end_all()
    assert desk.server.began == ["n1", "n2", "n3", "n4"]
    assert desk.host.status.queued == 0


async def test_what_needs_not_wait_is_not_announced() -> None:
    desk = Desk(2)
    for name in ("n1", "n2", "n3"):
        await desk.ask(name)
        await desk.end(name)
    assert desk.queued == []


async def test_one_more_than_may_wait_is_refused_with_both_numbers() -> None:
    desk = Desk(1, 2)
    await desk.ask("n1", "n2", "n3", "n4")
    with pytest.raises(QueueFullError, match=r"waiting: 2, running: 1") as full:
        await desk.tasks["n4"]
    assert full.value.retryable
    assert "max_waiting" in (full.value.hint or "")
    await desk.end_all()
    assert desk.server.began == ["n1", "n2", "n3"]
    assert desk.host.status.queued == 0


async def test_where_nobody_may_wait_a_free_place_is_still_given() -> None:
    desk = Desk(1, 0)
    await desk.ask("n1", "n2")
    with pytest.raises(QueueFullError):
        await desk.tasks["n2"]
    await desk.end("n1")
    await desk.ask("n3")
    await desk.end("n3")


# ---- lanes ---------------------------------------------------------------------------------------


async def test_autocomplete_goes_before_chat_and_chat_before_indexing() -> None:
    desk = Desk(1)
    await desk.ask("n0", "b1", "n1", "i1", "b2", "n2", "i2")
    assert desk.queued == [("b1", 0), ("n1", 0), ("i1", 0), ("b2", 3), ("n2", 2), ("i2", 1)]
    await desk.end_all()
    assert desk.server.began == ["n0", "i1", "i2", "n1", "n2", "b1", "b2"]


async def test_a_lane_that_was_passed_over_four_times_is_next() -> None:
    desk = Desk(1)
    await desk.ask("n0", "b1", "n1", *(f"i{n}" for n in range(1, 8)))
    await desk.end_all()
    assert desk.server.began == [
        "n0", "i1", "i2", "i3", "i4", "n1", "b1", "i5", "i6", "i7",
    ]  # fmt: skip


async def test_autocomplete_leaves_a_place_for_a_chat() -> None:
    desk = Desk(3)
    await desk.ask("i1", "b1", "i2")
    assert desk.server.began == ["i1", "b1"]
    await desk.ask("n1")
    assert desk.server.began == ["i1", "b1", "n1"]
    await desk.end("n1")
    assert desk.server.began == ["i1", "b1", "n1"], "the place is kept for the next chat"
    await desk.end("b1")
    assert desk.server.began == ["i1", "b1", "n1", "i2"]
    await desk.end_all()


async def test_autocomplete_runs_beside_a_long_chat() -> None:
    desk = Desk(2)
    await desk.ask("n1", "i1")
    assert desk.server.began == ["n1", "i1"]
    await desk.end_all()


async def test_of_one_place_autocomplete_may_have_all() -> None:
    desk = Desk(1)
    await desk.ask("i1")
    await desk.end("i1")


# ---- leaving -------------------------------------------------------------------------------------


async def test_a_request_cancelled_while_it_waits_frees_its_place_in_the_queue() -> None:
    desk = Desk(1, 1)
    await desk.ask("n1", "n2")
    desk.tasks["n2"].cancel()
    with pytest.raises(asyncio.CancelledError):
        await desk.tasks["n2"]
    assert desk.host.status.queued == 0
    await desk.ask("n3")
    await desk.end_all()
    assert desk.server.began == ["n1", "n3"]


async def test_one_that_is_cancelled_at_the_moment_of_its_turn_passes_it_on() -> None:
    desk = Desk(1)
    await desk.ask("n1", "n2", "n3")
    desk.tasks["n1"].cancel()  # frees the place at the next turn of the loop ...
    asyncio.get_running_loop().call_soon(desk.tasks["n2"].cancel)  # ... and so is this one
    await settled()
    assert desk.tasks["n2"].cancelled()
    assert desk.server.began == ["n1", "n3"]
    await desk.end_all()


async def test_a_failed_answer_gives_its_place_back() -> None:
    async def failing(asked: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield TextDelta("x")
        raise ValueError("broken")

    exchange = ConcurrencyLimit(1).wrap(failing, FakeHost())
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            async with aclosing(exchange(request("r"))) as deltas:
                [_ async for _ in deltas]


async def test_an_exchange_that_fails_before_it_begins_gives_its_place_back() -> None:
    def failing(asked: LLMRequest) -> AsyncGenerator[Delta, None]:
        raise ValueError("broken")

    exchange = ConcurrencyLimit(1).wrap(failing, FakeHost())
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            exchange(request("r"))


async def test_an_answer_that_is_dropped_unread_gives_its_place_back() -> None:
    desk = Desk(1)
    dropped = desk.exchange(request("n1"))
    await anext(dropped)
    await desk.ask("n2")
    assert desk.server.began == ["n1"]
    del dropped
    gc.collect()
    await settled()
    assert desk.server.began == ["n1", "n2"]
    await desk.end_all()


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_leaves_at_whatever_moment_no_place_is_lost(seed) -> None:
    chance, desk = random.Random(seed), Desk(3, 100)
    for number in range(30):
        await desk.ask(f"{chance.choice('nib')}{number}")
        for _ in range(chance.randrange(3)):
            if desk.server.open and chance.random() < 0.5:
                desk.server.end(chance.choice(desk.server.open))
            if chance.random() < 0.5:
                chance.choice(list(desk.tasks.values())).cancel()
            await asyncio.sleep(0)
        assert len(desk.server.open) <= 3
    while not all(task.done() for task in desk.tasks.values()):
        for name in desk.server.open:
            desk.server.end(name)
        await asyncio.sleep(0)
    assert desk.host.status.queued == 0
    await desk.ask("n-a", "n-b", "n-c")
    assert desk.server.open == ["n-a", "n-b", "n-c"]
    await desk.end_all()


# ---- loops and threads ---------------------------------------------------------------------------


def test_requests_of_several_loops_share_the_places() -> None:
    running, most, lock = 0, 0, threading.Lock()

    async def counting(asked: LLMRequest) -> AsyncGenerator[Delta, None]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        await asyncio.sleep(0)
        yield TextDelta("x")
        with lock:
            running -= 1

    host = FakeHost()
    exchange = ConcurrencyLimit(3).wrap(counting, host)
    answers: list[int] = []

    async def one(name: str, lane: str) -> None:
        async with aclosing(exchange(request(name, lane))) as deltas:
            answers.append(len([_ async for _ in deltas]))

    async def many() -> None:
        lanes = ("interactive", "normal", "background")
        await asyncio.gather(*(one(f"r{n}", lanes[n % 3]) for n in range(60)))

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [1] * 240
    assert most <= 3
    assert (running, host.status.queued) == (0, 0)


def test_one_that_waits_on_a_closed_loop_takes_no_place() -> None:
    desk = Desk(1, 2)
    loop = asyncio.new_event_loop()
    first = desk.exchange(request("n1"))
    loop.run_until_complete(anext(first))

    async def read(name: str) -> list[str]:
        return [delta.text async for delta in desk.exchange(request(name))]

    waiting = [loop.create_task(read(name)) for name in ("gone1", "gone2")]
    loop.run_until_complete(settled())
    assert desk.host.status.queued == 2
    # The first is called, and its loop ends before it can hear that.
    loop.run_until_complete(first.aclose())
    loop.close()
    for task in waiting:
        task._log_destroy_pending = False
    del waiting, task
    gc.collect()
    assert desk.host.status.queued == 0

    async def later() -> None:
        await asyncio.wait_for(desk.ask("n2"), 5)
        await asyncio.wait_for(desk.end("n2"), 5)

    asyncio.run(later())
    assert desk.server.began == ["n1", "n2"]


def test_those_that_wait_on_a_closed_loop_do_not_fill_the_queue() -> None:
    desk = Desk(1, 2)
    held = desk.exchange(request("n1"))
    loop = asyncio.new_event_loop()
    waiting = [loop.create_task(anext(desk.exchange(request(f"gone{n}")))) for n in range(2)]
    loop.run_until_complete(settled())
    loop.close()

    async def later() -> None:
        await asyncio.wait_for(desk.ask("n2"), 5)
        await held.aclose()
        await settled()
        await asyncio.wait_for(desk.end("n2"), 5)

    asyncio.run(later())
    for task in waiting:
        task._log_destroy_pending = False
    assert desk.server.began == ["n2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_begins_with_all_places_free() -> None:
    async def one(asked: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield TextDelta("x")

    exchange = ConcurrencyLimit(1, 0).wrap(one, FakeHost())
    held = exchange(request("parent"))
    child = os.fork()
    if not child:
        code = 1
        try:
            mine = exchange(request("child"))
            del held  # the parent's place is not one of the child's
            with suppress(QueueFullError):
                asyncio.run(anext(exchange(request("another"))))
                os._exit(2)
            del mine
            asyncio.run(anext(exchange(request("one more"))))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert held is not None


# ---- at a provider ----


async def test_a_provider_shows_who_waits_and_a_stop_reaches_them() -> None:
    provider = echo(policies=[ConcurrencyLimit(1)])
    provider.script(EchoAnswer(delay_s=60))
    record = Record(provider)
    streams = [provider.stream_completion("echo", f"question {n}") for n in range(3)]
    reading = [asyncio.ensure_future(stream) for stream in streams]
    await record.wait_for("requestQueued", 2)
    assert [e.provider_id for e in record.named("requestQueued")] == ["echo", "echo"]
    assert (provider.status.queued, provider.status.in_flight) == (2, 3)
    streams[1].cancel()
    streams[0].cancel()
    answers = await asyncio.gather(*reading, return_exceptions=True)
    assert [isinstance(a, RequestCancelledError) for a in answers] == [True, True, False]
    assert answers[2].text == "question 2"
    assert (provider.status.queued, provider.status.in_flight) == (0, 0)
    await provider.close()


async def test_a_provider_that_is_disconnected_ends_those_that_wait() -> None:
    provider = echo(policies=[ConcurrencyLimit(1)])
    provider.script(EchoAnswer(delay_s=60))
    record = Record(provider)
    reading = [
        asyncio.ensure_future(provider.generate_completion("echo", f"question {n}"))
        for n in range(3)
    ]
    await record.wait_for("requestQueued", 2)
    await provider.disconnect(drain_timeout_s=0)
    answers = await asyncio.gather(*reading, return_exceptions=True)
    assert all(isinstance(answer, RequestCancelledError) for answer in answers)
    assert (provider.status.queued, provider.status.in_flight) == (0, 0)
    assert len(record.named("requestFinished")) == 3
    await provider.close()


async def test_a_newer_request_ends_an_older_one_that_waits() -> None:
    provider = echo(policies=[ConcurrencyLimit(1)])
    provider.script(EchoAnswer(text="one two three", words_per_s=50))
    record = Record(provider)
    chat = asyncio.ensure_future(provider.generate_completion("echo", "a chat"))
    options = {"supersede_key": "cursor", "priority": "interactive"}
    completions = []
    for number in range(3):
        ask = provider.generate_completion("echo", f"completion {number}", options=options)
        completions.append(asyncio.ensure_future(ask))
        await record.wait_for("requestQueued", number + 1)
    assert (await chat).text == "one two three"
    answers = await asyncio.gather(*completions, return_exceptions=True)
    assert [isinstance(a, RequestCancelledError) for a in answers] == [True, True, False]
    await provider.close()


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"max_running": 0}, "max_running"),
        ({"max_running": -1}, "max_running"),
        ({"max_running": 1.5}, "max_running"),
        ({"max_running": "3"}, "max_running"),
        ({"max_running": True}, "max_running"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"max_waiting": None}, "max_waiting"),
    ],
)
def test_limits_that_cannot_be_are_refused(settings, name) -> None:
    with pytest.raises(InvalidParameterError, match=rf"{name} must be "):
        ConcurrencyLimit(**settings)


@pytest.mark.parametrize("policy", [ConcurrencyLimit, CooldownPolicy, CircuitBreaker])
def test_the_page_about_limits_has_each_setting_with_its_default(policy) -> None:
    rows = table("limits.md", f"setting of `{policy.__name__}`", "default", "meaning")
    written = {next(iter(row.values())).strip("`"): float(row["default"]) for row in rows}
    parameters = inspect.signature(policy).parameters.values()
    assert written == {each.name: each.default for each in parameters if each.name != "clock"}
