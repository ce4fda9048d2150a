"""What is different between two readings of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import LLMError
from ..messages import Data
from .kinds import kinds_as_written, provider_settings
from .layers import Setting
from .sources import Sources


class Reloaded(Data, frozen=True, kw_only=True):
    """What `Settings.reload` found.

    Attributes:
        added, removed: ids of providers that the settings have now, or no longer have.
        changed: of every other provider whose settings are different now, the names of these
            settings, e.g. ``("api_key", "default_parameters")``.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def difference(before: Sources, after: Sources) -> Reloaded:
    """What a reading found that an earlier one did not.

    A provider whose settings are wrong now is not among the changed ones; who asks for its settings
    is told what is wrong, and others go on.
    """
    old = before.ids(kinds_as_written(before.file.rows))
    new = after.ids(kinds_as_written(after.file.rows))
    changed: dict[str, tuple[str, ...]] = {}
    for id in new:
        try:
            values = provider_settings(after, id).values
        except LLMError:
            continue
        names = _different(_values_before(before, id), values)
        if _row(before, id) != _row(after, id):
            names = (*names, "row")
        if names and id in old:
            changed[id] = names
    return Reloaded(
        added=tuple(id for id in new if id not in old),
        removed=tuple(id for id in old if id not in new),
        changed=changed,
    )


def _different(old: Mapping[str, Setting], new: Mapping[str, Setting]) -> tuple[str, ...]:
    """The settings, without what is inside of them, whose values are not the same."""
    nothing = object()
    names = [
        name.partition(".")[0]
        for name in {**old, **new}
        if getattr(old.get(name), "value", nothing) != getattr(new.get(name), "value", nothing)
    ]
    return tuple(dict.fromkeys(names))


def _values_before(sources: Sources, id: str) -> Mapping[str, Setting]:
    try:
        return provider_settings(sources, id).values
    except LLMError:
        return {}


def _row(sources: Sources, id: str) -> Mapping[str, Any] | None:
    try:
        return sources.file.rows.get(sources.kind_of(id))
    except LLMError:
        return None
