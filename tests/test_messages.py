"""Bad input is refused where it is given, with its value and what would be right."""

from __future__ import annotations

import copy
import pickle

import msgspec
import pytest

from llm_manager import (
    Backoff,
    DependencyMissingError,
    FilePart,
    ImagePart,
    InvalidParameterError,
    InvalidResponseError,
    LLMError,
    LLMMessage,
    LLMModelInfo,
    LLMRequestOptions,
    LLMResponse,
    RateLimitError,
    StreamInterruptedError,
    TextPart,
    Timeouts,
    ToolCall,
    ToolDefinition,
    UnsupportedFeatureError,
    Usage,
    errors,
)
from llm_manager.messages import as_messages, as_options, merged

from .helpers import echo

# ---- messages ------------------------------------------------------------------------------------


def test_a_conversation_can_be_written_in_many_ways() -> None:
    expected = (LLMMessage(role="user", content="hi"),)
    for written in (
        "hi",
        LLMMessage.user("hi"),
        {"role": "user", "content": "hi"},
        [LLMMessage.user("hi")],
        ({"role": "user", "content": "hi"},),
    ):
        assert as_messages(written) == expected


def test_parts_can_be_dictionaries_too() -> None:
    (message,) = as_messages(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image", "url": "https://example.org/a.png", "mediaType": "image/png"},
            ],
        }
    )
    assert message.content == (
        TextPart(text="What is it?"),
        ImagePart(url="https://example.org/a.png", media_type="image/png"),
    )
    assert message.text == "What is it?"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ([], "messages is empty"),
        ("", "every message is empty"),
        ([{"role": "user", "content": ""}], "every message is empty"),
        ({"role": "robot", "content": "hi"}, "robot"),
        ({"role": "user", "text": "hi"}, "unknown key 'text' in message"),
        ({"role": "user", "contnet": "hi"}, "did you mean 'content'"),
        ({"role": "user", "content": 5}, "content"),
        ({"content": "hi"}, "role"),
        ({"role": "tool", "content": "4"}, "needs a tool_call_id"),
        (5, "got 5"),
        ([5], "message"),
        (None, "got None"),
    ],
)
def test_a_conversation_that_cannot_be_is_refused(wrong, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        as_messages(wrong)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LLMMessage(role="robot"), "unknown role 'robot'; use one of system, user"),
        (lambda: LLMMessage(role="user", content=5), "got 5"),
        (lambda: LLMMessage(role="user", tool_calls=(ToolCall(id="1", name="f"),)), "assistant"),
        (lambda: ImagePart(), "either data or url, got neither"),
        (lambda: ImagePart(data=b"x", url="u"), "got both"),
        (lambda: ImagePart(data=b"x"), "needs a media_type"),
        (lambda: FilePart(data=b"x"), "needs a media_type"),
        (lambda: ToolDefinition(name="no spaces"), "'no spaces' is no tool name"),
        (lambda: ToolDefinition(name=""), "is no tool name"),
    ],
)
def test_a_part_that_cannot_be_is_refused(make, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        make()


def test_arguments_of_a_tool_call_are_parsed_on_demand_and_kept_as_written() -> None:
    assert ToolCall(id="1", name="f", arguments_json='{"a": [1]}').arguments == {"a": [1]}
    assert ToolCall(id="1", name="f", arguments_json="").arguments == {}
    broken = ToolCall(id="1", name="f", arguments_json='{"a": ')
    with pytest.raises(InvalidResponseError, match="tool 'f'"):
        _ = broken.arguments
    assert broken.arguments_json == '{"a": '


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": 2.1}, r"temperature must be between 0 and 2, got 2\.1"),
        ({"temperature": -0.1}, "temperature must be between 0 and 2"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"max_tokens": 1.5}, "max_?[tT]okens"),
        ({"top_p": 1.01}, "top_p must be between 0 and 1"),
        ({"presence_penalty": 3}, "presence_penalty must be between -2 and 2"),
        ({"frequency_penalty": -3}, "frequency_penalty must be between -2 and 2"),
        ({"seed": "x"}, "seed"),
        ({"stop": ["a", ""]}, "stop must be non-empty"),
        ({"tool_choice": "add"}, "tool_choice 'add'"),
        ({"tool_choice": "required"}, "no tools given"),
        ({"reasoning_effort": "a lot"}, "reasoning"),
        ({"response_format": "yaml"}, "yaml"),
        ({"timeouts": {"idle_s": 0}}, r"timeouts\.idle_s must be above 0"),
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"wibble": 1}, "unknown key 'wibble' in options"),
        ("hot", "must be a LLMRequestOptions or a dictionary"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        as_options(options)


def test_options_can_be_written_in_python_or_in_typescript_spelling() -> None:
    expected = LLMRequestOptions(max_tokens=5, top_p=0.5, stop=("a",))
    assert as_options({"max_tokens": 5, "top_p": 0.5, "stop": "a"}) == expected
    assert as_options({"maxTokens": 5, "topP": 0.5, "stop": ["a"]}) == expected


def test_two_tools_of_the_same_name_are_refused() -> None:
    tool = ToolDefinition(name="add")
    with pytest.raises(InvalidParameterError, match="two tools are called 'add'"):
        LLMRequestOptions(tools=(tool, tool))


def test_what_a_stronger_level_gives_wins_even_if_it_is_zero() -> None:
    strong = LLMRequestOptions(temperature=0.0, timeouts=Timeouts(idle_s=1))
    weak = LLMRequestOptions(temperature=1.0, seed=7, timeouts=Timeouts(idle_s=2, total_s=3))
    both = strong.merged_over(weak)
    assert (both.temperature, both.seed) == (0.0, 7)
    assert both.timeouts == Timeouts(idle_s=1, total_s=3)
    assert merged(strong, LLMRequestOptions()) == strong


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda p: p.stream_completion("echo", ""), "prompt must be text"),
        (lambda p: p.stream_completion("echo", 5), "prompt must be text"),
        (lambda p: p.stream_completion("", "hi"), "model must be the id of a model"),
        (lambda p: p.stream_completion(5, "hi"), "got 5"),
        (lambda p: p.stream_chat_completion("echo", []), "messages is empty"),
    ],
)
def test_a_request_that_cannot_be_is_refused_before_anything_is_sent(call, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        call(echo())


def test_without_any_model_a_request_says_how_to_give_one() -> None:
    with pytest.raises(InvalidParameterError, match="none is active") as caught:
        echo(default_model=None, models=()).stream_completion(None, "hi")
    assert "default_model" in caught.value.hint


def test_what_a_provider_cannot_do_is_refused_before_sending() -> None:
    class Plain(type(echo())):
        capabilities = frozenset({"chat"})

    provider = Plain()
    image = ImagePart(data=b"x", media_type="image/png")
    document = FilePart(data=b"x", media_type="application/pdf")
    for messages, options, missing in (
        ("hi", {"tools": [{"name": "add"}]}, "tools"),
        ([LLMMessage.user("what?", image)], None, "vision"),
        ([LLMMessage.user("what?", document)], None, "files"),
        ("hi", {"response_format": "json_object"}, "json_object"),
    ):
        with pytest.raises(UnsupportedFeatureError, match=f"cannot do: {missing}"):
            provider.stream_chat_completion("echo", messages, options)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"timeouts": 3}, "timeouts must be a Timeouts or a dictionary"),
        ({"timeouts": {"idle": 3}}, "did you mean 'idle_s'"),
        ({"reconnect": 5}, "reconnect must be a Backoff"),
        ({"models": "abc"}, "models must be a sequence of ids"),
    ],
)
def test_settings_of_a_provider_that_cannot_be_are_refused(settings, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        echo(**settings)


def test_limits_can_be_given_as_a_dictionary() -> None:
    assert echo(timeouts={"idle_s": 3}).default_options.timeouts == Timeouts(idle_s=3)


@pytest.mark.parametrize("wrong", [{"first_s": -1}, {"factor": 0.5}, {"jitter": 2}, {"max_s": "1"}])
def test_waits_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        Backoff(**wrong)


def test_only_answers_can_be_scripted() -> None:
    with pytest.raises(InvalidParameterError, match="script takes EchoAnswer"):
        echo().script("text")


# ---- data ----------------------------------------------------------------------------------------


def test_data_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        LLMMessage.user("hi").content = "ho"
    with pytest.raises(AttributeError):
        LLMRequestOptions().temperature = 1


def test_data_is_camel_case_as_json_and_comes_back() -> None:
    options = LLMRequestOptions(max_tokens=5, timeouts=Timeouts(first_token_s=1))
    wire = msgspec.json.encode(options)
    assert b'"maxTokens":5' in wire
    assert b'"firstTokenS":1' in wire
    assert msgspec.json.decode(wire, type=LLMRequestOptions) == options


def test_usage_adds_up() -> None:
    one = Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=4, reasoning_tokens=2)
    total = one + Usage(prompt_tokens=1, completion_tokens=1, estimated=True)
    assert total == Usage(
        prompt_tokens=11, completion_tokens=6, cached_tokens=4, reasoning_tokens=2, estimated=True
    )
    assert total.total_tokens == 17


def test_a_model_tells_where_each_fact_comes_from() -> None:
    model = LLMModelInfo.known("endpoint", id="m", context_window_tokens=8192, size_bytes=None)
    assert model.name == "m"
    assert model.source_of("context_window_tokens") == "endpoint"
    assert model.source_of("size_bytes") is None


# ---- errors --------------------------------------------------------------------------------------

ALL_ERRORS = sorted(
    (e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, LLMError)),
    key=lambda e: e.__name__,
)


@pytest.mark.parametrize("kind", ALL_ERRORS, ids=lambda e: e.__name__)
def test_every_error_survives_pickling_and_copying(kind) -> None:
    partial = LLMResponse(text="half")
    error = kind(
        "broken", code="odd", retry_after_s=1.5, provider_id="p", http_status=418,
        request_id="r", original="lib.Error: x", hint="do this", partial=partial,
    )  # fmt: skip
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert vars(again) == vars(error)
        assert str(again) == str(error) == "p: broken (do this)"
        assert again.args == ("broken",)


@pytest.mark.parametrize("kind", ALL_ERRORS, ids=lambda e: e.__name__)
def test_every_error_has_a_code_of_its_own_and_a_description(kind) -> None:
    assert kind("x").code
    assert kind.__doc__
    assert kind.__name__ in (errors.__doc__ or "")


def test_only_what_may_pass_is_retryable() -> None:
    retryable = {e.__name__ for e in ALL_ERRORS if e("x").retryable}
    assert retryable == {
        "RateLimitError", "RequestTimeoutError", "ProviderConnectionError",
        "ProviderOverloadedError", "StreamInterruptedError", "CircuitOpenError", "QueueFullError",
    }  # fmt: skip
    assert not RateLimitError("x", retryable=False).retryable
    assert StreamInterruptedError("x").partial is None


def test_a_missing_package_names_the_extra_to_install() -> None:
    error = DependencyMissingError("openai is not installed", extra="openai")
    assert "install the extra 'openai'" in str(error)
    assert isinstance(error, ImportError)
    assert pickle.loads(pickle.dumps(error)).extra == "openai"


@pytest.mark.parametrize("kind", [ImagePart, FilePart])
def test_what_a_part_holds_does_not_fill_a_log(kind: type[ImagePart] | type[FilePart]) -> None:
    held = kind(data=b"x" * 3_000_000, media_type="image/png")
    assert "data=<3000000 bytes>, media_type='image/png'" in repr(LLMMessage.user("what?", held))
    linked = kind(url="data:image/png;base64," + "A" * 1_000_000)
    assert len(repr(linked)) < 100
