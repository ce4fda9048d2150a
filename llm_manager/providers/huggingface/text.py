"""Tokens become text, piece by piece: no half characters, and never beyond a stop text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Special tokens that are part of what a model says; all others are left out of the text.
SPOKEN = frozenset({
    "<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>",
})  # fmt: skip
_HALF = "\ufffd"


def spoken_tokens(tokenizer: Any) -> dict[int, str]:
    """Those special tokens of a model that are part of its answers, by id."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {id: token.content for id, token in added.items() if token.content in SPOKEN}


class AnswerText:
    """The text of one answer.

    Args:
        tokenizer: of the model.
        spoken: see `spoken_tokens`.
        stop: texts that end the answer.
    """

    def __init__(self, tokenizer: Any, spoken: Mapping[int, str], stop: tuple[str, ...]) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._spoken = spoken
        self._stop = stop
        self._tokens: list[int] = []
        # Text is decoded together with some tokens before it, since white space depends on them.
        self._context = self._read = 0
        self._held = ""

    def feed(self, token: int) -> str:
        """What can be said for sure after one more token."""
        if token in self._spoken:
            piece = self._rest() + self._spoken[token]
            self._tokens.clear()
            self._context = self._read = 0
            return self._cut(piece)
        self._tokens.append(token)
        known = self._decoded(self._context, self._read)
        whole = self._decoded(self._context, len(self._tokens))
        if len(whole) <= len(known) or whole.endswith(_HALF):
            return ""
        self._context, self._read = self._read, len(self._tokens)
        return self._cut(whole[len(known) :])

    def close(self) -> str:
        """What was held back."""
        piece = self._cut(self._rest())
        held, self._held = self._held, ""
        return piece if self.stopped else piece + held

    def _rest(self) -> str:
        known = self._decoded(self._context, self._read)
        return self._decoded(self._context, len(self._tokens))[len(known) :]

    def _decoded(self, begin: int, end: int) -> str:
        text: str = self._tokenizer.decode(self._tokens[begin:end], skip_special_tokens=True)
        return text

    def _cut(self, piece: str) -> str:
        """``piece`` up to a stop text; what may be the beginning of one is held back."""
        if not self._stop or self.stopped:
            return "" if self.stopped else piece
        text, self._held = self._held + piece, ""
        found = min((at for at in map(text.find, self._stop) if at >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            return text[:found]
        held = max(possible_start(text, stop) for stop in self._stop)
        if held:
            text, self._held = text[:-held], text[-held:]
        return text


def possible_start(text: str, wanted: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``wanted``."""
    for size in range(min(len(wanted) - 1, len(text)), 0, -1):
        if text.endswith(wanted[:size]):
            return size
    return 0
