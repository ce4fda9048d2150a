"""Small helpers that several test files share."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import msgspec

from llm_manager import Backoff, EchoProvider, LLMError, LLMProviderStatus, ProviderStatus
from llm_manager.events import Event
from llm_manager.testing import EventRecorder

Record = EventRecorder

QUICK = Backoff(first_s=0.01, max_s=0.02)

EVENTS = (
    "statusChanged", "reconnectScheduled", "modelsChanged", "modelChanged", "requestStarted",
    "requestFinished", "retryScheduled", "requestQueued", "streamStalled", "configChanged",
    "systemResumed", "error", "listenerError", "healthCheck",
    "providerAdded", "providerRemoved", "activeProviderChanged", "modelLoadProgress",
    "modelLoaded", "modelUnloaded",
)  # fmt: skip


def echo(**settings: Any) -> EchoProvider:
    """An echo provider without pauses."""
    settings.setdefault("words_per_s", float("inf"))
    settings.setdefault("reconnect", QUICK)
    return EchoProvider(**settings)


def same(error: BaseException, **facts: Any) -> bool:
    """Whether an error carries these facts."""
    assert isinstance(error, LLMError)
    return {name: getattr(error, name) for name in facts} == facts


class FakeHost:
    """A provider as a policy sees it: a snapshot to look at, and what was published.

    Args:
        status: fields of the snapshot.
    """

    def __init__(self, **status: Any) -> None:
        self.status = LLMProviderStatus(
            provider_id="fake", **{"status": ProviderStatus.CONNECTED, **status}
        )
        self.kind = "fake"
        self.is_composite = False
        self.address = self.settings = ""
        self.events: list[Any] = []
        self._lock = threading.Lock()

    def set(self, **fields: Any) -> None:
        """Change the snapshot."""
        self.status = msgspec.structs.replace(self.status, **fields)

    def publish(self, event: Event) -> bool:
        self.events.append(event)
        return True

    def named(self, name: str) -> list[Any]:
        """The published events of one name."""
        return [event for event in self.events if event.name == name]

    def count_queued(self, change: int) -> None:
        with self._lock:
            self.set(queued=self.status.queued + change)

    def open_circuit(self, error: LLMError, retry_at: datetime) -> None:
        self.set(circuit="open", retry_at=retry_at)

    def half_open_circuit(self) -> None:
        self.set(circuit="half_open")

    def close_circuit(self) -> None:
        self.set(circuit="closed")
