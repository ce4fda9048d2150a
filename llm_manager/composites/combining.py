"""One answer out of several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeAlias

import msgspec

from ..errors import LLMError
from ..messages import (
    Delta,
    FinishDelta,
    LLMResponse,
    MetaDelta,
    PartDelta,
    ReasoningDelta,
    TextDelta,
    TextPart,
    ToolCallDelta,
)

Answer: TypeAlias = LLMResponse | LLMError
"""What a member has said, or why it has said nothing; both carry its id as ``provider_id``."""
Combined: TypeAlias = str | LLMResponse
Combiner: TypeAlias = Callable[[list[Answer]], Combined | Awaitable[Combined]]
Combine: TypeAlias = Literal["all", "first", "race", "vote"] | Combiner


def all_of(answers: Sequence[Answer]) -> str:
    """The texts of all who have answered, each under the id of its member."""
    return "\n\n".join(
        f"## {answer.provider_id}\n\n{answer.text}"
        for answer in answers
        if isinstance(answer, LLMResponse)
    )


def voted(answers: Sequence[Answer]) -> LLMResponse:
    """The answer that most have given; of equally many, the one that stands first.

    Texts are equal but for case, space and a last full stop; JSON, and what tools are called with,
    is compared by value.
    """
    responses = [answer for answer in answers if isinstance(answer, LLMResponse)]
    ballots = [_ballot(response) for response in responses]
    return responses[max(range(len(ballots)), key=lambda i: (ballots.count(ballots[i]), -i))]


def deltas_of(combined: Combined) -> list[Delta]:
    """The pieces of an answer that is there as a whole, without its usage."""
    if isinstance(combined, str):
        return [TextDelta(combined), FinishDelta("stop")]
    deltas: list[Delta] = [
        MetaDelta(combined.model or None, combined.response_id, combined.answered_by or None)
    ]
    if combined.reasoning:
        deltas.append(ReasoningDelta(combined.reasoning))
    if combined.parts:
        for part in combined.parts:
            deltas.append(TextDelta(part.text) if isinstance(part, TextPart) else PartDelta(part))
    elif combined.text:
        deltas.append(TextDelta(combined.text))
    for index, call in enumerate(combined.tool_calls):
        deltas.append(ToolCallDelta(index, call.id, call.name, call.arguments_json))
    finish = combined.finish_reason or "stop"
    deltas.append(FinishDelta(finish, combined.provider_finish_reason))
    return deltas


def _ballot(response: LLMResponse) -> bytes:
    calls = [(call.name, _value(call.arguments_json)) for call in response.tool_calls]
    return msgspec.json.encode([_value(response.text), calls], order="sorted")


def _value(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return " ".join(text.casefold().split()).rstrip(".")
