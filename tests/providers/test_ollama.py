"""Ollama's own API, over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from llm_manager import (
    ContextWindowExceededError,
    InvalidParameterError,
    LLMMessage,
    ModelNotFoundError,
    OllamaProvider,
    RequestCancelledError,
    StreamInterruptedError,
    UnsupportedFeatureError,
    Usage,
)
from llm_manager.messages import ImagePart
from llm_manager.providers.ollama import base_url_of_host
from llm_manager.testing import Reply, ScriptedPeer

from ..helpers import QUICK, Record

DETAILS = {"family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}


def tags(*names: str) -> Reply:
    entries = [{"name": n, "model": n, "size": 2_000_000, "details": DETAILS} for n in names]
    return Reply.json({"models": entries})


def shown(*capabilities: str, context: int = 131072) -> Reply:
    return Reply.json(
        {
            "details": DETAILS,
            "model_info": {"general.architecture": "llama", "llama.context_length": context},
            "capabilities": ["completion", *capabilities],
        }
    )


def said(content: str = "", **more) -> dict:
    return {"model": "llama3.2", "message": {"role": "assistant", "content": content, **more}}


DONE = {"model": "llama3.2", "message": {"role": "assistant", "content": ""}, "done": True,
        "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 3}  # fmt: skip


@pytest.fixture
async def ollama(peer: ScriptedPeer):
    peer.route("/api/tags", tags("llama3.2:latest", "qwen3:8b"))
    peer.route("/api/ps", Reply.json({"models": [{"name": "qwen3:8b", "size_vram": 1}]}))
    peer.route("/api/version", Reply.json({"version": "0.33.0"}))
    peer.route("/api/show", shown("tools"))
    peer.route("/api/chat", Reply.ndjson([said("Hel"), said("lo"), DONE]))
    provider = OllamaProvider(base_url=peer.base_url, reconnect=QUICK)
    yield provider
    await provider.close(0)


def sent_to(peer: ScriptedPeer, path: str) -> list[dict]:
    return [r.json() for r in peer.requests if r.path == path]


async def test_the_main_job_connect_list_and_stream(peer, ollama) -> None:
    record = Record(ollama)
    await ollama.connect()
    models = await ollama.get_available_models()
    assert [(m.id, m.loaded, m.parameters, m.quantization, m.size_bytes) for m in models] == [
        ("llama3.2:latest", False, "3.2B", "Q4_K_M", 2_000_000),
        ("qwen3:8b", True, "3.2B", "Q4_K_M", 2_000_000),
    ]
    response = await ollama.generate_completion("llama3.2:latest", "hi", "be kind")
    assert response.text == "Hello"
    assert response.usage == Usage(prompt_tokens=11, completion_tokens=3)
    assert record.statuses == ["connecting", "connected"]
    (sent,) = sent_to(peer, "/api/chat")
    assert [m["role"] for m in sent["messages"]] == ["system", "user"]


async def test_context_window_and_capabilities_come_from_the_model_itself(peer, ollama) -> None:
    info = await ollama.get_model_info("llama3.2:latest")
    assert info.context_window_tokens == 131072
    assert info.source_of("context_window_tokens") == "endpoint"
    assert "tools" in info.capabilities
    assert "vision" not in info.capabilities
    await ollama.get_model_info("llama3.2:latest")
    assert len(sent_to(peer, "/api/show")) == 1


async def test_what_a_model_cannot_do_is_refused_once_it_is_known(peer, ollama) -> None:
    await ollama.get_model_info("llama3.2:latest")
    image = ImagePart(data=b"\x89PNG", media_type="image/png")
    with pytest.raises(UnsupportedFeatureError, match=r"'llama3\.2:latest' cannot do: vision"):
        ollama.stream_chat_completion("llama3.2:latest", [LLMMessage.user("what?", image)])


async def test_nothing_is_dropped_silently_when_the_prompt_is_too_long(peer, ollama) -> None:
    peer.route(
        "/api/chat",
        Reply.json({"error": "the input length exceeds the context length"}, status=400),
    )
    with pytest.raises(ContextWindowExceededError):
        await ollama.generate_completion("llama3.2:latest", "x " * 10)
    assert sent_to(peer, "/api/chat")[0]["truncate"] is False


async def test_thinking_is_asked_for_only_where_the_model_can(peer, ollama) -> None:
    with pytest.raises(UnsupportedFeatureError, match="cannot reason"):
        await ollama.generate_completion(
            "llama3.2:latest", "x", options={"reasoning_effort": "low"}
        )
    await ollama.generate_completion("llama3.2:latest", "x", options={"reasoning_effort": "none"})
    assert "think" not in sent_to(peer, "/api/chat")[-1]
    peer.route("/api/show", shown("thinking"))
    peer.route("/api/chat", Reply.ndjson([said(thinking="hm"), said("ok"), DONE]))
    response = await ollama.generate_completion("qwen3:8b", "x", options={"reasoningEffort": "low"})
    assert (response.reasoning, response.text) == ("hm", "ok")
    assert sent_to(peer, "/api/chat")[-1]["think"] == "low"


async def test_a_stream_without_its_last_line_is_broken(peer, ollama) -> None:
    peer.route("/api/chat", Reply.ndjson([said("Hel")]))
    with pytest.raises(StreamInterruptedError) as caught:
        await ollama.generate_completion("llama3.2:latest", "x")
    assert caught.value.partial.text == "Hel"


async def test_stop_closes_the_socket(peer, ollama) -> None:
    peer.route("/api/chat", Reply.ndjson([said("Hel")], ending="hang"))
    stream = ollama.stream_completion("llama3.2:latest", "x", callback=lambda e: stream.cancel())
    with pytest.raises(RequestCancelledError):
        await stream
    await peer.wait_for_disconnect()


async def test_a_model_that_is_not_there_is_named_with_similar_ones(peer, ollama) -> None:
    await ollama.connect()
    peer.route("/api/chat", Reply.json({"error": "model 'lama3.2' not found"}, status=404))
    with pytest.raises(ModelNotFoundError, match=r"did you mean 'llama3\.2:latest'"):
        await ollama.generate_completion("lama3.2", "x")


async def test_pulling_announces_progress_and_the_new_model(peer, ollama) -> None:
    await ollama.connect()
    record = Record(ollama)
    peer.route(
        "/api/pull",
        Reply.ndjson(
            [
                {"status": "pulling manifest"},
                {"status": "pulling 8eeb52", "digest": "8eeb52", "total": 100, "completed": 25},
                {"status": "success"},
            ]
        ),
    )
    peer.route("/api/tags", tags("llama3.2:latest", "qwen3:8b", "gemma3:latest"))
    seen = []
    info = await ollama.pull_model("gemma3", seen.append)
    assert info.id == "gemma3:latest"
    assert [(e.phase, e.fraction) for e in seen] == [
        ("pulling manifest", None),
        ("pulling 8eeb52", 0.25),
        ("success", None),
    ]
    assert record.named("modelLoadProgress") == seen
    assert [(e.model, e.phase) for e in record.named("modelLoaded")] == [("gemma3", "pulled")]
    assert record.named("modelsChanged")[0].added == ("gemma3:latest",)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply.ndjson([{"error": "pull model manifest: file does not exist"}]), ModelNotFoundError),
        (Reply.ndjson([{"status": "pulling manifest"}]), StreamInterruptedError),
    ],
)
async def test_a_pull_that_does_not_succeed_is_an_error(peer, ollama, reply, error) -> None:
    peer.route("/api/pull", reply)
    with pytest.raises(error):
        await ollama.pull_model("gemma3")


async def test_cancelling_a_pull_closes_the_socket(peer, ollama) -> None:
    peer.route("/api/pull", Reply.ndjson([{"status": "pulling manifest"}], ending="hang"))
    started = asyncio.Event()
    task = asyncio.create_task(ollama.pull_model("gemma3", lambda e: started.set()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await peer.wait_for_disconnect()


async def test_models_are_loaded_and_unloaded_on_demand(peer, ollama) -> None:
    record = Record(ollama)
    peer.route("/api/chat", Reply.json({"model": "qwen3:8b", "done": True, "done_reason": "load"}))
    await ollama.load_model("qwen3:8b")
    await ollama.unload_model("qwen3:8b")
    load, unload = sent_to(peer, "/api/chat")
    assert (load["messages"], "keep_alive" in load) == ([], False)
    assert unload["keep_alive"] == 0
    assert [e.model for e in record.named("modelLoaded")] == ["qwen3:8b"]
    assert [e.model for e in record.named("modelUnloaded")] == ["qwen3:8b"]


async def test_the_server_tells_its_version(ollama) -> None:
    assert await ollama.get_version() == "0.33.0"


async def test_settings_reach_the_server(peer, ollama) -> None:
    provider = OllamaProvider(
        base_url=peer.base_url, context_tokens=16384, keep_alive="10m", truncate=True
    )
    await provider.generate_completion(
        "llama3.2:latest", "x", options={"max_tokens": 5, "temperature": 0.0, "seed": 1}
    )
    sent = sent_to(peer, "/api/chat")[-1]
    assert (sent["truncate"], sent["keep_alive"]) == (True, "10m")
    assert sent["options"] == {"num_ctx": 16384, "num_predict": 5, "temperature": 0.0, "seed": 1}
    await provider.close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        (":8000", "http://127.0.0.1:8000"),
        ("box", "http://box:11434"),
        ("http://box:80/", "http://box:80"),
        ("https://ollama.example.org", "https://ollama.example.org:443"),
        ("[::1]", "http://[::1]:11434"),
        ("[::]:11434", "http://127.0.0.1:11434"),
    ],
)
def test_the_host_variable_is_understood_as_ollama_does(host, url, monkeypatch) -> None:
    assert base_url_of_host(host) == url
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert OllamaProvider().base_url == url


def test_context_tokens_must_make_sense() -> None:
    with pytest.raises(InvalidParameterError, match="context_tokens"):
        OllamaProvider(context_tokens=0)
