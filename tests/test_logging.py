"""Logging: quiet until asked for, once per line, without keys and without what was said."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from llm_manager import (
    EchoAnswer,
    ErrorOccurred,
    EventEmitter,
    InvalidParameterError,
    LLMProviderManager,
    ProviderConnectionError,
    RateLimitError,
    RedactionFilter,
    RequestFinished,
    RequestQueued,
    RequestStarted,
    Retries,
    RetryPolicy,
    Secret,
    StreamStalled,
    SystemResumed,
    log_events,
    log_request,
    log_response,
    setup_logging,
    stop_logging,
)
from llm_manager.observe.log_records import JsonFormatter
from llm_manager.status import ErrorInfo
from tests.helpers import echo

KEY = "sk-1234567890abcdefghij"
log = logging.getLogger("llm_manager.test")


class Kept(logging.Handler):
    """Keeps the records and the lines that come."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.records.append(record)

    @property
    def summary(self) -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in self.records]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    yield
    stop_logging()


@pytest.fixture
def kept() -> Kept:
    return Kept()


def record_of(msg: object, *args: Any, extra: dict[str, Any] | None = None, **kw: Any) -> Any:
    made = logging.getLogger("x").makeRecord("x", 20, "f", 1, msg, args, None, extra=extra, **kw)
    assert RedactionFilter().filter(made) is True
    return made


def traceback_of(error: ValueError) -> Any:
    try:
        raise error
    except ValueError:
        return sys.exc_info()


# ---- quiet, then set up --------------------------------------------------------------------------


def test_without_being_set_up_the_library_prints_nothing() -> None:
    program = (
        "from llm_manager import EventEmitter, ErrorOccurred\n"
        "from llm_manager.status import ErrorInfo\n"
        "error = ErrorInfo(code='c', type='t', message='m')\n"
        "print(EventEmitter().publish(ErrorOccurred(error=error)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("False", "", 0)


def test_lines_go_to_stderr_from_the_given_level_on(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("warning")
    log.info("quiet")
    log.warning("loud")
    out, err = capsys.readouterr()
    assert out == ""
    assert "WARNING llm_manager.test: loud" in err
    assert "quiet" not in err


def test_setting_up_twice_does_not_double_lines_and_takes_the_newer_settings(kept: Kept) -> None:
    setup_logging("INFO", handler=kept)
    setup_logging("DEBUG", handler=kept)
    log.debug("once")
    assert [message for _, message in kept.summary] == ["once"]
    assert len([f for f in kept.filters if isinstance(f, RedactionFilter)]) == 1
    other = Kept()
    setup_logging(logging.INFO, handler=other)
    log.info("to the other one")
    log.debug("to nobody")
    assert len(kept.lines) == len(other.lines) == 1


def test_lines_do_not_come_a_second_time_from_the_root_logger(kept: Kept) -> None:
    root = Kept()
    logging.getLogger().addHandler(root)
    try:
        setup_logging(handler=kept)
        log.info("once")
    finally:
        logging.getLogger().removeHandler(root)
    assert (len(kept.lines), len(root.lines)) == (1, 0)


def test_after_stopping_records_go_where_they_went_before(kept: Kept) -> None:
    package = logging.getLogger("llm_manager")
    before = package.handlers[:], package.level, package.propagate
    setup_logging("DEBUG", handler=kept, content=True)
    stop_logging()
    stop_logging()
    log.warning("gone")
    assert kept.lines == []
    assert (package.handlers, package.level, package.propagate) == before


def test_a_format_that_the_handler_has_is_kept(kept: Kept) -> None:
    kept.setFormatter(logging.Formatter("<%(message)s>"))
    setup_logging(handler=kept)
    log.info("mine")
    assert kept.lines == ["<mine>"]


@pytest.mark.parametrize("level", ["LOUD", "", None, True, -1, 1.5])
def test_a_level_that_is_none_is_refused_and_nothing_is_set_up(level: Any) -> None:
    before = logging.getLogger("llm_manager").handlers[:]
    with pytest.raises(InvalidParameterError, match="level"):
        setup_logging(level)
    assert logging.getLogger("llm_manager").handlers == before


def test_a_handler_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="handler"):
        setup_logging(handler=io.StringIO())


# ---- what was asked and answered -----------------------------------------------------------------


def test_requests_and_responses_are_logged_by_their_length(kept: Kept) -> None:
    setup_logging("DEBUG", handler=kept)
    log_request("openai", "my secret plan", {"model": "gpt-4", "temperature": 0.5})
    log_response("openai", "do not do it")
    log_response("openai", None)
    assert kept.summary == [
        ("DEBUG", "request to openai: 14 characters, model='gpt-4', temperature=0.5"),
        ("DEBUG", "response of openai: 12 characters"),
        ("DEBUG", "response of openai: 0 characters"),
    ]
    request = kept.records[0].__dict__
    assert (request["event"], request["provider_id"]) == ("request", "openai")
    assert (request["model"], request["characters"]) == ("gpt-4", 14)


def test_parameters_that_hold_content_are_not_shown_either(kept: Kept) -> None:
    setup_logging("DEBUG", handler=kept)
    log_request(
        "openai",
        "x",
        {
            "system_prompt": "my plan",
            "messages": [{"role": "user", "content": "my plan"}],
            "note": "my plan " * 100,
            "question": "my plan",
            "stop": None,
        },
    )
    (line,) = kept.lines
    assert "plan" not in line
    assert "system_prompt='<str, 7 long>'" in line
    assert "stop=None" in line


def test_content_is_logged_when_it_is_asked_for_without_keys(kept: Kept) -> None:
    setup_logging("DEBUG", handler=kept, content=True)
    log_request("openai", f"use {KEY}", {"system_prompt": "be brief", "api_key": KEY})
    log_response("openai", f"used {KEY}")
    assert "use ***" in kept.lines[0]
    assert "be brief" in kept.lines[0]
    assert "used ***" in kept.lines[1]
    assert KEY not in str(kept.lines)
    setup_logging("DEBUG", handler=kept)
    log_response("openai", "said")
    assert "said" not in kept.lines[-1]


def test_above_debug_neither_is_logged(kept: Kept) -> None:
    setup_logging("INFO", handler=kept, content=True)
    log_request("openai", "x", {})
    log_request("openai", "x")
    log_response("openai", "y")
    assert kept.lines == []


# ---- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "args"),
    [
        (f"key {KEY}", ()),
        ("key %s", (KEY,)),
        ("%s and %r", ("a", {"key": KEY})),
        ("key %(k)s", ({"k": KEY},)),
        ("failed: %s", (ValueError(f"bad {KEY}"),)),
        ("bytes %s", (KEY.encode(),)),
        (ValueError(f"bad {KEY}"), ()),
        ("%.3s is its beginning", (KEY,)),
    ],
)
def test_keys_are_masked_wherever_they_stand_in_a_message(message, args) -> None:
    record = record_of(message, *args)
    assert KEY not in record.getMessage()
    assert KEY not in repr((record.msg, record.args))


def test_a_password_among_the_arguments_is_masked_beside_a_key() -> None:
    record = record_of(f"{KEY} %s", {"password": "hunter2"})
    assert record.getMessage() == "*** {'password': '***'}"


def test_keys_are_masked_when_the_arguments_do_not_fit() -> None:
    record = record_of(f"{KEY} %d", KEY)
    assert KEY not in repr((record.msg, record.args))


def test_keys_are_masked_in_extra_fields_by_their_looks_and_by_their_names() -> None:
    record = record_of(
        "x",
        extra={
            "url": f"https://host/?key={KEY}",
            "headers": {"Authorization": "whatever", "Accept": "json", "X-Api-Key": b"raw"},
            "deep": [{"list": (KEY, 1)}, {KEY}],
            "password": "hunter2",
            "access_token": "t",
            "prompt_tokens": 12,
            "first_token_s": 0.5,
            "problem": RuntimeError(KEY),
            "held": Secret(KEY),
            "at": datetime(2026, 1, 1),
            "nothing": None,
        },
    )
    assert KEY not in repr(record.__dict__)
    assert record.headers == {"Authorization": "***", "Accept": "json", "X-Api-Key": "***"}
    assert record.deep == [{"list": ("***", 1)}, {"***"}]
    assert (record.password, record.access_token) == ("***", "***")
    assert (record.prompt_tokens, record.first_token_s) == (12, 0.5)
    assert record.at == datetime(2026, 1, 1)


def test_keys_are_masked_in_tracebacks() -> None:
    made = logging.LogRecord("x", 40, "f", 1, "failed", (), traceback_of(ValueError(KEY)))
    made.stack_info = f"Stack: {KEY}"
    RedactionFilter().filter(made)
    for formatter in (logging.Formatter(), JsonFormatter()):
        line = formatter.format(made)
        assert "ValueError: ***" in line
        assert KEY not in line


def test_known_secrets_are_masked_however_they_look() -> None:
    made = logging.LogRecord("x", 20, "f", 1, "open %s", ("sesame",), None)
    RedactionFilter(["sesame"]).filter(made)
    assert made.getMessage() == "open ***"


def test_a_record_without_keys_stays_as_it_was() -> None:
    error, extra = traceback_of(ValueError("harmless")), {"facts": {"a": [1, 2]}}
    made = logging.LogRecord("x", 40, "f", 1, "%s %d", ("a", 1), error)
    made.__dict__.update(extra)
    before = dict(made.__dict__)
    RedactionFilter().filter(made)
    assert made.__dict__ == before
    assert made.__dict__["facts"] is extra["facts"]


def test_masking_twice_changes_nothing_more() -> None:
    record = record_of(f"Bearer {KEY}", extra={"api_key": KEY, "list": [KEY, f"?key={KEY}"]})
    once = dict(record.__dict__)
    RedactionFilter().filter(record)
    assert record.__dict__ == once


def test_objects_that_cannot_be_printed_and_endless_ones_do_no_harm() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    endless: list[Any] = [KEY]
    endless.append(endless)
    record = record_of("x", extra={"broken": Broken(), "endless": endless})
    assert record.broken == "<Broken>"
    assert KEY not in repr(record.endless)


# ---- JSON ----------------------------------------------------------------------------------------


def test_json_is_one_object_in_one_line_with_the_extra_fields(kept: Kept) -> None:
    setup_logging("INFO", handler=kept, json=True)
    log.warning(
        "two\nlines %s", "ü", extra={"event": "e", "duration_s": 1.5, "at": datetime(2026, 1, 1)}
    )
    (line,) = kept.lines
    assert "\n" not in line
    fields = json.loads(line)
    assert fields["message"] == "two\nlines ü"
    assert (fields["level"], fields["logger"]) == ("WARNING", "llm_manager.test")
    assert (fields["event"], fields["duration_s"]) == ("e", 1.5)
    assert fields["at"].startswith("2026-01-01")
    assert datetime.fromisoformat(fields["time"]).utcoffset() is not None


def test_json_has_the_exception(kept: Kept) -> None:
    setup_logging("INFO", handler=kept, json=True)
    try:
        raise ValueError("oh")
    except ValueError:
        log.exception("failed", stack_info=True)
    fields = json.loads(kept.lines[0])
    assert fields["exception"].endswith("ValueError: oh")
    assert "Traceback" in fields["exception"]
    assert fields["stack"].startswith("Stack")


@pytest.mark.parametrize(
    "value", [{("a", 1): 2}, float("nan"), object(), "\ud800", b"\xff", {1: 2}, 10**30]
)
def test_whatever_an_extra_field_holds_the_line_is_json(kept: Kept, value: Any) -> None:
    setup_logging("INFO", handler=kept, json=True)
    log.info("x", extra={"value": value})
    fields = json.loads(kept.lines[0])
    assert fields["message"] == "x"
    assert "value" in fields


# ---- events --------------------------------------------------------------------------------------


async def test_the_life_of_a_provider_is_logged(kept: Kept) -> None:
    setup_logging("INFO", handler=kept)
    async with LLMProviderManager() as manager:
        with log_events(manager):
            provider = manager.register_provider(echo())
            await provider.connect()
            provider.go_offline()
            with pytest.raises(ProviderConnectionError):
                await provider.generate_completion("echo", "hi")
            await provider.wait_for("reconnecting")
            provider.go_online()
            await provider.wait_for("connected")
        provider.publish(SystemResumed(suspended_for_s=1.0, detector="suspend"))
    lines = kept.summary
    assert ("INFO", "echo: is registered") in lines
    assert any(text.startswith("echo: is connected (") for _, text in lines)
    assert any(
        level == "WARNING" and text.startswith("echo: is reconnecting (refused)")
        for level, text in lines
    )
    assert any("to reconnect in" in text for _, text in lines)
    assert not any("slept" in text for _, text in lines)
    status = next(r for r in kept.records if r.__dict__.get("status") == "reconnecting")
    assert (status.event, status.provider_id, status.code) == ("statusChanged", "echo", "refused")


async def test_requests_are_logged_without_their_content(kept: Kept) -> None:
    setup_logging("DEBUG", handler=kept)
    policies = [RetryPolicy(Retries(attempts=2, wait_s=0.0))]
    async with echo(policies=policies) as provider:
        log_events(provider)
        provider.script(*[EchoAnswer(error=RateLimitError("slow 100% down"))] * 2)
        with pytest.raises(RateLimitError):
            await provider.generate_completion("echo", "private words")
        await provider.generate_completion("echo", "private words")
    found = [r for r in kept.records if r.__dict__.get("event", "").startswith("re")]
    assert [(r.event, r.levelname) for r in found] == [
        ("requestStarted", "DEBUG"),
        ("retryScheduled", "WARNING"),
        ("requestFinished", "INFO"),
        ("requestStarted", "DEBUG"),
        ("requestFinished", "DEBUG"),
    ]
    failed, done = found[2].__dict__, found[4].__dict__
    assert (failed["code"], failed["outcome"], failed["model"]) == ("rate_limited", "error", "echo")
    assert "slow 100% down" in failed["message"]
    assert done["duration_s"] >= 0
    assert (done["prompt_tokens"], done["completion_tokens"]) == (2, 2)
    assert "code" not in done
    assert done["request_id"] == found[3].__dict__["request_id"]
    assert "private" not in str(kept.lines)


def test_what_nobody_is_told_of_is_logged_as_an_error(kept: Kept) -> None:
    setup_logging("DEBUG", handler=kept)
    emitter = EventEmitter()
    log_events(emitter)
    error = ErrorInfo(code="timeout", type="RequestTimeoutError", message="too late")
    emitter.publish(ErrorOccurred(provider_id="p", error=error, operation="list models"))
    emitter.publish(SystemResumed(provider_id="p", suspended_for_s=60.0, detector="suspend"))
    emitter.publish(RequestQueued(provider_id="p", request_id="r", reason="cooldown"))
    emitter.publish(StreamStalled(provider_id="p", request_id="r", silent_s=9, fails_in_s=1))
    assert kept.summary == [
        ("ERROR", "p: list models: too late"),
        ("INFO", "p: the computer has slept for about 60 s"),
        ("DEBUG", "p: request r waits (cooldown)"),
        ("WARNING", "p: request r has been silent for 9.0 s"),
    ]


def test_events_are_not_turned_into_text_that_nobody_reads(kept: Kept) -> None:
    setup_logging("WARNING", handler=kept)
    emitter = EventEmitter()
    log_events(emitter)
    about: dict[str, Any] = {"request_id": "r", "model": "m", "operation": "chat"}
    emitter.publish(RequestStarted(**about))
    emitter.publish(RequestFinished(**about, outcome="ok"))
    assert kept.lines == []
