"""Streaming: the same call with ``stream=True``; to a thread, to a task, to a callback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_manager import (
    LLM,
    EchoAnswer,
    LLMStreamEvent,
    RateLimitError,
    StreamInterruptedError,
    create_llm,
)

from ..test_create_llm import script


@pytest.fixture
def llm() -> Iterator[LLM]:
    with create_llm("echo", words_per_s=float("inf")) as made:
        yield made


def test_generate_gives_all_of_it_or_piece_by_piece(llm: LLM) -> None:
    assert llm.generate("one two three") == "one two three"
    collected = ""
    for chunk in llm.generate("one two three", stream=True):
        collected += chunk
    assert collected == "one two three"


async def test_generate_async_does_the_same(llm: LLM) -> None:
    assert await llm.generate_async("one two three") == "one two three"
    collected = ""
    async for chunk in await llm.generate_async("one two three", stream=True):
        collected += chunk
    assert collected == "one two three"


async def test_the_provider_streams_events_and_not_only_text(llm: LLM) -> None:
    script(llm, EchoAnswer(reasoning="Hm.", text="Yes."))
    kinds: list[str] = []

    def callback(event: LLMStreamEvent) -> None:
        kinds.append(event.kind)

    response = await llm.provider.stream_completion(None, "Really?", callback=callback)
    assert kinds == ["reasoning", "text", "usage", "done"]
    assert (response.reasoning, response.text) == ("Hm.", "Yes.")


def test_an_error_before_the_first_chunk_is_what_it_is(llm: LLM) -> None:
    script(llm, EchoAnswer(error=RateLimitError("slow down", retryable=False)))
    with pytest.raises(RateLimitError):
        list(llm.generate("one two three", stream=True))


def test_an_error_behind_some_chunks_keeps_them(llm: LLM) -> None:
    script(
        llm, EchoAnswer(text="one two", error=StreamInterruptedError("cable cut"), after_words=1)
    )
    with pytest.raises(StreamInterruptedError) as broken:
        list(llm.generate("one two three", stream=True))
    assert broken.value.partial is not None
    assert broken.value.partial.text == "one "
