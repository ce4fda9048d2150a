"""`InMemoryTraceProvider`: spans as plain data, for tests and for whoever has no OpenTelemetry."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from random import getrandbits
from time import time_ns
from typing import Any

from .._threads import reset_after_fork
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
        self._spans: deque[SpanRecord] = deque(maxlen=limit)
        self._measurements: deque[Measurement] = deque(maxlen=limit)
        self._lock = threading.Lock()
        reset_after_fork(self)

    @property
    def spans(self) -> tuple[SpanRecord, ...]:
        """The spans that have ended, in the order of their ends."""
        with self._lock:
            return tuple(self._spans)

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """What was measured, in its order."""
        with self._lock:
            return tuple(self._measurements)

    def clear(self) -> None:
        """Forget all spans and measurements."""
        with self._lock:
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
        return _used(span)

    def record(self, metric: Metric, value: float, attributes: Attributes) -> None:
        measured = Measurement(metric=metric.name, value=value, attributes=dict(attributes))
        with self._lock:
            self._measurements.append(measured)

    def _keep(self, record: SpanRecord) -> None:
        with self._lock:
            self._spans.append(record)
        if self._on_end is not None:
            self._on_end(record)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


class _Span:
    """A span that lasts."""

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
        self.trace_id: str = parent.trace_id if parent else f"{getrandbits(128):032x}"
        self.span_id = f"{getrandbits(64):016x}"
        self._parent_id = parent.span_id if parent else None
        self._name, self._kind, self._attributes = name, kind, attributes
        self._began_ns = began_ns
        self._events: list[SpanEvent] = []
        self._error_type: str | None = None
        self._error_message: str | None = None

    @property
    def recording(self) -> bool:
        return True

    def set_attributes(self, attributes: Attributes) -> None:
        self._attributes.update(attributes)

    def add_event(self, name: str, attributes: Attributes) -> None:
        happened = SpanEvent(name=name, at=datetime.now(UTC), attributes=dict(attributes))
        self._events.append(happened)

    def set_error(self, error_type: str, message: str | None) -> None:
        self._error_type, self._error_message = error_type, message

    def end(self) -> None:
        self.provider._keep(
            SpanRecord(
                name=self._name,
                kind=self._kind,
                trace_id=self.trace_id,
                span_id=self.span_id,
                parent_id=self._parent_id,
                started_at=datetime.fromtimestamp(self._began_ns / 1e9, UTC),
                duration_s=max(time_ns() - self._began_ns, 0) / 1e9,
                attributes=self._attributes,
                events=tuple(self._events),
                error_type=self._error_type,
                error_message=self._error_message,
            )
        )


_current: ContextVar[TraceSpan | None] = ContextVar("llm_manager_span", default=None)


@contextmanager
def _used(span: TraceSpan) -> Iterator[None]:
    token = _current.set(span)
    try:
        yield
    finally:
        try:
            _current.reset(token)
        except ValueError:
            # Destroyed by the garbage collector in another context, where it is not current.
            pass
