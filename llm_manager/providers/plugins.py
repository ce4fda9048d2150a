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
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from .._threads import reset_after_fork
from ..config import check_id
from ..errors import ConfigurationError, InvalidParameterError
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
        self.loaded: set[str] = set()
        """The kinds that somebody has asked for, and that their packages did bring along."""
        reset_after_fork(self)

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
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the code of somebody else
            original = f"{type(error).__module__}.{type(error).__qualname__}: {redact(str(error))}"
            failure = _broken(entry_point, f"cannot be imported: {original}", original)
            importlib.invalidate_caches()  # what is missing may be there at the next attempt
        else:
            if isinstance(target, Row) or _makes_providers(target):
                self.loaded.add(kind)
                made: Callable[..., BaseLLMProvider] | Row = target
                return made
            failure = _broken(
                entry_point,
                f"is {target!r:.60}, neither a provider class, nor a function, nor a Row",
            )
        log.warning("%s", failure)
        raise failure

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def _entry_points(self) -> dict[str, _EntryPoint]:
        with self._lock:
            if self._found is None:
                self._found = {}
                for entry_point in _installed():
                    first = self._found.setdefault(entry_point.name, entry_point)
                    if first.value != entry_point.value:
                        log.warning(
                            "two packages bring the kind of provider %r; %s counts",
                            entry_point.name, _package_of(first),
                        )  # fmt: skip
            return self._found


def _installed() -> Iterator[_EntryPoint]:
    """The entry points of all packages; those that can name no kind are only mentioned."""
    metadata = importlib.import_module("importlib.metadata")
    try:
        found = list(metadata.entry_points(group=GROUP))
    except (TypeError, ValueError):  # one package whose list cannot be read fails all of them
        found = list(_one_by_one(metadata.distributions()))
    for entry_point in found:
        try:
            check_id(entry_point.name, "kind of provider")
        except InvalidParameterError as error:
            log.warning("package %s: %s", _package_of(entry_point), error.message)
        else:
            yield entry_point


def _one_by_one(packages: Iterable[Any]) -> Iterator[_EntryPoint]:
    for package in packages:
        try:
            yield from package.entry_points.select(group=GROUP)
        except (TypeError, ValueError):
            log.warning("the list of entry points of the package %s cannot be read", package.name)


def _makes_providers(target: object) -> bool:
    is_foreign_class = isinstance(target, type) and not issubclass(target, BaseLLMProvider)
    return callable(target) and not is_foreign_class


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
