"""Kinds of providers: an id, and where its class is.  Classes are imported when one is made.

Look-alikes of a known dialect are rows of data in `providers.rows`; they are kinds as well.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from .config import check_id
from .errors import InvalidParameterError, ProviderNotFoundError
from .provider import BaseLLMProvider
from .providers.rows import ROWS, Row

Factory = Callable[..., BaseLLMProvider]

_lock = threading.Lock()
_kinds: dict[str, str | Factory] = {
    "echo": "llm_manager.providers.echo:EchoProvider",
    "ollama": "llm_manager.providers.ollama:OllamaProvider",
    "litellm": "llm_manager.providers.litellm:LiteLLMProvider",
    "compatible": "llm_manager.providers.compatible:OpenAICompatibleProvider",
}


def register_provider(kind: str, factory: Factory | str | Row) -> None:
    """Make a kind of provider known under ``kind``.

    Args:
        kind: its id.
        factory: a provider class, ``"package.module:Class"`` for one to import when it is needed,
            or a row that describes a server of a known dialect.

    Raises:
        InvalidParameterError: the id is taken, or no provider can come of it.
    """
    check_id(kind, "kind of provider")
    if isinstance(factory, type) and not issubclass(factory, BaseLLMProvider):
        raise InvalidParameterError(f"{factory.__name__} is no BaseLLMProvider")
    with _lock:
        if kind in _kinds or kind in ROWS:
            raise InvalidParameterError(f"a kind of provider {kind!r} is registered already")
        if isinstance(factory, Row):
            ROWS[kind] = factory
        else:
            _kinds[kind] = factory


def unregister_kind(kind: str) -> None:
    """Forget a kind; providers that were made of it live on.

    Raises:
        ProviderNotFoundError: there is no such kind.
    """
    with _lock:
        if _kinds.pop(kind, None) is None and ROWS.pop(kind, None) is None:
            raise _unknown(kind)


def kinds() -> list[str]:
    """The ids of all known kinds."""
    return sorted({*_kinds, *ROWS})


def create_provider(
    kind: str | type[BaseLLMProvider] | Factory, **settings: Any
) -> BaseLLMProvider:
    """Make a provider of a class, or of the kind with that id.

    Raises:
        ProviderNotFoundError: there is no such kind; the text names similar ones.
        InvalidParameterError: a setting is unknown or wrong.
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


def _resolve(kind: str) -> Factory:
    target = _kinds.get(kind)
    if target is None:
        row = ROWS.get(kind)
        if row is None:
            raise _unknown(kind)
        compatible = _resolve("compatible")
        return lambda **settings: compatible(row=row, **settings)
    if isinstance(target, str):
        module, _, name = target.partition(":")
        found: Factory = getattr(importlib.import_module(module), name)
        return found
    return target


def _unknown(kind: str) -> ProviderNotFoundError:
    near = get_close_matches(kind, kinds(), n=1)
    return ProviderNotFoundError(
        f"there is no kind of provider {kind!r}",
        hint=f"did you mean {near[0]!r}?" if near else f"known are {', '.join(kinds())}",
    )


def _named(kind: object) -> str:
    return repr(kind) if isinstance(kind, str) else getattr(kind, "__name__", repr(kind))
