"""Health checks: whether a provider works, by what was seen, or by asking it for a proof."""

from __future__ import annotations

import pytest

from llm_manager import (
    LLMProviderManager,
    ProviderConnectionError,
    ProviderHealth,
    ProviderNotFoundError,
)

from ..helpers import echo

ONCE = {"retries": {"attempts": 1}}


async def test_a_provider_is_healthy_while_it_works() -> None:
    async with LLMProviderManager() as manager:
        health = ProviderHealth().attach(manager)
        provider = manager.register_provider(echo())
        assert not health.check_provider("echo")  # nothing is known of it yet
        await provider.connect()
        assert health.check_provider("echo")
        await manager.generate_completion("echo/echo", "test")
        assert health.of("echo").success_rate == 1.0

        provider.go_offline()
        with pytest.raises(ProviderConnectionError):
            await manager.generate_completion("echo/echo", "test", options=ONCE)
        assert not health.check_provider("echo")
        assert health.of("echo").last_error is not None

        provider.go_online()
        await provider.wait_for("connected", timeout_s=10)
        assert health.check_provider("echo")
        assert (health.of("echo").drops, health.of("echo").reconnects) == (1, 1)


async def test_a_proof_is_asked_of_the_provider_and_costs_no_generation() -> None:
    up, down = echo(), echo()
    down.go_offline()
    assert await up.is_available()
    assert not await down.is_available()
    assert not up.requests
    for provider in (up, down):
        await provider.close()


def test_a_provider_that_nobody_has_heard_of_is_not_just_unhealthy() -> None:
    with pytest.raises(ProviderNotFoundError):
        ProviderHealth().check_provider("opnai")
