"""A tool: its definition, its function, and the check of its arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..errors import InvalidParameterError, InvalidResponseError
from ..messages import ToolCall, ToolDefinition
from ..schemas import FunctionDescription, described, validator_of

MAX_ARGUMENTS_CHARACTERS = 1_048_576
"""Longer arguments are refused unread: no model means to write so much."""
MAX_DEPTH = 64
"""Arguments nested deeper are refused: what works on them may recurse."""

_PLACED = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<place>.*)`)?", re.DOTALL)
_JSON_WORDS = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object",
    "list": "array",
}  # fmt: skip


class Tool:
    """A function that a model may call.

    Arguments are checked before the function is called.  Without a definition, the function's own
    signature says what fits, and values arrive as the types that it names: dataclasses,
    enumerations, dates.  With one, its JSON Schema says what fits, and values arrive as JSON has
    them; that check needs the package ``jsonschema`` (the extra ``tools``).

    Args:
        function: synchronous or not; a synchronous one is called in a thread.
        definition: what the model is told, as `ToolDefinition` or as a dictionary in the form of
            OpenAI or Anthropic; None makes it from the function.
        name, description: instead of those of the function; not together with ``definition``.

    Raises:
        InvalidParameterError: the function or the definition cannot be used.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        definition: ToolDefinition | Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> None:
        if not callable(function):
            raise InvalidParameterError(f"a tool has to be a function, got {function!r:.80}")
        if definition is not None and (name is not None or description is not None):
            raise InvalidParameterError("give either a definition, or a name and a description")
        self.function = function
        self._signature: FunctionDescription | None = None
        if definition is None:
            self._signature = described(function)
            definition = ToolDefinition.from_function(function, name=name, description=description)
        elif not isinstance(definition, ToolDefinition):
            definition = ToolDefinition.from_dict(definition)
        self.definition = definition

    def __repr__(self) -> str:
        return f"<Tool {self.name!r}>"

    @property
    def name(self) -> str:
        return self.definition.name

    def prepare(self) -> None:
        """Load what the check of arguments needs; may take a tenth of a second, once.

        Raises:
            DependencyMissingError: ``jsonschema`` is needed and not installed.
            InvalidParameterError: the definition's parameters are no JSON Schema.
        """
        if self._signature is None:
            validator_of(self.definition.parameters)

    def arguments_of(self, call: ToolCall) -> dict[str, Any]:
        """The arguments to call the function with.

        Raises:
            InvalidResponseError: they do not fit; the text tells the model what to mend.
        """
        values = _decoded(call.arguments_json)
        if self._signature is None:
            problems = validator_of(self.definition.parameters).problems(values, "arguments")
            if problems:
                raise _unfit("; ".join(problems))
            return values
        try:
            return self._signature.arguments_from(values)
        except (msgspec.ValidationError, RecursionError) as error:
            reason = str(error)
        raise _unfit(_for_model(reason, values))


def _decoded(text: str) -> dict[str, Any]:
    if len(text) > MAX_ARGUMENTS_CHARACTERS:
        raise _unfit(f"arguments: {len(text)} characters, more than {MAX_ARGUMENTS_CHARACTERS}")
    try:
        values = msgspec.json.decode(text.strip() or "{}")
    except (msgspec.DecodeError, RecursionError) as error:
        reason = str(error)
    else:
        if not isinstance(values, dict):
            raise _unfit(f"arguments: expected object, got {_brief(values)}")
        if _is_deep(values, text):
            raise _unfit(f"arguments: nested deeper than {MAX_DEPTH}")
        return values
    raise _unfit(f"arguments: not JSON: {reason}")


def _is_deep(values: Any, text: str) -> bool:
    """Whether ``values``, decoded from ``text``, are nested deeper than `MAX_DEPTH`."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return False
    level = [values]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return [each for each in value if isinstance(each, dict | list)]


def _for_model(reason: str, values: Any) -> str:
    """A text of msgspec in the words of JSON: ``arguments.city: expected string, got 5``."""
    match = _PLACED.fullmatch(reason)
    what, place = (match["what"], match["place"] or "") if match else (reason, "")
    if what.startswith("$"):
        inner, _, what = what[1:].partition(": ")  # a pydantic model inside says where in itself
        place += inner
    what = re.sub(r"`(\w+)`", lambda word: _JSON_WORDS.get(word[1], word[1]), what)
    wrong = _at(values, place)
    if wrong is not None and ", got " in what:
        what = f"{what.partition(', got ')[0]}, got {_brief(wrong)}"
    return f"arguments{place}: {what[:1].lower()}{what[1:]}"


def _at(values: Any, place: str) -> Any:
    """The value at a place such as ``.towns[3].name``; None if it cannot be found."""
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        try:
            values = values[name or int(index)]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _brief(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."


def _unfit(text: str) -> InvalidResponseError:
    return InvalidResponseError(text, code="invalid_arguments")
