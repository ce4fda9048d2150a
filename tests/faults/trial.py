"""Tries one fault with one dialect, and tells what a user sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

from llm_manager import Backoff, LLMError, RequestFinished, Retries, Timeouts
from llm_manager.provider import BaseLLMProvider
from llm_manager.status import ErrorInfo

from .certificates import Certificates
from .dialects import MODEL, SECOND, Dialect
from .fault import Fault, Place, Seen
from .server import FaultServer

KEY = "sk-planted-4c1e77aa90"
# The clock that has to end a fault is short, and all others are longer than any test may take: that
# the request ends shows which clock it was, without looking at a watch.
_SHORT_S, _LONG_S = 0.15, 600.0
# Enough for what comes before the clock is to end it.
_SHORT_IN_TOTAL_S = 0.5
_TEST_LIMIT_S = 20.0


async def tried(fault: Fault, dialect: Dialect, certificates: Certificates) -> Seen:
    """Meet the fault with a new provider, and with one that has worked before."""
    async with asyncio.timeout(_TEST_LIMIT_S):
        facts: dict[str, Any] = {}
        if fault.can_meet_connecting:
            async with met(fault, dialect, certificates, worked=False) as (provider, _):
                with contextlib.suppress(LLMError):
                    await provider.connect()
                facts["connecting"] = _status(provider)
        if fault.can_be_first:
            async with met(fault, dialect, certificates, worked=False) as (provider, _):
                facts |= await _asked(provider, fault.says)
                facts["first"] = _status(provider)
        if fault.can_come_later:
            async with met(fault, dialect, certificates, worked=True) as (provider, checks):
                later = await _asked(provider, fault.says)
                await checks.over()
                facts = {**later, **facts, "worked": _status(provider)}
    return Seen(**facts)


@asynccontextmanager
async def met(
    fault: Fault, dialect: Dialect, certificates: Certificates, *, worked: bool
) -> AsyncIterator[tuple[BaseLLMProvider, Checks]]:
    """A provider in front of the fault, connected before that began if it ``worked``."""
    place = fault.place
    tls = certificates.server(place.certificate) if place.certificate else None
    async with FaultServer(dialect, tls=tls) as server:
        server.only_answers = not fault.everywhere
        if not worked:
            server.fault = fault.script
        provider = dialect.new(
            api_key=KEY,
            reconnect=Backoff(first_s=_LONG_S, max_s=_LONG_S),
            default_options={
                "timeouts": _timeouts(fault.clock),
                "retries": Retries(
                    attempts=2, wait_s=0.001, wait_max_s=0.001, retry_after_max_s=1.0
                ),
            },
            **_way_to(place, server, dialect, certificates),
        )
        checks = Checks(provider)
        try:
            if worked:
                await provider.connect()
                assert provider.status.status == "connected"
                if fault.while_idle is not None:
                    server.each_connection(fault.while_idle)
                    await _until_noticed()
                server.fault = fault.script
            yield provider, checks
            _look_for_key(server, provider)
        finally:
            await provider.close(0)


class Checks:
    """The probes of a provider, of which some follow a failure."""

    def __init__(self, provider: BaseLLMProvider) -> None:
        self._running = 0
        self._changed = asyncio.Event()
        provider.on("healthCheck", self._noted)

    async def over(self) -> None:
        """Wait until none runs and none has been scheduled."""
        while True:
            self._changed.clear()
            for _ in range(30):
                await asyncio.sleep(0)
            if self._running:
                await self._changed.wait()
            elif not self._changed.is_set():
                return

    def _noted(self, event: Any) -> None:
        self._running += 1 if event.phase == "started" else -1
        self._changed.set()


def _way_to(
    place: Place, server: FaultServer, dialect: Dialect, certificates: Certificates
) -> dict[str, Any]:
    """The settings that lead a provider to ``place``."""
    ports = {"port": server.port, "free": _free_port()}
    address = place.address or server.address
    way: dict[str, Any] = {"base_url": address.format(**ports) + dialect.below}
    if place.proxy is not None:
        way["proxy"] = place.proxy.format(**ports)
    if way["base_url"].startswith("https:"):
        way["ca_file"] = certificates.trusted
    return way


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _timeouts(short: str | None) -> Timeouts:
    limits = dict.fromkeys(Timeouts.__struct_fields__, _LONG_S)
    # Not the whole is to be limited where the fault is to be met by other means.
    limits["total_s"] = inf
    if short is not None:
        limits[short] = _SHORT_IN_TOTAL_S if short == "total_s" else _SHORT_S
    return Timeouts(**limits)


async def _asked(provider: BaseLLMProvider, says: str) -> dict[str, Any]:
    """Ask for one answer; what came of it.  ``says`` is part of the text of the error."""
    finished: list[RequestFinished] = []
    provider.on("requestFinished", finished.append)
    pieces: list[str] = []
    error: LLMError | None = None
    try:
        async for event in provider.stream_chat_completion(MODEL, "Hi"):
            pieces += [event.text] if event.kind == "text" else []
    except LLMError as failure:
        error = failure
    await provider.flush()
    text = "".join(pieces)
    [end] = finished
    facts: dict[str, Any] = {"attempts": end.attempts, "text": _shortened(text)}
    if error is None:
        return facts
    assert (error.partial.text if error.partial else "") == text
    assert says in str(error)
    _check_texts(error)
    return {
        **facts,
        "error": type(error).__name__,
        "code": error.code,
        "http_status": error.http_status,
        "retry_after_s": None if error.retry_after_s is None else round(error.retry_after_s, 3),
    }


def _shortened(text: str) -> str:
    """``text`` without what repeats itself: an endless answer is cut anywhere."""
    return re.sub(f"{SECOND}({SECOND})+$", f"{SECOND} …", text)


def _status(provider: BaseLLMProvider) -> str:
    state = provider.status
    return f"{state.status} ({state.reason})"


def _check_texts(error: LLMError) -> None:
    """Every error says what is wrong in words, and none shows the key."""
    assert error.message
    assert error.__cause__ is None
    for text in (str(error), repr(error), str(error.original), str(ErrorInfo.of(error))):
        assert KEY not in text


def _look_for_key(server: FaultServer, provider: BaseLLMProvider) -> None:
    """The key went to nobody but the server, and is in no status."""
    assert KEY not in repr(provider.status)
    assert not any("elsewhere" in request.path for request in server.asked)


async def _until_noticed() -> None:
    """What happened to idle connections reaches the client's sockets within some turns."""
    for _ in range(20):
        await asyncio.sleep(0.001)
