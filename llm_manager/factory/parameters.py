"""Which names are parameters of requests, and which are settings of a provider."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias

import msgspec

from ..config import Secret
from ..errors import InvalidParameterError
from ..messages import NO_OPTIONS, LLMRequestOptions
from ..redaction import MASK, redact
from ..settings.configuration import ConfigurationManager
from ..settings.parameters import ModelParameter

Config: TypeAlias = Mapping[str | ModelParameter, Any]
"""Values by their names, as text or as `ModelParameter`."""

# They belong to the provider and hold for all who use it.
_OF_PROVIDERS = frozenset({ModelParameter.API_KEY, ModelParameter.BASE_URL})
_NAMES = frozenset(ModelParameter) - _OF_PROVIDERS


class RequestParameters:
    """Parameters of requests: the options, and what goes with them by common names.

    Args:
        given: the parameters.
        model: whether ``model`` is one of them.

    Raises:
        InvalidParameterError: one is unknown or its value wrong.
    """

    def __init__(self, given: Config | None = None, *, model: bool = True) -> None:
        self._names = _NAMES if model else _NAMES - {ModelParameter.MODEL}
        self._values = ConfigurationManager(self._checked(given))

    def get(self, name: ModelParameter) -> Any:
        """One value, or None."""
        return self._values.get_param(name)

    def update(self, changes: Config) -> None:
        """Change some: all of them, or none if one is wrong; None takes one back.

        Raises:
            InvalidParameterError: one is unknown or its value wrong.
        """
        self._values.update_config(self._checked(changes))

    def to_dict(self) -> dict[str, Any]:
        """Those that are given, by their names."""
        return self._values.to_dict()

    def options(self, overrides: Config | None = None) -> dict[str, Any]:
        """The options of one request.

        Raises:
            InvalidParameterError: an override is unknown or its value wrong.
        """
        return self._values.get_generation_params(self._checked(overrides))

    def _checked(self, given: Config | None) -> dict[str, Any]:
        named = {str(name): value for name, value in (given or {}).items()}
        for name in named:
            if name not in self._names:
                raise InvalidParameterError(
                    f"{name!r} is no parameter of a request",
                    hint="it is a setting of the provider: pass it to create_llm or set_config"
                    if name in _OF_PROVIDERS
                    else advice(name) or f"known are {', '.join(sorted(self._names))}",
                )
        return named


def split(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of requests in ``config``, and the settings of the provider."""
    parameters = {str(name): value for name, value in config.items() if str(name) in _NAMES}
    return parameters, {
        str(name): value for name, value in config.items() if str(name) not in _NAMES
    }


def given_options(options: LLMRequestOptions) -> dict[str, Any]:
    """Those of ``options`` that are given, by their names."""
    return {
        name: value
        for name, value in msgspec.structs.asdict(options).items()
        if value != getattr(NO_OPTIONS, name)
    }


def shown_setting(name: str, value: Any, secrets: list[str]) -> Any:
    """A setting that anybody may see."""
    if isinstance(value, Secret) or name == "api_key":
        return MASK
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, Mapping):
        return {key: shown_setting(str(key), inner, secrets) for key, inner in value.items()}
    return value


def advice(name: str) -> str | None:
    """What may have been meant by a name that nobody knows."""
    near = get_close_matches(name, list(map(str, ModelParameter)), n=1)
    return f"did you mean {near[0]!r}?" if near else None
