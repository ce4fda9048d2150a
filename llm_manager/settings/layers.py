"""Which of several values of a setting counts, and where it comes from.

A key and the address that it is for travel together: the strongest layer that gives either decides
both, and what a weaker one says of the other is withheld.  Otherwise a key out of a file would be
sent to whatever host another layer names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..config import KEY_HEADERS

Path: TypeAlias = tuple[str, ...]
"""Name of a setting: ``("api_key",)``, ``("default_parameters", "temperature")``."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it comes from.

    Attributes:
        value: as it was written; a key is a `Secret`, a reference or a function.
        origin: for people: ``default``, ``file ~/.config/llm_manager/config.toml``,
            ``environment LLM_MANAGER_PROVIDERS__OPENAI__DEFAULT_MODEL``, ``code``.
        place: where to look when it is wrong, e.g. ``providers.openai.default_model``.
    """

    value: Any = field(repr=False)  # it may hold a key
    origin: str
    place: str = ""


Layer: TypeAlias = Mapping[Path, Setting]

_API_KEY: Path = ("api_key",)
_KIND: Path = ("kind",)
_HEADERS: Path = ("headers",)
# Where requests go and what unlocks that; a client brings along both.
_ADDRESS: frozenset[Path] = frozenset({("base_url",), ("client",), ("row",)})
_TOGETHER = _ADDRESS | {_API_KEY, _HEADERS}


def merge(layers: Iterable[Layer], kind: str) -> tuple[dict[Path, Setting], dict[Path, Setting]]:
    """Of each setting the strongest value, and those that are withheld.

    Args:
        layers: weakest first.
        kind: what the provider is an instance of if no layer says it.
    """
    counting: dict[Path, Setting] = {}
    withheld: dict[Path, Setting] = {}
    for layer in layers:
        given = layer.get(_KIND)
        another_kind = given is not None and given.value != kind
        if given is not None:
            kind = given.value
        if another_kind or _decides_where(layer):
            withheld |= {path: counting.pop(path) for path in _TOGETHER & counting.keys()}
        counting |= layer
    return counting, {path: lost for path, lost in withheld.items() if path not in counting}


def _decides_where(layer: Layer) -> bool:
    """Whether a layer says where requests go, or what unlocks that."""
    if _API_KEY in layer or not _ADDRESS.isdisjoint(layer):
        return True
    headers = layer[_HEADERS].value if _HEADERS in layer else {}
    return isinstance(headers, Mapping) and not KEY_HEADERS.isdisjoint(
        str(name).lower() for name in headers
    )
