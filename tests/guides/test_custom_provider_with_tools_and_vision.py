"""Custom provider with tools and vision: functions go out as definitions, calls come back as calls,
pictures go out in the service's own form.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_manager import (
    BaseLLMProvider,
    Delta,
    FinishDelta,
    ImageInput,
    ImagePart,
    LLMMessage,
    LLMModelInfo,
    LLMRequest,
    MediaFactory,
    TextDelta,
    TextPart,
    ToolCallDelta,
    ToolCallRequest,
    ToolDefinition,
    UnsupportedFeatureError,
    create_llm,
    register_provider,
    unregister_kind,
)
from llm_manager.messages import Part

from ..test_create_llm import PNG
from .my_service import RIGHT_KEY, MyServiceClient


class MyServiceForm:
    """How single parts look to MyService."""

    def encode_part(self, part: Part) -> dict[str, Any]:
        match part:
            case TextPart(text=text):
                return {"kind": "text", "text": text}
            case ImagePart(data=bytes(data)):
                return {"kind": "image", "base64": base64.b64encode(data).decode()}
            case ImagePart(url=str(url)):
                return {"kind": "image", "url": url}
        raise UnsupportedFeatureError(f"MyService cannot read {part!r}")


class MyCustomProvider(BaseLLMProvider):
    """MyService with all that it can do."""

    kind = "myservice"
    capabilities = frozenset({"chat", "tools", "vision"})
    codec: Any = MyServiceForm()

    def __init__(self, *, api_key: str, **common: Any) -> None:
        common.setdefault("default_model", "default-model")
        super().__init__(**common)
        self._client = MyServiceClient(api_key, "https://api.myservice.com")

    async def _open(self) -> None: ...
    async def _close(self) -> None: ...

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        return [LLMModelInfo(id=name) for name in await self._client.models()]

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        called = False
        async for chunk in self._client.stream(
            model=request.model,
            messages=[self._format_message(message) for message in request.messages],
            tools=self._prepare_tools(request.options.tools),
        ):
            if chunk.text:
                yield TextDelta(chunk.text)
            for index, call in enumerate(chunk.tool_calls):
                called = True
                arguments = json.dumps(call["arguments"])
                yield ToolCallDelta(index, f"call_{index}", call["name"], arguments)
        yield FinishDelta("tool_calls" if called else "stop")

    def _format_message(self, message: LLMMessage) -> dict[str, Any]:
        if isinstance(message.content, str):
            return {"role": message.role, "content": message.content}
        parts = [self.codec.encode_part(part) for part in message.content]
        return {"role": message.role, "content": parts}

    def _prepare_tools(self, tools: Sequence[ToolDefinition]) -> list[dict[str, Any]]:
        return [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
            for tool in tools
        ]


@pytest.fixture(autouse=True)
def myservice(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(MyServiceClient, "calls", [], raising=False)
    register_provider("myservice", MyCustomProvider)
    yield
    unregister_kind("myservice")


def get_weather(town: str) -> str:
    """The weather in a town.

    Args:
        town: its name
    """
    return f"rain in {town}"


# ---- tools ---------------------------------------------------------------------------------------


def test_a_function_becomes_a_definition_of_the_service() -> None:
    with create_llm("myservice", api_key=RIGHT_KEY) as llm:
        llm.generate("How is the weather?", tools=[get_weather])
    (tool,) = MyServiceClient.calls[0]["tools"]
    assert (tool["name"], tool["description"]) == ("get_weather", "The weather in a town.")
    assert tool["parameters"]["properties"]["town"]["type"] == "string"


def test_the_calls_of_the_model_are_handed_to_whoever_gave_definitions() -> None:
    with create_llm("myservice", api_key=RIGHT_KEY) as llm:
        definition = ToolDefinition.from_function(get_weather)
        request = llm.generate("How is the weather in Oslo?", tools=[definition])
    assert isinstance(request, ToolCallRequest)
    (call,) = request.tool_calls
    assert (call.id, call.name, call.arguments) == ("call_0", "get_weather", {"town": "Oslo"})


def test_the_calls_of_the_model_are_run_for_whoever_gave_functions() -> None:
    with create_llm("myservice", api_key=RIGHT_KEY) as llm:
        answer = llm.generate("How is the weather in Oslo?", tools=[get_weather])
    assert answer == "Response from default-model for prompt: rain in Oslo "


# ---- vision --------------------------------------------------------------------------------------


def test_a_picture_is_made_from_whatever_one_has_of_it(tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    path.write_bytes(PNG)
    encoded = base64.b64encode(PNG).decode()
    for source in (path, str(path), PNG, encoded, f"data:image/png;base64,{encoded}"):
        image = MediaFactory.from_source(source, media_type="image")
        assert isinstance(image, ImageInput)
        assert image.to_provider_format("myservice") == {"kind": "image", "base64": encoded}
    by_url = MediaFactory.from_source("https://example.com/cat", media_type="image")
    assert by_url.to_provider_format("myservice")["url"] == "https://example.com/cat"


def test_pictures_go_along_with_the_question(tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    path.write_bytes(PNG)
    with create_llm("myservice", api_key=RIGHT_KEY) as llm:
        answer = llm.generate("What is this?", files=[path, "https://example.com/cat.png"])
    assert answer == "Response from default-model for prompt: What is this? "
    first, second, question = MyServiceClient.calls[0]["messages"][0]["content"]
    assert first == {"kind": "image", "base64": base64.b64encode(PNG).decode()}
    assert second == {"kind": "image", "url": "https://example.com/cat.png"}
    assert question == {"kind": "text", "text": "What is this?"}


def test_without_vision_a_picture_is_refused_before_it_reaches_the_provider() -> None:
    class Blind(MyCustomProvider):
        capabilities = frozenset({"chat"})

    with create_llm(Blind, api_key=RIGHT_KEY) as llm:
        with pytest.raises(UnsupportedFeatureError, match="vision"):
            llm.generate("What is this?", files=[PNG])
        with pytest.raises(UnsupportedFeatureError, match="tools"):
            llm.generate("How is the weather?", tools=[get_weather])
    assert MyServiceClient.calls == []
