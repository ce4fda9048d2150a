"""All events of a manager, in the order in which they happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llm_manager import Event, LLMProviderManager

from .texts import EVENT_NAMES


class EventFeed:
    """Calls ``show`` for each event of ``manager``, one at a time, ordered by ``gseq``.

    Each event name has a mailbox of its own, so what arrives in one turn of the loop is put back
    into order before it is shown.
    """

    def __init__(self, manager: LLMProviderManager, show: Callable[[Event], object]) -> None:
        self._manager = manager
        self._show = show
        self._waiting: list[Event] = []
        for name in EVENT_NAMES:
            manager.on(name, self._arrived)

    def close(self) -> None:
        """Show nothing any more."""
        for name in EVENT_NAMES:
            self._manager.remove_listener(name, self._arrived)
        self._waiting.clear()

    async def settled(self) -> None:
        """Wait until everything that has happened so far is shown."""
        await self._manager.flush()
        self._hand_over()

    def _arrived(self, event: Event) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._waiting.append(event)

    def _hand_over(self) -> None:
        waiting, self._waiting = self._waiting, []
        for event in sorted(waiting, key=lambda each: each.gseq or 0):
            self._show(event)
