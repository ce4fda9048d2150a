"""The programs under docs/examples run by themselves and show what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples"


def output_of(name: str) -> str:
    """What the example prints; it has to end by itself, without an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def in_order(output: str, *texts: str) -> None:
    """Assert that the texts occur one after the other."""
    place = 0
    for text in texts:
        found = output.find(text, place)
        assert found >= 0, f"{text!r} is missing after character {place} of:\n{output}"
        place = found + len(text)


def test_the_status_display_shows_an_outage_that_heals_by_itself() -> None:
    in_order(
        output_of("status_display.py"),
        "* · steady  new",
        "· shaky   connecting",
        "● shaky   connected     large, small",
        "○ shaky   reconnecting",
        "refused, attempt 2",
        "● shaky   connected     large, small",
        "* ● shaky",
        "closed",
    )


def test_the_stop_button_of_another_thread_stops_the_answer_and_keeps_what_came() -> None:
    output = output_of("stop_button.py")
    in_order(output, "one two three four", "... stopped", "kept: 'one two three four", "Thank you.")
    assert "[cancelled]" in output
    assert "ten" not in output


def test_a_provider_of_ones_own_has_status_errors_and_answers() -> None:
    in_order(
        output_of("custom_provider.py"),
        "disconnected initial",
        "failed invalid_config",
        "there is no book 'book.txt' (write one)",
        "connected recovered",
        "a piece of text",
        "I do not know that word.",
        "closed shutdown",
    )


def test_a_dialect_of_ones_own_is_a_provider_in_one_file() -> None:
    in_order(output_of("example_provider.py"), "connected ['polly']", "Pretty Polly!")


def test_the_provider_in_one_file_passes_the_conformance_kit() -> None:
    output = output_of("test_example_provider.py")
    assert "passed" in output
    assert "failed" not in output


def test_retries_are_visible_and_a_wait_that_is_too_long_is_an_error() -> None:
    in_order(
        output_of("visible_retry.py"),
        "attempt 1 of 3 failed (too many requests), again in 0.5 s",
        "attempt 2 of 3 failed (no capacity), again in 0.2 s",
        "Here I am.",
        "answered at attempt 3",
        "no answer: used up for today, come back in 3600 s",
    )


def test_a_model_mends_its_arguments_and_is_refused_what_the_user_does_not_allow() -> None:
    in_order(
        output_of("tool_loop.py"),
        "? show {}: yes",
        "? clear {}: no",
        "clear: denied: Error: the user did not allow this call",
        "show: ok: [{",
        'add: invalid_arguments: Error: arguments.item.count: expected integer, got "two"',
        "add: ok: now there are 2 lines",
        "I have added milk.",
        "4 answers, 4 calls, 9 messages",
        "Item(name='milk', count=2)",
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_every_example_is_run_by_a_test_of_this_file(path: Path) -> None:
    assert f'output_of("{path.name}")' in Path(__file__).read_text()
