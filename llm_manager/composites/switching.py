"""`SwitchingProvider`: one of its members answers, until somebody switches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from difflib import get_close_matches
from time import monotonic
from typing import Any

from ..config import GivenSettings
from ..errors import ProviderNotFoundError
from ..messages import Delta, LLMRequest, Messages
from ..portability.report import PortabilityReport, portability_report
from ..provider import BaseLLMProvider
from .base import CompositeProvider
from .models import Ask
from .passing import answer_of, stream_of
from .seats import Member


class SwitchingProvider(CompositeProvider):
    """Passes every request on to its current member.

    A conversation may go on after a switch: what the new member cannot read is brought into a form
    that it can when it is asked.  The status is that of the current member.

    Args:
        members: see `CompositeProvider`.
        current: id of the member to begin with; default: the first.
        settings: ``models`` of `CompositeProvider`, and those of `BaseLLMProvider`.

    Raises:
        ProviderNotFoundError: ``current`` is no member.
    """

    kind = "switching"

    def __init__(
        self, members: Collection[Member] = (), *, current: str | None = None, **settings: Any
    ) -> None:
        super().__init__(members, **settings)
        self._current = self._members[0].id
        if current is not None:
            self._current = self._found(current).id

    @property
    def current(self) -> BaseLLMProvider:
        """The member that is asked."""
        return self._found(self._current)

    def switch_provider(
        self, id: str, *, model: str | None = None, history: Messages | None = None
    ) -> PortabilityReport:
        """Let another member answer from now on; answers that run end where they began.

        Announced as ``modelChanged`` with ``"member/model"``.

        Args:
            id: the member's id.
            model: which of its models; default: its active one.
            history: the conversation that shall go on, for the report.

        Returns:
            What becomes of ``history`` at the new member; without one, an empty report.

        Raises:
            ProviderNotFoundError: there is no such member; the text names a similar one.
            ModelNotFoundError: its model list is known and does not have ``model``.
            InvalidParameterError: ``history`` is no conversation.
        """
        member = self._found(id)
        chosen = model or self._models.get(id) or member.active_model
        report = PortabilityReport(target=f"{id}/{chosen}" if chosen else id, items=())
        if history is not None:
            report = portability_report(history, member, model=chosen)
        with self.atomic():
            if chosen is not None:
                super().set_active_model(f"{id}/{chosen}")
            else:
                self._activate_model(None)
            self._current = id
            args, given = self._given
            self._given = args, GivenSettings({**given, "current": id})
        self._look_at_members()
        return report

    def set_active_model(self, model: str | None) -> None:
        """As `BaseLLMProvider.set_active_model`; ``"member/model"`` switches to that member."""
        addressed = None if model is None else self._addressed(model)
        if addressed is None:
            super().set_active_model(model)
        else:
            self.switch_provider(addressed.member.id, model=addressed.model)

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        member, model = self._asks(request)[0]
        stream = stream_of(member, model, request, monotonic())
        async with aclosing(answer_of(member, stream)) as deltas:
            async for delta in deltas:
                yield delta

    def _ask_of(self, member: BaseLLMProvider, model: str) -> Ask | None:
        return super()._ask_of(member, model) if member.id == self._current else None

    def _needed(self) -> tuple[Sequence[BaseLLMProvider], int]:
        return (self.current,), 1

    def _found(self, id: str) -> BaseLLMProvider:
        for member in self._members:
            if member.id == id:
                return member
        ids = [member.id for member in self._members]
        near = get_close_matches(str(id), ids, n=1)
        raise ProviderNotFoundError(
            f"{self.id} has no member {id!r}",
            hint=f"did you mean {near[0]!r}?" if near else f"its members are {', '.join(ids)}",
        )
