"""The two verbs of an `LLM`: text in, text out, for threads and for tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from ..tools import ToolCallRequest
from .offered_tools import BareTool, RunnableTool
from .question import Attachment, Question
from .streams import AsyncTextStream, TextStream, answered, answered_async


class Generating(ABC):
    """Something that makes questions, and can thus answer prompts."""

    @abstractmethod
    def _asked(
        self,
        prompt: str,
        system_prompt: str | None,
        files: Sequence[Attachment] | None,
        tools: Sequence[RunnableTool] | Sequence[BareTool] | None,
        options: Mapping[str, Any],
    ) -> Question:
        """A question without anything before it."""

    @overload
    def generate(
        self,
        prompt: str,
        system_prompt: str | None = None,
        files: Sequence[Attachment] | None = None,
        stream: Literal[False] = False,
        tools: Sequence[RunnableTool] | None = None,
        **options: Any,
    ) -> str: ...
    @overload
    def generate(
        self,
        prompt: str,
        system_prompt: str | None = None,
        files: Sequence[Attachment] | None = None,
        stream: Literal[False] = False,
        *,
        tools: Sequence[BareTool],
        **options: Any,
    ) -> str | ToolCallRequest: ...
    @overload
    def generate(
        self,
        prompt: str,
        system_prompt: str | None = None,
        files: Sequence[Attachment] | None = None,
        *,
        stream: Literal[True],
        tools: Sequence[RunnableTool] | Sequence[BareTool] | None = None,
        **options: Any,
    ) -> TextStream: ...
    @overload
    def generate(
        self,
        prompt: str,
        system_prompt: str | None = None,
        files: Sequence[Attachment] | None = None,
        stream: bool = False,
        tools: Sequence[RunnableTool] | Sequence[BareTool] | None = None,
        **options: Any,
    ) -> str | ToolCallRequest | TextStream: ...
    def generate(
        self,
        prompt: str,
        system_prompt: str | None = None,
        files: Sequence[Attachment] | None = None,
        stream: bool = False,
        tools: Sequence[RunnableTool] | Sequence[BareTool] | None = None,
        **options: Any,
    ) -> Any:
        """Answer a prompt.

        Args:
            prompt: what is asked.
            system_prompt: for this request; None takes the one that is set.
            files: paths, URLs or bytes of images, PDFs, texts and tables, or what `MediaFactory`
                made of them.  Files are read in threads; a URL of an image or a PDF is left to the
                service.
            stream: return the text piece by piece.
            tools: functions or `Tool` objects, which are called when the model asks for it (see
                `run_tools`); or definitions alone, as `ToolDefinition` or as dictionaries.
            options: parameters for this request by their names, ``model`` and ``timeout`` included.

        Returns:
            The text; with ``stream`` a `TextStream`.  Where only definitions of tools were given
            and the model asks for a call: a `ToolCallRequest`.

        Raises:
            InvalidParameterError: an argument is wrong; nothing was sent.
            UnsupportedFeatureError: the provider or the model cannot do it; nothing was sent.
            RuntimeError: called by a listener, or by work that a synchronous call runs.
            LLMError: no answer; the class says why, ``partial`` holds what had arrived.
        """
        question = self._asked(prompt, system_prompt, files, tools, options)
        return answered(question, stream=stream)

    @overload
    async def generate_async(
        self,
        prompt: str,
        system_prompt: str | None = None,
        files: Sequence[Attachment] | None = None,
        stream: Literal[False] = False,
        tools: Sequence[RunnableTool] | None = None,
        **options: Any,
    ) -> str: ...
    @overload
    async def generate_async(
        self,
        prompt: str,
        system_prompt: str | None = None,
        files: Sequence[Attachment] | None = None,
        stream: Literal[False] = False,
        *,
        tools: Sequence[BareTool],
        **options: Any,
    ) -> str | ToolCallRequest: ...
    @overload
    async def generate_async(
        self,
        prompt: str,
        system_prompt: str | None = None,
        files: Sequence[Attachment] | None = None,
        *,
        stream: Literal[True],
        tools: Sequence[RunnableTool] | Sequence[BareTool] | None = None,
        **options: Any,
    ) -> AsyncTextStream: ...
    @overload
    async def generate_async(
        self,
        prompt: str,
        system_prompt: str | None = None,
        files: Sequence[Attachment] | None = None,
        stream: bool = False,
        tools: Sequence[RunnableTool] | Sequence[BareTool] | None = None,
        **options: Any,
    ) -> str | ToolCallRequest | AsyncTextStream: ...
    async def generate_async(
        self,
        prompt: str,
        system_prompt: str | None = None,
        files: Sequence[Attachment] | None = None,
        stream: bool = False,
        tools: Sequence[RunnableTool] | Sequence[BareTool] | None = None,
        **options: Any,
    ) -> Any:
        """`generate` for a task, on the loop that runs; with ``stream`` an `AsyncTextStream`."""
        question = self._asked(prompt, system_prompt, files, tools, options)
        return await answered_async(question, stream=stream)
