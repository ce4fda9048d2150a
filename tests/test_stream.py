"""A stream can be awaited, iterated, called back, left and stopped; it always ends, once."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from llm_manager import (
    BaseLLMProvider,
    EchoAnswer,
    EchoProvider,
    LLMError,
    LLMMessage,
    ProviderConnectionError,
    RequestCancelledError,
    StreamInterruptedError,
    Usage,
)

from .helpers import Record, echo


async def test_awaiting_a_stream_gives_the_whole_answer() -> None:
    response = await echo().stream_completion("echo", "one two three")
    assert response.text == "one two three"
    assert response.finish_reason == "stop"
    assert response.usage == Usage(prompt_tokens=3, completion_tokens=3)
    assert (response.model, response.provider_id) == ("echo", "echo")
    assert response.timings.first_token_s is not None
    assert response.timings.total_s >= response.timings.first_token_s


async def test_iterating_gives_numbered_events_that_end_with_the_whole_answer() -> None:
    events = [e async for e in echo().stream_completion("echo", "one two")]
    assert [(e.kind, e.index) for e in events] == [
        ("text", 0), ("text", 1), ("usage", 2), ("done", 3),
    ]  # fmt: skip
    assert "".join(e.text for e in events) == "one two"
    assert events[-1].response is not None
    assert events[-1].response.text == "one two"


async def test_reasoning_and_tool_calls_are_kinds_of_their_own() -> None:
    provider = echo()
    provider.script(EchoAnswer(reasoning="let me think", tool="add", arguments={"a": 1, "b": 2}))
    events = [e async for e in provider.stream_completion("echo", "1+2?")]
    assert [e.kind for e in events] == ["reasoning"] * 3 + ["tool_call", "usage", "done"]
    response = events[-1].response
    assert response is not None
    assert response.reasoning == "let me think"
    assert response.finish_reason == "tool_calls"
    assert [(c.name, c.arguments) for c in response.tool_calls] == [("add", {"a": 1, "b": 2})]


async def test_a_synchronous_callback_sees_every_event() -> None:
    seen = []
    response = await echo().stream_completion("echo", "one two", callback=seen.append)
    assert [e.kind for e in seen] == ["text", "text", "usage", "done"]
    assert seen[-1].response == response


async def test_an_asynchronous_callback_is_awaited_before_the_next_event() -> None:
    running, seen = 0, []

    async def slow(event):
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        seen.append(event.kind)
        running -= 1

    await echo().stream_completion("echo", "one two", callback=slow)
    assert seen == ["text", "text", "usage", "done"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_callback_that_raises_ends_the_stream_and_reaches_the_caller(asynchronous) -> None:
    provider = echo()
    record = Record(provider)

    def broken(event):
        raise ZeroDivisionError("a mistake in the application")

    async def broken_too(event):
        broken(event)

    with pytest.raises(ZeroDivisionError):
        await provider.stream_completion(
            "echo", "one two", callback=broken_too if asynchronous else broken
        )
    assert record.outcomes == ["abandoned"]
    assert provider.status.in_flight == 0


async def test_nothing_is_sent_before_the_stream_is_read() -> None:
    provider = echo()
    record = Record(provider)
    stream = provider.stream_completion("echo", "hi")
    await asyncio.sleep(0)
    assert list(record) == []
    assert "not started" in repr(stream)


async def test_an_answer_is_read_once() -> None:
    stream = echo().stream_completion("echo", "hi")
    async for _ in stream:
        pass
    with pytest.raises(RuntimeError, match="read once"):
        async for _ in stream:
            pass
    assert (await stream).text == "hi"  # waiting for an ended answer is fine


# ---- leaving early -------------------------------------------------------------------------------


async def _left(provider, record) -> list[str]:
    """The outcomes, once the request has been ended."""
    if not record.outcomes:
        finished = asyncio.get_running_loop().create_future()
        provider.once("requestFinished", finished.set_result)
        await asyncio.wait_for(finished, 5)
    assert provider.status.in_flight == 0
    return record.outcomes


async def test_break_ends_the_request_even_while_the_stream_is_referred_to() -> None:
    provider = echo()
    record = Record(provider)
    stream = provider.stream_completion("echo", "one two three")
    async for _ in stream:
        break
    assert await _left(provider, record) == ["abandoned"]
    assert stream.response.text == "one "


async def test_dropping_a_half_read_iterator_ends_the_request() -> None:
    provider = echo()
    record = Record(provider)
    iterator = aiter(provider.stream_completion("echo", "one two three"))
    await anext(iterator)
    del iterator
    gc.collect()
    assert await _left(provider, record) == ["abandoned"]


async def test_async_with_ends_the_request_before_it_is_left() -> None:
    provider = echo()
    record = Record(provider)
    async with provider.stream_completion("echo", "one two three") as stream:
        iterator = aiter(stream)
        await anext(iterator)
    assert record.outcomes == ["abandoned"]


async def test_an_exception_in_the_loop_body_ends_the_request() -> None:
    provider = echo()
    record = Record(provider)
    with pytest.raises(KeyError):
        async with provider.stream_completion("echo", "one two three") as stream:
            async for _ in stream:
                raise KeyError
    assert await _left(provider, record) == ["abandoned"]


async def test_cancelling_the_task_ends_the_request() -> None:
    provider = echo()
    provider.script(EchoAnswer(hang_after_words=1, text="one two"))
    record = Record(provider)
    first = asyncio.Event()
    stream = provider.stream_completion("echo", "x", callback=lambda e: first.set())
    task = asyncio.create_task(stream._run())
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert record.outcomes == ["cancelled"]
    assert stream.response.text == "one "


# ---- stopping ------------------------------------------------------------------------------------


async def test_cancel_stops_a_silent_stream_and_keeps_what_had_arrived() -> None:
    provider = echo()
    provider.script(EchoAnswer(text="one two", hang_after_words=1))
    record = Record(provider)
    stream = provider.stream_completion("echo", "x", callback=lambda e: stream.cancel("Stop"))
    with pytest.raises(RequestCancelledError, match="Stop") as caught:
        await stream
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one "
    assert caught.value.request_id == stream.request_id
    assert record.outcomes == ["cancelled"]


async def test_cancel_works_from_any_thread() -> None:
    provider = echo()
    provider.script(EchoAnswer(text="one two", hang_after_words=1))
    stream = provider.stream_completion("echo", "x")
    got_one = asyncio.Event()

    async def read() -> None:
        async for _ in stream:
            got_one.set()

    task = asyncio.create_task(read())
    await got_one.wait()
    threading.Thread(target=stream.cancel).start()
    with pytest.raises(RequestCancelledError):
        await asyncio.wait_for(task, 5)


async def test_cancel_before_reading_means_that_nothing_is_sent() -> None:
    provider = echo()
    record = Record(provider)
    stream = provider.stream_completion("echo", "x")
    stream.cancel()
    with pytest.raises(RequestCancelledError):
        await stream
    assert record.named("requestStarted") == []


async def test_cancel_ends_the_request_at_once_even_while_nobody_reads() -> None:
    provider = echo()
    record = Record(provider)
    iterator = aiter(stream := provider.stream_completion("echo", "one two three"))
    await anext(iterator)
    stream.cancel()
    assert await _left(provider, record) == ["cancelled"]
    with pytest.raises(RequestCancelledError):
        await anext(iterator)


async def test_cancelling_twice_and_after_the_end_does_nothing() -> None:
    provider = echo()
    stream = provider.stream_completion("echo", "hi")
    response = await stream
    stream.cancel()
    stream.cancel()
    await asyncio.sleep(0)
    assert (await stream) == response


async def test_cancel_in_a_callback_of_the_last_event_changes_nothing() -> None:
    provider = echo()
    stream = provider.stream_completion(
        "echo", "hi", callback=lambda e: e.kind == "done" and stream.cancel()
    )
    assert (await stream).text == "hi"


async def test_a_cancel_from_outside_is_not_swallowed_by_our_own() -> None:
    provider = echo()
    provider.script(EchoAnswer(hang_after_words=0))
    stream = provider.stream_completion("echo", "x")
    task = asyncio.create_task(stream._run())
    while provider.status.in_flight == 0:
        await asyncio.sleep(0)
    task.cancel()
    stream.cancel()
    with pytest.raises((asyncio.CancelledError, RequestCancelledError)) as caught:
        await task
    assert caught.type is asyncio.CancelledError


async def test_closing_while_another_task_reads_ends_the_reader() -> None:
    provider = echo()
    provider.script(EchoAnswer(text="one two", hang_after_words=1))
    stream = provider.stream_completion("echo", "x")
    got_one = asyncio.Event()

    async def read() -> None:
        async for _ in stream:
            got_one.set()

    task = asyncio.create_task(read())
    await got_one.wait()
    await stream.aclose()
    with pytest.raises(RequestCancelledError):
        await task


async def test_closing_between_two_pieces_does_not_make_a_part_look_like_the_whole() -> None:
    provider = echo()
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def slow(event) -> None:
        reading.set()
        await go_on.wait()

    stream = provider.stream_completion("echo", "one two three", callback=slow)
    task = asyncio.ensure_future(stream)
    await reading.wait()
    await stream.aclose()
    go_on.set()
    with pytest.raises(RequestCancelledError, match="closed while it was read"):
        await task
    assert stream.response.text == "one "


# ---- failing -------------------------------------------------------------------------------------


async def test_a_failure_after_the_first_piece_carries_the_partial_answer() -> None:
    provider = echo()
    provider.script(EchoAnswer(text="one two", error=StreamInterruptedError("cut"), after_words=1))
    record = Record(provider)
    seen = []
    with pytest.raises(StreamInterruptedError) as caught:
        await provider.stream_completion("echo", "x", callback=seen.append)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one "
    assert caught.value.partial.finish_reason is None
    assert [e.text for e in seen] == ["one "]
    assert record.outcomes == ["error"]
    assert record.named("retryScheduled") == []  # never repeated once something was delivered


async def test_every_request_starts_and_finishes_exactly_once() -> None:
    provider = echo()
    record = Record(provider)
    provider.script(
        EchoAnswer(),
        EchoAnswer(error=StreamInterruptedError("cut"), after_words=1),
        EchoAnswer(),
    )
    await provider.generate_completion("echo", "a b")
    with pytest.raises(StreamInterruptedError):
        await provider.generate_completion("echo", "a b")
    async for _ in provider.stream_completion("echo", "a b"):
        break
    while len(record.outcomes) < 3:
        await asyncio.sleep(0)
    started = [e.request_id for e in record.named("requestStarted")]
    finished = [e.request_id for e in record.named("requestFinished")]
    assert started == finished
    assert len(set(started)) == 3
    assert record.outcomes == ["ok", "error", "abandoned"]


async def test_an_answer_goes_on_as_a_message_of_the_conversation() -> None:
    provider = echo()
    response = await provider.generate_completion("echo", "hi")
    conversation = [LLMMessage.user("hi"), response.to_message(), LLMMessage.user("again")]
    assert (await provider.generate_chat_completion("echo", conversation)).text == "again"


async def test_an_unexpected_error_of_a_provider_class_becomes_one_of_ours() -> None:
    provider = echo()

    class Broken(type(provider)):
        async def _exchange(self, request):
            raise KeyError("forgotten")
            yield

    broken = Broken()
    record = Record(broken)
    with pytest.raises(Exception, match="unexpected KeyError") as caught:
        await broken.generate_completion("echo", "x")
    assert caught.value.code == "unexpected"
    assert isinstance(caught.value.__cause__, KeyError)
    assert record.outcomes == ["error"]


async def test_a_stream_of_an_unreachable_provider_says_so() -> None:
    provider = echo()
    provider.go_offline()
    with pytest.raises(ProviderConnectionError, match="refused"):
        await provider.generate_completion("echo", "x", options={"retries": {"attempts": 1}})
    await provider.close()


async def test_what_is_no_delta_is_a_mistake_of_the_provider_class_and_says_so() -> None:
    class Careless(EchoProvider):
        async def _exchange(self, request):
            yield "hello"

    with pytest.raises(LLMError, match="yielded 'hello', not a delta") as caught:
        await Careless().generate_completion("echo", "x")
    assert "yield TextDelta" in caught.value.hint


async def test_a_provider_without_codec_and_exchange_says_so() -> None:
    class Bare(BaseLLMProvider):
        async def _open(self) -> None: ...
        async def _close(self) -> None: ...
        async def _list_models(self):
            return ["m"]

    with pytest.raises(LLMError, match="neither a codec nor _exchange"):
        await Bare().generate_completion("m", "x")
    with pytest.raises(LLMError, match="not an LLMModelInfo"):
        await Bare().get_available_models()


async def test_an_error_of_a_script_can_be_used_twice() -> None:
    provider, error = echo(), StreamInterruptedError("cut")
    provider.script(*(EchoAnswer(text=t, error=error, after_words=1) for t in ("a b", "c d")))
    parts = []
    for _ in range(2):
        with pytest.raises(StreamInterruptedError) as caught:
            await provider.generate_completion("echo", "x")
        parts.append(caught.value.partial.text)
    assert parts == ["a ", "c "]
    assert [r.messages[-1].text for r in provider.requests] == ["x", "x"]
