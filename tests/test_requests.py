"""What the base class does for every kind of request: fill in, embed, count, supersede."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from llm_manager import (
    BaseLLMProvider,
    EchoProvider,
    InvalidParameterError,
    LLMModelInfo,
    LLMProviderManager,
    ProviderError,
    RequestCancelledError,
    UnsupportedFeatureError,
)
from llm_manager.messages import (
    Delta,
    FinishDelta,
    ImagePart,
    LLMRequest,
    MetaDelta,
    OpaquePart,
    PartDelta,
    TextDelta,
    TextPart,
    Usage,
    UsageDelta,
    VectorsDelta,
)
from llm_manager.providers.echo import EchoAnswer
from tests.helpers import echo

SIGNED = OpaquePart(origin="filler", kind="thinking", data={"signature": "s"})
DRAWN = ImagePart(data=b"p", media_type="image/png")


class Filler(BaseLLMProvider):
    """Fills every middle with "-", and makes vectors of the lengths of texts."""

    kind = "filler"
    capabilities = frozenset({"chat", "fim", "embeddings"})

    async def _open(self) -> None: ...

    async def _close(self) -> None: ...

    async def _list_models(self) -> list[LLMModelInfo]:
        return [
            LLMModelInfo.known("endpoint", id="m", capabilities=frozenset({"chat", "fim"})),
            LLMModelInfo(id="unknown"),
        ]

    async def _count_tokens(self, request: LLMRequest) -> int | None:
        return 7 if request.model == "m" else None

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        yield MetaDelta(f"{request.model}-1")
        if request.operation == "fim":
            yield TextDelta(f"{request.prefix}-{request.suffix}")
        elif request.operation == "embed":
            yield VectorsDelta([[float(len(text))] for text in request.texts])
        else:
            yield PartDelta(SIGNED)
            yield TextDelta("a")
            yield TextDelta("b")
            yield PartDelta(DRAWN)
            yield TextDelta("c")
        yield UsageDelta(Usage(prompt_tokens=3))
        yield FinishDelta("stop")


async def test_a_middle_is_filled_in() -> None:
    async with LLMProviderManager() as manager:
        manager.register_provider(Filler)
        assert (await manager.generate_fim("filler/m", "def f", "return")).text == "def f-return"


async def test_texts_become_vectors_in_their_order() -> None:
    async with LLMProviderManager() as manager:
        manager.register_provider(Filler)
        made = await manager.embed("filler/unknown", ["a", "bcd"])
    assert made.vectors == ([1.0], [3.0])
    assert (made.model, made.provider_id) == ("unknown-1", "filler")
    assert made.usage == Usage(prompt_tokens=3)


@pytest.mark.parametrize("texts", [[], "", ["a", ""], [1]])
async def test_texts_that_cannot_be_embedded_are_refused(texts: object) -> None:
    with pytest.raises(InvalidParameterError, match="texts must be"):
        await Filler().embed("m", texts)  # type: ignore[arg-type]


def test_an_empty_middle_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="both empty"):
        Filler().stream_fim("m", "", "")


async def test_a_model_that_cannot_embed_is_refused_before_sending() -> None:
    async with Filler() as filler:
        with pytest.raises(UnsupportedFeatureError, match="model 'm' cannot do: embeddings"):
            await filler.embed("m", "text")


def test_a_provider_that_cannot_fill_in_is_refused_before_sending() -> None:
    with pytest.raises(UnsupportedFeatureError, match="cannot do: fim"):
        echo().stream_fim("echo", "a", "b")


async def test_parts_keep_their_place_in_the_answer_and_in_the_history() -> None:
    stream = Filler().stream_chat_completion("m", "draw")
    kinds = [event.kind async for event in stream]
    assert kinds == ["part", "text", "text", "part", "text", "usage", "done"]
    answer = stream.response
    assert answer.text == "abc"
    assert answer.parts == (SIGNED, TextPart(text="ab"), DRAWN, TextPart(text="c"))
    assert answer.to_message().content == answer.parts


async def test_a_provider_that_counts_is_asked_and_another_estimated() -> None:
    async with Filler() as filler:
        counted = await filler.count_tokens("m", "some words")
        guessed = await filler.count_tokens("unknown", "some words")
    assert (counted.tokens, counted.estimated) == (7, False)
    assert guessed.estimated
    assert 3 <= guessed.tokens <= 10


async def test_capabilities_say_who_says_so() -> None:
    async with Filler() as filler:
        of_provider = filler.get_capabilities()
        of_model = filler.get_capabilities("m")
        of_unknown = filler.get_capabilities("unknown")
    assert of_provider.features["embeddings"].source == "registry"
    assert (of_model.supports("fim"), of_model.supports("embeddings")) == (True, False)
    assert of_model.features["fim"].source == "endpoint"
    assert of_unknown.supports("fim") is None
    assert of_model.features["json_schema"].source == "emulated"
    with pytest.raises(InvalidParameterError, match="capability must be one of"):
        of_model.supports("flying")  # type: ignore[arg-type]


async def test_a_new_request_with_the_same_key_ends_the_older_one_at_once() -> None:
    provider = echo()
    provider.script(EchoAnswer(text="one two", hang_after_words=1), EchoAnswer(text="new"))
    key = {"supersede_key": "cursor"}
    first = provider.stream_completion("echo", "a", options=key)
    came: asyncio.Event = asyncio.Event()

    async def read() -> None:
        async for _ in first:
            came.set()

    reading = asyncio.create_task(read())
    await came.wait()
    assert (await provider.generate_completion("echo", "b", options=key)).text == "new"
    with pytest.raises(RequestCancelledError, match="a newer request") as raised:
        await reading
    assert raised.value.code == "superseded"
    assert raised.value.partial is not None
    assert raised.value.partial.text == "one "
    await provider.close()


async def test_requests_with_other_keys_are_left_alone() -> None:
    provider = echo()
    streams = [
        provider.stream_completion("echo", "a b", options={"supersede_key": key})
        for key in ("here", "there")
    ]
    assert [r.text for r in await asyncio.gather(*streams)] == ["a b", "a b"]
    await provider.close()


async def test_the_usage_of_a_broken_off_answer_is_estimated_and_marked() -> None:
    provider = echo()
    finished: list[Usage | None] = []
    provider.on("requestFinished", lambda event: finished.append(event.usage))
    provider.script(EchoAnswer(text="word " * 40, reasoning="hm " * 8, hang_after_words=40))
    stream = provider.stream_completion("echo", "a prompt of some length")
    with pytest.raises(RequestCancelledError) as raised:
        async for event in stream:
            if len(stream.response.text) >= 200:
                stream.cancel()
            assert event.kind != "done"
    assert raised.value.partial is not None
    usage = raised.value.partial.usage
    assert usage is not None
    assert usage.estimated
    assert 40 <= usage.completion_tokens <= 80
    assert usage.reasoning_tokens > 0
    assert usage.prompt_tokens > 0
    await provider.flush()
    assert finished == [usage]
    await provider.close()


async def test_the_usage_of_a_whole_answer_is_the_providers() -> None:
    answer = await Filler().generate_completion("m", "hi")
    assert answer.usage == Usage(prompt_tokens=3)


async def test_an_exchange_that_is_no_asynchronous_generator_is_explained() -> None:
    class Returns(EchoProvider):
        async def _exchange(self, request):  # type: ignore[override]
            return "hello"

    class Plain(EchoProvider):
        def _exchange(self, request):  # type: ignore[override]
            yield "hello"

    for kind in (Returns, Plain):
        async with kind() as provider:
            with pytest.raises(ProviderError, match=f"{kind.__name__}._exchange is no async"):
                await provider.generate_completion("echo", "hi")


async def test_a_model_list_that_is_not_awaitable_is_explained() -> None:
    class Plain(EchoProvider):
        def _list_models(self):  # type: ignore[override]
            return []

    provider = Plain()
    with pytest.raises(ProviderError, match="_list_models must be 'async def'"):
        await provider.connect()
    await provider.close()
