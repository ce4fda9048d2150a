"""What `ModelMetrics` tells, as data."""

from __future__ import annotations

from datetime import datetime

from ..messages import Data
from .percentiles import Distribution

OTHER = "other"
"""Where figures go that would need one model, or one error code, too many."""


class ModelFigures(Data, frozen=True, kw_only=True):
    """What is known of one model of one provider.

    Answers that a cache gave again count as requests and as ``cache_hits``, and nowhere else.

    Attributes:
        provider_id, model: which; both ``"other"`` for all that came when there were too many.
        kind: kind of the provider; empty if that is not known.
        requests: how many have ended, by outcome (``ok``, ``error``, ``cancelled``,
            ``abandoned``).
        errors: how many failed, by code.
        retries: how often one was sent again.
        in_flight: how many run now.
        cache_hits: how many were answered from a cache.
        prompt_tokens, completion_tokens: what was read and written, estimates of answers that were
            broken off included.
        cached_tokens: the part of ``prompt_tokens`` that the service read from its own cache.
        reasoning_tokens: the part of ``completion_tokens`` that was reasoning.
        duration_s: seconds from start to end, of the requests that went well.
        first_token_s: seconds until the first piece of the answer, of all that got one.
        tokens_per_s: tokens of an answer per second, from its first piece on; over the whole
            duration if it came in one piece, or with reasoning, which may have come unseen.
    """

    provider_id: str
    model: str
    kind: str = ""
    requests: dict[str, int]
    errors: dict[str, int]
    retries: int = 0
    in_flight: int = 0
    cache_hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    duration_s: Distribution
    first_token_s: Distribution
    tokens_per_s: Distribution

    @property
    def total(self) -> int:
        """How many requests have ended."""
        return sum(self.requests.values())


class MetricsSnapshot(Data, frozen=True, kw_only=True):
    """What is known of all models.

    Attributes:
        since: when counting began, or was last reset, UTC.
        at: as of when, UTC.
        models: in the order in which they were first asked.
    """

    since: datetime
    at: datetime
    models: tuple[ModelFigures, ...]

    def of(self, provider_id: str, model: str) -> ModelFigures | None:
        """The figures of one model; None if it was never asked."""
        for figures in self.models:
            if (figures.provider_id, figures.model) == (provider_id, model):
                return figures
        return None
