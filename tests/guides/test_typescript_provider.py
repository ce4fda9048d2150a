"""The provider guide in TypeScript, by the names that Python gives the same things.

The order: the class, connection, models, generation, streams, errors, status, registration, and the
guide's list of required tests.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import pytest

from llm_manager import (
    BaseLLMProvider,
    Delta,
    FinishDelta,
    LLMMessage,
    LLMModelInfo,
    LLMProviderManager,
    LLMProviderStatus,
    LLMRequest,
    LLMRequestOptions,
    LLMStreamEvent,
    ModelNotFoundError,
    ProviderConnectionError,
    RateLimitError,
    TextDelta,
)
from llm_manager.events import ModelChanged, RequestFinished, StatusChanged

from ..helpers import QUICK, Record

# ---- the class -----------------------------------------------------------------------------------


class CustomProvider(BaseLLMProvider):
    """Speaks the words that it is given.

    Args:
        words: what it says.
        common: see `BaseLLMProvider`.
    """

    kind = "custom"

    def __init__(self, *, words: Sequence[str] = ("Hello ", "there"), **common: Any) -> None:
        super().__init__(name="Custom", default_model="first", reconnect=QUICK, **common)
        self.words = words
        self.is_up = True
        self.open_connections = 0
        self.requests: list[LLMRequest] = []

    async def _open(self) -> None:
        self._refuse_while_down()
        self.open_connections += 1

    async def _close(self) -> None:
        self.open_connections = 0

    async def _list_models(self) -> list[LLMModelInfo]:
        self._refuse_while_down()
        return [LLMModelInfo(id="first", context_window_tokens=8192), LLMModelInfo(id="second")]

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        self._refuse_while_down()
        if request.messages[-1].text == "too much":
            raise RateLimitError("too many requests", retry_after_s=60, retryable=False)
        for word in self.words:
            yield TextDelta(word)
        yield FinishDelta("stop")

    def _refuse_while_down(self) -> None:
        if not self.is_up:
            raise ProviderConnectionError("Failed to connect to provider", code="refused")


@pytest.fixture
async def provider() -> AsyncIterator[CustomProvider]:
    made = CustomProvider()
    yield made
    await made.close()


# ---- connection ----------------------------------------------------------------------------------


async def test_it_should_connect_successfully(provider: CustomProvider) -> None:
    assert await provider.is_available()
    await provider.connect()
    assert provider.status.status == "connected"
    await provider.disconnect()
    assert provider.status.status == "disconnected"
    assert provider.open_connections == 0


async def test_it_says_why_it_cannot_connect_and_recovers(provider: CustomProvider) -> None:
    provider.is_up = False
    assert not await provider.is_available()
    with pytest.raises(ProviderConnectionError, match="Failed to connect"):
        await provider.connect()
    provider.is_up = True
    await provider.wait_for("connected", timeout_s=10)


# ---- models --------------------------------------------------------------------------------------


async def test_it_should_list_available_models(provider: CustomProvider) -> None:
    models = await provider.get_available_models()
    assert [model.id for model in models] == ["first", "second"]
    assert (await provider.get_model_info("first")).context_window_tokens == 8192
    with pytest.raises(ModelNotFoundError):
        await provider.get_model_info("third")


# ---- generation ----------------------------------------------------------------------------------

OPTIONS = {
    "temperature": 0.7, "maxTokens": 100, "topP": 0.9, "presencePenalty": 0.1,
    "frequencyPenalty": 0.2, "stop": ["END"],
}  # fmt: skip


async def test_it_should_generate_completions(provider: CustomProvider) -> None:
    response = await provider.generate_completion("first", "Hi", "Be kind.", OPTIONS)
    assert (response.text, response.model, response.finish_reason) == (
        "Hello there",
        "first",
        "stop",
    )
    request = provider.requests[-1]
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.options.merged_over(LLMRequestOptions()) == LLMRequestOptions(
        temperature=0.7, max_tokens=100, top_p=0.9, presence_penalty=0.1, frequency_penalty=0.2,
        stop=("END",), timeouts=request.options.timeouts,
    )  # fmt: skip


async def test_it_should_generate_chat_completions(provider: CustomProvider) -> None:
    messages = [LLMMessage.user("Hi"), LLMMessage.assistant("Yes?"), LLMMessage.user("Hello")]
    assert (await provider.generate_chat_completion("first", messages)).text == "Hello there"
    assert provider.requests[-1].messages == tuple(messages)


# ---- streams -------------------------------------------------------------------------------------


async def test_it_should_stream_to_a_callback(provider: CustomProvider) -> None:
    events: list[LLMStreamEvent] = []
    await provider.stream_completion("first", "Hi", callback=events.append)
    await provider.stream_chat_completion("first", [LLMMessage.user("Hi")], callback=events.append)
    assert [event.text for event in events if event.kind == "text"] == ["Hello ", "there"] * 2
    assert events[-1].kind == "done"


# ---- errors --------------------------------------------------------------------------------------


async def test_it_should_handle_rate_limits(provider: CustomProvider) -> None:
    with pytest.raises(RateLimitError) as limited:
        await provider.generate_completion("first", "too much")
    assert (limited.value.code, limited.value.retry_after_s) == ("rate_limited", 60)


# ---- status and events ---------------------------------------------------------------------------


async def test_it_should_emit_status_model_and_request_events(provider: CustomProvider) -> None:
    seen: list[LLMProviderStatus] = []
    provider.on("statusChanged", lambda event: seen.append(event.current))
    record = Record(provider)
    await provider.connect()
    provider.set_active_model("second")
    await provider.generate_completion(None, "Hi")
    await provider.disconnect()
    await provider.flush()
    words = [status.status for status in seen]
    assert list(dict.fromkeys(words)) == ["connecting", "connected", "draining", "disconnected"]
    changed = [event for event in record if isinstance(event, ModelChanged)]
    assert [(event.previous, event.current) for event in changed] == [("first", "second")]
    (finished,) = [event for event in record if isinstance(event, RequestFinished)]
    assert (finished.outcome, finished.model) == ("ok", "second")


async def test_it_should_emit_errors_of_the_background(provider: CustomProvider) -> None:
    await provider.connect()
    record = Record(provider)
    provider.is_up = False
    with pytest.raises(ProviderConnectionError):
        await provider.generate_completion("first", "Hi", options={"retries": {"attempts": 1}})
    await record.wait_for("reconnectScheduled")
    lost = [event for event in record if isinstance(event, StatusChanged)]
    assert "reconnecting" in [event.current.status for event in lost]
    provider.is_up = True
    await provider.wait_for("connected", timeout_s=10)


# ---- registration --------------------------------------------------------------------------------


async def test_it_is_registered_with_the_manager_of_the_process() -> None:
    LLMProviderManager.reset_instance()
    manager = LLMProviderManager.get_instance()
    provider = manager.register_provider(CustomProvider())
    assert LLMProviderManager.get_instance().get_provider("custom") is provider
    assert (await manager.generate_completion("custom/first", "Hi")).text == "Hello there"
    await manager.close()
    LLMProviderManager.reset_instance()
