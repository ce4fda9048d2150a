"""`MultiProvider`: asks several at once, and makes one answer of what they say."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import Any

from ..asking import Options
from ..checks import check_number, check_optional_number
from ..concurrency import as_finished, gather_with_concurrency
from ..errors import InvalidParameterError, LLMError
from ..messages import (
    Capability,
    Delta,
    LLMRequest,
    LLMResponse,
    Messages,
    Usage,
    UsageDelta,
)
from ..provider import BaseLLMProvider
from .base import CompositeProvider
from .combining import Answer, Combine, Combined, all_of, deltas_of, voted
from .contender import Contender
from .failures import no_answer
from .models import Ask
from .passing import stream_of
from .seats import Member

_NAMES = ("all", "first", "race", "vote")
# Of several whole texts, these cannot be made into one.
_OF_ONE_ANSWER: frozenset[Capability] = frozenset({"embeddings"})


class MultiProvider(CompositeProvider):
    """Asks all its members the same at the same time.

    Usage is the sum of all parts.  Who loses is cancelled, and its connection closed.  Members that
    fail do not matter as long as ``min_answers`` answer.

    Args:
        members: see `CompositeProvider`.
        combine: ``all`` (their texts, each under the id of its member), ``first`` (the first whole
            answer), ``race`` (the stream of whoever sends the first piece), ``vote`` (the answer
            that most give), or a function, asynchronous or not, that makes a text or a response of
            a list of responses and errors, in the order of the members.
        limit: how many are asked at the same time; None: all.
        min_answers: how many have to answer; for ``first`` and ``race`` it is 1.
        settings: ``models`` of `CompositeProvider`, and those of `BaseLLMProvider`.

    Raises:
        InvalidParameterError: an argument is wrong.
    """

    kind = "multi"
    kept_on_update = CompositeProvider.kept_on_update | {"_collected"}

    def __init__(
        self,
        members: Collection[Member] = (),
        *,
        combine: Combine = "all",
        limit: int | None = None,
        min_answers: int = 1,
        **settings: Any,
    ) -> None:
        check_optional_number("limit", limit, low=1, whole=True)
        check_number("min_answers", min_answers, low=1, whole=True)
        if not callable(combine) and combine not in _NAMES:
            raise InvalidParameterError(
                f"combine must be {', '.join(_NAMES)} or a function, got {combine!r:.60}"
            )
        self._combine, self._limit, self._min_answers = combine, limit, min_answers
        super().__init__(members, **settings)
        if min_answers > (1 if combine in ("first", "race") else len(self._members)):
            raise InvalidParameterError(
                f"min_answers is {min_answers}, and so many answers cannot come of "
                f"{len(self._members)} members with combine={combine!r:.60}"
            )
        self._collected: dict[str, list[Answer]] = {}

    async def ask_all(
        self, model: str | None, messages: Messages, options: Options = None
    ) -> list[Answer]:
        """What each member says, or its error, in their order, whatever ``combine`` is.

        Raises:
            LLMError: fewer than ``min_answers`` have answered; or as `generate_chat_completion`.
        """
        stream = self.stream_chat_completion(model, messages, options)
        answers = self._collected[stream.request_id] = []
        try:
            await stream
        finally:
            del self._collected[stream.request_id]
        return answers

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        collected = self._collected.get(request.id)
        if collected is None and self._combine in ("first", "race"):
            winner = self._first(request, whole=self._combine == "first")
        else:
            winner = self._combined(request, collected)
        async with aclosing(winner) as deltas:
            async for delta in deltas:
                yield delta

    # ---- one of them -----------------------------------------------------------------------------

    async def _first(self, request: LLMRequest, *, whole: bool) -> AsyncGenerator[Delta, None]:
        """The answer of whoever is first, with the first piece of it or with the ``whole``."""
        field = [Contender(ask) for ask in self._asks(request)]
        began_s = monotonic()
        failures: list[tuple[str, LLMError]] = []
        winner: Contender | None = None
        work = [partial(contender.run, request, began_s, whole) for contender in field]
        try:
            async with aclosing(as_finished(self._limit, work)) as finished:
                async for place, task in finished:
                    failure = task.result()
                    if failure is None:
                        winner = field[place]
                        break
                    failures.append((field[place].member.id, failure))
            losers = [contender for contender in field if contender is not winner]
            for loser in losers:
                await loser.leave()
            if winner is None:
                raise no_answer(failures, self.id)
            spent = _sum([loser.usage for loser in losers])
            async with aclosing(winner.answer()) as deltas:
                async for delta in deltas:
                    yield _with(spent, delta) if type(delta) is UsageDelta else delta
        finally:
            for contender in field:
                await contender.leave()

    # ---- all of them -----------------------------------------------------------------------------

    async def _combined(
        self, request: LLMRequest, collected: list[Answer] | None
    ) -> AsyncGenerator[Delta, None]:
        asks = self._asks(request)
        needed = 1 if self._addressed(request.model) else self._min_answers
        if len(asks) < needed:
            raise InvalidParameterError(
                f"only {len(asks)} members have the model {request.model!r}, and {needed} have to "
                "answer",
                provider_id=self.id,
                hint="give models={member: model}, or another min_answers",
            )
        answers = await self._answers(asks, request)
        responses = [answer for answer in answers if isinstance(answer, LLMResponse)]
        failures = [(a.provider_id or "", a) for a in answers if isinstance(a, LLMError)]
        if len(responses) < needed:
            what = f"{len(responses)} of {needed} members that are needed have answered"
            raise no_answer(failures, self.id, what=what)
        if collected is not None:
            collected += answers
        combined = all_of(answers) if collected is not None else await self._made_of(answers)
        for delta in deltas_of(combined):
            yield delta
        usage = _sum([response.usage for response in responses])
        if usage is not None:
            yield UsageDelta(usage)

    async def _answers(self, asks: list[Ask], request: LLMRequest) -> list[Answer]:
        began_s = monotonic()

        async def answer(ask: Ask) -> Answer:
            try:
                return await stream_of(ask.member, ask.model, request, began_s)
            except LLMError as error:
                return error.in_context(provider_id=ask.member.id)

        return await gather_with_concurrency(self._limit, [partial(answer, ask) for ask in asks])

    async def _made_of(self, answers: list[Answer]) -> Combined:
        if not callable(self._combine):
            return voted(answers) if self._combine == "vote" else all_of(answers)
        outcome = self._combine(answers)
        combined = await outcome if inspect.isawaitable(outcome) else outcome
        if not isinstance(combined, str | LLMResponse):
            raise InvalidParameterError(
                f"combine must return a text or a response, and returned {combined!r:.60}",
                provider_id=self.id,
            )
        return combined

    def _needed(self) -> tuple[Sequence[BaseLLMProvider], int]:
        return self._members, self._min_answers

    def _common_capabilities(self) -> frozenset[Capability]:
        able = super()._common_capabilities()
        if self._combine in ("first", "race"):
            return able
        return able - _OF_ONE_ANSWER - ({"tools"} if self._combine == "all" else set())


def _sum(usages: Iterable[Usage | None]) -> Usage | None:
    known = [usage for usage in usages if usage is not None]
    return sum(known[1:], known[0]) if known else None


def _with(spent: Usage | None, delta: UsageDelta) -> UsageDelta:
    return delta if spent is None else UsageDelta(delta.usage + spent)
