"""The hard cases of retries: outages must not multiply the traffic, and stopping must be quick."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llm_manager import (
    CircuitOpenError,
    EchoAnswer,
    EchoProvider,
    ProviderAPIError,
    ProviderConnectionError,
    RateLimitError,
    RequestCancelledError,
    RetryPolicy,
    run_sync,
)
from llm_manager.testing import EventRecorder

from . import virtual_time

ONCE = {"retries": {"attempts": 1}}
PATIENT = {"retries": {"attempts": 2, "wait_s": 30, "wait_max_s": 30}}


def service(**settings) -> EchoProvider:
    """A service on the network whose time is that of the loop."""
    return EchoProvider(clock=virtual_time.here().clock, **settings)


def test_two_hundred_requests_in_an_outage_share_ten_retries_and_earn_new_ones_afterwards() -> None:
    async def main() -> None:
        provider = service(policies=(RetryPolicy(),), words_per_s=float("inf"))
        await provider.connect()
        record = EventRecorder(provider)
        provider.go_offline()
        ended = await asyncio.gather(
            *(provider.generate_completion("echo", "Hi") for _ in range(200)),
            return_exceptions=True,
        )
        assert {type(error) for error in ended} == {ProviderConnectionError}
        assert len(record.named("retryScheduled")) == 10

        provider.go_online()
        await provider.wait_for("connected")
        for _ in range(10):
            await provider.generate_completion("echo", "Hi")
        provider.script(EchoAnswer(error=ProviderAPIError("oops", http_status=500, retryable=True)))
        assert (await provider.generate_completion("echo", "Hi")).text == "Hi"
        assert len(record.named("retryScheduled")) == 11
        await provider.close()

    virtual_time.run(main())


def test_a_later_refusal_does_not_shorten_a_cooldown() -> None:
    async def main() -> None:
        provider = service(policies=())
        await provider.connect()
        provider.script(
            EchoAnswer(error=RateLimitError("slow down", retry_after_s=1)),
            EchoAnswer(error=RateLimitError("slow down")),
            EchoAnswer(error=RateLimitError("slow down", retry_after_s=0)),
            EchoAnswer(error=RateLimitError("slow down", retry_after_s=0.2)),
        )
        ends = set()
        for _ in range(4):
            with pytest.raises(RateLimitError):
                await provider.generate_completion("echo", "Hi")
            ends.add(provider.status.cooldown_until)
        assert len(ends) == 1
        began_s = virtual_time.here().time()
        await provider.wait_for("connected")
        assert virtual_time.here().time() - began_s == pytest.approx(1, abs=0.01)

        provider.script(EchoAnswer(error=RateLimitError("slow down", retry_after_s=0)))
        with pytest.raises(RateLimitError):
            await provider.generate_completion("echo", "Hi")
        assert provider.status.cooldown_until is None
        await provider.close()

    virtual_time.run(main())


def test_the_only_provider_can_be_asked_although_its_circuit_is_open() -> None:
    async def main() -> None:
        provider = service()
        await provider.connect()
        provider.script(*[EchoAnswer(error=ProviderAPIError("oops", http_status=500))] * 5)
        for _ in range(5):
            with pytest.raises(ProviderAPIError):
                await provider.generate_completion("echo", "Hi", options=ONCE)
        assert provider.status.circuit == "open"
        with pytest.raises(CircuitOpenError):
            await provider.generate_completion("echo", "Hi")
        forced = await provider.generate_completion("echo", "Hi", options={"force": True})
        assert forced.text == "Hi"
        await provider.close()

    virtual_time.run(main())


def test_cancelling_in_the_middle_of_a_long_wait_takes_no_time() -> None:
    async def main() -> None:
        provider = service()
        await provider.connect()
        record = EventRecorder(provider)
        provider.script(
            EchoAnswer(error=ProviderConnectionError("gone", retry_after_s=30)),
        )
        request = asyncio.create_task(provider.generate_completion("echo", "Hi", options=PATIENT))
        await record.wait_for("retryScheduled")
        began_s = virtual_time.here().time()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert virtual_time.here().time() == began_s
        assert record.outcomes == ["cancelled"]
        await provider.close()

    virtual_time.run(main())


async def test_a_shutdown_ends_the_long_wait_of_a_synchronous_call_in_another_thread() -> None:
    provider = EchoProvider()
    await provider.connect()
    record = EventRecorder(provider)
    provider.script(EchoAnswer(error=ProviderConnectionError("gone", retry_after_s=30)))
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            run_sync(provider.generate_completion("echo", "Hi", options=PATIENT))
        except RequestCancelledError as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert (await record.wait_for("retryScheduled")).wait_s >= 30
    await provider.close(drain_timeout_s=0)
    await asyncio.to_thread(thread.join, 10)  # far less than what it would have waited
    assert not thread.is_alive()
    assert [error.code for error in ended] == ["draining"]
    assert provider.status.status == "closed"
