"""`Tracing`: a span for every request, with the GenAI conventions' attributes, and their metrics.

::

    the stage: starts the span, in the          requestFinished: ends it; every request
    caller's task and context                   ends once, however it does

A span begins where the caller is, because only there its parent is known (`tracing_stage`); it
ends with the event, because only that tells how the request ended.

What was said is not reported unless asked for, and then masked and cut.
"""

from __future__ import annotations

import logging
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Self, cast

from ..checks import check_number, check_type
from ..emitter import EventEmitter
from ..errors import InvalidParameterError
from ..events import RequestFinished, RequestQueued, RetryScheduled, StreamStalled
from ..listening import Attachable
from ..manager import LLMProviderManager
from ..messages import Delta, LLMRequest
from ..provider import BaseLLMProvider
from . import genai, genai_events
from .genai_tool import tool_attributes, tool_span_name
from .otel import OpenTelemetryTraceProvider
from .trace_provider import Attributes, SpanKind, TraceProvider, TraceSpan, check_trace_provider
from .tracing_report import Report
from .tracing_stage import RunningRequest, TracingStage, base_url_of

if TYPE_CHECKING:
    from ..tools.records import ToolCallRecord

log = logging.getLogger("llm_manager.tracing")


class Tracing(Attachable):
    """Reports the requests of a provider, or of all providers of a manager, as spans.

    ::

        tracing = Tracing().attach(manager)

    The parent of a span is the one that is current where the answer is read; a request that a
    composite has passed on is a part of the composite's.

    Args:
        trace_provider: where spans and measurements go; None: `OpenTelemetryTraceProvider`.
        content: also what was asked and answered, and the texts of errors: people's words.
        content_limit_characters: how much text one attribute may hold.
        chunk_times: also measure the time between pieces of an answer.  Each piece is a
            measurement of its own, which costs an OpenTelemetry SDK more time than we need to
            deliver the piece.

    Raises:
        DependencyMissingError: no ``trace_provider``, and OpenTelemetry is not installed.
        InvalidParameterError: an argument is wrong.
    """

    listens_to = {  # noqa: RUF012 - declared as ClassVar by the base
        "requestFinished": "_finished",
        "retryScheduled": "_retried",
        "requestQueued": "_queued",
        "streamStalled": "_stalled",
    }

    def __init__(
        self,
        trace_provider: TraceProvider | None = None,
        *,
        content: bool = False,
        content_limit_characters: int = 32_768,
        chunk_times: bool = False,
    ) -> None:
        super().__init__()
        check_type("content", content, bool)
        check_type("chunk_times", chunk_times, bool)
        check_number("content_limit_characters", content_limit_characters, low=1, whole=True)
        self.trace_provider: TraceProvider = (
            OpenTelemetryTraceProvider() if trace_provider is None else trace_provider
        )
        check_trace_provider(self.trace_provider)
        self._chunk_times = chunk_times
        self._report = Report(content_limit_characters if content else None)
        self._running: dict[str, RunningRequest] = {}
        self._stages: dict[EventEmitter, TracingStage] = {}
        self._complained = False

    def attach(self, emitter: EventEmitter) -> Self:
        """Trace a provider, or all providers of a manager; see `Attachable.attach`.

        The parts of a composite are traced if they are attached, too, or belong to it.  The span is
        around all policies.
        """
        if not isinstance(emitter, BaseLLMProvider | LLMProviderManager):
            raise InvalidParameterError(
                f"attach() takes a provider or a manager, got {emitter!r:.60}"
            )
        super().attach(emitter)
        with self._lock:
            if emitter in self._stages:
                return self
            stage = self._stages[emitter] = TracingStage(
                emitter, self._start, self.trace_provider, chunk_times=self._chunk_times
            )
        emitter.add_policy(stage)  # after listening: whatever begins will be seen to end
        return self

    def on_call(self, record: ToolCallRecord) -> None:
        """Report a call of a tool: ``run_tools(..., on_call=tracing.on_call)``.

        The span is written when the call has ended, so what the tool traces itself is beside it
        and not inside.
        """
        span = self._new_span(
            tool_span_name(record),
            tool_attributes(record, self._report.content()),
            kind="internal",
            began_ns=_ago_ns(record.duration_s),
        )
        if span is None:
            return
        if record.outcome != "ok":
            span.set_error(record.outcome, self._report.message(record.error))
        span.end()

    # ---- from the stage --------------------------------------------------------------------------

    def _start(
        self,
        request: LLMRequest,
        call: genai.Call,
        provider: BaseLLMProvider | None,
        stage: TracingStage,
    ) -> RunningRequest | None:
        """The request with its span, which begins now; None if it cannot be traced."""
        running = self._running.get(request.id)
        if running is not None or not self._attached:
            return running  # it is sent a second time, or after `detach`
        kind: SpanKind = "client"
        began_ns = None
        if provider is not None:
            if provider.is_composite:
                kind = "internal"
            known = provider._running.get(request.id)
            if known is not None:  # it may have waited for the provider to be connected
                began_ns = time_ns() - int((monotonic() - known[0].began_s) * 1e9)
        span = self._new_span(call.span_name, call.attributes, kind, began_ns, request.parent_id)
        if span is None:
            return None
        deltas: list[Delta] | None = [] if self._report.tells_content and span.recording else None
        running = self._running[request.id] = RunningRequest(
            span, call, request, provider, deltas, stage
        )
        return running

    def _new_span(
        self,
        name: str,
        attributes: Attributes,
        kind: SpanKind,
        began_ns: int | None,
        parent_id: str | None = None,
    ) -> TraceSpan | None:
        try:
            return self.trace_provider.start_span(
                name,
                attributes,
                kind=kind,
                parent=None if parent_id is None else self._span_of(parent_id),
                start_time_ns=began_ns,
            )
        except Exception:  # somebody else's backend, for which no request must suffer
            # Once: a log is not to be filled.
            if not self._complained:
                self._complained = True
                log.exception("%s cannot start spans", type(self.trace_provider).__qualname__)
            return None

    def _span_of(self, request_id: str) -> TraceSpan | None:
        running = self._running.get(request_id)
        return None if running is None else running.span

    # ---- events, where they happen ---------------------------------------------------------------

    def _finished(self, event: RequestFinished) -> None:
        running = self._running.pop(event.request_id, None)
        if running is None:
            call, span = self._of_unseen(event)
        else:
            call, span = running.call, running.span
        if span is not None:
            try:
                if span.recording:
                    self._report.describe(span, event, running)
            finally:
                span.end()
        genai.measure(self.trace_provider.record, call, event)

    def _of_unseen(self, event: RequestFinished) -> tuple[genai.Call, TraceSpan | None]:
        """Of a request that was refused, or answered, before it came to the stage."""
        base_url = self._base_url(event.provider_id)
        call = genai.call_of(event.kind, event.operation, event.model, base_url)
        span = self._new_span(
            call.span_name,
            call.attributes,
            kind="internal" if event.composite else "client",
            parent_id=event.parent_id,
            began_ns=_ago_ns(event.duration_s),
        )
        return call, span

    def _base_url(self, provider_id: str) -> str | None:
        providers = (stage.provider(provider_id) for stage in tuple(self._stages.values()))
        return base_url_of(next(filter(None, providers), None))

    def _retried(self, event: RetryScheduled) -> None:
        if span := self._span_of(event.request_id):
            span.add_event(genai_events.RETRY, genai_events.retry_attributes(event))

    def _queued(self, event: RequestQueued) -> None:
        if span := self._span_of(event.request_id):
            span.add_event(genai_events.QUEUED, genai_events.queued_attributes(event))

    def _stalled(self, event: StreamStalled) -> None:
        if span := self._span_of(event.request_id):
            span.add_event(genai_events.STALLED, genai_events.stalled_attributes(event))

    # ---- the end ---------------------------------------------------------------------------------

    def _after_leaving(self, emitter: EventEmitter) -> None:
        with self._lock:
            stage = self._stages.pop(emitter, None)
        if stage is not None:
            cast(BaseLLMProvider | LLMProviderManager, emitter).remove_policy(stage)

    def _after_detaching(self, emitter: EventEmitter) -> None:
        self._after_leaving(emitter)
        while self._running:  # nobody will tell when these end
            _, running = self._running.popitem()
            running.span.set_attributes({"llm_manager.outcome": "detached"})
            running.span.end()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._running = {}


def _ago_ns(seconds: float) -> int:
    """The time of ``seconds`` ago, in nanoseconds since 1970."""
    return time_ns() - int(seconds * 1e9)
