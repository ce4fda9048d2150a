"""A conversation that remembers what was said."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, overload

from ..counting.trimming import Trimmed
from ..errors import InvalidParameterError
from ..messages import LLMMessage, Messages, ToolDefinition, as_messages
from .offered_tools import RunnableTool
from .question import Attachment, Question, Trim
from .streams import AsyncTextStream, TextStream, answered, answered_async


class ChatSession:
    """A conversation with a model; made by `LLM.chat`.

    Its history grows by whole exchanges only: a question together with its answer, and with the
    calls of tools between them.  A question that failed, or whose answer nobody read to its end,
    leaves no trace; send it again.

    Args:
        ask: makes a question, see `LLM.question`.
        messages: how the conversation begins; may begin with a message of role ``system``.
        trim: see `LLM.chat`.

    Attributes:
        id: the ``conversation_id`` of its requests.
        trimmed: what was left out of the last question that was answered; None if there was
            nothing to trim with, or a function that does not tell.
    """

    def __init__(
        self,
        ask: Callable[..., Question],
        messages: Messages | None = None,
        *,
        trim: Trim | None = None,
    ) -> None:
        self._ask = ask
        self._beginning = as_messages(messages) if messages else ()
        self._trim = trim
        self._exchanges: tuple[tuple[LLMMessage, ...], ...] = ()
        self._lock = threading.Lock()
        self._cleared = 0
        self.id = uuid.uuid4().hex
        self.trimmed: Trimmed | None = None

    def __repr__(self) -> str:
        return f"<ChatSession {self.id}, {len(self._exchanges)} exchanges>"

    def __len__(self) -> int:
        """How many exchanges there are."""
        return len(self._exchanges)

    def __bool__(self) -> bool:
        return True

    @property
    def messages(self) -> tuple[LLMMessage, ...]:
        """The whole conversation so far, to be kept or to be sent to any provider."""
        return (*self._beginning, *(message for each in self._exchanges for message in each))

    @overload
    def send(
        self,
        text: str,
        *,
        files: Sequence[Attachment] | None = None,
        stream: Literal[False] = False,
        tools: Sequence[RunnableTool] | None = None,
        **options: Any,
    ) -> str: ...
    @overload
    def send(
        self,
        text: str,
        *,
        files: Sequence[Attachment] | None = None,
        stream: Literal[True],
        tools: Sequence[RunnableTool] | None = None,
        **options: Any,
    ) -> TextStream: ...
    @overload
    def send(
        self,
        text: str,
        *,
        files: Sequence[Attachment] | None = None,
        stream: bool = False,
        tools: Sequence[RunnableTool] | None = None,
        **options: Any,
    ) -> str | TextStream: ...
    def send(
        self,
        text: str,
        *,
        files: Sequence[Attachment] | None = None,
        stream: bool = False,
        tools: Sequence[RunnableTool] | None = None,
        **options: Any,
    ) -> Any:
        """Say something and get the answer; see `LLM.generate`.

        Args:
            text: what to say.
            files, stream, options: as for `LLM.generate`.
            tools: functions or `Tool` objects; definitions alone would leave calls unanswered.
        """
        return answered(self._question(text, files, tools, options), stream=stream)

    @overload
    async def send_async(
        self,
        text: str,
        *,
        files: Sequence[Attachment] | None = None,
        stream: Literal[False] = False,
        tools: Sequence[RunnableTool] | None = None,
        **options: Any,
    ) -> str: ...
    @overload
    async def send_async(
        self,
        text: str,
        *,
        files: Sequence[Attachment] | None = None,
        stream: Literal[True],
        tools: Sequence[RunnableTool] | None = None,
        **options: Any,
    ) -> AsyncTextStream: ...
    @overload
    async def send_async(
        self,
        text: str,
        *,
        files: Sequence[Attachment] | None = None,
        stream: bool = False,
        tools: Sequence[RunnableTool] | None = None,
        **options: Any,
    ) -> str | AsyncTextStream: ...
    async def send_async(
        self,
        text: str,
        *,
        files: Sequence[Attachment] | None = None,
        stream: bool = False,
        tools: Sequence[RunnableTool] | None = None,
        **options: Any,
    ) -> Any:
        """`send`, for a task."""
        return await answered_async(self._question(text, files, tools, options), stream=stream)

    def undo(self) -> tuple[LLMMessage, ...]:
        """Take back the last exchange; returns its messages, or none if there is no exchange."""
        with self._lock:
            *kept, last = self._exchanges or ((),)
            self._exchanges = tuple(kept)
            return last

    def clear(self) -> None:
        """Begin anew, as at first; an answer that is still to come is left out."""
        with self._lock:
            self._exchanges = ()
            self._cleared += 1

    def _question(
        self,
        text: str,
        files: Sequence[Attachment] | None,
        tools: Iterable[Any] | None,
        options: Mapping[str, Any],
    ) -> Question:
        tools = None if tools is None else list(tools)
        if any(isinstance(tool, ToolDefinition | Mapping) for tool in tools or ()):
            raise InvalidParameterError(
                "a session runs the calls of the model, and a definition alone cannot be run",
                hint="pass functions or Tool objects, or use LLM.generate",
            )
        cleared = self._cleared

        def ended(question: Question) -> None:
            with self._lock:
                self.trimmed = question.trimmed
                if question.exchange is not None and self._cleared == cleared:
                    self._exchanges = (*self._exchanges, question.exchange)

        return self._ask(
            text,
            before=self.messages,
            files=files,
            tools=tools,
            options={"conversation_id": self.id, **options},
            trim=self._trim,
            ended=ended,
        )
