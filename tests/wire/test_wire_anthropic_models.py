"""Anthropic's list of models, and what their names tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_manager.errors import AuthenticationError, InvalidResponseError
from llm_manager.wire.anthropic_models import decode_models, traits_of_name

YES, NO = {"supported": True}, {"supported": False}
ENTRY = {
    "type": "model",
    "id": "claude-opus-5-5",
    "display_name": "Claude Opus 5.5",
    "created_at": "2026-09-01T00:00:00Z",
    "lifecycle": "active",
    "deprecated_at": None,
    "max_input_tokens": 1_000_000,
    "max_tokens": 128_000,
    "capabilities": {
        "batch": YES,
        "image_input": YES,
        "pdf_input": YES,
        "structured_outputs": YES,
        "effort": {**YES, "low": YES, "medium": YES, "high": YES, "max": YES, "xhigh": NO},
        "thinking": {**YES, "types": {"adaptive": YES, "enabled": NO, "disabled": NO,
                                      "between_tools": NO}},
    },
}  # fmt: skip


def page(*entries: Any, **more: Any) -> bytes:
    return json.dumps({"data": entries, "has_more": False, **more}).encode()


def test_the_list_tells_limits_and_capabilities() -> None:
    listed = decode_models(page(ENTRY), "mine")
    (model,) = listed.models
    assert (model.id, model.name, model.provider_id) == (
        "claude-opus-5-5", "Claude Opus 5.5", "mine",
    )  # fmt: skip
    assert (model.context_window_tokens, model.max_output_tokens) == (1_000_000, 128_000)
    assert model.capabilities == {
        "chat", "completion", "tools", "vision", "files", "reasoning", "json_schema",
    }  # fmt: skip
    assert model.input_modalities == {"text", "image", "file"}
    assert model.deprecated is False
    assert model.source_of("capabilities") == "endpoint"
    assert listed.next_after is None


def test_the_list_tells_how_to_ask_a_model_to_reason() -> None:
    traits = decode_models(page(ENTRY), "mine").traits["claude-opus-5-5"]
    assert traits.thinking == {"adaptive"}
    assert traits.efforts == {"low", "medium", "high", "max"}
    assert (traits.thinks_unasked, traits.takes_sampling) == (True, False)
    assert traits.max_output_tokens == 128_000


def test_a_model_that_can_less_says_so() -> None:
    less = {**ENTRY["capabilities"], "image_input": NO, "thinking": NO, "pdf_input": NO}
    (model,) = decode_models(page({**ENTRY, "capabilities": less}), "p").models
    assert model.capabilities == {"chat", "completion", "tools", "json_schema"}
    assert model.input_modalities == {"text"}


@pytest.mark.parametrize(
    ("entry", "deprecated"),
    [({}, None), ({"lifecycle": "active"}, False), ({"lifecycle": "deprecated"}, True),
     ({"deprecated_at": None}, False), ({"deprecated_at": "2026-01-01T00:00:00Z"}, True)],
)  # fmt: skip
def test_a_list_that_says_little_leaves_the_rest_unknown(
    entry: dict[str, Any], deprecated: bool | None
) -> None:
    listed = decode_models(page({"id": "claude-3-7-sonnet-20250219", **entry}, {"no": "id"}), "p")
    (model,) = listed.models
    assert (model.capabilities, model.context_window_tokens) == (None, None)
    assert model.deprecated is deprecated
    assert listed.traits[model.id] == traits_of_name(model.id)


def test_a_list_of_several_pages_names_where_to_go_on() -> None:
    assert decode_models(page(ENTRY, has_more=True, last_id="x"), "p").next_after == "x"
    assert decode_models(page(ENTRY, has_more=False, last_id="x"), "p").next_after is None
    assert decode_models(page(ENTRY, has_more=True), "p").next_after is None


def test_what_is_no_list_is_an_error() -> None:
    with pytest.raises(InvalidResponseError):
        decode_models(b'{"data": 3}', "p")
    failure = {"type": "error", "error": {"type": "authentication_error", "message": "no"}}
    with pytest.raises(AuthenticationError):
        decode_models(json.dumps(failure).encode(), "p")


@pytest.mark.parametrize(
    ("name", "types", "sampling", "unasked"),
    [
        ("claude-3-7-sonnet-20250219", {"enabled", "disabled"}, True, False),
        ("claude-opus-4-20250514", {"enabled", "disabled"}, True, False),
        ("claude-opus-4-1@20250805", {"enabled", "disabled"}, True, False),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", {"enabled", "disabled"}, True, False),
        ("anthropic/claude-haiku-4.5", {"enabled", "disabled"}, True, False),
        ("anthropic.claude-opus-4-6-v1", {"adaptive", "disabled"}, True, False),
        ("claude-opus-4-8", {"adaptive", "disabled"}, False, False),
        ("claude-sonnet-5", {"adaptive", "disabled"}, False, True),
        ("claude-fable-5-2", {"adaptive", "disabled"}, False, True),
        ("claude-mythos-preview", {"adaptive", "disabled"}, True, True),
        ("something-else-4-1", {"adaptive", "disabled"}, True, True),
    ],
)
def test_a_name_tells_the_generation(
    name: str, types: set[str], sampling: bool, unasked: bool
) -> None:
    traits = traits_of_name(name)
    assert traits.thinking == types
    assert (traits.takes_sampling, traits.thinks_unasked) == (sampling, unasked)


def test_only_newer_models_know_extra_high_effort() -> None:
    assert "xhigh" not in traits_of_name("claude-opus-4-6").efforts
    assert "xhigh" in traits_of_name("claude-opus-4-7").efforts
    assert traits_of_name("claude-sonnet-4-5").efforts == frozenset()
