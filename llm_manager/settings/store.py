"""All settings of a process in one object: file, environment and code."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._threads import reset_after_fork
from ..config import GivenSettings, check_id
from ..errors import InvalidParameterError, LLMError
from .file import SettingsFile, absolute, read_settings_file, settings_path
from .kinds import describe_kinds, kinds_as_written, provider_settings
from .layers import Setting
from .provider_settings import ProviderSettings
from .sources import Sources

if TYPE_CHECKING:  # loaded when somebody asks for what they do: few programs do
    from .differences import Reloaded
    from .explaining import Explained
    from .problems import Problem

__all__ = [
    "ProviderSettings",
    "Setting",
    "Settings",
    "describe_kinds",
    "get_settings",
    "reset_settings",
    "set_provider_config",
]


class Settings:
    """Settings from the file, the environment and code; the later ones win.

    Environment variables are looked at whenever somebody asks, the file by `load` and `reload`.

    Args:
        file: what the settings file says.
        environment: instead of the variables of this process.
    """

    def __init__(
        self, file: SettingsFile | None = None, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self._file = file or SettingsFile()
        self._environment = os.environ if environment is None else environment
        self._code: Mapping[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._reported = self._sources()
        reset_after_fork(self)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read the settings file; one that does not exist says nothing.

        Args:
            path: default: what ``LLM_MANAGER_CONFIG`` names, else ``config.toml`` in the folder
                ``llm_manager`` where the platform wants settings.
            environment: instead of the variables of this process.

        Raises:
            ConfigurationError: it cannot be read, or is no TOML; the text names file and line.
            InvalidParameterError: it has a table or key that there is not.
        """
        where = settings_path(environment) if path is None else absolute(path)
        return cls(read_settings_file(where), environment=environment)

    def __repr__(self) -> str:
        return f"<Settings {self.path or 'without a file'}>"

    @property
    def path(self) -> Path | None:
        """The settings file, which need not exist; None: there is none."""
        return self._file.path

    @property
    def lost_file(self) -> Path | None:
        """The settings file, if somebody has named it and it is missing."""
        return self._file.path if self._file.is_lost else None

    @property
    def provider_ids(self) -> tuple[str, ...]:
        """Providers that have settings of their own, in the order in which they were written."""
        return tuple(self._sources().ids(kinds_as_written(self.rows)))

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Kinds of providers that the file describes: fields of `Row`, by kind."""
        return self._file.rows

    def for_provider(self, id: str) -> ProviderSettings:
        """The settings of a provider, or of a kind that has none of its own.

        Raises:
            InvalidParameterError: a setting is unknown or wrong; the text names its place.
            ProviderNotFoundError: it is to be of a kind that there is not.
            LLMError: the kind is broken.
        """
        return provider_settings(self._sources(), id)

    def kind_of(self, id: str) -> str:
        """What a provider is an instance of; the id itself, if nothing says it.

        Raises:
            InvalidParameterError: the settings name something that cannot be a kind.
        """
        return self._sources().kind_of(id)

    def explain(self, *, defaults: bool = False) -> list[Explained]:
        """Every value with its origin, for people; keys are masked.

        What is wrong is left out; `check` tells it.

        Args:
            defaults: whether to list what nobody gives, too.
        """
        sources = self._sources()
        explaining = importlib.import_module(".explaining", __package__)
        found: list[Explained] = []
        for id in sources.ids(kinds_as_written(self.rows)):
            try:
                found += explaining.explained(provider_settings(sources, id), defaults=defaults)
            except LLMError:
                continue
        return found

    def check(self) -> list[Problem]:
        """Everything that is wrong with them; no provider is made, and nothing is raised.

        Keyrings are not asked: they may ask their user for a password.
        """
        module = importlib.import_module(".problems", __package__)
        found: list[Problem] = module.problems(self._sources())
        return found

    def set_provider_config(self, id: str, settings: Mapping[Any, Any]) -> None:
        """Replace what was set in code for a provider; ``{}`` takes it back.

        Args:
            id: the provider, which gets them when it is made by `create_provider`.
            settings: what the constructor takes, and ``kind``, ``default_parameters``; names as
                texts or as `ModelParameter`.

        Raises:
            InvalidParameterError: a name or a value is wrong; then nothing changes.
            LLMError: a reference to a key leads nowhere, or there is no such kind.
        """
        check_id(id)
        if not isinstance(settings, Mapping):
            raise InvalidParameterError(
                f"providers.{id}: must be a mapping, got {type(settings).__name__}"
            )
        taken = {name: _copy(value) for name, value in settings.items() if value is not None}
        with self._lock:
            code = {name: table for name, table in self._code.items() if name != id}
            if taken:
                code[id] = GivenSettings(taken)
            changed = Sources(self._file, self._environment, code)
            provider_settings(changed, id).arguments(read_keys=False)
            self._code = code

    def reload(self) -> Reloaded:
        """Read the file again; if it cannot be understood now, everything stays as it was.

        One provider whose settings are wrong now does not keep others from changing: it is not
        among the changed ones, and whoever asks for its settings is told what is wrong.

        Returns:
            What is different from what `load`, or the last `reload`, found.

        Raises:
            ConfigurationError: it cannot be read, or is no TOML; the text names file and line.
            InvalidParameterError: it has a table or key that there is not.
        """
        with self._reading:  # who begins later reads what is newer
            file = read_settings_file(self.path)
            after = Sources(file, dict(self._environment), self._code)
            differences = importlib.import_module(".differences", __package__)
            found: Reloaded = differences.difference(self._reported, after)
            with self._lock:
                self._file, self._reported = file, after
        return found

    def _sources(self) -> Sources:
        return Sources(self._file, dict(self._environment), self._code)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._reading = threading.Lock()


def _copy(value: Any) -> Any:
    """``value``, which its giver may change later without changing the settings."""
    if isinstance(value, dict):
        return {name: _copy(inner) for name, inner in value.items()}
    return list(map(_copy, value)) if isinstance(value, list) else value


# ---- of this process -----------------------------------------------------------------------------

_lock = threading.Lock()
_settings: Settings | None = None


def get_settings() -> Settings:
    """The settings of this process, loaded by the first call.

    Raises:
        ConfigurationError, InvalidParameterError: see `Settings.load`; the next call tries again.
    """
    global _settings
    found = _settings
    if found is None:
        with _lock:
            found = _settings = _settings or Settings.load()
    return found


def set_provider_config(id: str, settings: Mapping[Any, Any]) -> None:
    """Settings for every provider that `create_provider` makes under ``id`` from now on.

    They are stronger than the environment and the settings file, and weaker than what a call gives
    itself; see `Settings.set_provider_config`.
    """
    get_settings().set_provider_config(id, settings)


def reset_settings() -> None:
    """Forget the settings of this process, for tests; they are loaded again when needed."""
    global _settings
    with _lock:
        _settings = None


def _after_fork() -> None:
    """Another thread may have been loading them when this process was forked."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
