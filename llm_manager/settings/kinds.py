"""Which kinds of providers there are, and the settings of one provider with what its kind takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Protocol, TypeAlias

from ..errors import ProviderNotFoundError
from .constructors import UNKNOWN, Constructor
from .environment import written
from .provider_settings import ProviderSettings
from .sources import Sources

Rows: TypeAlias = Mapping[str, Mapping[str, Any]]


class Kinds(Protocol):
    """The kinds of providers that there are without the settings file."""

    def names(self) -> Iterable[str]:
        """Their ids."""

    def is_own(self, kind: str) -> bool:
        """Whether there is such a kind."""

    def constructor(self, kind: str) -> Constructor:
        """What it takes.

        Raises:
            ProviderNotFoundError: there is no such kind.
            LLMError: it is broken.
        """

    def constructor_of_row(self, kind: str, row: Mapping[str, Any]) -> Constructor:
        """What a kind takes that fields of a row describe.

        Raises:
            LLMError: a field is wrong.
        """


_kinds: Kinds | None = None


def describe_kinds(kinds: Kinds) -> None:
    """Tell the settings which kinds of providers there are and what they take."""
    global _kinds
    _kinds = kinds


def constructor_of_kind(kind: str, rows: Rows) -> Constructor:
    """What a kind of provider takes.

    Args:
        kind: its id.
        rows: kinds that the settings file describes.

    Raises:
        ProviderNotFoundError: there is no such kind.
        LLMError: it is broken.
    """
    if _kinds is None:
        return UNKNOWN
    if kind in rows and not _kinds.is_own(kind):
        return _kinds.constructor_of_row(kind, rows[kind])
    return _kinds.constructor(kind)


def is_taken(kind: str) -> bool:
    """Whether there is such a kind without the settings file."""
    return _kinds is not None and _kinds.is_own(kind)


def kinds_as_written(rows: Rows) -> dict[str, str]:
    """Ids of kinds by the way in which environment variables write them."""
    names = () if _kinds is None else _kinds.names()
    return {written(kind): kind for kind in (*rows, *names)}


def provider_settings(sources: Sources, id: str) -> ProviderSettings:
    """The settings of a provider, or of a kind that has none of its own.

    Raises:
        InvalidParameterError: a setting is unknown or wrong; the text names its place.
        LLMError: there is no such kind, or it is broken.
    """
    kind = sources.kind_of(id)
    try:
        constructor = constructor_of_kind(kind, sources.file.rows)
    except ProviderNotFoundError:
        if not sources.have(id):
            raise
    else:
        return ProviderSettings(id, kind, constructor, tuple(sources.layers(id, constructor)))
    raise _no_such_kind(id, kind, kinds_as_written(sources.file.rows).values())


def _no_such_kind(id: str, kind: str, names: Iterable[str]) -> ProviderNotFoundError:
    known = sorted(names)
    near = get_close_matches(kind, known, n=1)
    if id == kind:
        hint = f"say what it is, e.g. kind = {(near or ['openai'])[0]!r}"
    else:
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return ProviderNotFoundError(
        f"providers.{id}.kind: there is no kind of provider {kind!r}", hint=hint
    )
