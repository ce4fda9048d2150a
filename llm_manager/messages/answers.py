"""Whole answers, and what they cost in tokens and time."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

from ..schemas import parsed
from .conversation import LLMMessage, Part, ToolCall
from .data import Data

P = TypeVar("P")


FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "other"]


class Usage(Data, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens counted by the provider, with one meaning on all of them.

    Attributes:
        prompt_tokens: all tokens of the input, those read from and written to a cache included.
        completion_tokens: all tokens of the answer, reasoning included.
        cached_tokens: the part of ``prompt_tokens`` that was read from a cache.
        cache_write_tokens: the part of ``prompt_tokens`` that was written to a cache.
        cache_write_1h_tokens: the part of ``cache_write_tokens`` that is kept there for an hour.
        reasoning_tokens: the part of ``completion_tokens`` that was reasoning.
        estimated: True if some of it is our estimate: the answer was broken off before the
            provider had sent its figures.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
        )


class Timings(Data, frozen=True, kw_only=True):
    """How long an answer took, in seconds, measured by us.

    Attributes:
        first_token_s: from the start to the first piece of the answer; None if none came.
        total_s: from the start to the end, retries included.
        attempts: how often the request was sent.
    """

    first_token_s: float | None = None
    total_s: float = 0.0
    attempts: int = 1


class LLMResponse(Data, frozen=True, kw_only=True):
    """A whole answer, or what there is of it.

    Attributes:
        text: the answer's text, without reasoning.
        reasoning: the reasoning text that the provider showed, or ``""``.
        tool_calls: tools that the model asks to call, in its order.
        parts: everything but the tool calls in its order, if there is more than text; else empty.
        finish_reason: why it ended; None while it has not ended.
        provider_finish_reason: the provider's own word for it, or None.
        usage: token counts, or None if the provider sent none.
        model: the model that answered, as the provider names it.
        provider_id: which provider was asked.
        answered_by: which provider answered: the same, or one that it passed the request on to.
        cached: whether it is an earlier answer that was kept; its ``usage`` is the one of then.
        request_id: our id of the request, as in the events.
        response_id: the provider's id of the answer, or None.
        timings: how long it took.
        raw: the provider's own answer, when `LLMRequestOptions.include_raw` was set: the decoded
            JSON documents in the order in which they arrived.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    parts: tuple[Part, ...] = ()
    finish_reason: FinishReason | None = None
    provider_finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    provider_id: str = ""
    answered_by: str = ""
    cached: bool = False
    request_id: str = ""
    response_id: str | None = None
    timings: Timings = Timings()
    raw: tuple[Any, ...] | None = None

    def to_message(self) -> LLMMessage:
        """The answer as the assistant's message, to go on with the conversation."""
        return LLMMessage(
            role="assistant",
            content=self.parts or self.text,
            tool_calls=self.tool_calls,
            reasoning=self.reasoning or None,
        )

    def parse(self, kind: type[P]) -> P:
        """The answer's JSON text as a value of ``kind``: a dataclass, a Struct, a pydantic model,
        or a plain type such as ``dict``.

        Raises:
            InvalidResponseError: the text is not JSON, or does not fit; ``partial`` is this answer.
        """
        return parsed(self.text, kind, self)


class LLMEmbeddings(Data, frozen=True, kw_only=True):
    """Texts as vectors.

    Attributes:
        vectors: one for each text, in their order; all have the same length.
        model: the model that made them, as the provider names it.
        usage: token counts, or None if the provider sent none.
        provider_id: which provider answered.
        request_id: our id of the request, as in the events.
    """

    vectors: tuple[list[float], ...]
    model: str = ""
    usage: Usage | None = None
    provider_id: str = ""
    request_id: str = ""


class TokenCount(Data, frozen=True, kw_only=True):
    """How many tokens a prompt has.

    Attributes:
        tokens: how many.
        estimated: whether this is our estimate; otherwise somebody counted.
        error_fraction: of an estimate: by which part of ``tokens`` it is wrong at most, as far as
            we have seen; e.g. 0.25.  None for a count, and where nothing is known.
        method: who counted: ``provider``, ``tokenizer`` (a local model's own), ``tiktoken``, or
            ``estimate``.
    """

    tokens: int
    estimated: bool = False
    error_fraction: float | None = None
    method: Literal["provider", "tokenizer", "tiktoken", "estimate"] = "provider"
