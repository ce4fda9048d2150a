"""Settings out of environment variables: ``LLM_MANAGER_PROVIDERS__<ID>__<SETTING>``.

The id in capitals with ``-`` and ``.`` as ``_``; ``__`` leads into tables::

    LLM_MANAGER_PROVIDERS__WORK_OPENAI__DEFAULT_MODEL=gpt-5
    LLM_MANAGER_PROVIDERS__WORK_OPENAI__DEFAULT_PARAMETERS__TEMPERATURE=0.2

A value is read as TOML (``0.2``, ``true``, ``["a", "b"]``) if it is some, else as text.  An empty
variable says nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ..redaction import Reserved

PREFIX = "LLM_MANAGER_PROVIDERS__"


class Variable(Reserved, frozen=True):
    """One environment variable with a setting.

    Attributes:
        name: of the variable.
        provider: the provider as it is written there, e.g. ``WORK_OPENAI``.
        keys: the setting, tables first, in lower case.
        text: its value.
    """

    shown = ("name",)

    name: str
    provider: str
    keys: tuple[str, ...]
    text: str

    def value(self) -> Any:
        """Its value as TOML has it, if it is a number, a truth value, a list or a table."""
        try:
            read: dict[str, Any] = importlib.import_module("tomllib").loads(f"value = {self.text}")
        except (ValueError, RecursionError):  # no TOML, an enormous number, nested without end
            return self.text
        value = read["value"]
        usual = isinstance(value, str | int | float | list | dict)
        return value if usual and len(read) == 1 else self.text

    def text_value(self) -> str:
        """Its value, for a setting that is a text whatever it looks like."""
        value = self.value()
        return value if isinstance(value, str) else self.text.strip()

    def nested(self, value: Any) -> dict[str, Any]:
        """``value`` in as many tables as the name says."""
        for key in reversed(self.keys):
            value = {key: value}
        table: dict[str, Any] = value
        return table


def written(id: str) -> str:
    """A provider's id as the names of variables have it."""
    return id.upper().replace("-", "_").replace(".", "_")


def variables(environment: Mapping[str, str]) -> list[Variable]:
    """The settings among the environment variables, by name."""
    found = []
    for name in sorted(n for n in environment if n.startswith(PREFIX)):
        provider, _, setting = name.removeprefix(PREFIX).partition("__")
        text = environment[name]
        if text.strip():
            keys = tuple(key.lower() for key in setting.split("__"))
            found.append(Variable(name, provider, keys, text))
    return found
