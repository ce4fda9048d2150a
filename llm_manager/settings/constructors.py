"""What a kind of provider takes, read from its constructor."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, TypeAlias

import msgspec

_Annotation: TypeAlias = tuple[Any, dict[str, Any]]
"""As it was written, and what the names in it mean."""


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
    whole: _Whole = read(factory)
    return Constructor(whole.types.without(without), whole.defaults, whole.takes_any)


class _Types(Mapping[str, Any]):
    """The types of parameters, each read from its annotation when somebody asks for it.

    To read all of them takes 2 ms, and whoever makes a provider gives few.
    """

    def __init__(self, written: Mapping[str, _Annotation], known: dict[str, Any]) -> None:
        self._written = written
        self._known = known

    def without(self, names: Iterable[str]) -> _Types:
        """The others of them."""
        others = {name: self._written[name] for name in self._written if name not in names}
        return _Types(others, self._known)

    def __getitem__(self, name: str) -> Any:
        annotation, names = self._written[name]
        if name not in self._known:
            self._known[name] = _type_of(annotation, names)
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._written

    def __iter__(self) -> Iterator[str]:
        return iter(self._written)

    def __len__(self) -> int:
        return len(self._written)


class _Whole(msgspec.Struct, frozen=True):
    """All that a factory takes, what is no setting included; see `Constructor`."""

    types: _Types
    defaults: Mapping[str, Any]
    takes_any: bool


@lru_cache(maxsize=128)
def _read(factory: Callable[..., Any]) -> _Whole:
    written: dict[str, _Annotation] = {}
    defaults: dict[str, Any] = {}
    takes_any = True
    for function in _functions(factory):
        names = getattr(function, "__globals__", {})
        annotations = getattr(function, "__annotations__", {})
        passes_on = False
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                passes_on = True
            elif parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                written.setdefault(name, (annotations.get(name), names))
                if parameter.default is not parameter.empty:
                    defaults.setdefault(name, parameter.default)
        if not passes_on:
            takes_any = False
            break
    written.pop("self", None)
    return _Whole(_Types(written, {}), defaults, takes_any)


def _functions(factory: Callable[..., Any]) -> list[Callable[..., Any]]:
    if not isinstance(factory, type):
        return [factory]
    return [vars(kind)["__init__"] for kind in factory.__mro__ if "__init__" in vars(kind)]


def _type_of(annotation: Any, names: dict[str, Any]) -> Any:
    """What an annotation means; None if only a type checker can know, or there is none."""
    if annotation is None:
        return None
    one = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(one, names)["it"]
    except (NameError, TypeError, AttributeError):
        return None
