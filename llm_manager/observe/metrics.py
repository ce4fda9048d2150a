"""`ModelMetrics`: how fast and how well models answer, from the events of their requests.

It counts and measures; it keeps no prompt, no answer and no single request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import copy
from datetime import UTC, datetime
from typing import ClassVar

from ..checks import YEAR_S, check_number, check_type
from ..emitter import EventEmitter
from ..events import RequestFinished, RequestStarted, RetryScheduled
from ..listening import Attachable
from ..messages import Usage
from .figures import OTHER, MetricsSnapshot, ModelFigures
from .percentiles import LogHistogram
from .prometheus import exposition

_Key = tuple[str, str]
_OVERFLOW: _Key = (OTHER, OTHER)
_CODES_LIMIT = 50
# Less than this between the first piece and the end is no stream of tokens.
_ONE_PIECE_S = 0.001


class ModelMetrics(Attachable):
    """Latency, time to first token, speed, errors, retries and tokens of each model.

    ::

        metrics = ModelMetrics().attach(manager)
        ...
        for figures in metrics.snapshot().models:
            print(figures.model, figures.total, figures.duration_s.p95)

    Requests to a provider that passes them on to others are not counted; those others' are.  All
    of it takes about 20 KiB for a model, however many requests there are.

    Args:
        max_models: how many models, each of one provider, are told apart; what comes for later ones
            is counted under provider ``"other"``, model ``"other"``.

    Raises:
        InvalidParameterError: ``max_models`` is not a whole number above 0.
    """

    listens_to: ClassVar[Mapping[str, str]] = {
        "requestStarted": "_started",
        "retryScheduled": "_retried",
        "requestFinished": "_finished",
    }
    batch = 64

    def __init__(self, *, max_models: int = 100) -> None:
        super().__init__()
        check_number("max_models", max_models, low=1, whole=True)
        self._max_models = max_models
        self._series: dict[_Key, _Series] = {}
        self._running: dict[str, _Series] = {}
        self._since = datetime.now(UTC)

    def snapshot(self) -> MetricsSnapshot:
        """Everything that is known now."""
        self.catch_up()
        with self._lock:
            copies = [(key, series.copy()) for key, series in self._series.items()]
            running = Counter(series.key for series in self._running.values())
            since = self._since
        return MetricsSnapshot(
            since=since,
            at=datetime.now(UTC),
            models=tuple(series.figures(key, running[key]) for key, series in copies),
        )

    def to_prometheus(self) -> str:
        """Everything that is known now, as the text that Prometheus reads (format 0.0.4).

        Serve it as ``llm_manager.observe.prometheus.CONTENT_TYPE``.
        """
        return exposition(self.snapshot())

    def record_generation(
        self, provider: str, latency_s: float, tokens: int, success: bool = True, *, model: str = ""
    ) -> None:
        """Count a request that no event tells of, because it was made elsewhere.

        Args:
            provider: whose.
            latency_s: how long it took, in seconds.
            tokens: how many tokens the answer has.
            success: whether it went well.
            model: of which model.

        Raises:
            InvalidParameterError: a value cannot be.
        """
        check_type("provider", provider, str)
        check_type("model", model, str)
        check_type("success", success, bool)
        check_number("latency_s", latency_s, low=0, high=YEAR_S)
        check_number("tokens", tokens, low=0, whole=True)
        with self._lock:
            series = self._series_of((provider, model), "")
            series.add_request("ok" if success else "error")
            series.completion_tokens += tokens
            if success:
                series.duration_s.add(latency_s)
                if tokens and latency_s:
                    series.tokens_per_s.add(tokens / latency_s)
            else:
                series.add_error("unknown")

    def reset(self) -> None:
        """Begin to count anew; what runs now is still known to run."""
        self.catch_up()
        with self._lock:
            self._series.clear()
            for request_id, series in self._running.items():
                self._running[request_id] = self._series_of(series.key, series.kind)
            self._since = datetime.now(UTC)

    # ---- events ----------------------------------------------------------------------------------

    def _started(self, event: RequestStarted) -> None:
        if event.composite:
            return
        with self._lock:
            key = (event.provider_id, event.model)
            self._running[event.request_id] = self._series_of(key, event.kind)

    def _retried(self, event: RetryScheduled) -> None:
        with self._lock:
            series = self._running.get(event.request_id)
            if series is not None:
                series.retries += 1

    def _finished(self, event: RequestFinished) -> None:
        if event.composite:
            return
        with self._lock:
            series = self._running.pop(event.request_id, None)
            if series is None:  # it began before this was attached
                series = self._series_of((event.provider_id, event.model), event.kind)
            series.add(event)

    def _after_detaching(self, emitter: EventEmitter) -> None:
        with self._lock:
            self._running.clear()

    # ---- inside ----------------------------------------------------------------------------------

    def _after_fork(self) -> None:
        super()._after_fork()
        self._running.clear()  # they go on in the parent

    def _series_of(self, key: _Key, kind: str) -> _Series:
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= self._max_models:
                key, kind = _OVERFLOW, ""
            series = self._series.setdefault(key, _Series(key, kind))
        return series


class _Series:
    """The figures of one model while they grow."""

    def __init__(self, key: _Key, kind: str) -> None:
        self.key = key
        self.kind = kind
        self.requests: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.retries = self.cache_hits = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.cached_tokens = self.reasoning_tokens = 0
        self.duration_s = LogHistogram(unit=0.01, doublings=15)
        self.first_token_s = LogHistogram(unit=0.01, doublings=15)
        self.tokens_per_s = LogHistogram(unit=1.0, doublings=10)

    def add(self, event: RequestFinished) -> None:
        self.add_request(event.outcome)
        if event.cached:
            self.cache_hits += 1
            return
        # A request that was cancelled has an error, too, but did not fail.
        if event.outcome == "error" and event.error is not None:
            self.add_error(event.error.code)
        first_token_s, usage = event.first_token_s, event.usage
        if event.outcome == "ok":
            self.duration_s.add(event.duration_s)
        if first_token_s is not None:
            self.first_token_s.add(first_token_s)
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
            self.cached_tokens += usage.cached_tokens
            self.reasoning_tokens += usage.reasoning_tokens
            if event.outcome == "ok" and first_token_s is not None:
                self._add_speed(usage, event.duration_s, first_token_s)

    def add_request(self, outcome: str) -> None:
        self.requests[outcome] = self.requests.get(outcome, 0) + 1

    def add_error(self, code: str) -> None:
        if code not in self.errors and len(self.errors) >= _CODES_LIMIT:
            code = OTHER
        self.errors[code] = self.errors.get(code, 0) + 1

    def _add_speed(self, usage: Usage, duration_s: float, first_token_s: float) -> None:
        tokens, answering_s = usage.completion_tokens - 1, duration_s - first_token_s
        if answering_s < _ONE_PIECE_S or usage.reasoning_tokens:
            tokens, answering_s = usage.completion_tokens, duration_s
        if tokens > 0 and answering_s > 0:
            self.tokens_per_s.add(tokens / answering_s)

    def copy(self) -> _Series:
        """The same, to be looked at while this one goes on."""
        other = copy(self)
        other.requests, other.errors = dict(self.requests), dict(self.errors)
        other.duration_s = self.duration_s.copy()
        other.first_token_s = self.first_token_s.copy()
        other.tokens_per_s = self.tokens_per_s.copy()
        return other

    def figures(self, key: _Key, in_flight: int) -> ModelFigures:
        provider_id, model = key
        return ModelFigures(
            provider_id=provider_id,
            model=model,
            kind=self.kind,
            requests=self.requests,
            errors=self.errors,
            retries=self.retries,
            in_flight=in_flight,
            cache_hits=self.cache_hits,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
            reasoning_tokens=self.reasoning_tokens,
            duration_s=self.duration_s.distribution(),
            first_token_s=self.first_token_s.distribution(),
            tokens_per_s=self.tokens_per_s.distribution(),
        )
