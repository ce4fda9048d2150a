"""The settings of one provider: what counts of all layers, and what its constructor gets of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import GivenSettings, KeySource, Secret
from ..messages import LLMRequestOptions, from_mapping
from ..redaction import Reserved
from .constructors import Constructor
from .layers import Layer, Path, Setting, merge
from .names import DEFAULTS, OPTIONS, named, snake
from .references import StoredKey, resolve_secret
from .sources import checked_value
from .values import takes_text

_API_KEY: Path = ("api_key",)
_ADDRESSES: tuple[Path, ...] = (("base_url",), ("client",))
# Given to constructors as they are, unless other layers have options, too.
_AS_GIVEN = frozenset({"default_options", "timeouts"})
_OPTION_NAMES = _AS_GIVEN | {DEFAULTS, "timeout", *OPTIONS}
# Of these None says nothing; it does not take back what another layer says.
_NOTHING = frozenset({"api_key", "base_url", "client", "kind"})


class ProviderSettings(Reserved, frozen=True):
    """The settings of one provider, all layers together.

    Attributes:
        id: the provider.
        kind: what it is an instance of.
        constructor: what that kind takes.
        layers: what each layer says, weakest first.
    """

    shown = ("id", "kind")

    id: str
    kind: str
    constructor: Constructor
    layers: tuple[Layer, ...]

    @property
    def values(self) -> dict[str, Setting]:
        """Each setting that is given and counts, by its name: ``api_key``, ``default_model``,
        ``default_parameters.temperature``.
        """
        return _by_name(merge(self.layers, self.id)[0])

    @property
    def withheld(self) -> dict[str, Setting]:
        """What does not count, because key and address come from a stronger layer."""
        return _by_name(merge(self.layers, self.id)[1])

    def arguments(
        self, given: Mapping[str, Any] | None = None, *, read_keys: bool = True
    ) -> GivenSettings:
        """What the kind's constructor takes, ``id`` included.

        Args:
            given: settings from the call itself, the strongest layer.
            read_keys: whether to read a key for a constructor that takes no more than a text;
                a keyring may ask its user for a password then.

        Raises:
            InvalidParameterError: one of ``given`` is unknown, or the options do not go together.
            ConfigurationError, AuthenticationError: a reference to a key leads nowhere.
        """
        own, as_they_are = self._layer_of(given or {})
        values, _ = merge((*self.layers, own), self.id)
        arguments = GivenSettings({"id": self.id, **as_they_are})
        options: dict[str, Any] = {}
        for path, setting in values.items():
            if path[0] == DEFAULTS:
                _put(options, path[1:], setting.value)
            elif path == _API_KEY:
                key = resolve_secret(setting.value, setting.place)
                arguments["api_key"] = self._as_taken(key) if read_keys else key
            elif path != ("kind",):
                arguments[path[0]] = setting.value
        if options:
            place = f"providers.{self.id}.{DEFAULTS}"
            arguments["default_options"] = from_mapping(LLMRequestOptions, options, place)
        if self._is_for_usual_address(values, own):
            arguments["environment_address"] = False
        return arguments

    def _layer_of(self, given: Mapping[str, Any]) -> tuple[Layer, dict[str, Any]]:
        """Settings from the call as a layer, and those that a constructor takes as they are."""
        options = {key for key in given if self._is_about_options(snake(key))}
        below = any(path[0] == DEFAULTS for layer in self.layers for path in layer)
        passed = options if options <= _AS_GIVEN and not below else set()
        looked_at = {
            key: value
            for key, value in given.items()
            if key not in passed and key != "id" and not (value is None and key in _NOTHING)
        }

        def place(keys: tuple[str, ...]) -> str:
            return f"settings of {self.id!r}: {'.'.join(keys)}"

        layer: dict[Path, Setting] = {}
        for path, keys, value in named(looked_at, self.constructor, place):
            at = place(keys)
            layer[path] = Setting(checked_value(path, value, self.constructor, at), "code", at)
        return layer, {key: given[key] for key in (*sorted(passed), "id") if key in given}

    def _is_about_options(self, name: str) -> bool:
        taken = name in self.constructor.types and name not in _AS_GIVEN
        return not taken and name in _OPTION_NAMES

    def _as_taken(self, key: KeySource) -> Any:
        """The key as the constructor wants it: some take no more than a text."""
        annotation = self.constructor.types.get("api_key")
        if annotation is not None and not takes_text(annotation):
            return key
        if isinstance(key, StoredKey):
            return key.read_now()
        return key.reveal() if isinstance(key, Secret) else key

    def _is_for_usual_address(self, values: Mapping[Path, Setting], own: Layer) -> bool:
        """Whether the key is for the kind's own server, whatever the vendor's variable says."""
        return (
            _API_KEY in values
            and _API_KEY not in own
            and not any(path in values for path in _ADDRESSES)
            and "environment_address" in self.constructor.types
        )


def _by_name(values: Mapping[Path, Setting]) -> dict[str, Setting]:
    return {".".join(path): setting for path, setting in values.items()}


def _put(table: dict[str, Any], path: Path, value: Any) -> None:
    *outer, name = path
    for key in outer:
        table = table.setdefault(key, {})
    table[name] = value
