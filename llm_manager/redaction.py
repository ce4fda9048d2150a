"""Masks secrets in any text that leaves the process or reaches a log.

Providers echo keys in error bodies, libraries put them into exception texts.  Every text that
comes from outside passes through `redact` before it becomes part of an error or an event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec

MASK = "***"
# A shorter text, or a shorter run of words, may stand in a message by accident.
_QUOTED = 16

# Shapes of keys as the vendors document them, and the places where keys appear in URLs, headers
# and JSON.  The character counts keep ordinary words out.  Compiled when first used, which takes
# 0.5 ms: a program that starts has nothing to mask.
_KEY_SHAPES = r"""
      \b(?:sk|pk|rk|gsk|xai|hf|nvapi|pplx|csk|r8|key)[-_][A-Za-z0-9_\-*]{8,}   # sk-..., gsk_...
    | \bAIza[A-Za-z0-9_\-]{20,}                                              # Google
    | (?<=earer\ )[^\s"',}\]]{4,}                                            # Bearer ...
    | (?:(?<=[?&_-]key=)|(?<=[?&]apikey=)|(?<=[?&_]token=))[^\s&"']+          # ?key=...
    | (?<=://)[^\s/@]+(?=@)                                                  # user:password@host
"""


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` with each of ``secrets``, and whatever looks like a key, replaced by ``***``."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    return re.sub(_KEY_SHAPES, MASK, text, flags=re.VERBOSE)


def without_quotes(text: str, private: Iterable[str]) -> str:
    """``text`` without what it repeats of ``private`` texts: services quote prompts in errors.

    A run of 16 characters or more that stands in one of them, too, is replaced by ``***``.
    """
    for source in private:
        text = _without_quotes_of(source, text)
    return text


def _without_quotes_of(source: str, text: str) -> str:
    # Every run of that length holds one of the windows that begin at a multiple of the half.
    window, pieces, done, start = _QUOTED // 2, [], 0, 0
    while start + window <= len(text):
        begin, end = start, start + window
        start, at = end, source.find(text[begin:end])
        if at < 0:
            continue
        while end < len(text) and (longer := source.find(text[begin : end + 1], at)) >= 0:
            end, at = end + 1, longer
        while begin > done and text[begin - 1 : end] in source:
            begin -= 1
        if end - begin >= _QUOTED:
            pieces += [text[done:begin], MASK]
            done = start = end
    return "".join((*pieces, text[done:]))


class Reserved(msgspec.Struct, frozen=True):
    """Base of data that holds secrets: shows some of its fields only, to `repr` and to rich.

    Attributes:
        shown: names of those fields.
    """

    shown: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.shown]
