"""What is announced of the parts of a composite's requests, and by whom: once each."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TypeAlias

from ..events import RequestFinished, RequestQueued, RequestStarted, RetryScheduled, StreamStalled
from ..provider import BaseLLMProvider

OfRequest: TypeAlias = (
    RequestStarted | RetryScheduled | RequestQueued | StreamStalled | RequestFinished
)
OF_REQUESTS = (RequestStarted, RetryScheduled, RequestQueued, StreamStalled, RequestFinished)


class Announcer:
    """Announces what one member does for requests of the composite, unless its manager does.

    Each member has its own, so that of a provider that is a member in two places, here and in
    another member, nothing is announced twice.

    Args:
        composite: announces it.
        is_ours: tells of an id whether it is that of a request of the composite.  One that has
            ended counts: with several threads, the start of its part may be heard later.
        member: whose events it hears.
    """

    def __init__(
        self,
        composite: weakref.ref[BaseLLMProvider],
        is_ours: Callable[[str], bool],
        member: BaseLLMProvider,
    ) -> None:
        self._composite = composite
        self._is_ours = is_ours
        self._member = member
        self._parts: set[str] = set()

    def hear(self, event: OfRequest) -> None:
        """Take in an event of the member, or of a member of it that it has announced."""
        if isinstance(event, RequestStarted):
            parent_id = event.parent_id
            if parent_id is None or not (parent_id in self._parts or self._is_ours(parent_id)):
                return
            self._parts.add(event.request_id)
        elif event.request_id not in self._parts:
            return
        elif isinstance(event, RequestFinished):
            self._parts.discard(event.request_id)
        composite = self._composite()
        if composite is not None and is_free(self._member):
            composite.publish(event)


def is_free(member: BaseLLMProvider) -> bool:
    """Whether no manager holds it, so that it belongs to the composite."""
    return member._relay is None
