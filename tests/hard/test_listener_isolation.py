"""The hard cases of what listeners do to us that `tests/test_events.py` does not show already."""

from __future__ import annotations

import asyncio
import logging

import pytest

from llm_manager import ProviderConnectionError

from ..helpers import echo

WAIT_S = 20


async def test_a_failure_in_the_background_that_nobody_listens_to_is_logged_once(caplog) -> None:
    provider = echo()
    provider.go_offline()
    with pytest.raises(ProviderConnectionError):
        await provider.connect()
    await provider.wait_for(lambda now: now.attempt >= 5, WAIT_S)
    logged = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(logged) == 1, [r.getMessage() for r in logged]
    assert "refused" in logged[0].getMessage()
    provider.go_online()
    await provider.wait_for("connected", WAIT_S)
    await provider.close()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_no_verb_raises_what_a_listener_raised(asynchronous, caplog) -> None:
    provider = echo()

    def raises(_: object) -> None:
        raise ValueError("a bug in a window")

    async def raises_later(_: object) -> None:
        await asyncio.sleep(0)
        raise ValueError("a bug in a window")

    def raises_inside(_: object) -> None:
        raise ValueError("a bug where the status changes")

    words = ("connecting", "connected", "draining", "disconnected", "closed", "requestFinished")
    for word in words:
        provider.on(word, raises_later if asynchronous else raises)
        provider.on(word, raises_inside, delivery="inline")
    await provider.connect()
    assert (await provider.generate_completion("echo", "Hi")).text == "Hi"
    await provider.disconnect()
    await provider.close()
    assert provider.status.status == "closed"
    await provider.flush(WAIT_S)
    blamed = [r for r in caplog.records if "failed" in r.getMessage()]
    assert len(blamed) == 2 * len(words)  # each listener of each event once


async def test_stopping_does_not_wait_for_a_listener_that_never_ends() -> None:
    provider, entered, told_all = echo(), [], asyncio.Event()

    async def never_ends(event) -> None:
        entered.append(event.current.status)
        if event.current.status == "closed":
            told_all.set()
        await asyncio.Event().wait()

    for word in ("connected", "draining", "disconnected", "closed"):
        provider.on(word, never_ends)
    await provider.connect()
    await provider.disconnect()
    await provider.close()
    assert provider.status.status == "closed"
    async with asyncio.timeout(WAIT_S):
        await told_all.wait()
    assert entered == ["connected", "draining", "disconnected", "closed"]
    provider.remove_all_listeners()


async def test_healing_goes_on_while_a_listener_of_the_loss_has_not_ended() -> None:
    """The attempts come, and are announced, as if nobody listened."""
    provider = echo()
    attempts: list[int] = []

    async def never_ends(_: object) -> None:
        await asyncio.Event().wait()

    def raises(_: object) -> None:
        raise ValueError("a bug in a window")

    provider.on("reconnectScheduled", lambda event: attempts.append(event.attempt))
    for word in ("reconnecting", "reconnectScheduled", "error", "statusChanged"):
        provider.on(word, never_ends)
        provider.on(word, raises)
    await provider.connect()
    provider.go_offline()
    with pytest.raises(ProviderConnectionError):
        await provider.generate_completion("echo", "Hi", options={"retries": {"attempts": 1}})
    await provider.wait_for(lambda now: now.attempt >= 10, WAIT_S)
    assert attempts[:9] == list(range(1, 10))
    provider.go_online()
    await provider.wait_for("connected", WAIT_S)
    provider.remove_all_listeners()
    await provider.close()
