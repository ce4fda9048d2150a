"""Configuration: names as enum, defaults, validation, parameters of one request, whole providers.

The order: a configuration manager inside a provider, what it refuses, settings for a kind of
provider, settings of a model that change while it is used.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest

from llm_manager import (
    AuthenticationError,
    BaseLLMProvider,
    ConfigurationManager,
    Delta,
    FinishDelta,
    InvalidParameterError,
    LLMModelInfo,
    LLMRequest,
    ModelParameter,
    TextDelta,
    create_llm,
    set_provider_config,
)

from ..test_create_llm import last_request

# ---- a configuration manager inside a provider ---------------------------------------------------


class MyProvider(BaseLLMProvider):
    """A provider that is given its settings as a dictionary."""

    kind = "my"

    def __init__(self, config: Mapping[str | ModelParameter, Any], **common: Any) -> None:
        self.config_manager = ConfigurationManager(config)
        self.config_manager.merge_with_defaults(
            {
                ModelParameter.MODEL: "default-model",
                ModelParameter.TEMPERATURE: 0.7,
                ModelParameter.MAX_TOKENS: 2048,
                ModelParameter.TIMEOUT: 30,
            }
        )
        self._validate_config()
        super().__init__(
            default_model=self.config_manager.get_param(ModelParameter.MODEL),
            default_options=self.config_manager.get_generation_params(),
            **common,
        )

    def _validate_config(self) -> None:
        if not self.config_manager.get_param(ModelParameter.API_KEY):
            raise AuthenticationError("an API key is needed")

    async def _open(self) -> None: ...
    async def _close(self) -> None: ...

    async def _list_models(self) -> Sequence[LLMModelInfo]:
        return []

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        told = {"model": request.model, "temperature": request.options.temperature,
                "max_tokens": request.options.max_tokens}  # fmt: skip
        yield TextDelta(str(told))
        yield FinishDelta("stop")


CONFIG = {ModelParameter.API_KEY: "test-key-0123", ModelParameter.MODEL: "test-model"}


def test_what_is_given_is_stronger_than_defaults() -> None:
    provider = MyProvider(config=CONFIG)
    assert provider.config_manager.get_param(ModelParameter.MODEL) == "test-model"
    assert provider.config_manager.get_param("temperature") == 0.7
    assert provider.config_manager.origin_of("model") == "code"
    assert provider.config_manager.origin_of("temperature") == "default"


def test_the_parameters_of_a_request_are_stronger_still() -> None:
    provider = MyProvider(config=CONFIG)
    params = provider.config_manager.get_generation_params({"temperature": 0.1})
    assert (params["temperature"], params["max_tokens"]) == (0.1, 2048)
    assert params["timeouts"].total_s == 30
    with create_llm(provider, temperature=0.1) as llm:
        assert llm.generate("Which?") == (
            "{'model': 'test-model', 'temperature': 0.1, 'max_tokens': 2048}"
        )


def test_settings_are_updated_together_or_not_at_all() -> None:
    config = ConfigurationManager({"temperature": 0.7})
    config.update_config({"temperature": 0.9, ModelParameter.TOP_P: 0.5})
    with pytest.raises(InvalidParameterError):
        config.update_config({"temperature": 0.1, "top_p": 5})
    assert config.to_dict() == {"temperature": 0.9, "top_p": 0.5}


# ---- what it refuses -----------------------------------------------------------------------------


def test_a_missing_key_is_refused() -> None:
    with pytest.raises(AuthenticationError, match="API key"):
        MyProvider(config={ModelParameter.MODEL: "test-model"})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({ModelParameter.TEMPERATURE: 3}, "temperature"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"timeout": 0}, "timeout"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(wrong: dict[Any, Any], says: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"^{says}"):
        ConfigurationManager({**CONFIG, **wrong})


def test_a_key_is_not_shown() -> None:
    config = ConfigurationManager(CONFIG)
    assert "test-key-0123" not in repr(config) + str(config.to_dict())
    assert config.get_param(ModelParameter.API_KEY) == "test-key-0123"


# ---- settings for a kind of provider -------------------------------------------------------------


def test_every_provider_of_a_kind_gets_the_settings_of_the_kind() -> None:
    set_provider_config(
        "echo",
        {
            "words_per_s": float("inf"),
            "models": ["small", "large"],
            "default_model": "large",
            "default_parameters": {"temperature": 0.7, "max_tokens": 2},
        },
    )
    with create_llm("echo", temperature=0.2) as llm:
        assert llm.generate("one two three") == "one two "
        request = last_request(llm)
    assert (request.model, request.options.temperature) == ("large", 0.2)


def test_keys_of_several_providers_are_kept_apart() -> None:
    for kind, key in (("openai", "sk-one-0123456789"), ("anthropic", "sk-ant-two-0123456789")):
        set_provider_config(kind, {"api_key": key, "default_model": f"model of {kind}"})
    for kind in ("openai", "anthropic"):
        with create_llm(kind) as llm:
            assert llm.model_name == f"model of {kind}"
            assert llm.get_config()["api_key"] == "***"


# ---- while it is used ----------------------------------------------------------------------------


def test_an_llm_is_told_to_go_on_otherwise() -> None:
    with create_llm("echo", words_per_s=float("inf"), temperature=0.7) as llm:
        llm.set_config({ModelParameter.TEMPERATURE: 0.2, "max_tokens": 1})
        config = llm.get_config()
        assert (config["temperature"], config["max_tokens"]) == (0.2, 1)
        assert llm.generate("one two") == "one "
        config["max_tokens"] = 5  # a copy
        assert llm.get_config()["max_tokens"] == 1


async def test_the_parameters_of_a_model_are_updated_while_it_is_used() -> None:
    async with create_llm("echo", words_per_s=float("inf")) as llm:
        model = llm.model()
        model.update_parameters(
            {
                "temperature": 0.8,
                "top_p": 0.95,
                "presence_penalty": 0.2,
                "frequency_penalty": 0.2,
            }
        )
        await model.generate_response("Hello")
        options = last_request(llm).options
    assert (options.temperature, options.top_p) == (0.8, 0.95)
    assert (options.presence_penalty, options.frequency_penalty) == (0.2, 0.2)
