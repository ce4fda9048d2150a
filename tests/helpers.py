"""Small helpers that several test files share."""

from __future__ import annotations

from typing import Any

from llm_manager import Backoff, EchoProvider, Event, EventEmitter, LLMError

QUICK = Backoff(first_s=0.01, max_s=0.02)

EVENTS = (
    "statusChanged", "reconnectScheduled", "modelsChanged", "modelChanged", "requestStarted",
    "requestFinished", "retryScheduled", "error", "listenerError", "healthCheck",
    "providerAdded", "providerRemoved", "activeProviderChanged", "modelLoadProgress",
    "modelLoaded", "modelUnloaded",
)  # fmt: skip


class Record(list[Event]):
    """All events of an emitter from now on, in order."""

    def __init__(self, emitter: EventEmitter) -> None:
        super().__init__()
        for name in EVENTS:
            emitter.on(name, self.append, delivery="inline")

    def named(self, name: str) -> list[Any]:
        return [e for e in self if e.name == name]

    @property
    def statuses(self) -> list[str]:
        """The status words in the order in which they were reached."""
        words = [e.current.status.value for e in self.named("statusChanged")]
        return [w for i, w in enumerate(words) if i == 0 or w != words[i - 1]]

    @property
    def outcomes(self) -> list[str]:
        return [e.outcome for e in self.named("requestFinished")]


def echo(**settings: Any) -> EchoProvider:
    """An echo provider without pauses."""
    settings.setdefault("words_per_s", float("inf"))
    settings.setdefault("reconnect", QUICK)
    return EchoProvider(**settings)


def same(error: BaseException, **facts: Any) -> bool:
    """Whether an error carries these facts."""
    assert isinstance(error, LLMError)
    return {name: getattr(error, name) for name in facts} == facts
