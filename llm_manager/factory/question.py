"""One question: what is asked, of whom and how; and the two ways to get its answer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

from ..counting.trimming import Trimmed
from ..errors import InvalidParameterError
from ..media.factory import MediaFactory
from ..media.inputs import MediaInput
from ..media.sources import Source
from ..messages import (
    LLMMessage,
    LLMResponse,
    Part,
)
from ..provider import BaseLLMProvider
from ..stream import LLMStream, StreamCallback
from ..tools import ToolCallRequest, ToolRun, run_tools
from .offered_tools import BareTool, RunnableTool, options_with, sorted_tools
from .telling import texts_told

Attachment: TypeAlias = Source | MediaInput | Part
"""A path, URL, bytes or base64 (see `MediaFactory.from_source`), or what was made of one."""

Shorter: TypeAlias = Trimmed | Sequence[LLMMessage]
Trim: TypeAlias = Callable[[tuple[LLMMessage, ...]], Shorter | Awaitable[Shorter]]
"""Shortens a conversation before it is sent: a function, called in a thread, or a coroutine
function."""


class Question:
    """What is asked of a provider.

    Args:
        provider: who answers.
        model: id of a model; None for the provider's active one.
        before: the conversation so far.
        prompt: what is asked now.
        files: what it is about; read when the question is asked.
        options: how to answer.
        tools: functions for the model, or definitions that are handed on to it.
        trim: shortens the conversation, this question included, before it is sent.
        ended: called with this question when its answer is complete and was read.

    Attributes:
        response: the answer as far as it has come; None before anything has.
        trimmed: what was left out of the conversation, if ``trim`` told.
        exchange: when the answer is complete: the messages that it adds to the conversation; None
            before, and where it leaves calls of tools to the caller.

    Raises:
        InvalidParameterError: there is nothing to ask, a tool is none, or both sorts are mixed.
    """

    def __init__(
        self,
        provider: BaseLLMProvider,
        model: str | None,
        before: Sequence[LLMMessage],
        prompt: str,
        files: Sequence[Attachment] | None,
        options: Mapping[str, Any],
        tools: Sequence[RunnableTool | BareTool] | None,
        *,
        trim: Trim | None,
        ended: Callable[[Question], None],
    ) -> None:
        if not isinstance(prompt, str) or (not prompt and not files):
            raise InvalidParameterError(
                f"prompt must be text that is not empty, got {prompt!r:.60}"
            )
        self._provider = provider
        self._model = model
        self._before = tuple(before)
        self._prompt = prompt
        self._files = _as_sequence(files)
        self._functions, definitions = sorted_tools(tools)
        self._options = options_with(definitions, options)
        self._trim = trim
        self._ended = ended
        self._asked: LLMMessage | None = None
        self._stream: LLMStream | None = None
        self._run: ToolRun | None = None
        self.trimmed: Trimmed | None = None
        self.exchange: tuple[LLMMessage, ...] | None = None

    @property
    def response(self) -> LLMResponse | None:
        if self._run is not None:
            return self._run.response
        return None if self._stream is None else self._stream.response

    @property
    def result(self) -> str | ToolCallRequest | None:
        """The text of the answer, or what it asks the caller to do; None before it has begun."""
        response = self.response
        if response is None:
            return None
        return ToolCallRequest.from_response(response) or response.text

    async def answer(self) -> str | ToolCallRequest:
        """Ask, and wait for the whole answer.

        Raises:
            LLMError: as `BaseLLMProvider.generate_chat_completion`, `MediaFactory.from_source`
                and `run_tools`.
        """
        messages = await self._messages()
        if self._functions is not None:
            await self._run_tools(messages)
        else:
            await self._opened(messages)
        self._take_down(len(messages))
        self.end()
        result = self.result
        assert result is not None
        return result

    async def pieces(self, *, ahead: bool = False) -> AsyncGenerator[str, None]:
        """Ask, and give the text of the answer as it comes, all rounds with tools included.

        Closing the generator closes the connection.

        Args:
            ahead: whether it runs ahead of its reader, who then says when it is the `end`.

        Raises:
            LLMError: as `answer`.
        """
        messages = await self._messages()
        if self._functions is not None:
            async with aclosing(texts_told(lambda tell: self._run_tools(messages, tell))) as texts:
                async for text in texts:
                    yield text
        else:
            async with self._opened(messages) as stream:
                async for event in stream:
                    if event.kind == "text":
                        yield event.text
        self._take_down(len(messages))
        if not ahead:
            self.end()

    def end(self) -> None:
        """The answer is complete, and has been read."""
        self._ended(self)

    async def _messages(self) -> tuple[LLMMessage, ...]:
        """The conversation to send; files come before the question about them."""
        if self._files:
            parts = await asyncio.gather(*map(_part_of, self._files))
            self._asked = LLMMessage.user(*parts, *([self._prompt] if self._prompt else []))
        else:
            self._asked = LLMMessage.user(self._prompt)
        messages = (*self._before, self._asked)
        if self._trim is None:
            return messages
        shorter = await _shorter(messages, self._trim)
        if isinstance(shorter, Trimmed):
            self.trimmed = shorter
            return shorter.messages
        return tuple(shorter)

    def _opened(self, messages: tuple[LLMMessage, ...]) -> LLMStream:
        self._stream = self._provider.stream_chat_completion(self._model, messages, self._options)
        return self._stream

    async def _run_tools(
        self, messages: tuple[LLMMessage, ...], tell: StreamCallback | None = None
    ) -> None:
        assert self._functions is not None
        self._run = await run_tools(
            self._provider, self._model, messages, self._functions, self._options, callback=tell
        )

    def _take_down(self, sent: int) -> None:
        assert self._asked is not None
        if self._run is not None:
            self.exchange = (self._asked, *self._run.messages[sent:])
        elif (response := self.response) is not None and not response.tool_calls:
            self.exchange = (self._asked, response.to_message())


def _as_sequence(files: Sequence[Attachment] | None) -> Sequence[Attachment]:
    if isinstance(files, str | bytes | bytearray | memoryview) or not isinstance(
        files, Sequence | None
    ):
        raise InvalidParameterError(
            f"files must be a list of paths, URLs or bytes, got {type(files).__name__}",
            hint="put a single one into a list: files=[...]",
        )
    return files or ()


async def _part_of(file: Attachment) -> Part:
    if isinstance(file, Part):
        return file
    if isinstance(file, MediaInput):
        return file.to_part()
    return (await MediaFactory.load(file)).to_part()


async def _shorter(messages: tuple[LLMMessage, ...], trim: Trim) -> Shorter:
    is_async = inspect.iscoroutinefunction(trim)
    result: Any = trim(messages) if is_async else await asyncio.to_thread(trim, messages)
    shorter: Shorter = await result if inspect.isawaitable(result) else result
    return shorter
