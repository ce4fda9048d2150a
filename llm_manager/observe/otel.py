"""`OpenTelemetryTraceProvider`: spans and metrics by way of the OpenTelemetry API.

Only the API is needed here; which SDK and exporter receive them, if any, the application decides.
Nothing of OpenTelemetry is imported before the first object is made.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

from ..errors import DependencyMissingError, InvalidParameterError
from .trace_provider import Attributes, Metric, SpanKind, TraceSpan

_SCOPE = "llm_manager"


class OpenTelemetryTraceProvider:
    """Reports to OpenTelemetry; a `TraceProvider`.

    Args:
        tracer_provider: whose spans they are; None: the application's global one, also if it is
            set later.
        meter_provider: the same for metrics.

    Raises:
        DependencyMissingError: ``opentelemetry-api`` is not installed.
        InvalidParameterError: one of them is no such provider.
    """

    def __init__(self, tracer_provider: Any = None, meter_provider: Any = None) -> None:
        self._trace = _module("trace")
        self._context = _module("context")
        metrics = _module("metrics")
        _check("tracer_provider", tracer_provider, "get_tracer")
        _check("meter_provider", meter_provider, "get_meter")
        self._tracer = self._trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        kinds = self._trace.SpanKind
        self._kinds = {"client": kinds.CLIENT, "internal": kinds.INTERNAL}
        self._failed = self._trace.StatusCode.ERROR
        self._histograms: dict[str, Any] = {}

    def start_span(
        self,
        name: str,
        attributes: Attributes,
        *,
        kind: SpanKind = "client",
        parent: TraceSpan | None = None,
        start_time_ns: int | None = None,
    ) -> _Span:
        span = self._tracer.start_span(
            name,
            None if parent is None else self._context_with(parent),
            self._kinds[kind],
            attributes,
            start_time=start_time_ns,
        )
        return _Span(span, self._failed)

    def use(self, span: TraceSpan) -> AbstractContextManager[object]:
        return _Current(self._context, self._context_with(span))

    def record(self, metric: Metric, value: float, attributes: Attributes) -> None:
        histogram = self._histograms.get(metric.name)
        if histogram is None:
            histogram = self._histograms[metric.name] = self._meter.create_histogram(
                metric.name,
                unit=metric.unit,
                description=metric.description,
                explicit_bucket_boundaries_advisory=metric.buckets,
            )
        histogram.record(value, attributes)

    def _context_with(self, span: TraceSpan) -> Any:
        """The present context with ``span``, which is one of ours, as the current one."""
        return self._trace.set_span_in_context(getattr(span, "span", None))


class _Span:
    """A span of OpenTelemetry, as `TraceSpan`."""

    __slots__ = ("_failed", "span")

    def __init__(self, span: Any, failed: Any) -> None:
        self.span = span
        self._failed = failed

    @property
    def recording(self) -> bool:
        return bool(self.span.is_recording())

    def set_attributes(self, attributes: Attributes) -> None:
        self.span.set_attributes(attributes)

    def add_event(self, name: str, attributes: Attributes) -> None:
        self.span.add_event(name, attributes)

    def set_error(self, error_type: str, message: str | None) -> None:
        self.span.set_status(self._failed, message or error_type)

    def end(self) -> None:
        self.span.end()


class _Current:
    """Makes a span the current one; cheaper than a generator, and safe where one is destroyed."""

    __slots__ = ("_context", "_here", "_token", "_with_span")

    def __init__(self, context: Any, with_span: Any) -> None:
        self._context, self._with_span = context, with_span

    def __enter__(self) -> None:
        self._here = _entered.set(None)
        self._token = self._context.attach(self._with_span)

    def __exit__(self, *exc: object) -> None:
        # An await that nobody will ever finish ends wherever the garbage collector has it closed:
        # in another context, where this span is not the current one.
        try:
            _entered.reset(self._here)
        except ValueError:
            return
        self._context.detach(self._token)


# Tells whether a block ends in the context in which it began.
_entered: ContextVar[None] = ContextVar("llm_manager_entered")


def _module(name: str) -> Any:
    module = None
    try:
        module = importlib.import_module(f"opentelemetry.{name}")
    except ImportError:
        pass
    if module is None:
        raise DependencyMissingError(
            "tracing to OpenTelemetry needs the package opentelemetry-api", extra="otel"
        )
    return module


def _check(name: str, given: Any, method: str) -> None:
    if given is not None and not callable(getattr(given, method, None)):
        raise InvalidParameterError(f"{name} must have {method}(), got {given!r:.60}")
