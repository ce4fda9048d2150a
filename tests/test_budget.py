"""A budget of tokens or money: what is refused, and what is counted however a request ends."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import subprocess
import sys
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from llm_manager import (
    BudgetExceededError,
    BudgetPolicy,
    CachePolicy,
    EchoProvider,
    InvalidParameterError,
    LLMProviderManager,
    PriceBook,
    ProviderOverloadedError,
    RequestCancelledError,
    RequestFinished,
    RequestTimeoutError,
    Retries,
    StreamInterruptedError,
)
from llm_manager.messages import (
    Delta,
    FinishDelta,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    TextDelta,
    Usage,
    UsageDelta,
)
from llm_manager.testing import ScriptedProvider
from llm_manager.testing.clock import FakeClock
from llm_manager.tokens import estimate_prompt_tokens, estimate_text_tokens
from tests.helpers import FakeHost, echo

# What `ask` might take, and what it takes by the count of the provider.
MIGHT = estimate_prompt_tokens(LLMRequest(id="r", model="m", messages=(LLMMessage.user("hi"),))) + 5
TAKES = 2
ANSWER = "twelve chars"
ONE_USD_PER_THOUSAND = {"input_usd": 1000, "output_usd": 1000}


def dear_book(pattern: str = "*/*") -> PriceBook:
    return PriceBook({pattern: ONE_USD_PER_THOUSAND}, public=False)


def limited(provider: Any, **settings: Any) -> tuple[Any, BudgetPolicy]:
    budget = BudgetPolicy(**settings)
    provider.add_policy(budget)
    return provider, budget


async def ask(provider: Any, text: str = "hi", **options: Any) -> Any:
    return await provider.generate_completion(None, text, options={"max_tokens": 5, **options})


# ---- limits --------------------------------------------------------------------------------------


async def test_what_does_not_fit_into_the_day_is_not_sent() -> None:
    provider, budget = limited(echo(), max_tokens_per_day=30)
    async with provider:
        while budget.left.tokens >= MIGHT:
            await ask(provider)
        sent = len(provider.requests)
        with pytest.raises(BudgetExceededError) as caught:
            await ask(provider)
        assert len(provider.requests) == sent > 2
    error = caught.value
    assert (error.code, error.budget, error.limit) == ("budget_exceeded", "tokens_per_day", 30)
    assert error.used == budget.spent.tokens
    assert error.needed == MIGHT
    assert error.used + error.needed > 30
    assert not error.retryable
    assert "30 tokens per day" in str(error)


async def test_a_refusal_says_when_the_next_day_begins() -> None:
    provider, budget = limited(echo(), max_tokens_per_day=MIGHT + 1)
    async with provider:
        await ask(provider)
        with pytest.raises(BudgetExceededError) as caught:
            await ask(provider)
    retry_at = caught.value.retry_at
    assert retry_at == budget.left.resets_at
    assert retry_at.astimezone(UTC).time() == datetime.min.time()
    assert timedelta(0) < retry_at - datetime.now(UTC) <= timedelta(days=1)


async def test_a_request_that_is_too_large_for_any_day_is_not_told_to_wait() -> None:
    provider, _ = limited(echo(), max_tokens_per_day=100)
    async with provider:
        with pytest.raises(BudgetExceededError) as caught:
            await ask(provider, max_tokens=5000)
    assert caught.value.retry_at is None
    assert "max_tokens" in str(caught.value)


async def test_the_next_day_begins_anew() -> None:
    clock = FakeClock()
    provider, budget = limited(echo(), max_tokens_per_day=MIGHT + 1, clock=clock)
    async with provider:
        await ask(provider)
        with pytest.raises(BudgetExceededError):
            await ask(provider)
        clock.advance(86_400)
        assert budget.spent.tokens == 0
        await ask(provider)


async def test_days_begin_at_midnight_of_a_chosen_place() -> None:
    place = timezone(timedelta(hours=5, minutes=30))
    resets_at = BudgetPolicy(max_tokens_per_day=1, timezone=place).left.resets_at
    assert resets_at is not None
    assert resets_at.astimezone(place).time() == datetime.min.time()


async def test_a_request_may_be_too_large_by_itself() -> None:
    provider, budget = limited(echo(), max_tokens_per_request=20)
    async with provider:
        await ask(provider)
        with pytest.raises(BudgetExceededError) as caught:
            await ask(provider, "word " * 40)
        assert caught.value.budget == "tokens_per_request"
        with pytest.raises(BudgetExceededError):
            await ask(provider, max_tokens=100)
    assert budget.left.tokens is None


async def test_each_conversation_has_its_own_budget() -> None:
    provider, budget = limited(echo(), max_tokens_per_conversation=MIGHT + 1)
    async with provider:
        await ask(provider, conversation_id="a")
        with pytest.raises(BudgetExceededError) as caught:
            await ask(provider, conversation_id="a")
        assert caught.value.budget == "tokens_per_conversation"
        assert caught.value.retry_at is None
        await ask(provider, conversation_id="b")
        await ask(provider)
        await ask(provider)
    assert budget.spent_in("a").tokens == budget.spent_in("b").tokens == 2
    assert budget.left_in("a").tokens == MIGHT + 1 - TAKES
    assert budget.spent.tokens == 8


async def test_a_budget_of_money_is_counted_in_money() -> None:
    provider, budget = limited(echo(), max_usd_per_day=0.02, prices=dear_book())
    async with provider:
        await ask(provider)
        assert budget.spent.usd == 0.002
        assert budget.left.usd == 0.018
        with pytest.raises(BudgetExceededError) as caught:
            await ask(provider, max_tokens=50)
    assert caught.value.budget == "usd_per_day"
    assert (caught.value.limit, caught.value.used) == (0.02, 0.002)


@pytest.mark.parametrize("scope", ["request", "conversation"])
async def test_money_may_be_limited_per_request_and_per_conversation(scope: str) -> None:
    settings = {f"max_usd_per_{scope}": 0.012}
    provider, _ = limited(echo(), prices=dear_book(), **settings)
    async with provider:
        await ask(provider, conversation_id="a")
        with pytest.raises(BudgetExceededError) as caught:
            await ask(provider, conversation_id="a", max_tokens=10)
    assert caught.value.budget == f"usd_per_{scope}"


async def test_a_limit_of_zero_lets_nothing_pass() -> None:
    provider, _ = limited(echo(), max_tokens_per_day=0)
    async with provider:
        with pytest.raises(BudgetExceededError):
            await ask(provider)


async def test_a_budget_without_limits_only_counts() -> None:
    provider, budget = limited(echo())
    async with provider:
        await ask(provider, "one two three")
    assert (budget.spent.tokens, budget.spent.usd) == (6, None)
    assert (budget.left.tokens, budget.left.usd) == (None, None)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_tokens_per_request": -1},
        {"max_tokens_per_conversation": -1},
        {"max_tokens_per_day": -1},
        {"max_usd_per_request": -0.01},
        {"max_usd_per_conversation": -0.01},
        {"max_usd_per_day": -0.01},
        {"max_tokens_per_day": 1.5},
        {"max_usd_per_day": "5"},
        {"max_usd_per_day": float("nan")},
        {"max_usd_per_day": float("inf")},
        {"answer_tokens": -1},
        {"max_conversations": 0},
        {"unknown": "ignore"},
        {"prices": {"a/b": 1}},
        {"timezone": "Europe/Berlin"},
        {"models": ()},
        {"models": 5},
        {"models": {"gpt-4o": 1}},
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        BudgetPolicy(**settings)
    assert next(iter(settings)) in str(caught.value)


# ---- whose ---------------------------------------------------------------------------------------


async def test_one_object_on_a_manager_is_one_budget_for_all() -> None:
    manager, budget = LLMProviderManager(), BudgetPolicy(max_tokens_per_day=MIGHT + 1)
    manager.add_policy(budget)
    one, two = echo(id="one"), echo(id="two")
    manager.register_provider(one)
    manager.register_provider(two)
    await ask(one)
    with pytest.raises(BudgetExceededError):
        await ask(two)
    await manager.close(0)


async def test_only_models_that_fit_a_pattern_are_limited_and_counted() -> None:
    models = ("big-1", "small")
    provider, budget = limited(echo(models=models), max_tokens_per_day=0, models="big-*")
    async with provider:
        await provider.generate_completion("small", "hi")
        with pytest.raises(BudgetExceededError):
            await provider.generate_completion("big-1", "hi")
    assert budget.spent.tokens == 0


async def test_a_provider_that_passes_requests_on_is_not_counted_twice() -> None:
    host = FakeHost()
    host.is_composite = True

    async def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield TextDelta("x")

    assert BudgetPolicy(max_tokens_per_day=0).wrap(exchange, host) is exchange


# ---- reservations --------------------------------------------------------------------------------


async def test_requests_at_the_same_time_cannot_overspend_together() -> None:
    provider, budget = limited(echo(words_per_s=1000), max_tokens_per_day=5 * MIGHT + 1)
    async with provider:
        results = await asyncio.gather(
            *(ask(provider, max_tokens=5) for _ in range(20)), return_exceptions=True
        )
    answered = [r for r in results if not isinstance(r, Exception)]
    assert len(answered) == 5
    assert all(isinstance(r, BudgetExceededError) for r in results if r not in answered)
    assert (budget.spent.tokens, budget.spent.reserved_tokens) == (5 * TAKES, 0)


async def test_what_a_running_request_might_take_is_reserved() -> None:
    provider = ScriptedProvider().hang(text="one two three", after_words=1)
    provider, budget = limited(
        provider, max_tokens_per_day=100, max_usd_per_day=1, prices=dear_book()
    )
    async with provider:
        stream = provider.stream_completion(None, "hi", options={"max_tokens": 50})
        events = aiter(stream)
        await anext(events)
        might = MIGHT + 45
        assert (budget.spent.tokens, budget.spent.reserved_tokens) == (0, might)
        assert budget.spent.reserved_usd == might / 1000
        assert (budget.left.tokens, budget.left.usd) == (100 - might, 1 - might / 1000)
        await events.aclose()
        await stream.aclose()
    assert budget.spent.reserved_tokens == 0
    assert budget.spent.reserved_usd == 0


async def test_where_max_tokens_is_not_given_a_usual_answer_is_reserved() -> None:
    provider, _ = limited(echo(), max_tokens_per_request=300, answer_tokens=200)
    async with provider:
        await provider.generate_completion(None, "hi")
    provider, _ = limited(echo(), max_tokens_per_request=300, answer_tokens=400)
    async with provider:
        with pytest.raises(BudgetExceededError):
            await provider.generate_completion(None, "hi")


async def test_an_embedding_has_no_answer_to_reserve_for() -> None:
    provider = ScriptedProvider().vectors([1.0])
    provider, budget = limited(provider, max_tokens_per_request=20)
    async with provider:
        await provider.embed("scripted", ["a text"])
    assert 0 < budget.spent.tokens < 20


# ---- how a request ends --------------------------------------------------------------------------


async def test_the_count_of_the_service_takes_the_place_of_the_estimate() -> None:
    provider, budget = limited(echo(), max_tokens_per_day=10_000)
    async with provider:
        answer = await ask(provider, "one two three", max_tokens=500)
    assert budget.spent.tokens == answer.usage.total_tokens == 6


async def test_a_request_that_fails_before_anything_has_come_takes_nothing() -> None:
    provider = ScriptedProvider().fail(ProviderOverloadedError("full"))
    provider, budget = limited(provider, max_tokens_per_day=1000)
    async with provider:
        with pytest.raises(ProviderOverloadedError):
            await ask(provider, retries=Retries(attempts=1))
    assert (budget.spent.tokens, budget.spent.reserved_tokens) == (0, 0)


async def test_an_answer_that_breaks_off_takes_its_prompt_and_what_has_come() -> None:
    provider = ScriptedProvider().cut_after(4, "one two three four five six")
    provider, budget = limited(provider, max_tokens_per_day=1000)
    finished: list[RequestFinished] = []
    provider.subscribe(finished.append, "requestFinished", delivery="inline")
    async with provider:
        with pytest.raises(StreamInterruptedError):
            await ask(provider, "a question")
    usage = finished[0].usage
    assert usage is not None
    assert usage.estimated
    assert budget.spent.tokens == usage.total_tokens > 8


@pytest.mark.parametrize("how", ["cancel", "leave"])
async def test_an_answer_that_is_stopped_takes_its_prompt_and_what_has_come(how: str) -> None:
    provider, budget = limited(echo(words_per_s=1000), max_tokens_per_day=10_000)
    async with provider:
        stream = provider.stream_completion(None, "word " * 50)
        events = aiter(stream)
        for _ in range(10):
            await anext(events)
        if how == "cancel":
            stream.cancel()
            with pytest.raises(RequestCancelledError):
                async for _ in events:
                    pass
        else:
            await events.aclose()
            await stream.aclose()
    assert 40 < budget.spent.tokens < 150
    assert budget.spent.reserved_tokens == 0


async def test_a_request_that_times_out_takes_its_prompt() -> None:
    provider = ScriptedProvider().hang()
    provider, budget = limited(provider, max_tokens_per_day=1000)
    async with provider:
        with pytest.raises(RequestTimeoutError):
            await ask(provider, timeouts={"first_token_s": 0.05}, retries={"attempts": 1})
    assert 0 < budget.spent.tokens < 20


async def test_an_answer_without_counts_is_estimated() -> None:
    async def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield TextDelta(ANSWER)
        yield FinishDelta("stop")

    budget = BudgetPolicy(max_tokens_per_day=10_000)
    request = LLMRequest(id="r", model="m", messages=(LLMMessage.user("1234"),))
    async for _ in budget.wrap(exchange, FakeHost())(request):
        pass
    assert budget.spent.tokens == estimate_prompt_tokens(request) + estimate_text_tokens(ANSWER)


async def test_a_request_that_was_never_begun_reserves_nothing() -> None:
    provider, budget = limited(echo(), max_tokens_per_day=2000)
    async with provider:
        stream = provider.stream_completion(None, "hi")
        await stream.aclose()
    assert (budget.spent.tokens, budget.spent.reserved_tokens) == (0, 0)


async def test_an_answer_from_a_cache_takes_nothing_on_whichever_side_the_cache_is() -> None:
    for policies in ([CachePolicy(), 0], [0, CachePolicy()]):
        budget = BudgetPolicy(max_tokens_per_day=1000)
        async with echo() as provider:
            for policy in policies:
                provider.add_policy(policy or budget)
            await ask(provider, temperature=0)
            spent = budget.spent.tokens
            assert (await ask(provider, temperature=0)).cached
        assert budget.spent.tokens == spent == 2


# ---- prices --------------------------------------------------------------------------------------


async def test_an_unknown_price_is_refused_and_the_error_says_how_to_state_it() -> None:
    provider, budget = limited(echo(id="mine"), max_usd_per_day=5)
    async with provider:
        with pytest.raises(BudgetExceededError) as caught:
            await ask(provider)
        assert len(provider.requests) == 0
    assert caught.value.code == "price_unknown"
    assert '"mine/echo"' in str(caught.value)
    assert "PriceBook" in str(caught.value)
    assert "unknown=" in str(caught.value)
    assert budget.spent.tokens == 0


async def test_unknown_prices_may_be_allowed_and_are_visible() -> None:
    provider, budget = limited(echo(), max_usd_per_day=0, unknown="allow")
    async with provider:
        await ask(provider)
    assert budget.unknown_requests == 1
    assert (budget.spent.tokens, budget.spent.usd) == (2, 0.0)


async def test_public_prices_are_used_for_services_that_have_them() -> None:
    async def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield TextDelta("x")
        yield UsageDelta(Usage(prompt_tokens=1000, completion_tokens=1000))
        yield FinishDelta("stop")

    host = FakeHost()
    host.kind = "openai"
    budget = BudgetPolicy(max_usd_per_day=1)
    request = LLMRequest(id="r", model="gpt-4", messages=(LLMMessage.user("hi"),))
    async for _ in budget.wrap(exchange, host)(request):
        pass
    assert budget.spent.usd == pytest.approx(0.09)


def test_without_the_package_of_public_prices_stated_ones_still_count() -> None:
    code = """
import asyncio, logging, sys
sys.modules["genai_prices"] = None
from llm_manager import BudgetExceededError, BudgetPolicy, EchoProvider, PriceBook
prices = PriceBook({"echo/a": {"input_usd": 1, "output_usd": 1}})
budget = BudgetPolicy(max_usd_per_day=1, prices=prices)
async def main():
    provider = EchoProvider(words_per_s=1e9, models=("a", "b"))
    provider.add_policy(budget)
    async with provider:
        await provider.generate_completion("a", "hi")
        try: await provider.generate_completion("b", "hi")
        except BudgetExceededError as error: print(error.code, budget.spent.usd)
asyncio.run(main())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["price_unknown", "2e-06"]


# ---- keeping it small ----------------------------------------------------------------------------


async def test_a_reset_begins_anew_and_running_requests_do_not_disturb_it() -> None:
    provider = ScriptedProvider().hang(text="a b", after_words=1)
    provider, budget = limited(provider, max_tokens_per_day=100)
    async with provider:
        stream = provider.stream_completion(None, "hi", options={"max_tokens": 5})
        events = aiter(stream)
        await anext(events)
        budget.reset()
        await events.aclose()
        await stream.aclose()
    assert (budget.spent.tokens, budget.spent.reserved_tokens) == (0, 0)


async def test_so_many_conversations_are_remembered() -> None:
    provider, budget = limited(echo(), max_tokens_per_conversation=1000, max_conversations=2)
    async with provider:
        for conversation in ("a", "b", "a", "c"):
            await ask(provider, conversation_id=conversation)
    assert [budget.spent_in(c).tokens for c in "abc"] == [4, 0, 2]


async def test_money_comes_out_even_after_many_requests() -> None:
    provider, budget = limited(
        echo(),
        max_usd_per_day=1000,
        prices=PriceBook({"*/*": {"input_usd": 0.1, "output_usd": 0.7}}),
    )
    async with provider:
        for _ in range(1000):
            await ask(provider)
    assert budget.spent.usd == 0.0008
    assert budget.spent.reserved_usd == 0.0


def test_an_error_of_a_budget_can_be_pickled() -> None:
    error = BudgetExceededError("no", budget="usd_per_day", limit=1.0, used=0.5, needed=0.7)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.budget, copy.limit, copy.used, copy.needed) == ("usd_per_day", 1.0, 0.5, 0.7)


async def test_budgets_may_be_asked_from_several_threads() -> None:
    budget = BudgetPolicy(max_tokens_per_day=10**9, max_tokens_per_conversation=10**9)

    async def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield UsageDelta(Usage(prompt_tokens=1, completion_tokens=1))

    async def many(name: str) -> None:
        wrapped = budget.wrap(exchange, FakeHost())
        options = LLMRequestOptions(conversation_id=name)
        for _ in range(500):
            request = LLMRequest(id="r", model="m", options=options)
            async for _ in wrapped(request):
                pass

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, many(str(i % 3))) for i in range(6)))
    assert budget.spent.tokens == 6000
    assert budget.spent_in("0").tokens == 2000


# ---- nothing stays reserved ----------------------------------------------------------------------


def might_go_wrong(dice: random.Random) -> Any:
    """An exchange that ends in every way there is, sometimes before it has begun."""

    async def answer(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
            yield dice.choice([TextDelta("some words"), UsageDelta(Usage(prompt_tokens=1))])
        end = dice.randrange(8)
        if end < 5:
            raise (
                ProviderOverloadedError("too much"),
                RequestTimeoutError("too late"),
                RequestCancelledError("no more"),
                StreamInterruptedError("broken"),
                RuntimeError("a mistake"),
            )[end]
        if end == 5:
            await asyncio.sleep(3600)
        yield UsageDelta(Usage(prompt_tokens=3, completion_tokens=4))
        yield FinishDelta("stop")

    def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        if not dice.randrange(8):
            raise RuntimeError("never begun")
        return answer(request)

    return exchange


async def test_nothing_stays_reserved_however_a_thousand_requests_end() -> None:
    budget = BudgetPolicy(
        max_tokens_per_day=4000, max_usd_per_day=1000, max_tokens_per_conversation=2000,
        prices=dear_book(),
    )  # fmt: skip

    async def one(exchange: Any, dice: random.Random) -> None:
        request = LLMRequest(
            id="r",
            model="m",
            messages=(LLMMessage.user("some question"),),
            options=LLMRequestOptions(max_tokens=9, conversation_id=str(dice.randrange(5))),
        )
        deltas = budget.wrap(exchange, FakeHost())(request)
        try:
            async for _ in deltas:
                if not dice.randrange(6):
                    break
        finally:
            await deltas.aclose()

    async def many(seed: int) -> None:
        dice = random.Random(seed)
        exchange = might_go_wrong(dice)
        tasks = [asyncio.create_task(one(exchange, dice)) for _ in range(250)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            dice.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, many(seed)) for seed in range(4)))
    assert budget.spent.tokens > 0
    for use in (budget.spent, *(budget.spent_in(str(number)) for number in range(5))):
        assert (use.reserved_tokens, use.reserved_usd) == (0, 0)


async def test_a_request_that_cannot_even_be_begun_reserves_nothing() -> None:
    def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        raise ProviderOverloadedError("refused at once")

    budget = BudgetPolicy(max_tokens_per_day=5000)
    with pytest.raises(ProviderOverloadedError):
        await anext(budget.wrap(exchange, FakeHost())(LLMRequest(id="r", model="m")))
    assert (budget.spent.tokens, budget.spent.reserved_tokens) == (0, 0)


async def test_what_a_provider_tells_that_cannot_be_takes_what_was_reserved() -> None:
    async def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield TextDelta(None)  # type: ignore[arg-type]
        raise ProviderOverloadedError("and broken off")

    options = LLMRequestOptions(max_tokens=7)
    budget = BudgetPolicy(max_tokens_per_day=100)
    with pytest.raises(TypeError):
        async for _ in budget.wrap(exchange, FakeHost())(
            LLMRequest(id="r", model="m", options=options)
        ):
            pass
    assert (budget.spent.tokens, budget.spent.reserved_tokens) == (7, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_begins_at_zero_and_without_the_parents_reservations() -> None:
    code = """
import asyncio, os
from llm_manager import BudgetPolicy
from llm_manager.messages import LLMMessage, LLMRequest, TextDelta
from tests.helpers import FakeHost

async def exchange(request):
    yield TextDelta("word")
    yield TextDelta("word")

async def main():
    budget = BudgetPolicy(max_tokens_per_day=2000)
    deltas = budget.wrap(exchange, FakeHost())(LLMRequest(id="r", model="m"))
    await anext(deltas)
    child = os.fork()
    if child == 0:
        os._exit(budget.spent.tokens + budget.spent.reserved_tokens != 0)
    assert os.waitpid(child, 0)[1] == 0
    assert budget.spent.reserved_tokens > 0
    await deltas.aclose()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_a_clock_that_is_set_back_at_midnight_gives_no_second_budget() -> None:
    clock = FakeClock()
    provider, budget = limited(echo(), max_tokens_per_day=1000, clock=clock)
    clock.advance((budget.left.resets_at - datetime.fromtimestamp(clock.wall(), UTC)).seconds - 60)
    async with provider:
        await ask(provider)
        clock.advance(120)
        assert budget.spent.tokens == 0
        await ask(provider)
        await ask(provider)
        clock.set_wall(-120)
        assert budget.spent.tokens == TAKES
        clock.set_wall(+120)
        assert budget.spent.tokens == 2 * TAKES


async def test_a_very_long_prompt_leaves_the_loop_to_others() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def exchange(request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield FinishDelta("stop")

    budget = BudgetPolicy(max_tokens_per_day=10**9)
    request = LLMRequest(id="r", model="m", messages=(LLMMessage.user("word " * 400_000),))
    task = asyncio.create_task(others())
    await anext(deltas := budget.wrap(exchange, FakeHost())(request))
    assert turns > 1
    assert budget.spent.reserved_tokens == estimate_prompt_tokens(request) + 1000
    await deltas.aclose()
    task.cancel()


# ---- the next run --------------------------------------------------------------------------------


async def test_the_next_run_goes_on_from_what_this_one_has_spent() -> None:
    settings: dict[str, Any] = {"max_usd_per_day": 10, "prices": dear_book()}
    provider, budget = limited(echo(), **settings)
    async with provider:
        await ask(provider, conversation_id="c-1")
        await ask(provider)
    saved = budget.saved()
    again, restored = limited(echo(), **settings)
    restored.restore(saved)
    assert restored.spent == budget.spent
    assert restored.spent_in("c-1") == budget.spent_in("c-1")
    async with again:
        await ask(again, conversation_id="c-1")
    assert restored.spent.tokens == 3 * TAKES
    assert restored.spent_in("c-1").tokens == 2 * TAKES


async def test_what_is_spent_before_restoring_is_not_lost() -> None:
    provider, budget = limited(echo(), max_tokens_per_day=1000)
    async with provider:
        await ask(provider)
        budget.restore(budget.saved())
    assert budget.spent.tokens == 2 * TAKES


async def test_a_day_that_is_over_is_not_restored_but_its_conversations_are() -> None:
    clock = FakeClock()
    provider, budget = limited(echo(), max_tokens_per_day=1000, clock=clock)
    async with provider:
        await ask(provider, conversation_id="c-1")
    clock.advance(86_400)
    restored = BudgetPolicy(max_tokens_per_day=1000, clock=clock)
    restored.restore(budget.saved())
    assert restored.spent.tokens == 0
    assert restored.spent_in("c-1").tokens == TAKES


async def test_what_still_runs_is_saved_with_what_it_might_take() -> None:
    provider, budget = limited(echo(), max_tokens_per_day=1000)
    async with provider:
        stream = provider.stream_completion(None, "hi", options={"max_tokens": 5})
        async with stream:
            await anext(aiter(stream))
            restored = BudgetPolicy(max_tokens_per_day=1000)
            restored.restore(budget.saved())
    assert restored.spent.tokens == MIGHT
    assert restored.spent.reserved_tokens == 0


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "nothing",
        "[]",
        "{}",
        b"\xff",
        None,
        5,
        '{"days": {"2026-11-21": [-1, 0]}, "conversations": {}}',
        '{"days": {"someday": [1, 0]}, "conversations": {}}',
        '{"days": {}, "conversations": {"c": [1]}}',
    ],
)
def test_what_was_never_saved_is_refused_and_changes_nothing(wrong: Any) -> None:
    budget = BudgetPolicy(max_tokens_per_day=1000)
    with pytest.raises(InvalidParameterError, match=r"saved\(\)"):
        budget.restore(wrong)
    assert budget.spent.tokens == 0


async def test_counts_that_cannot_be_never_make_a_budget_grow() -> None:
    class Odd(EchoProvider):
        async def _exchange(self, request: LLMRequest) -> Any:
            yield TextDelta("hi")
            yield FinishDelta("stop")
            yield UsageDelta(Usage(prompt_tokens=-50, completion_tokens=2))

    provider, budget = limited(Odd(), max_tokens_per_day=100_000)
    async with provider:
        await ask(provider, conversation_id="half \ud800")
    assert budget.spent.tokens == 0
    again = BudgetPolicy(max_tokens_per_day=100_000)
    again.restore(budget.saved())
    assert again.spent.tokens == 0
