"""Events, models and states as words for people.  Pure functions; no terminal, no rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from llm_manager import (
    ActiveProviderChanged,
    BaseLLMProvider,
    ErrorInfo,
    ErrorOccurred,
    Event,
    HealthCheck,
    ListenerFailed,
    LLMModelInfo,
    LLMProviderStatus,
    ModelChanged,
    ModelLoaded,
    ModelLoadProgress,
    ModelsChanged,
    ModelUnloaded,
    ProviderAdded,
    ProviderRemoved,
    ProviderSnapshot,
    ReconnectScheduled,
    RequestFinished,
    RequestStarted,
    RetryScheduled,
    StatusChanged,
)

from .output import Output, one_line
from .session import hint_text

EVENT_NAMES = tuple(kind.name for kind in Event.__subclasses__())
"""Everything that can be listened to."""

STYLE_OF_STATUS = {
    "connected": "green",
    "degraded": "yellow",
    "connecting": "yellow",
    "reconnecting": "yellow",
    "failed": "red",
    "draining": "yellow",
    "disconnected": "dim",
    "closed": "dim",
}

# States that only a person can change, and those that a person may want to know about.
TROUBLED = ("failed", "reconnecting", "degraded")


class Symbols(NamedTuple):
    """The characters to draw with."""

    arrow: str
    dot: str
    good: str
    bad: str
    unknown: str


_UNICODE = Symbols(arrow="→", dot="●", good="✓", bad="✗", unknown="–")
_ASCII = Symbols(arrow="->", dot="*", good="ok", bad="!!", unknown="-")


def symbols(output: Output) -> Symbols:
    """The characters that stdout can show."""
    return _UNICODE if output.can_show("".join(_UNICODE)) else _ASCII


def described(event: Event, arrow: str = "->") -> str | None:
    """What an event says, in one line; None if another event says it better."""
    match event:
        case StatusChanged():
            return _status_change(event, arrow)
        case ReconnectScheduled():
            return f"attempt {event.attempt} in {seconds(event.delay_s)} ({event.reason})"
        case RetryScheduled():
            return (
                f"retrying in {seconds(event.wait_s)} ({event.attempt + 1} of {event.of}): "
                f"{event.error.message}"
            )
        case ModelsChanged():
            return _models_change(event)
        case ModelChanged():
            return f"{event.previous or 'none'} {arrow} {event.current or 'none'}"
        case ModelLoadProgress():
            done = "" if event.fraction is None else f" {event.fraction:.0%}"
            return f"{event.model}: {event.phase}{done}" if event.model else event.phase
        case ModelLoaded():
            return f"{event.model} is {'in memory' if event.phase == 'loaded' else 'on disk'}"
        case ModelUnloaded():
            return f"{event.model} has left memory"
        case HealthCheck():
            return _health(event)
        case RequestStarted():
            return f"{event.request_id} to {event.model}"
        case RequestFinished():
            return _finished(event)
        case ErrorOccurred():
            return f"{event.operation or 'background'}: {event.error.message}"
        case ListenerFailed():
            return f"{event.listener} failed on {event.event}: {event.error.message}"
        case ProviderAdded():
            return "registered"
        case ProviderRemoved():
            return "unregistered"
        case ActiveProviderChanged():
            return f"{event.previous or 'none'} {arrow} {event.current or 'none'} ({event.reason})"
    return event.name


def _status_change(event: StatusChanged, arrow: str) -> str | None:
    before, now = event.previous, event.current
    if event.replayed:
        return f"{now.status} ({now.reason})"
    if before.status is not now.status:
        return f"{before.status} {arrow} {now.status} ({now.reason})"
    if (before.reason, before.error) != (now.reason, now.error):
        return f"{now.status}: {now.error.message if now.error else now.reason}"
    # Attempts and model lists have events of their own.
    return None


def _models_change(event: ModelsChanged) -> str:
    changes = [
        f"{len(models)} {word}: {shortened(models)}"
        for word, models in (
            ("added", event.added),
            ("removed", event.removed),
            ("changed", event.changed),
        )
        if models
    ]
    return "; ".join(changes) or ("the list is stale" if event.stale else "the list is fresh again")


def _health(event: HealthCheck) -> str | None:
    if event.phase == "started":
        return None
    if event.error is not None:
        return f"probe failed: {event.error.message}"
    return f"probe succeeded in {milliseconds(event.latency_ms)}"


def _finished(event: RequestFinished) -> str:
    facts = [event.outcome, f"{event.duration_s:.2f} s"]
    if event.attempts > 1:
        facts.append(f"{event.attempts} attempts")
    if event.usage is not None:
        facts.append(f"{event.usage.total_tokens} tokens")
    if event.error is not None and event.outcome == "error":
        facts.append(event.error.message)
    return ", ".join(facts)


# ---- states --------------------------------------------------------------------------------------


def status_row(provider: ProviderSnapshot) -> tuple[str, str, str, str, str]:
    """Id, status, reason, models and latency of a provider."""
    state = provider.status
    return (
        provider.id,
        str(state.status),
        reason(state),
        str(len(provider.models)) if provider.models else "-",
        milliseconds(state.latency_ms),
    )


STATUS_COLUMNS = ("provider", "status", "reason", "models", "latency")


def reason(state: LLMProviderStatus, now: datetime | None = None) -> str:
    """Why a provider has its status, and when that will change by itself."""
    until = state.retry_at or state.cooldown_until
    if until is None or state.status not in TROUBLED:
        return str(state.reason)
    left_s = (until - (now or datetime.now(UTC))).total_seconds()
    what = "next try" if state.retry_at else "again"
    return f"{state.reason}, {what} {f'in {seconds(left_s)}' if left_s > 0.05 else 'now'}"


def trouble(provider: ProviderSnapshot) -> tuple[str, str | None] | None:
    """What is wrong with a provider and what to do about it, or None."""
    state = provider.status
    if state.status not in TROUBLED:
        return None
    if state.error is not None:
        return f"{provider.id}: {_brief(state.error)}", hint_text(state.error.hint)
    return f"{provider.id}: {state.reason}", None


def _brief(error: ErrorInfo) -> str:
    return one_line(error.message)[:300] or error.code


# ---- models --------------------------------------------------------------------------------------

_SHORT = {"json_object": "json", "json_schema": "json"}
MODEL_COLUMNS = ("model", "context", "can", "size", "loaded", "source")


def model_row(model: LLMModelInfo, *, with_provider: bool) -> tuple[str, str, str, str, str, str]:
    """Name, context window, capabilities, size, whether it is loaded, and who says so."""
    words = {_SHORT.get(word, word) for word in model.capabilities or ()} - {"chat", "completion"}
    can = "-" if model.capabilities is None else ", ".join(sorted(words)) or "chat"
    size = [model.parameters, model.quantization, _bytes(model.size_bytes)]
    return (
        f"{model.provider_id}/{model.id}" if with_provider else model.id,
        tokens(model.context_window_tokens),
        can,
        " ".join(part for part in size if part) or "-",
        {True: "yes", False: "no", None: "-"}[model.loaded],
        ", ".join(sorted({source for _, source in model.sources})) or "-",
    )


def first_chat_model(provider: BaseLLMProvider) -> str | None:
    """The model to use where none is named: the active one, else the first that can chat."""
    if provider.active_model is not None:
        return provider.active_model
    for model in provider.known_models:
        if model.capabilities is None or "chat" in model.capabilities:
            return model.id
    return None


def tokens(count: int | None) -> str:
    """A context window as people write it: 8k, 128k, 1M."""
    if count is None:
        return "-"
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if count >= size:
            binary = {"k": 1_024, "M": 1_048_576}[unit]
            number = count / (binary if count % 1_024 == 0 else size)
            return f"{number:.3g}{unit}"
    return str(count)


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


# ---- small things --------------------------------------------------------------------------------


def seconds(value_s: float) -> str:
    """A duration: 0.4 s, 12 s, 3 min."""
    if value_s < 9.95:
        return f"{max(value_s, 0):.1f} s"
    return f"{value_s:.0f} s" if value_s < 99.5 else f"{value_s / 60:.0f} min"


def milliseconds(value_ms: float | None) -> str:
    """A latency: 0.3 ms, 12 ms, 1.2 s."""
    if value_ms is None:
        return "-"
    if value_ms < 9.95:
        return f"{value_ms:.1f} ms"
    return f"{value_ms:.0f} ms" if value_ms < 999.5 else f"{value_ms / 1000:.1f} s"


def counted(count: int, noun: str) -> str:
    """A number of things: 1 model, 3 models."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shortened(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def aligned(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table for pipes: plain text, two spaces between the columns, nothing cut off."""
    table = [tuple(columns), *(tuple(one_line(cell) for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
