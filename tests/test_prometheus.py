"""The text for Prometheus, read by a parser that takes nothing but format 0.0.4."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from llm_manager import EventEmitter, ModelMetrics, RequestFinished, Usage
from llm_manager.observe.prometheus import CONTENT_TYPE
from llm_manager.status import ErrorInfo

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})\{{(.*)\}} (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


class Family(NamedTuple):
    kind: str
    text: str
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """The one sample of a name that has these labels, among others."""
        found = [
            v for (n, have), v in self.samples.items() if n == name and have >= set(labels.items())
        ]
        assert len(found) == 1, (name, labels, self.samples)
        return found[0]


def parse(text: str) -> dict[str, Family]:
    """Metric families by name; an AssertionError where the text breaks a rule of the format."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    lines = iter(text.removesuffix("\n").split("\n"))
    current = ""
    for line in lines:
        if line.startswith("# HELP "):
            _, _, current, help_text = line.split(" ", 3)
            assert current not in families, "the samples of a family must stand together"
            kind_line = next(lines).split(" ")
            assert kind_line[:3] == ["#", "TYPE", current]
            assert kind_line[3] in ("counter", "gauge", "histogram")
            families[current] = Family(kind_line[3], help_text, {})
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, inside, value = match.groups()
        suffixes = ("_bucket", "_sum", "_count") if families[current].kind == "histogram" else ("",)
        assert name in [current + suffix for suffix in suffixes]
        key = (name, frozenset(labels(inside)))
        assert key not in families[current].samples, "a sample must not come twice"
        families[current].samples[key] = float(value)
    return families


def labels(inside: str) -> list[tuple[str, str]]:
    found, end = [], 0
    while end < len(inside):
        match = LABEL.match(inside, end)
        assert match, inside[end:]
        text = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], match[2])
        found.append((match[1], text))
        end = match.end()
    assert len({name for name, _ in found}) == len(found)
    return found


def metrics_of(*requests: dict[str, Any]) -> ModelMetrics:
    emitter = EventEmitter()
    metrics = ModelMetrics().attach(emitter)
    for number, facts in enumerate(requests):
        about = {"provider_id": "p", "model": "m", "kind": "openai", "operation": "chat"}
        emitter.publish(
            RequestFinished(request_id=f"r{number}", **{**about, "outcome": "ok", **facts})
        )
    return metrics


def test_counts_come_out_as_they_went_in() -> None:
    error = ErrorInfo(code="rate_limited", type="RateLimitError", message="no")
    usage = Usage(prompt_tokens=100, completion_tokens=11, cached_tokens=40, reasoning_tokens=3)
    families = parse(
        metrics_of(
            {"usage": usage, "duration_s": 3.0, "first_token_s": 1.0},
            {"cached": True},
            {"outcome": "error", "error": error},
        ).to_prometheus()
    )
    where = {"provider": "p", "model": "m", "kind": "openai"}

    def value(name: str, **more: str) -> float:
        return families[name].value(name, **where, **more)

    assert value("llm_manager_requests_total", outcome="ok") == 2
    assert value("llm_manager_requests_total", outcome="error") == 1
    assert value("llm_manager_request_errors_total", code="rate_limited") == 1
    assert value("llm_manager_cache_hits_total") == 1
    assert value("llm_manager_prompt_tokens_total") == 100
    assert value("llm_manager_cached_prompt_tokens_total") == 40
    assert value("llm_manager_completion_tokens_total") == 11
    assert value("llm_manager_reasoning_tokens_total") == 3
    assert value("llm_manager_requests_in_flight") == 0
    assert value("llm_manager_retries_total") == 0


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("llm_manager_request_duration_seconds", [0.01 * 2**i for i in range(16)]),
        ("llm_manager_time_to_first_token_seconds", [0.01 * 2**i for i in range(16)]),
        ("llm_manager_completion_tokens_per_second", [2.0**i for i in range(11)]),
    ],
)
def test_a_histogram_is_cumulative_and_ends_with_everything(name, bounds) -> None:
    usage = Usage(completion_tokens=101)
    durations = [0.02, 0.021, 3.0, 1000.0]
    family = parse(
        metrics_of(
            *({"duration_s": d, "first_token_s": d / 2, "usage": usage} for d in durations)
        ).to_prometheus()
    )[name]
    buckets = sorted(
        (float(dict(have)["le"]), count)
        for (sample, have), count in family.samples.items()
        if sample == f"{name}_bucket"
    )
    assert [bound for bound, _ in buckets] == pytest.approx([*bounds, float("inf")])
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert counts[-1] == family.value(f"{name}_count") == 4
    if name.endswith("duration_seconds"):
        assert family.value(f"{name}_sum") == pytest.approx(sum(durations))
        assert dict(buckets)[0.02] == 1
        assert dict(buckets)[0.04] == 2
        assert dict(buckets)[5.12] == 3


def test_names_have_units_counters_end_in_total_and_all_have_a_description() -> None:
    families = parse(metrics_of({}).to_prometheus())
    assert len(families) == 12
    for name, family in families.items():
        assert re.fullmatch(r"llm_manager_[a-z_]+", name)
        assert family.text.endswith(".")
        assert name.endswith("_total") == (family.kind == "counter")
        if family.kind == "histogram":
            assert name.endswith(("_seconds", "_per_second"))


@pytest.mark.parametrize(
    "model", ['say "hi"', "back\\slash", "two\nlines", "\\n", 'all\\"\n', "ünï/çødé:7b", "", "a,b}"]
)
def test_any_name_of_a_model_survives(model: str) -> None:
    families = parse(metrics_of({"model": model}).to_prometheus())
    name = "llm_manager_requests_total"
    assert families[name].value(name, model=model, outcome="ok") == 1


def test_without_requests_the_text_has_descriptions_only() -> None:
    families = parse(ModelMetrics().to_prometheus())
    assert families
    assert all(not family.samples for family in families.values())


def test_the_type_of_the_content_names_the_version_of_the_format() -> None:
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    "text",
    [
        'a{b="c"} 1\n',
        '# HELP a A.\n# TYPE a counter\na{b="c} 1\n',
        '# HELP a A.\n# TYPE a counter\na{b="c\\d"} 1\n',
        '# HELP a A.\n# TYPE a counter\na{b="c"} 1\na{b="c"} 2\n',
        '# HELP a A.\n# TYPE a counter\nb{b="c"} 1\n',
        '# HELP a A.\n# TYPE a counter\na{b="c"} one\n',
        '# HELP a A.\n# TYPE a counter\na{b="c"} 1',
    ],
)
def test_the_parser_of_these_tests_refuses_what_the_format_does_not_allow(text: str) -> None:
    with pytest.raises((AssertionError, KeyError, ValueError)):
        parse(text)
