"""Everything that is wrong with the settings, for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from ..errors import LLMError
from ..messages import Data
from .environment import written
from .file import VARIABLE, SettingsFile
from .kinds import constructor_of_kind, is_taken, kinds_as_written, provider_settings
from .references import is_reference
from .sources import Sources

# Compiled when first used, for most settings are right.
_PLACE = r"((?:providers\.|defaults\.|rows\.|LLM_MANAGER_)[^\s:]+):? (.*)"


class Problem(Data, frozen=True, kw_only=True):
    """Something wrong with the settings.

    Attributes:
        place: e.g. ``providers.work-openai.default_parameters.temperature``, or a variable.
        message: what is wrong, keys masked.
        hint: what to do about it, or None.
        severity: a ``warning`` keeps nothing from working.
    """

    place: str
    message: str
    hint: str | None = None
    severity: Literal["error", "warning"] = "error"


def problems(sources: Sources) -> list[Problem]:
    """What is wrong with them; no provider is made, nothing is raised, and no keyring is asked."""
    ids = sources.ids(kinds_as_written(sources.file.rows))
    return [
        *_problems_of_file(sources.file),
        *_problems_of_rows(sources),
        *(problem for id in ids for problem in _problems_of(sources, id)),
        *_problems_of_variables(sources, ids),
    ]


def _problems_of_file(file: SettingsFile) -> Iterator[Problem]:
    if file.is_lost:
        yield Problem(
            place=str(file.path),
            message="there is no such settings file",
            hint=f"write it, or name another one in {VARIABLE}",
        )


def _problems_of_rows(sources: Sources) -> Iterator[Problem]:
    for kind in sources.file.rows:
        if is_taken(kind):
            yield Problem(
                place=f"rows.{kind}",
                message=f"there is a kind of provider {kind!r} without it, which counts",
                hint="give it another name",
            )
            continue
        try:
            constructor_of_kind(kind, sources.file.rows)
        except LLMError as error:
            yield _problem(f"rows.{kind}", error)


def _problems_of(sources: Sources, id: str) -> Iterator[Problem]:
    try:
        provider = provider_settings(sources, id)
        provider.arguments(read_keys=False)
    except LLMError as error:
        yield _problem(f"providers.{id}", error)
        return
    for name, setting in provider.withheld.items():
        yield Problem(
            place=setting.place,
            message=f"{name} does not count: key and address come from a stronger layer",
            hint=f"give {name} there as well, or take out what is stronger",
            severity="warning",
        )
    key = sources.file.providers.get(id, {}).get("api_key")
    if sources.file.others_can_read and isinstance(key, str) and not is_reference(key):
        yield Problem(
            place=f"providers.{id}.api_key",
            message=f"it stands in {sources.file.path}, which others can read",
            hint=f"chmod 600 {sources.file.path}, or write env:, keyring: or file: instead",
            severity="warning",
        )


def _problems_of_variables(sources: Sources, ids: list[str]) -> Iterator[Problem]:
    spelt: dict[str, str] = {}
    for id in ids:
        other = spelt.setdefault(written(id), id)
        if other != id:
            yield Problem(
                place=f"providers.{id}",
                message=f"environment variables cannot tell it from {other!r}",
                hint="give one of them another id",
                severity="warning",
            )
    for variable in sources.strays(ids):
        yield Problem(
            place=variable.name,
            message=f"there is no provider {variable.provider}",
            hint=f"known are {', '.join(sorted(spelt)) or 'none'}",
            severity="warning",
        )


def _problem(place: str, error: LLMError) -> Problem:
    """An error as a problem; with its own place, if its text begins with one."""
    own = re.match(_PLACE, error.message, re.DOTALL)
    if own is not None:
        return Problem(place=own.group(1), message=own.group(2), hint=error.hint)
    return Problem(place=place, message=error.message, hint=error.hint)
