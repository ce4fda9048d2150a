"""What is known of one recent request, as data and while it goes on."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import msgspec

from ..events import (
    Event,
    RequestFinished,
    RequestQueued,
    RequestStarted,
    RetryScheduled,
    StreamStalled,
)
from ..messages import Data, FinishReason, Usage
from ..status import ErrorInfo
from .recent_content import Content

RequestState: TypeAlias = Literal["running", "ok", "error", "cancelled", "abandoned", "unknown"]

_NOTES_LIMIT = 50


class RetryNote(Data, frozen=True, kw_only=True):
    """Attempt number ``attempt`` failed at ``at`` (UTC); the next came ``wait_s`` seconds later."""

    at: datetime
    attempt: int
    wait_s: float
    error: ErrorInfo


class WaitNote(Data, frozen=True, kw_only=True):
    """The request had to wait from ``at`` (UTC) on; the rest is as in `RequestQueued`."""

    at: datetime
    reason: str
    position: int
    until: datetime | None


class StallNote(Data, frozen=True, kw_only=True):
    """At ``at`` (UTC) the answer had been silent for ``silent_s`` seconds."""

    at: datetime
    silent_s: float
    alive: bool


class RequestRecord(Data, frozen=True, kw_only=True):
    """What happened to one request.

    Attributes:
        request_id, provider_id, kind, model, operation, conversation_id, composite, parent_id: as
            in `RequestStarted`.
        children: the requests that are parts of this one and are still remembered.
        started_at: UTC.
        state: ``running``, how it ended, or ``unknown`` if its end was not listened to.
        duration_s: from start to end, in seconds; None while it runs.
        first_token_s: seconds until the first piece of the answer; None if none came, and while it
            runs.
        attempts: how often it was sent; 0 while it runs.
        retries, waits, stalls: what held it up, oldest first, the first 50 of all together.
        usage: token counts, if they are known.
        error: why it failed, or None.
        response_model: the model that answered, as the provider names it.
        finish_reason: why the answer ended, or None.
        answered_by: id of the provider that answered.
        cached: whether an earlier answer was given again.
        prompt: the newest messages, keys masked; None unless content is kept.
        answer: the text and the tool calls of the answer, keys masked; None unless content is kept.
        content_cut: whether there was more of either than is kept.
    """

    request_id: str
    provider_id: str
    kind: str
    model: str
    operation: str
    conversation_id: str | None
    composite: bool
    parent_id: str | None
    children: tuple[str, ...]
    started_at: datetime
    state: RequestState
    duration_s: float | None = None
    first_token_s: float | None = None
    attempts: int = 0
    retries: tuple[RetryNote, ...] = ()
    waits: tuple[WaitNote, ...] = ()
    stalls: tuple[StallNote, ...] = ()
    usage: Usage | None = None
    error: ErrorInfo | None = None
    response_model: str = ""
    finish_reason: FinishReason | None = None
    answered_by: str = ""
    cached: bool = False
    prompt: str | None = None
    answer: str | None = None
    content_cut: bool = False


class Entry:
    """One request while it goes on: the events themselves, put into order when somebody looks.

    Attributes:
        first: its start, or its end if that is all that was heard.
        finished: its end, or None.
        lost: whether nobody listens for its end any more.
    """

    __slots__ = ("_notes", "finished", "first", "lost")

    def __init__(self, first: RequestStarted | RequestFinished) -> None:
        self.first = first
        self.finished = first if isinstance(first, RequestFinished) else None
        self.lost = False
        self._notes: list[Event] = []

    def note(self, event: Event) -> None:
        """Take note of what held it up."""
        if len(self._notes) < _NOTES_LIMIT:
            self._notes.append(event)

    @property
    def started_at(self) -> datetime:
        if isinstance(self.first, RequestStarted):
            return self.first.at
        return self.first.at - timedelta(seconds=self.first.duration_s)

    @property
    def state(self) -> RequestState:
        if self.finished is not None:
            return self.finished.outcome
        return "unknown" if self.lost else "running"

    def record(self, children: tuple[str, ...], content: Content | None) -> RequestRecord:
        """Everything that is known, as data; ``content`` if that is kept."""
        about, end = self.first, self.finished
        record = RequestRecord(
            request_id=about.request_id,
            provider_id=about.provider_id,
            kind=about.kind,
            model=about.model,
            operation=about.operation,
            conversation_id=about.conversation_id,
            composite=about.composite,
            parent_id=about.parent_id,
            children=children,
            started_at=self.started_at,
            state=self.state,
            retries=tuple(_retry(e) for e in self._notes if isinstance(e, RetryScheduled)),
            waits=tuple(_wait(e) for e in self._notes if isinstance(e, RequestQueued)),
            stalls=tuple(_stall(e) for e in self._notes if isinstance(e, StreamStalled)),
            prompt=content.prompt if content is not None else None,
            answer=content.answer if content is not None else None,
            content_cut=content.cut if content is not None else False,
        )
        return record if end is None else _ended(record, end)


def _ended(record: RequestRecord, end: RequestFinished) -> RequestRecord:
    return msgspec.structs.replace(
        record,
        duration_s=end.duration_s,
        first_token_s=end.first_token_s,
        attempts=end.attempts,
        usage=end.usage,
        error=end.error,
        response_model=end.response_model,
        finish_reason=end.finish_reason,
        answered_by=end.answered_by,
        cached=end.cached,
    )


def _retry(event: RetryScheduled) -> RetryNote:
    return RetryNote(at=event.at, attempt=event.attempt, wait_s=event.wait_s, error=event.error)


def _wait(event: RequestQueued) -> WaitNote:
    return WaitNote(at=event.at, reason=event.reason, position=event.position, until=event.until)


def _stall(event: StreamStalled) -> StallNote:
    return StallNote(at=event.at, silent_s=event.silent_s, alive=event.alive)
