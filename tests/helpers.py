"""Small helpers that several test files share."""

from __future__ import annotations

from typing import Any

from llm_manager import Backoff, EchoProvider, LLMError
from llm_manager.testing import EventRecorder

Record = EventRecorder

QUICK = Backoff(first_s=0.01, max_s=0.02)

EVENTS = (
    "statusChanged", "reconnectScheduled", "modelsChanged", "modelChanged", "requestStarted",
    "requestFinished", "retryScheduled", "error", "listenerError", "healthCheck",
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
