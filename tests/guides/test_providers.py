"""The four providers of the step-by-step guide, each through `create_llm`, in the guide's order.

Scripted servers speak for the services.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_manager import (
    AuthenticationError,
    ModelCapability,
    ProviderNotFoundError,
    create_llm,
    kinds,
)
from llm_manager.testing import Reply, ScriptedPeer

from ..tiny_model import build_tiny_model


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    with ScriptedPeer() as peer:
        yield peer


def last_body(peer: ScriptedPeer) -> Any:
    return peer.requests[-1].json()


# ---- the factory ---------------------------------------------------------------------------------


def test_the_factory_knows_the_four_and_names_what_it_knows() -> None:
    assert {"openai", "anthropic", "ollama", "huggingface"} <= set(kinds())
    with pytest.raises(ProviderNotFoundError, match="'mistral-ai'"):
        create_llm("mistral-ai")


# ---- OpenAI --------------------------------------------------------------------------------------


def test_openai(peer: ScriptedPeer) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hello!"}}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    peer.script(Reply.sse([chunk, end, "[DONE]"]))
    url = f"{peer.base_url}/v1"
    with create_llm(
        "openai", api_key="sk-0123456789abcdef", base_url=url, model="gpt-4o", temperature=0.7,
        system_prompt="You are helpful.",
    ) as llm:  # fmt: skip
        assert llm.generate("Say hello") == "Hello!"
        assert llm.get_capabilities()[ModelCapability.STREAMING] is True
    body = last_body(peer)
    assert (body["model"], body["temperature"]) == ("gpt-4o", 0.7)
    assert [message["content"] for message in body["messages"]] == ["You are helpful.", "Say hello"]


def test_openai_without_a_key_says_where_to_put_it() -> None:
    with create_llm("openai", model="gpt-4o") as llm, pytest.raises(AuthenticationError) as missing:
        llm.generate("Say hello")
    assert "OPENAI_API_KEY" in str(missing.value.hint)


# ---- Anthropic -----------------------------------------------------------------------------------


def test_anthropic(peer: ScriptedPeer) -> None:
    content = [{"type": "text", "text": "Hello!"}]
    usage = {"input_tokens": 5, "output_tokens": 2}
    peer.script(
        Reply.json(
            {"id": "msg_1", "model": "claude", "content": content, "stop_reason": "end_turn",
             "usage": usage}
        )
    )  # fmt: skip
    with create_llm(
        "anthropic", api_key="sk-ant-0123456789", base_url=peer.base_url, model="claude-opus-4-6",
        max_tokens=4000, temperature=0.5,
    ) as llm:  # fmt: skip
        assert llm.generate("Say hello", system_prompt="You are helpful.") == "Hello!"
        assert llm.last_response is not None
        assert llm.last_response.usage is not None
        assert llm.last_response.usage.total_tokens == 7
    body = last_body(peer)
    assert (body["model"], body["max_tokens"]) == ("claude-opus-4-6", 4000)
    assert "You are helpful." in str(body["system"])


# ---- Ollama --------------------------------------------------------------------------------------


def test_ollama(peer: ScriptedPeer) -> None:
    peer.script(
        Reply.ndjson(
            [
                {"model": "llama3.2", "message": {"role": "assistant", "content": "Hello!"}},
                {"model": "llama3.2", "message": {"content": ""}, "done": True,
                 "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 2},
            ]
        )
    )  # fmt: skip
    with create_llm("ollama", base_url=peer.base_url, model="llama3.2", temperature=0.7) as llm:
        assert llm.generate("Say hello") == "Hello!"
    body = last_body(peer)
    assert (body["model"], body["options"]["temperature"]) == ("llama3.2", 0.7)


# ---- Hugging Face --------------------------------------------------------------------------------


def test_hugging_face(tmp_path: Path) -> None:
    # Looked for and not imported: it belongs into the worker process alone.
    if not all(map(importlib.util.find_spec, ("torch", "transformers"))):
        pytest.skip("torch and transformers are not installed")
    model = str(build_tiny_model(tmp_path / "model"))
    with create_llm("huggingface", model=model, max_tokens=5, timeout=120) as llm:
        text = llm.generate("hello world", system_prompt="the quick brown fox")
        assert text
        assert llm.last_response is not None
        assert llm.last_response.usage is not None
        assert llm.last_response.usage.completion_tokens == 5
        assert "".join(llm.generate("hello world", stream=True))
