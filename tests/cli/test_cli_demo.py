"""`llm-manager demo`: the first thing that a newcomer sees; it explains itself and always ends."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from .conftest import Cli
from .running import TIMEOUT_S, Terminal, command, environment

ECHO = ("demo", "--provider", "echo")


def test_in_a_pipe_it_tells_the_whole_story_in_lines(cli: Cli) -> None:
    result = cli(*ECHO, "--seconds", "1", "--prompt", "one two three")
    assert (result.returncode, result.stderr) == (0, "")
    story = result.stdout
    titles = re.findall(r"^\d\. ([A-Z][a-z ]+?)    ", story, re.MULTILINE)
    assert titles == [
        "Register", "Connect", "Models", "Ask", "Retry", "Outage", "Stop", "Shut down"
    ]  # fmt: skip
    for step in (
        "disconnected → connecting",
        "connecting → connected",
        "| one two three\n",
        "retrying in",
        "connected → reconnecting (refused)",
        "reconnecting → connected",
        "requestFinished       echo  cancelled",
        "connected → draining",
        "disconnected → closed",
    ):
        assert step in story
        story = story[story.index(step) :]


def test_as_json_every_line_is_an_event_and_none_is_missing(cli: Cli) -> None:
    result = cli(*ECHO, "--seconds", "0.5", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.returncode, result.stderr) == (0, "")
    numbers = [e["gseq"] for e in events if "gseq" in e]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [e["outcome"] for e in events if e["event"] == "requestFinished"] == [
        "ok", "ok", "error", "cancelled", "ok"
    ]  # fmt: skip
    changes = [e for e in events if e["event"] == "statusChanged"]
    assert changes[-1]["current"]["status"] == "closed"


def test_on_a_terminal_it_draws_within_its_width_and_leaves_it_clean(tmp_path: Path) -> None:
    with Terminal(tmp_path, *ECHO, "--seconds", "1") as terminal:
        assert terminal.ended() == 0
        seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.seen)
        assert "● reconnecting" in seen
        assert "● closed" in seen
        assert "Traceback" not in seen
        assert max(len(line) for line in re.split(r"[\r\n]+", seen)) <= 80
        # The cursor was hidden while it drew; it is visible again.
        assert terminal.seen.rfind("\x1b[?25h") > terminal.seen.rfind("\x1b[?25l")
        assert terminal.is_as_before


def test_no_colours_where_none_are_wanted(tmp_path: Path) -> None:
    with Terminal(tmp_path, *ECHO, "--seconds", "0.5", NO_COLOR="1") as terminal:
        assert terminal.ended() == 0
        assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|9[0-7])m", terminal.seen)


def test_a_terminal_that_knows_only_ascii_gets_only_ascii(cli: Cli) -> None:
    result = cli(*ECHO, "--seconds", "0.5", "--prompt", "grün", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.isascii()
    assert "connected -> reconnecting" in result.stdout
    assert "| gr?n\n" in result.stdout


def test_without_rich_a_terminal_gets_a_hint_and_a_pipe_gets_text(cli: Cli, tmp_path: Path) -> None:
    without = tmp_path / "without"
    (without / "rich").mkdir(parents=True)
    (without / "rich" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')"
    )
    path = f"{without}:{environment(tmp_path)['PYTHONPATH']}"
    with Terminal(tmp_path, *ECHO, "--seconds", "0.5", PYTHONPATH=path) as terminal:
        assert terminal.ended() == 2
        assert "error: " in terminal.seen
        assert "hint: install the extra 'cli': pip install '.[cli]'" in terminal.seen
        assert "Traceback" not in terminal.seen
    assert cli(*ECHO, "--seconds", "0.5", PYTHONPATH=path).returncode == 0
    assert cli(*ECHO, "--seconds", "0.5", "--json", PYTHONPATH=path).returncode == 0


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    with subprocess.Popen(
        command(*ECHO, "--seconds", "15"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(tmp_path),
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
