"""LiteLLM, in this process and as a proxy.

The library refuses the versions of the OpenAI SDK that the rest of the tests need, so these run
where it is installed without them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_manager import (
    AuthenticationError,
    DependencyMissingError,
    InvalidRequestError,
    LLMError,
    LLMMessage,
    ModelNotFoundError,
    OpenAICompatibleProvider,
    ProviderConnectionError,
    ProviderOverloadedError,
    RateLimitError,
    RequestCancelledError,
    StreamInterruptedError,
    create_provider,
)
from llm_manager.messages import LLMModelInfo
from llm_manager.providers.litellm import LiteLLMProvider, described
from llm_manager.providers.rows import ROWS
from llm_manager.testing import Reply, ScriptedPeer

KEY = "sk-planted-0123456789abcdef"
ONCE = {"retries": {"attempts": 1}}

# The library uses what pydantic will take away; that is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm")

installed = pytest.mark.skipif(
    importlib.util.find_spec("litellm") is None, reason="LiteLLM is not installed"
)


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "r-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [choice]}  # fmt: skip


USAGE = {"id": "r-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
         "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}  # fmt: skip
HELLO = [chunk(role="assistant", content="Hel"), chunk(content="lo"), chunk("stop"), USAGE]


@pytest.fixture
async def provider(peer: ScriptedPeer) -> AsyncIterator[LiteLLMProvider]:
    """LiteLLM, led to the scripted server."""
    made = LiteLLMProvider(
        api_key=KEY, base_url=peer.base_url, models=["openai/m"], default_model="openai/m"
    )
    yield made
    await made.close()


@pytest.mark.skipif(
    importlib.util.find_spec("litellm") is not None, reason="here LiteLLM is installed"
)
async def test_without_the_library_connecting_says_what_to_install() -> None:
    provider = create_provider("litellm")
    with pytest.raises(DependencyMissingError, match="cannot be imported") as raised:
        await provider.connect()
    assert "litellm-proxy" in str(raised.value.hint)
    assert provider.status.status == "failed"
    await provider.close()


def test_what_the_library_knows_about_a_model_is_taken_over_with_its_source() -> None:
    model = described(
        LLMModelInfo(id="groq/llama", provider_id="litellm"),
        {"mode": "chat", "max_input_tokens": 131072, "supports_vision": True,
         "supports_function_calling": None, "input_cost_per_token": 5e-08},
    )  # fmt: skip
    assert model.context_window_tokens == 131072
    assert model.source_of("context_window_tokens") == "registry"
    assert model.capabilities is not None
    assert "vision" in model.capabilities
    assert "tools" not in model.capabilities
    assert model.price is not None
    assert model.price.input_usd == 0.05


@installed
async def test_an_answer_comes_in_pieces_with_its_usage(
    peer: ScriptedPeer, provider: LiteLLMProvider
) -> None:
    peer.script(Reply.sse([*HELLO, "[DONE]"]))
    pieces = [event.text async for event in provider.stream_completion(None, "hi")]
    assert "".join(pieces) == "Hello"
    assert len([piece for piece in pieces if piece]) == 2
    peer.script(Reply.sse([*HELLO, "[DONE]"]))
    answer = await provider.generate_completion(None, "hi")
    assert (answer.text, answer.finish_reason) == ("Hello", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)
    sent = peer.requests[-1]
    assert sent.json()["model"] == "m"
    assert sent.headers["authorization"] == f"Bearer {KEY}"


@installed
async def test_a_tool_call_comes_with_its_arguments(
    peer: ScriptedPeer, provider: LiteLLMProvider
) -> None:
    call = {"index": 0, "id": "c-1", "type": "function",
            "function": {"name": "add", "arguments": '{"a":1}'}}  # fmt: skip
    peer.script(
        Reply.sse([chunk(role="assistant", tool_calls=[call]), chunk("tool_calls"), "[DONE]"])
    )
    tools = [{"name": "add", "parameters": {"type": "object", "properties": {}}}]
    answer = await provider.generate_chat_completion(
        None, [LLMMessage.user("1+1?")], {"tools": tools}
    )
    assert answer.tool_calls[0].name == "add"
    assert answer.tool_calls[0].arguments == {"a": 1}
    assert peer.requests[0].json()["tools"][0]["function"]["name"] == "add"


@installed
@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (401, {"message": "bad key", "code": "invalid_api_key"}, AuthenticationError),
        (404, {"message": "the model `m` does not exist", "code": "model_not_found"},
         ModelNotFoundError),
        (400, {"message": "no such field"}, InvalidRequestError),
        (429, {"message": "too fast", "code": "rate_limit_exceeded"}, RateLimitError),
        (503, {"message": "overloaded"}, ProviderOverloadedError),
    ],
)  # fmt: skip
async def test_errors_of_the_service_are_told_apart(
    peer: ScriptedPeer,
    provider: LiteLLMProvider,
    status: int,
    error: dict[str, str],
    kind: type[LLMError],
) -> None:
    peer.script(Reply.json({"error": error}, status=status, headers={"retry-after": "7"}))
    with pytest.raises(kind) as raised:
        await provider.generate_completion(None, "hi", options=ONCE)
    assert type(raised.value) is kind
    assert raised.value.http_status == status
    assert KEY not in f"{raised.value!r} {raised.value.original}"
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    assert len(peer.requests) == 1
    if status == 429:
        assert raised.value.retry_after_s == 7


@installed
async def test_a_lost_connection_is_no_server_error(
    peer: ScriptedPeer, provider: LiteLLMProvider
) -> None:
    peer.script(Reply(instead="close"))
    with pytest.raises(ProviderConnectionError):
        await provider.generate_completion(None, "hi", options=ONCE)


@installed
async def test_an_answer_that_breaks_off_keeps_what_had_come(
    peer: ScriptedPeer, provider: LiteLLMProvider
) -> None:
    peer.script(Reply.sse(HELLO[:2], ending="close"))
    with pytest.raises(StreamInterruptedError) as raised:
        await provider.generate_completion(None, "hi", options=ONCE)
    assert raised.value.partial is not None
    assert raised.value.partial.text == "Hello"


@installed
async def test_stop_closes_the_connection(peer: ScriptedPeer, provider: LiteLLMProvider) -> None:
    peer.script(Reply.sse([*HELLO[:2], asyncio.Event()]))
    stream = provider.stream_completion(None, "hi")
    with pytest.raises(RequestCancelledError):
        async for _ in stream:
            stream.cancel()
    await peer.wait_for_disconnect()


@installed
def test_one_provider_answers_on_one_loop_after_another(capfd: pytest.CaptureFixture[str]) -> None:
    async def ask() -> str:
        async with ScriptedPeer() as peer:
            peer.script(Reply.sse([*HELLO, "[DONE]"]))
            provider = LiteLLMProvider(api_key=KEY, base_url=peer.base_url)
            async with provider:
                return (await provider.generate_completion("openai/m", "hi")).text

    assert [asyncio.run(ask()) for _ in range(3)] == ["Hello"] * 3
    assert capfd.readouterr().out == ""


@installed
async def test_texts_become_vectors(peer: ScriptedPeer, provider: LiteLLMProvider) -> None:
    vectors = [{"object": "embedding", "index": i, "embedding": [float(i), 1.0]} for i in (0, 1)]
    peer.script(
        Reply.json({"object": "list", "data": vectors, "model": "m",
                    "usage": {"prompt_tokens": 4, "total_tokens": 4}})
    )  # fmt: skip
    made = await provider.embed("openai/m", ["a", "b"])
    assert made.vectors == ([0.0, 1.0], [1.0, 1.0])


@installed
async def test_models_are_described_from_the_librarys_table(provider: LiteLLMProvider) -> None:
    known = LiteLLMProvider(models=["gpt-4o", "openai/m"])
    async with known:
        model = await known.get_model_info("gpt-4o")
        other = await known.get_model_info("openai/m")
    assert model.context_window_tokens == 128000
    assert model.capabilities is not None
    assert {"tools", "vision"} <= model.capabilities
    assert other.context_window_tokens is None


# ---- the proxy -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real LiteLLM proxy, with one model that answers by itself."""
    program = Path(sys.executable).parent / "litellm"
    if not program.exists() or importlib.util.find_spec("fastapi") is None:
        pytest.skip("LiteLLM's proxy is not installed")
    config = tmp_path_factory.mktemp("proxy") / "config.yaml"
    config.write_text(
        "model_list:\n"
        "  - model_name: mocked\n"
        "    litellm_params: {model: openai/gpt-4o, api_key: none, mock_response: From the proxy}\n"
        "    model_info: {max_input_tokens: 4321}\n"
        "general_settings: {master_key: sk-master-1234}\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True"}
    process = subprocess.Popen(
        [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if re.search(r"Uvicorn running|Application startup complete", line):
            break
    else:
        pytest.fail(f"the proxy did not start: {''.join(seen[-20:])}")
    yield f"http://127.0.0.1:{port}/v1"
    process.terminate()
    process.communicate(timeout=30)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_proxy_is_an_ordinary_server(proxy: str) -> None:
    provider = OpenAICompatibleProvider(
        row=ROWS["litellm-proxy"], base_url=proxy, api_key="sk-master-1234"
    )
    async with provider:
        models = {model.id: model for model in await provider.get_available_models()}
        assert "mocked" in models
        answer = await provider.generate_completion("mocked", "hi")
        assert answer.text == "From the proxy"
        pieces = [e.text async for e in provider.stream_completion("mocked", "hi") if e.text]
        assert "".join(pieces) == "From the proxy"


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_wrong_key_of_the_proxy_is_said(proxy: str) -> None:
    provider = OpenAICompatibleProvider(
        row=ROWS["litellm-proxy"], base_url=proxy, api_key="sk-wrong-1234"
    )
    with pytest.raises(AuthenticationError):
        await provider.connect()
    await provider.close()


@installed
async def test_a_key_of_the_environment_is_not_sent_to_an_address_that_was_given(
    peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    peer.script(Reply.sse([*HELLO, "[DONE]"]))
    async with LiteLLMProvider(base_url=peer.base_url) as provider:
        assert (await provider.generate_completion("openai/m", "Hello")).text == "Hello"
    assert KEY not in repr(peer.requests)
    assert provider.key_origin == "none needed"
