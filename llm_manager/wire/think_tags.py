"""Takes the reasoning out of a text that has it between ``<think>`` and ``</think>``."""

from __future__ import annotations

from typing import Literal

from ..messages import ReasoningDelta, TextDelta

OPENING, CLOSING = "<think>", "</think>"

# Nobody puts more than this before a tag; who sends nothing but space is not waited for.
_MAX_SPACE_CHARACTERS = 1000


class ThinkTags:
    """Splits a text into reasoning and answer, wherever it is cut.

    Only tags at the beginning count: an answer may well speak about such tags.  White space behind
    a tag belongs to the tag.
    """

    def __init__(self) -> None:
        self._state: Literal["start", "thought", "answer"] = "start"
        self._skips_space = False
        self._held = ""

    def feed(self, text: str) -> list[ReasoningDelta | TextDelta]:
        """The deltas of the next piece of the text."""
        deltas: list[ReasoningDelta | TextDelta] = []
        text, self._held = self._held + text, ""
        if self._state == "start":
            text = self._behind_opening(text)
        if self._state == "thought":
            text = self._behind_closing(self._without_space(text), deltas)
        if self._state == "answer" and (text := self._without_space(text)):
            deltas.append(TextDelta(text))
        return deltas

    def close(self) -> list[ReasoningDelta | TextDelta]:
        """What was held back because a tag might have begun with it."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [ReasoningDelta(held) if self._state == "thought" else TextDelta(held)]

    def _without_space(self, text: str) -> str:
        if self._skips_space:
            text = text.lstrip()
            self._skips_space = not text
        return text

    def _behind_opening(self, text: str) -> str:
        bare = text.lstrip()
        if bare.startswith(OPENING):
            self._state, self._skips_space = "thought", True
            return bare.removeprefix(OPENING)
        if OPENING.startswith(bare) and len(text) <= _MAX_SPACE_CHARACTERS:
            self._held = text
            return ""
        self._state = "answer"
        return text

    def _behind_closing(self, text: str, deltas: list[ReasoningDelta | TextDelta]) -> str:
        thought, closing, rest = text.partition(CLOSING)
        if closing:
            self._state, self._skips_space = "answer", True
        else:
            thought, self._held = _before_possible_start(text, CLOSING)
        if thought:
            deltas.append(ReasoningDelta(thought))
        return rest


def _before_possible_start(text: str, tag: str) -> tuple[str, str]:
    """``text`` up to an end that may be the beginning of ``tag``, and that end."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return text[:-size], text[-size:]
    return text, ""
