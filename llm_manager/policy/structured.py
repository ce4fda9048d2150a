"""Answers by a JSON Schema: checked, and made possible where the service does not know how.

A service that takes the schema is left to it; its answer streams through and is checked at the
end.  For any other, the schema is put into the instructions, the text is held back until it is
complete and fits, and the model gets one chance to mend it.

An answer that says itself that it is not the whole one (cut off, filtered, or calls of tools) is
not checked: its ``finish_reason`` tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from ..errors import DependencyMissingError, InvalidResponseError, UnsupportedFeatureError
from ..messages import (
    Delta,
    FinishDelta,
    LLMMessage,
    LLMRequest,
    LLMResponse,
    MetaDelta,
    Part,
    PartDelta,
    ReasoningDelta,
    TextDelta,
    TextPart,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from ..redaction import without_quotes
from ..schemas import Validator, json_in, validator_of
from . import Exchange, Host

# A check of more text than this takes long enough to be felt; it is done in a thread.
_LONG_CHARACTERS = 16_384

Says = Callable[[LLMRequest], bool]


class StructuredOutput:
    """Sees to it that an answer follows the JSON Schema in ``response_format``.

    It has to be the outermost stage, so that a second round has its own retries and time limits.
    A request without a schema passes untouched.

    Args:
        native: whether the service takes the schema of this request itself.
        json_object: whether it can at least be told to answer with JSON.
    """

    def __init__(self, native: Says, json_object: Says) -> None:
        self._native = native
        self._json_object = json_object

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        def structured(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            schema = request.options.response_format
            if not isinstance(schema, dict) or not request.messages:
                return exchange(request)
            if self._native(request):
                return _checked(exchange, request, schema)
            return _emulated(exchange, request, schema, self._json_object(request))

        return structured


async def _checked(
    exchange: Exchange, request: LLMRequest, schema: dict[str, Any]
) -> AsyncGenerator[Delta, None]:
    """The answer of a service that knows schemas, and an error at its end if it does not fit."""
    validator = await _validator(schema, needed=False)
    answer = _Answer()
    async with aclosing(exchange(request)) as deltas:
        async for delta in deltas:
            answer.add(delta)
            yield delta
    if answer.complete:
        _, problems = await _judged(answer.text, validator)
        if problems:
            raise _mismatch(problems, answer.text)


async def _emulated(
    exchange: Exchange, request: LLMRequest, schema: dict[str, Any], json_object: bool
) -> AsyncGenerator[Delta, None]:
    """The answer of a service that knows no schemas: its text in one piece, when it fits."""
    validator = await _validator(schema, needed=True)
    request = _instructed(request, schema, json_object)
    answer = _Answer()
    async with aclosing(_without_text(exchange, request, answer)) as deltas:
        async for delta in deltas:
            yield delta
    text, problems = await _fit(answer, validator)
    if problems:
        first, answer = answer, _Answer(spent=None if answer.cached else answer.usage)
        repair = _repair(request, first, problems)
        async with aclosing(_without_text(exchange, repair, answer)) as deltas:
            async for delta in deltas:
                yield delta
        text, problems = await _fit(answer, validator)
        answer.cached = answer.cached and first.cached
    if answer.cached:
        yield MetaDelta(cached=True)
    if problems:
        raise _mismatch(problems, answer.text, answer.response(request))
    for part in answer.parts:
        yield PartDelta(part)
    if text:
        yield TextDelta(text)
    if answer.finish is not None:
        yield answer.finish


async def _without_text(
    exchange: Exchange, request: LLMRequest, answer: _Answer
) -> AsyncGenerator[Delta, None]:
    """Everything that need not wait for the end of the answer, which is put into ``answer``."""
    async with aclosing(exchange(request)) as deltas:
        async for delta in deltas:
            answer.add(delta)
            if isinstance(delta, UsageDelta):
                yield UsageDelta(answer.usage or delta.usage)
            elif isinstance(delta, MetaDelta):
                # Only when all rounds were kept answers, the whole is one, and cost nothing.
                yield msgspec.structs.replace(delta, cached=False)
            elif not isinstance(delta, TextDelta | PartDelta | FinishDelta):
                yield delta


class _Answer:
    """One round's answer, as far as it is needed to judge and to repeat it.

    Args:
        spent: tokens of earlier rounds.
    """

    def __init__(self, spent: Usage | None = None) -> None:
        self.parts: list[Part] = []
        self.usage = spent
        self.finish: FinishDelta | None = None
        self.cached = False
        self._spent = spent
        self._calls = False
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._meta = MetaDelta()

    def add(self, delta: Delta) -> None:
        match delta:
            case TextDelta(text):
                self._text.append(text)
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case ToolCallDelta():
                self._calls = True
            case PartDelta(part):
                self.parts.append(part)
            case UsageDelta(usage):
                self.usage = usage if self._spent is None else self._spent + usage
            case FinishDelta():
                self.finish = delta
            case MetaDelta():
                self._meta = delta
                self.cached = self.cached or delta.cached

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def complete(self) -> bool:
        """Whether it claims to be the whole answer."""
        reason = None if self.finish is None else self.finish.reason
        return not self._calls and reason not in ("length", "content_filter", "tool_calls")

    def message(self) -> LLMMessage | None:
        """What the model said, for the conversation; None if it said nothing."""
        text = self.text
        if not text and not self.parts:
            return None
        return LLMMessage(
            role="assistant",
            content=(*self.parts, TextPart(text=text)) if self.parts else text,
            reasoning="".join(self._reasoning) or None,
        )

    def response(self, request: LLMRequest) -> LLMResponse:
        """The answer as what an error has in ``partial``."""
        return LLMResponse(
            text=self.text,
            reasoning="".join(self._reasoning),
            finish_reason=None if self.finish is None else self.finish.reason,
            usage=self.usage,
            model=self._meta.model or request.model,
            request_id=request.id,
            response_id=self._meta.response_id,
        )


# ---- checking ------------------------------------------------------------------------------------


async def _validator(schema: dict[str, Any], *, needed: bool) -> Validator | None:
    """The validator, made in a thread; None if it cannot be had and is not needed."""
    try:
        return await asyncio.to_thread(validator_of, schema)
    except DependencyMissingError as error:
        missing = error
    if not needed:
        return None
    raise UnsupportedFeatureError(
        "this service takes no JSON Schema, so the answer has to be checked here, which needs "
        "the package 'jsonschema'",
        hint=missing.hint,
    )


async def _fit(answer: _Answer, validator: Validator | None) -> tuple[str, list[str]]:
    """The text to deliver, and what is wrong with it."""
    if not answer.complete:
        return answer.text, []
    return await _judged(answer.text, validator)


async def _judged(text: str, validator: Validator | None) -> tuple[str, list[str]]:
    if len(text) > _LONG_CHARACTERS:
        return await asyncio.to_thread(_judge, text, validator)
    return _judge(text, validator)


def _judge(text: str, validator: Validator | None) -> tuple[str, list[str]]:
    """The JSON in ``text``, and what is wrong with it."""
    try:
        found = json_in(text)
        value = msgspec.json.decode(found)
    except (ValueError, RecursionError) as error:
        return text, [str(error)]
    return found, [] if validator is None else validator.problems(value)


def _mismatch(
    problems: list[str], text: str, partial: LLMResponse | None = None
) -> InvalidResponseError:
    # Errors are logged and shown; what the model said is in ``partial``.
    found = without_quotes("; ".join(problems), (text,))
    return InvalidResponseError(
        f"the answer does not follow the JSON Schema: {found}",
        code="schema_mismatch",
        partial=partial,
    )


# ---- asking --------------------------------------------------------------------------------------


def _instructed(request: LLMRequest, schema: dict[str, Any], json_object: bool) -> LLMRequest:
    """The request with the schema among the instructions instead of in ``response_format``."""
    text = (
        "Answer with one JSON value that is valid against the JSON Schema below. Write nothing "
        "else: no explanation, no Markdown.\n\n" + msgspec.json.encode(schema).decode()
    )
    options = msgspec.structs.replace(
        request.options, response_format="json_object" if json_object else None
    )
    messages = _with_instruction(request.messages, text)
    return msgspec.structs.replace(request, messages=messages, options=options)


def _with_instruction(messages: tuple[LLMMessage, ...], text: str) -> tuple[LLMMessage, ...]:
    """``messages`` with ``text`` in the one system message that all chat templates accept."""
    first = messages[0]
    if first.role != "system":
        return (LLMMessage.system(text), *messages)
    if isinstance(first.content, str):
        content: Any = f"{first.content}\n\n{text}" if first.content else text
    else:
        content = (*first.content, TextPart(text=text))
    return (msgspec.structs.replace(first, content=content), *messages[1:])


def _repair(request: LLMRequest, answer: _Answer, problems: list[str]) -> LLMRequest:
    """The request for the second round: the conversation, the answer, and what is wrong with it."""
    said = answer.message()
    listed = "\n".join(f"- {problem}" for problem in problems)
    correction = LLMMessage.user(
        f"That is not valid:\n{listed}\n\nAnswer again, with valid JSON only."
    )
    messages = (*request.messages, *([said] if said else []), correction)
    return msgspec.structs.replace(request, messages=messages)
