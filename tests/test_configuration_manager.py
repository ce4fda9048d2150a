"""`ConfigurationManager`, and the names of parameters and capabilities."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from llm_manager import (
    AuthenticationError,
    ConfigurationError,
    ConfigurationManager,
    InvalidParameterError,
    LLMError,
    LLMRequestOptions,
    ModelCapability,
    ModelParameter,
    Secret,
    Timeouts,
    ToolDefinition,
)
from llm_manager.messages import CapabilityFact, LLMCapabilities
from llm_manager.settings.parameters import model_capabilities

KEY = "Zq7plainLookingCredential9x"


# ---- as the guides use it ------------------------------------------------------------------------


def test_names_are_texts_or_members_of_the_enum() -> None:
    config = ConfigurationManager({ModelParameter.MODEL: "small", "temperature": 0.2})
    assert config.get_param("model") == config.get_param(ModelParameter.MODEL) == "small"
    assert config.get_param(ModelParameter.TEMPERATURE) == 0.2
    assert config.get_param("max_tokens") is None
    assert config.get_param("max_tokens", 1000) == 1000


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("maxTokens", "max_tokens"),
        ("topP", "top_p"),
        ("api_base", "base_url"),
        ("apiBase", "base_url"),
        ("default_model", "model"),
        ("system_prompt", ModelParameter.SYSTEM_PROMPT),
    ],
)
def test_other_spellings_are_the_same_setting(written: str, name: str) -> None:
    value: Any = 1 if "ax" in written or "top" in written else "https://x.example/v1"
    config = ConfigurationManager({written: value})
    assert config.get_param(name) == config.get_param(written) == value


def test_defaults_count_where_nothing_is_given() -> None:
    config = ConfigurationManager({ModelParameter.TEMPERATURE: 0.2})
    config.merge_with_defaults({ModelParameter.TEMPERATURE: 0.7, ModelParameter.MAX_TOKENS: 2048})
    config.merge_with_defaults({ModelParameter.MAX_TOKENS: 1, ModelParameter.TOP_P: 0.5})
    assert config.get_param("temperature") == 0.2
    assert config.get_param("max_tokens") == 2048
    assert config.get_param("top_p") == 0.5
    origins = [config.origin_of(name) for name in ("temperature", "max_tokens", "seed")]
    assert origins == ["code", "default", None]


def test_a_setting_that_is_taken_back_has_its_default_again() -> None:
    config = ConfigurationManager({"temperature": 0.2})
    config.merge_with_defaults({"temperature": 0.7})
    config.update_config({ModelParameter.TEMPERATURE: 0.3, "seed": 5})
    assert (config.get_param("temperature"), config.get_param("seed")) == (0.3, 5)
    config.update_config({"temperature": None, "seed": None})
    assert (config.get_param("temperature"), config.get_param("seed")) == (0.7, None)


def test_generation_params_are_options_of_a_request() -> None:
    config = ConfigurationManager(
        {"model": "small", "api_key": KEY, "system_prompt": "Be brief.", "maxTokens": 100}
    )
    config.merge_with_defaults({"temperature": 0.7, "timeout": 30})
    params = config.get_generation_params({ModelParameter.TEMPERATURE: 0.9, "stop": "END"})

    assert params == {
        "max_tokens": 100,
        "temperature": 0.9,
        "stop": ("END",),
        "timeouts": Timeouts(total_s=30),
    }
    assert LLMRequestOptions(**params).temperature == 0.9
    # An override is for one request.
    assert config.get_param("temperature") == 0.7


def test_an_override_that_is_none_leaves_an_option_open() -> None:
    config = ConfigurationManager({"temperature": 0.7, "timeout": 30})
    assert config.get_generation_params({"temperature": None, "timeout": None}) == {}
    assert ConfigurationManager().get_generation_params() == {}


def test_a_timeout_completes_the_other_time_limits() -> None:
    config = ConfigurationManager({"timeouts": {"idle_s": 5}, "timeout": 30})
    assert config.get_generation_params()["timeouts"] == Timeouts(idle_s=5, total_s=30)


def test_settings_of_ones_own_take_any_value() -> None:
    config = ConfigurationManager({"device": "gpu", "myRegion": 3}, own=("device", "myRegion"))
    assert config.get_param("device") == "gpu"
    assert config.get_param("myRegion") == 3
    assert config.get_generation_params() == {}


def test_tools_can_be_set_for_all_requests() -> None:
    tool = ToolDefinition(name="add", description="", parameters={"type": "object"})
    config = ConfigurationManager({ModelParameter.TOOLS: [tool], "tool_choice": "add"})
    options = LLMRequestOptions(**config.get_generation_params())
    assert options.tools == (tool,)


# ---- wrong values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "kind", "says"),
    [
        ({"temperature": 3}, InvalidParameterError,
         "temperature: must be between 0 and 2, got 3"),
        ({ModelParameter.TEMPERATURE: "hot"}, InvalidParameterError,
         "temperature: must be a number, got 'hot' (str)"),
        ({"maxTokens": 0}, InvalidParameterError, "max_tokens: must be at least 1, got 0"),
        ({"timeout": 0}, InvalidParameterError, "timeout: must be above 0, got 0"),
        ({"timeouts": {"total_s": -1}}, InvalidParameterError, "timeouts"),
        ({"timeouts": 5}, InvalidParameterError, "timeouts: must be a table"),
        ({"model": 5}, InvalidParameterError, "model: must be text, got 5 (int)"),
        ({"system_prompt": ["x"]}, InvalidParameterError, "system_prompt: must be text"),
        ({"base_url": "x.example"}, ConfigurationError, "base_url"),
        ({"api_key": 5}, InvalidParameterError, "api_key: must be text or a function, got int"),
        ({"api_key": ""}, AuthenticationError, "api_key is empty"),
        ({"api_key": "env:NOBODY"}, AuthenticationError, "api_key: no key at 'env:NOBODY'"),
        ({"temprature": 1}, InvalidParameterError, "temprature: unknown setting"),
        ({5: 1}, InvalidParameterError, "5: unknown setting"),
        ({"reasoning_effort": "much"}, InvalidParameterError,
         "reasoning_effort: must be one of none, minimal"),
        ({"temperature": 1, ModelParameter.TEMPERATURE.name.lower(): 1, "Temperature": 1},
         InvalidParameterError, "Temperature: unknown setting"),
        ({"maxTokens": 1, "max_tokens": 2}, InvalidParameterError, "max_tokens: it stands there"),
        (5, InvalidParameterError, "config must be a mapping, got int"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_an_error_that_begins_with_its_name(
    config: Any, kind: type[LLMError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        ConfigurationManager(config)
    assert caught.value.message.startswith(says)
    manager = ConfigurationManager({"seed": 1})
    for change in (
        manager.update_config,
        manager.merge_with_defaults,
        manager.get_generation_params,
    ):
        with pytest.raises(kind):
            change(config)
    assert manager.to_dict() == {"seed": 1}


def test_an_unknown_name_is_told_what_may_be_meant() -> None:
    for ask in (ConfigurationManager().get_param, ConfigurationManager().origin_of):
        with pytest.raises(InvalidParameterError, match="did you mean 'temperature'"):
            ask("temprature")


def test_changes_are_made_all_or_none() -> None:
    config = ConfigurationManager({"temperature": 0.2})
    with pytest.raises(InvalidParameterError):
        config.update_config({"temperature": 0.5, "seed": 1, "max_tokens": -1})
    assert config.to_dict() == {"temperature": 0.2}


# ---- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [KEY, Secret(KEY), "env:MY_KEY"])
def test_a_key_is_returned_as_text_and_never_shown(
    given: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    config = ConfigurationManager({ModelParameter.API_KEY: given})
    assert config.get_param("api_key") == KEY
    assert KEY not in repr(config)
    assert KEY not in repr(config.to_dict())
    assert "api_key" in repr(config)
    try:
        pickled = pickle.dumps(config)
    except TypeError as error:
        pickled = str(error).encode()
    assert KEY.encode() not in pickled


def test_a_function_for_the_key_is_returned_as_it_is() -> None:
    def key() -> str:
        return KEY

    assert ConfigurationManager({"api_key": key}).get_param("api_key") is key


# ---- the names -----------------------------------------------------------------------------------


def test_every_option_that_can_be_a_default_is_a_parameter() -> None:
    of_one_request = {"supersede_key", "force"}
    options = set(LLMRequestOptions.__struct_fields__) - of_one_request
    others = {"model", "api_key", "base_url", "system_prompt", "timeout"}
    assert {parameter.value for parameter in ModelParameter} == options | others


def test_capabilities_are_told_by_the_names_of_the_guides() -> None:
    told = model_capabilities(
        LLMCapabilities(
            provider_id="x",
            features={
                "chat": CapabilityFact(supported=True, source="registry"),
                "tools": CapabilityFact(supported=False, source="registry"),
                "vision": CapabilityFact(supported=None, source="unknown"),
            },
            max_output_tokens=4096,
        )
    )
    assert set(told) == set(ModelCapability)
    assert told[ModelCapability.STREAMING] is told[ModelCapability.ASYNC] is True
    assert told[ModelCapability.SYSTEM_PROMPT] is True
    assert told[ModelCapability.FUNCTION_CALLING] is told[ModelCapability.TOOL_USE] is False
    assert told[ModelCapability.VISION] is None
    assert told[ModelCapability.MAX_TOKENS] == 4096
    assert told[ModelCapability.CONTEXT_WINDOW] is None
    assert told["json_mode"] is None
