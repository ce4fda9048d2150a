"""Kinds of providers: an id, and where its class is.  Classes are imported when one is made.

Look-alikes of a known dialect are rows of data in `providers.rows`; they are kinds as well, and so
is what other installed packages bring along, see `providers.plugins`.  Settings name instances of
kinds, see `settings`: a provider that is made by its name gets what they say of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from .config import GivenSettings, check_id
from .errors import (
    ConfigurationError,
    InvalidParameterError,
    LLMError,
    ProviderNotFoundError,
)
from .provider import BaseLLMProvider
from .providers.plugins import Plugins
from .providers.rows import ROWS, Row, row_from
from .settings.constructors import Constructor, constructor_of
from .settings.provider_settings import ProviderSettings
from .settings.store import Settings as Settings
from .settings.store import describe_kinds
from .settings.store import get_settings as get_settings
from .settings.store import reset_settings as reset_settings
from .settings.store import set_provider_config as set_provider_config
from .wire import Codec
from .wire.openai_chat import OpenAIChat

Factory = Callable[..., BaseLLMProvider]

_lock = threading.Lock()
_plugins = Plugins()
_kinds: dict[str, str | Factory] = {
    "echo": "llm_manager.providers.echo:EchoProvider",
    "openai": "llm_manager.providers.openai:OpenAIProvider",
    "anthropic": "llm_manager.providers.anthropic:AnthropicProvider",
    "ollama": "llm_manager.providers.ollama:OllamaProvider",
    "huggingface": "llm_manager.providers.huggingface:HuggingFaceProvider",
    "litellm": "llm_manager.providers.litellm:LiteLLMProvider",
    "compatible": "llm_manager.providers.compatible:OpenAICompatibleProvider",
    "fallback": "llm_manager.composites.fallback:FallbackProvider",
    "multi": "llm_manager.composites.multi:MultiProvider",
    "switching": "llm_manager.composites.switching:SwitchingProvider",
    "balanced": "llm_manager.composites.balanced:BalancedProvider",
}

# What a kind needs besides this library's own dependencies.
_LIBRARIES = {
    "openai": ("openai",),
    "anthropic": ("anthropic",),
    "huggingface": ("transformers", "torch"),
    "litellm": ("litellm",),
}


def is_installed(kind: str) -> bool:
    """Whether the optional libraries that a kind needs are installed; imports none of them.

    A provider that the settings name is as good as its kind.
    """
    with suppress(LLMError):  # whoever makes one is told what is wrong with the settings
        kind = get_settings().kind_of(kind)
    needed = _LIBRARIES.get(kind, ())
    return kind in kinds() and all(importlib.util.find_spec(name) for name in needed)


def register_provider(kind: str, factory: Factory | str | Row | Mapping[str, Any]) -> None:
    """Make a kind of provider known under ``kind``.

    Args:
        kind: its id.
        factory: a provider class, ``"package.module:Class"`` for one to import when it is needed,
            or a row that describes a server of a known dialect: a `Row`, or a mapping of its
            fields as a settings file holds them, in snake_case or camelCase.

    Raises:
        InvalidParameterError: the id is taken, no provider can come of it, or a field of the row
            is unknown or wrong.
        ConfigurationError: the row's address cannot be one.
    """
    check_id(kind, "kind of provider")
    if isinstance(factory, Mapping):
        factory = row_from(kind, factory)
    if isinstance(factory, type) and not issubclass(factory, BaseLLMProvider):
        raise InvalidParameterError(f"{factory.__name__} is no BaseLLMProvider")
    with _lock:
        if kind in _kinds or kind in ROWS:
            raise InvalidParameterError(f"a kind of provider {kind!r} is registered already")
        if isinstance(factory, Row):
            ROWS[kind] = msgspec.structs.replace(factory, id=kind)
        else:
            _kinds[kind] = factory


def unregister_kind(kind: str) -> None:
    """Forget a kind; providers that were made of it live on.

    A kind that an installed package brings along is found again when somebody asks for it.

    Raises:
        ProviderNotFoundError: there is no such kind.
    """
    with _lock:
        if _kinds.pop(kind, None) is None and ROWS.pop(kind, None) is None:
            raise _unknown(kind)


def kinds() -> list[str]:
    """The ids of all known kinds; those of installed packages are looked up once, in files.

    Kinds that the settings file describes are among them; named instances of kinds are not.
    """
    found = {*_Kinds().names()}
    with suppress(LLMError):  # whoever makes a provider is told what is wrong with the file
        found |= get_settings().rows.keys()
    return sorted(found)


def plugin_kinds() -> list[str]:
    """The ids of the kinds that installed packages bring along; imports nothing of them.

    What is built in, registered by code or described by settings under the same id counts more.
    """
    own = {*_kinds, *ROWS, *get_settings().rows} - _plugins.loaded
    return sorted(kind for kind in _plugins.kinds() if kind not in own)


def create_provider(
    kind: str | type[BaseLLMProvider] | Factory, **settings: Any
) -> BaseLLMProvider:
    """Make a provider of a class, of the kind with that id, or as the settings name it.

    By its name, it gets what `get_settings` has for that name; ``settings`` are stronger.  A key
    and its address travel together: where ``settings`` give one of them, the other of a settings
    file is withheld.

    Args:
        kind: a name, a class or a function; the latter two get ``settings`` and nothing else.
        settings: what the constructor takes; for a name, ``default_parameters`` and single options
            such as ``temperature``, too, and an ``api_key`` may be a reference.

    Raises:
        ProviderNotFoundError: there is no such kind; the text names similar ones.
        InvalidParameterError: a setting is unknown or wrong.
        ConfigurationError: the settings file, or the package that brings the kind along, is broken.
        AuthenticationError: a reference to a key leads nowhere.
    """
    if not isinstance(kind, str):
        return _made(kind, kind, settings)
    configured = get_settings().for_provider(kind)
    arguments = _arguments(configured, settings)
    try:
        provider = _made(kind, _resolve(configured.kind), arguments)
    except LLMError as error:
        _say_where(error, configured)
        raise
    made_with = GivenSettings(settings)
    _made_of_settings[provider] = _Making(kind, configured.kind, made_with, arguments)
    return provider


async def follow_settings(provider: BaseLLMProvider) -> tuple[str, ...]:
    """Let a provider that was made by its name go on with what the settings say now.

    What was given to `create_provider` stays, and so does what `update_config` changed since,
    unless the settings have changed there.

    Returns:
        The names of the settings that are different now; empty, too, for one that was made
        without settings.

    Raises:
        LLMError: the settings cannot be used; then nothing changes.
    """
    made = _made_of_settings.get(provider)
    if made is None:
        return ()
    kind = get_settings().kind_of(made.name)
    if kind != made.kind:
        raise ConfigurationError(
            f"providers.{made.name}.kind: a provider of the kind {made.kind!r} cannot become "
            f"one of the kind {kind!r}",
            hint="unregister it, and register it again",
        )
    configured = get_settings().for_provider(made.name)
    now = _arguments(configured, made.given)
    changes = GivenSettings(_changes(made.arguments, now, configured.constructor))
    if not changes:
        return ()
    together = _key_and_address(provider, now, configured.constructor, changes)
    await provider.update_config(**{**together, **changes})
    made.arguments = now
    return tuple(changes)


def codec_of(provider: BaseLLMProvider | str) -> Codec | None:
    """How conversations look on the wire of a provider, or of a kind of provider.

    Nothing is connected and no vendor's library is loaded.  None: it has no wire, or, for a kind
    that is a function, it is not known before one is made.

    Raises:
        ProviderNotFoundError: there is no such kind.
    """
    if isinstance(provider, BaseLLMProvider):
        return getattr(provider, "codec", None)
    kind = get_settings().kind_of(provider)
    found: Codec | None = getattr(_resolve(kind), "codec", None)
    row = _row(kind)
    return OpenAIChat(row.dialect) if found is None and row is not None else found


def _resolve(kind: str) -> Factory:
    if kind not in _kinds and _row(kind) is None:
        _take_from_packages(kind)
    target = _kinds.get(kind)
    if target is None:
        row = _row(kind)
        compatible = _resolve("compatible")
        return lambda **settings: compatible(**{"row": row, **settings})
    if isinstance(target, str):
        module, _, name = target.partition(":")
        found: Factory = getattr(importlib.import_module(module), name)
        return found
    return target


def _row(kind: str) -> Row | None:
    """The row of a kind, from code or from the settings file."""
    if kind in ROWS or kind in _kinds or kind not in get_settings().rows:
        return ROWS.get(kind)
    return row_from(kind, get_settings().rows[kind])


def _take_from_packages(kind: str) -> None:
    """Make a kind known that an installed package brings along.

    Raises:
        ProviderNotFoundError: none does.
        ConfigurationError: the package is broken.
    """
    found = _plugins.load(kind)
    if found is None:
        raise _unknown(kind)
    with _lock:
        if isinstance(found, Row):
            ROWS.setdefault(kind, msgspec.structs.replace(found, id=kind))
        else:
            _kinds.setdefault(kind, found)


def _unknown(kind: str) -> ProviderNotFoundError:
    settings = get_settings()
    known = list(dict.fromkeys([*settings.provider_ids, *kinds()]))
    near = get_close_matches(kind, [name for name in known if name != kind], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    if settings.lost_file is not None:
        hint = f"there is no settings file {settings.lost_file}; {hint}"
    return ProviderNotFoundError(f"there is no kind of provider {kind!r}", hint=hint)


def _made(kind: object, factory: Factory, settings: Mapping[str, Any]) -> BaseLLMProvider:
    try:
        provider = factory(**settings)
    except TypeError as error:
        if any(words in str(error) for words in _WRONG_ARGUMENTS):
            raise InvalidParameterError(f"settings of {_named(kind)}: {error}") from None
        raise
    if not isinstance(provider, BaseLLMProvider):
        raise InvalidParameterError(f"{_named(kind)} made {type(provider).__name__}, no provider")
    return provider


_WRONG_ARGUMENTS = ("unexpected keyword argument", "required keyword", "multiple values for")


def _named(kind: object) -> str:
    return repr(kind) if isinstance(kind, str) else getattr(kind, "__name__", repr(kind))


# ---- settings ------------------------------------------------------------------------------------


class _Making:
    """How a provider was made: under which name, of which kind, with what, and what came of it."""

    def __init__(
        self, name: str, kind: str, given: GivenSettings, arguments: GivenSettings
    ) -> None:
        self.name = name
        self.kind = kind
        self.given = given
        self.arguments = arguments


_made_of_settings: WeakKeyDictionary[BaseLLMProvider, _Making] = WeakKeyDictionary()


def _arguments(configured: ProviderSettings, given: Mapping[str, Any]) -> GivenSettings:
    """What the constructor gets; a row of the settings file is part of it, since it may change."""
    arguments = configured.arguments(given)
    if configured.kind not in ROWS and (row := _row(configured.kind)) is not None:
        arguments["row"] = row
    return arguments


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], constructor: Constructor
) -> dict[str, Any]:
    """What is different now; for what is no longer given, the constructor's default."""
    changed = {name: value for name, value in now.items() if before.get(name, _GONE) != value}
    gone = {name: constructor.defaults.get(name) for name in before if name not in now}
    return {name: value for name, value in {**changed, **gone}.items() if name != "id"}


def _key_and_address(
    provider: BaseLLMProvider,
    now: Mapping[str, Any],
    constructor: Constructor,
    changes: Mapping[str, Any],
) -> GivenSettings:
    """What has to change together with ``changes``: a key and its address come from one place.

    Otherwise a new key of the settings would go where `update_config` has moved the provider, and a
    key that `update_config` has given where the settings point.
    """
    if _TOGETHER.isdisjoint(changes):
        return GivenSettings()
    present, defaults = provider._given[1], constructor.defaults
    moves = "base_url" in changes
    return GivenSettings(
        {
            name: now.get(name, defaults.get(name))
            for name in sorted(_TOGETHER & {*now, *present})
            if moves or now.get(name, _GONE) != present.get(name, _GONE)
        }
    )


_GONE = object()
_TOGETHER = frozenset({"api_key", "base_url", "client", "headers", "row", "arguments"})


def _say_where(error: LLMError, configured: ProviderSettings) -> None:
    """Name the place of the setting that a constructor complains about, if it came from one."""
    words = error.message.partition(" ")
    setting = configured.values.get(words[0])
    if setting is not None and setting.place:
        error.message = f"{setting.place}: {words[2]}"
        error.args = (error.message,)


class _Kinds:
    """See `settings.kinds.Kinds`."""

    def names(self) -> Iterable[str]:
        return {*_kinds, *ROWS, *_plugins.kinds()}

    def is_own(self, kind: str) -> bool:
        return kind in self.names()

    def constructor(self, kind: str) -> Constructor:
        factory = _resolve(kind)
        return self._of_rows() if kind in ROWS else _constructor(factory)

    def constructor_of_row(self, kind: str, row: Mapping[str, Any]) -> Constructor:
        row_from(kind, row)
        return self._of_rows()

    def _of_rows(self) -> Constructor:
        return _constructor(_resolve("compatible"), "row")


def _constructor(factory: Factory, *without: str) -> Constructor:
    return constructor_of(factory, without={*getattr(factory, "no_settings", ()), *without})


describe_kinds(_Kinds())


def _after_fork() -> None:
    """Another thread may have been about to register a kind when this process was forked."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
