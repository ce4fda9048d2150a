"""The sums that `CostTracker` keeps: by model, by conversation, by day."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, date, datetime
from typing import NamedTuple, TypeVar

from ..messages import Usage
from ..prices import Cost, as_picodollars, as_usd
from .cost_figures import CostFigures, CostSnapshot, ModelCost
from .figures import OTHER

K = TypeVar("K")


class EndedRequest(NamedTuple):
    """What is needed of a request to count it."""

    provider_id: str
    kind: str
    model: str
    response_model: str
    conversation_id: str | None
    usage: Usage | None
    at: datetime
    cached: bool


class Sum:
    """A sum while it grows; money in picodollars, in which it is exact."""

    __slots__ = (
        "cached_requests", "cached_tokens", "completion_tokens", "estimated_requests", "kind",
        "picodollars", "prompt_tokens", "reasoning_tokens", "requests", "saved_picodollars",
        "unknown_requests",
    )  # fmt: skip

    def __init__(self, kind: str = "") -> None:
        self.kind = kind
        self.requests = self.unknown_requests = self.estimated_requests = self.cached_requests = 0
        self.picodollars = self.saved_picodollars = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.cached_tokens = self.reasoning_tokens = 0

    def add(self, usage: Usage | None, picodollars: int | None) -> None:
        """Count a request; None: nobody knows what it took, or what that costs."""
        self.requests += 1
        if picodollars is None:
            self.unknown_requests += 1
        else:
            self.picodollars += picodollars
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
            self.cached_tokens += usage.cached_tokens
            self.reasoning_tokens += usage.reasoning_tokens
            if usage.estimated and picodollars is not None:
                self.estimated_requests += 1

    def add_saved(self, picodollars: int | None) -> None:
        """Count a request that a cache answered."""
        self.requests += 1
        self.cached_requests += 1
        self.saved_picodollars += picodollars or 0

    def add_all(self, other: Sum) -> None:
        """Count all that ``other`` has counted."""
        for name in self.__slots__:
            if name != "kind":
                setattr(self, name, getattr(self, name) + getattr(other, name))

    def figures(self) -> CostFigures:
        """The sum as it is now."""
        return CostFigures(
            usd=as_usd(self.picodollars),
            requests=self.requests,
            unknown_requests=self.unknown_requests,
            estimated_requests=self.estimated_requests,
            cached_requests=self.cached_requests,
            saved_usd=as_usd(self.saved_picodollars),
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
            reasoning_tokens=self.reasoning_tokens,
        )


class Sums:
    """All sums of a tracker; so many of each kind at most."""

    def __init__(self, max_models: int, max_conversations: int, max_days: int) -> None:
        self._max_models = max_models
        self._max_conversations = max_conversations
        self._max_days = max_days
        self._models: dict[tuple[str, str], Sum] = {}
        self._conversations: OrderedDict[str, Sum] = OrderedDict()
        self._days: OrderedDict[date, Sum] = OrderedDict()

    @property
    def total(self) -> Sum:
        """Everything: each request belongs to one model."""
        total = Sum()
        for of_model in self._models.values():
            total.add_all(of_model)
        return total

    def add(self, request: EndedRequest, cost: Cost | None) -> None:
        """Count a request; ``cost`` None: it is not known."""
        picodollars = None if cost is None else as_picodollars(cost.usd)
        sums = [self._of_model(request), self._of_day(request.at)]
        if request.conversation_id is not None:
            sums.append(_latest(self._conversations, request.conversation_id))
            if len(self._conversations) > self._max_conversations:
                self._conversations.popitem(last=False)
        if request.cached:
            for each in sums:
                each.add_saved(picodollars)
        else:
            for each in sums:
                each.add(request.usage, picodollars)

    def clear(self) -> None:
        """Begin at 0."""
        self._models.clear()
        self._conversations.clear()
        self._days.clear()

    def snapshot(self, since: datetime, pending_requests: int) -> CostSnapshot:
        """Everything that is known now."""
        providers: dict[str, Sum] = {}
        for (provider_id, _), of_model in self._models.items():
            providers.setdefault(provider_id, Sum()).add_all(of_model)
        return CostSnapshot(
            since=since,
            at=datetime.now(UTC),
            total=self.total.figures(),
            models=tuple(
                ModelCost(provider_id=provider_id, model=model, kind=s.kind, figures=s.figures())
                for (provider_id, model), s in self._models.items()
            ),
            providers={key: s.figures() for key, s in providers.items()},
            conversations={key: s.figures() for key, s in self._conversations.items()},
            days={key: s.figures() for key, s in sorted(self._days.items())},
            pending_requests=pending_requests,
        )

    def _of_model(self, request: EndedRequest) -> Sum:
        key = (request.provider_id, request.model)
        found = self._models.get(key)
        if found is None:
            kind = request.kind
            if len(self._models) >= self._max_models:
                key, kind = (OTHER, OTHER), ""
            found = self._models.setdefault(key, Sum(kind))
        return found

    def _of_day(self, at: datetime) -> Sum:
        day = at.date()
        found = self._days.get(day)
        if found is None:
            found = self._days[day] = Sum()
            if len(self._days) > self._max_days:
                del self._days[min(self._days)]
        return found


def _latest(sums: OrderedDict[K, Sum], key: K) -> Sum:
    """The sum under ``key``, which becomes the latest one."""
    found = sums.get(key)
    if found is None:
        found = sums[key] = Sum()
    else:
        sums.move_to_end(key)
    return found
