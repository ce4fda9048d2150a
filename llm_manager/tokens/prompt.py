"""Adds up the tokens of a prompt, and says how sure that is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

import msgspec

from ..messages import (
    FilePart,
    ImagePart,
    LLMMessage,
    LLMRequest,
    OpaquePart,
    TextPart,
    TokenCount,
)
from .images import IMAGE_ERROR, ImageRule
from .text import estimate_text, text_tokens
from .vocabularies import TextCounter, Vocabularies, Vocabulary, text_counter, vocabulary_of

# What a chat template writes around each message, and by how many the templates differ.
_TOKENS_PER_MESSAGE = 4
_TEMPLATE_ERROR_TOKENS = 4.0
# OpenAI's cookbook, "How to count tokens with tiktoken": around each message, for the name of its
# speaker, and for the beginning of the answer.
_OPENAI_TOKENS_PER_MESSAGE = 3
_OPENAI_TOKENS_PER_NAME = 1
_OPENAI_TOKENS_PER_ANSWER = 3
# A picture of one megapixel costs 765 to 1,600 tokens on the services that say so.
_TOKENS_PER_IMAGE = 1000
_FILE_BYTES_PER_TOKEN = 6
# So many take 10 to 20 ms.
_MANY_CHARACTERS = 1_000_000


def estimate_prompt_tokens(request: LLMRequest, image_rule: ImageRule | None = None) -> int:
    """About how many tokens the service reads for ``request``, tool definitions included.

    Args:
        request: what is asked.
        image_rule: how the service counts pictures; None: all are taken for equal.
    """
    # The sum of `estimate_prompt` without its bound, which costs as much again for short prompts.
    tokens = 0.0
    for message in request.messages:
        if isinstance(message.content, str) and not message.tool_calls:
            tokens += _TOKENS_PER_MESSAGE + text_tokens(message.content)
        else:
            tally = _Tally(request.model, image_rule)
            tally.add_message(message)
            tokens += tally.tokens
    for text in (request.prefix, request.suffix, *request.texts):
        if text:
            tokens += text_tokens(text)
    if request.options.tools:
        tokens += _json_tokens(request.options.tools)
    return math.ceil(tokens)


def is_long(request: LLMRequest) -> bool:
    """Whether to estimate ``request`` holds up an event loop for long enough to be felt."""
    characters = 0
    for message in request.messages:
        content = message.content
        characters += len(content if isinstance(content, str) else message.text)
    return characters > _MANY_CHARACTERS


def estimate_prompt(request: LLMRequest, image_rule: ImageRule | None = None) -> TokenCount:
    """The same with its bound, which is None where something cannot be known."""
    tally = _Tally(request.model, image_rule)
    tally.add_request(request)
    return tally.count()


def estimate_message_tokens(
    message: LLMMessage, model: str = "", image_rule: ImageRule | None = None
) -> int:
    """About how many tokens one message of a prompt has."""
    tally = _Tally(model, image_rule)
    tally.add_message(message)
    return tally.count().tokens


async def count_prompt(
    request: LLMRequest, image_rule: ImageRule | None, vocabularies: Vocabularies
) -> TokenCount:
    """Count as exactly as can be done on this machine: with tiktoken, else by an estimate."""
    vocabulary = vocabulary_of(request.model, vocabularies)
    if vocabulary is not None:
        # Both loading a vocabulary and counting a long text would hold up the event loop.
        counted = await asyncio.to_thread(_counted, request, image_rule, vocabulary)
        if counted is not None:
            return counted
    return estimate_prompt(request, image_rule)


def _counted(
    request: LLMRequest, image_rule: ImageRule | None, vocabulary: Vocabulary
) -> TokenCount | None:
    counter = text_counter(vocabulary)
    if counter is None:
        return None
    tally = _Tally(request.model, image_rule, counter)
    tally.add_request(request)
    return tally.count()


class _Tally:
    """The tokens of a prompt, piece by piece.

    Attributes:
        tokens: how many there are.
        error_tokens: by how many that may be wrong; None: by any number.
    """

    def __init__(
        self, model: str, image_rule: ImageRule | None, counter: TextCounter | None = None
    ) -> None:
        self._model = model
        self._image_rule = image_rule
        self._counter = counter
        self.tokens = 0.0
        self.error_tokens: float | None = 0.0

    def count(self) -> TokenCount:
        tokens, error = math.ceil(self.tokens), self.error_tokens
        if error == 0:
            return TokenCount(tokens=tokens, method="tiktoken")
        return TokenCount(
            tokens=tokens,
            estimated=True,
            error_fraction=None if error is None else round(error / max(1, tokens), 3),
            method="estimate" if self._counter is None else "tiktoken",
        )

    def add_request(self, request: LLMRequest) -> None:
        for message in request.messages:
            self.add_message(message)
        if self._counter is not None and request.messages:
            self.tokens += _OPENAI_TOKENS_PER_ANSWER
        self._add_texts((request.prefix, request.suffix, *request.texts))
        if request.options.tools:
            # How a service words them is its own affair, and it may add instructions.
            self._add_guess(_json_tokens(request.options.tools))

    def add_message(self, message: LLMMessage) -> None:
        if self._counter is not None:
            self.tokens += _OPENAI_TOKENS_PER_MESSAGE + self._counter(message.role)
            if message.name:
                self.tokens += _OPENAI_TOKENS_PER_NAME + self._counter(message.name)
        else:
            self._add(_TOKENS_PER_MESSAGE, _TEMPLATE_ERROR_TOKENS)
        self._add_texts((message.text,))
        for part in () if isinstance(message.content, str) else message.content:
            self._add_part(part)
        for call in message.tool_calls:
            for text in (call.name, call.arguments_json):
                self._add_estimate(text)

    def _add_texts(self, texts: Iterable[str]) -> None:
        for text in texts:
            if self._counter is not None:
                self.tokens += self._counter(text)
            elif text:
                self._add_estimate(text)

    def _add_estimate(self, text: str) -> None:
        estimate = estimate_text(text)
        self._add(estimate.tokens, estimate.error_tokens)

    def _add_part(self, part: TextPart | ImagePart | FilePart | OpaquePart) -> None:
        match part:
            case ImagePart():
                rule = self._image_rule
                tokens = None if rule is None else rule.tokens_of(self._model, part)
                if tokens is None:
                    self._add_guess(_TOKENS_PER_IMAGE)
                else:
                    self._add(tokens, tokens * IMAGE_ERROR)
            case FilePart():
                self._add_guess(len(part.data or b"") // _FILE_BYTES_PER_TOKEN)
            case OpaquePart():
                self._add_guess(_json_tokens(part.data))
            case _:
                pass  # counted with the text of its message

    def _add(self, tokens: float, error_tokens: float) -> None:
        self.tokens += tokens
        if self.error_tokens is not None:
            self.error_tokens += error_tokens

    def _add_guess(self, tokens: float) -> None:
        self.tokens += tokens
        self.error_tokens = None


def _json_tokens(value: object) -> float:
    try:
        written = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return 0.0  # what is no JSON is refused by whoever has to send it
    return text_tokens(written)
