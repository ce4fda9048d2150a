"""Retries are bounded, visible and end with the first piece; clocks end what hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest

from llm_manager import (
    AuthenticationError,
    DeadlinePolicy,
    EchoAnswer,
    InvalidParameterError,
    LLMError,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    ProviderConnectionError,
    RateLimitError,
    RequestTimeoutError,
    Retries,
    RetryPolicy,
    StreamInterruptedError,
    Timeouts,
)
from llm_manager.messages import Delta, KeepAliveDelta, TextDelta
from llm_manager.policy import Exchange, Stage, chain
from llm_manager.policy.retry import RetryBudget

from .helpers import FakeHost, Record, echo

NO_WAIT = Retries(attempts=3, wait_s=0, wait_max_s=0)


def request(**options: object) -> LLMRequest:
    return LLMRequest(
        id="r", model="m", messages=(LLMMessage.user("x"),), options=LLMRequestOptions(**options)
    )


ALIVE = KeepAliveDelta()
Step = str | float | LLMError | KeepAliveDelta | None


class Script:
    """An exchange that plays one list of steps per attempt.

    A step is a text, an error, a pause in seconds, a sign of life, or ``None`` to hang.
    """

    def __init__(self, *attempts: list[Step]) -> None:
        self._attempts = list(attempts)
        self.sent = 0
        self.open = 0

    async def __call__(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        steps = self._attempts[min(self.sent, len(self._attempts) - 1)]
        self.sent += 1
        self.open += 1
        try:
            for step in steps:
                if step is None:
                    await asyncio.Event().wait()
                elif isinstance(step, str):
                    yield TextDelta(step)
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, KeepAliveDelta):
                    yield step
                else:
                    raise type(step)(step.message, retry_after_s=step.retry_after_s)
        finally:
            self.open -= 1


async def run(stage: Stage, script: Script, asked: LLMRequest | None = None) -> tuple[list, list]:
    host = FakeHost()
    exchange: Exchange = stage.wrap(script, host)
    return [getattr(d, "text", "") async for d in exchange(asked or request())], host.events


# ---- retry ---------------------------------------------------------------------------------------


async def test_a_passing_failure_is_repeated_and_announced() -> None:
    script = Script([ProviderConnectionError("gone")], [RateLimitError("slow")], ["ok"])
    texts, events = await run(RetryPolicy(NO_WAIT), script)
    assert (texts, script.sent) == (["ok"], 3)
    assert [(e.attempt, e.of, e.error.code) for e in events] == [
        (1, 3, "connection"),
        (2, 3, "rate_limited"),
    ]
    assert all(e.request_id == "r" for e in events)


async def test_a_plain_connection_error_of_a_provider_class_is_repeated_too() -> None:
    sent = 0

    async def careless(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        nonlocal sent
        sent += 1
        if sent == 1:
            raise ConnectionResetError("by peer")
        yield TextDelta("ok")

    exchange = RetryPolicy(NO_WAIT).wrap(careless, FakeHost())
    assert [d.text async for d in exchange(request())] == ["ok"]


async def test_a_lasting_failure_is_not_repeated() -> None:
    script = Script([AuthenticationError("no")])
    with pytest.raises(AuthenticationError):
        await run(RetryPolicy(NO_WAIT), script)
    assert script.sent == 1


async def test_the_last_error_is_raised_as_it_is_after_the_last_attempt() -> None:
    script = Script([ProviderConnectionError("1")], [ProviderConnectionError("2")])
    with pytest.raises(ProviderConnectionError, match="2"):
        await run(RetryPolicy(Retries(attempts=2, wait_s=0, wait_max_s=0)), script)
    assert script.sent == 2


async def test_nothing_is_repeated_once_a_piece_was_delivered() -> None:
    script = Script(["one", StreamInterruptedError("cut")], ["two"])
    policy = RetryPolicy(NO_WAIT).wrap(script, FakeHost())
    texts = []
    with pytest.raises(StreamInterruptedError):
        async for delta in policy(request()):
            texts.append(delta.text)
    assert (texts, script.sent, script.open) == (["one"], 1, 0)


@pytest.mark.parametrize(("asked_s", "waited_s"), [(0.02, 0.02), (None, 0.0)])
async def test_the_wait_that_the_provider_asks_for_counts_if_it_is_longer(
    asked_s, waited_s
) -> None:
    script = Script([RateLimitError("slow", retry_after_s=asked_s)], ["ok"])
    _, events = await run(RetryPolicy(NO_WAIT), script)
    assert events[0].wait_s == pytest.approx(waited_s)


async def test_a_wait_above_the_bound_ends_the_request_at_once() -> None:
    script = Script([RateLimitError("come back tomorrow", retry_after_s=86_400)], ["ok"])
    with pytest.raises(RateLimitError) as caught:
        await run(RetryPolicy(NO_WAIT), script)
    assert caught.value.retry_after_s == 86_400
    assert script.sent == 1


async def test_one_request_can_have_other_retries_than_its_provider() -> None:
    script = Script([ProviderConnectionError("gone")])
    with pytest.raises(ProviderConnectionError):
        await run(RetryPolicy(NO_WAIT), script, request(retries=Retries(attempts=1)))
    assert script.sent == 1


async def test_waiting_for_the_next_attempt_can_be_cancelled() -> None:
    provider = echo(policies=[RetryPolicy(Retries(attempts=2, wait_s=60, wait_max_s=60))])
    provider.script(EchoAnswer(error=RateLimitError("slow", retry_after_s=59)))
    scheduled = asyncio.get_running_loop().create_future()
    provider.once("retryScheduled", scheduled.set_result)
    stream = provider.stream_completion("echo", "x")
    task = asyncio.ensure_future(stream)
    event = await asyncio.wait_for(scheduled, 5)
    assert (event.wait_s, event.provider_id) == (59, "echo")
    stream.cancel()
    with pytest.raises(LLMError) as caught:
        await asyncio.wait_for(task, 5)
    assert caught.value.code == "cancelled"
    await provider.close()


def test_an_outage_spends_the_budget_and_successes_refill_it() -> None:
    budget = RetryBudget(20)
    gone, late = ProviderConnectionError("gone"), RequestTimeoutError("late")
    assert [budget.take(gone), budget.take(late), budget.take(gone)] == [True, True, True]
    assert not budget.take(gone)
    for _ in range(5):
        budget.refund()
    assert budget.take(gone)
    for _ in range(100):
        budget.refund()
    assert [budget.take(gone) for _ in range(5)] == [True] * 4 + [False]


async def test_many_failing_requests_share_one_budget() -> None:
    script = Script([ProviderConnectionError("gone")])
    exchange = RetryPolicy(NO_WAIT, budget_tokens=50).wrap(script, FakeHost())

    async def one() -> None:
        with pytest.raises(ProviderConnectionError):
            async for _ in exchange(request()):
                pass

    await asyncio.gather(*(one() for _ in range(200)))
    assert script.sent == 200 + 10  # 50 tokens pay for ten retries


async def test_one_policy_object_keeps_the_budgets_of_two_providers_apart() -> None:
    policy = RetryPolicy(Retries(attempts=2, wait_s=0, wait_max_s=0), budget_tokens=5)
    for _ in range(2):
        script = Script([ProviderConnectionError("gone")], ["ok"])
        assert (await run(policy, script))[0] == ["ok"]


async def test_a_sign_of_life_does_not_end_the_time_for_retries() -> None:
    script = Script([ALIVE, ALIVE, ProviderConnectionError("gone")], [ALIVE, "ok", ALIVE])
    texts, events = await run(RetryPolicy(NO_WAIT), script)
    assert (texts, script.sent, len(events)) == (["ok", ""], 2, 1)


async def test_an_answer_of_nothing_but_signs_of_life_is_an_empty_one() -> None:
    assert (await run(RetryPolicy(NO_WAIT), Script([ALIVE, ALIVE])))[0] == []


async def test_a_provider_that_says_at_once_is_taken_at_its_word() -> None:
    policy = RetryPolicy(Retries(attempts=2, wait_s=60, wait_max_s=60))
    texts, events = await run(policy, Script([RateLimitError("now", retry_after_s=0)], ["ok"]))
    assert (texts, events[0].wait_s) == (["ok"], 0)


async def test_an_error_with_a_wait_above_the_bound_says_when_it_makes_sense_again() -> None:
    began = datetime.now(UTC)
    with pytest.raises(RateLimitError) as caught:
        await run(RetryPolicy(NO_WAIT), Script([RateLimitError("later", retry_after_s=3600)]))
    error = caught.value
    assert error.retry_at is not None
    assert timedelta(0) <= error.retry_at - began - timedelta(hours=1) < timedelta(minutes=1)
    assert "3600 s" in (error.hint or "")
    assert "retry_after_max_s (60 s)" in (error.hint or "")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"retries": 3}, "retries must be Retries"),
        ({"budget_tokens": -1}, "budget_tokens must be at least 0"),
        ({"budget_tokens": 2.5}, "budget_tokens must be a whole number"),
    ],
)
def test_settings_of_retries_that_cannot_be_are_refused(settings, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        RetryPolicy(**settings)


# ---- deadline ------------------------------------------------------------------------------------

SHORT = 0.03


@pytest.mark.parametrize(
    ("steps", "limits", "error", "code", "text"),
    [
        ([None], {"first_token_s": SHORT}, RequestTimeoutError, "first_token_timeout", "no first"),
        (["a", None], {"idle_s": SHORT}, StreamInterruptedError, "idle_timeout", "silent"),
        (
            ["a", *[ALIVE, SHORT / 10] * 100],
            {"content_idle_s": SHORT},
            StreamInterruptedError,
            "content_idle_timeout",
            "the connection is alive, but the answer has not gone on",
        ),
        ([None], {"total_s": SHORT}, RequestTimeoutError, "total_timeout", "in total"),
        (["a", None], {"total_s": SHORT}, RequestTimeoutError, "total_timeout", "in total"),
    ],
)
async def test_each_clock_ends_the_request_with_its_own_error(
    steps, limits, error, code, text
) -> None:
    script = Script(steps)
    with pytest.raises(error, match=text) as caught:
        await run(DeadlinePolicy(Timeouts(**limits)), script)
    assert caught.value.code == code
    assert f"{SHORT:g} s" in str(caught.value)
    assert "timeouts." in (caught.value.hint or "")
    assert script.open == 0


async def test_a_slow_reader_is_not_taken_for_a_silent_provider() -> None:
    exchange = DeadlinePolicy(Timeouts(idle_s=SHORT)).wrap(Script(["a", "b", "c"]), FakeHost())
    texts = []
    async for delta in exchange(request()):
        await asyncio.sleep(2 * SHORT)
        texts.append(delta.text)
    assert texts == ["a", "b", "c"]


async def test_the_total_clock_runs_while_the_reader_thinks() -> None:
    exchange = DeadlinePolicy(Timeouts(total_s=SHORT)).wrap(Script(["a", "b"]), FakeHost())
    with pytest.raises(RequestTimeoutError, match="in total"):
        async for _ in exchange(request()):
            await asyncio.sleep(2 * SHORT)


async def test_pieces_that_keep_coming_keep_the_idle_clock_from_running_out() -> None:
    provider = echo(timeouts=Timeouts(idle_s=0.5, first_token_s=5), words_per_s=200)
    answer = " ".join(["word"] * 60)
    assert (await provider.generate_completion("echo", answer)).text == answer


async def test_one_request_can_have_other_limits_than_its_provider() -> None:
    provider = echo(timeouts=Timeouts(first_token_s=60))
    provider.script(EchoAnswer(delay_s=60))
    with pytest.raises(RequestTimeoutError, match=r"0\.03 s"):
        await provider.generate_completion(
            "echo", "x", options={"timeouts": {"firstTokenS": SHORT}, "retries": {"attempts": 1}}
        )
    await provider.close()


async def test_the_connect_clock_of_the_policy_reaches_the_transport() -> None:
    seen = []

    async def transport(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        seen.append(request.options.timeouts.connect_s)
        yield TextDelta("x")

    exchange = DeadlinePolicy(Timeouts(connect_s=7)).wrap(transport, FakeHost())
    for given in (None, Timeouts(connect_s=3)):
        assert [d.text async for d in exchange(request(timeouts=given))] == ["x"]
    assert seen == [7, 3]


async def test_an_ended_request_leaves_no_timer_behind() -> None:
    await run(DeadlinePolicy(Timeouts(total_s=3600)), Script(["a"]))
    timers = asyncio.get_running_loop()._scheduled  # the loop itself keeps the list
    assert [t for t in timers if not t.cancelled()] == []


async def test_signs_of_life_keep_the_idle_clock_from_running_out_and_reach_no_reader() -> None:
    script = Script([ALIVE, "a", *[ALIVE, 0.1] * 8, "b"])
    texts, _ = await run(DeadlinePolicy(Timeouts(idle_s=0.6, content_idle_s=60)), script)
    assert texts == ["a", "b"]


async def test_signs_of_life_do_not_stop_the_clock_of_the_first_piece() -> None:
    script = Script([*[ALIVE, SHORT / 10] * 100])
    with pytest.raises(RequestTimeoutError) as caught:
        await run(DeadlinePolicy(Timeouts(first_token_s=SHORT)), script)
    assert caught.value.code == "first_token_timeout"


async def test_each_piece_begins_the_clock_of_content_anew() -> None:
    script = Script([*["a", ALIVE, 0.15, ALIVE] * 6])
    limits = Timeouts(idle_s=60, content_idle_s=0.7)
    assert (await run(DeadlinePolicy(limits), script))[0] == ["a"] * 6


async def stalls(steps: list[Step], **limits: float) -> tuple[list, LLMError | None]:
    """The ``streamStalled`` events of one answer, and its error if it has one."""
    host, failure = FakeHost(), None
    exchange = DeadlinePolicy(Timeouts(**limits)).wrap(Script(steps), host)
    try:
        async for _ in exchange(request()):
            pass
    except LLMError as error:
        failure = error
    return host.named("streamStalled"), failure


async def test_a_silence_is_announced_once_when_half_of_its_limit_has_passed() -> None:
    events, failure = await stalls(["a", None], idle_s=0.2)
    assert failure is not None
    assert failure.code == "idle_timeout"
    (event,) = events
    assert (event.request_id, event.alive) == ("r", False)
    assert 0.1 <= event.silent_s < 0.2
    assert 0 < event.fails_in_s <= 0.1


async def test_each_silence_is_announced_anew() -> None:
    events, failure = await stalls(["a", 0.7, "b", 0.7, "c", "d"], idle_s=1.3)
    assert failure is None
    assert len(events) == 2


async def test_a_silence_with_a_long_limit_is_announced_after_a_fixed_time(monkeypatch) -> None:
    monkeypatch.setattr("llm_manager.policy.deadline._STALLED_S", 0.1)
    events, _ = await stalls(["a", 0.4, "b", 0.4, "c"], idle_s=60, content_idle_s=300)
    assert len(events) == 2
    assert all(0.1 <= event.silent_s < 0.4 for event in events)


async def test_an_answer_that_keeps_coming_is_not_called_stalled() -> None:
    events, failure = await stalls([*["a", 0.1] * 14], idle_s=2)
    assert (events, failure) == ([], None)


async def test_a_silence_before_the_first_piece_is_not_a_stalled_stream() -> None:
    events, failure = await stalls([None], idle_s=0.02, first_token_s=0.1)
    assert failure is not None
    assert (events, failure.code) == ([], "first_token_timeout")


async def test_a_silence_with_signs_of_life_says_that_it_is_alive() -> None:
    events, failure = await stalls(["a", *[ALIVE, 0.02] * 50], idle_s=60, content_idle_s=0.3)
    assert failure is not None
    assert failure.code == "content_idle_timeout"
    (event,) = events
    assert event.alive
    assert event.silent_s >= 0.14


async def test_where_nothing_limits_a_silence_none_is_announced() -> None:
    never = float("inf")
    events, _ = await stalls(["a", 0.05, "b"], idle_s=never, content_idle_s=never, total_s=never)
    assert events == []


async def test_time_in_which_the_process_stood_still_is_forgiven(monkeypatch) -> None:
    monkeypatch.setattr("llm_manager.policy.deadline._LATE_S", 0.2)
    host, stopped = FakeHost(), asyncio.Event()

    async def answer(asked: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield TextDelta("before")
        await stopped.wait()
        yield TextDelta("after")

    exchange = DeadlinePolicy(Timeouts(idle_s=1, total_s=1.2)).wrap(answer, host)
    reading = asyncio.ensure_future(_texts(exchange(request())))
    await asyncio.sleep(0.05)
    time.sleep(1.5)  # as if this process had been stopped: no timer fires
    await asyncio.sleep(0.05)
    stopped.set()
    assert await reading == ["before", "after"]


async def _texts(deltas: AsyncGenerator[Delta, None]) -> list[str]:
    return [delta.text async for delta in deltas]


def test_time_limits_of_another_type_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="timeouts must be Timeouts, got 10"):
        DeadlinePolicy(10)


@pytest.mark.parametrize("name", Timeouts.__struct_fields__)
@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "10", True])
def test_a_time_limit_that_cannot_be_is_refused(name, wrong) -> None:
    with pytest.raises(InvalidParameterError, match=rf"timeouts\.{name}"):
        Timeouts(**{name: wrong})


@pytest.mark.parametrize(
    ("field", "wrong"), [("attempts", 0), ("attempts", 1.5), ("wait_s", -1), ("wait_max_s", "1")]
)
def test_retries_that_cannot_be_are_refused(field, wrong) -> None:
    with pytest.raises(InvalidParameterError, match=rf"retries\.{field}"):
        Retries(**{field: wrong})


# ---- together ------------------------------------------------------------------------------------


async def test_stages_nest_in_the_order_in_which_they_are_given() -> None:
    seen = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def wrap(self, exchange, host):
            async def named(request):
                seen.append(self.name)
                async for delta in exchange(request):
                    yield delta

            return named

    exchange = chain([Named("outer"), Named("inner")], Script(["a"]), FakeHost())
    assert [d.text async for d in exchange(request())] == ["a"]
    assert seen == ["outer", "inner"]


async def test_attempts_are_counted_in_the_answer_and_in_the_event() -> None:
    provider = echo(policies=[RetryPolicy(NO_WAIT)])
    record = Record(provider)
    provider.script(EchoAnswer(error=RateLimitError("slow")), EchoAnswer(text="ok"))
    response = await provider.generate_completion("echo", "x")
    assert response.timings.attempts == 2
    assert record.named("requestFinished")[0].attempts == 2
    await provider.close()


async def test_a_provider_without_policies_sends_once() -> None:
    provider = echo(policies=[])
    record = Record(provider)
    provider.script(EchoAnswer(error=RateLimitError("slow")))
    with pytest.raises(RateLimitError):
        await provider.generate_completion("echo", "x")
    assert record.named("requestFinished")[0].attempts == 1
    await provider.close()
