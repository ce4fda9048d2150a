"""The verbs: everything that a provider can be asked, in one place for whoever answers.

A provider answers itself; the manager passes each question on to one of its providers.  Both
only have to say how a question becomes a stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .errors import InvalidParameterError
from .messages import (
    LLMEmbeddings,
    LLMMessage,
    LLMRequestOptions,
    LLMResponse,
    Messages,
    Operation,
    as_messages,
)
from .stream import LLMStream, StreamCallback

Options: TypeAlias = LLMRequestOptions | Mapping[str, Any] | None


class Asking(ABC):
    """Something that answers: a provider, or a manager of providers."""

    @abstractmethod
    def _stream_for(
        self,
        model: str | None,
        options: Options,
        operation: Operation,
        callback: StreamCallback | None = None,
        **content: Any,
    ) -> LLMStream:
        """The stream for a question whose ``content`` are fields of `LLMRequest`."""

    async def generate_completion(
        self,
        model: str | None,
        prompt: str,
        system_prompt: str | None = None,
        options: Options = None,
    ) -> LLMResponse:
        """Answer a prompt; see `generate_chat_completion`."""
        return await self.stream_completion(model, prompt, system_prompt, options)

    async def generate_chat_completion(
        self, model: str | None, messages: Messages, options: Options = None
    ) -> LLMResponse:
        """Answer a conversation.

        Args:
            model: id of a model; None for the active one.  A manager takes ``"provider/model"``.
            messages: text, one message, or several, as objects or dictionaries.
            options: `LLMRequestOptions` or a dictionary; what they leave open has defaults.

        Returns:
            The whole answer.

        Raises:
            InvalidParameterError: an argument is wrong; nothing was sent.
            UnsupportedFeatureError: the provider or the model cannot do it; nothing was sent.
            ProviderError: no answer; the class says why, ``partial`` holds what had arrived.
            RequestCancelledError: it was ended by a shutdown.
        """
        return await self.stream_chat_completion(model, messages, options)

    def stream_completion(
        self,
        model: str | None,
        prompt: str,
        system_prompt: str | None = None,
        options: Options = None,
        callback: StreamCallback | None = None,
    ) -> LLMStream:
        """Answer a prompt piece by piece; see `stream_chat_completion`."""
        if not isinstance(prompt, str) or not prompt:
            raise InvalidParameterError(
                f"prompt must be text that is not empty, got {prompt!r:.60}"
            )
        messages: tuple[LLMMessage, ...] = (LLMMessage.user(prompt),)
        if system_prompt:
            messages = (LLMMessage.system(system_prompt), *messages)
        return self._stream_for(model, options, "completion", callback, messages=messages)

    def stream_chat_completion(
        self,
        model: str | None,
        messages: Messages,
        options: Options = None,
        callback: StreamCallback | None = None,
    ) -> LLMStream:
        """Answer a conversation piece by piece.

        Nothing is sent before the stream is awaited or iterated.

        Args:
            model, messages, options: as for `generate_chat_completion`.
            callback: function or coroutine function that gets each `LLMStreamEvent`; an error that
                it raises ends the stream and reaches the caller.

        Raises:
            InvalidParameterError: an argument is wrong.
            UnsupportedFeatureError: the provider or the model cannot do it.
        """
        return self._stream_for(model, options, "chat", callback, messages=as_messages(messages))

    async def generate_fim(
        self, model: str | None, prefix: str, suffix: str = "", options: Options = None
    ) -> LLMResponse:
        """Fill in the middle: what stands between ``prefix`` and ``suffix``; see `stream_fim`."""
        return await self.stream_fim(model, prefix, suffix, options)

    def stream_fim(
        self,
        model: str | None,
        prefix: str,
        suffix: str = "",
        options: Options = None,
        callback: StreamCallback | None = None,
    ) -> LLMStream:
        """Fill in the middle piece by piece, as an editor does at the cursor.

        Give ``supersede_key`` in the options, and each new request ends the one before.

        Args:
            model: id of a model; None for the active one.
            prefix, suffix: the text before and behind the place to fill.
            options: as for `generate_chat_completion`.
            callback: as for `stream_chat_completion`.

        Raises:
            InvalidParameterError: an argument is wrong.
            UnsupportedFeatureError: the provider or the model cannot do it.
        """
        for name, text in (("prefix", prefix), ("suffix", suffix)):
            if not isinstance(text, str):
                raise InvalidParameterError(f"{name} must be text, got {text!r:.60}")
        if not prefix and not suffix:
            raise InvalidParameterError("prefix and suffix are both empty; there is no middle")
        return self._stream_for(model, options, "fim", callback, prefix=prefix, suffix=suffix)

    async def embed(
        self, model: str | None, texts: str | Sequence[str], options: Options = None
    ) -> LLMEmbeddings:
        """Texts as vectors.

        Args:
            model: id of an embedding model; None for the active one.
            texts: one text, or several; they are sent in one request.
            options: time limits, retries and ``extra`` count.

        Raises:
            InvalidParameterError: an argument is wrong; nothing was sent.
            UnsupportedFeatureError: the provider or the model cannot do it; nothing was sent.
            ProviderError: no answer; the class says why.
        """
        given = (texts,) if isinstance(texts, str) else tuple(texts)
        if not given or not all(isinstance(text, str) and text for text in given):
            raise InvalidParameterError(
                f"texts must be one or more texts that are not empty, got {texts!r:.60}"
            )
        stream = self._stream_for(model, options, "embed", texts=given)
        await stream
        return stream.embeddings
