"""Python functions as tools: their JSON Schema, and their arguments from JSON, checked."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Annotated, Any

import msgspec

from ..errors import InvalidParameterError
from .docstrings import read_docstring
from .kinds import schema_of_any
from .values import converted

_REFUSED: dict[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}


class FunctionDescription:
    """What a model has to know of a function, and how its arguments are read.

    Attributes:
        name: the function's name.
        description: its docstring without the sections about parameters, results and errors.
        parameters: JSON Schema of its arguments, an object schema that allows no other keys.
    """

    def __init__(self, name: str, description: str, arguments: type[msgspec.Struct]) -> None:
        self.name = name
        self.description = description
        self.parameters = schema_of_any(arguments)
        self.parameters.pop("title", None)
        self._arguments = arguments

    def arguments_from(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Decoded JSON as values of the annotated types, with the function's own defaults.

        Raises:
            msgspec.ValidationError: they do not fit; the text ends with the place.
        """
        read = converted(values, self._arguments)
        return {name: getattr(read, name) for name in read.__struct_fields__}


def described(function: Callable[..., Any]) -> FunctionDescription:
    """What a model has to know of ``function``.

    Types come from the annotations, descriptions from the docstring (Google or NumPy style) or
    from ``Annotated[kind, "description"]``, which is stronger.  A parameter without an annotation
    takes any JSON value.  Arguments that a bound method or `functools.partial` has already are
    left out.

    Raises:
        InvalidParameterError: it is no function, takes ``*args`` or ``**kwargs``, or has an
            annotation that JSON cannot express.
    """
    inner = _plain_function(function)
    name = getattr(inner, "__name__", type(function).__name__)
    if name == "__call__":
        name = type(function).__name__
    kinds = _annotations(inner, name)
    description, meanings = read_docstring(_docstring(function, inner))
    fields = [
        _field(parameter, kinds.get(parameter.name, Any), meanings.get(parameter.name))
        for parameter in _open_parameters(function, name)
    ]
    try:
        arguments = msgspec.defstruct("arguments", fields, kw_only=True, forbid_unknown_fields=True)
        return FunctionDescription(name, description, arguments)
    except InvalidParameterError as error:
        reason = error.message
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise InvalidParameterError(
        f"{name}() cannot be a tool: {_guilty(fields) or reason}",
        hint="annotate its parameters with types that JSON can express",
    )


def _plain_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that has the annotations."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type) or not callable(function):
        raise InvalidParameterError(f"a tool has to be a function, got {function!r:.80}")
    if inspect.isroutine(function):
        plain: Callable[..., Any] = inspect.unwrap(function)
    else:
        plain = type(function).__call__  # an object that can be called
    return plain


def _docstring(function: Callable[..., Any], inner: Callable[..., Any]) -> str | None:
    own = inner.__doc__
    if own is None and not inspect.isroutine(function):
        return type(function).__doc__ if not isinstance(function, functools.partial) else None
    return own


def _annotations(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        reason = str(error)
    raise InvalidParameterError(
        f"the annotations of {name}() cannot be read: {reason}",
        hint="types have to be importable at run time, not only for the type checker",
    )


def _open_parameters(function: Callable[..., Any], name: str) -> Iterable[inspect.Parameter]:
    """The parameters that the model has to give."""
    given = function.keywords if isinstance(function, functools.partial) else {}
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError as error:
        reason = str(error)
    else:
        for index, parameter in enumerate(parameters):
            _refuse_what_a_model_cannot_give(parameter, name, first=index == 0)
        return [each for each in parameters if each.name not in given]
    raise InvalidParameterError(f"the parameters of {name}() are not known: {reason}")


def _refuse_what_a_model_cannot_give(
    parameter: inspect.Parameter, name: str, *, first: bool
) -> None:
    stars = _REFUSED.get(parameter.kind)
    if stars is not None:
        raise InvalidParameterError(
            f"{name}() cannot be a tool: a model cannot be told what {stars}{parameter.name} takes",
            hint="name its parameters",
        )
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise InvalidParameterError(
            f"{name}() cannot be a tool: {parameter.name} takes no name, and arguments come by name"
        )
    if first and parameter.name in ("self", "cls") and parameter.annotation is parameter.empty:
        raise InvalidParameterError(
            f"{name}() cannot be a tool: nobody gives it its {parameter.name}",
            hint="pass the method of an object, not of its class",
        )


def _field(parameter: inspect.Parameter, kind: Any, meaning: str | None) -> tuple[Any, ...]:
    """A parameter as the definition of a Struct's field: name, type and, perhaps, default."""
    said = _said(kind) or meaning
    if parameter.default is None:
        kind = kind | None
    if said:
        kind = Annotated[kind, msgspec.Meta(description=said)]
    if parameter.default is parameter.empty:
        return parameter.name, kind
    return parameter.name, kind, _default(parameter.default)


def _said(kind: Any) -> str | None:
    """The description in ``Annotated[kind, "description"]``, or in a field object of a library."""
    for note in getattr(kind, "__metadata__", ()):
        text = note if isinstance(note, str) else getattr(note, "description", None)
        if isinstance(text, str) and text:
            return text
    return None


def _default(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | Enum):
        return value
    # Anything else may be changed by the function, or not be JSON; the model is not shown it.
    return msgspec.field(default_factory=lambda: value)


def _guilty(fields: Iterable[tuple[Any, ...]]) -> str | None:
    """The first parameter whose type is the reason, and why."""
    for name, kind, *_ in fields:
        try:
            schema_of_any(kind)
        except InvalidParameterError as error:
            return f"parameter {name}: {error.message}"
    return None
