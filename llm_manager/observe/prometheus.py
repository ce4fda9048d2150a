"""Metrics as the text that Prometheus reads (exposition format 0.0.4).

There is no server here: hand the text out under an address of your own, with `CONTENT_TYPE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from .figures import MetricsSnapshot, ModelFigures
from .percentiles import Distribution

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Values: TypeAlias = Callable[[ModelFigures], Mapping[str, int]]
_Value: TypeAlias = Callable[[ModelFigures], int]
_Measured: TypeAlias = Callable[[ModelFigures], Distribution]

# Name, text, the label that tells the values apart, and the values.
_BY_LABEL: tuple[tuple[str, str, str, _Values], ...] = (
    ("requests_total", "Requests that have ended.", "outcome", lambda f: f.requests),
    ("request_errors_total", "Requests that failed.", "code", lambda f: f.errors),
)
_SINGLE: tuple[tuple[str, str, str, _Value], ...] = (
    ("retries_total", "counter", "Times that a request was sent again.", lambda f: f.retries),
    ("requests_in_flight", "gauge", "Requests that run now.", lambda f: f.in_flight),
    (
        "cache_hits_total",
        "counter",
        "Requests that were answered from a cache of answers.",
        lambda f: f.cache_hits,
    ),
    ("prompt_tokens_total", "counter", "Tokens read.", lambda f: f.prompt_tokens),
    (
        "cached_prompt_tokens_total",
        "counter",
        "Tokens read that the service had in its prompt cache.",
        lambda f: f.cached_tokens,
    ),
    ("completion_tokens_total", "counter", "Tokens written.", lambda f: f.completion_tokens),
    (
        "reasoning_tokens_total",
        "counter",
        "Tokens written that were reasoning.",
        lambda f: f.reasoning_tokens,
    ),
)
_MEASURED: tuple[tuple[str, str, _Measured], ...] = (
    (
        "request_duration_seconds",
        "Duration of the requests that went well.",
        lambda f: f.duration_s,
    ),
    (
        "time_to_first_token_seconds",
        "Time until the first piece of an answer.",
        lambda f: f.first_token_s,
    ),
    (
        "completion_tokens_per_second",
        "Speed of an answer, in tokens per second.",
        lambda f: f.tokens_per_s,
    ),
)


def exposition(snapshot: MetricsSnapshot) -> str:
    """``snapshot`` as text; every name begins with ``llm_manager_``."""
    lines = [line for family in _families(snapshot.models) for line in family]
    return "".join(f"{line}\n" for line in lines)


def _families(models: tuple[ModelFigures, ...]) -> Iterator[Iterable[str]]:
    for name, text, label, values in _BY_LABEL:
        yield _head(name, "counter", text)
        for figures in models:
            labels = _labels_of(figures)
            yield [
                _sample(name, {**labels, label: key}, count)
                for key, count in values(figures).items()
            ]
    for name, kind, text, value in _SINGLE:
        yield _head(name, kind, text)
        yield [_sample(name, _labels_of(figures), value(figures)) for figures in models]
    for name, text, measured in _MEASURED:
        yield _head(name, "histogram", text)
        for figures in models:
            yield _histogram(name, _labels_of(figures), measured(figures))


def _labels_of(figures: ModelFigures) -> dict[str, str]:
    return {"provider": figures.provider_id, "kind": figures.kind, "model": figures.model}


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP llm_manager_{name} {text}", f"# TYPE llm_manager_{name} {kind}"


def _histogram(name: str, labels: Mapping[str, str], values: Distribution) -> Iterator[str]:
    for bound, count in (*values.buckets, (math.inf, values.count)):
        yield _sample(f"{name}_bucket", {**labels, "le": _number(bound)}, count)
    yield _sample(f"{name}_sum", labels, values.total)
    yield _sample(f"{name}_count", labels, values.count)


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"llm_manager_{name}{{{inside}}} {_number(value)}"


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(value)


def _escaped(text: str) -> str:
    """A label's value: backslash, quote and line feed are what the format knows to escape."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
