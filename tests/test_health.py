"""What `ProviderHealth` learns from the events of providers, without asking them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from llm_manager import (
    BudgetExceededError,
    BudgetPolicy,
    EventEmitter,
    FallbackProvider,
    HealthCheck,
    InvalidParameterError,
    LLMProviderManager,
    LLMProviderStatus,
    ProviderConnectionError,
    ProviderHealth,
    ProviderNotFoundError,
    ProviderStatus,
    Reason,
    RequestFinished,
    StatusChanged,
    SystemResumed,
)
from llm_manager.observe.uptime import DAY_S, HOUR_S, Timeline
from llm_manager.status import ErrorInfo
from llm_manager.testing.clock import FakeClock
from tests.helpers import Record, echo

REFUSED = ErrorInfo(code="refused", type="ProviderConnectionError", message="refused")


class Life:
    """A provider whose events a test publishes, and the health that listens to it."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.emitter = EventEmitter()
        self.health = ProviderHealth(clock=self.clock, **settings).attach(self.emitter)
        self.state = LLMProviderStatus(provider_id="p")
        self.becomes("disconnected")

    def becomes(self, word: str, reason: str = "user", error: ErrorInfo | None = None) -> None:
        previous = self.state
        self.state = msgspec.structs.replace(
            previous, status=ProviderStatus(word), reason=Reason(reason), error=error
        )
        self.emitter.publish(StatusChanged(provider_id="p", previous=previous, current=self.state))

    def spends(self, seconds: float, word: str, **why: Any) -> None:
        self.becomes(word, **why)
        self.clock.advance(seconds)

    def finishes(self, outcome: str = "ok", **facts: Any) -> None:
        facts = {"attempts": 1, **facts}
        self.emitter.publish(
            RequestFinished(
                provider_id="p",
                request_id="r",
                model="m",
                operation="chat",
                outcome=outcome,
                **facts,
            )
        )

    def fails(self, code: str = "timeout", **facts: Any) -> None:
        error = ErrorInfo(code=code, type="LLMError", message="no")
        self.finishes("error", error=error, **facts)

    @property
    def now(self):
        return self.health.of("p")


# ---- real providers ------------------------------------------------------------------------------


async def test_a_provider_is_healthy_once_it_has_proven_itself_and_not_when_it_is_gone() -> None:
    async with LLMProviderManager() as manager:
        provider = manager.register_provider(echo())
        health = ProviderHealth().attach(manager)
        assert health.check_provider("echo") is False
        await provider.connect()
        assert health.check_provider("echo") is True
        provider.go_offline()
        with pytest.raises(ProviderConnectionError):
            await provider.generate_completion("echo", "hi")
        await provider.wait_for("reconnecting")
        assert health.check_provider("echo") is False
        provider.go_online()
        await provider.wait_for("connected")
        figures = health.of("echo")
        assert figures.usable
        assert (figures.drops, figures.reconnects) == (1, 1)
        assert figures.last_error is not None
        assert figures.last_error.code == "refused"
        assert figures.latency_ms is not None
        assert figures.probed_at is not None
        words = [note.status.value for note in reversed(figures.history)]
        assert words[:4] == ["disconnected", "connecting", "connected", "reconnecting"]
        assert words[-1] == "connected"


async def test_health_sends_no_request_and_no_probe_of_its_own() -> None:
    async with echo(probe_interval_s=None) as provider:
        seen = Record(provider)
        health = ProviderHealth().attach(provider)
        for _ in range(10):
            health.check_provider("echo")
            health.snapshot()
        assert len(seen) == 0
        assert len(provider.requests) == 0


async def test_a_provider_that_was_taken_out_is_forgotten() -> None:
    async with LLMProviderManager() as manager:
        manager.register_provider(echo())
        health = ProviderHealth().attach(manager)
        await manager.unregister_provider("echo")
        assert health.snapshot().providers == ()
        with pytest.raises(ProviderNotFoundError):
            health.check_provider("echo")


def test_a_provider_that_was_never_heard_of_is_not_just_unhealthy() -> None:
    life = Life()
    with pytest.raises(ProviderNotFoundError, match="'q'") as caught:
        life.health.check_provider("q")
    assert caught.value.hint
    with pytest.raises(ProviderNotFoundError) as caught:
        Life().health.check_provider("pp")
    assert "did you mean 'p'" in (caught.value.hint or "")


# ---- uptime --------------------------------------------------------------------------------------


def test_uptime_is_the_part_of_the_time_that_it_was_usable() -> None:
    life = Life()
    life.spends(100, "connecting")
    life.spends(1800, "connected")
    life.spends(600, "reconnecting")
    life.spends(600, "degraded")
    life.spends(300, "failed")
    life.spends(5000, "disconnected")
    uptime = life.now.uptime
    assert uptime.up_s == pytest.approx(2400, abs=1)
    assert uptime.down_s == pytest.approx(900, abs=1)
    assert uptime.fraction == pytest.approx(2400 / 3300, abs=0.001)


def test_each_window_sees_what_lies_in_it() -> None:
    life = Life()
    life.spends(2 * 3600, "reconnecting")
    life.spends(30 * 60, "connected")
    assert life.now.uptime_hour.fraction == pytest.approx(0.5, abs=0.02)
    assert life.now.uptime_day.fraction == pytest.approx(0.2, abs=0.01)
    life.clock.advance(60 * 60)
    assert life.now.uptime_hour.fraction == pytest.approx(1.0, abs=0.02)
    life.clock.advance(23 * 3600)
    assert life.now.uptime_day.fraction == pytest.approx(1.0, abs=0.01)
    assert life.now.uptime.fraction == pytest.approx(24.5 / 26.5, abs=0.01)


def test_what_was_never_started_has_no_uptime() -> None:
    life = Life()
    life.clock.advance(1000)
    assert life.now.uptime.fraction is None
    assert life.now.uptime_hour.fraction is None
    assert life.now.streak_s is None


def test_the_streak_goes_on_through_steps_that_are_no_break() -> None:
    life = Life()
    life.spends(50, "connected")
    life.spends(50, "degraded", reason="slow")
    assert life.now.streak_s == pytest.approx(100, abs=1)
    life.spends(30, "reconnecting")
    assert life.now.streak_s == pytest.approx(30, abs=1)


def test_a_sleep_of_the_computer_is_neither_up_nor_down() -> None:
    life = Life()
    life.spends(600, "connected")
    life.clock.suspend(8 * 3600)
    life.emitter.publish(
        SystemResumed(provider_id="p", suspended_for_s=8 * 3600, detector="suspend")
    )
    life.spends(600, "reconnecting")
    uptime = life.now.uptime
    assert (uptime.up_s, uptime.down_s) == pytest.approx((600, 600), abs=1)
    assert life.now.uptime_hour.fraction == pytest.approx(0.5, abs=0.02)


def test_time_in_which_the_process_stood_still_is_left_out() -> None:
    life = Life()
    life.spends(600, "connected")
    life.clock.advance(8 * 3600)  # here the clock went on
    life.emitter.publish(
        SystemResumed(provider_id="p", suspended_for_s=8 * 3600, detector="late_timer")
    )
    life.clock.advance(600)
    assert life.now.uptime.up_s == pytest.approx(1200, abs=1)
    assert life.now.streak_s == pytest.approx(1200, abs=1)


def test_time_in_which_nobody_listened_is_neither_up_nor_down() -> None:
    life = Life()
    life.spends(100, "connected")
    life.health.detach()
    life.clock.advance(1000)
    assert life.now.uptime.up_s == pytest.approx(100, abs=1)
    life.health.attach(life.emitter)
    life.emitter.publish(
        StatusChanged(provider_id="p", previous=life.state, current=life.state, replayed=True)
    )
    life.clock.advance(50)
    assert life.now.uptime.up_s == pytest.approx(150, abs=1)


def test_a_timeline_of_weeks_keeps_a_day_and_the_totals() -> None:
    timeline = Timeline(0.0)
    for day in range(30):
        timeline.change(True, day * DAY_S)
        timeline.change(False, day * DAY_S + DAY_S / 2)
    assert timeline.in_all(30 * DAY_S).fraction == pytest.approx(0.5)
    assert timeline.over(DAY_S, 30 * DAY_S).fraction == pytest.approx(0.5, abs=0.001)
    assert timeline.over(HOUR_S, 30 * DAY_S).fraction == 0.0
    timeline.change(True, 30 * DAY_S)
    after_a_year = 395 * DAY_S
    assert timeline.over(DAY_S, after_a_year).fraction == 1.0
    assert timeline.over(DAY_S, after_a_year).up_s == pytest.approx(DAY_S, abs=61)


# ---- drops ---------------------------------------------------------------------------------------


def test_losses_and_returns_are_counted_and_stopping_is_neither() -> None:
    life = Life()
    life.becomes("reconnecting", "refused")  # was never there
    life.becomes("connected", "recovered")
    assert (life.now.drops, life.now.reconnects) == (0, 0)
    life.becomes("reconnecting", "reset")
    life.becomes("connecting", "user")
    life.becomes("connected", "recovered")
    assert (life.now.drops, life.now.reconnects) == (1, 1)
    life.becomes("disconnected", "user")
    life.becomes("connected", "startup")
    assert (life.now.drops, life.now.reconnects) == (1, 1)


def test_three_losses_in_ten_minutes_are_flapping_until_it_has_calmed_down() -> None:
    life = Life()
    for _ in range(3):
        assert not life.now.flapping
        life.spends(60, "connected")
        life.spends(60, "reconnecting")
    assert life.now.flapping
    life.spends(600, "connected")
    assert not life.now.flapping


def test_the_history_is_bounded_newest_first_and_has_reasons() -> None:
    life = Life(history=3)
    life.becomes("connecting", "startup")
    life.becomes("connected", "recovered")
    life.becomes("degraded", "slow")
    life.becomes("reconnecting", "refused", REFUSED)
    notes = [(n.status, n.reason, n.error_code) for n in life.now.history]
    assert notes == [
        ("reconnecting", "refused", "refused"),
        ("degraded", "slow", None),
        ("connected", "recovered", None),
    ]
    assert all(note.at.tzinfo is UTC for note in life.now.history)


# ---- requests and probes -------------------------------------------------------------------------


def test_the_success_rate_is_that_of_the_last_requests() -> None:
    life = Life(requests=4)
    assert life.now.success_rate is None
    life.fails()
    life.finishes()
    assert life.now.success_rate == 0.5
    life.fails()
    life.fails()
    assert (life.now.success_rate, life.now.failures_in_a_row) == (0.25, 2)
    for _ in range(4):
        life.finishes()
    assert (life.now.requests, life.now.success_rate, life.now.failures_in_a_row) == (4, 1.0, 0)


def test_requests_that_say_nothing_about_the_provider_do_not_count() -> None:
    life = Life()
    cancelled = ErrorInfo(code="cancelled", type="RequestCancelledError", message="cancelled")
    life.finishes("cancelled")
    life.finishes("cancelled", error=cancelled)
    life.finishes("abandoned")
    life.finishes(cached=True)
    life.fails("circuit_open", attempts=0)
    life.fails("budget_exceeded", attempts=0)
    for code in ("invalid_request", "context_window_exceeded", "content_filtered"):
        life.fails(code)
    assert life.now.requests == 0
    assert life.now.last_error is None


def test_the_last_error_and_the_last_latency_stay_known() -> None:
    life = Life()
    at = datetime(2026, 1, 2, tzinfo=UTC)
    life.emitter.publish(HealthCheck(provider_id="p", phase="started"))
    assert (life.now.probed_at, life.now.latency_ms) == (None, None)
    life.emitter.publish(HealthCheck(provider_id="p", phase="succeeded", latency_ms=12.5))
    life.emitter.publish(
        HealthCheck(provider_id="p", phase="failed", latency_ms=900.0, error=REFUSED, at=at)
    )
    assert (life.now.latency_ms, life.now.probed_at) == (12.5, at)
    assert (life.now.last_error, life.now.last_error_at) == (REFUSED, at)
    life.finishes()
    assert life.now.last_error == REFUSED


def test_events_of_a_provider_that_was_not_introduced_are_no_news() -> None:
    emitter = EventEmitter()
    health = ProviderHealth().attach(emitter)
    emitter.publish(HealthCheck(provider_id="q", phase="succeeded", latency_ms=1.0))
    emitter.publish(SystemResumed(provider_id="q", suspended_for_s=1.0, detector="late_timer"))
    emitter.publish(
        RequestFinished(
            provider_id="q", request_id="r", model="m", operation="chat", outcome="ok", attempts=1
        )
    )
    assert health.snapshot().providers == ()


def test_a_snapshot_is_plain_data() -> None:
    life = Life()
    life.spends(10, "connected")
    plain = life.health.snapshot().to_dict()["providers"][0]
    assert plain["providerId"] == "p"
    assert plain["usable"] is True
    assert plain["uptimeHour"]["fraction"] == 1.0


@pytest.mark.parametrize("wrong", [{"history": 0}, {"requests": -1}, {"history": 1.5}])
def test_numbers_that_cannot_be_are_refused(wrong) -> None:
    (name,) = wrong
    with pytest.raises(InvalidParameterError, match=name):
        ProviderHealth(**wrong)


async def test_what_a_budget_kept_from_a_member_says_nothing_about_the_composite() -> None:
    async with LLMProviderManager() as manager:
        member = manager.register_provider(echo(id="a"))
        team = manager.register_provider(FallbackProvider([member], id="team"))
        manager.add_policy(BudgetPolicy(max_tokens_per_request=1))
        health = ProviderHealth().attach(manager)
        await team.connect()
        for _ in range(10):
            with pytest.raises(BudgetExceededError):
                await team.generate_completion("echo", "hi")
        figures = health.of("team")
        assert (figures.requests, figures.last_error) == (0, None)
        assert health.check_provider("team")
