"""Checks of features: what is claimed works on the wire, what is not claimed is refused unsent."""

from __future__ import annotations

import base64
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
    Usage,
)
from ...policy.deadline import DeadlinePolicy
from ...policy.retry import RetryPolicy
from ...provider import BaseLLMProvider
from .answers import DeltaWatch, expect_sensible
from .base import HttpKit
from .common import CommonChecks
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


class FeatureChecks(CommonChecks, HttpKit):
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
        response = await self._ask(provider, {"response_format": asked})
        expect(
            response.parse(MarkerAnswer) == MarkerAnswer(42),
            f"the answer is {response.text!r} instead of {{'marker_field': 42}}",
        )
        if capability == "json_schema":
            sent = self.sent(stage.server.questions[0])
            expect(says(sent, "marker_field"), "the schema of the answer is not sent")

    # ---- other operations ------------------------------------------------------------------------

    @check
    async def test_the_middle_is_filled_in(self, stage: Stage) -> None:
        provider = stage.make()
        if "fim" not in provider.capabilities:
            with raises(UnsupportedFeatureError, "fim is not in its capabilities"):
                await provider.generate_fim(self.model, "Marker-before", "Marker-behind")
            self._expect_unsent(stage, "fim")
            return
        reply = self.fim(self.wanted)
        expect(reply is not None and self.fim_path, "it claims fim: give fim_path and fim()")
        assert reply is not None
        stage.server.plays(reply)
        response = await provider.generate_fim(self.model, "Marker-before", "Marker-behind")
        request = stage.server.questions[0]
        expect(
            request.path.partition("?")[0] == self.fim_path,
            f"a request to fill in goes to {request.path}, not to {self.fim_path}",
        )
        for marker in ("Marker-before", "Marker-behind"):
            expect(says(self.sent(request), marker), f"{marker!r} around the gap is not sent")
        expect(response.text == self.wanted.whole_text, f"the middle is {response.text!r}")

    @check
    async def test_texts_become_vectors(self, stage: Stage) -> None:
        provider = stage.make()
        if "embeddings" not in provider.capabilities:
            with raises(UnsupportedFeatureError, "embeddings is not in its capabilities"):
                await provider.embed(self.model, ["Marker-one"])
            self._expect_unsent(stage, "embeddings")
            return
        vectors = [[0.25, -0.5], [1.0, 0.125]]
        reply = self.embeddings(vectors, Usage(prompt_tokens=9))
        expect(
            reply is not None and self.embeddings_path,
            "it claims embeddings: give embeddings_path and embeddings()",
        )
        assert reply is not None
        stage.server.plays(reply)
        answer = await provider.embed(self.model, ["Marker-one", "Marker-two"])
        expect(
            [list(vector) for vector in answer.vectors] == vectors,
            f"the vectors are {answer.vectors} instead of {vectors}",
        )
        sent = self.sent(stage.server.questions[0])
        for marker in ("Marker-one", "Marker-two"):
            expect(says(sent, marker), f"the text {marker!r} is not sent")

    @check
    async def test_tokens_of_a_prompt_can_be_counted(self, stage: Stage) -> None:
        provider = stage.make()
        reply = self.counted(77)
        if reply is not None:
            stage.server.plays(reply)
        count = await provider.count_tokens(self.model, self.prompt)
        if reply is None:
            expect(
                count.tokens > 0 and count.estimated,
                f"without counted() the count must be an estimate, not {count}",
            )
            self._expect_unsent(stage, "counting tokens")
        else:
            expect(
                count.tokens == 77 and not count.estimated,
                f"the vendor counts 77 tokens, count_tokens says {count}",
            )

    # ---- shared ----------------------------------------------------------------------------------

    async def _ask(self, provider: BaseLLMProvider, options: dict[str, Any]) -> LLMResponse:
        return await provider.generate_completion(self.model, self.prompt, options=options)

    async def _is_refused(
        self,
        stage: Stage,
        provider: BaseLLMProvider,
        capability: Capability,
        options: dict[str, Any],
    ) -> bool:
        if capability in provider.capabilities:
            return False
        stage.plays(provider, self.wanted)
        with raises(UnsupportedFeatureError, f"{capability} is not in its capabilities"):
            await self._ask(provider, options)
        self._expect_unsent(stage, capability)
        return True

    def _expect_unsent(self, stage: Stage, what: str) -> None:
        sent = len(stage.server.questions)
        expect(sent == 0, f"{what}: it is refused, but {sent} requests were sent before")

    def _needs(self, provider: BaseLLMProvider, capability: Capability) -> None:
        if capability not in provider.capabilities:
            pytest.skip(f"it does not claim {capability}")
