"""`llm-manager new-provider`: a package whose tests pass as they are, or nothing at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .conftest import Cli
from .running import ROOT, TIMEOUT_S, environment

FILES = [
    "README.md",
    "llm_manager_acme_llm/__init__.py",
    "llm_manager_acme_llm/dialect.py",
    "llm_manager_acme_llm/provider.py",
    "llm_manager_acme_llm/py.typed",
    "pyproject.toml",
    "tests/test_acme_llm.py",
]


@pytest.fixture
def package(cli: Cli, tmp_path: Path) -> Path:
    """A package as it is generated."""
    assert cli("new-provider", "acme-llm").returncode == 0
    return tmp_path / "llm-manager-acme-llm"


def installed(package: Path, site: Path) -> dict[str, str]:
    """The environment in which it is installed, as its own pyproject.toml says."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    about = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    for group, points in project["entry-points"].items():
        lines = "\n".join(f"{name} = {target}" for name, target in points.items())
        (about / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")
    where = os.pathsep.join([str(site), str(package), str(ROOT)])
    return environment(site) | {"PYTHONPATH": where}


def run(arguments: list[str], package: Path, given: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=package, env=given, capture_output=True,
        encoding="utf-8", timeout=TIMEOUT_S * 2, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_has_all_that_it_needs(package: Path) -> None:
    written = sorted(str(f.relative_to(package)) for f in package.rglob("*") if f.is_file())
    assert written == FILES
    texts = "".join((package / file).read_text() for file in FILES)
    assert "$" not in texts.replace("\n$ ", "\n")  # as a shell asks
    assert [p.name for p in package.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.timeout(120)
def test_its_tests_pass_as_they_are(package: Path, tmp_path: Path) -> None:
    given = installed(package, tmp_path / "site")
    options = ["-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:xdist"]
    told = run(["-m", "pytest", "-q", *options], package, given)
    assert " passed" in told
    assert "failed" not in told


@pytest.mark.timeout(120)
def test_its_tests_notice_when_the_provider_is_wrong(package: Path, tmp_path: Path) -> None:
    dialect = package / "llm_manager_acme_llm" / "dialect.py"
    broken = dialect.read_text().replace('TextDelta(told["text"])', 'TextDelta("?")')
    assert broken != dialect.read_text()
    dialect.write_text(broken)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:asyncio"],
        cwd=package, env=installed(package, tmp_path / "site"), capture_output=True,
        encoding="utf-8", timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "failed" in done.stdout


def test_where_it_is_installed_its_kind_is_known(package: Path, tmp_path: Path) -> None:
    program = """
from llm_manager import LLMProviderManager, register_configured
for provider in register_configured(LLMProviderManager()):
    print(provider.id, type(provider).__name__, provider.status.status)
"""
    given = installed(package, tmp_path / "site")
    told = run(["-W", "error", "-c", program], package, given)
    assert told == "acme-llm AcmeLlmProvider disconnected\n"


def test_what_was_written_is_told(cli: Cli, tmp_path: Path) -> None:
    result = cli("new-provider", "acme-llm", "--folder", "deep/in/here")
    assert result.returncode == 0
    assert result.stdout.split() == ["deep/in/here", *FILES]
    assert "pip install -e '.[dev]' && pytest" in result.stderr
    document = json.loads(cli("new-provider", "acme-llm", "--json").stdout)
    assert document == {"kind": "acme-llm", "folder": "llm-manager-acme-llm", "files": FILES}


def test_an_empty_folder_is_filled(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert cli("new-provider", "acme-llm", "--folder", "mine").returncode == 0
    assert (tmp_path / "mine" / "pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["Acme"], "'Acme' cannot name a provider", "small letters"),
        (["1acme"], "'1acme' cannot name", ""),
        (["a/b"], "'a/b' cannot name", ""),
        (["../acme"], "cannot name", ""),
        (["acme_llm"], "cannot name", "single '-'"),
        (["a--b"], "cannot name", ""),
        (["a" * 41], "cannot name", "at most 40"),
        ([""], "cannot name", ""),
        (["echo"], "there is a kind of provider 'echo' already", "choose another name"),
        (["groq"], "there is a kind of provider 'groq' already", ""),
        (["acme", "--folder", "full"], "'full' exists already and is not empty", "--folder"),
        (["acme", "--folder", "file"], "'file' exists already", ""),
        (["acme", "--folder", "file/inside"], "'file/inside' cannot be written", ""),
        (["acme", "--folder", " "], "the text is empty", ""),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_cannot_be_written_is_told_and_nothing_is(
    cli: Cli, tmp_path: Path, arguments: list[str], message: str, hint: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = cli("new-provider", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    first, *more = result.stderr.splitlines()
    assert message in first
    assert hint in "".join(more)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
