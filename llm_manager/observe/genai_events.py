"""Names and attributes of what happens while a request runs.

The GenAI conventions have none for it, so they are our own.
"""

from __future__ import annotations

from ..events import RequestQueued, RetryScheduled, StreamStalled
from .trace_provider import Attribute

RETRY = "llm_manager.retry"
QUEUED = "llm_manager.queued"
STALLED = "llm_manager.stalled"


def retry_attributes(event: RetryScheduled) -> dict[str, Attribute]:
    return {
        "llm_manager.retry.attempt": event.attempt,
        "llm_manager.retry.of": event.of,
        "llm_manager.retry.wait_s": event.wait_s,
        "error.type": event.error.code,
    }


def queued_attributes(event: RequestQueued) -> dict[str, Attribute]:
    return {
        "llm_manager.queue.reason": event.reason,
        "llm_manager.queue.position": event.position,
    }


def stalled_attributes(event: StreamStalled) -> dict[str, Attribute]:
    return {
        "llm_manager.stall.silent_s": event.silent_s,
        "llm_manager.stall.fails_in_s": event.fails_in_s,
        "llm_manager.stall.alive": event.alive,
    }
