"""What a kind of provider takes, read from its constructor."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import msgspec


class Constructor(msgspec.Struct, frozen=True):
    """The settings of one kind of provider.

    Attributes:
        types: the type of each by name; None where it cannot be known.
        defaults: the value of each that need not be given.
        takes_any: whether it takes names that cannot be known.
    """

    types: Mapping[str, Any] = msgspec.field(default_factory=dict)
    defaults: Mapping[str, Any] = msgspec.field(default_factory=dict)
    takes_any: bool = True

    def takes(self, name: str) -> bool:
        """Whether it takes a setting of that name."""
        return self.takes_any or name in self.types


UNKNOWN = Constructor()
"""Of a kind that cannot be looked at."""


def constructor_of(factory: Callable[..., Any], without: Iterable[str] = ()) -> Constructor:
    """What ``factory`` takes by name: a class, with what it passes on to its bases, or a function.

    Args:
        factory: makes a provider.
        without: names that are no settings.
    """
    read = _read if isinstance(factory, Hashable) else _read.__wrapped__
    whole = read(factory)
    types = {name: kind for name, kind in whole.types.items() if name not in without}
    return Constructor(types, whole.defaults, whole.takes_any)


@lru_cache(maxsize=128)
def _read(factory: Callable[..., Any]) -> Constructor:
    types: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for function in _functions(factory):
        annotations = _annotations(function)
        passes_on = False
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                passes_on = True
            elif parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                types.setdefault(name, annotations.get(name))
                if parameter.default is not parameter.empty:
                    defaults.setdefault(name, parameter.default)
        if not passes_on:
            types.pop("self", None)
            return Constructor(types, defaults, takes_any=False)
    types.pop("self", None)
    return Constructor(types, defaults, takes_any=True)


def _functions(factory: Callable[..., Any]) -> list[Callable[..., Any]]:
    if not isinstance(factory, type):
        return [factory]
    return [vars(kind)["__init__"] for kind in factory.__mro__ if "__init__" in vars(kind)]


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of its parameters, those apart that only a type checker can know."""
    names = getattr(function, "__globals__", {})
    found: dict[str, Any] = {}
    for name, written in getattr(function, "__annotations__", {}).items():
        one = SimpleNamespace(__annotations__={name: written})
        with suppress(NameError, TypeError, AttributeError):
            found |= typing.get_type_hints(one, names)
    return found
