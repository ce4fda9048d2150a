"""`create_llm`: one call for a model to talk to; its answers, its settings, its secrets."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llm_manager import (
    LLM,
    BaseLLMProvider,
    ConfigurationError,
    EchoAnswer,
    EchoProvider,
    ImagePart,
    InvalidParameterError,
    LLMProviderManager,
    MediaFactory,
    ModelCapability,
    ModelParameter,
    ProviderConnectionError,
    ProviderNotFoundError,
    RateLimitError,
    RequestTimeoutError,
    Tool,
    ToolCallRequest,
    ToolDefinition,
    ToolRoundsExceededError,
    UnsupportedFeatureError,
    create_llm,
    run_sync,
    set_provider_config,
)
from llm_manager.messages import LLMRequest
from llm_manager.testing import Reply, ScriptedPeer
from llm_manager.testing.peer import Request

from .helpers import Record

ROOT = Path(__file__).parent.parent
WAIT_S = 30.0
KEY = "a-key-that-nobody-may-see"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def asks_to_add(text: str = "") -> EchoAnswer:
    return EchoAnswer(tool="add", arguments={"a": 1, "b": 2}, text=text)


@pytest.fixture
def llm() -> Iterator[LLM]:
    with create_llm("echo", words_per_s=float("inf")) as made:
        yield made


def script(llm: LLM, *answers: EchoAnswer) -> None:
    assert isinstance(llm.provider, EchoProvider)
    llm.provider.script(*answers)


def last_request(llm: LLM) -> LLMRequest:
    assert isinstance(llm.provider, EchoProvider)
    return llm.provider.requests[-1]


def roles_and_texts(llm: LLM) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in last_request(llm).messages]


def said_again(request: Request) -> Reply:
    asked = request.json()["messages"][-1]["content"]
    pieces = [{"content": asked[:2]}, {"content": asked[2:]}]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return Reply.sse(
        [*({"choices": [{"index": 0, "delta": piece}]} for piece in pieces), last, "[DONE]"]
    )


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    with ScriptedPeer() as peer:
        peer.route("/v1/chat/completions", said_again)
        peer.route("/v1/models", Reply.json({"data": [{"id": "m"}]}))
        yield peer


# ---- what it is made of --------------------------------------------------------------------------


def test_an_llm_of_a_kind_answers_in_two_lines() -> None:
    with create_llm("echo", words_per_s=float("inf")) as llm:
        assert llm.generate("Hello, world!") == "Hello, world!"


def test_nothing_is_connected_before_the_first_request(peer: ScriptedPeer) -> None:
    with create_llm("compatible", base_url=f"{peer.base_url}/v1", model="m") as llm:
        assert llm.provider.status.status == "disconnected"
        assert peer.connections_opened == 0
        assert llm.generate("hello") == "hello"
        assert llm.provider.status.status == "connected"


def test_settings_and_parameters_are_given_together_by_text_or_by_enum() -> None:
    given = {
        ModelParameter.MODEL: "small",
        ModelParameter.TEMPERATURE: 0.3,
        "models": ["small", "large"],
        "words_per_s": float("inf"),
    }
    with create_llm("echo", given, max_tokens=5, temperature=0.4) as llm:
        llm.generate("hello")
        request = last_request(llm)
    assert request.model == "small"
    assert (request.options.temperature, request.options.max_tokens) == (0.4, 5)


def test_a_provider_class_and_a_registered_kind_will_do() -> None:
    class Loud(EchoProvider):
        kind = "loud"

    with create_llm(Loud, id="mine", words_per_s=float("inf")) as llm:
        assert (type(llm.provider), llm.provider.id) == (Loud, "mine")
        assert llm.generate("hello") == "hello"


def test_a_provider_that_exists_is_shared_and_lives_on() -> None:
    provider = EchoProvider(models=["one", "two"], words_per_s=float("inf"))
    with create_llm(provider, model="one") as first, create_llm(provider, model="two") as second:
        first.generate("hello")
        second.generate("hello")
    assert [request.model for request in provider.requests] == ["one", "two"]
    assert provider.status.status == "connected"
    run_sync(provider.close())


def test_a_provider_with_settings_of_its_own_is_made_by_its_id(monkeypatch) -> None:
    monkeypatch.setenv("WORK_KEY", KEY)
    parameters = {"temperature": 0.3, "max_tokens": 2}
    url = "http://127.0.0.1:1/v1"
    set_provider_config(
        "work",
        {
            "kind": "compatible", "api_key": "env:WORK_KEY", "base_url": url,
            "default_model": "m", "default_parameters": parameters,
        },
    )  # fmt: skip
    with create_llm("work", max_tokens=5) as llm:
        assert (llm.provider.id, llm.provider.kind, llm.model_name) == ("work", "compatible", "m")
        shown = llm.get_config()
    assert shown == {
        "id": "work", "base_url": url, "api_key": "***", "model": "m",
        "temperature": 0.3, "max_tokens": 5,
    }  # fmt: skip


def test_settings_for_a_provider_that_exists_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="words_per_s cannot be given"):
        create_llm(EchoProvider(), words_per_s=3)


def test_a_manager_gets_the_provider_and_keeps_it() -> None:
    manager = LLMProviderManager()
    heard = Record(manager)
    with create_llm("echo", manager=manager, words_per_s=float("inf")) as llm:
        assert llm.generate("hello") == "hello"
    assert manager.get_provider("echo") is llm.provider
    assert llm.provider.status.status == "connected"
    assert [event.outcome for event in heard.named("requestFinished")] == ["ok"]
    with pytest.raises(InvalidParameterError, match="registered already"):
        create_llm("echo", manager=manager)
    assert create_llm(llm.provider, manager=manager).generate("again") == "again"
    run_sync(manager.close())


def test_an_unknown_kind_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ProviderNotFoundError, match="'opnai'") as refused:
        create_llm("opnai")
    assert refused.value.hint == "did you mean 'openai'?"


@pytest.mark.parametrize(
    ("config", "says", "hint"),
    [
        ({"temprature": 0.3}, "temprature", "did you mean 'temperature'?"),
        ({"temperature": 3}, "temperature", None),
        ({"temperature": "hot"}, "temperature", None),
        ({"max_tokens": 0}, "max_tokens", None),
        ({"timeout": -1}, "timeout", None),
        ({"words_per_s": -1}, "words_per_s", None),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(config, says, hint) -> None:
    manager = LLMProviderManager()
    with pytest.raises(InvalidParameterError, match=says) as refused:
        create_llm("echo", config, manager=manager)
    assert hint is None or refused.value.hint == hint
    assert not manager.providers


# ---- asking --------------------------------------------------------------------------------------


def test_the_parameters_of_one_request_are_stronger_and_leave_no_trace(llm: LLM) -> None:
    llm.set_config(temperature=0.1, system_prompt="Be brief.")
    llm.generate("hello", system_prompt="Be long.", temperature=0.9, stop=["x"], timeout=7)
    options = last_request(llm).options
    assert (options.temperature, options.stop) == (0.9, ("x",))
    assert options.timeouts is not None
    assert options.timeouts.total_s == 7
    assert roles_and_texts(llm) == [("system", "Be long."), ("user", "hello")]
    llm.generate("hello")
    options = last_request(llm).options
    assert (options.temperature, options.stop) == (0.1, None)
    assert roles_and_texts(llm) == [("system", "Be brief."), ("user", "hello")]


def test_a_system_prompt_can_be_left_out_for_once(llm: LLM) -> None:
    llm.set_config(system_prompt="Be brief.")
    llm.generate("hello", system_prompt="")
    assert roles_and_texts(llm) == [("user", "hello")]


def test_another_model_can_be_asked_for_once() -> None:
    with create_llm("echo", models=["a", "b"], words_per_s=float("inf")) as llm:
        llm.generate("hello", model="b")
        assert last_request(llm).model == "b"
        llm.generate("hello")
        assert last_request(llm).model == "a"


@pytest.mark.parametrize("prompt", ["", None, 5])
def test_a_prompt_that_is_none_is_refused(llm: LLM, prompt: Any) -> None:
    with pytest.raises(InvalidParameterError, match="prompt must be text"):
        llm.generate(prompt)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temprature": 1}, "temprature"),
        ({"api_key": KEY}, "api_key"),
        ({"temperature": 9}, "temperature"),
    ],
)
def test_an_option_that_is_none_is_refused_before_anything_is_sent(llm, options, says) -> None:
    for stream in (False, True):
        with pytest.raises(InvalidParameterError, match=says) as refused:
            llm.generate("hello", stream=stream, **options)
        assert KEY not in str(refused.value)
    assert not llm.provider.requests


def test_the_last_response_has_the_token_counts(llm: LLM) -> None:
    assert llm.last_response is None
    llm.generate("one two three")
    assert llm.last_response is not None
    assert llm.last_response.usage is not None
    assert llm.last_response.usage.completion_tokens == 3


def test_an_error_reaches_the_caller_as_it_is(llm: LLM) -> None:
    script(llm, EchoAnswer(error=RateLimitError("slow down", retryable=False)))
    with pytest.raises(RateLimitError, match="slow down"):
        llm.generate("hello")


def test_a_timeout_ends_an_answer_that_hangs(llm: LLM) -> None:
    script(llm, EchoAnswer(text="one two", hang_after_words=1))
    with pytest.raises(RequestTimeoutError) as late:
        llm.generate("hello", timeout=0.05)
    assert late.value.partial is not None
    assert late.value.partial.text == "one "


def test_a_structured_answer_is_parsed_from_the_response(llm: LLM) -> None:
    @dataclass
    class Town:
        name: str

    script(llm, EchoAnswer(text='{"name": "Oslo"}'))
    assert llm.generate("Name a town.", response_format=Town) == '{"name": "Oslo"}'
    assert llm.last_response is not None
    assert llm.last_response.parse(Town) == Town("Oslo")


# ---- files ---------------------------------------------------------------------------------------


def test_files_are_read_and_come_before_the_question(llm: LLM, tmp_path: Path) -> None:
    picture, text = tmp_path / "dot.png", tmp_path / "note.txt"
    picture.write_bytes(PNG)
    text.write_text("Remember the milk.")
    llm.generate("What is this?", files=[picture, str(text), PNG, MediaFactory.from_source(PNG)])
    (message,) = last_request(llm).messages
    image, note, again, ready, question = message.content
    assert isinstance(image, ImagePart)
    assert image.media_type == "image/png"
    assert "Remember the milk." in note.text
    assert again == ready == image
    assert question.text == "What is this?"


def test_files_alone_are_enough(llm: LLM) -> None:
    llm.generate("", files=[PNG])
    (message,) = last_request(llm).messages
    assert len(message.content) == 1


def test_an_image_by_url_is_left_to_the_service(llm: LLM) -> None:
    llm.generate("What is this?", files=["https://example.com/cat.png"])
    assert last_request(llm).messages[0].content[0].url == "https://example.com/cat.png"


def test_a_file_that_is_not_there_is_refused_before_anything_is_sent(llm: LLM) -> None:
    with pytest.raises(InvalidParameterError) as refused:
        llm.generate("What is this?", files=["/no/such/file.png"])
    assert refused.value.code == "file_not_found"
    assert not llm.provider.requests


@pytest.mark.parametrize("files", ["cat.png", PNG, 5])
def test_a_single_file_has_to_stand_in_a_list(llm: LLM, files: Any) -> None:
    with pytest.raises(InvalidParameterError, match="must be a list"):
        llm.generate("What is this?", files=files)


def test_an_image_for_a_model_that_cannot_see_is_refused() -> None:
    class Blind(EchoProvider):
        capabilities = frozenset({"chat"})

    with create_llm(Blind) as llm, pytest.raises(UnsupportedFeatureError, match="vision"):
        llm.generate("What is this?", files=[PNG])


# ---- tools ---------------------------------------------------------------------------------------


def test_functions_are_called_until_the_model_answers(llm: LLM) -> None:
    script(llm, asks_to_add(), EchoAnswer(text="It is 3."))
    assert llm.generate("What is 1 + 2?", tools=[add]) == "It is 3."
    assert roles_and_texts(llm)[-1] == ("tool", "3")


def test_a_tool_object_is_called_as_well(llm: LLM) -> None:
    script(llm, EchoAnswer(tool="plus", arguments={"a": 1, "b": 2}), EchoAnswer(text="3"))
    assert llm.generate("What is 1 + 2?", tools=[Tool(add, name="plus")], tool_choice="plus") == "3"


@pytest.mark.parametrize(
    "definition",
    [
        ToolDefinition.from_function(add),
        {"name": "add", "description": "Add.", "parameters": {"type": "object"}},
        {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},
    ],
)
def test_definitions_alone_hand_the_calls_to_the_caller(llm: LLM, definition: Any) -> None:
    script(llm, asks_to_add("Let me see."))
    request = llm.generate("What is 1 + 2?", tools=[definition], tool_choice="required")
    assert isinstance(request, ToolCallRequest)
    assert request.content == "Let me see."
    assert [(call.name, call.arguments) for call in request.tool_calls] == [
        ("add", {"a": 1, "b": 2})
    ]


def test_a_model_that_needs_no_tool_just_answers(llm: LLM) -> None:
    assert llm.generate("hello", tools=[ToolDefinition.from_function(add)]) == "hello"
    assert llm.generate("hello", tools=[add]) == "hello"
    assert llm.generate("hello", tools=[]) == "hello"


def test_a_model_that_asks_for_tools_for_ever_is_stopped(llm: LLM) -> None:
    script(llm, *[asks_to_add()] * 20)
    with pytest.raises(ToolRoundsExceededError):
        llm.generate("What is 1 + 2?", tools=[add])


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([add, ToolDefinition(name="other")], "'other' is only a definition"),
        ([5], "a tool must be"),
        ([{"description": "no name"}], "name"),
    ],
)
def test_tools_that_are_none_are_refused(llm: LLM, tools: Any, says: str) -> None:
    with pytest.raises(InvalidParameterError, match=says):
        llm.generate("hello", tools=tools)


# ---- where it is called --------------------------------------------------------------------------


async def test_a_task_asks_on_its_own_loop() -> None:
    async with create_llm("echo", words_per_s=float("inf")) as llm:
        loops: list[asyncio.AbstractEventLoop] = []

        async def where() -> str:
            loops.append(asyncio.get_running_loop())
            return "here"

        script(llm, EchoAnswer(tool="where"), EchoAnswer(text="done"))
        assert await llm.generate_async("Where?", tools=[where]) == "done"
        assert loops == [asyncio.get_running_loop()]


async def test_a_notebook_may_ask_while_its_loop_stands_still(peer: ScriptedPeer) -> None:
    with create_llm("compatible", base_url=f"{peer.base_url}/v1", model="m") as llm:
        assert await llm.generate_async("first") == "first"
        assert llm.generate("second") == "second"
        assert "".join(llm.generate("third", stream=True)) == "third"
        assert await llm.generate_async("fourth") == "fourth"
    assert llm.provider.status.status == "closed"


def test_twenty_threads_share_one_llm_and_its_connections(peer: ScriptedPeer) -> None:
    with create_llm("compatible", base_url=f"{peer.base_url}/v1", model="m") as llm:

        def ask(number: int) -> list[str]:
            text = f"question {number}"
            streamed = "".join(llm.generate(text, stream=True))
            return [text, llm.generate(text), streamed]

        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(ask, range(100)))
        assert all(text == whole == streamed for text, whole, streamed in answers)
        assert llm.provider.status.in_flight == 0
        # No thread has a loop of its own, so none has connections of its own.
        before = peer.connections_opened
        for number in range(10):
            ask(number)
        assert peer.connections_opened <= before + 1
        assert before <= 20
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("llm_manager-sync") == 1


def test_a_listener_that_would_wait_for_itself_is_told(llm: LLM) -> None:
    said: list[str] = []
    done = threading.Event()

    def ask(_: object) -> None:
        for stream in (False, True):
            try:
                list(llm.generate("hello", stream=stream))
            except RuntimeError as error:
                said.append(str(error))
        done.set()

    llm.provider.on("hello", ask)
    llm.provider.emit("hello", 1)
    assert done.wait(WAIT_S)
    assert ["listener" in text for text in said] == [True, True]


def test_a_tool_that_asks_the_same_llm_is_answered(llm: LLM) -> None:
    def ask_again() -> str:
        """Ask somebody who knows."""
        return llm.generate("the inner question")

    script(llm, EchoAnswer(tool="ask_again"), EchoAnswer(), EchoAnswer(text="done"))
    assert llm.generate("hello", tools=[ask_again]) == "done"
    assert roles_and_texts(llm)[-1] == ("tool", "the inner question")


SCRIPT = """
import sys
from llm_manager import create_llm

llm = create_llm("compatible", base_url=sys.argv[1], model="m")
print(llm.generate("hello"), *llm.generate("again", stream=True))
"""


def test_a_script_that_closes_nothing_ends_without_a_word(peer: ScriptedPeer) -> None:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, f"{peer.base_url}/v1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "hello ag ain\n", "")


# ---- settings ------------------------------------------------------------------------------------


def test_parameters_change_from_the_next_request_on(llm: LLM) -> None:
    llm.set_config({ModelParameter.TEMPERATURE: 0.2}, seed=7)
    llm.generate("hello")
    assert last_request(llm).options.temperature == 0.2
    llm.set_config(temperature=None)
    llm.generate("hello")
    assert (last_request(llm).options.temperature, last_request(llm).options.seed) == (None, 7)


def test_a_change_that_is_wrong_changes_nothing(llm: LLM) -> None:
    llm.set_config(temperature=0.2)
    before = llm.get_config()
    for change in ({"seed": 7, "temperature": 9}, {"seed": 7, "word_per_s": 3}, {"id": "x"}):
        with pytest.raises(InvalidParameterError):
            llm.set_config(change)
    assert llm.get_config() == before


def test_settings_of_the_provider_change_with_them(peer: ScriptedPeer) -> None:
    url = f"{peer.base_url}/v1"
    with create_llm("compatible", base_url=url, api_key="first-key-1", model="m") as llm:
        llm.generate("hello")
        llm.set_config(api_key="second-key-2")
        llm.generate("hello")
        keys = [request.headers["authorization"] for request in peer.requests if request.body]
    assert keys == ["Bearer first-key-1", "Bearer second-key-2"]


async def test_settings_change_where_a_loop_runs(llm: LLM) -> None:
    llm.set_config(words_per_s=1000.0)
    assert llm.get_config()["words_per_s"] == 1000.0


def test_a_model_is_chosen_and_told() -> None:
    with create_llm("echo", models=["a", "b"], words_per_s=float("inf")) as llm:
        assert llm.get_config()["model"] == llm.model_name == "a"
        llm.set_config(model="b")
        assert llm.get_config()["model"] == llm.model_name == "b"
        llm.generate("hello")
        assert last_request(llm).model == "b"


def test_no_key_is_shown_by_anything(peer: ScriptedPeer) -> None:
    url = f"{peer.base_url}/v1"
    headers = {"x-token": f"{KEY}-too"}
    with create_llm("compatible", base_url=url, api_key=KEY, headers=headers, model="m") as llm:
        shown = llm.get_config()
        assert shown["api_key"] == "***"
        assert shown["base_url"] == url
        for text in (repr(llm), str(shown), repr(llm.chat()), repr(llm.model()), repr(vars(llm))):
            assert KEY not in text
        with pytest.raises(ConfigurationError, match="hold a key"):
            pickle.dumps(llm)


def test_an_llm_goes_to_another_process_as_its_settings() -> None:
    llm = create_llm("echo", words_per_s=float("inf"), temperature=0.3, system_prompt="Be brief.")
    with llm, pickle.loads(pickle.dumps(llm)) as copy:
        assert copy.get_config() == llm.get_config()
        assert copy.generate("hello") == "hello"
        assert copy.provider is not llm.provider


def test_capabilities_are_told_by_the_enum(llm: LLM) -> None:
    before = llm.get_capabilities()
    assert before[ModelCapability.STREAMING] is True
    assert before[ModelCapability.FILL_IN_THE_MIDDLE] is False
    assert before[ModelCapability.VISION] is None  # nobody has said anything of the model
    run_sync(llm.provider.connect())
    able = llm.get_capabilities()
    assert able[ModelCapability.VISION] is able["vision"] is True
    assert able[ModelCapability.CONTEXT_WINDOW] == 8192


# ---- the end -------------------------------------------------------------------------------------


async def test_it_is_closed_by_either_way_and_more_than_once() -> None:
    llm = create_llm("echo")
    await llm.aclose()
    llm.close()
    assert llm.provider.status.status == "closed"
    with pytest.raises(ProviderConnectionError, match="closed"):
        await llm.generate_async("hello")


def test_a_provider_of_ones_own_needs_no_more_than_its_four_methods() -> None:
    from llm_manager import FinishDelta, TextDelta

    class Shout(BaseLLMProvider):
        kind = "shout"

        async def _open(self) -> None: ...
        async def _close(self) -> None: ...
        async def _list_models(self) -> list[Any]:
            return []

        async def _exchange(self, request):
            yield TextDelta(request.messages[-1].text.upper())
            yield FinishDelta("stop")

    with create_llm(Shout, model="any") as llm:
        assert llm.generate("hello") == "HELLO"
