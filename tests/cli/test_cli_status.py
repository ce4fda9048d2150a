"""`llm-manager status`, `models` and `doctor`: what there is, and what to do where it is wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llm_manager.cli.arguments import parse
from llm_manager.cli.doctor import NEEDED, OPTIONAL
from llm_manager.cli.models import run as models
from llm_manager.cli.output import Output
from llm_manager.cli.session import run as run_session
from llm_manager.cli.status import run as status
from llm_manager.testing import Reply, ScriptedPeer

from .conftest import Cli
from .running import ROOT, TIMEOUT_S, Terminal, command, environment

KEY = "sk-test-4f9a8b7c6d5e4f3a2b1c"


async def _nothing() -> list[Any]:
    return []


# ---- status --------------------------------------------------------------------------------------


def test_a_usable_provider_is_success(cli: Cli, server: ScriptedPeer) -> None:
    result = cli("status", "--base-url", f"{server.base_url}/v1")
    assert (result.returncode, result.stderr) == (0, "")
    header, row = (line.split() for line in result.stdout.splitlines())
    assert header == ["provider", "status", "reason", "models", "latency"]
    assert row[:4] == ["compatible", "connected", "recovered", "2"]


def test_a_provider_that_is_down_is_a_failure_with_its_reason_and_a_hint(cli: Cli) -> None:
    result = cli("status", "--base-url", "http://127.0.0.1:9/v1")
    assert (result.returncode, result.stderr) == (1, "")
    assert re.search(r"^compatible +reconnecting +refused, next try in ", result.stdout, re.M)
    assert "127.0.0.1:9 refuses the connection" in result.stdout


def test_status_as_json_is_the_managers_snapshot(cli: Cli) -> None:
    result = cli("status", "--json", "--provider", "echo")
    document = json.loads(result.stdout)
    assert result.returncode == 0
    assert document["activeProvider"] == "echo"
    assert [p["status"]["status"] for p in document["providers"]] == ["connected"]


def test_watch_tells_every_event_as_json_until_it_is_stopped(
    tmp_path: Path, server: ScriptedPeer
) -> None:
    with subprocess.Popen(
        command("status", "--watch", "--json", "--base-url", f"{server.base_url}/v1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(tmp_path),
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            event = json.loads(line)
            seen.append(event["event"])
            if event["event"] == "statusChanged" and event["current"]["status"] == "connected":
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (130, "")
    assert seen[0] == "providerAdded"
    assert "modelsChanged" in seen


def test_watch_draws_a_table_that_stays_when_it_is_left(tmp_path: Path) -> None:
    with Terminal(tmp_path, "status", "--watch", "--provider", "echo") as terminal:
        terminal.until("● connected")
        terminal.type("\x03")
        assert terminal.ended() == 130
        assert "Traceback" not in terminal.seen
        assert terminal.is_as_before


@pytest.mark.parametrize("command_", [status, models], ids=["status", "models"])
def test_a_machine_that_offers_nothing_is_told_what_to_do(
    command_: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_session(command_, parse(["status"]), Output(), find=_nothing)
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert "llm-manager doctor" in err


# ---- models --------------------------------------------------------------------------------------


def test_models_are_listed_with_what_the_server_tells_about_each(cli: Cli) -> None:
    with ScriptedPeer() as peer:
        peer.route(
            "/api/tags",
            Reply.json(
                {
                    "models": [
                        {
                            "name": "llama:1b",
                            "model": "llama:1b",
                            "size": 1_300_000_000,
                            "details": {"parameter_size": "1.2B", "quantization_level": "Q8_0"},
                        }
                    ]
                }
            ),
        )
        peer.route("/api/ps", Reply.json({"models": []}))
        peer.route(
            "/api/show",
            Reply.json(
                {
                    "capabilities": ["completion", "tools"],
                    "model_info": {
                        "general.architecture": "llama",
                        "llama.context_length": 131072,
                    },
                }
            ),
        )
        named = ("models", "--provider", "ollama")
        table = cli(*named, OLLAMA_HOST=peer.base_url)
        document = json.loads(cli(*named, "--json", OLLAMA_HOST=peer.base_url).stdout)
    assert (table.returncode, table.stderr) == (0, "")
    assert re.search(
        r"^llama:1b +128k +json, tools +1\.2B Q8_0 1\.3 GB +no +endpoint$", table.stdout, re.M
    )
    assert document[0]["contextWindowTokens"] == 131072


def test_a_missing_key_is_a_mistake_with_the_variables_name(cli: Cli) -> None:
    result = cli("models", "--provider", "groq")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: groq: no API key\nhint: set GROQ_API_KEY")
    assert "api_key=" not in result.stderr


# ---- doctor --------------------------------------------------------------------------------------


def test_doctor_names_each_problem_and_what_to_do_and_shows_no_secret(
    cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    result = cli(
        "doctor",
        GROQ_API_KEY=f"{KEY}\n{KEY}",
        MISTRAL_API_KEY=KEY,
        HTTPS_PROXY=f"ftp://me:{KEY}@proxy:1",
        HTTP_PROXY=f"http://me:{KEY}@proxy:3128",
        SSL_CERT_FILE=str(tmp_path / "missing.pem"),
        HF_HOME=str(file),
        OLLAMA_HOST="http://host:port",
    )
    assert (result.returncode, result.stderr) == (1, "")
    assert KEY not in result.stdout
    summary = result.stdout.partition("5 problems\n")[2]
    for problem in (
        "GROQ_API_KEY contains a line break",
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "HF_HOME",
        "ollama: OLLAMA_HOST 'http://host:port' is not a URL",
    ):
        assert problem in summary
    assert "→ copy the key again" in summary
    assert re.search(r"✓ MISTRAL_API_KEY +for mistral", result.stdout)
    assert re.search(r"✓ HTTP_PROXY +http://\*\*\*@proxy:3128", result.stdout)


def test_doctor_as_json_finds_no_problem_where_there_is_none(cli: Cli) -> None:
    result = cli("doctor", "--json", NO_PROXY="localhost")
    document = json.loads(result.stdout)
    assert (result.returncode, document["problems"]) == (0, 0)
    packages = {f["name"]: f["text"] for f in document["findings"] if f["section"] == "packages"}
    assert re.match(r"\d+\.\d+", packages["httpx2"])


def test_doctor_looks_for_exactly_the_packages_that_the_project_can_use() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {
        _name(requirement): extra
        for extra, requirements in project["optional-dependencies"].items()
        if extra not in ("all", "dev")
        for requirement in requirements
    }
    assert extras == OPTIONAL
    assert {_name(requirement) for requirement in project["dependencies"]} == set(NEEDED)


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
