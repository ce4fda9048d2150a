"""A provider for tests of an app: it does what it was told, and says what it was asked."""

from __future__ import annotations

import asyncio

import pytest

from llm_manager import (
    AuthenticationError,
    InvalidRequestError,
    LLMProviderManager,
    RateLimitError,
    RequestTimeoutError,
    StreamInterruptedError,
    ToolCall,
    ToolDefinition,
    UnsupportedFeatureError,
)
from llm_manager.testing import ScriptedProvider

TOOLS = {"tools": [ToolDefinition(name="weather"), ToolDefinition(name="time")]}
NO_WAIT = {"retries": {"wait_s": 0.0}}


async def test_it_answers_in_the_order_of_the_script_and_remembers_what_it_was_asked() -> None:
    async with ScriptedProvider().answer("One.").answer("Two.", reasoning="Hm. ") as provider:
        first = await provider.generate_completion("scripted", "a")
        second = await provider.generate_completion("scripted", "b")
    assert (first.text, second.text, second.reasoning) == ("One.", "Two.", "Hm. ")
    assert [request.messages[-1].text for request in provider.requests] == ["a", "b"]
    assert provider.unplayed == 0


async def test_a_question_that_is_not_in_the_script_is_an_error_that_quotes_it() -> None:
    provider = ScriptedProvider().answer("Only this.")
    await provider.generate_completion("scripted", "a")
    with pytest.raises(InvalidRequestError, match="no answer to request 2: 'what else"):
        await provider.generate_completion("scripted", "what else?")
    assert len(provider.requests) == 2
    await provider.close()


async def test_it_asks_for_one_tool_and_for_several() -> None:
    provider = ScriptedProvider().tool_call("weather", {"place": "Köln"}, text="Let me see.")
    provider.tool_calls(ToolCall(id="a", name="weather"), ToolCall(id="b", name="time"))
    one = await provider.generate_completion("scripted", "x", options=TOOLS)
    two = await provider.generate_completion("scripted", "x", options=TOOLS)
    assert (one.text, one.finish_reason) == ("Let me see.", "tool_calls")
    assert one.tool_calls[0].arguments == {"place": "Köln"}
    assert [(call.id, call.name) for call in two.tool_calls] == [("a", "weather"), ("b", "time")]
    await provider.close()


async def test_an_error_that_may_pass_takes_the_next_step_and_others_end_the_request() -> None:
    provider = ScriptedProvider(default_options=NO_WAIT)
    provider.fail(RateLimitError("slow down")).answer("Now.").fail(AuthenticationError("no"))
    response = await provider.generate_completion("scripted", "x")
    assert (response.text, response.timings.attempts) == ("Now.", 2)
    with pytest.raises(AuthenticationError, match="no"):
        await provider.generate_completion("scripted", "x")
    await provider.close()


async def test_an_answer_breaks_off_behind_as_many_words_as_it_was_told() -> None:
    provider = ScriptedProvider().cut_after(2, "one two three four")
    with pytest.raises(StreamInterruptedError) as caught:
        await provider.generate_completion("scripted", "x")
    assert caught.value.partial.text == "one two "
    await provider.close()


async def test_it_falls_silent_and_can_be_stopped() -> None:
    provider = ScriptedProvider().hang().hang(text="one two", after_words=1).answer("Fine.")
    short = {"timeouts": {"first_token_s": 0.02}, "retries": {"attempts": 1}}
    with pytest.raises(RequestTimeoutError):
        await provider.generate_completion("scripted", "x", options=short)
    async with provider.stream_completion("scripted", "x") as stream:
        assert (await anext(aiter(stream))).text == "one "
    assert (await provider.generate_completion("scripted", "x")).text == "Fine."
    await provider.close()


async def test_it_fills_in_and_embeds() -> None:
    provider = ScriptedProvider().answer("middle").vectors([0.5, 1], [2, 3])
    assert (await provider.generate_fim("scripted", "before", "behind")).text == "middle"
    answer = await provider.embed("scripted", ["a", "b"])
    assert answer.vectors == ([0.5, 1], [2, 3])
    assert (provider.requests[0].prefix, provider.requests[1].texts) == ("before", ("a", "b"))
    await provider.close()


async def test_it_can_claim_less_than_it_can_do() -> None:
    provider = ScriptedProvider(capabilities=["chat"]).answer("x")
    with pytest.raises(UnsupportedFeatureError, match="cannot do: tools"):
        await provider.generate_completion("scripted", "x", options=TOOLS)
    assert provider.unplayed == 1
    await provider.close()


async def test_a_manager_takes_it_like_any_other() -> None:
    async with LLMProviderManager() as manager:
        provider = ScriptedProvider(id="fake", models=["small"]).answer("Hello.")
        manager.register_provider(provider)
        events = [e.text async for e in manager.stream_completion("fake/small", "Hi")]
    assert "".join(events) == "Hello."


async def test_answers_may_take_their_time() -> None:
    provider = ScriptedProvider().answer("Late.", delay_s=0.01)
    asking = asyncio.ensure_future(provider.generate_completion("scripted", "x"))
    await asyncio.sleep(0)
    assert not asking.done()
    assert (await asking).text == "Late."
    await provider.close()
