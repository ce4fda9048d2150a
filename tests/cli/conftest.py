"""The command line as a fixture, and a server for it to talk to."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_manager.testing import Reply, ScriptedPeer

from .running import TIMEOUT_S, command, environment

Result = subprocess.CompletedProcess[str]
Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs ``llm-manager`` to its end; nothing that looks like a defect may be on stderr."""

    def run(*arguments: str, text: str = "", **more_environment: str) -> Result:
        result = subprocess.run(
            command(*arguments),
            input=text,
            capture_output=True,
            encoding="utf-8",
            env=environment(tmp_path, **more_environment),
            cwd=tmp_path,
            timeout=TIMEOUT_S,
            check=False,
        )
        for defect in ("Traceback", "Exception ignored", "was destroyed", "Warning"):
            assert defect not in result.stderr
        return result

    return run


@pytest.fixture
def server() -> Iterator[ScriptedPeer]:
    """A server of the OpenAI dialect with the models ``tiny`` and ``other``."""
    with ScriptedPeer() as peer:
        models = [{"id": "tiny", "object": "model"}, {"id": "other", "object": "model"}]
        peer.route("/v1/models", Reply.json({"object": "list", "data": models}))
        yield peer
