"""The hard cases of the status: it stays true under outages, flapping, slowness and haste.

What is shown about the words and their legal steps stands in ``tests/test_status.py``, and about
one connection at a time in ``tests/test_connection.py``; here are the stories that take longer.
"""

from __future__ import annotations

import asyncio

import pytest

from llm_manager import (
    Backoff,
    EchoProvider,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    RequestCancelledError,
)
from llm_manager.testing import EventRecorder, Reply, ScriptedPeer

from . import virtual_time

NO_JITTER = Backoff(first_s=1.0, factor=1.6, max_s=60.0, jitter=0.0)


def service(**settings) -> EchoProvider:
    """A service on the network whose time is that of the loop."""
    return EchoProvider(clock=virtual_time.here().clock, **{"reconnect": NO_JITTER, **settings})


async def test_connecting_that_is_cancelled_half_way_leaves_no_task_and_no_socket() -> None:
    async with ScriptedPeer(fallback=Reply(instead="hang")) as peer:
        provider = OpenAICompatibleProvider(base_url=peer.base_url, api_key="k")
        record = EventRecorder(provider)
        before = asyncio.all_tasks()
        connecting = asyncio.create_task(provider.connect())
        await peer.wait_for_request()
        served = asyncio.all_tasks() - before - {connecting}
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await peer.wait_for_disconnect()
        assert peer.open_connections == 0
        assert not [t for t in asyncio.all_tasks() - before if t not in served and not t.done()]
        assert record.statuses == ["connecting", "disconnected"]


async def test_disconnecting_while_the_server_is_silent_ends_the_attempt_and_its_socket() -> None:
    async with ScriptedPeer(fallback=Reply(instead="hang")) as peer:
        provider = OpenAICompatibleProvider(base_url=peer.base_url, api_key="k")
        connecting = asyncio.create_task(provider.connect())
        await peer.wait_for_request()
        await provider.disconnect()
        with pytest.raises(RequestCancelledError):
            await connecting
        await peer.wait_for_disconnect()
        assert provider.status.status == "disconnected"


def test_twenty_failed_attempts_are_one_change_of_the_status_and_twenty_announcements() -> None:
    async def main() -> EventRecorder:
        provider = service()
        record = EventRecorder(provider)
        provider.go_offline()
        with pytest.raises(ProviderConnectionError):
            await provider.connect()
        await provider.wait_for(lambda now: now.attempt == 20)
        record.close()
        await provider.close()
        return record

    record = virtual_time.run(main())
    assert record.statuses == ["connecting", "reconnecting"]
    scheduled = record.named("reconnectScheduled")
    assert [event.attempt for event in scheduled] == list(range(1, 21))
    assert [event.delay_s for event in scheduled[:4]] == pytest.approx([1, 1.6, 2.56, 4.096])
    assert {event.delay_s for event in scheduled[9:]} == {60.0}


@pytest.mark.parametrize("up_s", [2, 12])
def test_a_server_that_comes_and_goes_is_asked_ever_more_rarely_until_it_is_stable(up_s) -> None:
    async def main() -> list[float]:
        provider = service()
        record = EventRecorder(provider)
        await provider.connect()
        for _ in range(8):
            await asyncio.sleep(up_s)
            provider.go_offline()
            with pytest.raises(ProviderConnectionError):
                await provider.generate_completion(
                    "echo", "Hi", options={"retries": {"attempts": 1}}
                )
            await provider.wait_for("reconnecting")
            provider.go_online()
            await provider.wait_for("connected")
        await provider.close()
        return [event.delay_s for event in record.named("reconnectScheduled")]

    waits_s = virtual_time.run(main())
    if up_s < 10:  # a connection that held for less is no reason to begin anew
        assert waits_s == pytest.approx([min(1.6**n, 60) for n in range(8)])
    else:
        assert waits_s == [1.0] * 8


class SlowLocalServer(EchoProvider):
    """Is asked for its models while it answers somebody, and takes its time for that."""

    takes_s = 0.0

    async def _list_models(self):
        await asyncio.sleep(self.takes_s)
        return await super()._list_models()


@pytest.mark.parametrize("takes_s", [8.0, 3600.0])
def test_a_slow_server_that_goes_on_answering_is_never_taken_for_lost(takes_s) -> None:
    async def main() -> tuple[list[str], str]:
        clock = virtual_time.here().clock
        provider = SlowLocalServer(words_per_s=0.5, probe_interval_s=10, clock=clock)
        record = EventRecorder(provider)
        await provider.connect()
        provider.takes_s = takes_s
        question = " ".join(["word"] * 60)  # two minutes
        answer = asyncio.ensure_future(provider.stream_completion("echo", question))
        while not answer.done():
            # Somebody looks again and again, and waits no longer than five seconds for it.
            await asyncio.gather(provider.is_available(), asyncio.sleep(7))
        text = (await answer).text
        record.close()
        await provider.close()
        return record.statuses, text

    statuses, text = virtual_time.run(main())
    assert len(text.split()) == 60
    assert statuses == ["connecting", "connected", "degraded"]


def test_a_slow_server_is_degraded_and_connected_again_when_it_is_quick() -> None:
    async def main() -> list[str]:
        clock = virtual_time.here().clock
        provider = SlowLocalServer(probe_interval_s=10, clock=clock)
        record = EventRecorder(provider)
        await provider.connect()
        provider.takes_s = 8.0
        status = await provider.wait_for("degraded", timeout_s=60)
        assert (status.reason, status.usable) == ("slow", True)
        await asyncio.sleep(120)
        provider.takes_s = 0.0
        await provider.wait_for("connected", timeout_s=60)
        record.close()
        await provider.close()
        return record.statuses

    assert virtual_time.run(main()) == ["connecting", "connected", "degraded", "connected"]


@pytest.mark.parametrize(("takes_s", "status"), [(50.0, "connected"), (65.0, "degraded")])
def test_a_kind_of_provider_may_take_its_time_for_a_probe_without_being_slow(
    takes_s, status
) -> None:
    class SlowToStart(SlowLocalServer):
        probe_quick_s = 60.0

    async def main() -> str:
        provider = SlowToStart(clock=virtual_time.here().clock)
        provider.takes_s = takes_s
        await provider.connect()
        found = provider.status.status
        await provider.close()
        return found

    assert virtual_time.run(main()) == status


async def test_a_provider_with_all_its_settings_is_not_connected_before_it_was_asked() -> None:
    async with ScriptedPeer(fallback=Reply.json({"data": [{"id": "m"}]})) as peer:
        provider = OpenAICompatibleProvider(
            base_url=peer.base_url, api_key="k", default_model="m", models=["m"]
        )
        assert (provider.status.status, provider.usable) == ("disconnected", False)
        assert provider.status.verified_at is None
        assert peer.connections_opened == 0
        assert await asyncio.gather(*(provider.is_available() for _ in range(20))) == [True] * 20
        assert len(peer.requests) == 1
        assert provider.status.status == "disconnected"
        await provider.close()
