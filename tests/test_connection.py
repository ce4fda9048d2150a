"""Connecting, judging by evidence, healing, draining: the status never lies."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llm_manager import (
    AuthenticationError,
    Backoff,
    EchoAnswer,
    EchoProvider,
    InvalidParameterError,
    InvalidRequestError,
    LLMError,
    ProviderConnectionError,
    ProviderOverloadedError,
    QuotaExceededError,
    RateLimitError,
    RequestCancelledError,
    RequestTimeoutError,
)

from .helpers import QUICK, Record, echo


class Counting(EchoProvider):
    """Counts what the connection does to a provider, and waits where it is told to."""

    def __init__(self, **settings) -> None:
        super().__init__(**{"words_per_s": float("inf"), "reconnect": QUICK, **settings})
        self.opened = self.closed = self.listed = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.errors: list[LLMError] = []

    async def _open(self) -> None:
        self.opened += 1
        await self.gate.wait()

    async def _close(self) -> None:
        self.closed += 1

    async def _list_models(self):
        self.listed += 1
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return await super()._list_models()


# ---- connect -------------------------------------------------------------------------------------


async def test_connecting_proves_the_provider_and_connecting_again_does_nothing() -> None:
    provider = Counting()
    record = Record(provider)
    await provider.connect()
    await provider.connect()
    assert record.statuses == ["connecting", "connected"]
    assert provider.status.reason == "recovered"
    assert (provider.opened, provider.listed) == (1, 1)
    assert provider.usable


async def test_fifty_concurrent_callers_share_one_attempt() -> None:
    provider = Counting()
    record = Record(provider)
    await asyncio.gather(*(provider.connect() for _ in range(50)))
    assert (provider.opened, provider.listed) == (1, 1)
    assert record.statuses == ["connecting", "connected"]


async def test_all_sharers_get_the_same_failure() -> None:
    provider = Counting()
    provider.errors = [AuthenticationError("no")]
    results = await asyncio.gather(*(provider.connect() for _ in range(10)), return_exceptions=True)
    assert {type(r) for r in results} == {AuthenticationError}
    assert provider.listed == 1


async def test_cancelling_one_caller_does_not_disturb_the_others() -> None:
    provider = Counting()
    provider.gate.clear()
    first = asyncio.create_task(provider.connect())
    second = asyncio.create_task(provider.connect())
    await provider.wait_for("connecting", 5)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    provider.gate.set()
    await second
    assert provider.status.status == "connected"
    assert provider.opened == 1


async def test_cancelling_the_last_caller_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    provider = Counting()
    record = Record(provider)
    provider.gate.clear()
    task = asyncio.create_task(provider.connect())
    await provider.wait_for("connecting", 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert record.statuses == ["connecting", "disconnected"]
    assert provider.opened == 1
    assert provider.closed
    assert asyncio.all_tasks() == before
    provider.gate.set()
    await provider.connect()  # and it can be tried again
    assert provider.usable


@pytest.mark.parametrize("steps", range(12))
async def test_connecting_can_be_cancelled_at_any_step(steps) -> None:
    provider = echo()
    task = asyncio.create_task(provider.connect())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert provider.status.status in ("disconnected", "connected")
    await provider.connect()
    assert provider.usable


async def test_callers_in_two_loops_share_one_attempt() -> None:
    provider = echo(connect_delay_s=0.05)
    record = Record(provider)
    elsewhere = threading.Thread(target=lambda: asyncio.run(provider.connect()))
    elsewhere.start()
    await provider.connect()
    await asyncio.to_thread(elsewhere.join)
    assert record.statuses == ["connecting", "connected"]


async def test_connecting_without_waiting_returns_at_once() -> None:
    provider = Counting()
    provider.gate.clear()
    await provider.connect(wait="none")
    await provider.wait_for("connecting", 5)
    provider.gate.set()
    await provider.wait_for("connected", 5)


async def test_waiting_until_ready_outlasts_an_outage() -> None:
    provider = echo()
    provider.go_offline()
    asyncio.get_running_loop().call_later(0.05, provider.go_online)
    await provider.connect(wait="ready", timeout_s=5)
    assert provider.status.status == "connected"
    await provider.close()


async def test_waiting_until_ready_ends_in_time_and_leaves_the_healing_on() -> None:
    provider = echo()
    provider.go_offline()
    with pytest.raises(RequestTimeoutError, match=r"0\.05 s"):
        await provider.connect(wait="ready", timeout_s=0.05)
    assert provider.status.status == "reconnecting"
    await provider.close()


async def test_waiting_until_ready_ends_with_the_error_that_needs_a_person() -> None:
    provider = Counting()
    provider.errors = [ProviderConnectionError("gone"), AuthenticationError("wrong key")]
    with pytest.raises(AuthenticationError, match="wrong key"):
        await provider.connect(wait="ready", timeout_s=5)
    assert provider.status.status == "failed"


async def test_waiting_until_ready_ends_when_somebody_disconnects() -> None:
    provider = echo(reconnect=Backoff(first_s=3600, max_s=3600))
    provider.go_offline()
    waiting = asyncio.create_task(provider.connect(wait="ready"))
    await provider.wait_for("reconnecting", 5)
    for _ in range(20):  # until the caller has begun to wait for the next attempt
        await asyncio.sleep(0)
    await provider.disconnect()
    with pytest.raises(RequestCancelledError):
        await waiting


async def test_reading_the_model_list_is_evidence_too() -> None:
    provider = Counting()
    await provider.get_available_models()
    assert provider.status.status == "connected"
    provider.set_models()
    await provider.get_available_models(refresh=True)
    assert (provider.status.status, provider.status.reason) == ("degraded", "no_models")
    provider.set_models("echo")
    await provider.get_available_models(refresh=True)
    assert provider.status.status == "connected"
    provider.errors = [ProviderConnectionError("gone", code="refused")]
    with pytest.raises(ProviderConnectionError):
        await provider.get_available_models(refresh=True)
    assert provider.status.status == "reconnecting"
    await provider.close()


async def test_a_server_without_models_is_degraded_not_connected() -> None:
    provider = echo(models=(), default_model="echo")
    await provider.connect()
    assert (provider.status.status, provider.status.reason) == ("degraded", "no_models")


async def test_a_mistake_in_a_provider_class_is_failed_and_says_so() -> None:
    class Broken(EchoProvider):
        async def _open(self) -> None:
            raise KeyError("forgotten")

    provider = Broken()
    with pytest.raises(LLMError, match="unexpected KeyError"):
        await provider.connect()
    assert (provider.status.status, provider.status.reason) == ("failed", "unexpected")


async def test_a_probe_that_never_answers_ends_with_a_timeout() -> None:
    provider = Counting()
    provider.gate.clear()

    async def open_only() -> None:
        provider.opened += 1

    provider._connection._open_provider = open_only
    with pytest.raises(RequestTimeoutError, match="probe"):
        await provider.connect()
    assert provider.status.reason == "timeout"
    await provider.close()


async def test_an_unknown_way_to_wait_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="'redy'"):
        await echo().connect(wait="redy")


async def test_a_mistake_of_the_provider_class_in_the_first_request_is_failed() -> None:
    class Broken(EchoProvider):
        async def _exchange(self, request):
            raise RuntimeError("a bug")
            yield

    provider = Broken()
    with pytest.raises(LLMError, match="unexpected RuntimeError"):
        await provider.generate_completion("echo", "x")
    assert (provider.status.status, provider.status.reason) == ("failed", "unexpected")


# ---- availability --------------------------------------------------------------------------------


async def test_availability_is_probed_once_for_all_who_ask() -> None:
    provider = Counting()
    answers = await asyncio.gather(*(provider.is_available() for _ in range(20)))
    assert answers == [True] * 20
    assert provider.listed == 1


async def test_asking_for_availability_does_not_connect() -> None:
    provider = Counting()
    record = Record(provider)
    assert await provider.is_available()
    assert "connecting" not in record.statuses
    assert provider.status.status == "disconnected"
    assert provider.opened == provider.closed == 1


async def test_fresh_evidence_is_believed_without_another_probe() -> None:
    provider = Counting()
    await provider.connect()
    assert await provider.is_available()
    assert provider.listed == 1


async def test_a_server_that_does_not_answer_is_unavailable_and_lost_after_three_looks() -> None:
    provider = Counting()
    await provider.connect()
    provider._connection._verified_s = None  # as if it were long ago
    provider.gate.clear()
    for expected in ("degraded", "degraded", "reconnecting"):
        assert not await provider.is_available()
        assert provider.status.status == expected
    assert provider.status.reason == "timeout"
    await provider.close()


async def test_asking_and_using_at_the_same_time_do_not_wait_for_each_other() -> None:
    provider = echo()
    async with asyncio.timeout(4):
        available, response = await asyncio.gather(
            provider.is_available(), provider.generate_completion("echo", "x")
        )
    assert (available, response.text) == (True, "x")


async def test_an_unreachable_provider_is_unavailable_without_an_error() -> None:
    provider = echo()
    provider.go_offline()
    assert not await provider.is_available()
    assert provider.status.status == "disconnected"


# ---- evidence ------------------------------------------------------------------------------------


async def test_a_request_connects_by_itself_and_is_the_evidence() -> None:
    provider = Counting()
    record = Record(provider)
    await provider.generate_completion("echo", "hi")
    assert record.statuses == ["connecting", "connected"]
    assert provider.listed == 0  # no probe was needed


ONCE = {"retries": {"attempts": 1}}


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (AuthenticationError("no"), "failed", "auth_invalid"),
        (AuthenticationError("none", code="auth_missing"), "failed", "auth_missing"),
        (QuotaExceededError("empty"), "failed", "quota_exhausted"),
        (ProviderConnectionError("gone", code="refused"), "reconnecting", "refused"),
        (ProviderConnectionError("gone", code="dns"), "reconnecting", "dns"),
        (ProviderConnectionError("gone", code="tls"), "reconnecting", "tls"),
        (ProviderOverloadedError("busy"), "reconnecting", "overloaded"),
        (RequestTimeoutError("late"), "reconnecting", "timeout"),
        (RateLimitError("slow", retry_after_s=60), "degraded", "rate_limited"),
        (InvalidRequestError("odd"), "connected", "recovered"),
    ],
)
async def test_the_first_answer_decides_the_status(error, status, reason) -> None:
    provider = echo()
    provider.script(EchoAnswer(error=error))
    with pytest.raises(type(error)):
        await provider.generate_completion("echo", "x", options=ONCE)
    assert (provider.status.status, provider.status.reason) == (status, reason)
    assert (provider.status.error is None) == (status == "connected")
    await provider.close()


async def test_late_answers_of_a_server_that_can_be_reached_open_the_circuit() -> None:
    provider = echo()
    await provider.connect()
    for count in range(1, 6):
        provider.script(EchoAnswer(error=RequestTimeoutError("late")))
        with pytest.raises(RequestTimeoutError):
            await provider.generate_completion("echo", "x", options=ONCE)
        assert provider.status.status == ("connected" if count < 5 else "reconnecting")
    assert (provider.status.reason, provider.status.circuit) == ("circuit_open", "open")
    await provider.close()


async def test_one_refused_request_does_not_fail_a_key_that_works() -> None:
    provider = Counting()
    await provider.connect()
    probed = provider.listed
    provider.script(EchoAnswer(error=AuthenticationError("a passing mistake of the service")))
    with pytest.raises(AuthenticationError):
        await provider.generate_completion("echo", "x")
    while provider.listed == probed:
        await asyncio.sleep(0)
    await provider._connection._attempt.settled()
    assert provider.status.status == "connected"


async def test_a_key_that_stopped_working_is_failed_after_one_more_look() -> None:
    provider = Counting()
    await provider.connect()
    provider.errors = [AuthenticationError("revoked")]
    provider.script(EchoAnswer(error=AuthenticationError("revoked")))
    with pytest.raises(AuthenticationError):
        await provider.generate_completion("echo", "x")
    state = await provider.wait_for("failed", 5)
    assert (state.reason, state.error.message) == ("auth_invalid", "revoked")


async def test_late_evidence_cannot_wake_a_provider_that_has_failed() -> None:
    provider = echo()
    await provider.connect()
    provider.script(
        EchoAnswer(delay_s=0.01, error=QuotaExceededError("empty")),
        EchoAnswer(delay_s=0.03, error=RateLimitError("slow")),
    )
    answers = await asyncio.gather(
        *(provider.generate_completion("echo", "x", options=ONCE) for _ in range(2)),
        return_exceptions=True,
    )
    assert [type(a) for a in answers] == [QuotaExceededError, RateLimitError]
    assert (provider.status.status, provider.status.reason) == ("failed", "quota_exhausted")


@pytest.mark.parametrize("asked_s", [1e20, float("inf"), float("nan"), -5])
async def test_a_wait_that_nobody_can_wait_for_does_no_harm(asked_s) -> None:
    provider = echo()
    provider.script(EchoAnswer(error=RateLimitError("slow", retry_after_s=asked_s)))
    with pytest.raises(RateLimitError):
        await provider.generate_completion("echo", "x", options=ONCE)
    assert provider.status.status == "degraded"
    await provider.close()


async def test_a_rate_limit_ends_with_its_cooldown() -> None:
    provider = echo()
    await provider.connect()
    provider.script(EchoAnswer(error=RateLimitError("slow", retry_after_s=0.03)))
    with pytest.raises(RateLimitError):
        await provider.generate_completion("echo", "x", options=ONCE)
    assert provider.status.reason == "rate_limited"
    assert provider.status.cooldown_until is not None
    state = await provider.wait_for("connected", 5)
    assert state.cooldown_until is None


async def test_a_rate_limit_without_a_time_lasts_until_the_next_answer() -> None:
    provider = echo()
    await provider.connect()
    record = Record(provider)
    for _ in range(3):
        provider.script(EchoAnswer(error=RateLimitError("slow")))
        with pytest.raises(RateLimitError):
            await provider.generate_completion("echo", "x", options=ONCE)
    assert provider.status.cooldown_until is None
    assert len(record.named("statusChanged")) == 1
    await provider.generate_completion("echo", "x")
    assert provider.status.status == "connected"


async def test_the_later_of_two_cooldowns_counts() -> None:
    provider = echo()
    await provider.connect()
    provider.script(
        EchoAnswer(error=RateLimitError("slow", retry_after_s=60)),
        EchoAnswer(error=RateLimitError("slow")),
    )
    for _ in range(2):
        with pytest.raises(RateLimitError):
            await provider.generate_completion("echo", "x", options=ONCE)
    assert (provider.status.cooldown_until - provider.status.since).total_seconds() > 50
    await provider.close()


async def test_a_failed_provider_is_given_another_chance_by_a_request() -> None:
    provider = echo()
    record = Record(provider)
    provider.script(EchoAnswer(error=AuthenticationError("no")))
    with pytest.raises(AuthenticationError):
        await provider.generate_completion("echo", "x")
    await provider.generate_completion("echo", "x")
    assert record.statuses == ["connecting", "failed", "connecting", "connected"]


async def test_a_request_stopped_before_any_answer_does_not_leave_connecting_behind() -> None:
    provider = echo()
    provider.script(EchoAnswer(hang_after_words=0))
    stream = provider.stream_completion("echo", "x")
    task = asyncio.ensure_future(stream)
    await provider.wait_for("connecting", 5)
    stream.cancel()
    with pytest.raises(RequestCancelledError):
        await task
    assert provider.status.status == "disconnected"


async def test_evidence_of_an_earlier_connection_changes_nothing() -> None:
    provider = echo()
    await provider.connect()
    epoch = provider.status.epoch
    await provider.disconnect()
    provider._connection.succeeded(epoch)
    provider._connection.failed(AuthenticationError("late news"), epoch)
    assert provider.status.status == "disconnected"
    assert provider._machine.stale_evidence == 2


# ---- healing -------------------------------------------------------------------------------------


async def test_a_lost_provider_comes_back_by_itself() -> None:
    provider = echo()
    await provider.connect()
    record = Record(provider)
    provider.go_offline()
    with pytest.raises(ProviderConnectionError):
        await provider.generate_completion("echo", "x", options=ONCE)
    await provider.wait_for(lambda s: s.attempt >= 3, 5)
    provider.go_online()
    await provider.wait_for("connected", 5)
    assert record.statuses == ["reconnecting", "connected"]
    attempts = [e.attempt for e in record.named("reconnectScheduled")]
    assert attempts == list(range(1, len(attempts) + 1))
    assert len(record.named("error")) == 1  # told once, not with every attempt


async def test_a_provider_that_is_lost_again_after_it_had_failed_is_healed() -> None:
    provider = echo(reconnect=Backoff(first_s=0.05, factor=1, jitter=0))
    provider.go_offline()
    with pytest.raises(ProviderConnectionError):
        await provider.connect()
    for error in (QuotaExceededError("empty"), None):
        provider.go_offline(error)
        with pytest.raises(LLMError):
            await provider.generate_completion("echo", "x", options=ONCE)
    assert provider.status.status == "reconnecting"
    provider.go_online()
    await provider.wait_for("connected", 5)


@pytest.mark.parametrize("steps", range(6))
def test_a_loop_that_ends_while_healing_begins_leaves_nobody_waiting(steps) -> None:
    provider = echo()

    async def main() -> None:
        await provider.connect()
        provider.go_offline()
        task = asyncio.ensure_future(provider.stream_completion("echo", "x", options=ONCE))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    asyncio.run(main())
    assert provider.status.status in ("disconnected", "connected")


async def test_a_provider_that_is_down_at_the_start_is_supervised() -> None:
    provider = echo()
    provider.go_offline()
    with pytest.raises(ProviderConnectionError):
        await provider.connect()
    assert provider.status.status == "reconnecting"
    assert provider.status.retry_at is not None or provider.status.attempt == 0
    provider.go_online()
    await provider.wait_for("connected", 5)


async def test_reconnect_now_ends_a_long_wait() -> None:
    provider = echo(reconnect=Backoff(first_s=3600, max_s=3600))
    provider.go_offline()
    with pytest.raises(ProviderConnectionError):
        await provider.connect()
    await provider.wait_for(lambda s: s.retry_at is not None, 5)
    provider.go_online()
    threading.Thread(target=provider.reconnect_now).start()
    await provider.wait_for("connected", 5)


async def test_a_successful_request_ends_the_healing() -> None:
    provider = echo(reconnect=Backoff(first_s=3600, max_s=3600))
    provider.go_offline()
    with pytest.raises(ProviderConnectionError):
        await provider.connect()
    provider.go_online()
    await provider.generate_completion("echo", "x")
    assert provider.status.status == "connected"
    assert provider.status.retry_at is None
    await provider.close()


async def test_a_broken_or_endless_listener_does_not_stop_the_healing(caplog) -> None:
    provider = echo()

    @provider.on("reconnecting")
    def broken(event):
        raise RuntimeError("a bug in somebody's status bar")

    @provider.on("reconnecting")
    async def endless(event):
        await asyncio.Event().wait()

    provider.go_offline()
    with pytest.raises(ProviderConnectionError):
        await provider.connect()
    provider.go_online()
    await provider.wait_for("connected", 5)
    assert "somebody's status bar" in caplog.text
    provider.remove_all_listeners()


def test_waits_grow_are_bounded_and_vary() -> None:
    backoff = Backoff(first_s=1, factor=1.6, max_s=60, jitter=0.2)
    for attempt in range(1, 200):
        expected = min(1.6 ** (attempt - 1), 60)
        delays = [backoff.delay_s(attempt) for _ in range(50)]
        assert all(expected * 0.8 - 1e-9 <= d <= min(expected * 1.2, 60) + 1e-9 for d in delays)
        assert len(set(delays)) > 1


def test_healing_ends_with_the_loop_that_it_ran_on() -> None:
    provider = echo(reconnect=Backoff(first_s=3600, max_s=3600))
    provider.go_offline()

    async def main() -> None:
        with pytest.raises(ProviderConnectionError):
            await provider.connect()

    asyncio.run(main())
    # Nobody tries any more, so nobody may read "reconnecting".
    assert (provider.status.status, provider.status.reason) == ("disconnected", "shutdown")
    provider.go_online()
    asyncio.run(provider.connect())
    assert provider.usable


def test_after_its_loop_has_ended_a_provider_is_found_and_closed_again() -> None:
    provider = Counting(reconnect=Backoff(first_s=3600, max_s=3600))
    provider.errors = [ProviderConnectionError("gone", code="refused")]

    async def main() -> None:
        with pytest.raises(ProviderConnectionError):
            await provider.connect()

    asyncio.run(main())
    assert provider.status.status == "disconnected"
    asyncio.run(provider.generate_completion("echo", "x"))
    assert provider.status.status == "connected"
    asyncio.run(provider.close())
    assert provider.closed == 1


def test_closing_after_the_loop_of_the_healing_has_ended_releases_the_provider() -> None:
    provider = Counting(reconnect=Backoff(first_s=3600, max_s=3600))
    provider.errors = [ProviderConnectionError("gone", code="refused")]

    async def main() -> None:
        with pytest.raises(ProviderConnectionError):
            await provider.connect()

    asyncio.run(main())
    asyncio.run(provider.close())
    assert provider.closed == 1


# ---- disconnect ----------------------------------------------------------------------------------


async def test_disconnecting_lets_the_running_request_end() -> None:
    provider = echo(words_per_s=100)
    record = Record(provider)
    task = asyncio.ensure_future(provider.stream_completion("echo", "one two three"))
    await provider.wait_for("connected", 5)
    await provider.disconnect()
    assert (await task).text == "one two three"
    assert record.statuses == ["connecting", "connected", "draining", "disconnected"]
    assert record.outcomes == ["ok"]


async def test_what_runs_too_long_is_cancelled_with_what_it_had() -> None:
    provider = echo()
    provider.script(EchoAnswer(text="one two", hang_after_words=1))
    task = asyncio.ensure_future(provider.stream_completion("echo", "x"))
    await provider.wait_for("connected", 5)
    await provider.disconnect(drain_timeout_s=0.02)
    with pytest.raises(RequestCancelledError, match="disconnected") as caught:
        await task
    assert caught.value.partial.text == "one "
    assert provider.status.reason == "drain_timeout"
    assert provider.status.in_flight == 0


async def test_a_second_call_shortens_the_drain() -> None:
    provider = echo()
    provider.script(EchoAnswer(text="one two", hang_after_words=1))
    task = asyncio.ensure_future(provider.stream_completion("echo", "x"))
    await provider.wait_for("connected", 5)
    slow = asyncio.create_task(provider.disconnect(drain_timeout_s=3600))
    await provider.wait_for("draining", 5)
    await provider.disconnect(drain_timeout_s=0)
    await slow
    with pytest.raises(RequestCancelledError):
        await task


async def test_no_new_work_is_taken_while_draining() -> None:
    provider = echo()
    provider.script(EchoAnswer(text="one two", hang_after_words=1))
    task = asyncio.ensure_future(provider.stream_completion("echo", "x"))
    await provider.wait_for("connected", 5)
    stopping = asyncio.create_task(provider.disconnect(drain_timeout_s=3600))
    await provider.wait_for("draining", 5)
    with pytest.raises(ProviderConnectionError, match="shutting down") as caught:
        await provider.generate_completion("echo", "y")
    assert caught.value.code == "draining"
    waiting = asyncio.create_task(provider.connect())  # waits its turn
    await provider.disconnect(drain_timeout_s=0)
    await asyncio.gather(stopping, waiting)
    assert provider.status.status == "connected"
    with pytest.raises(RequestCancelledError):
        await task


async def test_disconnecting_while_connecting_ends_the_attempt() -> None:
    provider = Counting()
    provider.gate.clear()
    connecting = asyncio.create_task(provider.connect())
    await provider.wait_for("connecting", 5)
    await provider.disconnect()
    with pytest.raises(RequestCancelledError):
        await connecting
    assert provider.status.status == "disconnected"


async def test_disconnecting_while_reconnecting_returns_at_once_and_stops_the_healing() -> None:
    provider = Counting(reconnect=Backoff(first_s=3600, max_s=3600))
    provider.errors = [ProviderConnectionError("gone", code="refused")]
    with pytest.raises(ProviderConnectionError):
        await provider.connect()
    before = asyncio.all_tasks() - {asyncio.current_task()}
    assert before  # the healing
    await provider.disconnect()
    await asyncio.wait(before, timeout=5)
    assert provider.status.status == "disconnected"
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_loop_that_ends_while_disconnecting_leaves_no_drain_behind() -> None:
    class Slow(EchoProvider):
        async def _open(self) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0.05)
                raise

    provider = Slow()

    async def main() -> None:
        tasks = [asyncio.create_task(provider.connect())]
        await provider.wait_for("connecting", 5)
        tasks.append(asyncio.create_task(provider.disconnect()))
        await provider.wait_for("draining", 5)

    asyncio.run(main())
    assert provider.status.status == "disconnected"


async def test_a_stream_that_was_not_started_is_not_ended_by_a_drain() -> None:
    provider = echo()
    provider.script(EchoAnswer(hang_after_words=0))
    running = asyncio.ensure_future(provider.stream_completion("echo", "x"))
    later = provider.stream_completion("echo", "y")
    while provider.status.in_flight == 0:
        await asyncio.sleep(0)
    await provider.disconnect(drain_timeout_s=0)
    with pytest.raises(RequestCancelledError):
        await running
    assert (await later).text == "y"


async def test_closing_is_final_and_can_be_repeated() -> None:
    provider = echo()
    await provider.connect()
    await provider.close()
    await provider.close()
    await provider.disconnect()
    assert provider.status.status == "closed"
    with pytest.raises(ProviderConnectionError, match="closed") as caught:
        await provider.connect()
    assert caught.value.code == "closed"
    with pytest.raises(ProviderConnectionError):
        await provider.generate_completion("echo", "x")
    assert not await provider.is_available()


async def test_waiting_for_a_status_ends_when_the_provider_is_closed() -> None:
    provider = echo()
    waiting = asyncio.create_task(provider.wait_for("connected"))
    await asyncio.sleep(0)
    await provider.close()
    with pytest.raises(ProviderConnectionError, match="closed"):
        await waiting
    with pytest.raises(ProviderConnectionError, match="closed"):
        await provider.wait_for("connected")


async def test_async_with_connects_and_closes() -> None:
    async with echo() as provider:
        assert provider.usable
    assert provider.status.status == "closed"


async def test_an_error_while_closing_is_reported_and_does_not_stop_it() -> None:
    class Sticky(EchoProvider):
        async def _close(self) -> None:
            raise OSError("the socket is stuck")

    provider = Sticky()
    record = Record(provider)
    await provider.connect()
    await provider.disconnect()
    assert provider.status.status == "disconnected"
    assert [e.operation for e in record.named("error")] == ["close"]


@pytest.mark.parametrize("wrong", [-1, "5"])
async def test_a_drain_time_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(InvalidParameterError, match="drain_timeout_s"):
        await echo().disconnect(drain_timeout_s=wrong)


def test_one_provider_serves_many_loops_one_after_another() -> None:
    provider = echo()
    for _ in range(20):
        response = asyncio.run(provider.generate_completion("echo", "hi"))
        assert response.text == "hi"
    assert provider.status.in_flight == 0


# ---- two things at once --------------------------------------------------------------------------


class SlowToLeave(Counting):
    """Takes its time when it is told to give up opening."""

    def __init__(self) -> None:
        super().__init__()
        self.gate.clear()
        self.opening, self.leave = asyncio.Event(), asyncio.Event()

    async def _open(self) -> None:
        self.opening.set()
        try:
            await super()._open()
        finally:
            await self.leave.wait()


async def test_a_request_that_is_cancelled_twice_while_it_opens_leaves_nothing_connecting() -> None:
    provider = SlowToLeave()
    asking = asyncio.ensure_future(provider.generate_completion("echo", "hi"))
    await provider.opening.wait()
    for _ in range(2):
        asking.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await asking
    provider.leave.set()
    await provider.wait_for("disconnected", timeout_s=5)


async def test_who_waits_to_connect_while_it_is_closed_is_told_so() -> None:
    provider = Counting()
    await provider.connect()
    provider.gate.clear()
    record = Record(provider)
    closing = asyncio.ensure_future(provider.close())
    await asyncio.sleep(0)
    connecting = asyncio.ensure_future(provider.connect())
    await closing
    with pytest.raises(ProviderConnectionError, match="closed"):
        await connecting
    assert record.statuses == ["draining", "disconnected", "closed"]


async def test_the_last_request_to_leave_ends_connecting_whenever_it_began() -> None:
    provider = echo()
    provider.script(
        EchoAnswer(hang_after_words=0),
        EchoAnswer(error=QuotaExceededError("spent", http_status=402)),
        EchoAnswer(hang_after_words=0),
    )
    await provider.connect()
    older = asyncio.ensure_future(provider.generate_completion("echo", "a"))
    while not provider.requests:
        await asyncio.sleep(0)
    with pytest.raises(QuotaExceededError):
        await provider.generate_completion("echo", "b")
    assert provider.status.status == "failed"
    newer = asyncio.ensure_future(provider.generate_completion("echo", "c"))
    await provider.wait_for("connecting", 5)
    for request in (newer, older):
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert provider.status.status == "disconnected"
