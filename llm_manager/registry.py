"""Kinds of providers: an id, and where its class is.  Classes are imported when one is made.

Look-alikes of a known dialect are rows of data in `providers.rows`; they are kinds as well, and so
is what other installed packages bring along, see `providers.plugins`.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from .config import check_id
from .errors import InvalidParameterError, ProviderNotFoundError
from .provider import BaseLLMProvider
from .providers.plugins import Plugins
from .providers.rows import ROWS, Row, row_from
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
}

# What a kind needs besides this library's own dependencies.
_LIBRARIES = {
    "openai": ("openai",),
    "anthropic": ("anthropic",),
    "huggingface": ("transformers", "torch"),
    "litellm": ("litellm",),
}


def is_installed(kind: str) -> bool:
    """Whether the optional libraries that a kind needs are installed; imports none of them."""
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
    """The ids of all known kinds; those of installed packages are looked up once, in files."""
    return sorted({*_kinds, *ROWS, *_plugins.kinds()})


def create_provider(
    kind: str | type[BaseLLMProvider] | Factory, **settings: Any
) -> BaseLLMProvider:
    """Make a provider of a class, or of the kind with that id.

    Raises:
        ProviderNotFoundError: there is no such kind; the text names similar ones.
        InvalidParameterError: a setting is unknown or wrong.
        ConfigurationError: the package that brings the kind along is broken.
    """
    if isinstance(kind, str):
        settings.setdefault("id", kind)
        factory = _resolve(kind)
    else:
        factory = kind
    try:
        provider = factory(**settings)
    except TypeError as error:
        if "unexpected keyword argument" in str(error) or "required keyword" in str(error):
            raise InvalidParameterError(f"settings of {_named(kind)}: {error}") from None
        raise
    if not isinstance(provider, BaseLLMProvider):
        raise InvalidParameterError(f"{_named(kind)} made {type(provider).__name__}, no provider")
    return provider


def codec_of(provider: BaseLLMProvider | str) -> Codec | None:
    """How conversations look on the wire of a provider, or of a kind of provider.

    Nothing is connected and no vendor's library is loaded.  None: it has no wire, or, for a kind
    that is a function, it is not known before one is made.

    Raises:
        ProviderNotFoundError: there is no such kind.
    """
    if isinstance(provider, BaseLLMProvider):
        return getattr(provider, "codec", None)
    found: Codec | None = getattr(_resolve(provider), "codec", None)
    row = ROWS.get(provider)
    return OpenAIChat(row.dialect) if found is None and row is not None else found


def _resolve(kind: str) -> Factory:
    if kind not in _kinds and kind not in ROWS:
        _take_from_packages(kind)
    target = _kinds.get(kind)
    if target is None:
        row = ROWS[kind]
        compatible = _resolve("compatible")
        return lambda **settings: compatible(row=row, **settings)
    if isinstance(target, str):
        module, _, name = target.partition(":")
        found: Factory = getattr(importlib.import_module(module), name)
        return found
    return target


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
    near = get_close_matches(kind, kinds(), n=1)
    return ProviderNotFoundError(
        f"there is no kind of provider {kind!r}",
        hint=f"did you mean {near[0]!r}?" if near else f"known are {', '.join(kinds())}",
    )


def _named(kind: object) -> str:
    return repr(kind) if isinstance(kind, str) else getattr(kind, "__name__", repr(kind))
