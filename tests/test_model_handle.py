"""`LLM.model`: one model of a provider, with parameters of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from llm_manager import (
    LLM,
    EchoAnswer,
    EchoProvider,
    InvalidParameterError,
    LLMMessage,
    LLMModel,
    LLMResponse,
    ModelNotFoundError,
    ModelParameter,
    create_llm,
)
from llm_manager.testing import Reply, ScriptedPeer

from .helpers import echo
from .test_create_llm import last_request, script

QUESTION = [LLMMessage.user("one two three")]


@pytest.fixture
async def llm() -> AsyncIterator[LLM]:
    async with create_llm("echo", models=["a", "b"], words_per_s=float("inf")) as made:
        yield made


async def test_a_conversation_goes_in_and_a_whole_answer_comes_out(llm: LLM) -> None:
    answer = await llm.model("b").generate_response(QUESTION)
    assert isinstance(answer, LLMResponse)
    assert (answer.text, answer.model, answer.finish_reason) == ("one two three", "b", "stop")
    assert answer.to_message().role == "assistant"


async def test_text_will_do_for_a_conversation(llm: LLM) -> None:
    assert (await llm.model().generate_response("hello")).text == "hello"


async def test_an_answer_comes_piece_by_piece(llm: LLM) -> None:
    model = llm.model()
    assert [text async for text in model.stream_response(QUESTION)] == ["one ", "two ", "three"]


async def test_leaving_a_stream_closes_the_connection() -> None:
    async with ScriptedPeer() as peer:
        chunk = {"choices": [{"index": 0, "delta": {"content": "first"}}]}
        peer.script(Reply.sse([chunk], ending="hang"))
        async with create_llm("compatible", base_url=f"{peer.base_url}/v1", model="m") as llm:
            async with aclosing(llm.model().stream_response("hello")) as texts:
                assert await anext(texts) == "first"
            await peer.wait_for_disconnect()


async def test_a_model_begins_with_the_parameters_of_its_llm(llm: LLM) -> None:
    llm.set_config(temperature=0.2, model="b", system_prompt="Be brief.")
    model = llm.model(seed=7)
    llm.set_config(temperature=0.9, model="a")
    assert model.name == "b"
    assert model.parameters == {"temperature": 0.2, "seed": 7, "system_prompt": "Be brief."}
    await model.generate_response(QUESTION)
    request = last_request(llm)
    assert (request.model, request.options.temperature, request.options.seed) == ("b", 0.2, 7)
    assert [message.text for message in request.messages] == ["Be brief.", "one two three"]


async def test_a_system_message_of_the_conversation_is_stronger(llm: LLM) -> None:
    model = llm.model(system_prompt="Be brief.")
    await model.generate_response([LLMMessage.system("Be long."), *QUESTION])
    assert [message.text for message in last_request(llm).messages] == ["Be long.", "one two three"]


async def test_parameters_change_together_or_not_at_all(llm: LLM) -> None:
    model = llm.model(temperature=0.2)
    model.update_parameters({"temperature": 0.8, "top_p": 0.95, ModelParameter.SEED: 7})
    assert model.parameters == {"temperature": 0.8, "top_p": 0.95, "seed": 7}
    for wrong in ({"seed": 8, "top_p": 9}, {"seed": 8, "top_pp": 1}, {"seed": 8, "model": "a"}):
        with pytest.raises(InvalidParameterError):
            model.update_parameters(wrong)
    assert model.parameters == {"temperature": 0.8, "top_p": 0.95, "seed": 7}
    model.update_parameters({"seed": None})
    assert "seed" not in model.parameters


async def test_parameters_of_one_request_leave_no_trace(llm: LLM) -> None:
    model = llm.model(temperature=0.2)
    await model.generate_response(QUESTION, temperature=0.9)
    assert last_request(llm).options.temperature == 0.9
    assert [text async for text in model.stream_response("hello", max_tokens=1)] == ["hello"]
    await model.generate_response(QUESTION)
    assert last_request(llm).options.temperature == 0.2


@pytest.mark.parametrize("wrong", [{"api_key": "k"}, {"base_url": "http://x"}, {"temprature": 1}])
async def test_what_is_no_parameter_of_a_request_is_refused(llm: LLM, wrong) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        llm.model(**wrong)


async def test_any_provider_makes_models() -> None:
    provider = echo(models=["a", "b"])
    model = LLMModel(provider, "b", {"max_tokens": 1})
    assert (await model.generate_response("one two")).text == "one "
    active = LLMModel(provider)
    assert active.name == "a"
    provider.set_active_model("b")
    assert active.name == "b"
    assert repr(model) == "<LLMModel 'b' of 'echo'>"
    await provider.close()


async def test_making_a_model_asks_whether_there_is_one(llm: LLM) -> None:
    model = await llm.create_model("b", {ModelParameter.MAX_TOKENS: 1})
    assert (await model.generate_response("one two")).text == "one "
    with pytest.raises(ModelNotFoundError, match="'c'"):
        await llm.create_model("c")


async def test_a_closed_llm_closes_its_models() -> None:
    llm = create_llm("echo")
    model = llm.model()
    await llm.aclose()
    with pytest.raises(Exception, match="closed"):
        await model.generate_response("hello")


# ---- tokens --------------------------------------------------------------------------------------


async def test_tokens_are_whole_numbers_and_their_exactness_can_be_asked(llm: LLM) -> None:
    model = llm.model()
    assert await model.count_tokens("one two three four") > 2
    prompt = await model.get_prompt_tokens(QUESTION)
    assert prompt >= await model.count_tokens("one two three")
    known = await model.count(QUESTION)
    assert (known.tokens, known.estimated) == (prompt, True)


async def test_a_system_prompt_costs_tokens(llm: LLM) -> None:
    short, long = llm.model(), llm.model(system_prompt="Be brief and kind. " * 20)
    assert await long.get_prompt_tokens(QUESTION) > await short.get_prompt_tokens(QUESTION) + 50


async def test_the_tokens_of_an_answer_are_those_that_its_service_counted(llm: LLM) -> None:
    model = llm.model()
    answer = await model.generate_response(QUESTION)
    assert await model.get_completion_tokens(answer) == 3


async def test_the_tokens_of_an_answer_that_nobody_counted_are_estimated(llm: LLM) -> None:
    answer = LLMResponse(text="one two three four five six seven eight", reasoning="Hm. " * 40)
    short = LLMResponse(text=answer.text)
    model = llm.model()
    assert await model.get_completion_tokens(answer) > await model.get_completion_tokens(short) > 4
    assert await model.get_completion_tokens(LLMMessage.assistant(answer.text)) > 4


async def test_a_count_of_the_provider_is_exact() -> None:
    class Counts(EchoProvider):
        async def _count_tokens(self, request):
            return 42

    model = LLMModel(Counts())
    assert await model.get_prompt_tokens(QUESTION) == 42
    known = await model.count(QUESTION)
    assert (known.estimated, known.method) == (False, "provider")
    await model.provider.close()


async def test_an_answer_without_text_has_no_tokens(llm: LLM) -> None:
    script(llm, EchoAnswer(text=""))
    assert await llm.model().get_completion_tokens(LLMResponse()) == 0
    assert await llm.model().count_tokens("") == 0
