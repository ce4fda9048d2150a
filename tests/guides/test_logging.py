"""Logging: one logger, quiet unless it is set up, texts and keys not in it unless asked."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from llm_manager import (
    create_llm,
    log_events,
    log_request,
    log_response,
    setup_logging,
    stop_logging,
)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    written = io.StringIO()
    yield written
    stop_logging()


def set_up(written: io.StringIO, level: int | str, **how: bool) -> None:
    setup_logging(level, handler=logging.StreamHandler(written), **how)


def generate(prompt: str) -> str:
    """A call of ones own, logged before and after."""
    log_request("myservice", prompt, {"model": "m", "temperature": 0.7, "api_key": "sk-0123456789"})
    response = prompt.upper()
    log_response("myservice", response)
    return response


def test_requests_and_responses_are_logged_at_debug(lines: io.StringIO) -> None:
    set_up(lines, logging.DEBUG)
    generate("a private question")
    told = lines.getvalue()
    assert "myservice" in told
    assert "temperature" in told
    assert "private" not in told.lower()
    assert "sk-0123456789" not in told


def test_texts_are_logged_when_they_are_asked_for(lines: io.StringIO) -> None:
    set_up(lines, "DEBUG", content=True)
    generate("a question")
    assert "a question" in lines.getvalue()
    assert "A QUESTION" in lines.getvalue()


def test_at_info_requests_are_not_logged(lines: io.StringIO) -> None:
    set_up(lines, logging.INFO)
    generate("a question")
    assert lines.getvalue() == ""


def test_providers_need_no_line_of_code_to_be_logged(lines: io.StringIO) -> None:
    set_up(lines, "DEBUG")
    with create_llm("echo", words_per_s=float("inf")) as llm, log_events(llm.provider):
        llm.generate("a private question")
    told = lines.getvalue()
    assert "connected" in told
    assert "private" not in told
