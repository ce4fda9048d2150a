"""`llm-manager config`: every value with its origin, changes that break no file, and no keys."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from ..test_registry import install
from .conftest import Cli
from .running import ROOT, TIMEOUT_S, Terminal, environment

KEY = "sk-test-4f9a8b7c6d5e4f3a2b1c"
FILE = """\
# My settings.
[defaults]
timeouts = { total_s = 120 }   # two minutes

[providers.work-openai]
kind = "openai"                # at work
api_key = "env:WORK_KEY"
default_model = "gpt-5"
default_parameters = { temperature = 0.2 }

[providers."a.b"]
kind = "echo"
"""


def config_file(home: Path) -> Path:
    return home / ".config" / "llm_manager" / "config.toml"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The settings file, with `FILE` in it."""
    path = config_file(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(FILE)
    path.chmod(0o600)
    return path


# ---- show ----------------------------------------------------------------------------------------


def test_every_value_is_shown_with_its_origin(cli: Cli, path: Path) -> None:
    result = cli(
        "config",
        "show",
        WORK_KEY=KEY,
        LLM_MANAGER_PROVIDERS__WORK_OPENAI__DEFAULT_MODEL="gpt-6",
    )
    assert (result.returncode, result.stderr) == (0, "")
    first, header, *rows = result.stdout.splitlines()
    assert first == f"settings file: {path}"
    assert header.split() == ["provider", "setting", "value", "origin"]
    shown = {tuple(row.split(maxsplit=3)[:2]): row.split(maxsplit=3)[2:] for row in rows}
    of_file = "file ~/.config/llm_manager/config.toml"
    assert shown["work-openai", "kind"] == ["'openai'", of_file]
    assert shown["work-openai", "api_key"] == ["'env:WORK_KEY'", of_file]
    variable = "environment LLM_MANAGER_PROVIDERS__WORK_OPENAI__DEFAULT_MODEL"
    assert shown["work-openai", "default_model"] == ["'gpt-6'", variable]
    assert shown["work-openai", "default_parameters.temperature"] == ["0.2", of_file]
    assert shown["a.b", "kind"] == ["'echo'", of_file]
    total = shown["a.b", "default_parameters.timeouts.total_s"]
    assert total == ["120.0", f"{of_file} [defaults]"]


def test_settings_as_json(cli: Cli, path: Path) -> None:
    document = json.loads(cli("config", "show", "--json", WORK_KEY=KEY).stdout)
    assert (document["path"], document["exists"]) == (str(path), True)
    assert {
        "provider": "work-openai",
        "setting": "default_model",
        "value": "'gpt-5'",
        "origin": "file ~/.config/llm_manager/config.toml",
        "withheld": None,
    } in document["values"]


@pytest.mark.parametrize("options", [[], ["--json"], ["--verbose"]], ids=str)
def test_no_key_is_shown_wherever_it_stands(cli: Cli, path: Path, options: list[str]) -> None:
    path.write_text(f"""
[providers.literal]
kind = "openai"
api_key = "{KEY}1"
headers = {{ x-secret = "{KEY}2" }}
[providers.variable]
kind = "openai"
[providers.reference]
kind = "groq"
api_key = "env:ELSEWHERE"
""")
    given = {
        "OPENAI_API_KEY": f"{KEY}3",
        "ELSEWHERE": f"{KEY}4",
        "LLM_MANAGER_PROVIDERS__REFERENCE__HEADERS": f'{{ authorization = "Bearer {KEY}5" }}',
    }
    for action in ("show", "check"):
        result = cli("config", action, *options, **given)
        assert KEY not in result.stdout + result.stderr
    shown = cli("config", "show", **given).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["literal", "api_key", "***"] in [line[:3] for line in lines]
    assert ["variable", "api_key", "***", "environment", "OPENAI_API_KEY"] in lines


def test_a_package_that_raises_does_not_keep_settings_from_being_shown(
    cli: Cli, path: Path, tmp_path: Path
) -> None:
    module = "def make(**settings): raise KeyError(settings)"
    install(tmp_path / "site", "broken", module, {"broken": "broken:make"})
    path.write_text('[providers.mine]\nkind = "broken"\ndefault_model = "small"\n')
    result = cli("config", "show", PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), str(ROOT)]))
    assert (result.returncode, result.stderr) == (0, "")
    assert "'small'" in result.stdout


def test_without_a_file_the_place_is_told_where_it_would_be(cli: Cli, tmp_path: Path) -> None:
    result = cli("config", "show")
    assert result.returncode == 0
    assert result.stdout == f"settings file: {config_file(tmp_path)} (does not exist)\n"
    assert result.stderr == "no provider has settings\n"
    assert cli("config", "show", LLM_MANAGER_CONFIG="").stdout == "settings file: none\n"


def test_on_a_terminal_it_is_a_table(tmp_path: Path, path: Path) -> None:
    with Terminal(tmp_path, "config", "show", WORK_KEY=KEY) as terminal:
        assert terminal.ended() == 0
    assert "╭" in terminal.seen
    assert "gpt-5" in terminal.seen
    assert KEY not in terminal.seen


# ---- check ---------------------------------------------------------------------------------------


def test_nothing_wrong_is_success(cli: Cli, path: Path) -> None:
    result = cli("config", "check", WORK_KEY=KEY)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "✓ no problem found\n"
    assert json.loads(cli("config", "check", "--json", WORK_KEY=KEY).stdout) == []


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("temprature = 1", "providers.p.temprature", "unknown", "did you mean 'temperature'?"),
        ("words_per_s = 'x'", "providers.p.words_per_s", "must be a number", ""),
        ("temperature = 'x'", "providers.p.temperature", "must be a number", ""),
    ],
    ids=lambda value: value.split(" ")[0],
)
def test_a_problem_is_told_with_its_place(
    cli: Cli, path: Path, text: str, place: str, message: str, hint: str
) -> None:
    path.write_text(f'[providers.p]\nkind = "echo"\n{text}\n[providers.q]\nkind = "ecoh"\n')
    result = cli("config", "check")
    assert result.returncode == 1
    line = next(line for line in result.stdout.splitlines() if place in line)
    assert message in line
    assert hint in result.stdout
    assert "providers.q.kind: there is no kind of provider 'ecoh'" in result.stdout
    problems = json.loads(cli("config", "check", "--json").stdout)
    assert [p["place"] for p in problems] == [place, "providers.q.kind"]
    assert "2 problems, see llm-manager config check" in cli("config", "show").stderr


def test_a_reference_that_leads_nowhere_is_a_problem(cli: Cli, path: Path) -> None:
    result = cli("config", "check")
    assert result.returncode == 1
    assert "providers.work-openai.api_key: no key at 'env:WORK_KEY'" in result.stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [("[providers.p\n", "line 1"), ("[provders.p]\n", "did you mean 'providers'?")],
    ids=["no TOML", "no such table"],
)
def test_a_file_that_cannot_be_read_is_a_problem_with_its_place(
    cli: Cli, path: Path, text: str, told: str
) -> None:
    path.write_text(text)
    result = cli("config", "check")
    assert (result.returncode, result.stderr) == (1, "")
    assert told in result.stdout
    assert json.loads(cli("config", "check", "--json").stdout)[0]["place"] in (
        str(path),
        "provders",
    )
    shown = cli("config", "show")
    assert (shown.returncode, shown.stdout) == (2, "")


def test_a_warning_alone_is_no_failure(cli: Cli, path: Path) -> None:
    path.write_text(f'[providers.p]\nkind = "openai"\napi_key = "{KEY}"\n')
    path.chmod(0o644)
    result = cli("config", "check")
    assert result.returncode == 0
    assert result.stdout.startswith("! providers.p.api_key: it stands in ")
    assert "chmod 600" in result.stdout


def test_doctor_finds_what_is_wrong_with_the_settings(cli: Cli, path: Path) -> None:
    result = cli("doctor", WORK_KEY=KEY)
    assert (result.returncode, KEY in result.stdout) == (0, False)
    assert re.search(rf"✓ file +{re.escape(str(path))}\n", result.stdout)
    path.write_text("[providers.p\n")
    result = cli("doctor")
    assert result.returncode == 1
    assert "no valid TOML" in result.stdout.partition("\nsettings\n")[2].partition("\n\n")[0]
    path.write_text('[providers.p]\nkind = "ecoh"\n')
    assert "providers.p.kind: there is no kind of provider 'ecoh'" in cli("doctor").stdout


def test_providers_of_the_settings_are_those_that_commands_use(cli: Cli, path: Path) -> None:
    path.write_text('[providers.mine]\nkind = "echo"\n[providers.bad]\nkind = "ecoh"\n')
    result = cli("status")
    assert (result.returncode, result.stderr) == (1, "")
    rows = [line.split()[:3] for line in result.stdout.splitlines()[1:3]]
    assert rows == [["mine", "connected", "recovered"], ["bad", "failed", "invalid_config"]]
    assert "there is no kind of provider 'ecoh'" in result.stdout
    answer = cli("chat", "Hello")
    assert (answer.returncode, answer.stdout) == (0, "Hello\n")
    path.write_text("[providers.mine\n")
    broken = cli("status")
    assert broken.returncode == 1
    assert "no valid TOML" in broken.stderr


# ---- set -----------------------------------------------------------------------------------------


def test_a_value_is_changed_and_everything_else_stays(cli: Cli, path: Path) -> None:
    result = cli("config", "set", "providers.work-openai.default_model", "gpt-6", WORK_KEY=KEY)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"providers.work-openai.default_model = 'gpt-6'  ({path})\n"
    assert path.read_text() == FILE.replace('"gpt-5"', '"gpt-6"')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    ("place", "text", "value"),
    [
        ("providers.work-openai.default_parameters.temperature", "0.7", 0.7),
        ("providers.work-openai.default_parameters.stop", '["a", "b"]', ["a", "b"]),
        ("providers.work-openai.default_parameters.include_raw", "true", True),
        ("providers.work-openai.default_model", "5", "5"),
        ("providers.work-openai.base_url", "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ('providers."a.b".default_model', "new", "new"),
        ("defaults.timeouts.total_s", "60", 60),
        ("rows.mine.base_url", "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
    ],
    ids=lambda value: str(value).rpartition(".")[2],
)
def test_a_value_is_written_as_what_the_setting_takes(
    cli: Cli, path: Path, place: str, text: str, value: object
) -> None:
    result = cli("config", "set", place, text, WORK_KEY=KEY)
    assert (result.returncode, result.stderr) == (0, "")
    tables: object = tomllib.loads(f"{place} = 0")
    written, expected = tomllib.loads(path.read_text()), tomllib.loads(FILE)
    inner = expected
    while isinstance(tables, dict):
        ((key, tables),) = tables.items()
        if isinstance(tables, dict):
            inner = inner.setdefault(key, {})
        else:
            inner[key] = value
    assert written == expected
    assert path.read_text().startswith("# My settings.\n[defaults]")


def test_the_file_is_created_for_its_owner_alone(cli: Cli, tmp_path: Path) -> None:
    path = config_file(tmp_path)
    old = os.umask(0)
    try:
        result = cli("config", "set", "providers.local.kind", "ollama")
    finally:
        os.umask(old)
    assert (result.returncode, result.stderr) == (0, "")
    assert path.read_text() == '[providers.local]\nkind = "ollama"\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_may_read_stays_so_until_there_is_a_key_in_it(
    cli: Cli, path: Path
) -> None:
    path.chmod(0o644)
    cli("config", "set", "providers.work-openai.default_model", "x", WORK_KEY=KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    cli("config", "set", "providers.work-openai.api_key", "--stdin", text=KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_to_the_file_stays_a_link(cli: Cli, path: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    path.replace(real)
    path.symlink_to(real)
    assert cli("config", "set", "providers.local.kind", "ollama", WORK_KEY=KEY).returncode == 0
    assert path.is_symlink()
    assert 'kind = "ollama"' in real.read_text()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["providers.work-openai.default_modl", "x"], "unknown setting", "'default_model'"),
        (["providers.work-openai.top_p", "hot"], "must be a number, got 'hot'", ""),
        (["providers.work-openai.kind", "opnai"], "no kind of provider 'opnai'", "'openai'"),
        (["providers.new.default_model", "x"], "no kind of provider 'new'", "kind ="),
        (["provders.x.kind", "echo"], "provders", "'providers'"),
        (["providers.work-openai.default_model.x", "1"], "is no table", ""),
        (["providers", "x"], "'providers' is no place", "providers.openai"),
        (["a = 1\nb.c", "x"], "is no place of a setting", ""),
        (["providers.work-openai.default_model"], "no value", "--stdin"),
        (["providers.work-openai.default_model", "x", "--keyring"], "--keyring keeps keys", ""),
        ([], "no setting", "config set providers."),
        (["providers.work-openai.api_key", "env:NO NAME"], "names no environment variable", ""),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_would_be_wrong_is_refused_and_nothing_is_written(
    cli: Cli, path: Path, arguments: list[str], message: str, hint: str
) -> None:
    result = cli("config", "set", *arguments, WORK_KEY=KEY)
    assert (result.returncode, result.stdout) == (2, "")
    first, *more = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert hint in "".join(more)
    assert path.read_text() == FILE
    assert [p.name for p in path.parent.iterdir()] == ["config.toml"]


def test_what_is_wrong_elsewhere_does_not_keep_a_value_from_being_changed(
    cli: Cli, path: Path
) -> None:
    path.write_text(f'{FILE}[providers.bad]\nkind = "echo"\nwords_per_s = "x"\n')
    result = cli("config", "set", "providers.work-openai.default_model", "gpt-6")
    assert (result.returncode, result.stderr) == (0, "")
    repaired = cli("config", "set", "providers.bad.words_per_s", "9")
    assert (repaired.returncode, repaired.stderr) == (0, "")


def test_a_broken_file_is_not_written_to(cli: Cli, path: Path) -> None:
    path.write_text("[providers.p\n")
    result = cli("config", "set", "providers.work-openai.default_model", "x")
    assert result.returncode == 2
    assert "no valid TOML" in result.stderr
    assert path.read_text() == "[providers.p\n"


def test_without_a_settings_file_there_is_nothing_to_set(cli: Cli) -> None:
    result = cli("config", "set", "providers.p.kind", "echo", LLM_MANAGER_CONFIG="")
    assert result.returncode == 2
    assert "there is no settings file" in result.stderr


def test_show_and_check_take_no_setting(cli: Cli, path: Path) -> None:
    result = cli("config", "check", "providers.p")
    assert (result.returncode, result.stdout) == (2, "")
    assert "takes no 'providers.p'" in result.stderr


# ---- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("providers.work-openai.api_key", "word"),
        ("providers.work-openai.headers.x-own", "word"),
        ("providers.work-openai.default_model", KEY),
        ("providers.work-openai.proxy", "http://user:secret@127.0.0.1:1"),
    ],
)
def test_a_key_as_an_argument_is_refused(cli: Cli, path: Path, place: str, value: str) -> None:
    result = cli("config", "set", place, value)
    assert (result.returncode, result.stdout) == (2, "")
    assert "a key is never given as an argument" in result.stderr
    assert "--stdin" in result.stderr
    assert value not in result.stderr.replace("keyword", "")
    assert path.read_text() == FILE


def test_a_key_is_read_from_standard_input(cli: Cli, path: Path) -> None:
    result = cli("config", "set", "providers.work-openai.api_key", "--stdin", text=f"{KEY}\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert KEY not in result.stdout
    assert "= ***" in result.stdout
    assert path.read_text() == FILE.replace("env:WORK_KEY", KEY)
    nothing = cli("config", "set", "providers.work-openai.api_key", "--stdin", text=" \n")
    assert nothing.returncode == 2
    assert "no value" in nothing.stderr


def test_a_person_is_asked_for_a_key_and_does_not_see_it(tmp_path: Path, path: Path) -> None:
    arguments = ("config", "set", "providers.work-openai.api_key")
    with Terminal(tmp_path, *arguments) as terminal:
        terminal.until("providers.work-openai.api_key: ")
        terminal.type(f"{KEY}\n")
        assert terminal.ended() == 0
        assert terminal.is_as_before
    assert KEY not in terminal.seen
    assert KEY in path.read_text()


def test_who_changes_their_mind_leaves_everything_as_it_was(tmp_path: Path, path: Path) -> None:
    with Terminal(tmp_path, "config", "set", "providers.work-openai.api_key") as terminal:
        terminal.until("providers.work-openai.api_key: ")
        terminal.type("\x03")
        assert terminal.ended() == 130
        assert terminal.is_as_before
        assert "Traceback" not in terminal.seen
    assert path.read_text() == FILE


@pytest.mark.parametrize("reference", ["env:NOT_YET", "keyring:service/name"])
def test_a_reference_may_be_written_before_there_is_a_key(
    cli: Cli, path: Path, reference: str
) -> None:
    result = cli("config", "set", "providers.work-openai.api_key", reference)
    assert result.returncode == 0
    assert f"= '{reference}'" in result.stdout
    assert path.read_text() == FILE.replace("env:WORK_KEY", reference)
    warned = result.stderr.startswith("warning: providers.work-openai.api_key: no key at")
    assert warned == (reference == "env:NOT_YET")


KEYRING = """
import json, os, pathlib
from keyring.backend import KeyringBackend
class InFile(KeyringBackend):
    priority = 1
    file = pathlib.Path(os.environ["KEYRING_FILE"])
    def set_password(self, service, name, password):
        self.file.write_text(json.dumps([service, name, password]))
    def get_password(self, service, name):
        *where, password = json.loads(self.file.read_text())
        return password if where == [service, name] else None
"""


def test_a_key_goes_to_the_keyring_and_the_file_says_where_it_is(
    tmp_path: Path, path: Path
) -> None:
    (tmp_path / "own_keyring.py").write_text(KEYRING)
    given = environment(
        tmp_path,
        KEYRING_FILE=str(tmp_path / "keyring.json"),
        PYTHON_KEYRING_BACKEND="own_keyring.InFile",
    )
    given["PYTHONPATH"] = os.pathsep.join([str(tmp_path), given["PYTHONPATH"]])

    def run(*arguments: str, text: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            input=text, env=given, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert KEY not in done.stdout
        return done.stdout

    place = "providers.work-openai.api_key"
    run("-m", "llm_manager", "config", "set", place, "--keyring", "--stdin", text=KEY)
    assert path.read_text() == FILE.replace("env:WORK_KEY", "keyring:llm_manager/work-openai")
    assert json.loads((tmp_path / "keyring.json").read_text())[2] == KEY
    program = """
    import asyncio, hashlib
    from llm_manager import create_provider
    print(hashlib.sha256(asyncio.run(create_provider("work-openai")._key.ask()).encode()).hexdigest())
    """
    assert run("-c", textwrap.dedent(program)).strip() == hashlib.sha256(KEY.encode()).hexdigest()


def test_a_keyring_that_takes_no_key_leaves_the_file_as_it_was(cli: Cli, path: Path) -> None:
    result = cli(
        "config", "set", "providers.work-openai.api_key", "--keyring", "--stdin",
        text=KEY, PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring",
    )  # fmt: skip
    assert result.returncode == 2
    assert "the keyring does not take the key" in result.stderr
    assert KEY not in result.stderr
    assert path.read_text() == FILE


# ---- what is not installed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("tomlkit", ["set", "providers.p.kind", "echo"], "cli"),
        ("keyring", ["set", "providers.work-openai.api_key", "--keyring", "--stdin"], "keyring"),
    ],
    ids=["tomlkit", "keyring"],
)
def test_a_missing_package_is_told_with_what_to_install(
    tmp_path: Path, path: Path, missing: str, arguments: list[str], extra: str
) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from llm_manager.cli import main
sys.exit(main(["config", *{arguments!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=KEY, env=environment(tmp_path, WORK_KEY=KEY), capture_output=True, encoding="utf-8",
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert f"needs the package {missing}" in first
    assert second == f"hint: install the extra '{extra}': pip install '.[{extra}]'"
    assert path.read_text() == FILE


def test_without_rich_a_pipe_still_gets_its_table(tmp_path: Path, path: Path) -> None:
    program = """
import sys
sys.modules["rich"] = sys.modules["tomlkit"] = None
from llm_manager.cli import main
sys.exit(main(["config", "show"]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment(tmp_path, WORK_KEY=KEY), capture_output=True, encoding="utf-8",
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "gpt-5" in done.stdout
