"""Between the vocabulary and the worker: requests become prompts, reports become deltas."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

from ...errors import (
    InvalidResponseError,
    ProviderConnectionError,
    StreamInterruptedError,
    UnsupportedFeatureError,
)
from ...messages import (
    Delta,
    FinishDelta,
    FinishReason,
    LLMMessage,
    LLMRequest,
    MetaDelta,
    Priority,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageDelta,
    VectorsDelta,
    from_mapping,
)
from ...wire.think_tags import ThinkTags
from .protocol import Began, Done, Embed, Generate, Prompt, Report, Sampling, Text, Vectors
from .tool_text import ToolText

_RANKS: dict[Priority | None, int] = {"interactive": 0, None: 1, "normal": 1, "background": 2}
_SAMPLING = (
    "max_tokens", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed",
)  # fmt: skip
_EXTRA = ("top_k", "min_p", "repetition_penalty")


def generation(request: LLMRequest) -> Generate:
    """The worker's command for a request.

    Raises:
        InvalidParameterError: a value cannot be right.
        UnsupportedFeatureError: it asks for what a local model cannot do.
    """
    options = request.options
    unknown = sorted(set(options.extra) - set(_EXTRA))
    if unknown:
        raise UnsupportedFeatureError(
            f"local models know no option {unknown[0]!r}", hint=f"extra takes {', '.join(_EXTRA)}"
        )
    given = {name: getattr(options, name) for name in _SAMPLING} | dict(options.extra)
    sampling = from_mapping(Sampling, {**given, "stop": tuple(options.stop or ())}, "extra")
    return Generate(request.id, prompt(request), sampling, _RANKS[options.priority])


def prompt(request: LLMRequest) -> Prompt:
    """The conversation as chat templates expect it."""
    options = request.options
    if options.tool_choice not in (None, "auto", "none"):
        raise UnsupportedFeatureError(
            "a local model cannot be made to call a tool",
            hint="use tool_choice 'auto' and ask for the tool in the prompt",
        )
    tools = () if options.tool_choice == "none" else options.tools
    effort = options.reasoning_effort
    return Prompt(
        messages=[_message(message) for message in request.messages],
        tools=[
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in tools
        ]
        or None,
        thinking=None if effort is None else effort != "none",
        text="\n\n".join(message.text for message in request.messages)
        if request.operation == "completion"
        else None,
    )


def embedding(request: LLMRequest) -> Embed:
    """The worker's command for an embedding request."""
    return Embed(request.id, request.texts)


async def answer(
    request: LLMRequest, reports: AsyncIterator[Report]
) -> AsyncGenerator[Delta, None]:
    """The deltas of what the worker says about a request."""
    reader = _Reader(request)
    try:
        async for report in reports:
            for delta in reader.take(report):
                yield delta
            if isinstance(report, Done | Vectors):
                return
    except ProviderConnectionError as error:
        if not reader.has_begun:
            raise
        broken = StreamInterruptedError(error.message, hint=error.hint, original=error.original)
    else:
        broken = StreamInterruptedError("the worker fell silent")
    raise broken


class _Reader:
    """Turns the worker's reports about one request into deltas."""

    def __init__(self, request: LLMRequest) -> None:
        self.has_begun = False
        self._prompt_tokens = 0
        self._thoughts = ThinkTags()
        names = frozenset(tool.name for tool in request.options.tools)
        self._tools = ToolText(names, request.id) if names else None
        self._introduction: MetaDelta | None = MetaDelta(request.model, None)

    def take(self, report: Report) -> list[Delta]:
        """The deltas of one report."""
        deltas: list[Delta] = []
        match report:
            case Began():
                self._prompt_tokens = report.prompt_tokens
                if report.opening:
                    deltas += self._spoken(self._thoughts.feed(report.opening))
            case Text():
                deltas += self._spoken(self._thoughts.feed(report.text))
            case Done():
                deltas += self._spoken(self._thoughts.close())
                if self._tools is not None:
                    deltas += self._tools.close()
                deltas.append(UsageDelta(self._usage(report.completion_tokens)))
                deltas.append(FinishDelta(self._finish(report.reason), report.reason))
            case Vectors():
                deltas += [
                    VectorsDelta(report.vectors),
                    UsageDelta(Usage(prompt_tokens=report.tokens)),
                ]
                deltas.append(FinishDelta("stop"))
            case _:
                raise InvalidResponseError(f"the worker answers with {type(report).__name__}")
        self.has_begun = self.has_begun or bool(deltas)
        if deltas and self._introduction is not None:
            deltas.insert(0, self._introduction)
            self._introduction = None
        return deltas

    def _spoken(self, pieces: Iterable[ReasoningDelta | TextDelta]) -> list[Delta]:
        deltas: list[Delta] = []
        for piece in pieces:
            if isinstance(piece, ReasoningDelta) or self._tools is None:
                deltas.append(piece)
            else:
                found: list[TextDelta | ToolCallDelta] = list(self._tools.feed(piece.text))
                deltas += found
        return deltas

    def _finish(self, reason: str) -> FinishReason:
        if self._tools is not None and self._tools.calls:
            return "tool_calls"
        return "length" if reason == "length" else "stop"

    def _usage(self, completion_tokens: int) -> Usage:
        return Usage(prompt_tokens=self._prompt_tokens, completion_tokens=completion_tokens)


def _arguments(call: ToolCall) -> dict[str, Any] | str:
    """A dictionary, as templates expect it; what the model wrote, if that is none."""
    try:
        return call.arguments
    except InvalidResponseError:
        return call.arguments_json


def _message(message: LLMMessage) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.name is not None:
        out["name"] = message.name
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        out["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call)},
            }
            for call in message.tool_calls
        ]
    if message.reasoning:
        out["reasoning_content"] = message.reasoning
    return out
