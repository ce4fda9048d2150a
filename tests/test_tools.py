"""The tool loop: bounded, concurrent, and nothing a tool does breaks it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import subprocess
import sys
import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import msgspec
import pydantic
import pytest

from llm_manager import (
    EchoAnswer,
    ImagePart,
    InvalidParameterError,
    InvalidResponseError,
    LLMMessage,
    LLMProviderManager,
    LLMResponse,
    OllamaProvider,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    RequestTimeoutError,
    TextPart,
    Tool,
    ToolCall,
    ToolCallRequest,
    ToolDefinition,
    ToolRoundsExceededError,
    Usage,
    run_tools,
)
from llm_manager.testing import Reply, ScriptedPeer
from llm_manager.tools.records import Outcome
from llm_manager.tools.results import content_of
from llm_manager.tools.tool import MAX_ARGUMENTS_CHARACTERS, MAX_DEPTH

from .helpers import echo
from .test_docs_tables import column, quoted, table

ROOT = Path(__file__).parent.parent


class Unit(Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


@dataclass
class Place:
    town: str
    country: str = "NO"


class Inner(pydantic.BaseModel):
    number: int


async def weather(town: str, unit: Unit = Unit.CELSIUS) -> str:
    """The weather in a town."""
    return f"rain in {town}, {unit.value}"


def add(a: int, b: int) -> int:
    return a + b


def asks(*calls: tuple[str, Any], text: str | None = None) -> EchoAnswer:
    """An answer with calls: the name of a tool, and its arguments as a dictionary or as text."""
    return EchoAnswer(
        text=text,
        calls=tuple(
            ToolCall(
                id=f"c{index}",
                name=name,
                arguments_json=given
                if isinstance(given, str)
                else msgspec.json.encode(given).decode(),
            )
            for index, (name, given) in enumerate(calls)
        ),
    )


@pytest.fixture
async def provider():
    made = echo()
    yield made
    await made.close()


async def run(provider, *answers: EchoAnswer, tools: Any = (weather, add), **how: Any):
    provider.script(*answers)
    return await run_tools(provider, "echo", "How is the weather?", tools, **how)


async def only_call(provider, answer: EchoAnswer, **how: Any):
    """The record of the one call that ``answer`` asks for."""
    done = await run(provider, answer, EchoAnswer(text="done"), **how)
    assert done.text == "done"
    (record,) = done.calls
    return record


# ---- the loop ------------------------------------------------------------------------------------


async def test_the_model_is_told_the_results_until_it_answers(provider) -> None:
    done = await run(
        provider,
        asks(("weather", {"town": "Oslo"}), text="One moment."),
        asks(("add", {"a": 1, "b": 2})),
        EchoAnswer(text="It rains."),
    )
    assert (done.text, done.rounds) == ("It rains.", 3)
    assert [(m.role, m.text) for m in done.messages] == [
        ("user", "How is the weather?"),
        ("assistant", "One moment."),
        ("tool", "rain in Oslo, celsius"),
        ("assistant", ""),
        ("tool", "3"),
        ("assistant", "It rains."),
    ]
    assert [(c.call.name, c.outcome, c.round) for c in done.calls] == [
        ("weather", "ok", 1),
        ("add", "ok", 2),
    ]
    assert provider.requests[-1].messages == done.messages[:-1]
    assert {tool.name for tool in provider.requests[-1].options.tools} == {"weather", "add"}
    assert done.response.finish_reason == "stop"


async def test_an_answer_without_calls_ends_at_once(provider) -> None:
    done = await run(provider, EchoAnswer(text="Hello."))
    assert (done.rounds, done.calls, done.messages[-1].text) == (1, (), "Hello.")


async def test_usage_is_that_of_all_answers(provider) -> None:
    done = await run(provider, asks(("add", {"a": 1, "b": 2})), EchoAnswer(text="It is three."))
    assert done.usage.completion_tokens == 3
    assert done.usage.prompt_tokens > done.response.usage.prompt_tokens


async def test_calls_run_side_by_side_and_their_results_stay_in_order(provider) -> None:
    last_began = asyncio.Event()
    order: list[int] = []

    async def step(number: int) -> int:
        if number == 2:
            last_began.set()
        await last_began.wait()
        await asyncio.sleep(0.01 * (2 - number))
        order.append(number)
        return number

    done = await run(
        provider,
        asks(*(("step", {"number": n}) for n in range(3))),
        EchoAnswer(text="done"),
        tools=[step],
    )
    assert order == [2, 1, 0]
    assert [c.content for c in done.calls] == ["0", "1", "2"]
    assert [m.tool_call_id for m in done.messages if m.role == "tool"] == ["c0", "c1", "c2"]


async def test_no_more_calls_run_at_once_than_allowed(provider) -> None:
    running, most = 0, 0

    async def step(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    calls = asks(*(("step", {"number": n}) for n in range(6)))
    await run(provider, calls, EchoAnswer(text="done"), tools=[step], max_concurrency=2)
    assert most == 2


async def test_a_synchronous_tool_runs_in_a_thread_with_the_callers_context(provider) -> None:
    who = contextvars.ContextVar("who", default="nobody")
    who.set("me")
    loop_thread = threading.get_ident()
    loop_ran = threading.Event()
    loop = asyncio.get_running_loop()

    def look(what: str) -> str:
        assert threading.get_ident() != loop_thread
        loop.call_soon_threadsafe(loop_ran.set)
        assert loop_ran.wait(10), "the loop is blocked"
        return who.get()

    record = await only_call(provider, asks(("look", {"what": "x"})), tools=[look])
    assert record.content == "me"


async def test_a_function_that_returns_a_coroutine_is_awaited(provider) -> None:
    def later(town: str):
        return weather(town)

    record = await only_call(provider, asks(("later", {"town": "Oslo"})), tools=[later])
    assert record.content == "rain in Oslo, celsius"


async def test_a_model_that_asks_for_ever_is_stopped_with_what_there_is(provider) -> None:
    again = asks(("add", {"a": 1, "b": 1}))
    with pytest.raises(ToolRoundsExceededError, match="still asks for add") as raised:
        await run(provider, again, again, again, max_rounds=3)
    so_far = raised.value.tool_run
    assert (so_far.rounds, len(so_far.calls)) == (3, 2)
    assert so_far.response.tool_calls

    provider.script(EchoAnswer(text="At last."))
    done = await run_tools(provider, "echo", so_far.messages, [add])
    assert done.text == "At last."


async def test_a_request_that_fails_leaves_a_conversation_that_can_go_on(provider) -> None:
    with pytest.raises(ProviderConnectionError) as raised:
        await run(
            provider,
            asks(("add", {"a": 1, "b": 1})),
            EchoAnswer(error=ProviderConnectionError("gone", retryable=False)),
        )
    so_far = raised.value.tool_run
    assert [m.role for m in so_far.messages] == ["user", "assistant", "tool"]
    assert so_far.calls[0].content == "2"


async def test_a_choice_that_forces_a_call_holds_for_the_first_answer_only(provider) -> None:
    await run(
        provider,
        asks(("add", {"a": 1, "b": 1})),
        EchoAnswer(text="done"),
        options={"tool_choice": "required", "temperature": 0.5},
    )
    first, second = (r.options for r in provider.requests)
    assert (first.tool_choice, second.tool_choice) == ("required", "auto")
    assert second.temperature == 0.5


async def test_a_callback_sees_the_events_of_every_answer(provider) -> None:
    kinds: list[str] = []
    await run(
        provider,
        asks(("add", {"a": 1, "b": 1})),
        EchoAnswer(text="done"),
        callback=lambda event: kinds.append(event.kind),
    )
    assert kinds == ["tool_call", "usage", "done", "text", "usage", "done"]


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_each_call_is_told_of_when_it_has_ended(provider, asynchronous) -> None:
    told: list[Any] = []

    async def later(record) -> None:
        told.append(record)

    done = await run(
        provider,
        asks(("add", {"a": 1, "b": 1}), ("nothing", {})),
        EchoAnswer(text="done"),
        on_call=later if asynchronous else told.append,
    )
    assert sorted(told, key=lambda record: record.call.id) == list(done.calls)


async def test_what_a_listener_raises_reaches_the_caller_and_ends_the_other_calls(
    provider,
) -> None:
    ended = asyncio.Event()

    async def wait(how: str) -> None:
        try:
            if how == "long":
                await asyncio.Event().wait()
        finally:
            ended.set()

    def broken(record) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run(
            provider,
            asks(("wait", {"how": "long"}), ("wait", {"how": "short"})),
            tools=[wait],
            on_call=broken,
        )
    assert ended.is_set()


async def test_cancelling_the_run_cancels_the_calls(provider) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def wait(x: int) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(run(provider, asks(("wait", {"x": 1})), tools=[wait]))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()


async def test_a_manager_keeps_the_provider_that_it_began_with() -> None:
    async with LLMProviderManager() as manager:
        first = manager.register_provider(echo(id="first"))
        manager.register_provider(echo(id="second"))
        manager.set_active_provider("first")

        def switch(x: int) -> str:
            """Switch to the other provider."""
            manager.set_active_provider("second")
            return "switched"

        first.script(asks(("switch", {"x": 1})), EchoAnswer(text="still me"))
        done = await run_tools(manager, None, "hi", [switch])
        assert (done.text, done.response.provider_id) == ("still me", "first")

        first.script(EchoAnswer(text="named"))
        assert (await run_tools(manager, "first/echo", "hi", [add])).text == "named"


# ---- calls that go wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("weather", {"town": 5}, "arguments.town: expected string, got 5"),
        ("weather", {}, "arguments: object missing required field town"),
        ("weather", {"town": "Oslo", "unit": "k"}, "arguments.unit: invalid enum value 'k'"),
        ("weather", {"town": "Oslo", "when": 1}, "unknown field when"),
        ("weather", '{"town": "Os', "arguments: not JSON"),
        ("weather", "[1]", "arguments: expected object, got [1]"),
        ("visit", {"place": {"town": 1}}, "arguments.place.town: expected string, got 1"),
        ("visit", {"place": {"town": "x"}, "inner": {"number": "x"}}, "arguments.inner.number: "),
        ("plain", {"n": "x"}, 'arguments.n: expected integer, got "x"'),
        ("plain", {}, "arguments: 'n' missing"),
    ],
)
async def test_arguments_that_do_not_fit_are_told_to_the_model(
    provider, name, arguments, told
) -> None:
    def visit(place: Place, inner: Inner | None = None) -> str:
        return place.town

    plain = Tool(
        lambda n: n,
        {"name": "plain", "input_schema": {
            "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
        }},
    )  # fmt: skip
    record = await only_call(provider, asks((name, arguments)), tools=[weather, visit, plain])
    assert record.outcome == "invalid_arguments"
    assert told in record.content
    assert record.content.startswith("Error: ")
    assert provider.requests[-1].messages[-1].text == record.content


async def test_a_model_can_mend_its_arguments(provider) -> None:
    done = await run(
        provider,
        asks(("add", {"a": "1", "b": 2})),
        asks(("add", {"a": 1, "b": 2})),
        EchoAnswer(text="three"),
    )
    assert [c.outcome for c in done.calls] == ["invalid_arguments", "ok"]


async def test_no_arguments_are_arguments(provider) -> None:
    def now() -> str:
        """The time."""
        return "noon"

    done = await run(
        provider, asks(("now", ""), ("now", "{}")), EchoAnswer(text="done"), tools=[now]
    )
    assert [c.content for c in done.calls] == ["noon", "noon"]


async def test_a_null_in_place_of_an_optional_argument_counts_as_left_out(provider) -> None:
    record = await only_call(provider, asks(("weather", {"town": "Oslo", "unit": None})))
    assert record.content == "rain in Oslo, celsius"


def keep(data: Any) -> str:
    return "kept"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"data": "' + "x" * MAX_ARGUMENTS_CHARACTERS + '"}', "characters, more than"),
        ('{"data": ' + "[" * 100_000 + "]" * 100_000 + "}", "not JSON"),
        ('{"data": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", "nested deeper than"),
    ],
)
async def test_arguments_without_measure_are_refused(provider, arguments, told) -> None:
    record = await only_call(provider, asks(("keep", arguments)), tools=[keep])
    assert record.outcome == "invalid_arguments"
    assert told in record.content
    assert len(record.content) < 500


@pytest.mark.parametrize(
    "arguments",
    [
        '{"data": ' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}",
        '{"data": "' + "[" * 500 + '"}',
        '{"data": [' + "[]," * 500 + "1]}",
        '{"data": "' + "x" * 100_000 + '"}',
    ],
)
async def test_large_arguments_within_measure_are_taken(provider, arguments) -> None:
    record = await only_call(provider, asks(("keep", arguments)), tools=[keep])
    assert record.content == "kept"


async def test_a_tool_that_does_not_exist_is_told_with_those_that_do(provider) -> None:
    record = await only_call(provider, asks(("wether", {})))
    assert record.outcome == "unknown_tool"
    assert "there is no tool 'wether'; the tools are: weather, add" in record.content


async def test_what_a_tool_raises_is_told_without_secrets(provider) -> None:
    async def broken(x: int) -> None:
        raise ValueError("no access with key sk-0123456789abcdef")

    record = await only_call(provider, asks(("broken", {"x": 1})), tools=[broken])
    assert record.outcome == "error"
    assert record.error == "ValueError: no access with key ***"
    assert record.content == f"Error: {record.error}"


def leave(x: int) -> None:
    sys.exit("bye")


async def leave_async(x: int) -> None:
    sys.exit("bye")


def stop(x: int) -> None:
    raise StopIteration


async def cancel_itself(x: int) -> None:
    raise asyncio.CancelledError


async def time_out(x: int) -> None:
    raise TimeoutError("the database")


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (leave, "SystemExit: bye"),
        (leave_async, "SystemExit: bye"),
        (stop, "StopIteration: "),
        (cancel_itself, "RequestCancelledError: the function was cancelled by itself"),
        (time_out, "TimeoutError: the database"),
    ],
)
async def test_nothing_that_a_tool_raises_breaks_the_loop(provider, function, error) -> None:
    record = await only_call(provider, asks((function.__name__, {"x": 1})), tools=[function])
    assert (record.outcome, record.error) == ("error", error)


async def test_a_call_that_takes_too_long_is_cancelled_and_told(provider) -> None:
    ended = asyncio.Event()

    async def wait(x: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    record = await only_call(provider, asks(("wait", {"x": 1})), tools=[wait], call_timeout_s=0.02)
    assert (record.outcome, ended.is_set()) == ("timeout", True)
    assert "longer than 0.02 s" in record.content
    assert record.duration_s >= 0.02


async def test_a_synchronous_tool_that_hangs_is_left_behind(provider) -> None:
    released = threading.Event()

    def hang(x: int) -> None:
        released.wait(30)

    record = await only_call(provider, asks(("hang", {"x": 1})), tools=[hang], call_timeout_s=0.02)
    released.set()
    assert record.outcome == "timeout"


def test_a_tool_that_hangs_does_not_keep_the_interpreter_from_ending() -> None:
    code = (
        "import asyncio, time\n"
        "from llm_manager import EchoAnswer, EchoProvider, run_tools\n"
        "def hang(x: int): time.sleep(600)\n"
        "async def main():\n"
        "    async with EchoProvider() as provider:\n"
        "        provider.script(EchoAnswer(tool='hang', arguments={'x': 1}), EchoAnswer())\n"
        "        done = await run_tools(provider, 'echo', 'x', [hang], call_timeout_s=0.02)\n"
        "        print(done.calls[0].outcome)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30,
        check=True, cwd=ROOT,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("timeout\n", "")


async def test_with_raise_errors_the_caller_gets_what_the_tool_raised(provider) -> None:
    async def broken(x: int) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await run(provider, asks(("broken", {"x": 1})), tools=[broken], raise_errors=True)


@pytest.mark.parametrize(
    ("call", "code"),
    [(("nothing", {}), "unknown_tool"), (("add", {"a": "x"}), "invalid_arguments")],
)
async def test_with_raise_errors_a_call_that_cannot_be_run_is_an_error(
    provider, call, code
) -> None:
    with pytest.raises(InvalidResponseError) as raised:
        await run(provider, asks(call), raise_errors=True)
    assert raised.value.code == code
    assert raised.value.tool_run.rounds == 1


async def test_with_raise_errors_a_call_that_takes_too_long_is_an_error(provider) -> None:
    async def wait(x: int) -> None:
        await asyncio.Event().wait()

    with pytest.raises(RequestTimeoutError) as raised:
        await run(
            provider,
            asks(("wait", {"x": 1})),
            tools=[wait],
            call_timeout_s=0.02,
            raise_errors=True,
        )
    assert (raised.value.code, raised.value.retryable) == ("tool_timeout", False)


# ---- approval ------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_call_that_is_not_allowed_is_not_run_and_told(provider, asynchronous) -> None:
    ran: list[str] = []

    def delete(path: str) -> str:
        ran.append(path)
        return "deleted"

    def approve(call: ToolCall) -> bool:
        return call.arguments["path"] != "/"

    async def approve_later(call: ToolCall) -> bool:
        return approve(call)

    done = await run(
        provider,
        asks(("delete", {"path": "/"}), ("delete", {"path": "/tmp/x"})),
        EchoAnswer(text="done"),
        tools=[delete],
        approve=approve_later if asynchronous else approve,
    )
    assert ran == ["/tmp/x"]
    assert [c.outcome for c in done.calls] == ["denied", "ok"]
    assert done.calls[0].content == "Error: the user did not allow this call"


async def test_nobody_is_asked_about_a_call_that_cannot_be_run(provider) -> None:
    def approve(call: ToolCall) -> bool:
        raise AssertionError("asked")

    done = await run(
        provider,
        asks(("nothing", {}), ("add", {"a": "x"})),
        EchoAnswer(text="done"),
        approve=approve,
    )
    assert {c.outcome for c in done.calls} == {"unknown_tool", "invalid_arguments"}


async def test_people_are_asked_about_one_call_at_a_time_before_any_runs(provider) -> None:
    happened: list[str] = []

    async def approve(call: ToolCall) -> bool:
        happened.append(f"ask {call.id}")
        await asyncio.sleep(0)
        happened.append(f"answer {call.id}")
        return True

    async def act(x: int) -> None:
        happened.append("run")

    await run(
        provider,
        asks(("act", {"x": 1}), ("act", {"x": 2})),
        EchoAnswer(text="done"),
        tools=[act],
        approve=approve,
    )
    assert happened == ["ask c0", "answer c0", "ask c1", "answer c1", "run", "run"]


# ---- results -------------------------------------------------------------------------------------


class Shot:
    """Something that knows how to be put into a message."""

    def to_part(self) -> ImagePart:
        return IMAGE


IMAGE = ImagePart(data=b"png", media_type="image/png")


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("text", "text"),
        (None, "null"),
        (5, "5"),
        ({"a": [1, 2]}, '{"a":[1,2]}'),
        (Place("Oslo"), '{"town":"Oslo","country":"NO"}'),
        (Usage(prompt_tokens=1), '{"promptTokens":1}'),
        (Inner(number=1), '{"number":1}'),
        ([Inner(number=1)], '[{"number":1}]'),
        (Unit.KELVIN, '"kelvin"'),
        (IMAGE, (IMAGE,)),
        (Shot(), (IMAGE,)),
        (["see:", Shot(), 5], (TextPart(text="see:"), IMAGE, TextPart(text="5"))),
    ],
)
def test_a_result_becomes_what_a_model_can_read(value, content) -> None:
    assert content_of(value) == content


async def test_an_image_as_result_is_sent_as_an_image(provider) -> None:
    def look() -> list[Any]:
        return ["the screen:", Shot()]

    record = await only_call(provider, asks(("look", {})), tools=[look])
    assert provider.requests[-1].messages[-1].content == (TextPart(text="the screen:"), IMAGE)
    assert record.outcome == "ok"


@pytest.mark.parametrize("value", [object(), b"bytes", {1, object()}, {"x": object()}])
async def test_a_result_that_cannot_be_told_is_an_error_for_the_model(provider, value) -> None:
    def strange() -> Any:
        return value

    record = await only_call(provider, asks(("strange", {})), tools=[strange])
    assert record.outcome == "error"
    assert "TypeError" in record.content


async def test_a_result_that_contains_itself_is_an_error_for_the_model(provider) -> None:
    def strange() -> Any:
        ring: list[Any] = []
        ring.append(ring)
        return ring

    record = await only_call(provider, asks(("strange", {})), tools=[strange])
    assert record.outcome == "error"


# ---- what is checked before anything is sent -----------------------------------------------------


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"max_rounds": 0}, "max_rounds must be"),
        ({"max_concurrency": 0}, "max_concurrency must be"),
        ({"call_timeout_s": 0}, "call_timeout_s must be above 0"),
        ({"tools": [add, add]}, "two tools are called 'add'"),
        ({"tools": ["add"]}, "has to be a function"),
        ({"options": {"tools": [ToolDefinition(name="x")]}}, "no functions to call"),
        ({"tools": [Tool(add, {"name": "x", "parameters": {"type": 5}})]}, "no JSON Schema"),
    ],
)
async def test_a_mistake_is_found_before_anything_is_sent(provider, how, text) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        await run(provider, **how)
    assert not provider.requests


async def test_only_providers_and_managers_can_be_asked() -> None:
    with pytest.raises(InvalidParameterError, match="a provider or a manager"):
        await run_tools("echo", "echo", "x", [add])


def test_a_tool_takes_a_definition_or_a_name() -> None:
    assert Tool(add, name="plus").name == "plus"
    with pytest.raises(InvalidParameterError, match="either a definition, or"):
        Tool(add, ToolDefinition(name="x"), name="y")


def test_what_a_model_asks_for_can_be_read_from_its_answer() -> None:
    call = ToolCall(id="1", name="add")
    response = LLMResponse(text="One moment.", tool_calls=(call,))
    assert ToolCallRequest.from_response(response) == ToolCallRequest(
        content="One moment.", tool_calls=(call,)
    )
    assert ToolCallRequest.from_response(LLMResponse(text="Hi.")) is None


WITHOUT_JSONSCHEMA = """
import sys; sys.modules["jsonschema"] = None
import asyncio
from llm_manager import DependencyMissingError, EchoAnswer, EchoProvider, Tool, run_tools

def add(a: int, b: int): return a + b

async def main():
    async with EchoProvider() as provider:
        provider.script(EchoAnswer(tool="add", arguments={"a": "1"}), EchoAnswer(text="done"))
        done = await run_tools(provider, "echo", "x", [add])
        print(done.calls[0].error)
        try:
            await run_tools(provider, "echo", "x", [Tool(add, {"name": "add", "parameters": {}})])
        except DependencyMissingError as error:
            print(error)

asyncio.run(main())
"""


def test_without_jsonschema_functions_are_checked_and_definitions_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JSONSCHEMA],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    checked, refused = done.stdout.splitlines()
    assert checked.startswith('arguments.a: expected integer, got "1"')
    assert "pip install '.[tools]'" in refused


# ---- on a wire -----------------------------------------------------------------------------------


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "1", "model": "m", "choices": [choice]}


def _call(index: int, id: str, arguments: str, name: str = "") -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"index": index, **({"id": id} if id else {}), "function": function}


async def test_parallel_calls_streamed_in_pieces_are_run_over_a_real_connection() -> None:
    asking = [
        _chunk({"tool_calls": [_call(0, "a", "", "add")]}),
        _chunk({"tool_calls": [_call(0, "", '{"a": 1,')]}),
        _chunk({"tool_calls": [_call(1, "b", '{"town": "Oslo"}', "weather")]}),
        _chunk({"tool_calls": [_call(0, "", ' "b": 2}')]}),
        _chunk({}, "tool_calls"),
    ]
    answering = [_chunk({"content": "Three, and rain."}), _chunk({}, "stop")]
    async with ScriptedPeer() as peer:
        peer.script(Reply.sse([*asking, "[DONE]"]), Reply.sse([*answering, "[DONE]"]))
        provider = OpenAICompatibleProvider(base_url=peer.base_url)
        done = await run_tools(provider, "m", [LLMMessage.user("x")], [add, weather])
        await provider.close()
        sent = [msgspec.json.decode(r.body) for r in peer.requests if r.method == "POST"]
    assert done.text == "Three, and rain."
    assert [c.content for c in done.calls] == ["3", "rain in Oslo, celsius"]
    assert [tool["function"]["name"] for tool in sent[0]["tools"]] == ["add", "weather"]
    assert [(m["role"], m.get("tool_call_id")) for m in sent[1]["messages"]] == [
        ("user", None), ("assistant", None), ("tool", "a"), ("tool", "b"),
    ]  # fmt: skip


async def test_reasoning_goes_back_with_the_calls() -> None:
    asking = {
        "model": "m",
        "message": {
            "thinking": "I should add.",
            "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}],
        },
        "done": True,
        "done_reason": "stop",
    }
    answering = {"model": "m", "message": {"content": "Three."}, "done": True}
    async with ScriptedPeer() as peer:
        peer.script(Reply.ndjson([asking]), Reply.ndjson([answering]))
        provider = OllamaProvider(base_url=peer.base_url)
        done = await run_tools(provider, "m", "x", [add])
        await provider.close()
        sent = [msgspec.json.decode(r.body) for r in peer.requests if r.path == "/api/chat"]
    assert done.text == "Three."
    assert sent[1]["messages"][1]["thinking"] == "I should add."
    assert sent[1]["messages"][2]["content"] == "3"


# ---- the documentation ---------------------------------------------------------------------------


def test_the_table_of_settings_has_each_with_its_default() -> None:
    rows = table("tools.md", "setting", "default", "meaning")
    written = {quoted(row["setting"])[0]: row["default"] for row in rows}
    parameters = inspect.signature(run_tools).parameters.values()
    settings = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert list(written) == [p.name for p in settings]
    for each in settings:
        shown = "none" if each.default is None else f"{each.default:g}"
        assert written[each.name] in (shown, str(each.default)), each.name


def test_the_table_of_outcomes_has_each() -> None:
    rows = table("tools.md", "outcome", "what happened")
    assert column(rows, "outcome") == list(get_args(Outcome))


def test_the_limits_of_arguments_are_those_of_the_page() -> None:
    text = (ROOT / "docs" / "tools.md").read_text()
    assert f"{MAX_ARGUMENTS_CHARACTERS:,} characters, or nested deeper than {MAX_DEPTH}" in text
