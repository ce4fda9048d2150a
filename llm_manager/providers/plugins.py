"""Kinds of providers that other installed packages bring along.

A package names them as entry points of the group ``llm_manager.providers``::

    [project.entry-points."llm_manager.providers"]
    acme = "acme_llm:AcmeProvider"

The value is a provider class, a function that makes a provider, or a `Row`.  Looking for them reads
files and runs no code; a package's code is imported when somebody asks for its kind, so a broken
one harms nobody else.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..errors import ConfigurationError
from ..provider import BaseLLMProvider
from ..redaction import redact
from .row import Row

log = logging.getLogger("llm_manager.plugins")

GROUP = "llm_manager.providers"


class _Package(Protocol):
    name: str


class _EntryPoint(Protocol):
    name: str
    value: str

    @property
    def dist(self) -> _Package | None: ...

    def load(self) -> Any: ...


class Plugins:
    """The kinds that installed packages bring along; what was found is remembered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, _EntryPoint] | None = None

    def kinds(self) -> Iterable[str]:
        """Their ids; reads files the first time and imports nothing of the packages."""
        return self._entry_points().keys()

    def load(self, kind: str) -> Callable[..., BaseLLMProvider] | Row | None:
        """What makes providers of ``kind``, or None if no package brings it along.

        Raises:
            ConfigurationError: the package is broken; the text says how.
        """
        entry_point = self._entry_points().get(kind)
        if entry_point is None:
            return None
        try:
            target = entry_point.load()
        except Exception as error:  # noqa: BLE001 - it is the code of somebody else
            original = f"{type(error).__module__}.{type(error).__qualname__}: {redact(str(error))}"
            failure = _broken(entry_point, f"cannot be imported: {original}", original)
        else:
            if isinstance(target, Row):
                return target
            if callable(target) and (
                not isinstance(target, type) or issubclass(target, BaseLLMProvider)
            ):
                made: Callable[..., BaseLLMProvider] = target
                return made
            failure = _broken(
                entry_point,
                f"is {target!r:.60}, neither a provider class, nor a function, nor a Row",
            )
        log.warning("%s", failure)
        raise failure

    def _entry_points(self) -> dict[str, _EntryPoint]:
        with self._lock:
            if self._found is None:
                self._found = {}
                metadata = importlib.import_module("importlib.metadata")
                for entry_point in metadata.entry_points(group=GROUP):
                    first = self._found.setdefault(entry_point.name, entry_point)
                    if first.value != entry_point.value:
                        log.warning(
                            "two packages bring the kind of provider %r; %s counts",
                            entry_point.name, _package_of(first),
                        )  # fmt: skip
            return self._found


def _broken(
    entry_point: _EntryPoint, what_is_wrong: str, original: str | None = None
) -> ConfigurationError:
    package = _package_of(entry_point)
    return ConfigurationError(
        f"the kind of provider {entry_point.name!r} of the package {package} "
        f"({entry_point.value}) {what_is_wrong}",
        code="broken_plugin",
        original=original,
        hint=f"repair or remove the package {package}",
    )


def _package_of(entry_point: _EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist is not None else "unknown"
