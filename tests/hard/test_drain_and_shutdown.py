"""The hard cases of the end: what runs gets its time, nothing comes after, nothing is left."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from llm_manager import (
    Backoff,
    EchoAnswer,
    EchoProvider,
    LLMProviderManager,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    RequestCancelledError,
)
from llm_manager.testing import EventRecorder, Reply, ScriptedPeer

from . import virtual_time


def test_a_drain_lets_short_answers_end_and_cuts_the_long_one_with_what_it_had() -> None:
    async def main() -> None:
        loop = virtual_time.here()
        provider = EchoProvider(clock=loop.clock)
        await provider.connect()
        record = EventRecorder(provider)
        provider.script(*(EchoAnswer(text="a b", words_per_s=speed) for speed in (4, 2)))
        provider.script(EchoAnswer(text="word " * 60, words_per_s=1))
        ends_s: dict[int, float] = {}

        async def read(number: int) -> str:
            try:
                return (await provider.stream_completion("echo", "Hi")).text
            finally:
                ends_s[number] = loop.time()

        began_s = loop.time()
        running = [asyncio.create_task(read(number)) for number in range(3)]
        await record.wait_for("requestStarted", 3)
        await provider.close(drain_timeout_s=2.2)
        *short, cut = await asyncio.gather(*running, return_exceptions=True)
        assert short == ["a b", "a b"]
        assert isinstance(cut, RequestCancelledError)
        assert (cut.code, cut.partial.text) == ("draining", "word word word ")
        took_s = [ends_s[number] - began_s for number in range(3)]
        assert took_s == pytest.approx([0.5, 1.0, 2.2], abs=0.01)
        assert record.statuses == ["draining", "disconnected", "closed"]
        assert provider.status.reason == "shutdown"
        assert record.outcomes == ["ok", "ok", "cancelled"]
        last = len(record)
        assert record[-1].name == "statusChanged"
        await asyncio.sleep(3600)
        assert len(record) == last

    virtual_time.run(main())


async def test_a_connected_provider_that_is_forgotten_goes_with_its_manager_and_its_socket() -> (
    None
):
    models = Reply.json({"data": [{"id": "m"}]})
    async with ScriptedPeer(fallback=models) as peer:
        manager = LLMProviderManager()
        provider = OpenAICompatibleProvider(base_url=f"{peer.base_url}/v1", probe_interval_s=600)
        manager.register_provider(provider)
        manager.on("statusChanged", lambda event: None)
        await provider.connect()
        threads = threading.active_count()
        gone = [weakref.ref(provider), weakref.ref(manager)]
        del provider, manager
        for _ in range(5):
            await asyncio.sleep(0)
            gc.collect()
        assert [reference() for reference in gone] == [None, None]
        assert threading.active_count() <= threads
        await peer.wait_for_disconnect()


def test_a_forgotten_provider_that_reconnects_goes_on_until_it_can_be_used() -> None:
    async def main() -> weakref.ref[EchoProvider]:
        clock = virtual_time.here().clock
        provider = EchoProvider(clock=clock, reconnect=Backoff(first_s=1, max_s=1))
        provider.go_offline()
        with pytest.raises(ProviderConnectionError):
            await provider.connect()
        reference = weakref.ref(provider)
        del provider
        await asyncio.sleep(60)
        gc.collect()
        still = reference()
        assert still is not None
        still.go_online()
        await still.wait_for("connected")
        del still
        await asyncio.sleep(60)
        gc.collect()
        return reference

    assert virtual_time.run(main())() is None
