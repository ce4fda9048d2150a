"""Checks of features: what is claimed works on the wire, what is not claimed is refused unsent."""

from __future__ import annotations

import base64
import importlib.util
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ...errors import UnsupportedFeatureError
from ...messages import (
    Capability,
    FilePart,
    ImagePart,
    LLMMessage,
    LLMResponse,
    ToolCall,
    ToolDefinition,
)
from ...policy.deadline import DeadlinePolicy
from ...policy.retry import RetryPolicy
from ...provider import BaseLLMProvider
from .asking import AskingChecks
from .deltas import DeltaWatch, expect_sensible
from .expect import expect, raises
from .stage import Stage, check
from .wire import Wanted, says

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4 planted"
TOOL = ToolDefinition(
    name="look_up_marker",
    description="Marker-description",
    parameters={
        "type": "object",
        "properties": {"marker_place": {"type": "string", "description": "Marker-argument"}},
        "required": ["marker_place"],
    },
)
CALL = ToolCall(
    id="call_marker_1", name=TOOL.name, arguments_json='{"marker_place":"Köln \\"Süd\\""}'
)
SECOND_CALL = ToolCall(id="call_marker_2", name=TOOL.name, arguments_json='{"marker_place":"Bonn"}')


@dataclass(frozen=True)
class MarkerAnswer:
    """What answers shall look like in the checks of structured output."""

    marker_field: int


class FeatureChecks(AskingChecks):
    """What a provider claims to be able to do, and what it does not claim."""

    @check
    async def test_capabilities_say_what_the_class_says(self, stage: Stage) -> None:
        provider = stage.make()
        told = provider.get_capabilities()
        for name in ("chat", "tools", "vision", "files", "json_object", "fim", "embeddings"):
            claimed = name in provider.capabilities
            expect(
                told.supports(name) == claimed,
                f"get_capabilities() says {told.supports(name)} about {name}, the class {claimed}",
            )
        expect("chat" in provider.capabilities, "a provider that cannot chat is none")

    # ---- tools -----------------------------------------------------------------------------------

    @check
    async def test_tools_are_offered_and_called(self, stage: Stage) -> None:
        watch = DeltaWatch()
        provider = stage.make(policies=[DeadlinePolicy(), RetryPolicy(), watch])
        if await self._is_refused(stage, provider, "tools", {"tools": [TOOL]}):
            return
        stage.plays(provider, Wanted(text=(), tool_calls=(CALL,), finish="tool_calls"))
        response = await self._ask(provider, {"tools": [TOOL]})
        sent = self.sent(stage.server.questions[0])
        for marker in (TOOL.name, TOOL.description, "marker_place", "Marker-argument"):
            expect(says(sent, marker), f"{marker!r} of the tool's definition is not sent")
        self._expect_calls(response, CALL)
        expect_sensible(watch.deltas)
        stage.plays(provider, Wanted(tool_calls=(CALL, SECOND_CALL), finish="tool_calls"))
        response = await self._ask(provider, {"tools": [TOOL]})
        self._expect_calls(response, CALL, SECOND_CALL)
        expect_sensible(watch.deltas)

    def _expect_calls(self, response: LLMResponse, *wanted: ToolCall) -> None:
        got = [(call.name, call.arguments) for call in response.tool_calls]
        expect(
            got == [(call.name, call.arguments) for call in wanted],
            f"the model calls {[(c.name, c.arguments) for c in wanted]}, the response says {got}",
        )
        ids = [call.id for call in response.tool_calls]
        expect(all(ids) and len(set(ids)) == len(ids), f"the calls need ids of their own: {ids}")
        expect(
            response.finish_reason == "tool_calls",
            f"with calls, finish_reason is {response.finish_reason!r} instead of 'tool_calls'",
        )

    @check
    async def test_results_of_tools_are_sent_back(self, stage: Stage) -> None:
        provider = stage.make()
        self._needs(provider, "tools")
        stage.plays(provider, Wanted(text=(), tool_calls=(CALL, SECOND_CALL), finish="tool_calls"))
        response = await self._ask(provider, {"tools": [TOOL]})
        results = [
            LLMMessage.tool(call.id, f"Marker-result-{place}")
            for place, call in enumerate(response.tool_calls)
        ]
        stage.plays(provider, self.wanted)
        messages = [LLMMessage.user(self.prompt), response.to_message(), *results]
        last = await provider.generate_chat_completion(
            self.model, messages, options={"tools": [TOOL]}
        )
        sent = self.sent(stage.server.questions[-1])
        for marker in ("Marker-result-0", "Marker-result-1", "Bonn", "Köln"):
            expect(says(sent, marker) or says(sent, json.dumps(marker)[1:-1]),
                   f"{marker!r} of the calls and their results is not sent back")  # fmt: skip
        expect(last.text == self.wanted.whole_text, f"the answer is {last.text!r}")

    # ---- what is read besides text ---------------------------------------------------------------

    @check
    async def test_images_are_sent(self, stage: Stage) -> None:
        image = ImagePart(data=PNG, media_type="image/png")
        await self._sends_or_refuses(stage, "vision", image, PNG)

    @check
    async def test_files_are_sent(self, stage: Stage) -> None:
        document = FilePart(data=PDF, media_type="application/pdf", filename="marker.pdf")
        await self._sends_or_refuses(stage, "files", document, PDF)

    async def _sends_or_refuses(
        self, stage: Stage, capability: Capability, part: Any, data: bytes
    ) -> None:
        provider = stage.make()
        messages = [LLMMessage.user("Marker-question", part)]
        stage.plays(provider, self.wanted)
        if capability not in provider.capabilities:
            with raises(UnsupportedFeatureError, f"{capability} is not in its capabilities"):
                await provider.generate_chat_completion(self.model, messages)
            self._expect_unsent(stage, capability)
            return
        await provider.generate_chat_completion(self.model, messages)
        sent = self.sent(stage.server.questions[0])
        expect(
            says(sent, base64.b64encode(data).decode()),
            f"the provider claims {capability}, but the content is not in what it sends",
        )
        expect(says(sent, "Marker-question"), "the text beside the image or file is not sent")

    # ---- what is said besides text ---------------------------------------------------------------

    @check
    async def test_reasoning_is_kept_apart_from_the_answer(self, stage: Stage) -> None:
        provider = stage.make()
        self._needs(provider, "reasoning")
        stage.plays(provider, replace(self.wanted, reasoning=("Marker-thinks ", "on. ")))
        stream = provider.stream_completion(self.model, self.prompt)
        kinds = [event.kind async for event in stream]
        response = stream.response
        expect(
            (response.reasoning, response.text) == ("Marker-thinks on. ", self.wanted.whole_text),
            f"reasoning is {response.reasoning!r} and text is {response.text!r}",
        )
        expect(
            kinds.index("reasoning") < kinds.index("text"), f"the events come in the order {kinds}"
        )

    @pytest.mark.parametrize("capability", ["json_object", "json_schema"])
    @check
    async def test_answers_in_json_are_asked_for(
        self, stage: Stage, capability: Capability
    ) -> None:
        provider = stage.make()
        asked: Any = MarkerAnswer if capability == "json_schema" else "json_object"
        stage.plays(provider, Wanted(text=('{"marker_', 'field": 4', "2}")))
        if capability == "json_object" and capability not in provider.capabilities:
            with raises(UnsupportedFeatureError, "json_object is not in its capabilities"):
                await self._ask(provider, {"response_format": asked})
            self._expect_unsent(stage, capability)
            return
        if capability == "json_schema" and _lacks_checker(provider):
            pytest.skip("emulating a schema needs the package jsonschema")
        response = await self._ask(provider, {"response_format": asked})
        expect(
            response.parse(MarkerAnswer) == MarkerAnswer(42),
            f"the answer is {response.text!r} instead of {{'marker_field': 42}}",
        )
        if capability == "json_schema":
            sent = self.sent(stage.server.questions[0])
            expect(says(sent, "marker_field"), "the schema of the answer is not sent")


def _lacks_checker(provider: BaseLLMProvider) -> bool:
    """Whether the library has to check answers itself, and cannot."""
    emulated = provider.get_capabilities().features["json_schema"].source == "emulated"
    return emulated and importlib.util.find_spec("jsonschema") is None
