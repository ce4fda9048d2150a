"""Model metrics: latencies, tokens and errors of every model, from events or recorded by hand."""

from __future__ import annotations

import pytest

from llm_manager import EchoAnswer, ModelMetrics, RateLimitError, create_llm

from ..test_create_llm import script


async def test_generations_are_recorded_by_themselves() -> None:
    async with create_llm("echo", words_per_s=float("inf")) as llm:
        with ModelMetrics().attach(llm.provider) as metrics:
            await llm.generate_async("one two three")
            await llm.generate_async("one two")
            script(llm, EchoAnswer(error=RateLimitError("slow down", retryable=False)))
            with pytest.raises(RateLimitError):
                await llm.generate_async("one")
    (figures,) = metrics.snapshot().models
    assert (figures.provider_id, figures.model) == ("echo", "echo")
    assert figures.requests == {"ok": 2, "error": 1}
    assert figures.errors == {"rate_limited": 1}
    assert figures.completion_tokens == 5
    assert figures.duration_s.count == 2
    assert 0 < figures.first_token_s.p50 <= figures.duration_s.maximum


def test_a_generation_of_elsewhere_is_recorded_by_hand() -> None:
    metrics = ModelMetrics()
    metrics.record_generation("groq", latency_s=0.8, tokens=120, success=True)
    metrics.record_generation("groq", latency_s=0.2, tokens=0, success=False)
    (figures,) = metrics.snapshot().models
    assert figures.total == 2
    assert figures.completion_tokens == 120
    assert figures.duration_s.mean == pytest.approx(0.8)
    assert sum(figures.errors.values()) == 1


def test_a_monitor_reads_them_as_text() -> None:
    metrics = ModelMetrics()
    metrics.record_generation("groq", latency_s=0.8, tokens=120, success=True)
    assert 'provider="groq"' in metrics.to_prometheus()
