"""Settings that cannot be, and listeners that misbehave: the result is known beforehand."""

from __future__ import annotations

import asyncio
import gc
import math
import threading

import pytest

from llm_manager import (
    EchoAnswer,
    InvalidParameterError,
    LLMRequestOptions,
    OpenAICompatibleProvider,
    RequestTimeoutError,
    Timeouts,
)
from llm_manager.events import HealthCheck
from llm_manager.testing import EventRecorder

from ..helpers import echo
from . import virtual_time

WAIT_S = 20
CLOCKS = ("connect_s", "first_token_s", "idle_s", "content_idle_s", "total_s")


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, 0.49, math.nan, True, "10", [10]])
async def test_a_probe_interval_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(InvalidParameterError, match="probe_interval_s must be "):
        echo(probe_interval_s=wrong)


@pytest.mark.parametrize("given", [0.5, 10, None])
async def test_a_probe_interval_may_be_half_a_second_or_more_or_none_at_all(given) -> None:
    provider = echo(probe_interval_s=given)
    await provider.connect()
    assert provider.usable
    await provider.close()


async def test_a_local_server_can_be_told_never_to_be_polled() -> None:
    address = "http://127.0.0.1:9/v1"
    assert OpenAICompatibleProvider(base_url=address).probe_interval_s == 10
    never = OpenAICompatibleProvider(base_url=address, probe_interval_s=math.inf)
    assert never.probe_interval_s == math.inf


def test_a_provider_that_is_never_polled_goes_on_as_usual() -> None:
    async def main() -> int:
        provider = echo(probe_interval_s=math.inf, clock=virtual_time.here().clock)
        probes: list[HealthCheck] = []
        await provider.connect()
        provider.on("healthCheck", probes.append)
        await asyncio.sleep(3600)
        assert (await provider.generate_completion("echo", "Hi")).text == "Hi"
        await provider.close()
        return len(probes)

    assert virtual_time.run(main()) == 0


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("wrong", [0, -1, -0.001, math.nan, True, "5"])
async def test_a_time_limit_that_cannot_be_is_refused_wherever_it_is_given(clock, wrong) -> None:
    with pytest.raises(InvalidParameterError, match=f"timeouts.{clock}"):
        Timeouts(**{clock: wrong})
    with pytest.raises(InvalidParameterError, match="timeouts"):
        echo(timeouts={clock: wrong})
    provider = echo()
    with pytest.raises(InvalidParameterError, match="timeouts"):
        provider.stream_completion("echo", "Hi", options={"timeouts": {clock: wrong}})
    assert provider.status.status == "disconnected"  # nothing was tried


async def test_a_time_limit_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(InvalidParameterError, match="first_byte_s"):
        echo(timeouts={"first_byte_s": 1})


@pytest.mark.parametrize("wrong", [-1, -0.001, math.nan, True, "5", None])
@pytest.mark.parametrize("verb", ["disconnect", "close"])
async def test_a_time_to_drain_that_cannot_be_is_refused_and_nothing_is_stopped(
    verb, wrong
) -> None:
    provider = echo()
    await provider.connect()
    with pytest.raises(InvalidParameterError, match="drain_timeout_s"):
        await getattr(provider, verb)(drain_timeout_s=wrong)
    assert provider.status.status == "connected"
    await provider.close()


def test_a_drain_that_may_last_longer_than_the_request_ends_with_the_request() -> None:
    """The request's own limit counts; the drain is a bound, and no wait."""

    async def main() -> tuple[float, str, str]:
        loop = virtual_time.here()
        provider = echo(clock=loop.clock)
        provider.script(EchoAnswer(text="one two", hang_after_words=1))
        options = LLMRequestOptions(timeouts=Timeouts(total_s=7, idle_s=math.inf))
        request = asyncio.ensure_future(provider.stream_completion("echo", "Hi", options=options))
        await provider.wait_for("connected")
        began_s = loop.time()
        await provider.disconnect(drain_timeout_s=math.inf)
        took_s = loop.time() - began_s
        with pytest.raises(RequestTimeoutError) as caught:
            await request
        assert caught.value.partial.text == "one "
        return took_s, caught.value.code, provider.status.reason

    took_s, code, reason = virtual_time.run(main())
    assert took_s == pytest.approx(7, abs=0.1)
    assert (code, reason) == ("total_timeout", "user")


def test_a_drain_of_nothing_ends_at_once_however_long_it_may_last() -> None:
    async def main() -> float:
        provider = echo(clock=virtual_time.here().clock)
        await provider.connect()
        began_s = virtual_time.here().time()
        await provider.disconnect(drain_timeout_s=3600)
        return virtual_time.here().time() - began_s

    assert virtual_time.run(main()) < 0.1


# ---- listeners -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [5, "print", b"", ["f"]])
async def test_a_listener_that_is_no_function_is_refused_at_once(wrong) -> None:
    provider = echo()
    for register in (provider.on, provider.once):
        with pytest.raises(InvalidParameterError, match="a listener must be a function"):
            register("connected", wrong)
    with pytest.raises(InvalidParameterError, match="a listener must be a function"):
        provider.subscribe(wrong)
    assert provider.event_names() == set()


async def test_a_listener_that_blocks_holds_up_its_own_loop_and_loses_nothing() -> None:
    """Blocking the loop blocks everything on it; afterwards everybody gets everything in order."""
    provider, release, seen = echo(), threading.Event(), []
    entered = threading.Event()

    def blocks(event) -> None:
        if event.current.status == "connected":
            entered.set()
            release.wait(WAIT_S)

    def let_go() -> None:
        entered.wait(WAIT_S)
        machine = provider._machine
        for attempt in range(1, 101):  # other threads go on meanwhile
            machine.change(attempt=attempt)
        release.set()

    provider.on("statusChanged", blocks)
    provider.on("statusChanged", lambda event: seen.append(event.current.seq))
    other = threading.Thread(target=let_go)
    other.start()
    await provider.connect()
    await asyncio.to_thread(other.join, WAIT_S)
    assert await provider.flush(WAIT_S)
    assert seen == list(range(seen[0], provider.status.seq + 1))
    assert len(seen) >= 102
    await provider.close()


async def test_listeners_that_connect_and_disconnect_again_and_again_are_one_after_another() -> (
    None
):
    """Each step asks for the next; there is no recursion, no deadlock and no illegal step."""
    provider, rounds = echo(), 0
    record = EventRecorder(provider)
    enough = asyncio.Event()

    @provider.on("connected")
    async def stop(_: object) -> None:
        await provider.disconnect()

    @provider.on("disconnected")
    async def start(_: object) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 50:
            enough.set()
        else:
            await provider.connect()

    await provider.connect()
    async with asyncio.timeout(WAIT_S):
        await enough.wait()
    record.close()
    await provider.close()
    assert record.statuses == ["connecting", "connected", "draining", "disconnected"] * 50


async def test_a_listener_that_asks_the_provider_while_it_is_told_gets_an_answer() -> None:
    provider, answers = echo(), []
    done = asyncio.Event()

    @provider.once("connected")
    async def ask(_: object) -> None:
        answers.append((await provider.generate_completion("echo", "Hi")).text)
        answers.append(await provider.is_available())
        done.set()

    await provider.connect()
    async with asyncio.timeout(WAIT_S):
        await done.wait()
    assert answers == ["Hi", True]
    await provider.close()


async def test_a_window_that_was_forgotten_is_told_nothing_and_holds_up_nobody() -> None:
    class Window:
        drawn = 0

        def draw(self, _: object) -> None:
            Window.drawn += 1

    provider, window = echo(), Window()
    provider.subscribe(window.draw, weak=True)
    await provider.connect()
    assert await provider.flush(WAIT_S)
    drawn = Window.drawn
    assert drawn >= 2
    del window
    gc.collect()
    await provider.disconnect()
    assert await provider.flush(WAIT_S)
    assert Window.drawn == drawn
    assert provider.event_names() == set()
    await provider.close()


async def test_a_provider_that_was_forgotten_is_collected_with_its_listeners() -> None:
    gone = []
    provider = echo(probe_interval_s=10)
    provider.on("statusChanged", lambda event: None)
    await provider.connect()
    await provider.disconnect()

    class Sign:
        def __del__(self) -> None:
            gone.append(True)

    provider.sign = Sign()
    del provider
    for _ in range(3):
        await asyncio.sleep(0)
        gc.collect()
    assert gone == [True]
