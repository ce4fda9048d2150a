"""Writes down the events of providers and managers, for tests that ask what happened."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from ..emitter import EventEmitter
from ..events import Event


class EventRecorder(list[Event]):
    """All events of the given emitters from now on, in order, as they are published.

    Args:
        emitters: providers, managers, or both.
    """

    def __init__(self, *emitters: EventEmitter) -> None:
        super().__init__()
        self._subscriptions: list[tuple[EventEmitter, str]] = []
        self._waiting: list[asyncio.Future[None]] = []
        for emitter in emitters:
            self.listen_to(emitter)

    def listen_to(self, emitter: EventEmitter) -> None:
        """Record the events of one more emitter."""
        for name in _names():
            emitter.on(name, self._take, delivery="inline")
            self._subscriptions.append((emitter, name))

    def close(self) -> None:
        """Record nothing more; what is there stays."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for emitter, name in subscriptions:
            emitter.remove_listener(name, self._take)

    async def wait_for(self, name: str, n: int = 1, timeout_s: float = 10.0) -> Any:
        """The ``n``-th event of one name, as soon as it is there.

        Raises:
            AssertionError: it did not come in time; the text says what did.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while len(self.named(name)) < n:
                    await self._change()
        found = self.named(name)
        if len(found) < n:
            seen = [event.name for event in self]
            raise AssertionError(f"{name} came {len(found)} times within {timeout_s:g} s: {seen}")
        return found[n - 1]

    async def _change(self) -> None:
        """Wait for any event; whoever looks meanwhile has not missed one."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        size = len(self)
        self._waiting.append(future)
        try:
            if len(self) == size:
                await future
        finally:
            self._waiting.remove(future)

    def _take(self, event: Event) -> None:
        self.append(event)
        for future in list(self._waiting):
            # Events come from whatever thread they are published on.
            future.get_loop().call_soon_threadsafe(_wake, future)

    def named(self, name: str) -> list[Any]:
        """The events of one name, e.g. ``"requestFinished"``."""
        return [event for event in self if event.name == name]

    @property
    def statuses(self) -> list[str]:
        """The status words in the order in which they were reached."""
        words = [event.current.status.value for event in self.named("statusChanged")]
        return [word for place, word in enumerate(words) if not place or word != words[place - 1]]

    @property
    def outcomes(self) -> list[str]:
        """How the requests ended, in the order in which they did."""
        return [event.outcome for event in self.named("requestFinished")]


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _names() -> Iterable[str]:
    return sorted({kind.name for kind in _kinds(Event)})


def _kinds(kind: type[Event]) -> Iterator[type[Event]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _kinds(subclass)
