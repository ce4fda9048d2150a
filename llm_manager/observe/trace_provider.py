"""`TraceProvider`: what a tracing library has to offer so that `Tracing` can report to it.

Anything with these methods will do.  `OpenTelemetryTraceProvider` is one, `InMemoryTraceProvider`
another; neither is known to the code that reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from ..errors import InvalidParameterError

Attribute: TypeAlias = str | bool | int | float | Sequence[str]
Attributes: TypeAlias = Mapping[str, Attribute]
SpanKind: TypeAlias = Literal["client", "internal"]


class Metric(msgspec.Struct, frozen=True):
    """A histogram that values are recorded for.

    Attributes:
        name: e.g. ``"gen_ai.client.token.usage"``.
        unit: in UCUM, e.g. ``"s"``.
        description: what is measured, for people.
        buckets: upper bounds of the buckets, ascending.
    """

    name: str
    unit: str
    description: str
    buckets: tuple[float, ...]


class TraceSpan(Protocol):
    """Something that lasts: it begins when it is made, and `end` is called once."""

    @property
    def recording(self) -> bool:
        """Whether anybody will see it; otherwise nothing costly is worked out for it."""

    def set_attributes(self, attributes: Attributes) -> None:
        """Say more about it."""

    def add_event(self, name: str, attributes: Attributes) -> None:
        """Something happened in between, now."""

    def set_error(self, error_type: str, message: str | None) -> None:
        """It failed: a stable word for programs, and a text for people if one may be told."""

    def end(self) -> None:
        """It is over, now.  Nothing is said about it afterwards."""


@runtime_checkable
class TraceProvider(Protocol):
    """Where spans and measurements go.

    Called on event loops and on several threads, for every request: the methods must be quick,
    must not block and must not raise.
    """

    def start_span(
        self,
        name: str,
        attributes: Attributes,
        *,
        kind: SpanKind = "client",
        parent: TraceSpan | None = None,
        start_time_ns: int | None = None,
    ) -> TraceSpan:
        """Begin a span.

        Args:
            name: what is done, e.g. ``"chat gpt-5"``.
            attributes: what is known about it by now.
            kind: ``client`` for a call of another program, else ``internal``.
            parent: what it is a part of; None: the span that is current where this is called.
            start_time_ns: when it began, in nanoseconds since 1970; None: now.
        """

    def use(self, span: TraceSpan) -> AbstractContextManager[object]:
        """Make ``span`` the current one inside a ``with`` block, for what is traced in there."""

    def record(self, metric: Metric, value: float, attributes: Attributes) -> None:
        """Take in one measured value; ``attributes`` are shared and must not be changed."""


def check_trace_provider(given: object) -> None:
    """Refuse what is no `TraceProvider`.

    Raises:
        InvalidParameterError: it lacks a method, or is a class.
    """
    if isinstance(given, TraceProvider) and not isinstance(given, type):
        return
    hint = "give an object with start_span(), use() and record()"
    if hasattr(given, "get_tracer"):
        hint = "use OpenTelemetryTraceProvider(tracer_provider)"
    raise InvalidParameterError(f"{given!r:.60} is no TraceProvider", hint=hint)
