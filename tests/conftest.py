"""What all tests share: illegal transitions raise, and nothing leaves this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_manager.machine import StatusMachine
from llm_manager.settings.store import reset_settings
from llm_manager.testing.network import no_real_network


@pytest.fixture(autouse=True, scope="session")
def _illegal_transitions_raise():
    StatusMachine.strict = True
    yield
    StatusMachine.strict = False


@pytest.fixture(autouse=True, scope="session")
def _only_this_machine():
    """A test that tries to reach another machine fails at once instead of waiting for a network."""
    with no_real_network():
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Keys, proxies and settings of whoever runs the tests must not change their outcome."""
    import os

    for name in list(os.environ):
        if (
            name.endswith(("_API_KEY", "_TOKEN", "_PROXY", "_proxy"))
            or name
            in (
                "OLLAMA_HOST",
                "OLLAMA_BASE_URL",
                "SSL_CERT_FILE",
                "SSL_CERT_DIR",
            )
            or name.startswith("LLM_MANAGER_")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LLM_MANAGER_CONFIG", "")
    reset_settings()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings file of this process is."""
    path = tmp_path / "config.toml"
    path.touch(mode=0o600)
    monkeypatch.setenv("LLM_MANAGER_CONFIG", str(path))
    reset_settings()
    return path
