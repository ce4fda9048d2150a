"""The hard cases of networks: servers that come late, silence, sleep, and stopped processes."""

from __future__ import annotations

import asyncio
import itertools
import statistics

import pytest

from llm_manager import (
    Backoff,
    EchoAnswer,
    EchoProvider,
    LLMProviderManager,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    StreamInterruptedError,
)
from llm_manager.connection import RESUME_GRACE_S
from llm_manager.events import SystemResumed
from llm_manager.sleepwatch import BEAT_S, TOLERATED_S
from llm_manager.testing import EventRecorder, Reply, ScriptedPeer

from . import virtual_time

NO_JITTER = Backoff(first_s=1.0, factor=1.6, max_s=60.0, jitter=0.0)


def service(**settings) -> EchoProvider:
    """A service on the network whose time is that of the loop."""
    return EchoProvider(clock=virtual_time.here().clock, **{"reconnect": NO_JITTER, **settings})


def test_a_program_that_starts_offline_waits_for_nobody_and_finds_all_three_later() -> None:
    async def main() -> None:
        manager = LLMProviderManager()
        providers = [service(id=f"p{n}", connect_delay_s=5) for n in range(3)]
        for provider in providers:
            provider.go_offline()
            manager.register_provider(provider)
        records = [EventRecorder(provider) for provider in providers]
        began_s = virtual_time.here().time()
        await manager.connect_all(wait="none")
        assert virtual_time.here().time() == began_s
        for provider in providers:
            await provider.wait_for("reconnecting")
        await asyncio.sleep(300)
        for provider in providers:
            provider.go_online()
        for provider in providers:
            await provider.wait_for("connected")
        for record in records:
            assert record.statuses == ["connecting", "reconnecting", "connected"]
        await manager.close()

    virtual_time.run(main())


@pytest.mark.parametrize("up_after_s", [30, 3600])
def test_a_server_that_starts_later_than_we_is_found_after_one_wait_with_its_models(
    up_after_s,
) -> None:
    async def main() -> tuple[float, list[tuple[str, ...]]]:
        provider = service(reconnect=Backoff(first_s=1, max_s=10, jitter=0.2))
        record = EventRecorder(provider)
        provider.go_offline()
        with pytest.raises(ProviderConnectionError):
            await provider.connect()
        await asyncio.sleep(up_after_s)
        up_s = virtual_time.here().time()
        provider.go_online()
        await provider.wait_for("connected")
        took_s = virtual_time.here().time() - up_s
        await provider.get_available_models()
        added = [event.added for event in record.named("modelsChanged")]
        await provider.close()
        return took_s, added

    took_s, added = virtual_time.run(main())
    assert took_s <= 10
    assert added == [("echo",)]


def test_reconnect_now_tries_at_once_and_begins_the_waits_anew() -> None:
    async def main() -> None:
        provider = service()
        record = EventRecorder(provider)
        provider.go_offline()
        with pytest.raises(ProviderConnectionError):
            await provider.connect()
        await provider.wait_for(lambda now: now.attempt == 12)
        assert record.named("reconnectScheduled")[-1].delay_s == 60
        asked_s = virtual_time.here().time()
        provider.reconnect_now()
        await provider.wait_for(lambda now: now.attempt == 1, timeout_s=300)
        assert virtual_time.here().time() == asked_s
        assert record.named("reconnectScheduled")[-1].delay_s == 1
        provider.go_online()
        provider.reconnect_now()
        await provider.wait_for("connected")
        assert virtual_time.here().time() == asked_s
        await provider.close()

    virtual_time.run(main())


def test_ten_thousand_waits_are_within_their_bounds_and_clients_disperse() -> None:
    backoff = Backoff(first_s=1, factor=1.6, max_s=60, jitter=0.2)
    for attempt, planned_s in [(1, 1.0), (5, 1.6**4), (9, 1.6**8), (50, 60.0)]:
        waits_s = [backoff.delay_s(attempt) for _ in range(10_000)]
        assert min(waits_s) >= 0.8 * planned_s
        assert max(waits_s) <= min(1.2 * planned_s, 60.0)
        assert statistics.stdev(waits_s) > 0.05 * planned_s

    def comes_at_s() -> list[float]:
        return list(itertools.accumulate(backoff.delay_s(n) for n in range(1, 21)))

    one, other = comes_at_s(), comes_at_s()
    assert not set(one) & set(other)


def test_a_process_that_stood_still_notices_and_keeps_an_answer_that_goes_on() -> None:
    async def main() -> tuple[list[SystemResumed], str, list[str]]:
        provider = service(words_per_s=1)
        record = EventRecorder(provider)
        await provider.connect()
        answer = asyncio.ensure_future(provider.stream_completion("echo", "word " * 60))
        await asyncio.sleep(7)
        # As after SIGSTOP: time goes on, and no timer of this process has fired meanwhile.
        virtual_time.here().now_s += BEAT_S + TOLERATED_S
        text = (await answer).text
        record.close()
        await provider.close()
        return record.named("systemResumed"), text, record.statuses

    resumed, text, statuses = virtual_time.run(main())
    assert [event.detector for event in resumed] == ["late_timer"]
    assert resumed[0].suspended_for_s >= TOLERATED_S
    assert len(text.split()) == 60
    assert statuses == ["connecting", "connected"]


def test_after_a_stop_an_answer_that_does_not_go_on_is_ended_with_what_had_come() -> None:
    async def main() -> tuple[StreamInterruptedError, float]:
        provider = service(words_per_s=1)
        await provider.connect()
        provider.script(EchoAnswer(text="one two three four", hang_after_words=3))
        answer = asyncio.ensure_future(provider.stream_completion("echo", "Hi"))
        record = EventRecorder(provider)
        await asyncio.sleep(7)
        virtual_time.here().now_s += BEAT_S + TOLERATED_S
        await record.wait_for("systemResumed", timeout_s=60)
        noticed_s = virtual_time.here().time()
        with pytest.raises(StreamInterruptedError) as caught:
            await answer
        await provider.close()
        return caught.value, virtual_time.here().time() - noticed_s

    error, took_s = virtual_time.run(main())
    assert (error.code, error.partial.text) == ("suspended", "one two three ")
    assert took_s == pytest.approx(RESUME_GRACE_S)


async def test_a_connection_that_fell_silent_is_not_used_again() -> None:
    piece = {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}
    async with ScriptedPeer(fallback=Reply.sse([piece], ending="hang")) as peer:
        peer.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
        provider = OpenAICompatibleProvider(base_url=f"{peer.base_url}/v1", api_key="k")
        await provider.connect()
        with pytest.raises(StreamInterruptedError) as caught:
            await provider.generate_completion("m", "Hi", options={"timeouts": {"idle_s": 0.1}})
        assert (caught.value.code, caught.value.partial.text) == ("idle_timeout", "Hel")
        silent = peer.requests[-1].connection
        assert await peer.wait_for_disconnect() == silent
        await provider.get_available_models(refresh=True)
        assert peer.requests[-1].connection != silent
        await provider.close()
