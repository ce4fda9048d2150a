"""Those who use the providers during the soak, each in its own way, and what they must see."""

from __future__ import annotations

import asyncio
import itertools
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from llm_manager import (
    CircuitOpenError,
    InvalidResponseError,
    LLMError,
    LLMProviderManager,
    LLMStream,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderOverloadedError,
    QueueFullError,
    RateLimitError,
    RequestCancelledError,
    RequestTimeoutError,
    StreamInterruptedError,
    run_sync,
)

from .server import PIECES

# What the faults, the restarts and the cancellations can lead to, and nothing else.
EXPECTED = (
    CircuitOpenError, InvalidResponseError, ProviderAPIError, ProviderConnectionError,
    ProviderOverloadedError, QueueFullError, RateLimitError, RequestCancelledError,
    RequestTimeoutError, StreamInterruptedError,
)  # fmt: skip
WAYS = ("read",) * 6 + ("await",) * 3 + ("break", "with", "cancel", "cancel", "task", "timeout")


class Crowd:
    """Everybody who asks.

    Attributes:
        ended: how the requests ended for those who read them.
        problems: what must not happen.
    """

    def __init__(self, manager: LLMProviderManager, seed: int) -> None:
        self.ended: Counter[str] = Counter()
        self.problems: list[str] = []
        self.stopping = threading.Event()
        self._manager = manager
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self._to_cancel: queue.SimpleQueue[tuple[float, LLMStream] | None] = queue.SimpleQueue()

    async def read_for_ever(self) -> None:
        """Ask again and again, each time in another way, until `stopping`."""
        await asyncio.sleep(self._random.uniform(0, 2))
        while not self.stopping.is_set():
            way = self._random.choice(WAYS)
            try:
                stream, whole = self._new_stream()
                await self._read(stream, way)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - judged there
                self._failed(error, way)
                await asyncio.sleep(self._random.uniform(0.05, 0.3))
            else:
                self.ended["whole" if way in ("read", "await") else f"left by {way}"] += 1
            self._check_text(stream, whole)

    async def _read(self, stream: LLMStream, way: str) -> None:
        if way == "await":
            await stream
        elif way == "break":
            await self._read_a_part(stream)
        elif way == "with":
            async with stream:
                await self._read_a_part(stream)
        elif way == "task":
            task = asyncio.create_task(_read_all(stream))
            await asyncio.sleep(self._random.uniform(0, 1.2))
            task.cancel()
            await task
        elif way == "timeout":
            async with asyncio.timeout(self._random.uniform(0, 1.2)):
                await _read_all(stream)
        else:
            if way == "cancel":
                due_s = time.monotonic() + self._random.uniform(0, 1.2)
                self._to_cancel.put((due_s, stream))
            await _read_all(stream)

    async def _read_a_part(self, stream: LLMStream) -> None:
        left = self._random.randint(1, PIECES)
        async for _ in stream:
            left -= 1
            if left == 0:
                break

    def _new_stream(self) -> tuple[LLMStream, str]:
        """A stream, and the whole answer that it would have."""
        provider = self._random.choice(list(self._manager.providers))
        text = f"{provider}-{next(self._numbers)}"
        whole = "".join(f"{text}:{number} " for number in range(PIECES))
        prompt = whole if provider == "echo" else text
        return self._manager.stream_completion(f"{provider}/m", prompt), whole

    def _failed(self, error: BaseException, way: str) -> None:
        wanted = {"task": asyncio.CancelledError, "timeout": TimeoutError}.get(way)
        if not isinstance(error, EXPECTED) and (wanted is None or not isinstance(error, wanted)):
            self.problems.append(f"{way} ended with {type(error).__name__}: {error}")
        self.ended[type(error).__name__] += 1

    def _check_text(self, stream: LLMStream, whole: str) -> None:
        """Nobody gets a piece of somebody else's answer, or a part that looks like the whole."""
        answer = stream.response
        if not whole.startswith(answer.text):
            self.problems.append(f"{answer.text!r} is no part of {whole!r}")
        elif answer.finish_reason == "stop" and answer.text != whole:
            self.problems.append(f"{answer.text!r} looks whole, and {whole!r} was sent")

    # ---- in threads ------------------------------------------------------------------------------

    def threads(self, synchronous: int) -> list[threading.Thread]:
        """One that cancels, and some that ask without an event loop."""
        targets: list[Callable[[], None]] = [self._cancel_for_ever]
        targets += [self._ask_for_ever] * synchronous
        return [threading.Thread(target=target, name="soak", daemon=True) for target in targets]

    def stop(self) -> None:
        self.stopping.set()
        self._to_cancel.put(None)

    def _cancel_for_ever(self) -> None:
        while (item := self._to_cancel.get()) is not None:
            due_s, stream = item
            time.sleep(max(due_s - time.monotonic(), 0))
            stream.cancel()
            stream.cancel()

    def _ask_for_ever(self) -> None:
        while not self.stopping.is_set():
            try:
                stream, whole = self._new_stream()
                run_sync(stream)
                self.ended["whole, synchronous"] += 1
            except Exception as error:  # noqa: BLE001 - judged there
                self._failed(error, "synchronous")
            self._check_text(stream, whole)
            self.stopping.wait(self._random.uniform(0.05, 0.3))


async def _read_all(stream: LLMStream) -> None:
    async for _ in stream:
        pass


async def trouble(
    manager: LLMProviderManager, seed: int, rotations: Counter[str], problems: list[str]
) -> None:
    """Change keys, disconnect, connect and ask for availability, for ever."""
    chance = random.Random(seed)
    for number in itertools.count():
        await asyncio.sleep(chance.uniform(0.1, 0.6))
        provider = chance.choice(list(manager.providers.values()))
        match chance.randrange(8):
            case 0 | 1 if provider.id != "echo":
                await provider.update_config(api_key=f"key-soak-{provider.id}-{number:06}")
                rotations[provider.id] += 1
            case 2:
                await provider.disconnect(chance.uniform(0, 0.5))
            case 3 | 4:
                try:
                    await provider.connect()
                except EXPECTED:
                    pass  # the server may be down
            case 5:
                provider.reconnect_now()
            case 6:
                try:
                    await provider.get_available_models(refresh=True)
                except EXPECTED:
                    pass
            case _:
                if await provider.is_available() not in (True, False):
                    problems.append("is_available() gave neither True nor False")


async def works_again(manager: LLMProviderManager) -> list[str]:
    """Which providers are not usable although nothing is wrong any more, and why."""
    problems = []
    for provider in manager.providers.values():
        try:
            await provider.connect(wait="ready", timeout_s=15)
            # The breaker may still wait for its one request; this is it.
            answer = await provider.generate_completion("m", "last", options={"force": True})
            if not answer.text:
                problems.append(f"{provider!r} gave no answer")
        except LLMError as error:
            problems.append(f"{provider!r} does not work at the end: {error!r} {provider.status}")
    return problems
