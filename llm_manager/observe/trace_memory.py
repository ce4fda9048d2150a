"""`InMemoryTraceProvider`: spans as plain data, for tests and for whoever has no OpenTelemetry."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from random import getrandbits
from time import time_ns
from typing import Any

from ..checks import check_number
from ..messages import Data
from .trace_provider import Attribute, Attributes, Metric, SpanKind, TraceSpan


class SpanEvent(Data, frozen=True, kw_only=True):
    """Something that happened during a span; ``at`` is UTC."""

    name: str
    at: datetime
    attributes: dict[str, Any]


class SpanRecord(Data, frozen=True, kw_only=True):
    """A span that has ended.

    Attributes:
        name, kind: as it was started.
        trace_id: 32 hexadecimal digits, the same for all that belongs together.
        span_id: 16 hexadecimal digits.
        parent_id: ``span_id`` of the span that it is a part of, or None.
        started_at: when it began, UTC.
        duration_s: how long it took, in seconds.
        attributes: what is known about it.
        events: what happened in between.
        error_type: a stable word if it failed, else None.
        error_message: what may be told about the failure, or None.
    """

    name: str
    kind: str
    trace_id: str
    span_id: str
    started_at: datetime
    duration_s: float
    attributes: dict[str, Any]
    parent_id: str | None = None
    events: tuple[SpanEvent, ...] = ()
    error_type: str | None = None
    error_message: str | None = None


class Measurement(Data, frozen=True, kw_only=True):
    """One measured value of a metric."""

    metric: str
    value: float
    attributes: dict[str, Any]


class InMemoryTraceProvider:
    """Keeps the newest spans and measurements; a `TraceProvider`.

    Args:
        limit: how many spans, and how many measurements, are kept.
        on_end: gets each `SpanRecord` when it has ended, e.g. to write it to a file; called where
            that happens, so it must be quick and must not raise.

    Raises:
        InvalidParameterError: ``limit`` is below 1.
    """

    def __init__(
        self, *, limit: int = 1000, on_end: Callable[[SpanRecord], object] | None = None
    ) -> None:
        check_number("limit", limit, low=1, whole=True)
        self._on_end = on_end
        # Records are made when somebody looks at them.  No lock: `append` and `copy` cannot be
        # interrupted, and a garbage collection may end a span in the middle of anything.
        self._spans: deque[_Span] = deque(maxlen=limit)
        self._measurements: deque[tuple[Metric, float, Attributes]] = deque(maxlen=limit)

    @property
    def spans(self) -> tuple[SpanRecord, ...]:
        """The spans that have ended, in the order of their ends."""
        return tuple(span.record for span in self._spans.copy())

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """What was measured, in its order."""
        return tuple(
            Measurement(metric=metric.name, value=value, attributes=dict(attributes))
            for metric, value, attributes in self._measurements.copy()
        )

    def clear(self) -> None:
        """Forget all spans and measurements."""
        self._spans.clear()
        self._measurements.clear()

    @contextmanager
    def span(self, name: str, **attributes: Attribute) -> Iterator[TraceSpan]:
        """A span around work of one's own; what is asked inside becomes a part of it."""
        span = self.start_span(name, attributes, kind="internal")
        try:
            with self.use(span):
                yield span
        except BaseException as error:  # whatever it is, the span tells of it
            span.set_error(type(error).__name__, None)
            raise
        finally:
            span.end()

    def start_span(
        self,
        name: str,
        attributes: Attributes,
        *,
        kind: SpanKind = "client",
        parent: TraceSpan | None = None,
        start_time_ns: int | None = None,
    ) -> TraceSpan:
        known = parent if parent is not None else _current.get()
        within = known if isinstance(known, _Span) and known.provider is self else None
        return _Span(self, name, kind, dict(attributes), within, start_time_ns or time_ns())

    def use(self, span: TraceSpan) -> AbstractContextManager[object]:
        return _Current(span)

    def record(self, metric: Metric, value: float, attributes: Attributes) -> None:
        self._measurements.append((metric, value, attributes))

    def _keep(self, span: _Span) -> None:
        self._spans.append(span)
        if self._on_end is not None:
            self._on_end(span.record)


class _Span:
    """A span that lasts, or has lasted."""

    recording = True
    # Most spans say nothing of these.
    _events: tuple[SpanEvent, ...] = ()
    _error_type: str | None = None
    _error_message: str | None = None
    _record: SpanRecord | None = None

    def __init__(
        self,
        provider: InMemoryTraceProvider,
        name: str,
        kind: str,
        attributes: dict[str, Attribute],
        parent: _Span | None,
        began_ns: int,
    ) -> None:
        self.provider = provider
        self.ids: tuple[int, int] = _new_ids(parent)
        """Of the trace, and of the span."""
        self._parent_id = None if parent is None else parent.ids[1]
        self._name, self._kind, self._attributes = name, kind, attributes
        self._began_ns = self._ended_ns = began_ns

    def set_attributes(self, attributes: Attributes) -> None:
        self._attributes.update(attributes)

    def add_event(self, name: str, attributes: Attributes) -> None:
        happened = SpanEvent(name=name, at=datetime.now(UTC), attributes=dict(attributes))
        self._events = (*self._events, happened)

    def set_error(self, error_type: str, message: str | None) -> None:
        self._error_type, self._error_message = error_type, message

    def end(self) -> None:
        self._ended_ns = time_ns()
        self.provider._keep(self)

    @property
    def record(self) -> SpanRecord:
        """What it was; once it has ended."""
        if self._record is None:
            trace_id, span_id = self.ids
            self._record = SpanRecord(
                name=self._name,
                kind=self._kind,
                trace_id=f"{trace_id:032x}",
                span_id=f"{span_id:016x}",
                parent_id=None if self._parent_id is None else f"{self._parent_id:016x}",
                started_at=datetime.fromtimestamp(self._began_ns / 1e9, UTC),
                duration_s=max(self._ended_ns - self._began_ns, 0) / 1e9,
                attributes=self._attributes,
                events=self._events,
                error_type=self._error_type,
                error_message=self._error_message,
            )
        return self._record


def _new_ids(parent: _Span | None) -> tuple[int, int]:
    if parent is not None:
        return parent.ids[0], getrandbits(64)
    both = getrandbits(192)
    return both >> 64, both & 0xFFFF_FFFF_FFFF_FFFF


_current: ContextVar[TraceSpan | None] = ContextVar("llm_manager_span", default=None)


class _Current:
    """Makes a span the current one; cheaper than a generator."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: TraceSpan) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token = _current.set(self._span)

    def __exit__(self, *exc: object) -> None:
        try:
            _current.reset(self._token)
        except ValueError:
            # Destroyed by the garbage collector in another context, where it is not current.
            pass
