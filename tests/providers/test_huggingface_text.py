"""How tokens become text, and text becomes tool calls; without a model."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_manager import LLMMessage, ToolCall
from llm_manager.messages import LLMRequest, LLMRequestOptions, TextDelta, ToolCallDelta
from llm_manager.providers.huggingface.answers import generation
from llm_manager.providers.huggingface.text import AnswerText
from llm_manager.providers.huggingface.tool_text import ToolText

CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}
PLAIN = json.dumps(CALL)
LLAMA = json.dumps({"name": "add", "parameters": CALL["arguments"]})


class Bytes:
    """A tokenizer with one token for each byte."""

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        return bytes(tokens).decode(errors="replace")


def pieces(text: str, *, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """What is said after each byte and at the end, and whether a stop text ended it."""
    answer = AnswerText(Bytes(), {}, stop)
    said = []
    for token in text.encode():
        said.append(answer.feed(token))
        if answer.stopped:
            return said, True
    return [*said, answer.close()], answer.stopped


@given(st.text())
def test_no_character_is_split_or_lost(text: str) -> None:
    said, _ = pieces(text)
    assert "".join(said) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in said)


@given(st.text("ab"), st.lists(st.text("ab", min_size=1), min_size=1, max_size=3))
def test_an_answer_goes_up_to_the_first_stop_text(text: str, stops: list[str]) -> None:
    said, stopped = pieces(text, stop=tuple(stops))
    # As tokens come one by one, the stop text that is complete first ends the answer.
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    first_end = min((end for end, _ in ends), default=None)
    if first_end is None:
        assert ("".join(said), stopped) == (text, False)
    else:
        assert stopped
        assert "".join(said) == text[: min(begin for end, begin in ends if end == first_end)]


def split(text: str, size: int, *names: str) -> tuple[str, list[tuple[str, object]]]:
    """The text, and the calls with their arguments, of an answer that comes in pieces."""
    reader = ToolText(frozenset(names or ("add",)), "req-1")
    deltas = [
        delta for at in range(0, len(text), size) for delta in reader.feed(text[at : at + size])
    ]
    deltas += reader.close()
    said = "".join(d.text for d in deltas if isinstance(d, TextDelta))
    calls = [d for d in deltas if isinstance(d, ToolCallDelta)]
    assert reader.calls == len(calls) == len({call.id for call in calls})
    return said, [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("answer", "said", "calls"),
    [
        (f"Let me see.<tool_call>\n{PLAIN}\n</tool_call>", "Let me see.", 1),
        (f"<tool_call>{PLAIN}</tool_call>\n<tool_call>{LLAMA}</tool_call>", "\n", 2),
        (f"[TOOL_CALLS] [{PLAIN}, {PLAIN}]", "", 2),
        (f"<|python_tag|>{LLAMA}", "", 1),
        (LLAMA, "", 1),
        (f"  {PLAIN}", "", 1),
        (f"[{PLAIN}]", "", 1),
        (f"[\n  {PLAIN},\n  {LLAMA}\n]", "", 2),
        (json.dumps({"type": "function", "function": CALL}), "", 1),
    ],
)
def test_a_call_is_found_in_each_form_that_models_write(
    answer: str, said: str, calls: int, size: int
) -> None:
    assert split(answer, size) == (said, [("add", CALL["arguments"])] * calls)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    "answer",
    [
        "I would call add, if I could.",
        f"The JSON is {PLAIN}.",
        f"{PLAIN} is what I would send.",
        json.dumps({"name": "subtract", "arguments": {}}),
        '{"answer": 42}',
        "<tool_call>add(1, 2)</tool_call>",
        "<tool_call> without an end",
        "a < b, and <tool_",
        "[1, 2, 3]",
        "[",
        '{"name": ["add"], "arguments": {}}',
        '{"a":' * 10_000,
    ],
)
def test_what_calls_no_offered_tool_stays_text(answer: str, size: int) -> None:
    assert split(answer, size) == (answer, [])


def test_a_call_whose_arguments_are_no_json_can_be_sent_back() -> None:
    call = ToolCall(id="1", name="add", arguments_json="1 and 2")
    request = LLMRequest(
        id="req-1",
        model="m",
        messages=(LLMMessage(role="assistant", content="", tool_calls=(call,)),),
        options=LLMRequestOptions(),
    )
    (sent,) = generation(request).prompt.messages
    assert sent["tool_calls"][0]["function"] == {"name": "add", "arguments": "1 and 2"}
