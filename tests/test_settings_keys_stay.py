"""A key of the settings reaches its own server and no other: two servers note what arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llm_manager import (
    BaseLLMProvider,
    ConfigurationError,
    LLMError,
    create_provider,
    follow_settings,
    get_settings,
    set_provider_config,
)
from llm_manager.config import names_a_key
from llm_manager.providers.litellm import LiteLLMProvider
from llm_manager.testing import Reply, ScriptedPeer

KEY, OTHER, NEWER = "keyOfOneServer12345", "keyOfAnother6789012", "newerKeyOfTheFirst345"
WORDS = [
    {"id": "1", "model": "small", "choices": [{"index": 0, "delta": {"content": "Hi."}}]},
    {"id": "1", "model": "small", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    "[DONE]",
]
KINDS = ["compatible", "openai"]


class Server(ScriptedPeer):
    """A server that answers whatever key it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.route("/v1/models", Reply.json({"data": [{"id": "small"}]}))
        self.route("/v1/chat/completions", Reply.sse(WORDS))

    @property
    def url(self) -> str:
        return f"{self.base_url}/v1"

    @property
    def arrived(self) -> str:
        """Every header that was sent here."""
        return "\n".join(str(dict(request.headers)) for request in self.requests)


@pytest.fixture
async def own() -> AsyncIterator[Server]:
    """The server that the key is for."""
    async with Server() as server:
        yield server


@pytest.fixture
async def other() -> AsyncIterator[Server]:
    """Another server."""
    async with Server() as server:
        yield server


async def asked(provider: BaseLLMProvider) -> None:
    """Send what a provider sends; whether it may is not the question."""
    async with provider:
        await provider.generate_completion("small", "Hello")


def table(kind: str, server: Server, key: str, more: str = "") -> str:
    return f"[providers.mine]\nkind='{kind}'\nbase_url='{server.url}'\napi_key='{key}'\n{more}\n"


# ---- over the layers -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unlocks", ["api_key", "headers"])
@pytest.mark.parametrize("layer", ["environment", "code", "call"])
async def test_a_key_of_the_file_does_not_go_where_another_layer_points(
    kind: str,
    unlocks: str,
    layer: str,
    other: Server,
    settings_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"api_key": f"api_key = '{KEY}'", "headers": f"headers = {{ x-team-token = '{KEY}' }}"}
    settings_file.write_text(
        f"[providers.mine]\nkind='{kind}'\nbase_url='http://127.0.0.1:9/v1'\n{given[unlocks]}"
    )
    call: dict[str, Any] = {}
    if layer == "environment":
        monkeypatch.setenv("LLM_MANAGER_PROVIDERS__MINE__BASE_URL", other.url)
        monkeypatch.setenv("LLM_MANAGER_PROVIDERS__MINE__API_KEY", OTHER)
    elif layer == "code":
        set_provider_config("mine", {"base_url": other.url, "api_key": OTHER})
    else:
        call = {"base_url": other.url, "api_key": OTHER}

    await asked(create_provider("mine", **call))

    assert OTHER in other.arrived
    assert KEY not in other.arrived


@pytest.mark.parametrize("header", ["X-Auth-Token", "x_api_key", "Cookie", "x-client-secret"])
async def test_a_header_that_carries_a_key_does_not_go_where_a_weaker_layer_points(
    header: str, other: Server, settings_file: Path
) -> None:
    settings_file.write_text(table("compatible", other, OTHER))
    with pytest.raises(ConfigurationError, match="no base_url"):
        create_provider("mine", headers={header: KEY})
    # One that carries none changes nothing.
    await asked(create_provider("mine", headers={"x-max-tokens": "5"}))
    assert OTHER in other.arrived


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("authorization", True), ("Proxy-Authorization", True), ("x-goog-api-key", True),
        ("ocp-apim-subscription-key", True), ("X_API_KEY", True), ("cookie", True),
        ("aws_secret_access_key", True), ("azure_ad_token", True), ("vertex_credentials", True),
        ("max_tokens", False), ("user-agent", False), ("x-title", False), ("keyboard", False),
        ("openai-organization", False), ("author", False),
    ],
)  # fmt: skip
def test_names_tell_which_headers_hold_keys(name: str, holds: bool) -> None:
    assert names_a_key(name) is holds


def test_a_key_deep_inside_of_what_is_passed_on_stays_with_its_address(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text(
        "[providers.litellm]\nbase_url = 'https://one.example'\n"
        f"arguments = {{ extra_headers = {{ Authorization = 'Bearer {KEY}' }} }}\n"
    )
    monkeypatch.setenv("LLM_MANAGER_PROVIDERS__LITELLM__BASE_URL", "https://two.example")
    assert set(get_settings().for_provider("litellm").withheld) == {"arguments"}


def test_an_option_that_is_called_like_a_key_withholds_nothing(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text(f"[providers.openai]\napi_key = '{KEY}'\n")
    prefix = "LLM_MANAGER_PROVIDERS__OPENAI__"
    monkeypatch.setenv(f"{prefix}SUPERSEDE_KEY", "draft")
    monkeypatch.setenv(f"{prefix}DEFAULT_PARAMETERS__EXTRA__PROMPT_CACHE_KEY", "mine")
    assert get_settings().for_provider("openai").withheld == {}


# ---- rows ----------------------------------------------------------------------------------------


async def test_headers_of_a_row_that_hold_a_key_do_not_go_to_another_address(
    other: Server, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", NEWER)
    settings_file.write_text(
        "[rows.gateway]\nbase_url = 'https://gateway.example/v1'\nkey_required = false\n"
        f"headers = {{ x-api-key = '{KEY}', x-title = 'shown' }}\n"
        "header_variables = { x-team = 'MY_TOKEN' }\n"
    )
    await asked(create_provider("gateway", base_url=other.url))
    assert KEY not in other.arrived
    assert NEWER not in other.arrived
    assert "shown" in other.arrived
    assert create_provider("gateway")._headers == {
        "x-api-key": KEY, "x-title": "shown", "x-team": NEWER,
    }  # fmt: skip


# ---- the environment of an SDK -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "variable"),
    [("openai", "OPENAI_CUSTOM_HEADERS"), ("anthropic", "ANTHROPIC_CUSTOM_HEADERS")],
)
async def test_headers_out_of_a_variable_do_not_go_to_an_address_of_the_settings(
    kind: str, variable: str, other: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"x-team: {KEY}\nauthorization: Bearer {KEY}")
    set_provider_config("mine", {"kind": kind, "base_url": other.url, "api_key": OTHER})
    with suppress(LLMError):  # one of them wants other answers
        await asked(create_provider("mine"))
    assert OTHER in other.arrived
    assert KEY not in other.arrived


async def test_headers_and_address_out_of_variables_go_together(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-team: red")
    monkeypatch.setenv("OPENAI_BASE_URL", own.url)
    await asked(create_provider("openai", api_key=KEY))
    assert "'x-team': 'red'" in own.arrived


def test_whom_requests_are_for_is_not_told_with_a_key_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-variable")
    assert create_provider("openai").organization == "org-of-the-variable"
    set_provider_config("openai", {"api_key": KEY})
    assert create_provider("openai").organization is None


# ---- while it runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unlocks", ["api_key", "headers"])
async def test_a_new_key_of_the_file_does_not_go_where_the_provider_was_moved_to(
    kind: str, unlocks: str, own: Server, other: Server, settings_file: Path
) -> None:
    header = "headers = { x-api-key = '%s' }"
    settings_file.write_text(table(kind, own, KEY, header % KEY))
    provider = create_provider("mine")
    await provider.update_config(base_url=other.url, api_key=OTHER, headers={})
    new = (NEWER, header % KEY) if unlocks == "api_key" else (KEY, header % NEWER)
    settings_file.write_text(table(kind, own, *new))
    get_settings().reload()

    assert await follow_settings(provider) == (unlocks,)
    await asked(provider)

    assert provider.base_url == own.url
    assert other.requests == []
    assert NEWER in own.arrived
    assert OTHER not in own.arrived


async def test_a_key_that_was_given_meanwhile_does_not_go_where_the_file_points_now(
    own: Server, other: Server, settings_file: Path
) -> None:
    settings_file.write_text(table("compatible", own, KEY))
    provider = create_provider("mine")
    await provider.update_config(api_key=NEWER, headers={"x-auth-token": NEWER})
    settings_file.write_text(table("compatible", other, OTHER))
    get_settings().reload()
    await follow_settings(provider)
    await asked(provider)
    assert OTHER in other.arrived
    assert NEWER not in other.arrived


async def test_where_a_provider_was_moved_to_stays_while_key_and_address_do_not_change(
    own: Server, other: Server, settings_file: Path
) -> None:
    settings_file.write_text(table("compatible", own, KEY))
    provider = create_provider("mine")
    await provider.update_config(base_url=other.url, api_key=OTHER)
    settings_file.write_text(table("compatible", own, KEY, "temperature = 1"))
    get_settings().reload()
    assert await follow_settings(provider) == ("default_options",)
    assert provider.base_url == other.url
    assert provider._key.resolve() == OTHER


@pytest.mark.parametrize("header", ["x-gateway-token", "cookie"])
async def test_a_header_that_may_hold_a_key_is_not_taken_along_to_another_server(
    header: str, own: Server, other: Server
) -> None:
    provider = create_provider("compatible", base_url=own.url, headers={header: KEY})
    with pytest.raises(ConfigurationError, match="headers belongs to"):
        await provider.update_config(base_url=other.url)
    assert provider.base_url == own.url


@pytest.mark.parametrize(
    ("before", "change", "what"),
    [
        ({"api_key": KEY}, {"base_url": "https://two.example"}, "api_key"),
        ({"api_key": KEY}, {"arguments": {"api_base": "https://two.example"}}, "api_key"),
        ({"api_key": KEY, "base_url": "https://one.example"}, {"base_url": None}, "api_key"),
        ({"arguments": {"extra_headers": {"authorization": KEY}}},
         {"base_url": "https://two.example"}, "arguments"),
    ],
)  # fmt: skip
async def test_litellm_does_not_take_a_key_to_another_address(
    before: dict[str, Any], change: dict[str, Any], what: str
) -> None:
    provider = create_provider("litellm", **before)
    with pytest.raises(ConfigurationError, match=f"{what} belongs to") as caught:
        await provider.update_config(**change)
    assert KEY not in str(caught.value)
    both = {**before, **change} if what == "arguments" else {**change, "api_key": OTHER}
    await provider.update_config(**both)
    assert isinstance(provider, LiteLLMProvider)
