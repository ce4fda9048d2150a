"""Which of several values of a setting counts, and where it comes from.

A key and the address that it is for travel together: the strongest layer that gives either decides
both, and what a weaker one says of the other is withheld.  Otherwise a key out of a file would be
sent to whatever host another layer names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from ..config import KEY_HEADERS, names_a_key
from ..redaction import Reserved

Path: TypeAlias = tuple[str, ...]
"""Name of a setting: ``("api_key",)``, ``("default_parameters", "temperature")``."""


class Setting(Reserved, frozen=True):
    """A value and where it comes from.

    Attributes:
        value: as it was written; a key is a `Secret`, a reference or a function.
        origin: for people: ``default``, ``file ~/.config/llm_manager/config.toml``,
            ``environment LLM_MANAGER_PROVIDERS__OPENAI__DEFAULT_MODEL``, ``code``.
        place: where to look when it is wrong, e.g. ``providers.openai.default_model``.
    """

    shown = ("origin", "place")

    value: Any
    origin: str
    place: str = ""


Layer: TypeAlias = Mapping[Path, Setting]

_KIND: Path = ("kind",)
_HEADERS: Path = ("headers",)
_OPTIONS = "default_parameters"
# Where requests go and what unlocks that; a client brings along both.  They may also stand inside
# of something that is passed on to another library, or into the body of every request.
_BOUND = KEY_HEADERS | {"api_key", "base_url", "api_base", "client", "row"}


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
        if another_kind or any(_is_bound(path, layer[path]) for path in layer):
            lost = [p for p in counting if p == _HEADERS or _is_bound(p, counting[p])]
            withheld |= {path: counting.pop(path) for path in lost}
        counting |= layer
    return counting, {path: given for path, given in withheld.items() if path not in counting}


def _is_bound(path: Path, setting: Setting) -> bool:
    """Whether it says where requests go, or what unlocks that."""
    names = [name.lower() for name in (path[-1], *_names_inside(setting.value))]
    if not _BOUND.isdisjoint(names):
        return True
    # Options have names like `prompt_cache_key`, which unlock nothing.
    return path[0] != _OPTIONS and any(map(names_a_key, names))


def _names_inside(value: Any) -> Iterator[str]:
    """The names in a table and in all that it holds."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _names_inside(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _names_inside(inner)
