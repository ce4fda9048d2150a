"""What `Tracing` tells of a request when it has ended.

Whether people's words are told is decided here, in one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..events import RequestFinished
from ..messages import Delta
from .genai import add_request, response_attributes
from .genai_content import Content
from .trace_provider import Attribute, TraceSpan
from .tracing_stage import RunningRequest


class Report:
    """Describes spans.

    Args:
        content_limit_characters: how much text one attribute may hold; None: no text is told.

    Attributes:
        tells_content: whether what was said is told.
    """

    def __init__(self, content_limit_characters: int | None) -> None:
        self._limit = content_limit_characters
        self.tells_content = content_limit_characters is not None

    def content(self, secrets: Iterable[str] = ()) -> Content | None:
        """What makes texts fit to be told; None if they must not be."""
        return None if self._limit is None else Content(self._limit, secrets)

    def message(self, text: str | None) -> str | None:
        """The text of an error, which may quote what was said."""
        content = self.content()
        return None if content is None or text is None else content.text(text)

    def describe(
        self, span: TraceSpan, event: RequestFinished, running: RunningRequest | None
    ) -> None:
        """Tell all that is known about a request; ``running`` is None if it never ran."""
        attributes = response_attributes(event)
        if running is not None:
            add_request(attributes, running.request)
            if running.deltas is not None:
                self._add_content(attributes, event, running, running.deltas)
        span.set_attributes(attributes)
        if event.error is not None and event.outcome == "error":
            span.set_error(event.error.code, self.message(event.error.message))

    def _add_content(
        self,
        attributes: dict[str, Attribute],
        event: RequestFinished,
        running: RunningRequest,
        deltas: Sequence[Delta],
    ) -> None:
        content = self.content(_secrets(running))
        if content is not None:
            attributes.update(content.of_request(running.request))
            attributes.update(content.of_answer(deltas, event.finish_reason or event.outcome))


def _secrets(running: RunningRequest) -> Iterable[str]:
    return () if running.provider is None else running.provider._all_secrets()
