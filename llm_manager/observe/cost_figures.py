"""What `CostTracker` tells, as data."""

from __future__ import annotations

from datetime import date, datetime

from ..messages import Data


class CostFigures(Data, frozen=True, kw_only=True):
    """What some requests cost together.

    Attributes:
        usd: US dollars, of those whose cost is known.
        requests: how many there were; those from a cache and of unknown cost included.
        unknown_requests: how many of them are not in ``usd``, because nobody knows their cost.
        estimated_requests: how many are in ``usd`` by estimated tokens.
        cached_requests: how many a cache answered, which cost nothing.
        saved_usd: what those would have cost, as far as that is known.
        prompt_tokens, completion_tokens: of all but those from a cache.
        cached_tokens: the part of ``prompt_tokens`` that the service read from its own cache.
        reasoning_tokens: the part of ``completion_tokens`` that was reasoning.
    """

    usd: float = 0.0
    requests: int = 0
    unknown_requests: int = 0
    estimated_requests: int = 0
    cached_requests: int = 0
    saved_usd: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class ModelCost(Data, frozen=True, kw_only=True):
    """What one model of one provider cost; both are ``"other"`` for all that came too late."""

    provider_id: str
    model: str
    kind: str
    figures: CostFigures


class CostSnapshot(Data, frozen=True, kw_only=True):
    """What everything cost.

    Attributes:
        since, at: from when to when, UTC.
        total: all of it.
        models: by provider and model.
        providers: by id of the provider.
        conversations: by ``conversation_id``, the latest ones.
        days: by day of UTC, the latest ones.
        pending_requests: how many are in none of these, because the prices are being loaded.
    """

    since: datetime
    at: datetime
    total: CostFigures
    models: tuple[ModelCost, ...]
    providers: dict[str, CostFigures]
    conversations: dict[str, CostFigures]
    days: dict[date, CostFigures]
    pending_requests: int = 0
