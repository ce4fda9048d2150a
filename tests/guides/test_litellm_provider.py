"""LiteLLM provider: a provider around a library with an interface of OpenAI's form.

The library is written as a stand-in below, over a scripted server, because its present version
cannot be installed together with the newest OpenAI SDK.  `llm_manager.LiteLLMProvider` is the one
for use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from llm_manager import (
    AuthenticationError,
    BaseLLMProvider,
    ConfigurationError,
    ContextWindowExceededError,
    Delta,
    FinishDelta,
    InvalidRequestError,
    LLMError,
    LLMModelInfo,
    LLMRequest,
    ProviderAPIError,
    RateLimitError,
    RequestTimeoutError,
    TextDelta,
    create_llm,
    register_provider,
    unregister_kind,
)
from llm_manager.testing import Reply, ScriptedPeer

# ---- the library ---------------------------------------------------------------------------------


class Library:
    """What is used of the library: one function, and whatever exceptions it raises."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self.api_key: str | None = None

    async def acompletion(self, **asked: Any) -> AsyncIterator[Any]:
        """An answer in chunks of OpenAI's form."""
        headers = {"authorization": f"Bearer {self.api_key}"}
        async with (
            httpx2.AsyncClient() as client,
            client.stream("POST", self._base_url, json=asked, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise RuntimeError((await answer.aread()).decode())
            async for line in answer.aiter_lines():
                if line:
                    delta = SimpleNamespace(content=line)
                    yield SimpleNamespace(choices=[SimpleNamespace(delta=delta)])


# ---- the provider --------------------------------------------------------------------------------


class LiteLLMProvider(BaseLLMProvider):
    """Whatever the library reaches.

    Args:
        library: the module ``litellm``, or what stands in for it.
        api_key: what it sends.
        common: see `BaseLLMProvider`; ``default_model`` is needed.
    """

    kind = "guide-litellm"
    capabilities = frozenset({"chat"})

    def __init__(self, *, library: Any, api_key: str | None = None, **common: Any) -> None:
        super().__init__(**common)
        if not self.active_model:
            raise ConfigurationError("a model is needed", hint="pass model=")
        self._library, self._api_key = library, api_key

    async def _open(self) -> None:
        self._library.api_key = self._api_key

    async def _close(self) -> None: ...

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        return [LLMModelInfo(id=self.active_model or "")]

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        options = request.options
        given = {
            name: getattr(options, name)
            for name in (
                "temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty"
            )
            if getattr(options, name) is not None
        }  # fmt: skip
        messages = [{"role": m.role, "content": m.text} for m in request.messages]
        failure = None
        try:
            async for chunk in self._library.acompletion(
                model=request.model, messages=messages, stream=True, **given
            ):
                if content := chunk.choices[0].delta.content:
                    yield TextDelta(content)
        except RuntimeError as error:
            failure = _error_of(str(error))
        if failure is not None:
            raise failure
        yield FinishDelta("stop")


def _error_of(text: str) -> LLMError:
    """What an error of the library means, of which only the text is known."""
    said = text.lower()
    if "authentication" in said or "api key" in said:
        return AuthenticationError(text)
    if "rate limit" in said or "quota" in said:
        return RateLimitError(text)
    if "timeout" in said:
        return RequestTimeoutError(text)
    if "context" in said and ("length" in said or "window" in said):
        return ContextWindowExceededError(text)
    if "invalid" in said or "bad request" in said:
        return InvalidRequestError(text)
    return ProviderAPIError(text)


# ---- registered and used -------------------------------------------------------------------------


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    register_provider("guide-litellm", LiteLLMProvider)
    with ScriptedPeer() as peer:
        yield peer
    unregister_kind("guide-litellm")


def answer() -> Reply:
    return Reply(body=[b"Hello\n", b" there\n"], framing="chunked")


def test_it_answers(peer: ScriptedPeer) -> None:
    peer.script(answer())
    library = Library(peer.base_url)
    with create_llm(
        "guide-litellm", library=library, api_key="the-key", model="groq/llama", temperature=0.7,
        top_p=0.95,
    ) as llm:  # fmt: skip
        assert llm.generate("Hello!", system_prompt="Be kind.") == "Hello there"
    (request,) = peer.requests
    assert request.headers["authorization"] == "Bearer the-key"
    assert request.json() == {
        "model": "groq/llama", "stream": True, "temperature": 0.7, "top_p": 0.95,
        "messages": [
            {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello!"}
        ],
    }  # fmt: skip


def test_it_streams_to_threads_and_tasks(peer: ScriptedPeer) -> None:
    peer.script(answer(), answer())
    with create_llm("guide-litellm", library=Library(peer.base_url), model="m") as llm:
        assert list(llm.generate("Hello!", stream=True)) == ["Hello", " there"]

        async def read() -> list[str]:
            return [text async for text in await llm.generate_async("Hello!", stream=True)]

        assert asyncio.run(read()) == ["Hello", " there"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AuthenticationError: no such API key", AuthenticationError),
        ("RateLimitError: rate limit reached", RateLimitError),
        ("Timeout: request timeout", RequestTimeoutError),
        ("ContextWindowExceededError: context length is 8192", ContextWindowExceededError),
        ("BadRequestError: bad request", InvalidRequestError),
        ("Something else", ProviderAPIError),
    ],
)
def test_its_errors_are_ours(peer: ScriptedPeer, text: str, kind: type[LLMError]) -> None:
    peer.script(Reply(status=400, body=[text.encode()]))
    llm = create_llm(
        "guide-litellm", library=Library(peer.base_url), model="m", retries={"attempts": 1}
    )
    with llm, pytest.raises(kind, match=text):
        llm.generate("Hello!")


def test_a_model_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="a model is needed"):
        create_llm(LiteLLMProvider, library=None)
