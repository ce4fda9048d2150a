"""Connecting one provider loads no other provider's library."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARIES = (
    "openai",
    "anthropic",
    "torch",
    "transformers",
    "litellm",
    "huggingface_hub",
    "jsonschema",
)

CONNECT = """
import asyncio, json, sys
from llm_manager import LLMProviderManager
from llm_manager.testing import Reply, ScriptedPeer

async def main():
    async with ScriptedPeer() as peer, LLMProviderManager() as manager:
        listed = {{"object": "list", "data": [{{"id": "m"}}], "models": [], "has_more": False}}
        for path in ("/models", "/v1/models?limit=1000", "/v1/models", "/api/tags", "/api/ps"):
            peer.route(path, Reply.json(listed))
        key = "key-0123456789"
        provider = manager.register_provider({kind!r}, base_url=peer.base_url, api_key=key)
        await provider.connect()
        assert provider.usable, provider.status
        print(json.dumps(sorted(sys.modules)))

asyncio.run(main())
"""


def loaded_by(kind: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", CONNECT.format(kind=kind)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout)) & set(LIBRARIES)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("openai", {"openai"}),
        ("anthropic", {"anthropic"}),
        ("groq", set()),
        ("compatible", set()),
        ("ollama", set()),
    ],
)
def test_connecting_a_provider_loads_its_own_library_and_no_other(kind: str, own: set[str]) -> None:
    assert loaded_by(kind) == own


def test_the_libraries_that_must_not_be_loaded_are_there_to_be_loaded() -> None:
    """Otherwise the test above could not fail."""
    for library in ("openai", "anthropic", "torch", "transformers"):
        assert importlib.util.find_spec(library), f"{library} is not installed"
