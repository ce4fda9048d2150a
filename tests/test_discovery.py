"""What this machine offers is found without sending a key anywhere."""

from __future__ import annotations

import logging

import pytest

from llm_manager import (
    ConfigurationError,
    LLMProviderManager,
    OllamaProvider,
    discover,
    register_provider,
)
from llm_manager.providers.rows import ROWS, Row
from llm_manager.registry import unregister_kind
from llm_manager.testing import Reply, ScriptedPeer

KEY = "gsk_planted0123456789"


@pytest.fixture(autouse=True)
def _no_usual_servers(monkeypatch):
    """The programs that happen to run on this machine must not change the outcome."""
    for id, row in list(ROWS.items()):
        if row.local:
            monkeypatch.delitem(ROWS, id)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")


async def test_an_empty_machine_offers_nothing() -> None:
    assert await discover() == []


async def test_keys_are_found_by_their_variables_and_never_shown(monkeypatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    monkeypatch.setenv("MISTRAL_API_KEY", "broken\nkey")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    found = await discover()
    assert [(f.kind, f.origin, f.source, f.available) for f in found] == [
        ("groq", "environment GROQ_API_KEY", "environment", True),
        ("anthropic", "environment ANTHROPIC_API_KEY", "environment", True),
    ]
    assert KEY not in repr(found)


async def test_a_local_server_is_found_and_can_be_registered_as_found() -> None:
    async with ScriptedPeer() as peer:
        peer.route("/v1/models", Reply.json({"data": [{"id": "small", "owned_by": "acme"}]}))
        url = f"{peer.base_url}/v1"
        register_provider("acme-local", Row(id="acme-local", name="Acme", base_url=url, local=True,
                                            key_required=False))  # fmt: skip
        try:
            (found,) = await discover()
            assert (found.kind, found.source, found.models) == ("acme-local", "server", ("small",))
            assert found.origin == f"server at {url}"
            assert all("authorization" not in r.headers for r in peer.requests)
            async with LLMProviderManager() as manager:
                provider = manager.register_provider(found.kind, **found.settings)
                await provider.connect()
                assert provider.usable
        finally:
            unregister_kind("acme-local")


async def test_programs_on_the_same_port_are_told_apart_by_what_they_say() -> None:
    async with ScriptedPeer() as peer:
        url = f"{peer.base_url}/v1"
        for id, owner in (("one", "one"), ("other", "other")):
            register_provider(id, Row(id=id, name=id, base_url=url, local=True, owner=owner,
                                      key_required=False))  # fmt: skip
        try:
            for owner, kind in (("one", "one"), ("other", "other"), ("third", "compatible")):
                peer.route("/v1/models", Reply.json({"data": [{"id": "m", "owned_by": owner}]}))
                (found,) = await discover()
                assert found.kind == kind
            assert found.settings["base_url"] == url  # the unknown one, as a plain server
            async with LLMProviderManager() as manager:
                assert manager.register_provider(found.kind, **found.settings).id != "compatible"
        finally:
            unregister_kind("one")
            unregister_kind("other")


async def test_something_else_on_the_port_is_no_provider() -> None:
    async with ScriptedPeer() as peer:
        url = f"{peer.base_url}/v1"
        register_provider("acme-local", Row(id="acme-local", name="Acme", base_url=url, local=True,
                                            key_required=False))  # fmt: skip
        try:
            for reply in (
                Reply(status=404),
                Reply(body=[b"<html>hello</html>"]),
                Reply.json([1, 2]),
                Reply(instead="close"),
                Reply(instead="hang"),
            ):
                peer.route("/v1/models", reply)
                assert await discover(timeout_s=0.2) == []
        finally:
            unregister_kind("acme-local")


async def test_ollama_is_found_with_its_models(monkeypatch) -> None:
    async with ScriptedPeer() as peer:
        peer.route("/api/tags", Reply.json({"models": [{"name": "llama3.2:latest"}]}))
        monkeypatch.setenv("OLLAMA_HOST", peer.base_url)
        (found,) = await discover()
        assert (found.kind, found.models, found.settings) == ("ollama", ("llama3.2:latest",), {})


async def test_an_ollama_elsewhere_is_named_but_not_probed(monkeypatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://192.0.2.1:11434")
    (found,) = await discover()
    assert (found.kind, found.source) == ("ollama", "environment")
    assert "192.0.2.1" in found.origin


async def test_a_setting_of_ollama_that_cannot_be_is_no_crash(monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("OLLAMA_HOST", "http://[")
    assert await discover() == []
    assert "OLLAMA_HOST" in caplog.text
    with pytest.raises(ConfigurationError, match="OLLAMA_HOST"):
        OllamaProvider()


async def test_models_in_the_hugging_face_cache_are_listed(monkeypatch, tmp_path) -> None:
    hub = tmp_path / "hub"
    (hub / "models--org--small").mkdir(parents=True)
    (hub / "datasets--org--data").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    (found,) = await discover()
    assert (found.kind, found.source, found.models) == ("huggingface", "cache", ("org/small",))
    assert found.available  # the libraries that it needs are installed
