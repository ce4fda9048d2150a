"""What is left out of a conversation so that it fits, and what never is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_manager import (
    ContextWindowExceededError,
    EchoProvider,
    InvalidParameterError,
    LLMMessage,
    LLMModelInfo,
    LLMProviderManager,
    ToolCall,
    trim_messages,
)
from llm_manager.messages import LLMRequest
from llm_manager.tokens import estimate_prompt_tokens

SYSTEM = LLMMessage.system("Be brief.")
QUESTION = LLMMessage.user("And what is the capital of France?")


def talk(rounds: int) -> list[LLMMessage]:
    """A system message, some rounds of a conversation, and a question."""
    messages = [SYSTEM]
    for number in range(rounds):
        messages.append(LLMMessage.user(f"Tell me something about the number {number}."))
        messages.append(LLMMessage.assistant(f"{number} is followed by {number + 1}. " * 5))
    return [*messages, QUESTION]


def with_tools() -> list[LLMMessage]:
    """A conversation in which two tools were called at once."""
    calls = [ToolCall(id="a", name="weather"), ToolCall(id="b", name="time")]
    return [
        SYSTEM,
        LLMMessage.user("What is the weather in Rome, and how late is it there?"),
        LLMMessage.assistant("I will look.", tool_calls=calls),
        LLMMessage.tool("a", "sunny " * 40),
        LLMMessage.tool("b", "noon " * 40),
        LLMMessage.assistant("Sunny, and it is noon."),
        QUESTION,
    ]


def words(messages: tuple[LLMMessage, ...]) -> int:
    """A count of one's own."""
    return sum(len(message.text.split()) for message in messages)


def test_what_fits_stays_as_it_is() -> None:
    conversation = talk(3)
    result = trim_messages(conversation, 10_000)
    assert result.messages == tuple(conversation)
    assert (result.dropped, result.shortened) == ((), ())


def test_the_oldest_go_first_and_are_returned() -> None:
    conversation = talk(10)
    result = trim_messages(conversation, 200)
    count = len(result.dropped)
    assert 0 < count < 20
    assert result.dropped == tuple(conversation[1 : count + 1])
    assert result.messages == (SYSTEM, *conversation[count + 1 :])
    assert result.tokens <= 200


def test_no_more_goes_than_has_to() -> None:
    conversation = talk(10)
    result = trim_messages(conversation, 60, count=words)
    one_more = (*result.messages[:1], result.dropped[-1], *result.messages[1:])
    assert words(result.messages) == result.tokens <= 60 < words(one_more)


def test_dropping_from_the_middle_keeps_the_beginning_and_the_end() -> None:
    conversation = talk(10)
    result = trim_messages(conversation, 250, strategy="drop_middle")
    assert result.messages[:2] == tuple(conversation[:2])
    assert result.messages[-2:] == tuple(conversation[-2:])
    assert result.dropped


def test_the_longest_texts_are_cut_and_nothing_is_dropped() -> None:
    long = LLMMessage.assistant("Once upon a time there was a token. " * 200)
    conversation = [SYSTEM, LLMMessage.user("A story, please."), long, QUESTION]
    result = trim_messages(conversation, 300, strategy="truncate_longest")
    assert (result.dropped, result.shortened) == ((), (long,))
    cut = result.messages[2].text
    assert cut.startswith("Once upon a time")
    assert cut.endswith("a token. ")
    assert "characters left out" in cut
    assert [m for m in result.messages if m is not result.messages[2]] == [
        m for m in conversation if m is not long
    ]
    assert 200 < result.tokens <= 300


def test_a_function_decides_what_goes_first() -> None:
    conversation = talk(4)
    result = trim_messages(
        conversation, 150, strategy=lambda blocks: sorted(blocks, key=lambda b: -b.indexes[0])
    )
    assert result.dropped[-1] is conversation[-2]
    assert result.messages[-1] is QUESTION


def test_a_tool_call_and_its_results_go_together() -> None:
    conversation = with_tools()
    for limit in range(30, 160, 5):
        try:
            result = trim_messages(conversation, limit)
        except ContextWindowExceededError:
            continue
        kept = [m for m in result.messages if m.role == "tool" or m.tool_calls]
        assert len(kept) in (0, 3)


def test_the_same_message_twice_is_two_messages() -> None:
    same = LLMMessage.user("Are we there yet? " * 10)
    result = trim_messages([same, same, same, QUESTION], 120)
    assert len(result.messages) + len(result.dropped) == 4
    assert 0 < len(result.dropped) < 3


@pytest.mark.parametrize("strategy", ["drop_oldest", "drop_middle", "truncate_longest"])
def test_what_has_to_stay_and_does_not_fit_is_an_error_with_figures(strategy: str) -> None:
    with pytest.raises(ContextWindowExceededError, match=r"about \d+ tokens; .*room for 5"):
        trim_messages(talk(3), 5, strategy=strategy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "neither max_tokens nor provider"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": 5, "strategy": "newest"}, "strategy must be one of"),
        ({"max_tokens": 5, "strategy": None}, "strategy must be one of"),
        ({"max_tokens": 5, "provider": "openai"}, "provider must be a provider"),
        ({"max_tokens": 5, "strategy": lambda blocks: ["x"]}, "none of the blocks"),
        ({"max_tokens": 5, "strategy": lambda blocks: None}, "instead of blocks"),
        ({"max_tokens": 5, "count": 5}, "count must be a function"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, problem: str) -> None:
    with pytest.raises(InvalidParameterError, match=problem):
        trim_messages(talk(3), **arguments)


class Small(EchoProvider):
    """A provider with a model that reads little, and one of which nobody knows."""

    async def _list_models(self) -> list[LLMModelInfo]:
        return [LLMModelInfo(id="m", context_window_tokens=300), LLMModelInfo(id="unknown")]


async def test_the_limit_is_the_window_less_the_answer_less_the_error_bound() -> None:
    conversation = talk(30)
    async with Small() as provider:
        result = trim_messages(conversation, provider=provider, model="m")
        with_answer = trim_messages(
            conversation, provider=provider, model="m", options={"max_tokens": 150}
        )
        with pytest.raises(ContextWindowExceededError, match=r"400 tokens.*together 300"):
            trim_messages(conversation, provider=provider, model="m", options={"max_tokens": 400})
        with pytest.raises(InvalidParameterError, match="window of 'unknown' is not known"):
            trim_messages(conversation, provider=provider, model="unknown")
        manager = LLMProviderManager()
        manager.register_provider(provider)
        assert trim_messages(conversation, provider=manager, model="m") == result
        counted = await provider.count_tokens("m", result.messages)
    assert (result.max_tokens, with_answer.max_tokens) == (300, 150)
    assert counted.error_fraction is not None
    assert counted.tokens * (1 + counted.error_fraction) <= 301
    assert len(with_answer.messages) < len(result.messages)


# ---- whatever the conversation ---------------------------------------------------------------


@st.composite
def conversations(draw: st.DrawFn) -> list[LLMMessage]:
    """Messages of all roles; ids of tool calls are used again in each round."""
    messages = [SYSTEM] if draw(st.booleans()) else []
    text = st.text(st.sampled_from("ab 你\n"), max_size=400)
    for _ in range(draw(st.integers(1, 8))):
        messages.append(LLMMessage.user("?" + draw(text)))
        for _ in range(draw(st.integers(0, 2))):
            count = draw(st.integers(1, 3))
            calls = [ToolCall(id=f"call_{i}", name="f", arguments_json="{}") for i in range(count)]
            messages.append(LLMMessage.assistant(draw(text), tool_calls=calls))
            messages.extend(LLMMessage.tool(call.id, draw(text)) for call in calls)
        if draw(st.booleans()):
            messages.append(LLMMessage.assistant("!" + draw(text)))
    return messages


def is_whole(messages: tuple[LLMMessage, ...]) -> bool:
    """Whether each result follows its call, and each call has its results."""
    open_calls: list[str] = []
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                return False
            open_calls.remove(message.tool_call_id)
        elif open_calls:
            return False
        open_calls.extend(call.id for call in message.tool_calls)
    return not open_calls


@settings(deadline=None)
@given(
    conversations(),
    st.integers(1, 1500),
    st.sampled_from(["drop_oldest", "drop_middle", "truncate_longest"]),
)
def test_a_result_fits_keeps_the_order_and_is_whole(conversation, max_tokens, strategy) -> None:
    try:
        result = trim_messages(conversation, max_tokens, strategy=strategy)
    except ContextWindowExceededError:
        return
    kept = list(result.messages)
    assert result.tokens <= max_tokens
    left_over = LLMRequest(id="", model="", messages=result.messages)
    assert estimate_prompt_tokens(left_over) == result.tokens
    assert is_whole(result.messages)
    last = [m for m in conversation if m.role == "user"][-1]
    assert any(m is last for m in kept)
    assert all(m in kept for m in conversation if m.role == "system")
    if strategy == "truncate_longest":
        assert len(kept) == len(conversation)
        assert [m.role for m in kept] == [m.role for m in conversation]
    else:
        assert len(kept) + len(result.dropped) == len(conversation)
        left = iter(conversation)
        assert all(any(m is other for other in left) for m in kept)
