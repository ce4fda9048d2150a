"""Counts the steps of a regular expression, with the same strategy as the library's engine.

A watch cannot tell a slow pattern from a busy machine; the number of steps can.  What is counted is
each look at a character, or at a place between two, also in attempts that lead nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


_CLASSES = {
    ops.CATEGORY_DIGIT: str.isdigit,
    ops.CATEGORY_SPACE: str.isspace,
    ops.CATEGORY_NOT_SPACE: lambda letter: not letter.isspace(),
    ops.CATEGORY_WORD: _is_word,
}


def steps(pattern: str, flags: int, text: str) -> int:
    """How many it takes to look for all matches, from the beginning to the end."""
    return _Counter(pattern, flags, text).search()


def is_unbounded(pattern: str, flags: int) -> bool:
    """Whether some part of it may be repeated without a limit."""
    return any(most is ops.MAXREPEAT for most in _limits(parser.parse(pattern, flags)))


def rounds_at_one_place(pattern: str, flags: int) -> int:
    """How many rounds its bounded repetitions may take together from one place of a text."""
    return _rounds(parser.parse(pattern, flags))


def bait(pattern: str, flags: int) -> Iterator[str]:
    """Beginnings of what it matches: repeated, they lead it on and let it down."""
    whole = _sample(parser.parse(pattern, flags))
    for length in range(1, len(whole) + 1):
        yield whole[:length]


def _parts(kind: Any, what: Any) -> list[Any]:
    """The sequences of nodes inside a node."""
    if kind is ops.BRANCH:
        return list(what[1])
    if kind is ops.SUBPATTERN:
        return [what[3]]
    if kind in (ops.ASSERT, ops.ASSERT_NOT):
        return [what[1]]
    return [what[2]] if kind in (ops.MAX_REPEAT, ops.MIN_REPEAT) else []


def _limits(nodes: Any) -> Iterator[Any]:
    for kind, what in nodes:
        if kind in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            yield what[1]
        for part in _parts(kind, what):
            yield from _limits(part)


def _rounds(nodes: Any) -> int:
    rounds = 1
    for kind, what in nodes:
        inside = [_rounds(part) for part in _parts(kind, what)]
        if kind is ops.BRANCH:
            rounds *= sum(inside)
        elif kind in (ops.MAX_REPEAT, ops.MIN_REPEAT) and what[1] is not ops.MAXREPEAT:
            rounds *= max(1, what[1] - what[0]) * inside[0]
        else:
            rounds *= max(inside, default=1)
    return rounds


def _sample(nodes: Any) -> str:
    """Something that ``nodes`` match, each repetition at its least, but one round at least."""
    text = ""
    for kind, what in nodes:
        if kind is ops.LITERAL:
            text += chr(what)
        elif kind is ops.IN:
            text += _letter(what)
        elif kind in (ops.ANY, ops.NOT_LITERAL):
            text += "a"
        elif kind is ops.BRANCH:
            text += _sample(what[1][0])
        elif kind is ops.SUBPATTERN or (kind is ops.ASSERT and what[0] < 0):
            text += _sample(_parts(kind, what)[0])
        elif kind in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            text += _sample(what[2]) * max(1, what[0])
    return text


def _letter(items: Any) -> str:
    for letter in "a1 m-_.:/":
        if _is_one_of(items, letter, str.lower):
            return letter
    return chr(items[0][1] if items[0][0] is ops.LITERAL else items[0][1][0])


class _Counter:
    """One pattern on one text."""

    def __init__(self, pattern: str, flags: int, text: str) -> None:
        self.steps = 0
        self._nodes = list(parser.parse(pattern, flags))
        self._ignores_case = bool(flags & re.IGNORECASE)
        self._by_line, self._dot_is_all = bool(flags & re.MULTILINE), bool(flags & re.DOTALL)
        self._text = text.lower() if self._ignores_case else text

    def search(self) -> int:
        start = 0
        while start <= len(self._text):
            end = next(self._ends(self._nodes, start), None)
            start = start + 1 if end is None or end == start else end
        return self.steps

    def _ends(self, nodes: list[Any], place: int) -> Iterator[int]:
        """Where ``nodes`` may end if they begin at ``place``, the preferred end first."""
        if not nodes:
            yield place
            return
        (kind, what), rest = nodes[0], nodes[1:]
        for middle in self._one(kind, what, place):
            yield from self._ends(rest, middle)

    def _one(self, kind: Any, what: Any, place: int) -> Iterator[int]:
        self.steps += 1
        if kind in (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN):
            if place < len(self._text) and self._fits(kind, what, self._text[place]):
                yield place + 1
        elif kind is ops.AT:
            if self._is_at(what, place):
                yield place
        elif kind is ops.BRANCH:
            for nodes in what[1]:
                yield from self._ends(list(nodes), place)
        elif kind is ops.SUBPATTERN:
            yield from self._ends(list(what[3]), place)
        elif kind in (ops.ASSERT, ops.ASSERT_NOT):
            if self._holds(*what, place) is (kind is ops.ASSERT):
                yield place
        elif kind in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            least, most, nodes = what
            yield from self._repeated(list(nodes), place, least, most, kind is ops.MIN_REPEAT)
        else:
            raise NotImplementedError(kind)

    def _repeated(
        self, nodes: list[Any], place: int, least: int, most: int, lazy: bool
    ) -> Iterator[int]:
        """The ends of a repetition; without a call inside a call for each round of it."""
        rounds = [(place, self._ends(nodes, place) if most else iter(()))]
        if lazy and least == 0:
            yield place
        while rounds:
            end, tries = rounds[-1]
            following = next(tries, None)
            if following is None:
                rounds.pop()
                if not lazy and len(rounds) >= least:
                    yield end
                continue
            if following == end and len(rounds) > least:
                continue  # a round of nothing
            if lazy and len(rounds) >= least:
                yield following
            more = len(rounds) < most
            rounds.append((following, self._ends(nodes, following) if more else iter(())))

    def _fits(self, kind: Any, what: Any, letter: str) -> bool:
        if kind is ops.ANY:
            return self._dot_is_all or letter != "\n"
        if kind is not ops.IN:
            return (letter == self._folded(chr(what))) is (kind is ops.LITERAL)
        return _is_one_of(what, letter, self._folded)

    def _folded(self, letter: str) -> str:
        return letter.lower() if self._ignores_case else letter

    def _is_at(self, what: Any, place: int) -> bool:
        text = self._text
        if what is ops.AT_BEGINNING:
            return place == 0 or (self._by_line and text[place - 1] == "\n")
        if what is ops.AT_END:
            return place == len(text) or (self._by_line and text[place] == "\n")
        if what is ops.AT_BOUNDARY:
            around = text[place - 1 : place] if place else "", text[place : place + 1]
            one, other = (bool(each) and _is_word(each) for each in around)
            return one is not other
        raise NotImplementedError(what)

    def _holds(self, direction: int, nodes: Any, place: int) -> bool:
        if direction < 0:
            low, _ = nodes.getwidth()
            place -= low
        return place >= 0 and next(self._ends(list(nodes), place), None) is not None


def _is_one_of(items: Any, letter: str, folded: Callable[[str], str]) -> bool:
    negated = items[0][0] is ops.NEGATE
    return any(_is(*item, letter, folded) for item in items[negated:]) is not negated


def _is(kind: Any, what: Any, letter: str, folded: Callable[[str], str]) -> bool:
    if kind is ops.LITERAL:
        return letter == folded(chr(what))
    if kind is ops.RANGE:
        low, high = map(chr, what)
        return low <= letter <= high or folded(low) <= letter <= folded(high)
    return bool(_CLASSES[what](letter))
