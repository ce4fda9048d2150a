"""Tracing without any tracing library: spans of requests as plain data."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest

from llm_manager import (
    AuthenticationError,
    ConcurrencyLimit,
    FallbackProvider,
    FilePart,
    ImagePart,
    InMemoryTraceProvider,
    InvalidParameterError,
    LLMMessage,
    LLMProviderManager,
    LLMRequestOptions,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    RateLimitError,
    RequestCancelledError,
    RequestTimeoutError,
    ToolCall,
    TraceProvider,
    Tracing,
    default_policies,
    run_sync,
    run_tools,
)
from llm_manager.messages import (
    FinishDelta,
    MetaDelta,
    TextDelta,
    ToolDefinition,
    Usage,
    UsageDelta,
)
from llm_manager.testing import Reply, ScriptedPeer, ScriptedProvider

from .helpers import echo

SECRET = "sk-abcdefghijklmnop0123"
PLAIN_SECRET = "correct-horse-battery-staple"  # nothing tells that it is one
AT_ONCE = {"retries": {"attempts": 3, "wait_s": 0}}


@pytest.fixture
def traces() -> InMemoryTraceProvider:
    return InMemoryTraceProvider()


def only(traces: InMemoryTraceProvider):
    [span] = traces.spans
    return span


def everything(traces: InMemoryTraceProvider) -> str:
    """All that has been told."""
    return repr(traces.spans) + repr(traces.measurements)


# ---- one request ---------------------------------------------------------------------------------


async def test_a_request_is_a_span_with_the_attributes_of_the_conventions(traces) -> None:
    provider = ScriptedProvider(id="work").answer("It is blue.")
    Tracing(traces).attach(provider)
    options = {"temperature": 0.5, "max_tokens": 9, "seed": 3, "stop": "x", "conversation_id": "c"}
    await provider.generate_chat_completion("scripted", "hello", options)
    span = only(traces)
    assert (span.name, span.kind, span.error_type) == ("chat scripted", "client", None)
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "scripted",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 3,
        "gen_ai.request.stop_sequences": ("x",),
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": "c",
        "gen_ai.response.model": "scripted",
        "gen_ai.response.finish_reasons": ("stop",),
        "llm_manager.provider_id": "work",
        "llm_manager.outcome": "ok",
        "llm_manager.attempts": 1,
    }.items() <= span.attributes.items()
    assert span.attributes["gen_ai.usage.output_tokens"] == 3
    assert span.attributes["gen_ai.response.id"]
    assert 0 < span.attributes["gen_ai.response.time_to_first_chunk"] <= span.duration_s + 0.01


async def test_the_server_is_named_without_what_else_stands_in_its_address(traces) -> None:
    async with ScriptedPeer() as peer:
        peer.route("/v1/models", Reply.json({"data": [{"id": "small"}]}))
        choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
        peer.route("/v1/chat/completions", Reply.sse([{"id": "1", "choices": [choice]}, "[DONE]"]))
        async with OpenAICompatibleProvider(
            base_url=f"{peer.base_url}/v1", api_key=PLAIN_SECRET
        ) as it:
            Tracing(traces, content=True).attach(it)
            await it.generate_completion("small", f"my key is {PLAIN_SECRET}")
            port = int(peer.base_url.rsplit(":", 1)[1])
    span = only(traces)
    assert span.attributes["server.address"] == "127.0.0.1"
    assert span.attributes["server.port"] == port
    assert PLAIN_SECRET not in everything(traces)
    assert "my key is ***" in everything(traces)


@pytest.mark.parametrize(
    ("operation", "name"),
    [("chat", "chat"), ("completion", "chat"), ("fim", "text_completion"), ("embed", "embeddings")],
)
async def test_each_operation_has_the_name_of_the_conventions(traces, operation, name) -> None:
    provider = ScriptedProvider()
    Tracing(traces).attach(provider)
    if operation == "embed":
        provider.vectors([0.1, 0.2])
        await provider.embed(None, "text")
    elif operation == "fim":
        provider.answer("b")
        await provider.generate_fim(None, "a", "c")
    elif operation == "completion":
        provider.answer("b")
        await provider.generate_completion(None, "a")
    else:
        provider.answer("b")
        await provider.generate_chat_completion(None, "a")
    span = only(traces)
    assert span.name == f"{name} scripted"
    assert span.attributes["gen_ai.operation.name"] == name
    assert ("gen_ai.request.stream" in span.attributes) is (operation != "embed")


async def test_a_request_for_json_says_so(traces) -> None:
    provider = ScriptedProvider().answer("{}")
    Tracing(traces).attach(provider)
    await provider.generate_completion(None, "x", options={"response_format": "json_object"})
    assert only(traces).attributes["gen_ai.output.type"] == "json"


# ---- how it ends ---------------------------------------------------------------------------------


async def test_an_error_ends_the_span_with_its_code_and_without_its_text(traces) -> None:
    provider = ScriptedProvider().fail(AuthenticationError("the key of Alice", http_status=401))
    Tracing(traces).attach(provider)
    with pytest.raises(AuthenticationError):
        await provider.generate_completion(None, "x")
    span = only(traces)
    assert (span.error_type, span.error_message) == ("auth_invalid", None)
    assert span.attributes["error.type"] == "auth_invalid"
    assert span.attributes["http.response.status_code"] == 401
    assert span.attributes["llm_manager.outcome"] == "error"
    assert "Alice" not in everything(traces)


async def test_a_timeout_names_the_clock(traces) -> None:
    provider = ScriptedProvider().answer("late", delay_s=60)
    Tracing(traces).attach(provider)
    limits = {"timeouts": {"first_token_s": 0.05}, "retries": {"attempts": 1}}
    with pytest.raises(RequestTimeoutError):
        await provider.generate_completion(None, "x", options=limits)
    assert only(traces).error_type == "first_token_timeout"


async def test_an_abandoned_stream_ends_its_span_once_and_without_an_error(traces) -> None:
    provider = ScriptedProvider().answer("one two three four")
    Tracing(traces).attach(provider)
    async with provider.stream_completion(None, "x") as stream:
        async for _ in stream:
            break
    span = only(traces)
    assert (span.attributes["llm_manager.outcome"], span.error_type) == ("abandoned", None)
    assert "gen_ai.response.finish_reasons" not in span.attributes
    assert span.attributes["llm_manager.usage.estimated"] is True
    assert not [m for m in traces.measurements if m.metric == "gen_ai.client.token.usage"]


async def test_a_forgotten_stream_ends_its_span_once(traces) -> None:
    provider = ScriptedProvider().answer("one two three four")
    Tracing(traces).attach(provider)
    events = aiter(provider.stream_completion(None, "x"))
    await anext(events)
    assert traces.spans == ()
    del events
    gc.collect()
    async with asyncio.timeout(10):
        while not traces.spans:
            await asyncio.sleep(0)
    assert only(traces).attributes["llm_manager.outcome"] == "abandoned"


async def test_a_cancelled_stream_ends_its_span_once_and_without_an_error(traces) -> None:
    provider = ScriptedProvider().answer("late", delay_s=60)
    Tracing(traces).attach(provider)
    stream = provider.stream_completion(None, "x")
    task = asyncio.ensure_future(stream._run())
    while provider.status.in_flight == 0:
        await asyncio.sleep(0)
    stream.cancel()
    with pytest.raises(RequestCancelledError):
        await task
    span = only(traces)
    assert (span.attributes["llm_manager.outcome"], span.error_type) == ("cancelled", None)
    assert "error.type" not in span.attributes
    assert not [m for m in traces.measurements if "error.type" in m.attributes]


async def test_a_cancelled_task_ends_its_span_once(traces) -> None:
    provider = ScriptedProvider().answer("late", delay_s=60)
    Tracing(traces).attach(provider)
    task = asyncio.create_task(provider.generate_completion(None, "x"))
    while provider.status.in_flight == 0:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert only(traces).attributes["llm_manager.outcome"] == "cancelled"


async def test_a_request_that_is_refused_before_it_is_sent_has_a_span(traces) -> None:
    provider = ScriptedProvider()
    Tracing(traces).attach(provider)
    await provider.close()
    with traces.span("work"), pytest.raises(ProviderConnectionError):
        await provider.generate_completion(None, "x", options={"conversation_id": "c"})
    request, work = traces.spans
    assert request.parent_id == work.span_id
    assert request.error_type == "closed"
    assert request.attributes["gen_ai.conversation.id"] == "c"
    assert request.name == "chat scripted"


async def test_a_server_that_is_not_there_is_named_in_the_span(traces) -> None:
    async with ScriptedPeer() as peer:
        port = int(peer.base_url.rsplit(":", 1)[1])
    async with LLMProviderManager() as manager:
        Tracing(traces).attach(manager)
        manager.register_provider("compatible", base_url=f"http://127.0.0.1:{port}/v1")
        with pytest.raises(ProviderConnectionError):
            options = {"retries": {"attempts": 1}}
            await manager.generate_completion("compatible/small", "x", options=options)
    span = only(traces)
    assert span.error_type == "refused"
    assert (span.attributes["server.address"], span.attributes["server.port"]) == (
        "127.0.0.1",
        port,
    )


async def test_waiting_for_the_connection_is_a_part_of_the_span(traces) -> None:
    provider = echo(connect_delay_s=0.05)
    Tracing(traces).attach(provider)
    await provider.generate_completion(None, "x")
    assert only(traces).duration_s >= 0.05


# ---- in between ----------------------------------------------------------------------------------


async def test_retries_are_events_with_the_wait_and_the_error(traces) -> None:
    provider = ScriptedProvider().fail(RateLimitError("slow down")).answer("ok")
    Tracing(traces).attach(provider)
    await provider.generate_completion(None, "x", options=AT_ONCE)
    span = only(traces)
    [event] = span.events
    assert event.name == "llm_manager.retry"
    assert event.attributes == {
        "llm_manager.retry.attempt": 1,
        "llm_manager.retry.of": 3,
        "llm_manager.retry.wait_s": 0.0,
        "error.type": "rate_limited",
    }
    assert span.attributes["llm_manager.attempts"] == 2
    assert span.error_type is None


async def test_waiting_in_a_queue_is_an_event(traces) -> None:
    provider = ScriptedProvider(policies=[ConcurrencyLimit(1)]).answer("a b").answer("c")
    Tracing(traces).attach(provider)
    first = aiter(provider.stream_completion(None, "x"))
    await anext(first)
    second = asyncio.create_task(provider.generate_completion(None, "y"))
    while provider.status.queued == 0:
        await asyncio.sleep(0)
    async for _ in first:
        pass
    await second
    [event] = traces.spans[1].events
    assert (event.name, event.attributes["llm_manager.queue.reason"]) == (
        "llm_manager.queued",
        "concurrency",
    )


async def test_an_answer_that_falls_silent_is_an_event(traces) -> None:
    provider = ScriptedProvider().hang(text="one two", after_words=1)
    Tracing(traces).attach(provider)
    limits = {"timeouts": {"idle_s": 0.1}, "retries": {"attempts": 1}}
    with pytest.raises(Exception, match="silent"):
        await provider.generate_completion(None, "x", options=limits)
    span = only(traces)
    assert [event.name for event in span.events] == ["llm_manager.stalled"]
    assert span.error_type == "idle_timeout"


# ---- whose part a span is ------------------------------------------------------------------------


async def test_the_parent_is_the_span_in_which_the_answer_is_read(traces) -> None:
    provider = echo()
    Tracing(traces).attach(provider)
    stream = provider.stream_completion(None, "x")
    with traces.span("work", step=1) as work:
        await stream
    request, outer = traces.spans
    assert (request.parent_id, request.trace_id) == (outer.span_id, outer.trace_id)
    assert outer.attributes == {"step": 1}
    assert work.recording


async def test_the_span_is_not_the_current_one_while_the_reader_has_the_turn(traces) -> None:
    provider = ScriptedProvider().answer("a b c")
    Tracing(traces).attach(provider)
    with traces.span("outer"):
        async for event in provider.stream_completion(None, "x"):
            if event.kind == "text":
                with traces.span("inner"):
                    pass
    *inner, request, outer = traces.spans
    assert len(inner) == 3
    assert {span.parent_id for span in inner} == {outer.span_id}
    assert request.parent_id == outer.span_id


async def test_the_span_is_the_current_one_while_the_request_is_sent(traces) -> None:
    class Instrumented(ScriptedProvider):
        async def _exchange(self, request):
            with traces.span("HTTP POST"):
                await asyncio.sleep(0)
            async for delta in super()._exchange(request):
                yield delta

    provider = Instrumented().answer("a b")
    Tracing(traces).attach(provider)
    await provider.generate_completion(None, "x")
    http, request = traces.spans
    assert (http.name, http.parent_id) == ("HTTP POST", request.span_id)


async def test_fifty_requests_at_once_keep_their_parents_apart(traces) -> None:
    provider = echo(words_per_s=2000)
    Tracing(traces, content=True).attach(provider)

    async def work(number: int) -> None:
        with traces.span(f"work {number}"):
            await asyncio.sleep(0)
            await provider.generate_completion(None, f"question {number} and more")

    await asyncio.gather(*(work(number) for number in range(50)))
    works = {span.span_id: span for span in traces.spans if span.name.startswith("work")}
    requests = [span for span in traces.spans if span.name == "chat echo"]
    assert len(works) == len(requests) == 50
    for span in requests:
        number = works[span.parent_id].name.split()[1]
        [message] = json.loads(span.attributes["gen_ai.input.messages"])
        assert message["parts"][0]["content"] == f"question {number} and more"


def test_a_synchronous_call_keeps_its_parent(traces) -> None:
    provider = echo()
    Tracing(traces).attach(provider)
    with traces.span("work"):
        run_sync(provider.generate_completion(None, "x"))
    request, work = traces.spans
    assert request.parent_id == work.span_id
    run_sync(provider.close())


def test_requests_on_loops_of_several_threads_keep_their_parents_apart(traces) -> None:
    manager = LLMProviderManager()
    Tracing(traces).attach(manager)
    providers = [manager.register_provider(echo(id=f"echo{n}")) for n in range(4)]

    async def ask(number: int) -> None:
        with traces.span(f"work {number}"):
            for _ in range(20):
                await providers[number].generate_completion(None, "x")
        await providers[number].close()

    threads = [threading.Thread(target=asyncio.run, args=(ask(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    works = {s.span_id: s.name.split()[1] for s in traces.spans if s.name.startswith("work")}
    requests = [span for span in traces.spans if span.name == "chat echo"]
    assert len(requests) == 80
    for span in requests:
        assert span.attributes["llm_manager.provider_id"] == f"echo{works[span.parent_id]}"


def test_a_block_that_ends_in_another_context_leaves_that_alone(traces) -> None:
    block = traces.use(traces.start_span("forgotten", {}))
    contextvars.copy_context().run(block.__enter__)
    with traces.span("elsewhere"):
        block.__exit__(None, None, None)
        with traces.span("inside"):
            pass
    inside, elsewhere = traces.spans
    assert inside.parent_id == elsewhere.span_id


class Relay(ScriptedProvider):
    """Passes requests on to another provider, in a task that knows nothing of the caller."""

    kind = "relay"
    is_composite = True

    def __init__(self, part, **common) -> None:
        super().__init__(**common)
        self._part = part

    async def _exchange(self, request):
        stream = self._part._stream_for(
            None, request.options, request.operation, None,
            parent_id=request.id, messages=request.messages,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        response = await loop.create_task(stream._run(), context=contextvars.Context())
        yield MetaDelta(response.model, response.response_id, self._part.id)
        yield TextDelta(response.text)
        yield FinishDelta("stop")
        yield UsageDelta(Usage(prompt_tokens=1, completion_tokens=1))


async def test_a_request_that_a_composite_passes_on_is_a_part_of_its_span(traces) -> None:
    part = ScriptedProvider(id="part").answer("yes")
    relay = Relay(part, id="relay")
    tracing = Tracing(traces).attach(relay).attach(part)
    with traces.span("work"):
        await relay.generate_completion(None, "x")
    inner, outer, work = traces.spans
    assert (inner.parent_id, outer.parent_id) == (outer.span_id, work.span_id)
    assert (inner.kind, outer.kind) == ("client", "internal")
    assert outer.attributes["llm_manager.composite"] is True
    assert outer.attributes["llm_manager.answered_by"] == "part"
    tracing.detach()


async def test_tokens_of_a_composite_are_told_once(traces) -> None:
    part = ScriptedProvider(id="part").answer("yes")
    relay = Relay(part, id="relay")
    Tracing(traces).attach(relay).attach(part)
    await relay.generate_completion(None, "x")
    inner, outer = traces.spans
    assert "gen_ai.usage.output_tokens" in inner.attributes
    assert "gen_ai.usage.output_tokens" not in outer.attributes
    assert {m.attributes["gen_ai.provider.name"] for m in traces.measurements} == {"scripted"}


class Kept:
    """Answers from memory, as a cache does."""

    def wrap(self, exchange, host):
        async def answer(request):
            yield MetaDelta("scripted", "old", cached=True)
            yield TextDelta("kept")
            yield FinishDelta("stop")
            yield UsageDelta(Usage(prompt_tokens=5, completion_tokens=1))

        return answer


@pytest.mark.parametrize("outside", [False, True])
async def test_an_answer_from_a_cache_is_a_span_without_tokens(traces, outside) -> None:
    provider = ScriptedProvider()
    tracing = Tracing(traces)
    if not outside:
        provider.add_policy(Kept())
    tracing.attach(provider)
    if outside:
        provider.add_policy(Kept())
    with traces.span("work"):
        await provider.generate_completion(None, "x")
    request, work = traces.spans
    assert request.parent_id == work.span_id
    assert request.attributes["llm_manager.cached"] is True
    assert "gen_ai.usage.input_tokens" not in request.attributes
    assert "gen_ai.client.token.usage" not in {m.metric for m in traces.measurements}


async def test_an_answer_that_is_asked_for_twice_to_fit_a_schema_has_one_span(traces) -> None:
    @dataclass
    class City:
        name: str

    provider = ScriptedProvider(capabilities={"chat", "completion"})
    provider.answer("no json").answer('{"name": "Rome"}')
    Tracing(traces, content=True).attach(provider)
    response = await provider.generate_completion(None, "x", options={"response_format": City})
    assert response.parse(City) == City("Rome")
    span = only(traces)
    assert span.attributes["llm_manager.attempts"] == 2
    [answer] = json.loads(span.attributes["gen_ai.output.messages"])
    assert answer["parts"] == [{"type": "text", "content": '{"name": "Rome"}'}]


# ---- content -------------------------------------------------------------------------------------

PRIVATE = ("the diary of Alice", "be terse, Bob", "Carol knows", "secret_tool", "Dave")


async def private_request(provider: ScriptedProvider) -> None:
    provider.tool_call("secret_tool", {"who": "Dave"}, text="Carol knows")
    tool = ToolDefinition(name="secret_tool")
    await provider.generate_chat_completion(
        None,
        [LLMMessage.system("be terse, Bob"), LLMMessage.user("the diary of Alice")],
        LLMRequestOptions(tools=(tool,)),
    )


async def test_nothing_that_was_said_is_told_by_default(traces) -> None:
    provider = ScriptedProvider()
    Tracing(traces).attach(provider)
    await private_request(provider)
    provider.fail(ProviderConnectionError("could not send: the diary of Alice", code="reset"))
    with pytest.raises(ProviderConnectionError):
        await provider.generate_completion(None, "x", options={"retries": {"attempts": 1}})
    assert len(traces.spans) == 2
    for text in PRIVATE:
        assert text not in everything(traces)


async def test_content_has_the_shapes_of_the_conventions(traces) -> None:
    provider = ScriptedProvider()
    Tracing(traces, content=True).attach(provider)
    await private_request(provider)
    told = only(traces).attributes
    assert json.loads(told["gen_ai.system_instructions"]) == [
        {"type": "text", "content": "be terse, Bob"}
    ]
    assert json.loads(told["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "the diary of Alice"}]}
    ]
    [definition] = json.loads(told["gen_ai.tool.definitions"])
    assert (definition["type"], definition["name"]) == ("function", "secret_tool")
    [answer] = json.loads(told["gen_ai.output.messages"])
    text, call = answer["parts"]
    assert (answer["role"], answer["finish_reason"]) == ("assistant", "tool_call")
    assert text == {"type": "text", "content": "Carol knows"}
    assert (call["type"], call["name"], call["arguments"]) == (
        "tool_call",
        "secret_tool",
        {"who": "Dave"},
    )


async def test_results_of_tools_and_pictures_are_told_without_bytes(traces) -> None:
    provider = ScriptedProvider().answer("ok", reasoning="hmm")
    Tracing(traces, content=True).attach(provider)
    call = ToolCall(id="c1", name="look", arguments_json="not json")
    await provider.generate_chat_completion(
        None,
        [
            LLMMessage.user(
                "see",
                ImagePart(data=b"PIXELS", media_type="image/png"),
                ImagePart(url="https://example.org/a.png"),
                FilePart(data=b"PAGES", media_type="application/pdf"),
            ),
            LLMMessage.assistant(tool_calls=[call]),
            LLMMessage.tool("c1", "seen"),
        ],
    )
    told = only(traces).attributes
    user, assistant, tool = json.loads(told["gen_ai.input.messages"])
    text, pixels, link, pages = user["parts"]
    assert text["content"] == "see"
    assert (pixels["type"], pixels["modality"], pixels["content"]) == ("blob", "image", "")
    assert pixels["omitted_bytes"] == 6
    assert (link["type"], link["uri"]) == ("uri", "https://example.org/a.png")
    assert (pages["type"], pages["modality"]) == ("blob", "document")
    assert assistant["parts"][0]["arguments"] == "not json"
    assert tool["parts"] == [{"type": "tool_call_response", "id": "c1", "response": "seen"}]
    [answer] = json.loads(told["gen_ai.output.messages"])
    assert answer["parts"][0] == {"type": "reasoning", "content": "hmm"}
    assert "PIXELS" not in everything(traces)
    assert "PAGES" not in everything(traces)


async def test_texts_of_other_operations_are_told_when_asked(traces) -> None:
    provider = ScriptedProvider().answer("b").vectors([0.1], [0.2])
    Tracing(traces, content=True).attach(provider)
    await provider.generate_fim(None, "before", "after")
    await provider.embed(None, ["one", "two"])
    for span, texts in zip(traces.spans, (["before", "after"], ["one", "two"]), strict=True):
        messages = json.loads(span.attributes["gen_ai.input.messages"])
        assert [message["parts"][0]["content"] for message in messages] == texts


async def test_long_content_is_cut_and_the_newest_is_kept(traces) -> None:
    provider = ScriptedProvider().answer("z" * 300)
    Tracing(traces, content=True, content_limit_characters=100).attach(provider)
    await provider.generate_chat_completion(
        None, [LLMMessage.user("oldest"), LLMMessage.user("b" * 90), LLMMessage.user("c" * 60)]
    )
    told = only(traces).attributes
    messages = json.loads(told["gen_ai.input.messages"])
    texts = [message["parts"][0]["content"] for message in messages]
    assert texts == ["b" * 40 + "…", "c" * 60]
    [answer] = json.loads(told["gen_ai.output.messages"])
    assert answer["parts"][0]["content"] == "z" * 100 + "…"


@pytest.mark.parametrize("place", range(60, 130, 7))
async def test_a_key_is_masked_wherever_the_text_is_cut(traces, place) -> None:
    provider = ScriptedProvider().answer("x" * place + " " + SECRET)
    Tracing(traces, content=True, content_limit_characters=100).attach(provider)
    await provider.generate_completion(None, "y" * place + " " + SECRET)
    assert SECRET[:12] not in everything(traces)


async def test_half_a_character_does_not_spoil_what_is_told(traces) -> None:
    call = ToolCall(id="\ud83d", name="look")
    provider = ScriptedProvider().tool_calls(call, text="half \ud83d")
    Tracing(traces, content=True).attach(provider)
    await provider.generate_completion(None, "also \ud83d")
    told = repr(only(traces).attributes).encode()
    assert b"half ?" in told
    assert b"also ?" in told


async def test_texts_of_errors_are_told_when_asked_and_masked(traces) -> None:
    provider = ScriptedProvider().fail(AuthenticationError(f"no such key: {SECRET}"))
    Tracing(traces, content=True).attach(provider)
    with pytest.raises(AuthenticationError):
        await provider.generate_completion(None, "x")
    assert only(traces).error_message == "no such key: ***"


# ---- tools ---------------------------------------------------------------------------------------


async def test_calls_of_tools_are_spans_beside_the_requests(traces) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    provider = ScriptedProvider().tool_call("add", {"a": 1, "b": 2}).answer("3")
    tracing = Tracing(traces).attach(provider)
    with traces.span("agent"):
        await run_tools(provider, None, "1 + 2?", [add], on_call=tracing.on_call)
    first, tool, second, agent = traces.spans
    assert (tool.name, tool.kind) == ("execute_tool add", "internal")
    assert {first.parent_id, tool.parent_id, second.parent_id} == {agent.span_id}
    assert {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "call-1",
    }.items() <= tool.attributes.items()
    assert not {"gen_ai.tool.call.arguments", "gen_ai.tool.call.result"} & tool.attributes.keys()


async def test_content_of_tool_calls_is_told_when_asked(traces) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    provider = ScriptedProvider().tool_call("add", {"a": 1, "b": 2}).answer("3")
    tracing = Tracing(traces, content=True).attach(provider)
    await run_tools(provider, None, "1 + 2?", [add], on_call=tracing.on_call)
    tool = traces.spans[1]
    assert json.loads(tool.attributes["gen_ai.tool.call.arguments"]) == {"a": 1, "b": 2}
    assert tool.attributes["gen_ai.tool.call.result"] == "3"


async def test_a_tool_that_fails_or_does_not_exist_says_so_without_words(traces) -> None:
    def broken() -> str:
        """Fail."""
        raise ValueError("the diary of Alice")

    provider = ScriptedProvider().tool_call("broken").tool_call("invented_by_Bob").answer("sorry")
    tracing = Tracing(traces).attach(provider)
    await run_tools(provider, None, "go", [broken], on_call=tracing.on_call)
    _, failed, _, unknown, _ = traces.spans
    assert (failed.name, failed.error_type) == ("execute_tool broken", "error")
    assert (unknown.name, unknown.error_type) == ("execute_tool", "unknown_tool")
    assert "Alice" not in everything(traces)
    assert "invented_by_Bob" not in everything(traces)


# ---- metrics -------------------------------------------------------------------------------------


async def test_each_request_is_measured(traces) -> None:
    provider = ScriptedProvider().answer("one two three")
    Tracing(traces).attach(provider)
    await provider.generate_completion(None, "x")
    by_metric = {(m.metric, m.attributes.get("gen_ai.token.type")): m for m in traces.measurements}
    assert set(by_metric) == {
        ("gen_ai.client.operation.duration", None),
        ("gen_ai.client.operation.time_to_first_chunk", None),
        ("gen_ai.client.token.usage", "input"),
        ("gen_ai.client.token.usage", "output"),
    }
    assert by_metric["gen_ai.client.token.usage", "output"].value == 3
    for measurement in traces.measurements:
        assert measurement.attributes["gen_ai.response.model"] == "scripted"


async def test_the_time_between_pieces_is_measured_when_asked(traces) -> None:
    provider = ScriptedProvider().answer("one two three")
    Tracing(traces, chunk_times=True).attach(provider)
    await provider.generate_completion(None, "x")
    metric = "gen_ai.client.operation.time_per_output_chunk"
    assert len([m for m in traces.measurements if m.metric == metric]) == 2


async def test_a_failed_request_is_measured_with_its_error(traces) -> None:
    provider = ScriptedProvider().fail(AuthenticationError("no"))
    Tracing(traces).attach(provider)
    with pytest.raises(AuthenticationError):
        await provider.generate_completion(None, "x")
    [measurement] = traces.measurements
    assert measurement.metric == "gen_ai.client.operation.duration"
    assert measurement.attributes["error.type"] == "auth_invalid"


# ---- attaching and detaching ---------------------------------------------------------------------


async def test_a_manager_traces_providers_that_come_later(traces) -> None:
    async with LLMProviderManager() as manager:
        tracing = Tracing(traces).attach(manager)
        manager.register_provider(ScriptedProvider(id="late").answer("a").answer("b"))
        await manager.generate_completion("late/scripted", "x")
        tracing.detach()
        await manager.generate_completion("late/scripted", "x")
    assert only(traces).attributes["llm_manager.provider_id"] == "late"


async def test_attaching_twice_is_attaching_once(traces) -> None:
    async with LLMProviderManager() as manager:
        tracing = Tracing(traces).attach(manager).attach(manager)
        manager.register_provider(ScriptedProvider().answer("a").answer("b"))
        await manager.generate_completion(None, "x")
        tracing.detach()
        tracing.detach()
        await manager.generate_completion(None, "x")
    assert len(traces.spans) == 1


async def test_detaching_ends_the_spans_of_what_runs_and_leaves_the_rest_alone(traces) -> None:
    provider = ScriptedProvider().answer("one two three")
    tracing = Tracing(traces).attach(provider)
    events = aiter(provider.stream_completion(None, "x"))
    await anext(events)
    tracing.detach()
    assert only(traces).attributes["llm_manager.outcome"] == "detached"
    texts = [event.text async for event in events if event.kind == "text"]
    assert "".join(texts).split() == ["two", "three"]
    assert len(traces.spans) == 1
    assert not provider.event_names()


async def test_nothing_is_kept_of_requests_that_have_ended(traces) -> None:
    provider = echo()
    tracing = Tracing(traces).attach(provider)
    for _ in range(20):
        await provider.generate_completion(None, "x")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(provider.generate_completion(None, "x " * 50), 0)
    assert not tracing._running


async def test_policies_of_the_constructor_go_on_under_the_span(traces) -> None:
    provider = ScriptedProvider(policies=default_policies()).answer("a").answer("b")
    Tracing(traces).attach(provider)
    await provider.generate_completion(None, "x")
    await provider.update_config(policies=default_policies())
    await provider.generate_completion(None, "x")
    assert len(traces.spans) == 2


@pytest.mark.parametrize("wrong", [None, "manager", object(), Tracing])
def test_only_providers_and_managers_can_be_traced(traces, wrong) -> None:
    with pytest.raises(InvalidParameterError, match="provider or a manager"):
        Tracing(traces).attach(wrong)


def test_a_provider_and_its_manager_are_not_traced_twice(traces) -> None:
    manager = LLMProviderManager()
    provider = manager.register_provider(echo())
    tracing = Tracing(traces).attach(manager)
    with pytest.raises(InvalidParameterError, match="belongs together"):
        tracing.attach(provider)


@pytest.mark.parametrize(
    "settings",
    [
        {"content": "yes"},
        {"chunk_times": 1},
        {"content_limit_characters": 0},
        {"content_limit_characters": 1.5},
    ],
)
def test_wrong_settings_are_refused(traces, settings) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(settings))):
        Tracing(traces, **settings)


@pytest.mark.parametrize("wrong", ["otel", object(), InMemoryTraceProvider])
def test_what_is_no_trace_provider_is_refused(wrong) -> None:
    with pytest.raises(InvalidParameterError, match="no TraceProvider"):
        Tracing(wrong)


def test_tracing_is_no_policy_by_itself() -> None:
    with pytest.raises(InvalidParameterError, match="no policy"):
        echo().add_policy(Tracing(InMemoryTraceProvider()))


# ---- the seam ------------------------------------------------------------------------------------


class Broken(InMemoryTraceProvider):
    """A backend whose sampler raises."""

    def start_span(self, *args, **settings):
        raise RuntimeError("sampler")


async def test_a_backend_that_fails_does_not_fail_the_request(caplog) -> None:
    provider = ScriptedProvider().answer("a").answer("b")
    tracing = Tracing(Broken()).attach(provider)
    for text in "ab":
        assert (await provider.generate_completion(None, "x")).text == text

    def now() -> str:
        """Tell the time."""
        return "noon"

    provider.tool_call("now").answer("noon")
    run = await run_tools(provider, None, "x", [now], on_call=tracing.on_call)
    assert run.text == "noon"
    complaints = [r for r in caplog.records if r.name == "llm_manager.tracing"]
    assert len(complaints) == 1
    assert "cannot start spans" in complaints[0].message


def test_the_built_in_backend_is_a_trace_provider(traces) -> None:
    assert isinstance(traces, TraceProvider)


def test_the_built_in_backend_keeps_the_newest_spans() -> None:
    ended = []
    traces = InMemoryTraceProvider(limit=2, on_end=ended.append)
    for number in range(3):
        with traces.span(f"{number}"):
            pass
    assert [span.name for span in traces.spans] == ["1", "2"]
    assert [span.name for span in ended] == ["0", "1", "2"]
    assert json.dumps(ended[0].to_dict())
    traces.clear()
    assert traces.spans == ()


def test_the_built_in_backend_knows_what_failed(traces) -> None:
    with pytest.raises(ValueError), traces.span("work"):
        raise ValueError("private")
    assert only(traces).error_type == "ValueError"
    assert "private" not in everything(traces)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="limit"):
        InMemoryTraceProvider(limit=0)


def test_opentelemetry_is_not_imported_for_another_backend() -> None:
    script = (
        "import sys, asyncio\n"
        "from llm_manager import EchoProvider, InMemoryTraceProvider, Tracing\n"
        "traces = InMemoryTraceProvider()\n"
        "provider = EchoProvider()\n"
        "Tracing(traces).attach(provider)\n"
        "asyncio.run(provider.generate_completion(None, 'x'))\n"
        "assert len(traces.spans) == 1\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- two ways to one provider --------------------------------------------------------------------


async def test_a_member_of_two_traced_composites_is_traced_once_for_each_request(traces) -> None:
    member = echo(id="m")
    one, two = FallbackProvider([member], id="one"), FallbackProvider([member], id="two")
    tracing = Tracing(traces, content=True)
    tracing.attach(one)
    tracing.attach(two)
    tracing.attach(member)
    async with one, two:
        for composite in (one, two):
            traces.clear()
            await composite.generate_completion("echo", "hi")
            part, whole = traces.spans
            assert part.parent_id == whole.span_id
            assert json.loads(part.attributes["gen_ai.output.messages"])[0]["parts"] == [
                {"type": "text", "content": "hi"}
            ]
        traces.clear()
        await member.generate_completion("echo", "hi")
        assert len(traces.spans) == 1
    tracing.detach()
    assert (one._added, two._added, member._added) == ((), (), ())


async def test_a_provider_that_a_traced_manager_takes_in_is_traced_by_that_alone(traces) -> None:
    provider, manager = echo(id="p"), LLMProviderManager()
    tracing = Tracing(traces).attach(provider).attach(manager)
    manager.register_provider(provider)
    async with manager:
        await provider.generate_completion("echo", "hi")
        assert len(traces.spans) == 1
        tracing.detach()
        assert provider._added == ()


async def test_a_policy_that_asks_twice_at_once_can_be_traced(traces) -> None:
    class Twice:
        def wrap(self, exchange, host):
            async def asked_twice(request):
                async def answer():
                    return [delta async for delta in exchange(request)]

                first, second = await asyncio.gather(answer(), answer())
                assert [type(delta) for delta in first] == [type(delta) for delta in second]
                for delta in first:
                    yield delta

            return asked_twice

    async with echo() as provider:
        Tracing(traces).attach(provider)
        provider.add_policy(Twice())
        assert (await provider.generate_completion("echo", "hi there")).text == "hi there"
    assert len(traces.spans) == 1
