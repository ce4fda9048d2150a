"""Settings as they may be shown to anybody: every value with its origin, no key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..config import Secret
from ..messages import Data
from ..redaction import MASK, redact
from .layers import Setting
from .provider_settings import ProviderSettings
from .references import is_reference
from .sources import is_private

WITHHELD = "key and address come from a stronger layer"

_LONGEST = 200
# Settings of plugins have names that nobody here knows.  Compiled when first used, as few ask.
_SECRET_NAME = r"key|token|secret|passw|credential|authorization"


class Explained(Data, frozen=True, kw_only=True):
    """One value of the settings, as it may be shown to anybody.

    Attributes:
        place: e.g. ``providers.work-openai.default_parameters.temperature``.
        value: as text; keys as ``***``, references to keys as they are.
        origin: where it comes from, see `Setting`.
        withheld: why it does not count, or None if it does.
    """

    place: str
    value: str
    origin: str
    withheld: str | None = None


def explained(provider: ProviderSettings, *, defaults: bool = False) -> Iterator[Explained]:
    """Every value of one provider.

    Args:
        provider: whose settings.
        defaults: whether to list what its constructor takes and nobody gives, too.
    """
    values, withheld = provider.values, provider.withheld
    secrets = [
        setting.value.reveal()
        for setting in (*values.values(), *withheld.values())
        if isinstance(setting.value, Secret)
    ]
    at = f"providers.{provider.id}"
    if "kind" not in values:
        yield Explained(place=f"{at}.kind", value=repr(provider.kind), origin="default")
    for reason, settings in ((None, values), (WITHHELD, withheld)):
        for name, setting in settings.items():
            yield Explained(
                place=f"{at}.{name}",
                value=_shown(name, setting, secrets),
                origin=redact(setting.origin, secrets),
                withheld=reason,
            )
    if defaults:
        yield from _defaults(at, provider, values)


def _defaults(
    at: str, provider: ProviderSettings, values: Mapping[str, Setting]
) -> Iterator[Explained]:
    given = {name.partition(".")[0] for name in values}
    aliases = {"default_options": "default_parameters", "timeouts": "default_parameters"}
    for name, default in provider.constructor.defaults.items():
        if aliases.get(name, name) not in given and name != "id":
            value = _shown(name, Setting(default, "default"), ())
            yield Explained(place=f"{at}.{name}", value=value, origin="default")


def _shown(name: str, setting: Setting, secrets: Any) -> str:
    value = setting.value
    if is_reference(value):
        return redact(repr(value), secrets)
    if callable(value) and not isinstance(value, type):
        return "a function"
    path = tuple(name.split("."))
    if value is not None and (is_private(path) or isinstance(value, Secret)):
        return MASK if not isinstance(value, dict) else _only_names(value)
    hidden = _without_secrets(path[-1], value)
    if hidden == MASK:
        return MASK
    text = redact(repr(hidden), secrets)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _without_secrets(name: str, value: Any) -> Any:
    """``value`` with masks for texts that are called secrets, in tables of it, too."""
    if isinstance(value, Mapping):
        return {inner: _without_secrets(str(inner), held) for inner, held in value.items()}
    if isinstance(value, list):
        return [_without_secrets(name, held) for held in value]
    return (
        MASK if isinstance(value, str) and re.search(_SECRET_NAME, name, re.IGNORECASE) else value
    )


def _only_names(table: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{name}: {MASK}" for name in table) + "}"
