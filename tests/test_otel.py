"""Tracing to OpenTelemetry, with its real SDK and exporters in memory."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import subprocess
import sys
import threading

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from llm_manager import (
    AuthenticationError,
    InvalidParameterError,
    LLMMessage,
    OpenTelemetryTraceProvider,
    RateLimitError,
    TraceProvider,
    Tracing,
    run_sync,
    run_tools,
)
from llm_manager.messages import ToolDefinition
from llm_manager.testing import ScriptedProvider

from .helpers import echo

SECRET = "sk-abcdefghijklmnop0123"
PROMPT = "what did Alice write to Bob"


class Telemetry:
    """An SDK of its own for each test."""

    def __init__(self, sampler=None) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider(sampler=sampler)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader])
        self.tracer = self.tracers.get_tracer("application")
        self.provider = OpenTelemetryTraceProvider(self.tracers, self.meters)

    @property
    def spans(self):
        return self._exporter.get_finished_spans()

    def points(self, metric: str):
        """The data points of one metric."""
        data = self._reader.get_metrics_data()
        scopes = [s for r in data.resource_metrics for s in r.scope_metrics] if data else []
        return [
            p for s in scopes for m in s.metrics if m.name == metric for p in m.data.data_points
        ]

    def everything(self) -> str:
        """All that is exported, as text."""
        data = self._reader.get_metrics_data()
        metrics = data.to_json() if data else ""
        return "".join(span.to_json() for span in self.spans) + metrics


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


async def test_a_request_is_a_client_span_under_the_callers_span(telemetry) -> None:
    provider = ScriptedProvider().answer("It is blue.")
    Tracing(telemetry.provider).attach(provider)
    with telemetry.tracer.start_as_current_span("work"):
        await provider.generate_completion(
            None, "x", options={"temperature": 0.5, "conversation_id": "c"}
        )
    request, work = telemetry.spans
    assert (request.name, request.kind) == ("chat scripted", SpanKind.CLIENT)
    assert request.parent.span_id == work.context.span_id
    assert request.context.trace_id == work.context.trace_id
    assert request.status.status_code is StatusCode.UNSET
    assert request.attributes["gen_ai.request.temperature"] == 0.5
    assert request.attributes["gen_ai.conversation.id"] == "c"
    assert request.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert request.attributes["gen_ai.usage.output_tokens"] == 3
    assert request.instrumentation_scope.name == "llm_manager"
    assert work.start_time <= request.start_time <= request.end_time <= work.end_time


async def test_a_retry_is_an_event_of_the_span(telemetry) -> None:
    provider = ScriptedProvider().fail(RateLimitError("slow down")).answer("ok")
    Tracing(telemetry.provider).attach(provider)
    await provider.generate_completion(None, "x", options={"retries": {"wait_s": 0}})
    [span] = telemetry.spans
    [event] = span.events
    assert event.name == "llm_manager.retry"
    assert event.attributes["error.type"] == "rate_limited"
    assert event.attributes["llm_manager.retry.wait_s"] == 0


async def test_an_error_is_a_status_with_the_code_alone(telemetry) -> None:
    provider = ScriptedProvider().fail(AuthenticationError(f"{PROMPT}: {SECRET}"))
    Tracing(telemetry.provider).attach(provider)
    with pytest.raises(AuthenticationError):
        await provider.generate_completion(None, "x")
    [span] = telemetry.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "auth_invalid"
    assert span.attributes["error.type"] == "auth_invalid"
    [point] = telemetry.points("gen_ai.client.operation.duration")
    assert point.attributes["error.type"] == "auth_invalid"


@pytest.mark.parametrize("how", ["break", "drop", "cancel"])
async def test_however_a_reader_leaves_the_span_ends_once(telemetry, how) -> None:
    provider = ScriptedProvider().answer("one two three four")
    Tracing(telemetry.provider).attach(provider)
    stream = provider.stream_completion(None, "x")
    events = aiter(stream)
    await anext(events)
    if how == "cancel":
        stream.cancel()
    elif how == "break":
        await stream.aclose()
    del events, stream
    gc.collect()
    async with asyncio.timeout(10):
        while not telemetry.spans:
            await asyncio.sleep(0)
    [span] = telemetry.spans
    assert span.status.status_code is StatusCode.UNSET
    expected = "cancelled" if how == "cancel" else "abandoned"
    assert span.attributes["llm_manager.outcome"] == expected
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_the_span_is_current_while_the_request_is_sent_and_never_for_the_reader(
    telemetry,
) -> None:
    sent = []

    class Sending(ScriptedProvider):
        async def _exchange(self, request):
            sent.append((trace.get_current_span(), baggage.get_baggage("tenant")))
            async for delta in super()._exchange(request):
                yield delta

    provider = Sending().answer("a b c")
    Tracing(telemetry.provider).attach(provider)
    seen = set()
    token = context.attach(baggage.set_baggage("tenant", "t1"))
    with telemetry.tracer.start_as_current_span("work") as work:
        async for _ in provider.stream_completion(None, "x"):
            seen.add(trace.get_current_span())
        seen.add(trace.get_current_span())
    context.detach(token)
    assert seen == {work}
    request, _ = telemetry.spans
    [(current, tenant)] = sent
    assert current.get_span_context() == request.context
    assert tenant == "t1"


async def test_fifty_requests_at_once_keep_their_parents_apart(telemetry) -> None:
    provider = echo(words_per_s=2000)
    Tracing(telemetry.provider).attach(provider)

    async def work(number: int) -> None:
        with telemetry.tracer.start_as_current_span(f"{number}"):
            await asyncio.sleep(0)
            await provider.generate_completion(
                None, "one two", options={"conversation_id": f"{number}"}
            )

    await asyncio.gather(*(work(number) for number in range(50)))
    works = {s.context.span_id: s.name for s in telemetry.spans if s.name != "chat echo"}
    requests = [s for s in telemetry.spans if s.name == "chat echo"]
    assert len(requests) == 50
    for span in requests:
        assert works[span.parent.span_id] == span.attributes["gen_ai.conversation.id"]


def test_a_synchronous_call_keeps_its_parent(telemetry) -> None:
    provider = echo()
    Tracing(telemetry.provider).attach(provider)
    with telemetry.tracer.start_as_current_span("work"):
        run_sync(provider.generate_completion(None, "x"))
    request, work = telemetry.spans
    assert request.parent.span_id == work.context.span_id
    run_sync(provider.close())


def test_a_loop_of_another_thread_has_its_own_parents(telemetry) -> None:
    def work() -> None:
        async def ask() -> None:
            async with echo() as provider:
                Tracing(telemetry.provider).attach(provider)
                with telemetry.tracer.start_as_current_span("inside"):
                    await provider.generate_completion(None, "x")

        asyncio.run(ask())

    with telemetry.tracer.start_as_current_span("outside"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    request, inside, _ = telemetry.spans
    assert request.parent.span_id == inside.context.span_id
    assert inside.parent is None


def test_a_block_that_ends_in_another_context_leaves_that_alone(telemetry, caplog) -> None:
    """As when the garbage collector ends what nobody will ever wait for again."""
    block = telemetry.provider.use(telemetry.provider.start_span("forgotten", {}))
    contextvars.copy_context().run(block.__enter__)
    with telemetry.tracer.start_as_current_span("elsewhere") as elsewhere:
        block.__exit__(None, None, None)
        assert trace.get_current_span() is elsewhere
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert caplog.records == []


# ---- content -------------------------------------------------------------------------------------


async def talk(provider: ScriptedProvider, tracing: Tracing) -> None:
    """All that could give something away."""

    def lookup(name: str) -> str:
        """Look up.

        Args:
            name: whom.
        """
        return f"{name} wrote {PROMPT}"

    provider.tool_call("lookup", {"name": PROMPT}, text=PROMPT).answer(PROMPT, reasoning=PROMPT)
    provider.fail(AuthenticationError(PROMPT))
    messages = [LLMMessage.system(PROMPT), LLMMessage.user(f"{PROMPT} {SECRET}")]
    await run_tools(provider, None, messages, [lookup], on_call=tracing.on_call)
    with pytest.raises(AuthenticationError):
        await provider.generate_completion(None, PROMPT)
    provider.answer(PROMPT).vectors([0.1])
    await provider.generate_fim(None, PROMPT, PROMPT)
    await provider.embed(None, PROMPT)


async def test_nothing_that_was_said_is_exported_by_default(telemetry) -> None:
    provider = ScriptedProvider()
    await talk(provider, Tracing(telemetry.provider).attach(provider))
    exported = telemetry.everything()
    assert len(telemetry.spans) == 6
    assert "Alice" not in exported
    assert SECRET not in exported


async def test_what_was_said_is_exported_when_asked_but_never_a_key(telemetry) -> None:
    provider = ScriptedProvider()
    await talk(provider, Tracing(telemetry.provider, content=True).attach(provider))
    exported = telemetry.everything()
    assert exported.count("Alice") > 10
    assert SECRET not in exported
    assert "***" in exported
    first = telemetry.spans[0].attributes
    [message] = json.loads(first["gen_ai.input.messages"])
    assert message["role"] == "user"


async def test_a_span_that_is_not_sampled_costs_no_content(telemetry) -> None:
    unsampled = Telemetry(ParentBased(ALWAYS_OFF))
    provider = ScriptedProvider().answer("yes")
    tracing = Tracing(unsampled.provider, content=True).attach(provider)
    stream = provider.stream_completion(None, "x")
    async for _ in stream:
        if tracing._running:
            assert tracing._running[stream.request_id].deltas is None
    assert unsampled.spans == ()
    assert unsampled.points("gen_ai.client.operation.duration")


# ---- metrics -------------------------------------------------------------------------------------


async def test_metrics_have_the_buckets_and_attributes_of_the_conventions(telemetry) -> None:
    provider = ScriptedProvider().answer("one two three")
    Tracing(telemetry.provider, chunk_times=True).attach(provider)
    await provider.generate_completion(None, "x")
    tokens = {p.attributes["gen_ai.token.type"]: p for p in telemetry.points(
        "gen_ai.client.token.usage"
    )}  # fmt: skip
    assert tokens["output"].sum == 3
    assert tokens["input"].explicit_bounds == tuple(4.0**n for n in range(14))
    for name, count in (
        ("gen_ai.client.operation.duration", 1),
        ("gen_ai.client.operation.time_to_first_chunk", 1),
        ("gen_ai.client.operation.time_per_output_chunk", 2),
    ):
        [point] = telemetry.points(name)
        assert point.count == count
        assert (point.explicit_bounds[0], point.explicit_bounds[-1]) == (0.01, 81.92)
        assert point.attributes["gen_ai.operation.name"] == "chat"
        assert point.attributes["gen_ai.provider.name"] == "scripted"
        assert point.attributes["gen_ai.request.model"] == "scripted"


async def test_embeddings_have_input_tokens_only(telemetry) -> None:
    provider = ScriptedProvider().vectors([0.1, 0.2])
    Tracing(telemetry.provider).attach(provider)
    await provider.embed(None, "text")
    [span] = telemetry.spans
    assert span.name == "embeddings scripted"
    assert "gen_ai.response.time_to_first_chunk" not in span.attributes
    kinds = [p.attributes["gen_ai.token.type"] for p in telemetry.points(
        "gen_ai.client.token.usage"
    )]  # fmt: skip
    assert "output" not in kinds


# ---- tools ---------------------------------------------------------------------------------------


async def test_a_call_of_a_tool_is_a_span_as_long_as_the_call(telemetry) -> None:
    async def wait() -> str:
        """Wait."""
        await asyncio.sleep(0.02)
        return "done"

    provider = ScriptedProvider().tool_call("wait").answer("ok")
    tracing = Tracing(telemetry.provider).attach(provider)
    with telemetry.tracer.start_as_current_span("agent"):
        await run_tools(provider, None, "go", [wait], on_call=tracing.on_call)
    _, tool, _, agent = telemetry.spans
    assert (tool.name, tool.kind) == ("execute_tool wait", SpanKind.INTERNAL)
    assert tool.parent.span_id == agent.context.span_id
    assert tool.end_time - tool.start_time >= 0.02e9


# ---- the package and its absence -----------------------------------------------------------------


def test_it_is_a_trace_provider(telemetry) -> None:
    assert isinstance(telemetry.provider, TraceProvider)


@pytest.mark.parametrize("name", ["tracer_provider", "meter_provider"])
def test_what_is_no_provider_of_opentelemetry_is_refused(name) -> None:
    with pytest.raises(InvalidParameterError, match=name):
        OpenTelemetryTraceProvider(**{name: "otlp"})


def test_a_tracer_provider_in_the_place_of_a_trace_provider_is_explained() -> None:
    with pytest.raises(InvalidParameterError, match="OpenTelemetryTraceProvider"):
        Tracing(TracerProvider())


async def test_without_an_sdk_requests_go_on(telemetry) -> None:
    provider = echo()
    Tracing(OpenTelemetryTraceProvider()).attach(provider)
    assert (await provider.generate_completion(None, "x")).text == "x"


def in_another_process(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_applications_sdk_may_be_set_up_later() -> None:
    in_another_process(
        "import asyncio\n"
        "from llm_manager import EchoProvider, Tracing\n"
        "provider = EchoProvider()\n"
        "Tracing().attach(provider)\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "exporter = InMemorySpanExporter()\n"
        "sdk = TracerProvider()\n"
        "sdk.add_span_processor(SimpleSpanProcessor(exporter))\n"
        "trace.set_tracer_provider(sdk)\n"
        "asyncio.run(provider.generate_completion(None, 'x'))\n"
        "assert [s.name for s in exporter.get_finished_spans()] == ['chat echo']\n"
    )


def test_without_the_package_the_error_names_the_extra() -> None:
    in_another_process(
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from llm_manager import DependencyMissingError, Tracing\n"
        "try:\n"
        "    Tracing()\n"
        "except DependencyMissingError as error:\n"
        "    assert error.extra == 'otel' and 'otel' in str(error)\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )


def test_nothing_is_imported_before_it_is_used() -> None:
    in_another_process(
        "import sys\n"
        "from llm_manager import OpenTelemetryTraceProvider, Tracing\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]\n"
    )


async def test_definitions_of_tools_are_told_when_asked(telemetry) -> None:
    provider = ScriptedProvider().answer("ok")
    Tracing(telemetry.provider, content=True).attach(provider)
    tool = ToolDefinition(name="look", description=f"Look with {SECRET}")
    await provider.generate_completion(None, "x", options={"tools": (tool,)})
    [span] = telemetry.spans
    [definition] = json.loads(span.attributes["gen_ai.tool.definitions"])
    assert definition["description"] == "Look with ***"
