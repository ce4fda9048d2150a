"""Budgets of tokens, and whether a prompt fits before it is sent."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from llm_manager import (
    EchoProvider,
    InvalidParameterError,
    LLMMessage,
    LLMModelInfo,
    LLMProviderManager,
    TokenManager,
    Usage,
    fits,
)
from llm_manager.events import RequestFinished
from llm_manager.messages import LLMRequest, TokenCount
from tests.helpers import echo


class Noon:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()

    def monotonic(self) -> float:
        return self.now_s

    def since_boot(self) -> float | None:
        return self.now_s

    def wall(self) -> float:
        return self.now_s


class Counting(EchoProvider):
    """Ten tokens for each message, and models with and without a known window."""

    async def _list_models(self) -> list[LLMModelInfo]:
        return [LLMModelInfo(id="m", context_window_tokens=100), LLMModelInfo(id="vague")]

    async def _count_tokens(self, request: LLMRequest) -> int | None:
        return 10 * len(request.messages)


def finished(usage: Usage | None, **facts: Any) -> RequestFinished:
    return RequestFinished(
        **{
            "provider_id": "p",
            "request_id": "r",
            "model": "m",
            "operation": "chat",
            "outcome": "ok",
            "usage": usage,
            **facts,
        }
    )


# ---- a budget --------------------------------------------------------------------------------


async def test_a_budget_tells_what_is_left_and_what_still_goes() -> None:
    budget = TokenManager(max_tokens=100)
    assert await budget.can_process(100)
    budget.record_usage(60, 20)
    assert (budget.used_tokens, budget.left_tokens) == (80, 20)
    assert await budget.can_process(20)
    assert not await budget.can_process(21)
    budget.record_usage(Usage(prompt_tokens=30, completion_tokens=5))
    assert (budget.used_tokens, budget.left_tokens) == (115, 0)
    budget.reset()
    assert (budget.used_tokens, budget.left_tokens) == (0, 100)
    assert budget.resets_at is None


async def test_a_conversation_is_counted_by_the_provider() -> None:
    async with Counting() as provider:
        budget = TokenManager(provider, "m", max_tokens=25)
        assert await budget.can_process([LLMMessage.user("a"), LLMMessage.user("b")])
        assert not await budget.can_process([LLMMessage.user("a")] * 3)
        manager = LLMProviderManager()
        manager.register_provider(provider)
        assert not await TokenManager(manager, "m", max_tokens=9).can_process("a")


async def test_a_conversation_is_estimated_where_nobody_counts() -> None:
    assert await TokenManager(max_tokens=20).can_process("hello")
    assert not await TokenManager(max_tokens=20).can_process("hello " * 100)


async def test_the_handle_of_a_model_counts_as_well() -> None:
    class Handle:
        async def count_tokens(self, text: str) -> int:
            raise AssertionError("it is a whole conversation")

        async def count(self, messages: Any) -> TokenCount:
            return TokenCount(tokens=7)

    assert await TokenManager(Handle(), max_tokens=7).can_process("x")
    assert not await TokenManager(Handle(), max_tokens=6).can_process("x")


def test_a_budget_of_a_period_begins_anew_when_it_ends() -> None:
    clock = Noon()
    budget = TokenManager(max_tokens=10, period_s=60, clock=clock)
    budget.record_usage(8)
    clock.now_s += 59
    assert budget.used_tokens == 8
    assert budget.resets_at == datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
    clock.now_s += 1
    assert budget.used_tokens == 0
    clock.now_s += 200  # three periods in which nobody asked
    assert budget.resets_at == datetime(2026, 3, 1, 12, 5, tzinfo=UTC)


def test_a_budget_of_a_day_begins_anew_at_midnight() -> None:
    clock = Noon()
    budget = TokenManager(max_tokens=10, period_s="day", clock=clock)
    budget.record_usage(8)
    assert budget.resets_at == datetime(2026, 3, 2, tzinfo=UTC)
    clock.now_s += 12 * 3600 - 1
    assert budget.used_tokens == 8
    clock.now_s += 1
    assert budget.used_tokens == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"max_tokens": -1}, "max_tokens must be at least 0"),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number"),
        ({"max_tokens": 1, "period_s": 0}, "period_s must be above 0"),
        ({"max_tokens": 1, "period_s": float("inf")}, "period_s must be above 0 and at most"),
        ({"max_tokens": 1, "period_s": "week"}, "'day' or None"),
        ({"max_tokens": 1, "source": 1000}, "source must be a provider"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(arguments: dict, problem: str) -> None:
    with pytest.raises(InvalidParameterError, match=problem):
        TokenManager(**arguments)


async def test_tokens_below_zero_are_refused() -> None:
    budget = TokenManager(max_tokens=10)
    for wrong in (lambda: budget.record_usage(-1), lambda: budget.record_usage(1, -1)):
        with pytest.raises(InvalidParameterError, match="at least 0"):
            wrong()
    with pytest.raises(InvalidParameterError, match="at least 0"):
        await budget.can_process(-1)
    assert budget.used_tokens == 0


def test_what_is_no_provider_cannot_be_attached() -> None:
    with pytest.raises(InvalidParameterError, match="provider or a manager"):
        TokenManager(max_tokens=10).attach(5)  # type: ignore[arg-type]


# ---- by itself -------------------------------------------------------------------------------


async def test_an_attached_budget_records_by_itself_until_it_is_detached() -> None:
    async with echo() as provider:
        budget = TokenManager(max_tokens=1000).attach(provider).attach(provider)
        answer = await provider.generate_completion(None, "one two three")
        assert answer.usage is not None
        assert budget.used_tokens == answer.usage.total_tokens > 0
        budget.detach()
        await provider.generate_completion(None, "four")
        assert budget.used_tokens == answer.usage.total_tokens


async def test_an_attached_budget_sees_all_providers_of_a_manager() -> None:
    async with echo(id="a") as first, echo(id="b") as second:
        manager = LLMProviderManager()
        budget = TokenManager(max_tokens=1000).attach(manager)
        of_one = TokenManager(manager, "b/echo", max_tokens=1000).attach(manager)
        manager.register_provider(first)
        manager.register_provider(second)
        one = await manager.generate_completion("a/echo", "one")
        two = await manager.generate_completion("b/echo", "two or more")
        assert one.usage is not None
        assert two.usage is not None
        assert budget.used_tokens == one.usage.total_tokens + two.usage.total_tokens
        assert of_one.used_tokens == two.usage.total_tokens


def test_what_a_composite_passes_on_counts_once_and_a_cached_answer_not_at_all() -> None:
    provider = echo()
    budget = TokenManager(max_tokens=1000).attach(provider)
    usage = Usage(prompt_tokens=10, completion_tokens=1)
    provider.publish(finished(usage, composite=True))
    provider.publish(finished(usage, cached=True))
    provider.publish(finished(None))
    assert budget.used_tokens == 0
    provider.publish(finished(usage))
    assert budget.used_tokens == 11


def test_no_usage_is_lost_between_threads() -> None:
    budget = TokenManager(max_tokens=10**9, period_s=3600)

    def use() -> None:
        for _ in range(2000):
            budget.record_usage(1, 1)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.used_tokens == 8 * 2000 * 2


# ---- a window --------------------------------------------------------------------------------


async def test_what_fits_and_by_how_much_it_does_not() -> None:
    async with Counting() as provider:
        short = await fits(provider, "m", "a", {"max_tokens": 90})
        long = await fits(provider, "m", [LLMMessage.user("a")] * 3, {"max_tokens": 90})
    assert (short.fits, short.surely, short.over_by_tokens) == (True, True, 0)
    assert (long.fits, long.surely, long.over_by_tokens) == (False, True, 20)
    assert (long.prompt_tokens, long.reserve_tokens, long.context_window_tokens) == (30, 90, 100)


async def test_the_default_of_the_provider_is_the_reserve() -> None:
    async with Counting(default_options={"max_tokens": 95}) as provider:
        fit = await fits(provider, "m", "a")
    assert (fit.fits, fit.reserve_tokens) == (False, 95)


@pytest.mark.parametrize("model", ["vague", "not listed"])
async def test_without_a_known_window_nobody_knows(model: str) -> None:
    async with Counting() as provider:
        fit = await fits(provider, model, "a")
    assert (fit.fits, fit.surely, fit.context_window_tokens, fit.over_by_tokens) == (
        None, False, None, 0,
    )  # fmt: skip


async def test_an_estimate_near_the_limit_is_not_sure() -> None:
    class Estimating(Counting):
        async def _count_tokens(self, request: LLMRequest) -> int | None:
            return None

    async with Estimating() as provider:
        near = {}
        for words in range(1, 400, 3):
            fit = await fits(provider, "m", "word " * words)
            near.setdefault((fit.fits, fit.surely), words)
    # From surely, over perhaps and perhaps not, to surely not.
    assert list(near) == [(True, True), (True, False), (False, False), (False, True)]


async def test_a_manager_finds_the_provider_and_its_window() -> None:
    async with Counting() as provider:
        manager = LLMProviderManager()
        manager.register_provider(provider)
        fit = await fits(manager, "echo/m", "a")
        provider.set_active_model("m")
        of_active = await fits(manager, None, "a")
    assert fit == of_active
    assert fit.context_window_tokens == 100
