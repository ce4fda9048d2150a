"""Importing and registering cost nothing that has not been asked for."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("openai", "anthropic", "torch", "transformers", "litellm", "httpx", "httpx2", "rich")

LOOK = """
import gc, json, socket, sys, threading
{statements}
print(json.dumps({{
    "modules": sorted(sys.modules),
    "threads": threading.active_count(),
    "sockets": len([o for o in gc.get_objects() if isinstance(o, socket.socket)]),
}}))
"""


def after(statements: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(statements=statements)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_importing_the_package_loads_names_only() -> None:
    seen = after("import llm_manager")
    ours = [m for m in seen["modules"] if m.startswith("llm_manager")]
    assert ours == ["llm_manager"]
    assert not {*HEAVY, "asyncio", "pyee", "msgspec", "tenacity"} & set(seen["modules"])


@pytest.mark.parametrize(
    "statements",
    [
        "import llm_manager",
        "from llm_manager import *",
        "from llm_manager import LLMProviderManager\n"
        "manager = LLMProviderManager.get_instance()\n"
        "for kind in ('echo', 'ollama', 'groq', 'openrouter', 'lmstudio', 'mistral'):\n"
        "    manager.register_provider(kind).on('failed', print)\n"
        "manager.snapshot()",
    ],
)
def test_nothing_heavy_is_loaded_no_thread_started_no_socket_opened(statements) -> None:
    seen = after(statements)
    assert not set(HEAVY) & set(seen["modules"])
    assert (seen["threads"], seen["sockets"]) == (1, 0)


def test_the_vendor_libraries_that_must_not_be_loaded_are_there_to_be_loaded() -> None:
    """Otherwise the tests above could not fail."""
    for library in ("openai", "anthropic", "torch", "httpx2", "rich"):
        assert importlib.util.find_spec(library), f"{library} is not installed"


def test_an_unknown_name_is_an_attribute_error() -> None:
    import llm_manager

    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = llm_manager.Nothing
    assert "LLMProviderManager" in dir(llm_manager)
