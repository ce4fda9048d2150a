"""Finds the tool calls that a local model writes into its text.

Models were trained on different forms; these are understood, and only if tools were offered::

    <tool_call>{"name": ..., "arguments": {...}}</tool_call>       Qwen, Hermes and many others
    [TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]           Mistral
    <|python_tag|>{"name": ..., "parameters": {...}}                Llama
    {"name": ..., "parameters": {...}}                              the whole answer, Llama

What it must not do: take something for a call that does not name an offered tool.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...messages import TextDelta, ToolCallDelta
from .text import possible_start

_OPENING, _CLOSING = "<tool_call>", "</tool_call>"
_REST_IS_CALLS = ("[TOOL_CALLS]", "<|python_tag|>")
_MARKS = (_OPENING, *_REST_IS_CALLS)


class ToolText:
    """Splits an answer into text and calls, wherever it is cut.

    Args:
        names: the tools that were offered.
        request_id: makes the ids of calls unique.
    """

    def __init__(self, names: frozenset[str], request_id: str) -> None:
        self.calls = 0
        self._names = names
        self._request_id = request_id
        self._held = ""
        self._inside = ""  # the mark that we are behind, or "{" for an answer that may be a call
        self._begun = False

    def feed(self, text: str) -> Iterator[TextDelta | ToolCallDelta]:
        """The deltas of the next piece of the answer."""
        self._held += text
        while self._held:
            if not self._begun and not self._inside:
                bare = "".join(self._held.split())
                if bare in ("", "["):
                    return
                self._begun = True
                if bare.startswith(("{", "[{")):
                    self._inside = "{"
            if self._inside == _OPENING:
                content, closing, rest = self._held.partition(_CLOSING)
                if not closing:
                    return
                self._inside, self._held = "", rest
                yield from self._calls_in(content, f"{_OPENING}{content}{_CLOSING}")
            elif self._inside:
                return
            else:
                spoken, mark, rest = _at_first_mark(self._held)
                if spoken:
                    yield TextDelta(spoken)
                self._held, self._inside = rest, mark
                if not mark:
                    return

    def close(self) -> Iterator[TextDelta | ToolCallDelta]:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if not held.strip():
            return
        if not self._inside:
            yield TextDelta(held)
        else:
            mark = "" if self._inside == "{" else self._inside
            yield from self._calls_in(held, mark + held)

    def _calls_in(self, text: str, otherwise: str) -> Iterator[TextDelta | ToolCallDelta]:
        calls = _calls(text, self._names)
        if not calls:
            yield TextDelta(otherwise)
        for name, arguments in calls:
            yield ToolCallDelta(
                self.calls, f"call-{self._request_id}-{self.calls}", name, arguments
            )
            self.calls += 1


def _at_first_mark(text: str) -> tuple[str, str, str]:
    """``text`` before the first mark, the mark, and what follows; or what may become a mark."""
    found = [(at, mark) for mark in _MARKS if (at := text.find(mark)) >= 0]
    if found:
        at, mark = min(found)
        return text[:at], mark, text[at + len(mark) :]
    held = max(possible_start(text, mark) for mark in _MARKS)
    return (text[:-held], "", text[-held:]) if held else (text, "", "")


def _calls(text: str, names: frozenset[str]) -> list[tuple[str, str]]:
    """The calls in a JSON text: name and arguments as JSON.  Empty if it is anything else."""
    try:
        found = json.loads(text.strip())
    except (ValueError, RecursionError):
        return []
    calls = []
    for item in found if isinstance(found, list) else [found]:
        call = _call(item, names)
        if call is None:
            return []
        calls.append(call)
    return calls


def _call(item: Any, names: frozenset[str]) -> tuple[str, str] | None:
    if not isinstance(item, dict):
        return None
    function = item.get("function")
    if isinstance(function, dict):
        item = function
    name = item.get("name")
    arguments = item.get("arguments", item.get("parameters", {}))
    if not isinstance(name, str) or name not in names:
        return None
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments)
