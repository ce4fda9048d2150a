"""What a model asks for, what came of it, and the whole run: pure data."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ..messages import Data, LLMMessage, LLMResponse, Part, ToolCall, Usage

Outcome: TypeAlias = Literal[
    "ok", "error", "timeout", "denied", "unknown_tool", "invalid_arguments"
]  # fmt: skip


class ToolCallRequest(Data, frozen=True, kw_only=True):
    """What a model asks for in one answer.

    Attributes:
        content: what it says beside the calls, often nothing.
        tool_calls: the calls, in its order; not checked yet.
    """

    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    @classmethod
    def from_response(cls, response: LLMResponse) -> ToolCallRequest | None:
        """What ``response`` asks for, or None if it asks for no call."""
        if not response.tool_calls:
            return None
        return cls(content=response.text, tool_calls=response.tool_calls)


class ToolCallRecord(Data, frozen=True, kw_only=True):
    """One call and what came of it.

    Attributes:
        call: what the model asked for.
        outcome: ``ok``; the function raised (``error``), took too long (``timeout``), was not
            allowed (``denied``), does not exist (``unknown_tool``) or was given arguments that do
            not fit (``invalid_arguments``).
        content: what the model was told: the result, or what went wrong.
        error: what went wrong, or None.
        duration_s: how long the function ran, in seconds; 0 if it was not called.
        round: in which answer the model asked for it, from 1.
    """

    call: ToolCall
    outcome: Outcome
    content: str | tuple[Part, ...]
    error: str | None = None
    duration_s: float = 0.0
    round: int = 1

    def to_message(self) -> LLMMessage:
        """The result as the message that goes back to the model."""
        return LLMMessage(
            role="tool",
            content=self.content,
            tool_call_id=self.call.id,
        )


class ToolRun(Data, frozen=True, kw_only=True):
    """A run of `run_tools`, or what there is of it.

    Attributes:
        response: the last answer; None if there was none.
        messages: the whole conversation, the last answer included; go on from here.
        rounds: how many answers the model gave.
        calls: every call, in the order in which the model asked for them.
        usage: token counts of all answers together, or None if the provider sent none.
    """

    response: LLMResponse | None = None
    messages: tuple[LLMMessage, ...] = ()
    rounds: int = 0
    calls: tuple[ToolCallRecord, ...] = ()
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """The text of the last answer."""
        return "" if self.response is None else self.response.text
