"""What `ModelMetrics` learns from the events of requests."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from llm_manager import (
    EchoAnswer,
    EventEmitter,
    FallbackProvider,
    InvalidParameterError,
    LLMProviderManager,
    ModelMetrics,
    RateLimitError,
    RequestFinished,
    RequestStarted,
    Retries,
    RetryPolicy,
    Usage,
)
from llm_manager.observe.figures import ModelFigures
from llm_manager.status import ErrorInfo
from tests.helpers import echo


def start(emitter: EventEmitter, id: str = "req-1", **about: Any) -> None:
    facts = {"provider_id": "p", "model": "m", "operation": "chat", **about}
    emitter.publish(RequestStarted(request_id=id, **facts))


def finish(emitter: EventEmitter, id: str = "req-1", **facts: Any) -> None:
    facts = {"provider_id": "p", "model": "m", "operation": "chat", "outcome": "ok", **facts}
    emitter.publish(RequestFinished(request_id=id, **facts))


def ask(emitter: EventEmitter, id: str = "req-1", **facts: Any) -> None:
    about = {k: v for k, v in facts.items() if k in ("provider_id", "model", "composite")}
    start(emitter, id, **about)
    finish(emitter, id, **facts)


def only(metrics: ModelMetrics) -> ModelFigures:
    (figures,) = metrics.snapshot().models
    return figures


async def test_requests_to_a_provider_are_counted_and_measured() -> None:
    async with echo(models=("one", "two")) as provider:
        with ModelMetrics().attach(provider) as metrics:
            await provider.generate_completion("one", "hello there you")
            await provider.generate_completion("one", "hi")
            await provider.generate_completion("two", "hi")
        figures = metrics.snapshot().of("echo", "one")
        assert figures is not None
        assert (figures.requests, figures.total, figures.kind) == ({"ok": 2}, 2, "echo")
        assert (figures.prompt_tokens, figures.completion_tokens) == (4, 4)
        assert figures.duration_s.count == figures.first_token_s.count == 2
        assert figures.in_flight == 0
        assert metrics.snapshot().of("echo", "three") is None


async def test_all_providers_of_a_manager_are_told_apart_also_those_that_come_later() -> None:
    async with LLMProviderManager() as manager:
        metrics = ModelMetrics().attach(manager)
        for id in ("a", "b"):
            manager.register_provider(echo(id=id))
            await manager.generate_completion(f"{id}/echo", "hi")
        assert [(f.provider_id, f.total) for f in metrics.snapshot().models] == [("a", 1), ("b", 1)]


async def test_errors_are_counted_by_code_and_retries_by_model() -> None:
    policies = [RetryPolicy(Retries(attempts=2, wait_s=0.0))]
    async with echo(policies=policies) as provider:
        metrics = ModelMetrics().attach(provider)
        provider.script(*[EchoAnswer(error=RateLimitError("slow down"))] * 3, EchoAnswer())
        with pytest.raises(RateLimitError):
            await provider.generate_completion("echo", "hi")
        await provider.generate_completion("echo", "hi")
        figures = only(metrics)
        assert figures.requests == {"error": 1, "ok": 1}
        assert figures.errors == {"rate_limited": 1}
        assert figures.retries == 2
        assert figures.duration_s.count == 1


async def test_a_running_request_is_in_flight_until_it_has_ended() -> None:
    async with echo() as provider:
        metrics = ModelMetrics().attach(provider)
        async with provider.stream_completion("echo", "one two three") as stream:
            async for _ in stream:
                assert only(metrics).in_flight == 1
                break
        assert (only(metrics).in_flight, only(metrics).requests) == (0, {"abandoned": 1})
        assert only(metrics).first_token_s.count == 1
        assert only(metrics).duration_s.count == 0


def test_speed_is_measured_from_the_first_token_on() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    usage = Usage(completion_tokens=101)
    ask(emitter, duration_s=12.0, first_token_s=2.0, usage=usage)
    assert only(metrics).tokens_per_s.minimum == pytest.approx(10.0)


@pytest.mark.parametrize(("first_token_s", "reasoning"), [(10.0, 0), (9.9999, 0), (2.0, 40)])
def test_speed_is_over_all_where_the_first_token_tells_nothing(first_token_s, reasoning) -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    usage = Usage(completion_tokens=100, reasoning_tokens=reasoning)
    ask(emitter, duration_s=10.0, first_token_s=first_token_s, usage=usage)
    assert only(metrics).tokens_per_s.minimum == pytest.approx(10.0)
    assert only(metrics).reasoning_tokens == reasoning


@pytest.mark.parametrize(
    "facts",
    [
        {"usage": None, "first_token_s": 1.0, "duration_s": 2.0},
        {"usage": Usage(completion_tokens=0), "first_token_s": 1.0, "duration_s": 2.0},
        {"usage": Usage(completion_tokens=9), "first_token_s": None, "duration_s": 2.0},
        {"usage": Usage(completion_tokens=9), "first_token_s": 1.0, "outcome": "abandoned"},
    ],
)
def test_there_is_no_speed_without_tokens_and_times(facts) -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    ask(emitter, **facts)
    assert only(metrics).tokens_per_s.count == 0


def test_an_answer_from_a_cache_is_a_hit_and_costs_nothing() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    usage = Usage(prompt_tokens=10, completion_tokens=5)
    ask(emitter, cached=True, usage=usage, duration_s=0.001, first_token_s=0.001)
    figures = only(metrics)
    assert (figures.requests, figures.cache_hits) == ({"ok": 1}, 1)
    assert (figures.prompt_tokens, figures.completion_tokens) == (0, 0)
    assert figures.duration_s.count == figures.first_token_s.count == 0


def test_a_request_that_is_passed_on_is_counted_once() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    start(emitter, "whole", composite=True)
    ask(emitter, "part", provider_id="inner", usage=Usage(prompt_tokens=1))
    finish(emitter, "whole", composite=True, usage=Usage(prompt_tokens=1))
    assert (only(metrics).provider_id, only(metrics).total) == ("inner", 1)


def test_the_end_of_a_request_that_began_before_counts() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    finish(emitter)
    assert (only(metrics).total, only(metrics).in_flight) == (1, 0)


def test_what_was_counted_is_right_at_any_moment_also_between_two_batches() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    for number in range(1, 200):
        start(emitter, f"req-{number}")
        assert only(metrics).in_flight == 1
        finish(emitter, f"req-{number}")
        assert (only(metrics).total, only(metrics).in_flight) == (number, 0)
    metrics.detach()
    assert only(metrics).total == 199


def test_too_many_models_are_counted_together_and_visibly() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics(max_models=2).attach(emitter)
    for number in range(10):
        ask(emitter, f"req-{number}", model=f"model-{number}")
    found = [(f.provider_id, f.model, f.total) for f in metrics.snapshot().models]
    assert found == [("p", "model-0", 1), ("p", "model-1", 1), ("other", "other", 8)]


def test_too_many_error_codes_are_counted_together_and_visibly() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    for number in range(200):
        error = ErrorInfo(code=f"code-{number}", type="LLMError", message="no")
        ask(emitter, f"req-{number}", outcome="error", error=error)
    errors = only(metrics).errors
    assert len(errors) == 51
    assert errors["other"] == 150


def test_requests_of_many_threads_are_all_counted() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)

    def work(thread: int) -> None:
        for number in range(500):
            ask(emitter, f"{thread}-{number}", duration_s=0.1, first_token_s=0.05)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Whichever thread was delivering may have taken over the events of the others.
    assert (only(metrics).total, only(metrics).in_flight) == (4000, 0)
    assert only(metrics).duration_s.count == 4000


def test_what_was_generated_elsewhere_can_be_recorded() -> None:
    metrics = ModelMetrics()
    metrics.record_generation("groq", 2.0, 100, True)
    metrics.record_generation("groq", latency_s=1.0, tokens=0, success=False)
    figures = only(metrics)
    assert (figures.provider_id, figures.model) == ("groq", "")
    assert figures.requests == {"ok": 1, "error": 1}
    assert figures.completion_tokens == 100
    assert (figures.duration_s.count, figures.duration_s.maximum) == (1, 2.0)
    assert figures.tokens_per_s.maximum == pytest.approx(50.0)
    assert sum(figures.errors.values()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency_s": -1.0},
        {"latency_s": float("nan")},
        {"latency_s": float("inf")},
        {"latency_s": "1"},
        {"tokens": -1},
        {"tokens": 1.5},
        {"provider": None},
        {"success": "yes"},
        {"model": 3},
    ],
)
def test_a_generation_that_cannot_be_is_refused_and_not_counted(wrong) -> None:
    metrics = ModelMetrics()
    given = {"provider": "p", "latency_s": 1.0, "tokens": 1, "success": True, **wrong}
    (name,) = wrong
    with pytest.raises(InvalidParameterError, match=name):
        metrics.record_generation(**given)
    assert metrics.snapshot().models == ()


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "10", True])
def test_a_number_of_models_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(InvalidParameterError, match="max_models"):
        ModelMetrics(max_models=wrong)


def test_reset_forgets_what_has_ended_and_not_what_runs() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    ask(emitter, "one")
    start(emitter, "two")
    before = metrics.snapshot().since
    metrics.reset()
    assert (only(metrics).total, only(metrics).in_flight) == (0, 1)
    assert metrics.snapshot().since > before
    finish(emitter, "two")
    assert (only(metrics).total, only(metrics).in_flight) == (1, 0)


def test_a_snapshot_does_not_change_and_is_plain_data() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    ask(emitter, "one", duration_s=1.0)
    before = metrics.snapshot()
    ask(emitter, "two", duration_s=1.0)
    assert before.models[0].requests == {"ok": 1}
    plain = before.to_dict()["models"][0]
    assert plain["providerId"] == "p"
    assert plain["durationS"]["p50"] == pytest.approx(1.0, rel=0.02)


# ---- attaching, which all listeners share --------------------------------------------------------


def test_detaching_ends_the_counting_and_attaching_again_goes_on() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics()
    with metrics.attach(emitter):
        start(emitter, "never seen to end")
        ask(emitter, "one")
        assert metrics.attached
    assert not metrics.attached
    ask(emitter, "two")
    assert (only(metrics).total, only(metrics).in_flight) == (1, 0)
    metrics.detach()
    metrics.attach(emitter)
    ask(emitter, "three")
    assert only(metrics).total == 2
    metrics.detach()
    assert not emitter.event_names()


def test_attaching_the_same_twice_counts_once_and_two_may_be_attached() -> None:
    one, two = EventEmitter(), EventEmitter()
    metrics = ModelMetrics().attach(one).attach(one).attach(two)
    ask(one, "a")
    ask(two, "b")
    assert only(metrics).total == 2


async def test_a_part_is_counted_once_where_a_composite_and_its_member_are_attached() -> None:
    member, other = echo(id="member"), echo(id="other")
    async with FallbackProvider([member, other]) as composite:
        for order in ([composite, member], [member, composite]):
            metrics = ModelMetrics()
            for emitter in order:
                metrics.attach(emitter)
            for _ in range(3):
                await composite.generate_completion("echo", "hello")
            await member.generate_completion("echo", "hello")
            assert only(metrics).total == 4
            metrics.detach()


async def test_a_member_that_comes_into_an_attached_manager_in_a_composite_is_heard_once() -> None:
    member = echo(id="member")
    async with LLMProviderManager() as manager:
        metrics = ModelMetrics().attach(member).attach(manager)
        composite = manager.register_provider(FallbackProvider([member]))
        await composite.generate_completion("echo", "hello")
        await member.generate_completion("echo", "hello")
        assert only(metrics).total == 2


async def test_a_provider_and_its_manager_cannot_both_be_attached() -> None:
    async with LLMProviderManager() as manager:
        provider = manager.register_provider(echo())
        with pytest.raises(InvalidParameterError, match="belongs together"):
            ModelMetrics().attach(manager).attach(provider)
        with pytest.raises(InvalidParameterError, match="belongs together"):
            ModelMetrics().attach(provider).attach(manager)
        alone = echo(id="alone")
        assert ModelMetrics().attach(manager).attach(alone).attached
        await alone.close()


async def test_a_provider_that_is_registered_later_is_not_counted_twice() -> None:
    async with LLMProviderManager() as manager:
        provider = echo()
        metrics = ModelMetrics().attach(provider).attach(manager)
        await provider.generate_completion("echo", "before")
        manager.register_provider(provider)
        await provider.generate_completion("echo", "after")
        assert only(metrics).requests == {"ok": 2}
        metrics.detach()
        await provider.generate_completion("echo", "later")
        assert only(metrics).requests == {"ok": 2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_what_runs_in_the_parent_does_not_run_in_a_forked_child() -> None:
    # A process of its own: this one may have threads, of which a fork knows nothing.
    script = """
import os
from llm_manager import EventEmitter, ModelMetrics, RequestStarted

emitter = EventEmitter()
metrics = ModelMetrics().attach(emitter)
emitter.publish(RequestStarted(provider_id="p", request_id="r", model="m", operation="chat"))
assert metrics.snapshot().models[0].in_flight == 1
child = os.fork()
if child == 0:
    os._exit(metrics.snapshot().models[0].in_flight)
assert os.waitpid(child, 0)[1] == 0
assert metrics.snapshot().models[0].in_flight == 1
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_a_request_that_was_cancelled_has_not_failed() -> None:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    cancelled = ErrorInfo(code="cancelled", type="RequestCancelledError", message="cancelled")
    ask(emitter, outcome="cancelled", error=cancelled)
    assert (only(metrics).requests, only(metrics).errors) == ({"cancelled": 1}, {})


@pytest.mark.parametrize("wrong", [None, "openai", object(), EventEmitter])
def test_what_has_no_events_cannot_be_attached(wrong) -> None:
    with pytest.raises(InvalidParameterError, match="provider or a manager"):
        ModelMetrics().attach(wrong)
