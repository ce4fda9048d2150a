"""Error handling: one class for each thing a caller can do, with the facts in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llm_manager import (
    LLM,
    AuthenticationError,
    ContextWindowExceededError,
    LLMError,
    ModelNotFoundError,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    create_llm,
    run_sync,
)
from llm_manager.testing import Reply, ScriptedPeer

KEY = "sk-0123456789abcdef"


@pytest.fixture
def peer() -> Iterator[ScriptedPeer]:
    with ScriptedPeer() as peer:
        yield peer


@pytest.fixture
def llm(peer: ScriptedPeer) -> Iterator[LLM]:
    with create_llm(
        "openai", api_key=KEY, base_url=f"{peer.base_url}/v1", model="gpt-4o",
        retries={"attempts": 1},
    ) as made:  # fmt: skip
        yield made


def refusal(status: int, code: str, message: str, **headers: str) -> Reply:
    return Reply.json(
        {"error": {"message": message, "type": code, "code": code}}, status=status, headers=headers
    )


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refusal(401, "invalid_api_key", f"Incorrect API key: {KEY}"), AuthenticationError),
        (refusal(429, "insufficient_quota", "You exceeded your quota"), QuotaExceededError),
        (
            refusal(400, "context_length_exceeded", "maximum context length is 8192 tokens"),
            ContextWindowExceededError,
        ),
        (refusal(404, "model_not_found", "The model does not exist"), ModelNotFoundError),
        (refusal(500, "server_error", "Something broke"), ProviderAPIError),
    ],
)
def test_an_answer_that_says_no_has_its_class(llm: LLM, peer: ScriptedPeer, reply, kind) -> None:
    peer.script(reply)
    with pytest.raises(kind) as failed:
        llm.generate("Hello")
    error = failed.value
    assert (error.provider_id, error.http_status) == ("openai", reply.status)
    assert error.request_id
    assert KEY not in f"{error} {error!r} {error.original} {error.hint}"


def test_a_rate_limit_says_how_long_to_wait(llm: LLM, peer: ScriptedPeer) -> None:
    limit = {"retry-after": "7"}
    peer.script(refusal(429, "rate_limit_exceeded", "Rate limit reached", **limit))
    with pytest.raises(RateLimitError) as failed:
        llm.generate("Hello")
    assert failed.value.retry_after_s == 7
    assert failed.value.retryable


def test_no_connection_is_an_error_of_its_own() -> None:
    with create_llm(
        "openai", api_key=KEY, base_url="http://127.0.0.1:1/v1", model="m", retries={"attempts": 1}
    ) as llm:
        with pytest.raises(ProviderConnectionError) as failed:
            llm.generate("Hello")
        assert failed.value.code == "refused"
        run_sync(llm.provider.disconnect())


def test_one_class_catches_them_all(llm: LLM, peer: ScriptedPeer) -> None:
    peer.script(Reply(status=500, body=[b"<html>oops</html>"]))
    with pytest.raises(LLMError):
        llm.generate("Hello")
    peer.script(Reply(status=500, body=[b""]))
    with pytest.raises(ProviderError):
        llm.generate("Hello")


def test_an_error_of_ones_own_carries_its_facts() -> None:
    facts: dict[str, Any] = {"retry_after_s": 2.0, "original": "SDKError: slow down"}
    error = RateLimitError("too many requests", provider_id="mine", **facts)
    assert (error.code, error.retryable, error.provider_id) == ("rate_limited", True, "mine")
    assert (error.retry_after_s, error.original) == (2.0, "SDKError: slow down")
