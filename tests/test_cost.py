"""What requests cost, added up from events: known, unknown, saved."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from llm_manager import (
    CachePolicy,
    CostTracker,
    EchoProvider,
    EventEmitter,
    InvalidParameterError,
    LLMProviderManager,
    PriceBook,
    ProviderConnectionError,
    ProviderOverloadedError,
    RequestFinished,
    Retries,
    StreamInterruptedError,
    Usage,
)
from llm_manager.status import ErrorInfo
from llm_manager.testing import ScriptedProvider
from tests.helpers import echo

# A dollar for a token makes sums that can be read.
A_DOLLAR_EACH = {"input_usd": 1_000_000, "output_usd": 1_000_000}


def dear(pattern: str = "*/*", **price: float) -> PriceBook:
    return PriceBook({pattern: price or A_DOLLAR_EACH}, public=False)


def finish(emitter: EventEmitter, **facts: Any) -> None:
    """Publish the end of a request that took ten tokens and five."""
    facts = {
        "provider_id": "p",
        "model": "m",
        "request_id": "req-1",
        "operation": "chat",
        "outcome": "ok",
        "attempts": 1,
        "usage": Usage(prompt_tokens=10, completion_tokens=5),
        **facts,
    }
    emitter.publish(RequestFinished(**facts))


def tracked(prices: PriceBook | None = None, **limits: int) -> tuple[CostTracker, EventEmitter]:
    emitter = EventEmitter()
    return CostTracker(prices or dear(), **limits).attach(emitter), emitter


# ---- real requests -------------------------------------------------------------------------------


async def test_requests_of_all_providers_of_a_manager_are_added_up() -> None:
    manager = LLMProviderManager()
    costs = CostTracker(dear()).attach(manager)
    one, two = echo(id="one"), echo(id="two")
    manager.register_provider(one)
    manager.register_provider(two)
    await one.generate_completion(None, "a b c")
    await two.generate_completion(None, "a", options={"conversation_id": "c-1"})
    assert costs.total_usd == 8.0
    known = costs.snapshot()
    assert {m.provider_id: m.figures.usd for m in known.models} == {"one": 6.0, "two": 2.0}
    assert {m.kind for m in known.models} == {"echo"}
    assert known.conversations["c-1"].usd == 2.0
    assert known.days[datetime.now(UTC).date()].requests == 2
    assert known.providers["one"].prompt_tokens == 3
    costs.detach()
    await one.generate_completion(None, "a b c")
    assert costs.total_usd == 8.0
    await manager.close(0)


async def test_an_answer_from_a_cache_costs_nothing_and_is_counted_as_saved() -> None:
    async with echo() as provider:
        provider.add_policy(CachePolicy())
        with CostTracker(dear()).attach(provider) as costs:
            for _ in range(3):
                await provider.generate_completion(None, "a b", options={"temperature": 0})
    total = costs.snapshot().total
    assert (total.usd, total.saved_usd) == (4.0, 8.0)
    assert (total.requests, total.cached_requests, total.prompt_tokens) == (3, 2, 2)


async def test_an_answer_that_breaks_off_is_counted_by_estimate() -> None:
    provider = ScriptedProvider().cut_after(3, "one two three four")
    async with provider:
        with CostTracker(dear()).attach(provider) as costs, pytest.raises(StreamInterruptedError):
            await provider.generate_completion(None, "hi")
    total = costs.snapshot().total
    assert total.usd > 3
    assert (total.requests, total.estimated_requests) == (1, 1)


async def test_what_was_refused_or_never_arrived_is_not_counted() -> None:
    provider = (
        ScriptedProvider()
        .fail(ProviderOverloadedError("full", http_status=503))
        .fail(ProviderConnectionError("nobody there", code="refused"))
    )
    async with provider:
        with CostTracker(dear()).attach(provider) as costs:
            for kind in (ProviderOverloadedError, ProviderConnectionError):
                with pytest.raises(kind):
                    await provider.generate_completion(
                        None, "hi", options={"retries": Retries(attempts=1)}
                    )
    assert costs.snapshot().total.requests == 0


# ---- unknown is unknown --------------------------------------------------------------------------


async def test_a_request_of_unknown_price_is_visible_and_not_zero() -> None:
    costs, emitter = tracked(dear("known/*"))
    finish(emitter, provider_id="known")
    finish(emitter, provider_id="other")
    assert (costs.total_usd, costs.unknown_requests) == (15.0, 1)
    total = costs.snapshot().total
    assert (total.requests, total.prompt_tokens) == (2, 20)


def test_a_request_whose_tokens_nobody_told_is_unknown() -> None:
    costs, emitter = tracked()
    finish(emitter, usage=None)
    stopped = ErrorInfo(code="cancelled", type="RequestCancelledError", message="")
    finish(emitter, usage=None, outcome="cancelled", error=stopped)
    assert (costs.total_usd, costs.unknown_requests) == (0.0, 2)


def test_a_request_that_was_not_sent_is_not_unknown() -> None:
    costs, emitter = tracked()
    finish(emitter, usage=None, outcome="error", attempts=0)
    assert costs.snapshot().total.requests == 0


def test_a_free_model_is_known_to_cost_nothing() -> None:
    costs, emitter = tracked(dear("p/*", input_usd=0, output_usd=0))
    finish(emitter)
    assert (costs.total_usd, costs.unknown_requests) == (0.0, 0)


def test_requests_of_a_composite_are_those_of_its_parts() -> None:
    costs, emitter = tracked()
    finish(emitter, provider_id="all", composite=True)
    finish(emitter, provider_id="part", parent_id="req-1")
    assert costs.total_usd == 15.0


# ---- prices --------------------------------------------------------------------------------------


async def test_requests_that_end_before_the_prices_are_loaded_are_not_lost() -> None:
    costs, emitter = tracked(PriceBook())
    for _ in range(5):
        finish(
            emitter,
            kind="openai",
            model="gpt-4",
            usage=Usage(prompt_tokens=1000, completion_tokens=1000),
        )
    await costs.settle()
    assert costs.pending_requests == 0
    assert costs.total_usd == pytest.approx(0.45)
    finish(emitter, kind="openai", model="gpt-4", usage=Usage(prompt_tokens=1000))
    assert costs.total_usd == pytest.approx(0.48)


def test_a_price_may_be_found_by_the_model_that_answered() -> None:
    costs, emitter = tracked(dear("p/m-2026"))
    finish(emitter, model="m-latest", response_model="m-2026")
    assert costs.total_usd == 15.0
    assert costs.snapshot().models[0].model == "m-latest"


def test_without_the_package_of_public_prices_all_is_unknown_that_is_not_stated() -> None:
    code = """
import asyncio, sys
sys.modules["genai_prices"] = None
from llm_manager import CostTracker, PriceBook
costs = CostTracker(PriceBook({"a/*": {"input_usd": 1, "output_usd": 1}}))
costs.record_usage("a/x", 1_000_000, 0)
costs.record_usage("openai/gpt-4", 1_000_000, 0)
asyncio.run(costs.settle())
print(costs.total_usd, costs.unknown_requests)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1.0", "1"]


# ---- recording by hand ---------------------------------------------------------------------------


def test_usage_can_be_recorded_by_hand() -> None:
    costs = CostTracker(dear("openai/gpt-4"))
    costs.record_usage("openai/gpt-4", 10, 5)
    costs.record_usage("gpt-4", 10, 5, provider="openai", conversation_id="c")
    assert costs.total_usd == 30.0
    assert costs.snapshot().conversations["c"].usd == 15.0


def test_a_model_without_its_service_has_only_a_stated_price() -> None:
    costs = CostTracker(dear("*/llama2-70b"))
    costs.record_usage("llama2-70b", 10, 5)
    costs.record_usage("gpt-4", 10, 5)
    assert (costs.total_usd, costs.unknown_requests) == (15.0, 1)


@pytest.mark.parametrize(
    "given",
    [("", 1, 1), (None, 1, 1), ("m", -1, 1), ("m", 1, -1), ("m", 1.5, 1), ("m", True, 1)],
)
def test_usage_that_cannot_be_is_refused(given: Any) -> None:
    costs = CostTracker(dear())
    with pytest.raises(InvalidParameterError):
        costs.record_usage(*given)
    assert costs.snapshot().total.requests == 0


@pytest.mark.parametrize(
    "settings", [{"max_models": 0}, {"max_days": -1}, {"max_conversations": 1.5}, {"prices": {}}]
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError):
        CostTracker(**settings)


# ---- sums and bounds -----------------------------------------------------------------------------


def test_many_small_amounts_add_up_exactly() -> None:
    costs, emitter = tracked(dear("p/*", input_usd=0.1, output_usd=0.7))
    for _ in range(20_000):
        finish(emitter, usage=Usage(prompt_tokens=1, completion_tokens=1))
    assert costs.total_usd == 0.016


def test_models_are_bounded_and_nothing_is_lost() -> None:
    costs, emitter = tracked(max_models=3)
    for number in range(50):
        finish(emitter, model=f"m-{number}", provider_id=f"p-{number}")
    known = costs.snapshot()
    assert len(known.models) == 4
    assert (known.models[-1].provider_id, known.models[-1].figures.requests) == ("other", 47)
    assert costs.total_usd == known.total.usd == 750.0


def test_the_latest_conversations_are_remembered() -> None:
    costs, emitter = tracked(max_conversations=2)
    for conversation in ("a", "b", "a", "c"):
        finish(emitter, conversation_id=conversation)
    known = costs.snapshot()
    assert {k: v.requests for k, v in known.conversations.items()} == {"a": 2, "c": 1}
    assert known.total.requests == 4


def test_the_latest_days_are_remembered() -> None:
    costs, emitter = tracked(max_days=2)
    first = datetime(2026, 11, 1, 12, tzinfo=UTC)
    for number in (0, 2, 1):
        finish(emitter, at=first + timedelta(days=number))
    assert list(costs.snapshot().days) == [date(2026, 11, 2), date(2026, 11, 3)]


def test_a_snapshot_is_data_for_a_user_interface() -> None:
    costs, emitter = tracked()
    finish(emitter, conversation_id="c", at=datetime(2026, 11, 1, tzinfo=UTC))
    plain = costs.snapshot().to_dict()
    assert plain["total"]["unknownRequests"] == 0
    assert plain["days"]["2026-11-01"]["usd"] == 15.0


def test_a_reset_begins_at_zero() -> None:
    costs, emitter = tracked()
    finish(emitter, conversation_id="c")
    costs.reset()
    known = costs.snapshot()
    assert (known.total.requests, known.models, known.conversations, known.days) == (0, (), {}, {})
    finish(emitter)
    assert costs.total_usd == 15.0


def test_events_may_come_from_several_threads() -> None:
    costs, emitter = tracked()

    def many() -> None:
        for _ in range(500):
            finish(emitter)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert costs.total_usd == 30_000.0


def test_what_is_no_provider_cannot_be_attached() -> None:
    with pytest.raises(InvalidParameterError):
        CostTracker(dear()).attach(EchoProvider)  # type: ignore[arg-type]
