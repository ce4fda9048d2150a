"""The status goes along legal steps only, and a snapshot says whether anything differs."""

from __future__ import annotations

import json
import logging
import pickle
import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from llm_manager import (
    AuthenticationError,
    ConfigurationError,
    ContentFilteredError,
    ContextWindowExceededError,
    DependencyMissingError,
    ErrorInfo,
    EventEmitter,
    InvalidRequestError,
    InvalidResponseError,
    LLMError,
    LLMProviderStatus,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderAPIError,
    ProviderConnectionError,
    ProviderOverloadedError,
    ProviderStatus,
    QuotaExceededError,
    RateLimitError,
    RateLimits,
    Reason,
    RequestTimeoutError,
    StreamInterruptedError,
)
from llm_manager.machine import IllegalTransitionError, StatusMachine
from llm_manager.status import STATE_FIELDS, is_permanent, reason_of

from .helpers import Record, echo

S = ProviderStatus
NOW = datetime(2026, 1, 2, tzinfo=UTC)
KEY = "sk-abcdefghij0123456789"

# The table, written down a second time: a row for each status, a mark for each legal next one.
#                    dis con cd  deg rec fai dra clo
LEGAL = {
    "disconnected": " .   x   .   .   .   .   .   x ",
    "connecting":   " x   .   x   x   x   x   x   . ",
    "connected":    " x   x   .   x   x   x   x   . ",
    "degraded":     " x   x   x   .   x   x   x   . ",
    "reconnecting": " x   x   x   x   .   x   x   . ",
    "failed":       " x   x   .   .   .   .   x   . ",
    "draining":     " x   .   .   .   .   .   .   x ",
    "closed":       " .   .   .   .   .   .   .   . ",
}  # fmt: skip
PAIRS = [
    (S(before), after, mark == "x")
    for before, marks in LEGAL.items()
    for after, mark in zip(S, marks.split(), strict=True)
]
# How each status is reached.
WAYS = {
    S.DISCONNECTED: (),
    S.CONNECTING: (S.CONNECTING,),
    S.CONNECTED: (S.CONNECTING, S.CONNECTED),
    S.DEGRADED: (S.CONNECTING, S.DEGRADED),
    S.RECONNECTING: (S.CONNECTING, S.RECONNECTING),
    S.FAILED: (S.CONNECTING, S.FAILED),
    S.DRAINING: (S.CONNECTING, S.DRAINING),
    S.CLOSED: (S.CLOSED,),
}


def machine_at(status: ProviderStatus) -> tuple[StatusMachine, Record]:
    """A machine with that status, and a record of what it announces from then on."""
    emitter = EventEmitter()
    machine = StatusMachine(emitter, "p")
    for step in WAYS[status]:
        machine.change(step)
    return machine, Record(emitter)


# ---- the table -----------------------------------------------------------------------------------


def test_there_are_eight_words() -> None:
    assert len(PAIRS) == 64
    assert list(S) == list(LEGAL)


@pytest.mark.parametrize(
    ("before", "after"), [(b, a) for b, a, legal in PAIRS if legal], ids=lambda s: s.value
)
def test_a_legal_step_is_taken_and_announced(before, after) -> None:
    machine, record = machine_at(before)
    previous = machine.state
    assert machine.change(after, Reason.USER) is True
    assert (machine.state.status, machine.state.seq) == (after, previous.seq + 1)
    (event,) = record
    assert (event.previous, event.current) == (previous, machine.state)
    assert event.at == machine.state.since


@pytest.mark.parametrize(
    ("before", "after"),
    [(b, a) for b, a, legal in PAIRS if not legal and a is not b],
    ids=lambda s: s.value,
)
def test_an_illegal_step_raises_and_changes_nothing(before, after) -> None:
    machine, record = machine_at(before)
    previous = machine.state
    with pytest.raises(IllegalTransitionError, match=f"p: no step from {before} to {after}"):
        machine.change(after, Reason.USER, attempt=5)
    assert machine.state is previous
    assert record == []


@pytest.mark.parametrize("status", list(S))
def test_the_same_status_again_is_neither_an_error_nor_an_event(status) -> None:
    machine, record = machine_at(status)
    previous = machine.state
    assert machine.change(status) is False
    assert (machine.state, record) == (previous, [])
    assert machine.state.seq == previous.seq


def test_outside_of_tests_an_illegal_step_is_logged_and_ignored(caplog, monkeypatch) -> None:
    monkeypatch.setattr(StatusMachine, "strict", False)
    machine, record = machine_at(S.CLOSED)
    assert machine.change(S.CONNECTED) is False
    assert (machine.state.status, record) == ("closed", [])
    assert [r.message for r in caplog.records] == ["p: no step from closed to connected; ignored"]


def test_an_illegal_step_is_not_logged_under_the_lock(monkeypatch) -> None:
    monkeypatch.setattr(StatusMachine, "strict", False)
    machine, _ = machine_at(S.CLOSED)
    stuck = []

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            thread = threading.Thread(target=machine.measure, kwargs={"in_flight": 1})
            thread.start()
            thread.join(1)
            stuck.append(thread.is_alive())

    handler = Slow()
    logging.getLogger("llm_manager.status").addHandler(handler)
    try:
        machine.change(S.CONNECTED)
    finally:
        logging.getLogger("llm_manager.status").removeHandler(handler)
    assert stuck == [False]


def test_usable_and_live_divide_the_words() -> None:
    assert {s for s in S if s.usable} == {"connected", "degraded"}
    assert {s for s in S if s.live} == {
        "connecting", "connected", "degraded", "reconnecting", "failed",
    }  # fmt: skip
    assert LLMProviderStatus(provider_id="p", status=S.DEGRADED).usable
    assert not LLMProviderStatus(provider_id="p", status=S.FAILED).usable


# ---- what is a change ----------------------------------------------------------------------------

OTHER = {
    "status": S.CONNECTED,
    "reason": Reason.USER,
    "error": ErrorInfo(code="refused", type="ProviderConnectionError", message="no"),
    "attempt": 1,
    "retry_at": NOW,
    "cooldown_until": NOW,
    "circuit": "open",
}
# They follow the model list, which has an event of its own.
MODELS = {
    "models_revision": 1,
    "models_stale": True,
}
MEASURES = {
    "verified_at": NOW,
    "latency_ms": 5.0,
    "in_flight": 3,
    "queued": 2,
    "rate_limits": RateLimits(requests_left=1),
}


def test_every_field_is_part_of_the_state_or_is_known_not_to_be() -> None:
    identity = {"provider_id", "instance_id", "seq", "epoch", "since"}
    assert set(STATE_FIELDS) == set(OTHER)
    fields = identity | set(OTHER) | set(MODELS) | set(MEASURES)
    assert set(LLMProviderStatus.__struct_fields__) == fields


@pytest.mark.parametrize("field", OTHER)
def test_a_field_of_the_state_makes_snapshots_differ(field) -> None:
    plain = LLMProviderStatus(provider_id="p")
    other = msgspec.structs.replace(plain, **{field: OTHER[field]})
    assert plain != other
    assert not plain.same_state(other)
    assert other == msgspec.structs.replace(other)


@pytest.mark.parametrize("field", MEASURES)
def test_a_measure_makes_no_difference(field) -> None:
    plain = LLMProviderStatus(provider_id="p")
    other = msgspec.structs.replace(plain, **{field: MEASURES[field]})
    assert plain == other
    assert plain.same_state(other)
    assert hash(plain) == hash(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [("provider_id", "q"), ("instance_id", "j"), ("seq", 2), ("epoch", 2), *MODELS.items()],
)
def test_snapshots_of_another_time_or_object_differ_though_their_state_is_one(field, value) -> None:
    plain = LLMProviderStatus(provider_id="p", instance_id="i", seq=1, epoch=1)
    other = msgspec.structs.replace(plain, **{field: value})
    assert plain != other
    assert plain.same_state(other)
    assert (plain != "p") is True


@pytest.mark.parametrize("field", [f for f in OTHER if f != "status"])
def test_each_change_of_the_state_is_one_event(field) -> None:
    machine, record = machine_at(S.CONNECTED)
    seq = machine.state.seq
    change = {field: OTHER[field]}
    assert machine.change(**change) is True
    assert machine.change(**change) is False
    (event,) = record
    assert (event.previous.seq, event.current.seq, machine.state.seq) == (seq, seq + 1, seq + 1)
    assert getattr(event.current, field) == OTHER[field]
    assert event.current.since == event.previous.since  # the word has not changed


def test_measures_and_the_model_list_change_without_a_change_of_status() -> None:
    machine, record = machine_at(S.CONNECTED)
    seq = machine.state.seq
    machine.measure(**MEASURES)
    assert machine.change(**MODELS) is False
    assert (machine.state.models_revision, machine.state.models_stale) == (1, True)
    assert machine.change(latency_ms=6.0) is False
    assert (machine.state.latency_ms, machine.state.in_flight) == (6.0, 3)
    assert (machine.state.seq, record) == (seq, [])


def test_the_same_trouble_with_another_wording_is_no_event_but_is_kept() -> None:
    machine, record = machine_at(S.CONNECTING)
    first, again = (
        ErrorInfo.of(ProviderConnectionError(text, code="refused")) for text in ("no", "no, again")
    )
    assert machine.change(S.RECONNECTING, Reason.REFUSED, error=first) is True
    assert machine.change(S.RECONNECTING, Reason.REFUSED, error=again) is False
    assert len(record) == 1
    assert machine.state.error.message == "no, again"


def test_a_reason_that_is_not_given_stays() -> None:
    machine, _ = machine_at(S.CONNECTING)
    machine.change(S.DEGRADED, Reason.SLOW)
    machine.change(attempt=1)
    assert machine.state.reason == "slow"


def test_since_is_when_the_word_was_reached() -> None:
    machine, _ = machine_at(S.CONNECTING)
    began = datetime.now(UTC)
    machine.change(S.CONNECTED)
    since = machine.state.since
    machine.change(attempt=1)
    assert machine.state.since is since
    assert began <= since <= datetime.now(UTC)


def test_a_snapshot_goes_through_json_and_pickle() -> None:
    state = LLMProviderStatus(provider_id="p", **OTHER, **MODELS, **MEASURES, since=NOW)
    plain = json.loads(json.dumps(state.to_dict()))
    assert (plain["providerId"], plain["status"], plain["retryAt"]) == (
        "p", "connected", "2026-01-02T00:00:00Z",
    )  # fmt: skip
    assert plain["error"] == {
        "code": "refused",
        "type": "ProviderConnectionError",
        "message": "no",
    }
    assert msgspec.convert(plain, LLMProviderStatus) == state
    assert pickle.loads(pickle.dumps(state)) == state


def test_two_machines_of_one_provider_are_told_apart() -> None:
    one, other = (StatusMachine(EventEmitter(), "p") for _ in range(2))
    assert one.state.instance_id != other.state.instance_id
    assert one.state != other.state


# ---- epochs --------------------------------------------------------------------------------------


def test_evidence_of_an_older_epoch_changes_nothing_and_is_counted() -> None:
    machine, record = machine_at(S.CONNECTED)
    old = machine.state.epoch
    assert machine.begin_epoch() == old + 1 == machine.state.epoch
    assert machine.change(S.FAILED, Reason.AUTH_INVALID, epoch=old) is False
    assert (machine.state.status, record, machine.stale_evidence) == ("connected", [], 1)
    assert machine.change(S.FAILED, Reason.AUTH_INVALID, epoch=old + 1) is True


def test_stale_evidence_that_would_be_illegal_is_not_even_looked_at() -> None:
    machine, _ = machine_at(S.DISCONNECTED)
    machine.begin_epoch()
    assert machine.change(S.CONNECTED, epoch=0) is False
    assert machine.stale_evidence == 1


@pytest.mark.parametrize("status", [S.DISCONNECTED, S.FAILED, S.DRAINING, S.CLOSED])
def test_evidence_does_not_wake_a_provider_that_has_failed_or_was_stopped(status) -> None:
    machine, record = machine_at(status)
    assert machine.change(S.CONNECTED, Reason.RECOVERED, epoch=machine.state.epoch) is False
    assert (machine.state.status, record, machine.stale_evidence) == (status, [], 1)


def test_a_new_epoch_alone_is_no_event() -> None:
    machine, record = machine_at(S.CONNECTED)
    seq = machine.state.seq
    machine.begin_epoch()
    assert (machine.state.seq, record) == (seq, [])


async def test_a_late_answer_does_not_bring_a_stopped_provider_back() -> None:
    provider = echo()
    await provider.connect()
    epoch = provider.status.epoch
    await provider.disconnect()
    provider._connection.succeeded(epoch)
    assert provider.status.status == "disconnected"
    assert provider._machine.stale_evidence == 1


async def test_a_late_failure_does_not_touch_a_new_connection() -> None:
    provider = echo()
    await provider.connect()
    epoch = provider.status.epoch
    await provider.disconnect()
    await provider.connect()
    provider._connection.failed(AuthenticationError("of the old key"), epoch)
    assert provider.status.status == "connected"
    assert provider._machine.stale_evidence == 1


def test_many_writers_lose_no_step() -> None:
    machine, _ = machine_at(S.CONNECTED)
    before, barrier = machine.state, threading.Barrier(4)

    def write(number: int) -> None:
        barrier.wait()
        for i in range(250):
            machine.change(attempt=1 + number * 250 + i)
            machine.begin_epoch()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert machine.state.seq == before.seq + 1000
    assert machine.state.epoch == before.epoch + 1000


# ---- errors as data ------------------------------------------------------------------------------


def info(**changes) -> ErrorInfo:
    facts = {"code": "server_error", "type": "ProviderAPIError", "message": "no"}
    return ErrorInfo(**(facts | {"http_status": 500, "provider_code": "x"} | changes))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"message": "another text"}, True),
        ({"hint": "do this"}, True),
        ({"request_id": "r2"}, True),
        ({"retryable": True}, True),
        ({"retry_after_s": 3.0}, True),
        ({"code": "overloaded"}, False),
        ({"type": "ProviderOverloadedError"}, False),
        ({"http_status": 503}, False),
        ({"provider_code": "y"}, False),
    ],
    ids=str,
)
def test_errors_are_the_same_if_they_say_the_same_about_the_provider(change, same) -> None:
    assert (info() == info(**change)) is same
    assert (info() != info(**change)) is not same
    assert len({info(), info(**change)}) == (1 if same else 2)
    assert info() != "server_error"


def test_an_error_is_kept_with_its_facts() -> None:
    error = RateLimitError(
        "slow down", retry_after_s=2.0, http_status=429, provider_code="rpm", hint="wait",
        request_id="r",
    )  # fmt: skip
    assert msgspec.to_builtins(ErrorInfo.of(error)) == {
        "code": "rate_limited",
        "type": "RateLimitError",
        "message": "slow down",
        "hint": "wait",
        "httpStatus": 429,
        "providerCode": "rpm",
        "requestId": "r",
        "retryable": True,
        "retryAfterS": 2.0,
    }


def test_an_error_of_another_kind_is_unexpected() -> None:
    found = ErrorInfo.of(KeyError("x"))
    assert (found.code, found.type, found.retryable) == ("unexpected", "KeyError", False)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"Bearer {KEY}"),
        AuthenticationError(f"{KEY} is wrong"),
        AuthenticationError("wrong", hint=f"instead of {KEY}"),
        ProviderConnectionError(f"https://me:{KEY}@host failed"),
    ],
    ids=repr,
)
def test_an_error_as_data_shows_no_key(error) -> None:
    found = ErrorInfo.of(error)
    assert KEY not in repr(found) + json.dumps(found.to_dict())


# ---- reasons -------------------------------------------------------------------------------------

REASONS = [
    (AuthenticationError("x"), "auth_invalid", True),
    (AuthenticationError("x", code="auth_missing"), "auth_missing", True),
    (PermissionDeniedError("x"), "forbidden", True),
    (QuotaExceededError("x"), "quota_exhausted", True),
    (ConfigurationError("x"), "invalid_config", True),
    (DependencyMissingError("x"), "dependency_missing", True),
    (RateLimitError("x"), "rate_limited", False),
    (ProviderOverloadedError("x"), "overloaded", False),
    (RequestTimeoutError("x"), "timeout", False),
    (RequestTimeoutError("x", code="connect_timeout"), "timeout", False),
    (ProviderConnectionError("x"), "reset", False),
    (ProviderConnectionError("x", code="refused"), "refused", False),
    (ProviderConnectionError("x", code="dns"), "dns", False),
    (ProviderConnectionError("x", code="tls"), "tls", False),
    (ProviderConnectionError("x", code="proxy"), "proxy", False),
    (InvalidResponseError("x"), "server_error", False),
    (ProviderAPIError("x", http_status=500), "server_error", False),
    (StreamInterruptedError("x"), "reset", False),
    (InvalidRequestError("x"), "server_error", False),
    (ModelNotFoundError("x"), "server_error", False),
    (ContextWindowExceededError("x"), "server_error", False),
    (ContentFilteredError("x"), "server_error", False),
    (LLMError("x", code="unexpected"), "unexpected", False),
]


@pytest.mark.parametrize(("error", "reason", "permanent"), REASONS, ids=lambda v: repr(v))
def test_every_error_has_a_reason_and_lasts_or_passes(error, reason, permanent) -> None:
    assert reason_of(error) is Reason(reason)
    assert is_permanent(error) is permanent


def test_the_cooldown_and_the_attempt_are_in_the_snapshot_as_utc() -> None:
    machine, _ = machine_at(S.CONNECTED)
    until = datetime.now(UTC) + timedelta(seconds=3)
    machine.change(S.DEGRADED, Reason.RATE_LIMITED, cooldown_until=until)
    assert machine.state.to_dict()["cooldownUntil"].endswith("Z")
    assert machine.state.cooldown_until == until
