"""Embeddings, over real sockets."""

from __future__ import annotations

import pytest

from llm_manager import (
    InvalidResponseError,
    LLMProviderManager,
    OllamaProvider,
    OpenAICompatibleProvider,
    RateLimitError,
    UnsupportedFeatureError,
)
from llm_manager.providers.rows import ROWS
from llm_manager.testing import Reply, ScriptedPeer

from ..helpers import QUICK, Record

NO_WAIT = {"retries": {"wait_s": 0.0, "wait_max_s": 0.0}}
PLACE = "/v1/embeddings"


def reply(*vectors: list[float], **how) -> Reply:
    data = [{"index": i, "embedding": v} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return Reply.json({"object": "list", "data": data, "model": "e-1", "usage": usage}, **how)


def provider_at(peer: ScriptedPeer, kind: str = "compatible", **settings):
    settings.setdefault("reconnect", QUICK)
    settings.setdefault("default_options", NO_WAIT)
    return OpenAICompatibleProvider(
        row=ROWS[kind], base_url=f"{peer.base_url}/v1", api_key="sk-test", **settings
    )


async def test_texts_become_vectors_in_one_request(peer) -> None:
    peer.route(PLACE, reply([1.0, 0.0], [0.0, 1.0], write_size=7))
    provider = provider_at(peer)
    record = Record(provider)
    found = await provider.embed("e", ["one", "two"], {"extra": {"dimensions": 2}})
    assert found.vectors == ([1.0, 0.0], [0.0, 1.0])
    assert (found.model, found.provider_id, found.usage.prompt_tokens) == ("e-1", "compatible", 3)
    (sent,) = peer.requests
    assert sent.json() == {
        "model": "e", "input": ["one", "two"], "encoding_format": "float", "dimensions": 2,
    }  # fmt: skip
    (finished,) = record.named("requestFinished")
    assert (finished.operation, finished.outcome, finished.request_id) == (
        "embed", "ok", found.request_id,
    )  # fmt: skip
    await provider.close()


async def test_one_text_is_a_text(peer) -> None:
    peer.route(PLACE, reply([1.0]))
    async with LLMProviderManager() as manager:
        manager.register_provider("compatible", id="mine", base_url=f"{peer.base_url}/v1")
        assert (await manager.embed("mine/e", "one")).vectors == ([1.0],)


async def test_too_few_vectors_are_an_error_and_not_repeated(peer) -> None:
    peer.route(PLACE, reply([1.0, 0.0]))
    provider = provider_at(peer)
    with pytest.raises(InvalidResponseError, match="1 vectors came for 2 texts"):
        await provider.embed("e", ["one", "two"])
    assert len(peer.requests) == 1
    await provider.close()


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_an_answer_that_breaks_off_is_asked_for_again(peer, ending) -> None:
    # Nothing of it has been delivered: to repeat it is safe.
    peer.script(reply([1.0], ending=ending), reply([1.0]))
    provider = provider_at(peer)
    assert (await provider.embed("e", "one")).vectors == ([1.0],)
    assert len(peer.requests) == 2
    await provider.close()


async def test_a_busy_service_is_asked_again(peer) -> None:
    peer.script(Reply.json({"error": {"message": "slow down"}}, status=429), reply([1.0]))
    provider = provider_at(peer)
    assert (await provider.embed("e", "one")).vectors == ([1.0],)
    peer.route(PLACE, Reply.json({"error": {"message": "no", "code": "rate_limit_exceeded"}}))
    with pytest.raises(RateLimitError):
        await provider.embed("e", "one", {"retries": {"attempts": 1}})
    await provider.close()


async def test_ollama_embeds_by_its_own_api(peer) -> None:
    peer.route(
        "/api/embed",
        Reply.json({"model": "e", "embeddings": [[1.0], [2.0]], "prompt_eval_count": 4}),
    )
    provider = OllamaProvider(base_url=peer.base_url, keep_alive=-1)
    found = await provider.embed("e", ["one", "two"])
    assert (found.vectors, found.usage.prompt_tokens) == (([1.0], [2.0]), 4)
    assert peer.requests[-1].json() == {
        "model": "e", "input": ["one", "two"], "truncate": False, "keep_alive": -1,
    }  # fmt: skip
    await provider.close()


async def test_what_a_service_always_wants_is_sent(peer) -> None:
    peer.route(PLACE, reply([1.0]))
    provider = provider_at(peer, "nvidia")
    await provider.embed("e", "one")
    await provider.embed("e", "one", {"extra": {"input_type": "passage"}})
    assert [r.json()["input_type"] for r in peer.requests] == ["query", "passage"]
    await provider.close()


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.id)
async def test_each_row_embeds_or_says_that_it_cannot(peer, row) -> None:
    peer.route(PLACE, reply([1.0]))
    provider = provider_at(peer, row.id)
    if provider.get_capabilities().supports("embeddings"):
        assert (await provider.embed("e", "one")).vectors == ([1.0],)
    else:
        with pytest.raises(UnsupportedFeatureError, match="cannot do: embeddings"):
            await provider.embed("e", "one")
        assert peer.requests == []
    await provider.close()
