"""Settings that change while the program runs: look at the file, and let providers follow.

::

    async with watch_settings(manager):
        ...                                  edit the file: providers go on with what it says now

What this file must not do: take a provider away from whoever uses it, or change anything because of
a file that cannot be read.
"""

from __future__ import annotations

import asyncio
import os
from typing import Self, TypeAlias
from weakref import WeakSet

import msgspec

from .checks import check_number
from .errors import LLMError, as_llm_error
from .events import ErrorOccurred
from .manager import LLMProviderManager
from .messages import Data
from .provider import BaseLLMProvider
from .providers.unusable import UnusableProvider
from .registry import follow_settings, get_settings
from .settings.file import settings_path
from .startup import register_or_explain, told_of, why_not
from .status import ErrorInfo

OPERATION = "reload settings"
# Whoever writes a file in several steps is not done while it still changes.
_SETTLED_AFTER_S = 0.1


class SettingsReloaded(Data, frozen=True, kw_only=True):
    """What a reading of the settings has changed.

    Attributes:
        registered: ids of providers that are new, or could be made at last.
        changed: of every provider that goes on with other settings, their names; the provider has
            announced them as ``configChanged``.
        removed: ids that the settings no longer name; their providers go on as they are.
        failed: of every provider that could not follow, why; it goes on as it was, or is
            ``failed`` if it is new.
    """

    registered: tuple[str, ...] = ()
    changed: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    removed: tuple[str, ...] = ()
    failed: dict[str, ErrorInfo] = msgspec.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.registered or self.changed or self.removed or self.failed)


async def reload_settings(manager: LLMProviderManager | None = None) -> SettingsReloaded:
    """Read the settings file and the environment again, and let the manager's providers follow.

    * A provider that was made by its name goes on with what the settings say now, by
      `BaseLLMProvider.update_config`: running answers end as they began.  What was given to
      `create_provider` or `register_provider` stays stronger.
    * A provider that the settings did not name before is registered, and not connected.
    * One that the settings no longer name stays as it is, until somebody unregisters it.
    * An `UnusableProvider` is replaced by a real one, if that can be made now.
    * What is wrong with one provider is an ``error`` event of the manager, and keeps no other from
      following.

    Args:
        manager: whose providers; default: the one of this process.

    Raises:
        ConfigurationError, InvalidParameterError: the file as a whole cannot be read; then nothing
            has changed.
    """
    manager = manager or LLMProviderManager.get_instance()
    settings = get_settings()
    found = await asyncio.to_thread(settings.reload)
    reload = _Reload(manager)
    named = settings.provider_ids
    before = told_of.get(manager, {*named, *found.removed} - {*found.added})
    told_of[manager] = frozenset(named)
    removed = tuple(sorted(before.difference(named)))
    providers = manager.providers
    _forsaken.difference_update(providers[id] for id in named if id in providers)
    _forsaken.update(providers[id] for id in removed if id in providers)
    for provider in providers.values():
        if provider in _forsaken:
            continue
        if isinstance(provider, UnusableProvider):
            await reload.replace(provider)
        else:
            await reload.follow(provider)
    for id in named:
        if id not in before and id not in manager.providers:
            await reload.register(id)
    return SettingsReloaded(
        registered=tuple(reload.registered),
        changed=reload.changed,
        removed=removed,
        failed=reload.failed,
    )


def watch_settings(
    manager: LLMProviderManager | None = None, *, interval_s: float = 1.0
) -> SettingsWatch:
    """Reload the settings whenever their file changes, inside ``async with``.

    Each look is one ``stat``; an editor that writes a new file and renames it is noticed, too.  A
    file that cannot be read is an ``error`` event of the manager and changes nothing.

    Args:
        manager: whose providers follow; default: the one of this process.
        interval_s: how often to look, in seconds, at least 0.05.

    Raises:
        InvalidParameterError: ``interval_s`` is wrong.
    """
    return SettingsWatch(manager or LLMProviderManager.get_instance(), interval_s=interval_s)


class SettingsWatch:
    """Looks at the settings file now and then; see `watch_settings`."""

    def __init__(self, manager: LLMProviderManager, *, interval_s: float = 1.0) -> None:
        check_number("interval_s", interval_s, low=0.05)
        self._manager = manager
        self._interval_s = interval_s
        # Settings may have been read long before: the first look reads them in any case.
        self._seen: _Stamp = _NOTHING
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look_again_and_again(), name="watch_settings")
        return self

    async def __aexit__(self, *exc: object) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        try:
            async with self._turn:  # half a reload would leave a provider out
                task.cancel()
        finally:
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def check_now(self) -> SettingsReloaded | None:
        """Look now instead of at the next turn.

        Returns:
            What has changed; None if the file is the one that was read last, or cannot be read.
        """
        async with self._turn:
            stamp = await asyncio.to_thread(_stamp)
            if stamp == self._seen:
                return None
            self._seen = stamp
            try:
                return await reload_settings(self._manager)
            except LLMError as error:
                _report(self._manager, "", error)
                return None

    async def _look_again_and_again(self) -> None:
        while True:
            if await self._has_settled():
                await self.check_now()
            await asyncio.sleep(self._interval_s)

    async def _has_settled(self) -> bool:
        """Whether the file has changed since it was read, and nobody is writing it any more."""
        stamp = await asyncio.to_thread(_stamp)
        if stamp == self._seen:
            return False
        await asyncio.sleep(min(_SETTLED_AFTER_S, self._interval_s))
        return stamp == await asyncio.to_thread(_stamp)


class _Reload:
    """What one reading of the settings does to the providers of a manager."""

    def __init__(self, manager: LLMProviderManager) -> None:
        self._manager = manager
        self.registered: list[str] = []
        self.changed: dict[str, tuple[str, ...]] = {}
        self.failed: dict[str, ErrorInfo] = {}

    async def follow(self, provider: BaseLLMProvider) -> None:
        try:
            names = await follow_settings(provider)
        except Exception as error:  # noqa: BLE001 - constructors of packages may raise anything
            self._fail(provider.id, as_llm_error(error))
        else:
            if names:
                self.changed[provider.id] = names
        await asyncio.sleep(0)  # others want the loop as well, however many providers there are

    async def register(self, id: str) -> None:
        provider = await asyncio.to_thread(register_or_explain, self._manager, id)
        if isinstance(provider, UnusableProvider):
            self._fail(id, provider.error)
        else:
            self.registered.append(id)

    async def replace(self, unusable: UnusableProvider) -> None:
        """Put the real provider, or one with the reason of now, in the place of ``unusable``."""
        id = unusable.id
        failure = await asyncio.to_thread(why_not, id)
        if failure is not None and failure.message == unusable.error.message:
            return
        if self._manager.providers.get(id) is not unusable:
            return  # somebody else has done something about it
        was_active = self._manager.active_provider is unusable
        await self._manager.unregister_provider(id)
        await self.register(id)
        if was_active:
            self._manager.set_active_provider(id)

    def _fail(self, id: str, error: LLMError) -> None:
        self.failed[id] = ErrorInfo.of(error)
        _report(self._manager, id, error)


_Stamp: TypeAlias = tuple[int, ...] | int | None
_NOTHING: _Stamp = -1
# Those that the settings named once: what is said of nobody any more does not concern them.
_forsaken: WeakSet[BaseLLMProvider] = WeakSet()


def _stamp() -> _Stamp:
    """What tells one state of the file from another, without reading it; None: no file."""
    try:
        found = os.stat(settings_path() or "")  # without a path there is no file either
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _report(manager: LLMProviderManager, id: str, error: LLMError) -> None:
    manager.publish(ErrorOccurred(provider_id=id, error=ErrorInfo.of(error), operation=OPERATION))
