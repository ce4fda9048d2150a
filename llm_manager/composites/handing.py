"""Policies of a composite around its members, for what it passes on to them and nothing else."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Callable, Iterable

from ..messages import Delta, LLMRequest
from ..policy import Exchange, Host, Stage
from ..provider import BaseLLMProvider
from .announcing import is_free

ParentOf = Callable[[str], LLMRequest | None]


class HandedOn:
    """One policy of a composite, around one member.

    Args:
        stage: the policy; or one that the composite was handed itself, by another that it is a
            member of.
        parent_of: the request of the composite with an id, while it runs.
        member: whose requests it is put around.
    """

    around_parts = True

    def __init__(self, stage: Stage, parent_of: ParentOf, member: BaseLLMProvider) -> None:
        self.stage = stage
        self.core: Stage = stage.core if isinstance(stage, HandedOn) else stage
        self.only_announced = getattr(self.core, "only_announced", False)
        self.outermost = getattr(self.core, "outermost", False)
        self._parent_of = parent_of
        self._member = weakref.ref(member)

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        wrapped = self.core.wrap(exchange, host)
        if wrapped is exchange:
            return exchange

        def chosen(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            return (wrapped if self._holds(request) else exchange)(request)

        return chosen

    def is_part(self, request: LLMRequest) -> bool:
        """Whether ``request`` comes from the composite that has the policy, however far above."""
        parent = None if request.parent_id is None else self._parent_of(request.parent_id)
        if parent is None:
            return False
        return not isinstance(self.stage, HandedOn) or self.stage.is_part(parent)

    def _holds(self, request: LLMRequest) -> bool:
        # Looked at for each request: a manager may have put the same policy around all, or not yet.
        member = self._member()
        if member is None or (self.only_announced and not is_free(member)):
            return False
        own = (*member._added, *member._policies)
        return not _has(own, self.core) and self.is_part(request)


def handed_on(
    stages: Iterable[Stage], parent_of: ParentOf, member: BaseLLMProvider, *, announced: bool
) -> list[HandedOn]:
    """What a composite with these policies puts around ``member``.

    Args:
        announced: whether the composite announces what the member does for it.
    """
    wanted = [stage for stage in stages if getattr(stage, "around_parts", False)]
    # Its own holds for all that it passes on, also for what another has passed on to it.
    own = [stage for stage in wanted if not isinstance(stage, HandedOn)]
    above = [s for s in wanted if isinstance(s, HandedOn) and not _has(own, s.core)]
    return [
        HandedOn(stage, parent_of, member)
        for stage in (*own, *above)
        if announced or not getattr(stage, "only_announced", False)
    ]


def _has(stages: Iterable[Stage], stage: Stage) -> bool:
    return any(each is stage for each in stages)
