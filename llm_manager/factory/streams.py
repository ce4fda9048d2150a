"""An answer as text, piece by piece: for threads, and for tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Self

from .._blocking import SyncIterator, run_sync
from ..messages import LLMResponse
from ..tools import ToolCallRequest
from .question import Question


def answered(question: Question, *, stream: bool) -> str | ToolCallRequest | TextStream:
    """The answer for a thread that may wait, also where that holds up an event loop."""
    if stream:
        return TextStream(question)
    return run_sync(question.answer(), even_on_loop=True)


async def answered_async(
    question: Question, *, stream: bool
) -> str | ToolCallRequest | AsyncTextStream:
    """The answer for a task."""
    return AsyncTextStream(question) if stream else await question.answer()


class _Answering:
    """What is known of an answer while it comes."""

    _question: Question

    @property
    def response(self) -> LLMResponse | None:
        """The answer as far as it has come; None before anything has.

        With tools it is the last answer of the run, and None before the run has ended.
        """
        return self._question.response

    @property
    def result(self) -> str | ToolCallRequest | None:
        """What `LLM.generate` returns without ``stream``, as far as it has come."""
        return self._question.result


class TextStream(SyncIterator[str], _Answering):
    """The text of an answer, piece by piece, for a thread that may wait::

        for text in llm.generate("Tell me a story.", stream=True):
            print(text, end="")

    The request is sent by the first `next`.  It runs on the background loop and at most some
    hundred pieces ahead of the reader.  Whoever leaves early - by ``break``, by Ctrl-C, by an
    exception - drops the object with that, which closes the connection; where a variable still
    holds it, a ``with`` block or `close` does it.  An error is raised where the text before it has
    been read, and has that text in ``partial``.
    """

    def __init__(self, question: Question) -> None:
        super().__init__(question.pieces(ahead=True))
        self._question = question

    def _was_read(self) -> None:
        self._question.end()


class AsyncTextStream(AsyncIterator[str], _Answering):
    """The text of an answer, piece by piece, for a task::

        async for text in await llm.generate_async("Tell me a story.", stream=True):
            print(text, end="")

    The request is sent by the first step, on the loop that runs.  ``async with`` closes the
    connection however the block is left; so does `aclose`, and dropping the object.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self._pieces = question.pieces()

    def __anext__(self) -> Awaitable[str]:
        return self._pieces.__anext__()

    async def aclose(self) -> None:
        """Close the connection; nothing happens if it is closed already."""
        await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()
