"""What is typed wrongly is answered in two lines; help is quick and needs nothing installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_manager.cli import main
from llm_manager.cli.arguments import COMMANDS

from .conftest import Cli
from .running import command, environment


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ([], "no command", "llm-manager demo"),
        (["chta"], "'chta'", "did you mean chat?"),
        (["status", "--wacth"], "--wacth", "did you mean --watch?"),
        (["demo", "--seconds", "-1"], "'-1'", "llm-manager demo --help"),
        (["chat", "--provider"], "--provider", "llm-manager chat --help"),
        (["chat", "--provider", "ecoh", "hi"], "'ecoh'", "did you mean 'echo'?"),
        (["chat", "--provider", "compatible", "hi"], "no base_url", "--base-url"),
        (["chat", "--base-url", "localhost:1234", "hi"], "'localhost:1234'", "http://localhost"),
        (["chat", "--provider", "echo", "--base-url", "http://h", "hi"], "--base-url", ""),
        (["chat", "--provider", "echo", "--model", "x", "hi"], "no model 'x'", "echo"),
        (["chat", "--provider", "echo", " "], "the prompt is empty", "standard input"),
        (["models", "--base-url", "http://h", "--key-env", "UNSET"], "'UNSET'", "not the key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_two_lines(
    arguments: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert len(lines) <= 2
    assert not hint or (lines[1].startswith("hint: ") and hint in lines[1])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    out, _ = capsys.readouterr()
    assert f"\n  llm-manager {name}" in out.partition("examples:")[2]
    assert max(map(len, out.splitlines())) <= 80


def test_options_count_before_and_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--json", "models"], ["models", "--json"]):
        assert main([*arguments, "--provider", "echo"]) == 0
        assert capsys.readouterr().out.startswith("[")


def test_bytes_that_are_no_text_are_marked_as_such(cli: Cli) -> None:
    result = cli("chat", "--provider", "echo", os.fsdecode(b"h\xff\xfe"))
    assert (result.returncode, result.stdout) == (0, "h\ufffd\ufffd\n")


def test_help_and_version_load_neither_the_library_nor_rich(cli: Cli, tmp_path: Path) -> None:
    probe = (
        "import sys; from llm_manager.cli import main; code = main(['--version']); "
        "print(*sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env=environment(tmp_path),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    version, loaded = done.stdout.splitlines()
    assert version.startswith("llm-manager ")
    assert not {"rich", "asyncio", "msgspec", "llm_manager.errors"} & set(loaded.split())


def test_the_package_itself_can_be_run(tmp_path: Path) -> None:
    as_package = [a if a != "llm_manager.cli" else "llm_manager" for a in command("--version")]
    done = subprocess.run(
        as_package, env=environment(tmp_path), capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.startswith("llm-manager ")
