"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, source: str, settings: str = "") -> str:
    """What pytest says about a test file of its own, with the plugin."""
    (folder / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text(f"[pytest]\nasyncio_mode = auto\n{settings}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "llm_manager.testing.plugin",
         "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)],
        cwd=ROOT, capture_output=True, encoding="utf-8", timeout=50, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_fixtures_do_what_their_names_say(tmp_path) -> None:
    output = run(
        tmp_path,
        """
import pytest
from llm_manager import LLMProviderManager, OpenAICompatibleProvider
from llm_manager.testing import Reply

pytest.importorskip("pytest_asyncio")

async def test_provider_and_events(scripted_provider, llm_events):
    events = llm_events(scripted_provider)
    scripted_provider.answer("Hello.")
    assert (await scripted_provider.generate_completion("scripted", "Hi")).text == "Hello."
    await events.wait_for("requestFinished")
    assert events.outcomes == ["ok"]
    assert events.statuses == ["connecting", "connected"]

async def test_peer(scripted_peer):
    scripted_peer.route("/v1/models", Reply.json({"data": [{"id": "small"}]}))
    async with OpenAICompatibleProvider(base_url=f"{scripted_peer.base_url}/v1") as provider:
        assert [model.id for model in provider.known_models] == ["small"]

def test_fixtures_without_a_loop(scripted_peer, scripted_provider, llm_events):
    assert scripted_peer.base_url.startswith("http://127.0.0.1:")
    assert llm_events(scripted_provider) == []
""",
    )
    assert "3 passed" in output, output


NETWORK = """
import asyncio, socket, pytest
from llm_manager.testing import RealNetworkError

def test_blocked({fixtures}):
    with pytest.raises(RealNetworkError, match="192.0.2.1:80; tests must not"):
        socket.create_connection(("192.0.2.1", 80))
    with pytest.raises(RealNetworkError, match="api.openai.com:443"):
        socket.getaddrinfo("api.openai.com", 443)
    with pytest.raises(RealNetworkError):
        asyncio.run(asyncio.open_connection("192.0.2.1", 80))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        with pytest.raises(RealNetworkError):
            udp.sendto(b"x", ("192.0.2.1", 53))

def test_this_machine_is_reachable({fixtures}):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        socket.create_connection(("localhost", port)).close()
"""


def test_the_network_is_blocked_where_a_test_asks_for_it(tmp_path) -> None:
    output = run(tmp_path, NETWORK.format(fixtures="no_real_network"))
    assert "2 passed" in output, output


def test_the_network_is_blocked_for_all_by_a_setting_and_can_be_allowed(tmp_path) -> None:
    lifted = """
CONNECT = socket.socket.connect

def test_allowed(allow_real_network):
    assert socket.socket.connect is not CONNECT

def test_blocked_again():
    with pytest.raises(RealNetworkError):
        socket.create_connection(("192.0.2.1", 80))
"""
    output = run(tmp_path, NETWORK.format(fixtures="") + lifted, "llm_manager_block_network = true")
    assert "4 passed" in output, output


def test_nothing_is_switched_on_by_itself(tmp_path) -> None:
    output = run(
        tmp_path,
        """
import socket, sys

def test_untouched():
    assert socket.socket.connect is socket.socket.__mro__[1].connect
    loaded = {name for name in sys.modules if name.startswith("llm_manager")}
    assert loaded == {"llm_manager", "llm_manager.testing", "llm_manager.testing.plugin"}, loaded
    assert "httpx2" not in sys.modules
""",
    )
    assert "1 passed" in output, output


def test_the_kit_runs_without_a_plugin_for_coroutines(tmp_path) -> None:
    source = (ROOT / "docs" / "examples" / "test_example_provider.py").read_text()
    (tmp_path / "example_provider.py").write_text(
        (ROOT / "docs" / "examples" / "example_provider.py").read_text()
    )
    (tmp_path / "test_it.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider",
         "-k", "models or key", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=ROOT, capture_output=True, encoding="utf-8", timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


@pytest.mark.parametrize("name", ["llm_manager.testing.plugin"])
def test_the_plugin_is_found_under_its_own_name(name) -> None:
    """Under another one, `-p` or `pytest_plugins` beside it would register it twice."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {name: name}
