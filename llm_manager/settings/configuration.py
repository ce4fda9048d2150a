"""`ConfigurationManager`: the settings of one provider that is written by hand.

::

    config = ConfigurationManager({ModelParameter.MODEL: "small", "temperature": 0.2})
    config.merge_with_defaults({ModelParameter.MAX_TOKENS: 2048})
    config.get_generation_params({"temperature": 0.9})  # temperature 0.9, max_tokens 2048
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..config import Secret, check_base_url
from ..errors import InvalidParameterError
from ..messages import Timeouts, merged
from .layers import Setting
from .names import OPTIONS, snake, unknown
from .parameters import ModelParameter
from .references import StoredKey, resolve_secret
from .values import checked_option, checked_setting

Config = Mapping[str | ModelParameter, Any]

_ALIASES = {"default_model": "model", "api_base": "base_url"}
_TEXTS = frozenset({"model", "system_prompt"})
_TIMEOUT = ("timeouts", "total_s")
_KNOWN = frozenset({*OPTIONS, *(parameter.value for parameter in ModelParameter)})


class ConfigurationManager:
    """Settings of one provider, with names as texts, in snake_case or camelCase, or as
    `ModelParameter`.

    Every value is looked at when it is given.  A name that nobody knows is refused; those that
    only this provider has are given as ``own``.  ``default_model`` is another name of ``model``,
    ``api_base`` of ``base_url``, and ``timeout`` is ``total_s`` of ``timeouts``.  A value that is
    None is not given.

    Args:
        config: the settings; an ``api_key`` may be a reference such as ``env:NAME``.
        own: names of settings that only this provider has, whatever their values.

    Raises:
        InvalidParameterError: a name or a value is wrong; the text begins with the name.
        ConfigurationError: ``base_url`` cannot be an address.
        LLMError: a reference to a key leads nowhere.
    """

    def __init__(self, config: Config | None = None, *, own: Iterable[str] = ()) -> None:
        self._own = frozenset(own)
        self._defaults: dict[str, Setting] = {}
        self._given = self._checked(config or {}, "code")

    def __repr__(self) -> str:
        return f"ConfigurationManager({', '.join(self._values())})"

    def get_param(self, key: str | ModelParameter, default: Any = None) -> Any:
        """The value of a setting, or ``default`` if it is not given.

        A key is returned as text, read where its reference says; one that a function knows is
        returned as that function.

        Raises:
            InvalidParameterError: there is no setting of that name.
            LLMError: a key cannot be read where its reference says.
        """
        setting = self._values().get(self._name(key))
        if setting is None:
            return default
        if isinstance(setting.value, StoredKey):
            return setting.value.read_now()
        return setting.value.reveal() if isinstance(setting.value, Secret) else setting.value

    def merge_with_defaults(self, defaults: Config) -> None:
        """Take ``defaults`` for what is not given; later defaults do not replace earlier ones.

        Raises:
            LLMError: as the constructor; then nothing changes.
        """
        self._defaults = {**self._checked(defaults, "default"), **self._defaults}

    def update_config(self, changes: Config) -> None:
        """Change settings; None takes one back, so that its default counts again.

        Raises:
            LLMError: as the constructor; then nothing changes.
        """
        checked = self._checked(changes, "code")
        kept = {
            name: setting
            for name, setting in self._given.items()
            if name not in {self._name(key) for key in changes}
        }
        self._given = {**kept, **checked}

    def get_generation_params(self, overrides: Config | None = None) -> dict[str, Any]:
        """The options of a request, ready for `LLMRequestOptions`.

        Args:
            overrides: of this request, stronger than everything else; None as a value leaves an
                option open.

        Raises:
            LLMError: as the constructor.
        """
        request = self._checked(overrides or {}, "request")
        left_open = {self._name(key) for key in overrides or {}} - request.keys()
        values = {**self._values(), **request}
        options = {
            name: setting.value
            for name, setting in values.items()
            if name in OPTIONS and name not in left_open
        }
        if "timeout" in values and "timeout" not in left_open:
            limits = Timeouts(total_s=values["timeout"].value)
            options["timeouts"] = merged(limits, options.get("timeouts") or Timeouts())
        return options

    def origin_of(self, key: str | ModelParameter) -> str | None:
        """Where the value that counts comes from: ``code``, ``default``, or None: not given.

        Raises:
            InvalidParameterError: there is no setting of that name.
        """
        setting = self._values().get(self._name(key))
        return None if setting is None else setting.origin

    def to_dict(self) -> dict[str, Any]:
        """All settings by their names; keys as `Secret`, as reference, or as function."""
        return {
            name: setting.value.reference if isinstance(setting.value, StoredKey) else setting.value
            for name, setting in self._values().items()
        }

    def _values(self) -> dict[str, Setting]:
        return {**self._defaults, **self._given}

    def _name(self, key: str | ModelParameter) -> str:
        if key in self._own:
            return str(key)
        name = snake(key)
        name = _ALIASES.get(name, name)
        if name not in _KNOWN and name not in self._own:
            raise unknown(str(key), str(key), {*_KNOWN, *self._own})
        return name

    def _checked(self, config: Config, origin: str) -> dict[str, Setting]:
        if not isinstance(config, Mapping):
            raise InvalidParameterError(f"config must be a mapping, got {type(config).__name__}")
        checked: dict[str, Setting] = {}
        for key, value in config.items():
            name = self._name(key)
            if name in checked:
                raise InvalidParameterError(f"{key}: it stands there twice, as {name} as well")
            if value is not None:
                held = value if name in self._own else _checked_value(name, value)
                checked[name] = Setting(held, origin, name)
        return checked


def _checked_value(name: str, value: Any) -> Any:
    if name == "api_key":
        return resolve_secret(value, name)
    if name == "base_url":
        return check_base_url(value)
    if name == "timeout":
        return checked_option(_TIMEOUT, value, name)
    if name in _TEXTS:
        return checked_setting(value, str, name)
    return checked_option((name,), value, name)
