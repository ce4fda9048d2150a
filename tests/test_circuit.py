"""A provider that fails again and again is left alone; one request finds out when it is back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import timedelta

import pytest

from llm_manager import (
    AuthenticationError,
    Backoff,
    CircuitBreaker,
    CircuitOpenError,
    ContextWindowExceededError,
    EchoAnswer,
    InvalidParameterError,
    InvalidRequestError,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    ProviderConnectionError,
    ProviderError,
    ProviderOverloadedError,
    QueueFullError,
    RateLimitError,
    RequestCancelledError,
    RequestTimeoutError,
    StreamInterruptedError,
)
from llm_manager.clock import utc_now
from llm_manager.errors import ProviderAPIError
from llm_manager.messages import Delta, TextDelta
from llm_manager.policy.circuit_state import Circuit
from llm_manager.testing.clock import FakeClock

from .helpers import FakeHost, echo

DOWN = ProviderOverloadedError("no capacity", http_status=503)


def request(*, force: bool = False) -> LLMRequest:
    options = LLMRequestOptions(force=force)
    return LLMRequest(id="r", model="m", messages=(LLMMessage.user("x"),), options=options)


class Line:
    """A provider behind a circuit breaker, and what becomes of requests to it.

    ``answer`` is what the next requests get: a text, an error, a text and then an error, or
    ``None`` to wait until ``go`` is set.
    """

    def __init__(self, **settings: object) -> None:
        self.host, self.clock = FakeHost(), FakeClock()
        self.answer: list[str | Exception | None] = ["ok"]
        self.sent = 0
        self.go = asyncio.Event()
        settings = {"jitter": 0, **settings}
        self.exchange = CircuitBreaker(clock=self.clock, **settings).wrap(self._send, self.host)

    async def _send(self, asked: LLMRequest) -> AsyncGenerator[Delta, None]:
        self.sent += 1
        for step in self.answer:
            if step is None:
                await self.go.wait()
            elif isinstance(step, str):
                yield TextDelta(step)
            else:
                raise step

    async def ask(self, *, force: bool = False) -> str | Exception:
        try:
            async with aclosing(self.exchange(request(force=force))) as deltas:
                return "".join([delta.text async for delta in deltas])
        except Exception as error:  # noqa: BLE001 - it is the result
            return error

    async def fail(self, times: int, error: Exception = DOWN) -> None:
        before, self.answer = self.answer, [error]
        for _ in range(times):
            assert await self.ask() is error
        self.answer = before

    @property
    def circuit(self) -> str:
        return self.host.status.circuit

    @property
    def opens_for_s(self) -> float:
        """How long it is open, as the snapshot says."""
        assert self.circuit == "open"
        return round((self.host.status.retry_at - utc_now(self.clock)).total_seconds(), 1)


async def opened(**settings: object) -> Line:
    line = Line(**settings)
    await line.fail(5)
    assert line.circuit == "open"
    return line


# ---- opening -------------------------------------------------------------------------------------


async def test_five_failures_in_a_row_open_it_and_nothing_is_sent_any_more() -> None:
    line = Line()
    await line.fail(4)
    assert line.circuit == "closed"
    await line.fail(1)
    assert (line.circuit, line.opens_for_s) == ("open", 30)
    refused = await line.ask()
    assert isinstance(refused, CircuitOpenError)
    assert line.sent == 5


async def test_a_refusal_says_why_and_until_when() -> None:
    line = await opened()
    refused = await line.ask()
    assert isinstance(refused, CircuitOpenError)
    assert "5 requests failed" in refused.message
    assert "ProviderOverloadedError: no capacity" in refused.message
    assert "in 30 s" in refused.message
    assert "force=True" in (refused.hint or "")
    assert refused.retry_after_s == pytest.approx(30, abs=1)
    assert refused.retry_at is not None
    assert abs(refused.retry_at - line.host.status.retry_at) < timedelta(seconds=1)
    assert refused.retryable


async def test_an_answer_in_between_begins_the_row_anew() -> None:
    line = Line()
    for _ in range(2):
        await line.fail(4)
        assert await line.ask() == "ok"
    assert line.circuit == "closed"


async def test_half_of_ten_requests_in_a_minute_open_it() -> None:
    line = Line()
    for _ in range(4):
        assert await line.ask() == "ok"
        await line.fail(1)
    assert await line.ask() == "ok"
    assert line.circuit == "closed"
    await line.fail(1)
    assert line.circuit == "open"
    assert "5 requests failed" in str(await line.ask())


async def test_failures_of_long_ago_do_not_count_in_the_share() -> None:
    line = Line()
    for _ in range(4):
        await line.fail(1)
        assert await line.ask() == "ok"
    line.clock.advance(61)
    await line.fail(1)
    assert await line.ask() == "ok"
    await line.fail(1)
    assert line.circuit == "closed"


@pytest.mark.parametrize(
    "error",
    [
        ProviderConnectionError("refused", code="refused"),
        ProviderConnectionError("no such name", code="dns"),
        RequestTimeoutError("late", code="first_token_timeout"),
        ProviderOverloadedError("busy", http_status=529),
        ProviderAPIError("broken", http_status=500),
        StreamInterruptedError("cut"),
        ConnectionResetError("by peer"),
    ],
    ids=lambda error: f"{type(error).__name__}-{getattr(error, 'code', '')}",
)
async def test_what_the_provider_is_to_blame_for_counts(error) -> None:
    line = Line()
    await line.fail(5, error)
    assert line.circuit == "open"


@pytest.mark.parametrize(
    "error",
    [
        RateLimitError("slow down", http_status=429),
        InvalidRequestError("bad", http_status=400),
        AuthenticationError("no", http_status=401),
        ContextWindowExceededError("too long"),
        ProviderAPIError("teapot", http_status=418),
        RequestCancelledError("stopped"),
        QueueFullError("full"),
        RateLimitError("wait", code="cooling_down"),
        ProviderConnectionError("not now", code="draining"),
        InvalidParameterError("wrong"),
        ProviderError("defect", code="unexpected"),
    ],
    ids=lambda error: f"{type(error).__name__}-{error.code}",
)
async def test_what_the_provider_is_not_to_blame_for_does_not_count(error) -> None:
    line = Line()
    await line.fail(20, error)
    assert line.circuit == "closed"


async def test_a_stream_that_breaks_off_counts_and_a_long_answer_does_not() -> None:
    line = Line()
    line.answer = ["half", RequestTimeoutError("too long", code="total_timeout")]
    for _ in range(10):
        await line.ask()
    assert line.circuit == "closed"
    line.answer = ["half", StreamInterruptedError("cut")]
    for _ in range(5):
        await line.ask()
    assert line.circuit == "open"


async def test_answers_that_their_readers_leave_early_interrupt_a_row_of_failures() -> None:
    line = Line()
    await line.fail(4)
    deltas = line.exchange(request())
    await anext(deltas)
    await deltas.aclose()
    await line.fail(4)
    assert line.circuit == "closed"


async def test_force_passes_an_open_circuit() -> None:
    line = await opened()
    line.answer = [DOWN]
    assert await line.ask(force=True) is DOWN
    assert (line.circuit, line.opens_for_s) == ("open", 30)
    line.answer = ["ok"]
    assert await line.ask(force=True) == "ok"
    assert line.circuit == "closed"
    assert await line.ask() == "ok"


# ---- half open -----------------------------------------------------------------------------------


async def test_of_fifty_calls_exactly_one_finds_out() -> None:
    line = await opened()
    line.clock.advance(31)
    line.answer = [None, "back"]
    calls = [asyncio.create_task(line.ask()) for _ in range(50)]
    while sum(call.done() for call in calls) < 49:
        await asyncio.sleep(0)
    assert (line.sent, line.circuit) == (6, "half_open")
    line.go.set()
    results = await asyncio.gather(*calls)
    assert results.count("back") == 1
    assert sum(isinstance(result, CircuitOpenError) for result in results) == 49
    assert all(r.retry_at is not None for r in results if isinstance(r, CircuitOpenError))
    assert line.circuit == "closed"


def test_of_calls_in_several_threads_exactly_one_finds_out() -> None:
    async def prepared() -> Line:
        return await opened()

    line = asyncio.run(prepared())
    line.clock.advance(31)
    sent_before, gate, release = line.sent, threading.Barrier(8), threading.Event()
    refused: list[CircuitOpenError] = []

    async def slow(asked: LLMRequest) -> AsyncGenerator[Delta, None]:
        line.sent += 1
        await asyncio.to_thread(release.wait, 10)
        yield TextDelta("x")

    exchange = CircuitBreaker(clock=line.clock).wrap(slow, line.host)

    async def one() -> None:
        async with aclosing(exchange(request())) as deltas:
            [_ async for _ in deltas]

    def run() -> None:
        gate.wait(10)
        try:
            asyncio.run(one())
        except CircuitOpenError as error:
            refused.append(error)
            if len(refused) == 7:
                release.set()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (line.sent - sent_before, len(refused)) == (1, 7)
    assert line.circuit == "closed"


async def test_each_failure_of_the_one_doubles_the_open_time_up_to_its_bound() -> None:
    line = await opened()
    times = [line.opens_for_s]
    for _ in range(5):
        line.clock.advance(times[-1] + 1)
        await line.fail(1)
        times.append(line.opens_for_s)
    assert times == [30, 60, 120, 240, 300, 300]
    assert "10 requests failed" in str(await line.ask())


async def test_each_opening_lasts_longer_and_clean_minutes_make_it_shorter() -> None:
    line = await opened()

    async def open_again() -> float:
        line.clock.advance(line.opens_for_s + 1)
        assert await line.ask() == "ok"
        await line.fail(5)
        return line.opens_for_s

    assert [await open_again() for _ in range(3)] == [60, 90, 120]
    line.clock.advance(121)
    assert await line.ask() == "ok"
    await line.ask()
    line.clock.advance(125)
    await line.fail(5)
    assert line.opens_for_s == 90  # two minutes less, one opening more


async def test_an_open_time_is_spread_and_never_above_its_bound() -> None:
    times = set()
    for _ in range(60):
        line = await opened(jitter=0.2, open_s=30, open_max_s=33)
        times.add(line.opens_for_s)
    assert min(times) >= 24
    assert max(times) <= 33
    assert len(times) > 5


@pytest.mark.parametrize("error", [RateLimitError("slow"), InvalidRequestError("bad")])
async def test_a_refusal_of_the_service_proves_that_it_is_back(error) -> None:
    line = await opened()
    line.clock.advance(31)
    await line.fail(1, error)
    assert line.circuit == "closed"


@pytest.mark.parametrize("error", [RequestCancelledError("stopped"), QueueFullError("full")])
async def test_a_trial_that_proves_nothing_gives_the_trial_to_the_next(error) -> None:
    line = await opened()
    line.clock.advance(31)
    await line.fail(1, error)
    assert line.circuit == "half_open"
    assert await line.ask() == "ok"
    assert line.circuit == "closed"


async def test_a_trial_whose_task_is_cancelled_gives_the_trial_to_the_next() -> None:
    line = await opened()
    line.clock.advance(31)
    line.answer = ["half", None]
    call = asyncio.create_task(line.ask())
    while line.sent < 6:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    assert line.circuit == "half_open"
    line.answer = ["ok"]
    assert await line.ask() == "ok"


async def test_a_trial_that_hangs_does_not_keep_everybody_out() -> None:
    line = await opened()
    line.clock.advance(31)
    line.answer = [None, "late"]
    hanging = asyncio.create_task(line.ask())
    while line.sent < 6:
        await asyncio.sleep(0)
    line.answer = ["ok"]
    assert isinstance(await line.ask(), CircuitOpenError)
    line.clock.advance(31)
    assert await line.ask() == "ok"
    assert line.circuit == "closed"
    line.go.set()
    assert await hanging == "late"
    assert line.circuit == "closed"


async def test_a_computer_that_slept_has_waited_as_well() -> None:
    line = await opened()
    line.clock.suspend(3600)
    assert await line.ask() == "ok"


async def test_setting_the_time_of_day_changes_nothing() -> None:
    line = await opened()
    line.clock.set_wall(3600)
    assert isinstance(await line.ask(), CircuitOpenError)
    line.clock.set_wall(-7200)
    line.clock.advance(31)
    assert await line.ask() == "ok"


# ---- the snapshot has the last word --------------------------------------------------------------


async def test_if_somebody_else_proved_the_provider_usable_counting_begins_anew() -> None:
    line = await opened()
    line.host.close_circuit()
    await line.fail(4)
    assert line.circuit == "closed"
    await line.fail(1)
    assert line.circuit == "open"


async def test_if_a_probe_has_half_opened_it_one_request_is_let_through_at_once() -> None:
    line = await opened()
    line.host.half_open_circuit()
    assert await line.ask() == "ok"
    assert line.circuit == "closed"


async def test_new_settings_begin_with_a_closed_circuit_and_no_memory() -> None:
    line = await opened()
    line.host.set(circuit="closed", epoch=1)
    await line.fail(4)
    assert line.circuit == "closed"
    await line.fail(1)
    assert line.opens_for_s == 30


@pytest.mark.parametrize("answer", [["half", None, "ok"], ["half", None, DOWN]])
async def test_what_was_asked_with_older_settings_proves_nothing(answer) -> None:
    line = await opened()
    line.clock.advance(31)
    line.answer = answer
    old = asyncio.create_task(line.ask())
    while line.sent < 6:
        await asyncio.sleep(0)
    line.host.set(circuit="closed", epoch=1)
    await line.fail(5)
    assert (line.circuit, line.opens_for_s) == ("open", 30)
    line.go.set()
    await old
    assert (line.circuit, line.opens_for_s) == ("open", 30)


async def test_what_fails_late_does_not_open_it_again() -> None:
    line = Line()
    line.answer = [None, DOWN]
    late = [asyncio.create_task(line.ask()) for _ in range(10)]
    while line.sent < 10:
        await asyncio.sleep(0)
    await line.fail(5)
    line.host.close_circuit()
    line.go.set()
    await asyncio.gather(*late)
    assert line.circuit == "closed"


# ---- at a provider ----


@pytest.mark.parametrize("error", [DOWN, ProviderConnectionError("refused", code="refused")])
async def test_a_provider_shows_its_open_circuit_and_a_forced_answer_closes_it(error) -> None:
    provider = echo(policies=[CircuitBreaker()], reconnect=Backoff(first_s=60))
    provider.script(*[EchoAnswer(error=error)] * 5)
    for _ in range(5):
        with pytest.raises(type(error)):
            await provider.generate_completion("echo", "x")
    status = provider.status
    assert (status.status, status.reason) == ("reconnecting", "circuit_open")
    assert (status.circuit, status.error.code) == ("open", error.code)
    with pytest.raises(CircuitOpenError) as caught:
        await provider.generate_completion("echo", "x")
    assert (caught.value.provider_id, provider.status) == ("echo", status)
    await provider.generate_completion("echo", "x", options={"force": True})
    assert (provider.status.status, provider.status.circuit) == ("connected", "closed")
    await provider.close()


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("failures_in_a_row", 0),
        ("failures_in_a_row", 1.5),
        ("failure_share", 0),
        ("failure_share", 1.1),
        ("failure_share", "half"),
        ("least_requests", 0),
        ("window_s", 0),
        ("open_s", -1),
        ("open_s", float("nan")),
        ("open_s", float("inf")),
        ("open_max_s", 29),
        ("jitter", -0.1),
        ("jitter", True),
    ],
)
def test_settings_that_cannot_be_are_refused(name, wrong) -> None:
    with pytest.raises(InvalidParameterError, match=rf"{name} must be .*, got"):
        CircuitBreaker(**{name: wrong})


async def test_answers_that_break_off_together_are_one_failure() -> None:
    host = FakeHost()
    circuit = Circuit(CircuitBreaker(), host)
    for passage in [circuit.enter(forced=False) for _ in range(50)]:
        circuit.leave(passage, "failed", StreamInterruptedError("the server is gone"))
    assert host.status.circuit == "closed"
    for _ in range(4):
        circuit.leave(circuit.enter(forced=False), "failed", StreamInterruptedError("again"))
    assert host.status.circuit == "open"
