"""Answers by a schema: held back, checked and mended where the service knows no schemas."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from llm_manager import (
    EchoAnswer,
    EchoProvider,
    InvalidParameterError,
    InvalidResponseError,
    LLMMessage,
    LLMRequest,
    LLMRequestOptions,
    ProviderOverloadedError,
    ReasoningDelta,
    StreamInterruptedError,
    StructuredOutput,
    TextDelta,
    ToolCallDelta,
    ToolDefinition,
    Usage,
    UsageDelta,
)
from llm_manager.messages import (
    Delta,
    FinishDelta,
    MetaDelta,
    OpaquePart,
    PartDelta,
    RawDelta,
    TextPart,
)
from llm_manager.policy import Exchange
from llm_manager.schemas import schema_of

from .helpers import Record, echo

ROOT = Path(__file__).parent.parent


@dataclass
class City:
    name: str
    population: int = 0


GOOD = '{"name": "Oslo", "population": 700000}'
BAD = '{"name": 5}'


def emulating(**settings: object) -> EchoProvider:
    """An echo provider, which knows no schemas."""
    return echo(default_options={"retries": {"wait_s": 0}}, **settings)


class Script:
    """An exchange that plays one list of deltas for each request."""

    def __init__(self, *rounds: list[Delta | Exception]) -> None:
        self.rounds = list(rounds)
        self.requests: list[LLMRequest] = []
        self.open = 0

    async def __call__(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        self.open += 1
        try:
            for step in self.rounds[len(self.requests) - 1]:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.open -= 1


def structured(exchange: Exchange, *, native: bool = False, json_object: bool = False) -> Exchange:
    stage = StructuredOutput(lambda _: native, lambda _: json_object)
    return stage.wrap(exchange, lambda event: None)


def request(*messages: LLMMessage, **options: object) -> LLMRequest:
    options.setdefault("response_format", City)
    return LLMRequest(
        id="r",
        model="m",
        messages=messages or (LLMMessage.user("Which city?"),),
        options=LLMRequestOptions(**options),
    )


def answer(text: str, reason: str = "stop", usage: Usage | None = None) -> list[Delta]:
    pieces: list[Delta] = [TextDelta(piece) for piece in (text[:3], text[3:]) if piece]
    return [*pieces, FinishDelta(reason), *([UsageDelta(usage)] if usage else [])]


async def deltas_of(exchange: Exchange, asked: LLMRequest) -> list[Delta]:
    return [delta async for delta in exchange(asked)]


# ---- a service without schemas -------------------------------------------------------------------


async def test_the_schema_is_put_into_words_and_the_answer_comes_in_one_piece() -> None:
    provider = emulating()
    provider.script(EchoAnswer(text=GOOD))
    texts = []
    async for event in provider.stream_completion(
        "echo", "Which city?", "Be brief.", {"response_format": City}
    ):
        texts += [event.text] if event.kind == "text" else []
    (sent,) = provider.requests
    assert texts == [GOOD]
    assert sent.messages[0].role == "system"
    assert sent.messages[0].text.startswith("Be brief.\n\n")
    assert msgspec.json.encode(schema_of(City)).decode() in sent.messages[0].text
    assert len(sent.messages) == 2
    assert sent.options.response_format == "json_object"
    await provider.close()


async def test_an_answer_that_does_not_fit_is_mended_once_and_the_reader_never_sees_it() -> None:
    provider = emulating()
    events = Record(provider)
    provider.script(EchoAnswer(text=BAD), EchoAnswer(text=GOOD))
    response = await provider.generate_completion(
        "echo", "Which city?", options={"response_format": City}
    )
    first, second = provider.requests
    assert response.text == GOOD
    assert response.parse(City) == City("Oslo", 700_000)
    assert response.finish_reason == "stop"
    said, correction = second.messages[len(first.messages) :]
    assert (said.role, said.text) == ("assistant", BAD)
    assert "$.name: expected string, got 5" in correction.text
    await provider.flush()
    assert events.outcomes == ["ok"]
    await provider.close()


async def test_the_tokens_of_both_rounds_are_counted() -> None:
    script = Script(
        answer(BAD, usage=Usage(prompt_tokens=10, completion_tokens=3)),
        answer(GOOD, usage=Usage(prompt_tokens=20, completion_tokens=4)),
    )
    deltas = await deltas_of(structured(script), request())
    counted = [delta.usage for delta in deltas if isinstance(delta, UsageDelta)]
    assert counted[-1] == Usage(prompt_tokens=30, completion_tokens=7)


async def test_a_second_misfit_is_an_error_with_the_answer_in_it() -> None:
    provider = emulating()
    provider.script(EchoAnswer(text="no"), EchoAnswer(text=BAD))
    with pytest.raises(InvalidResponseError, match=r"\$\.name: expected string") as raised:
        await provider.generate_completion("echo", "x", options={"response_format": City})
    error = raised.value
    assert (error.code, error.retryable, error.provider_id) == ("schema_mismatch", False, "echo")
    assert (error.partial.text, error.partial.finish_reason) == (BAD, "stop")
    assert error.partial.usage.completion_tokens == 3
    assert len(provider.requests) == 2
    await provider.close()


async def test_misfits_say_nothing_about_the_connection() -> None:
    provider = emulating()
    await provider.connect()
    for _ in range(5):
        provider.script(EchoAnswer(text="no"), EchoAnswer(text="no"))
        with pytest.raises(InvalidResponseError):
            await provider.generate_completion("echo", "x", options={"response_format": City})
    assert provider.status.status == "connected"
    await provider.close()


@pytest.mark.parametrize(
    "text", [f"```json\n{GOOD}\n```", f"Here you are:\n{GOOD}\nAnything else?"]
)
async def test_what_models_put_around_json_is_taken_off(text) -> None:
    deltas = await deltas_of(structured(Script(answer(text))), request())
    assert [d.text for d in deltas if isinstance(d, TextDelta)] == [GOOD]


@pytest.mark.parametrize(("json_object", "wanted"), [(True, "json_object"), (False, None)])
async def test_json_mode_is_used_where_there_is_one(json_object, wanted) -> None:
    script = Script(answer(GOOD))
    await deltas_of(structured(script, json_object=json_object), request())
    assert script.requests[0].options.response_format == wanted
    assert "JSON" in script.requests[0].messages[0].text


async def test_a_system_message_of_parts_keeps_its_parts_and_its_cache() -> None:
    system = LLMMessage(role="system", content=(TextPart(text="Be brief."),), cache="5m")
    script = Script(answer(GOOD))
    await deltas_of(structured(script), request(system, LLMMessage.user("x")))
    sent = script.requests[0].messages
    assert len(sent) == 2
    assert (sent[0].content[0], sent[0].cache) == (TextPart(text="Be brief."), "5m")


async def test_reasoning_raw_documents_and_facts_are_not_held_back() -> None:
    seen: list[Delta] = []
    first_round = [MetaDelta("m", "1"), ReasoningDelta("hm"), RawDelta({}), *answer(BAD)]
    async for delta in structured(Script(first_round, answer(GOOD)))(request()):
        seen.append(delta)
    assert seen[:3] == first_round[:3]
    assert seen[3:] == [TextDelta(GOOD), FinishDelta("stop")]


async def test_parts_of_an_answer_that_was_mended_stay_out_of_the_history() -> None:
    old, new = (OpaquePart(origin="o", kind="k", data={"n": n}) for n in (1, 2))
    script = Script(
        [ReasoningDelta("hm"), PartDelta(old), *answer(BAD)], [PartDelta(new), *answer(GOOD)]
    )
    deltas = await deltas_of(structured(script), request())
    assert [d.part for d in deltas if isinstance(d, PartDelta)] == [new]
    said = script.requests[1].messages[-2]
    assert said.content == (old, TextPart(text=BAD))
    assert said.reasoning == "hm"


async def test_an_empty_answer_is_asked_for_again_without_an_empty_message() -> None:
    script = Script(answer(""), answer(GOOD))
    await deltas_of(structured(script), request())
    assert all(message.content for message in script.requests[1].messages)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_answer_that_says_it_is_not_whole_is_delivered_unchecked(reason, native) -> None:
    script = Script(answer('{"name": "Os', reason))
    deltas = await deltas_of(structured(script, native=native), request())
    assert "".join(d.text for d in deltas if isinstance(d, TextDelta)) == '{"name": "Os'
    assert deltas[-1] == FinishDelta(reason)
    assert len(script.requests) == 1


@pytest.mark.parametrize("native", [True, False])
async def test_calls_of_tools_are_delivered_unchecked(native) -> None:
    call = ToolCallDelta(0, "1", "look", "{}")
    script = Script([TextDelta("One moment."), call, FinishDelta("stop")])
    asked = request(tools=[ToolDefinition(name="look")])
    assert call in await deltas_of(structured(script, native=native), asked)
    assert len(script.requests) == 1


async def test_a_null_in_place_of_an_optional_value_fits() -> None:
    text = '{"name": "Oslo", "population": null}'
    script = Script(answer(text))
    await deltas_of(structured(script), request())
    assert len(script.requests) == 1


async def test_each_round_has_its_own_retries() -> None:
    provider = emulating()
    provider.script(
        EchoAnswer(error=ProviderOverloadedError("busy")),
        EchoAnswer(text=BAD),
        EchoAnswer(error=ProviderOverloadedError("busy")),
        EchoAnswer(text=GOOD),
    )
    response = await provider.generate_completion("echo", "x", options={"response_format": City})
    assert response.text == GOOD
    assert response.timings.attempts == 4
    await provider.close()


async def test_an_answer_that_breaks_off_is_not_delivered_and_not_mended() -> None:
    script = Script([TextDelta('{"name"'), StreamInterruptedError("gone")])
    with pytest.raises(StreamInterruptedError):
        await deltas_of(structured(script), request())
    assert len(script.requests) == 1


async def test_cancelling_while_the_text_is_held_back_ends_the_request() -> None:
    provider = emulating()
    provider.script(EchoAnswer(text=GOOD, hang_after_words=1))
    stream = provider.stream_completion("echo", "x", options={"response_format": City})
    reading = asyncio.ensure_future(stream._run())
    while not provider.requests:
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert provider.status.in_flight == 0
    await provider.close()


async def test_leaving_early_closes_the_exchange_below() -> None:
    script = Script([ReasoningDelta("hm"), *answer(GOOD)])
    stream = structured(script)(request())
    await anext(stream)
    await stream.aclose()
    assert script.open == 0


async def test_a_long_answer_is_checked_as_well() -> None:
    many = [{"name": str(i)} for i in range(3_000)]
    schema = {"type": "array", "items": schema_of(City)}
    script = Script(answer(msgspec.json.encode([*many, {"name": 1}]).decode()), answer("[]"))
    await deltas_of(structured(script), request(response_format=schema))
    assert "$[3000].name" in script.requests[1].messages[-1].text


async def test_json_nested_without_end_is_a_misfit() -> None:
    script = Script(answer("[" * 100_000), answer(GOOD))
    deltas = await deltas_of(structured(script), request())
    assert TextDelta(GOOD) in deltas


# ---- a service with schemas ----------------------------------------------------------------------


async def test_the_answer_of_a_service_with_schemas_streams_through_untouched() -> None:
    script = Script(answer(GOOD))
    asked = request()
    assert await deltas_of(structured(script, native=True), asked) == script.rounds[0]
    assert script.requests == [asked]


async def test_its_answer_is_checked_at_the_end_and_not_mended() -> None:
    script = Script(answer(BAD))
    seen: list[Delta] = []
    with pytest.raises(InvalidResponseError, match="expected string") as raised:
        async for delta in structured(script, native=True)(request()):
            seen.append(delta)
    assert seen == script.rounds[0]
    assert raised.value.code == "schema_mismatch"
    assert len(script.requests) == 1


async def test_what_response_parse_can_read_is_no_mismatch() -> None:
    script = Script(answer(f"```json\n{GOOD}\n```"))
    await deltas_of(structured(script, native=True), request())


# ---- all services --------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [None, "text", "json_object"])
async def test_a_request_without_a_schema_is_passed_on_as_it_is(wanted) -> None:
    given = Script(answer("hi"))
    stream = structured(given)(request(response_format=wanted))
    assert stream.ag_code is given.__call__.__code__, "not even a generator stands in between"
    await stream.aclose()


@pytest.mark.parametrize("native", [True, False])
async def test_what_is_no_schema_is_refused_before_anything_is_sent(native) -> None:
    script = Script(answer(GOOD))
    with pytest.raises(InvalidParameterError, match="no JSON Schema"):
        await deltas_of(structured(script, native=native), request(response_format={"type": 5}))
    assert script.requests == []


WITHOUT_JSONSCHEMA = """
import sys; sys.modules["jsonschema"] = None
import asyncio
from llm_manager import UnsupportedFeatureError
from tests.test_structured_output import *

async def main():
    script = Script(answer(GOOD), answer("no JSON"))
    try:
        await deltas_of(structured(script), request())
    except UnsupportedFeatureError as error:
        print(len(script.requests), error)
    await deltas_of(structured(script, native=True), request())
    try:
        await deltas_of(structured(script, native=True), request())
    except InvalidResponseError as error:
        print(len(script.requests), error)

asyncio.run(main())
"""


def test_without_jsonschema_only_services_with_schemas_can_be_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JSONSCHEMA],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    refused, checked = done.stdout.splitlines()
    assert refused.startswith("0 this service takes no JSON Schema")
    assert "pip install '.[tools]'" in refused
    assert checked.startswith("2 the answer does not follow the JSON Schema: no JSON")
