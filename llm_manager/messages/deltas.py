"""Pieces of an answer: what decoders produce, policies pass on, and readers get.

One small object per piece, built for every token: no keyword-only constructor, no garbage collector
tracking.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from .answers import FinishReason, LLMResponse, Usage
from .conversation import Part
from .data import Data


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the answer's text."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the reasoning text."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A piece of a tool call.

    Attributes:
        index: which call of this answer, from 0.
        id: id of the call; empty except in the first piece.
        name: name of the tool; empty except in the first piece.
        arguments: the next piece of the arguments' JSON text.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class UsageDelta(msgspec.Struct, frozen=True, gc=False):
    """Token counts for the whole answer so far; a later one replaces an earlier one."""

    usage: Usage


class FinishDelta(msgspec.Struct, frozen=True, gc=False):
    """The provider says why the answer ended."""

    reason: FinishReason
    provider_reason: str | None = None


class MetaDelta(msgspec.Struct, frozen=True, gc=False):
    """Facts about the answer: the model that gives it and the provider's id of it.

    It comes right before the first other piece, because what it comes with counts as the first
    piece of the answer.

    Attributes:
        model: the model that answers, as the provider names it.
        response_id: the provider's id of the answer.
        provider_id: the provider that answers, where the request was passed on to another one.
        cached: whether this is an earlier answer that was kept.
    """

    model: str | None = None
    response_id: str | None = None
    provider_id: str | None = None
    cached: bool = False


class PartDelta(msgspec.Struct, frozen=True):
    """A piece of the answer that is whole and not text: an image, or an `OpaquePart`."""

    part: Part


class VectorsDelta(msgspec.Struct, frozen=True):
    """The next vectors of an embedding, in the order of the texts."""

    vectors: list[list[float]]


class RawDelta(msgspec.Struct, frozen=True):
    """One decoded JSON document of the provider; only when ``include_raw`` was asked."""

    document: Any


class KeepAliveDelta(Data, frozen=True):
    """A sign of life without content; the clocks see it, readers never do."""


Delta: TypeAlias = (
    TextDelta
    | ReasoningDelta
    | ToolCallDelta
    | PartDelta
    | VectorsDelta
    | UsageDelta
    | FinishDelta
    | MetaDelta
    | RawDelta
    | KeepAliveDelta
)


class LLMStreamEvent(Data, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One event of a running answer.

    Attributes:
        kind: which of the other fields is set.
        index: running number of the event in its stream, from 0.
        text: kinds ``text`` and ``reasoning``: the new piece.
        tool_call: kind ``tool_call``: the new piece of a call.
        part: kind ``part``: a piece that is no text, whole.
        usage: kind ``usage``: token counts so far.
        response: kind ``done``: the whole answer; it is the last event.
    """

    kind: Literal["text", "reasoning", "tool_call", "part", "usage", "done"]
    index: int
    text: str = ""
    tool_call: ToolCallDelta | None = None
    part: Part | None = None
    usage: Usage | None = None
    response: LLMResponse | None = None
