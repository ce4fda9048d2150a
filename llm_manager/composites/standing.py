"""What the state of its members says about a composite."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from .. import errors
from ..errors import ConfigurationError, LLMError, ProviderConnectionError
from ..provider import BaseLLMProvider
from ..status import ProviderStatus, Reason

_S = ProviderStatus
DOWN = frozenset({_S.RECONNECTING, _S.FAILED, _S.DRAINING, _S.CLOSED})


class Standing(Enum):
    """How a composite stands."""

    WHOLE = "whole"
    """No member is down."""
    IMPAIRED = "impaired"
    """It can answer, although a member is down."""
    DOWN = "down"
    """Too few members are left."""
    UNKNOWN = "unknown"
    """It depends on members of which nothing is known yet."""

    @property
    def usable(self) -> bool:
        return self in (Standing.WHOLE, Standing.IMPAIRED)


def standing_of(members: Sequence[BaseLLMProvider], needed: int) -> Standing:
    """How a composite stands that needs so many of ``members``."""
    words = [member.status.status for member in members]
    usable, down = sum(w.usable for w in words), sum(w in DOWN for w in words)
    if usable >= needed:
        return Standing.IMPAIRED if down else Standing.WHOLE
    return Standing.UNKNOWN if len(words) - down >= needed else Standing.DOWN


def is_decided(member: BaseLLMProvider) -> bool:
    """Whether it is known if it can be used."""
    word = member.status.status
    return word.usable or word in DOWN


def why_down(members: Sequence[BaseLLMProvider]) -> LLMError:
    """The error that says why too few of ``members`` can be used.

    It is one that passes, unless all of them need a person or another setting.
    """
    lines = []
    for member in members:
        state = member.status
        if not state.usable:
            why = state.status.value if state.error is None else state.error.message
            lines.append(f"{member.id}: {why}")
    text = f"too few members can be used: {'; '.join(lines) or 'none has answered'}"
    ends = [m.status.retry_at for m in members if m.status.retry_at is not None]
    kind: type[LLMError] = ProviderConnectionError
    if all(member.status.status is _S.FAILED for member in members):
        kinds = {m.status.error.type for m in members if m.status.error is not None}
        kind = ConfigurationError
        if len(kinds) == 1:
            kind = getattr(errors, kinds.pop(), ConfigurationError)
    return kind(text, code=Reason.MEMBERS_DOWN, retry_at=min(ends, default=None))
