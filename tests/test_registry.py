"""Kinds of providers that other packages bring along, as really installed packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages, as an installer leaves it."""
    return tmp_path / "site"


def install(site: Path, name: str, module: str, entry_points: dict[str, str]) -> None:
    """Put a package with one module and these entry points into ``site``."""
    about = site / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "\n".join(f"{kind} = {target}" for kind, target in entry_points.items())
    (about / "entry_points.txt").write_text(f"[llm_manager.providers]\n{lines}\n")
    (site / f"{name}.py").write_text(module)


def run(site: Path, program: str) -> str:
    """What ``program`` prints in a process of its own, in which ``site`` is installed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


GOOD = """
print("imported")
from llm_manager import EchoProvider, Row
class Shouting(EchoProvider):
    kind = "shouting"
def make(**settings):
    return Shouting(name="made by a function", **settings)
ROW = Row(id="row-of-acme", name="Acme", base_url="http://127.0.0.1:1/v1", fim="llamacpp")
"""
KINDS = {"shouting": "acme:Shouting", "made": "acme:make", "acme-row": "acme:ROW"}


def test_a_class_a_function_and_a_row_become_kinds(site: Path) -> None:
    install(site, "acme", GOOD, KINDS)
    program = """
from llm_manager import LLMProviderManager, kinds
print(sorted(set(kinds()) & {"shouting", "made", "acme-row", "ollama"}))
manager = LLMProviderManager()
for kind in ("shouting", "made", "acme-row"):
    provider = manager.register_provider(kind)
    print(provider.id, provider.name, type(provider).__name__, provider.kind)
print("fim" in manager.get_provider("acme-row").capabilities)
"""
    assert run(site, program).splitlines() == [
        "['acme-row', 'made', 'ollama', 'shouting']",
        "imported",
        "shouting shouting Shouting shouting",
        "made made by a function Shouting shouting",
        "acme-row Acme OpenAICompatibleProvider acme-row",
        "True",
    ]


def test_nothing_is_looked_for_or_imported_before_it_is_needed(site: Path) -> None:
    install(site, "acme", GOOD, KINDS)
    program = """
import sys
from llm_manager import LLMProviderManager
manager = LLMProviderManager()
manager.register_provider("echo")
manager.register_provider("llamacpp")
print("importlib.metadata" in sys.modules, "acme" in sys.modules)
"""
    assert run(site, program).split() == ["False", "False"]


BROKEN = {
    "gone": "nowhere:Provider",
    "half": "broken:Missing",
    "raising": "raising:Provider",
    "number": "broken:NUMBER",
    "foreign": "broken:Foreign",
}


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("gone", "builtins.ModuleNotFoundError: No module named 'nowhere'"),
        ("half", "has no attribute 'Missing'"),
        ("raising", "builtins.RuntimeError: needs the moon, key=***"),
        ("number", "is 7, neither a provider class, nor a function, nor a Row"),
        ("foreign", "neither a provider class, nor a function, nor a Row"),
    ],
)
def test_a_broken_package_is_told_when_its_kind_is_asked_for_and_harms_nobody(
    site: Path, kind: str, why: str
) -> None:
    install(site, "acme", GOOD, KINDS)
    install(site, "broken", "NUMBER = 7\nclass Foreign: pass\n", BROKEN)
    (site / "raising.py").write_text(
        "raise RuntimeError('needs the moon, key=sk-planted-0123456789abcdef')"
    )
    program = f"""
import logging
logging.basicConfig(format="%(levelname)s %(name)s", force=True)
from llm_manager import ConfigurationError, create_provider, kinds
assert {kind!r} in kinds()
for _ in range(2):
    try:
        create_provider({kind!r})
    except ConfigurationError as error:
        print(error.code, error.message, "|", error.hint, error.__cause__, error.__context__)
print(create_provider("shouting").id)
"""
    first, second, *rest = run(site, program).splitlines()
    assert first == second
    assert first.startswith(f"broken_plugin the kind of provider {kind!r} of the package broken")
    assert why in first
    assert first.endswith("| repair or remove the package broken None None")
    assert "sk-planted" not in first
    assert rest == ["imported", "shouting"]


def test_doctor_tells_of_broken_packages_and_goes_on(site: Path) -> None:
    module = """
def wanting(*, planet): ...
def raising(**settings): raise KeyError("moon")
"""
    kinds = {"wants": "broken:wanting", "raises": "broken:raising", "gone": "broken:missing"}
    install(site, "broken", module, kinds)
    told = run(
        site,
        """
import json, subprocess, sys
done = subprocess.run([sys.executable, "-m", "llm_manager", "doctor", "--json"],
                      capture_output=True, text=True)
assert not done.stderr.count("Traceback"), done.stderr
print([f["name"] for f in json.loads(done.stdout)["findings"] if f["section"] == "addresses"])
""",
    )
    assert told.strip() == "['gone', 'raises']"


def test_what_is_built_in_or_registered_counts_more(site: Path) -> None:
    install(site, "acme", GOOD, {**KINDS, "echo": "acme:make", "groq": "acme:make"})
    program = """
from llm_manager import EchoProvider, create_provider, kinds, register_provider
class Mine(EchoProvider):
    kind = "mine"
register_provider("shouting", Mine)
print(kinds().count("echo"), type(create_provider("echo")).__name__)
print(type(create_provider("groq")).__name__, type(create_provider("shouting")).__name__)
"""
    assert run(site, program).split() == ["1", "EchoProvider", "OpenAICompatibleProvider", "Mine"]


def test_of_two_packages_with_one_kind_the_first_counts_and_it_is_logged(site: Path) -> None:
    install(site, "acme", GOOD, {"shouting": "acme:Shouting"})
    install(site, "other", "def make(**s): raise SystemExit(1)", {"shouting": "other:make"})
    program = """
import logging, sys
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
from llm_manager import kinds
kinds()
"""
    told = run(site, program)
    assert told.startswith("WARNING two packages bring the kind of provider 'shouting'")


def test_a_kind_that_nobody_knows_is_told_with_the_nearest_one(site: Path) -> None:
    install(site, "acme", GOOD, KINDS)
    program = """
from llm_manager import ProviderNotFoundError, create_provider
try:
    create_provider("shoutin")
except ProviderNotFoundError as error:
    print(error.hint)
"""
    assert run(site, program).strip() == "did you mean 'shouting'?"


def test_the_dialect_of_a_row_from_a_package_is_known_without_a_provider(site: Path) -> None:
    install(site, "acme", GOOD, KINDS)
    program = """
from llm_manager.registry import codec_of
print(codec_of("acme-row").path)
"""
    assert run(site, program).split() == ["imported", "/chat/completions"]
