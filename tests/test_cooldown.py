"""What the service would refuse is not sent: it waits for a while, visibly, or fails at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Any

import pytest

from llm_manager import (
    CooldownPolicy,
    EchoAnswer,
    InvalidParameterError,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    RateLimitError,
    RateLimits,
)
from llm_manager.clock import utc_now
from llm_manager.messages import Delta, TextDelta
from llm_manager.testing.clock import FakeClock
from llm_manager.tokens import estimate_prompt_tokens

from .helpers import FakeHost, echo

SOON_S, LATER_S = 0.05, 60.0


def request(text: str = "x", *, force: bool = False) -> LLMRequest:
    options = LLMRequestOptions(force=force)
    return LLMRequest(id="r", model="m", messages=(LLMMessage.user(text),), options=options)


class Line:
    """A provider behind a `CooldownPolicy`."""

    def __init__(self, **settings: Any) -> None:
        self.host, self.clock = FakeHost(), FakeClock()
        self.sent = 0
        self.exchange = CooldownPolicy(clock=self.clock, **settings).wrap(self._send, self.host)

    async def _send(self, asked: LLMRequest) -> AsyncGenerator[Delta, None]:
        self.sent += 1
        yield TextDelta("ok")

    def after(self, seconds: float) -> datetime:
        return utc_now(self.clock) + timedelta(seconds=seconds)

    async def ask(self, asked: LLMRequest | None = None) -> list[str]:
        return [delta.text async for delta in self.exchange(asked or request())]

    @property
    def waits(self) -> list[tuple[str, datetime | None]]:
        return [(event.reason, event.until) for event in self.host.named("requestQueued")]


async def test_where_nobody_asked_to_wait_nothing_waits() -> None:
    line = Line()
    assert await line.ask() == ["ok"]
    line.host.set(rate_limits=RateLimits(requests_left=10, requests_reset_at=line.after(LATER_S)))
    assert await line.ask() == ["ok"]
    line.host.set(cooldown_until=line.after(-1))
    assert await line.ask() == ["ok"]
    assert line.waits == []


async def test_a_short_cooldown_is_waited_for_and_announced() -> None:
    line = Line()
    until = line.after(SOON_S)
    line.host.set(cooldown_until=until)
    asked = asyncio.create_task(line.ask())
    await asyncio.sleep(0)
    assert (line.host.status.queued, line.sent) == (1, 0)
    assert await asked == ["ok"]
    assert utc_now(line.clock) >= until
    assert line.waits == [("cooldown", until)]
    assert line.host.status.queued == 0


async def test_a_long_cooldown_fails_at_once_and_says_until_when() -> None:
    line = Line()
    until = line.after(LATER_S)
    line.host.set(cooldown_until=until)
    with pytest.raises(RateLimitError, match="asked us to wait, for 60 s more") as caught:
        await line.ask()
    error = caught.value
    assert (error.code, error.retry_at) == ("cooling_down", until)
    assert error.retry_after_s == pytest.approx(LATER_S, abs=2)
    assert "force=True" in (error.hint or "")
    assert (line.sent, line.host.status.queued, line.waits) == (0, 0, [])


async def test_force_passes_cooldowns_and_limits() -> None:
    line = Line()
    line.host.set(
        cooldown_until=line.after(LATER_S),
        rate_limits=RateLimits(requests_left=0, requests_reset_at=line.after(LATER_S)),
    )
    assert await line.ask(request(force=True)) == ["ok"]


async def test_no_wait_is_allowed_where_the_bound_is_nothing() -> None:
    line = Line(wait_max_s=0)
    line.host.set(cooldown_until=line.after(0.5))
    with pytest.raises(RateLimitError):
        await line.ask()


async def test_requests_that_were_sent_meanwhile_are_counted_off() -> None:
    line = Line()
    line.host.set(rate_limits=RateLimits(requests_left=3, requests_reset_at=line.after(LATER_S)))
    for _ in range(3):
        assert await line.ask() == ["ok"]
    with pytest.raises(RateLimitError, match="nothing is left"):
        await line.ask()
    line.host.set(rate_limits=RateLimits(requests_left=1, requests_reset_at=line.after(LATER_S)))
    assert await line.ask() == ["ok"]
    with pytest.raises(RateLimitError):
        await line.ask()


async def test_a_used_up_allowance_is_waited_for_until_it_is_filled_again() -> None:
    line = Line()
    until = line.after(SOON_S)
    line.host.set(rate_limits=RateLimits(requests_left=0, requests_reset_at=until))
    assert await line.ask() == ["ok"]
    assert line.waits == [("rate_limit", until)]


async def test_a_prompt_longer_than_what_is_left_waits_and_a_shorter_one_does_not() -> None:
    line = Line()
    short, long = request("hi"), request("word " * 400)
    left = estimate_prompt_tokens(short)
    assert estimate_prompt_tokens(long) > left
    line.host.set(
        rate_limits=RateLimits(
            tokens_left=left, tokens_limit=10_000, tokens_reset_at=line.after(LATER_S)
        )
    )
    with pytest.raises(RateLimitError):
        await line.ask(long)
    assert await line.ask(short) == ["ok"]
    with pytest.raises(RateLimitError):
        await line.ask(short)


async def test_a_prompt_longer_than_the_whole_allowance_is_sent() -> None:
    line = Line()
    line.host.set(
        rate_limits=RateLimits(
            tokens_left=50, tokens_limit=100, tokens_reset_at=line.after(LATER_S)
        )
    )
    assert await line.ask(request("word " * 400)) == ["ok"]


async def test_while_a_huge_prompt_is_estimated_the_event_loop_goes_on() -> None:
    line, huge, turns = Line(), request("word " * 250_000), 0

    async def look() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    left = estimate_prompt_tokens(huge)
    line.host.set(rate_limits=RateLimits(tokens_left=left, tokens_reset_at=line.after(LATER_S)))
    looking = asyncio.create_task(look())
    assert await line.ask(huge) == ["ok"]
    looking.cancel()
    assert turns > 0  # nothing else in this line ever waits
    with pytest.raises(RateLimitError):  # what it took is counted off
        await line.ask()


async def test_an_allowance_without_a_time_holds_nobody_back() -> None:
    line = Line()
    line.host.set(rate_limits=RateLimits(requests_left=0, tokens_left=0))
    assert await line.ask() == ["ok"]


async def test_the_longest_of_several_waits_counts() -> None:
    line = Line()
    line.host.set(
        rate_limits=RateLimits(
            requests_left=0,
            requests_reset_at=line.after(1),
            tokens_left=0,
            tokens_reset_at=line.after(LATER_S),
        )
    )
    with pytest.raises(RateLimitError) as caught:
        await line.ask()
    assert caught.value.retry_after_s == pytest.approx(LATER_S, abs=2)


async def test_after_a_wait_it_looks_again() -> None:
    line = Line(wait_max_s=5)
    first = line.after(SOON_S)
    line.host.set(cooldown_until=first)
    asked = asyncio.create_task(line.ask())
    await asyncio.sleep(0)
    line.host.set(cooldown_until=line.after(LATER_S))  # another request was refused meanwhile
    with pytest.raises(RateLimitError) as caught:
        await asked
    assert caught.value.code == "cooling_down"
    assert (line.sent, line.host.status.queued) == (0, 0)


async def test_a_cooldown_that_ends_early_is_not_waited_out() -> None:
    line = Line()
    line.host.set(cooldown_until=line.after(9))
    asked = asyncio.create_task(line.ask())
    await asyncio.sleep(0)
    line.host.set(cooldown_until=None)
    began_s = asyncio.get_running_loop().time()
    assert await asyncio.wait_for(asked, 8) == ["ok"]
    assert asyncio.get_running_loop().time() - began_s < 8


async def test_a_waiting_request_can_be_cancelled() -> None:
    line = Line()
    line.host.set(cooldown_until=line.after(9))
    asked = asyncio.create_task(line.ask())
    await asyncio.sleep(0)
    assert line.host.status.queued == 1
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (line.sent, line.host.status.queued) == (0, 0)


async def test_setting_the_time_of_day_back_does_not_make_a_limit_last_for_hours() -> None:
    line = Line()
    line.host.set(rate_limits=RateLimits(requests_left=0, requests_reset_at=line.after(LATER_S)))
    with pytest.raises(RateLimitError):
        await line.ask()
    line.clock.set_wall(-3600)
    assert await line.ask() == ["ok"]


async def test_a_provider_that_was_told_to_wait_sends_nothing_until_then() -> None:
    provider = echo(policies=[CooldownPolicy()])
    provider.script(EchoAnswer(error=RateLimitError("slow", retry_after_s=60)))
    with pytest.raises(RateLimitError, match="slow"):
        await provider.generate_completion("echo", "one")
    status = provider.status
    with pytest.raises(RateLimitError) as caught:
        await provider.generate_completion("echo", "two")
    assert (caught.value.code, caught.value.retry_at) == ("cooling_down", status.cooldown_until)
    assert provider.status == status, "what was not sent says nothing about the provider"
    assert len(provider.requests) == 1
    await provider.close()


@pytest.mark.parametrize("wrong", [-1, float("nan"), "10", None, True])
def test_a_bound_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(InvalidParameterError, match="wait_max_s must be "):
        CooldownPolicy(wrong)
