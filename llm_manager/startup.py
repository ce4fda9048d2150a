"""Providers for an application's start: all that settings name and all that packages bring along.

One that cannot be made is there as well, ``failed`` and with its reason, and does not keep the
others from working.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from .errors import ConfigurationError, LLMError, as_llm_error
from .manager import LLMProviderManager
from .provider import BaseLLMProvider
from .providers.unusable import UnusableProvider
from .registry import create_provider, get_settings, plugin_kinds

told_of: WeakKeyDictionary[LLMProviderManager, frozenset[str]] = WeakKeyDictionary()
"""Which providers the settings named when a manager was last given them."""


def register_configured(
    manager: LLMProviderManager | None = None, *, plugins: bool = True
) -> list[BaseLLMProvider]:
    """Register every provider that the settings name, then one of each kind of installed packages.

    Nothing is connected.  What cannot be made becomes an `UnusableProvider`, whose status is
    ``failed``.  An id that is registered already is left as it is.

    Files are read and packages imported here, so call it before the event loop runs, or in a
    thread: ``await asyncio.to_thread(register_configured)``.

    Args:
        manager: where to; default: the one of this process.
        plugins: whether kinds that installed packages bring along get a provider each, although
            no settings name them.

    Returns:
        The providers that were added: those of the settings in the order of their writing, then
        those of packages by name.

    Raises:
        ConfigurationError, InvalidParameterError: the settings file as a whole cannot be read.
        ProviderConnectionError: the manager is closed.
    """
    manager = manager or LLMProviderManager.get_instance()
    told_of.setdefault(manager, frozenset())  # if the file cannot be read, all are new later
    wanted = dict.fromkeys(get_settings().provider_ids)
    told_of[manager] = frozenset(wanted)
    if plugins:
        wanted |= dict.fromkeys(plugin_kinds())
    known = manager.providers
    return [register_or_explain(manager, id) for id in wanted if id not in known]


def register_or_explain(manager: LLMProviderManager, id: str) -> BaseLLMProvider:
    """Register what settings or kinds call ``id``, or what says why that cannot be made."""
    try:
        return manager.register_provider(id)
    except LLMError as error:
        failure = error
    except (Exception, SystemExit) as error:  # noqa: BLE001 - constructors of somebody else's code
        failure = _broken(id, error)
    return manager.register_provider(UnusableProvider(failure, kind=_kind_of(id), id=id))


def why_not(id: str) -> LLMError | None:
    """Why what settings or kinds call ``id`` cannot be made; None if it can."""
    try:
        create_provider(id)
    except LLMError as error:
        return error
    except (Exception, SystemExit) as error:  # noqa: BLE001 - constructors of somebody else's code
        return _broken(id, error)
    return None


def _kind_of(id: str) -> str:
    try:
        return get_settings().kind_of(id)
    except LLMError:
        return id  # what is written there is no kind; the error tells


def _broken(id: str, error: BaseException) -> ConfigurationError:
    known = as_llm_error(error if isinstance(error, Exception) else RuntimeError(repr(error)))
    return ConfigurationError(
        f"a provider of the kind {_kind_of(id)!r} cannot be made: {known.original}",
        code="broken_plugin",
        original=known.original,
        hint="repair or remove the package that brings this kind along",
    )
