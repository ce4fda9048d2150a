"""What the tests of the wire share: reading an answer as a provider does, and cutting bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import hypothesis
from hypothesis import strategies

from llm_manager.errors import LLMError
from llm_manager.messages import LLMMessage, LLMRequest, LLMRequestOptions

# No deadline: the machines that run the tests are shared and slow at times.
quick = hypothesis.settings(deadline=None, max_examples=60)


def request_for(*messages: LLMMessage, stream: bool = True, **options: Any) -> LLMRequest:
    return LLMRequest(
        id="r1",
        model="some-model",
        messages=messages or (LLMMessage.user("hi"),),
        options=LLMRequestOptions(**options),
        stream=stream,
    )


def read(decoder: Any, pieces: Iterable[bytes]) -> tuple[list[Any], LLMError | None]:
    """What comes out of ``decoder``, and the error that ended it."""
    out: list[Any] = []
    try:
        for piece in pieces:
            out.extend(decoder.feed(piece))
        out.extend(decoder.close())
    except LLMError as error:
        return out, error
    return out, None


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """``data`` in pieces, cut at each of ``places``."""
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


places = strategies.lists(strategies.integers(0, 10_000), max_size=12)
