"""Checks of connecting, status, healing and closing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ...errors import (
    AuthenticationError,
    LLMError,
    ProviderConnectionError,
    ProviderError,
)
from ...provider import BaseLLMProvider
from ...status import ProviderStatus, Reason
from .base import Conformance, HttpKit, InProcessKit
from .expect import expect, raises
from .stage import Stage, check

ROUND_TRIP = [
    "connecting", "connected", "draining", "disconnected",
    "connecting", "connected", "draining", "disconnected", "closed",
]  # fmt: skip


class LifecycleChecks(Conformance):
    """What every provider does."""

    def test_building_one_touches_nothing(self) -> None:
        with self.surroundings() as server:
            threads = threading.active_count()
            provider = self.build(server, {})
            started = threading.active_count() - threads
            expect(started == 0, f"building the provider starts {started} threads")
            expect(
                server is None or server.connections_opened == 0,
                "building the provider opens a connection; do that in _open",
            )
            status = provider.status
            expect(
                status.status is ProviderStatus.DISCONNECTED and status.seq == 0,
                f"a provider that was just built is {status.status}, not disconnected",
            )
            asyncio.run(provider.close())

    @check
    async def test_it_connects_disconnects_and_connects_again(self, stage: Stage) -> None:
        provider = stage.make()
        for _ in range(2):
            await provider.connect()
            await provider.disconnect()
        await provider.close()
        seen = stage.events_of(provider).statuses
        expect(
            seen == ROUND_TRIP,
            f"connecting twice and closing goes through {seen}, not through {ROUND_TRIP}",
        )

    @check
    async def test_disconnecting_and_closing_again_is_harmless(self, stage: Stage) -> None:
        provider = stage.make()
        await provider._close()  # the contract: "may be called when nothing is open"
        await provider.disconnect()
        await provider.connect()
        for _ in range(2):
            await provider.disconnect()
        for _ in range(2):
            await provider.close()
        with raises(ProviderConnectionError, "it is closed and somebody asks") as caught:
            await provider.generate_completion(self.model, self.prompt)
        expect(
            caught.error.code == "closed", f"the error's code is {caught.error.code}, not closed"
        )

    @check
    async def test_twenty_who_connect_at_once_share_one_attempt(self, stage: Stage) -> None:
        provider = stage.make()
        await asyncio.gather(*(provider.connect() for _ in range(20)))
        probes = [e for e in stage.events_of(provider).named("healthCheck") if e.phase == "started"]
        expect(len(probes) == 1, f"twenty calls of connect() at once make {len(probes)} attempts")
        expect(provider.usable, f"after connecting it is {provider.status.status}")

    @check
    async def test_a_connect_that_is_cancelled_leaves_nothing_behind(self, stage: Stage) -> None:
        for steps in (0, 1, 2, 4, 8, 16):
            provider = stage.make()
            connecting = asyncio.create_task(provider.connect())
            for _ in range(steps):
                await asyncio.sleep(0)
            if connecting.done():
                break
            connecting.cancel()
            await asyncio.wait([connecting])
            word = provider.status.status
            # It may have been connected a moment before; but nothing is being attempted any more.
            expect(
                word is ProviderStatus.DISCONNECTED or word.usable,
                f"after a cancelled connect() it is {word}, not disconnected",
            )

    @check
    async def test_it_is_available_whether_connected_or_not(self, stage: Stage) -> None:
        provider = stage.make()
        expect(await provider.is_available(), "is_available() is False before it is connected")
        expect(
            provider.status.status is ProviderStatus.DISCONNECTED,
            f"is_available() made it {provider.status.status}; asking must not connect it",
        )
        await provider.connect()
        expect(await provider.is_available(), "is_available() is False although it is connected")

    def test_it_serves_one_event_loop_after_another(self) -> None:
        with self.surroundings() as server:
            provider = self.build(server, {})
            self.arrange(server, provider, self.wanted)
            for _ in range(2):
                asyncio.run(provider.generate_completion(self.model, self.prompt))
                self.arrange(server, provider, self.wanted)
            asyncio.run(provider.close(0))


class InProcessLifecycleChecks(InProcessKit):
    """What only a provider without a server does."""

    @check
    async def test_one_that_cannot_be_opened_says_why(self, stage: Stage) -> None:
        provider = self.make_broken_provider()
        if provider is None:
            pytest.skip("there is no provider of this kind that cannot be opened")
        with raises(LLMError, "it cannot be opened"):
            await provider.connect()
        word = provider.status.status
        await provider.close(0)
        expect(
            word in (ProviderStatus.FAILED, ProviderStatus.RECONNECTING),
            f"after it could not be opened it is {word}, neither failed nor reconnecting",
        )


class ServerLifecycleChecks(HttpKit):
    """What only a provider with a server does."""

    @check
    async def test_a_key_that_is_refused_is_a_failure_for_good(self, stage: Stage) -> None:
        self._needs_a_probe()
        provider = stage.make()
        stage.server.refuses(self.error(401, "who are you?"))
        with raises(AuthenticationError, "the server answers 401 while connecting"):
            await provider.connect()
        state = provider.status
        expect(
            (state.status, state.reason) == (ProviderStatus.FAILED, Reason.AUTH_INVALID),
            f"after a refused key it is {state.status} ({state.reason}), not failed (auth_invalid)",
        )

    @check
    async def test_a_refused_key_can_be_mended(self, stage: Stage) -> None:
        self._needs_a_probe()
        provider = stage.make()
        stage.server.refuses(self.error(401, "who are you?"))
        with raises(AuthenticationError, "the server answers 401 while connecting"):
            await provider.connect()
        stage.server.accepts()
        await provider.connect()
        expect(provider.usable, f"once the key is accepted it is {provider.status.status}")

    @check
    async def test_a_server_that_is_away_at_first_is_found_later(self, stage: Stage) -> None:
        self._needs_a_probe()
        provider = stage.make()
        await stage.server.goes_away()
        with raises(ProviderConnectionError, "there is no server") as caught:
            await provider.connect()
        expect(
            provider.status.status is ProviderStatus.RECONNECTING,
            f"without a server it is {provider.status.status} ({caught.error}), not reconnecting",
        )
        expect(not await provider.is_available(), "is_available() is True without a server")
        await stage.server.comes_back()
        await self._heals(provider)

    @check
    async def test_a_lost_server_is_noticed_and_found_again(self, stage: Stage) -> None:
        self._needs_a_probe()
        provider = stage.make()
        await provider.connect()
        await stage.server.goes_away()
        with raises(ProviderConnectionError, "the server has gone"):
            await provider.generate_completion(
                self.model, self.prompt, options={"retries": {"attempts": 1}}
            )
        expect(
            provider.status.status is ProviderStatus.RECONNECTING,
            f"after the server has gone it is {provider.status.status}, not reconnecting",
        )
        await stage.server.comes_back()
        await self._heals(provider)
        stage.plays(provider, self.wanted)
        await provider.generate_completion(self.model, self.prompt)

    @check
    async def test_a_server_in_trouble_is_tried_again(self, stage: Stage) -> None:
        self._needs_a_probe()
        provider = stage.make()
        stage.server.refuses(self.error(503, "not now"))
        with raises(ProviderError, "the server answers 503 while connecting"):
            await provider.connect()
        expect(
            provider.status.status is ProviderStatus.RECONNECTING,
            f"after a 503 it is {provider.status.status}, not reconnecting",
        )
        stage.server.accepts()
        await self._heals(provider)

    def _needs_a_probe(self) -> None:
        if not self.connecting_asks:
            pytest.skip("connecting asks the server nothing")

    async def _heals(self, provider: BaseLLMProvider) -> None:
        await provider.wait_for("connected", self.limit_s)
