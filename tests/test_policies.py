"""Retries are bounded, visible and end with the first piece; clocks end what hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

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
from llm_manager.messages import Delta, TextDelta
from llm_manager.policy import Exchange, Stage, chain
from llm_manager.policy.retry import RetryBudget

from .helpers import Record, echo

NO_WAIT = Retries(attempts=3, wait_s=0, wait_max_s=0)


def request(**options: object) -> LLMRequest:
    return LLMRequest(
        id="r", model="m", messages=(LLMMessage.user("x"),), options=LLMRequestOptions(**options)
    )


class Script:
    """An exchange that plays one list of steps per attempt: texts, errors, or ``None`` to hang."""

    def __init__(self, *attempts: list[str | LLMError | None]) -> None:
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
                else:
                    raise type(step)(step.message, retry_after_s=step.retry_after_s)
        finally:
            self.open -= 1


async def run(stage: Stage, script: Script, asked: LLMRequest | None = None) -> tuple[list, list]:
    events: list = []
    exchange: Exchange = stage.wrap(script, events.append)
    return [d.text async for d in exchange(asked or request())], events


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

    exchange = RetryPolicy(NO_WAIT).wrap(careless, lambda e: None)
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
    policy = RetryPolicy(NO_WAIT).wrap(script, lambda e: None)
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
    exchange = RetryPolicy(NO_WAIT, budget_tokens=50).wrap(script, lambda e: None)

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


# ---- deadline ------------------------------------------------------------------------------------

SHORT = 0.03


@pytest.mark.parametrize(
    ("steps", "limits", "error", "code", "text"),
    [
        ([None], {"first_token_s": SHORT}, RequestTimeoutError, "first_token_timeout", "no first"),
        (["a", None], {"idle_s": SHORT}, StreamInterruptedError, "idle_timeout", "silent"),
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
    exchange = DeadlinePolicy(Timeouts(idle_s=SHORT)).wrap(Script(["a", "b", "c"]), lambda e: None)
    texts = []
    async for delta in exchange(request()):
        await asyncio.sleep(2 * SHORT)
        texts.append(delta.text)
    assert texts == ["a", "b", "c"]


async def test_the_total_clock_runs_while_the_reader_thinks() -> None:
    exchange = DeadlinePolicy(Timeouts(total_s=SHORT)).wrap(Script(["a", "b"]), lambda e: None)
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

    exchange = DeadlinePolicy(Timeouts(connect_s=7)).wrap(transport, lambda e: None)
    for given in (None, Timeouts(connect_s=3)):
        assert [d.text async for d in exchange(request(timeouts=given))] == ["x"]
    assert seen == [7, 3]


async def test_an_ended_request_leaves_no_timer_behind() -> None:
    await run(DeadlinePolicy(Timeouts(total_s=3600)), Script(["a"]))
    timers = asyncio.get_running_loop()._scheduled  # the loop itself keeps the list
    assert [t for t in timers if not t.cancelled()] == []


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "10", True])
def test_a_time_limit_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(InvalidParameterError, match=r"timeouts\.idle_s"):
        Timeouts(idle_s=wrong)


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

        def wrap(self, exchange, publish):
            async def named(request):
                seen.append(self.name)
                async for delta in exchange(request):
                    yield delta

            return named

    exchange = chain([Named("outer"), Named("inner")], Script(["a"]), lambda e: None)
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
