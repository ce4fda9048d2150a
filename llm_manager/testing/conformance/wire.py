"""What the kit wants a server to say, and the faults that it puts into an answer.

The author of a provider writes how a complete answer looks on the wire.  Everything else - cut off
behind the second word, silent, in single bytes, with an error in the middle - is made here from
that answer: the texts in it tell where one piece ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...messages import FinishReason, ToolCall, Usage
from ..peer import Reply, Step
from .expect import ConformanceError

WORDS = ("Alpha ", "Bravo ", "Charlie.")
"""The pieces of the answer that most checks use; each is easily found in the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An answer that the kit wants to get.

    Attributes:
        text: the pieces of the text, in their order.
        reasoning: the pieces of the reasoning before it.
        tool_calls: the calls behind it.
        finish: why it ends.
        usage: the token counts, in the meaning of `Usage`; None: send none, or any.
        hang_after: fall silent for ever behind so many pieces of the text; None: do not.
    """

    text: tuple[str, ...] = WORDS
    reasoning: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish: FinishReason = "stop"
    usage: Usage | None = None
    hang_after: int | None = None

    @property
    def whole_text(self) -> str:
        return "".join(self.text)


Ending = Literal["complete", "close", "reset", "half_chunk", "hang"]


def stopped_behind(reply: Reply, text: str | None, ending: Ending) -> Reply:
    """``reply`` up to the piece that holds ``text`` (None: nothing of the body), ended so."""
    steps = reply.body[: 0 if text is None else place_of(reply, text) + 1]
    # A reset that comes with the last piece takes it away again; the client has to read it first.
    pause = (0.05,) if ending == "reset" and steps else ()
    return replace(reply, body=[*steps, *pause], ending=ending, framing=_open_framing(reply))


def with_steps_behind(reply: Reply, text: str, steps: Sequence[Step]) -> Reply:
    """``reply`` with something else between the piece that holds ``text`` and the next one."""
    place = place_of(reply, text) + 1
    body = [*reply.body[:place], *steps, *reply.body[place:]]
    return replace(reply, body=body, framing=_open_framing(reply))


def halted_within(reply: Reply, text: str, steps: Sequence[Step]) -> Reply:
    """``reply`` with something else in the middle of the piece that holds ``text``."""
    place = place_of(reply, text)
    piece = reply.body[place]
    assert isinstance(piece, bytes)
    middle = len(piece) // 2
    body = [*reply.body[:place], piece[:middle], *steps, piece[middle:], *reply.body[place + 1 :]]
    return replace(reply, body=body, framing=_open_framing(reply))


def in_one_piece(reply: Reply) -> Reply:
    """``reply`` with its whole body in one write."""
    body = b"".join(step for step in reply.body if isinstance(step, bytes))
    return replace(reply, body=[body])


def place_of(reply: Reply, text: str) -> int:
    """Which step of the body holds ``text``."""
    needle = json.dumps(text)[1:-1].encode()
    for place, step in enumerate(reply.body):
        if isinstance(step, bytes) and needle in step:
            return place
    raise ConformanceError(
        f"the wire form of the answer has no piece with {text!r} in it; "
        "stream() must send each piece of wanted.text in an element of its own"
    )


def _open_framing(reply: Reply) -> Literal["chunked", "close", "raw"]:
    """A framing that can end early or wait; a content-length would give the length away."""
    return "chunked" if reply.framing == "length" else reply.framing


def values_in(document: Any) -> Iterator[Any]:
    """All keys, texts and numbers of a decoded JSON document."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from values_in(value)
    elif isinstance(document, list):
        for value in document:
            yield from values_in(value)
    else:
        yield document


def says(document: Any, wanted: Any) -> bool:
    """Whether a decoded JSON document has a number, or a text that contains ``wanted``."""
    if isinstance(wanted, str):
        return any(isinstance(value, str) and wanted in value for value in values_in(document))
    return any(value == wanted and not isinstance(value, bool) for value in values_in(document))
