"""Models: a handle with parameters of its own, traced, counted, streamed; made by any provider.

The order: the base model, the providers behind it, tokens, parameters, streams, a provider that
makes models.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from llm_manager import (
    LLM,
    AnthropicProvider,
    EchoAnswer,
    GroqProvider,
    InMemoryTraceProvider,
    LLMMessage,
    LLMModel,
    ModelNotFoundError,
    OpenAIProvider,
    RateLimitError,
    Tracing,
    create_llm,
)

from ..helpers import echo
from ..test_create_llm import last_request, script

MESSAGES = [LLMMessage.system("Be brief."), LLMMessage.user("one two three")]


@pytest.fixture
async def llm() -> AsyncIterator[LLM]:
    async with create_llm("echo", models=["small", "large"], words_per_s=float("inf")) as made:
        yield made


# ---- the base model ------------------------------------------------------------------------------


async def test_a_model_answers_a_conversation_with_a_message(llm: LLM) -> None:
    model = llm.model("small")
    response = await model.generate_response(MESSAGES)
    assert response.to_message() == LLMMessage.assistant("one two three")
    assert model.name == "small"


async def test_every_generation_is_a_span_of_the_trace_provider(llm: LLM) -> None:
    traces = InMemoryTraceProvider()
    with Tracing(traces).attach(llm.provider):
        model = llm.model("small")
        await model.generate_response(MESSAGES)
        script(llm, EchoAnswer(error=RateLimitError("slow down", retryable=False)))
        with pytest.raises(RateLimitError):
            await model.generate_response(MESSAGES)
    fine, failed = traces.spans
    assert fine.name == failed.name == "chat small"
    assert fine.error_type is None
    assert failed.error_type is not None


# ---- the providers behind it ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "name"),
    [
        (OpenAIProvider, "sk-0123456789abcdef", "gpt-4"),
        (AnthropicProvider, "sk-ant-0123456789", "claude-opus-4-6"),
        (GroqProvider, "gsk_0123456789abcdef", "llama-3.3-70b-versatile"),
    ],
)
async def test_a_model_is_made_of_any_provider_in_the_same_way(kind, key, name) -> None:
    model = LLMModel(kind(api_key=key), name, {"temperature": 0.5, "max_tokens": 4000})
    assert (model.name, model.parameters) == (name, {"temperature": 0.5, "max_tokens": 4000})
    assert key not in repr(model)
    await model.provider.close()


# ---- tokens --------------------------------------------------------------------------------------


async def test_tokens_of_texts_prompts_and_answers_are_counted(llm: LLM) -> None:
    model = llm.model()
    text = await model.count_tokens("one two three")
    prompt = await model.get_prompt_tokens(MESSAGES)
    response = await model.generate_response(MESSAGES)
    completion = await model.get_completion_tokens(response)
    assert 0 < text < prompt
    assert completion == 3


# ---- parameters ----------------------------------------------------------------------------------


async def test_parameters_are_updated_while_the_model_is_used(llm: LLM) -> None:
    model = llm.model(temperature=0.7)
    model.update_parameters({"temperature": 0.8, "top_p": 0.95, "presence_penalty": 0.2})
    await model.generate_response(MESSAGES)
    options = last_request(llm).options
    assert (options.temperature, options.top_p, options.presence_penalty) == (0.8, 0.95, 0.2)


# ---- streams -------------------------------------------------------------------------------------


async def test_a_response_streams_as_text(llm: LLM) -> None:
    chunks = [chunk async for chunk in llm.model().stream_response(MESSAGES)]
    assert chunks == ["one ", "two ", "three"]


# ---- a provider that makes models ----------------------------------------------------------------


async def test_a_provider_makes_models_that_it_has(llm: LLM) -> None:
    model = await llm.create_model("large", {"max_tokens": 1})
    assert (await model.generate_response(MESSAGES)).text == "one "
    with pytest.raises(ModelNotFoundError):
        await llm.create_model("medium")


async def test_a_model_of_ones_own_adds_what_it_likes() -> None:
    class PoliteModel(LLMModel):
        async def generate_response(self, messages: Sequence[LLMMessage], **parameters):  # type: ignore[override]
            polite = [*messages[:-1], LLMMessage.user(f"Please: {messages[-1].text}")]
            return await super().generate_response(polite, **parameters)

    model = PoliteModel(echo())
    assert (await model.generate_response(MESSAGES)).text == "Please: one two three"
    await model.provider.close()
