"""Who of several equal members gets the next request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from time import monotonic
from typing import Literal, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from ..errors import InvalidParameterError
from ..messages import LLMRequest
from ..provider import BaseLLMProvider

Choice: TypeAlias = Callable[[LLMRequest, Sequence[BaseLLMProvider]], BaseLLMProvider]
Strategy: TypeAlias = Literal["least_busy", "latency", "round_robin"] | Choice
Load: TypeAlias = Mapping[BaseLLMProvider, int]
"""How many requests of the composite each member is answering."""

# After this time without an answer, what was measured counts for a third.
_MEMORY_S = 10.0


class Chooser(Protocol):
    """Chooses a member, and learns how it did."""

    def __call__(
        self, request: LLMRequest, members: Sequence[BaseLLMProvider], load: Load
    ) -> BaseLLMProvider:
        """One of ``members``, of which there is at least one."""

    def answered(self, member: BaseLLMProvider, first_s: float) -> None:
        """``member`` has sent the first piece of an answer after so many seconds."""


def chooser(strategy: Strategy) -> Chooser:
    """What a strategy stands for.

    Raises:
        InvalidParameterError: there is no such strategy.
    """
    if isinstance(strategy, str) and strategy in _STRATEGIES:
        return _STRATEGIES[strategy]()
    if not callable(strategy):
        raise InvalidParameterError(
            f"strategy must be {', '.join(_STRATEGIES)} or a function, got {strategy!r:.60}"
        )
    return _Custom(strategy)


def by_conversation(conversation_id: str, members: Sequence[BaseLLMProvider]) -> BaseLLMProvider:
    """The same member for the same conversation, as long as it is among ``members``.

    Rendezvous hashing: when one goes, only its conversations move.
    """

    def weight(member: BaseLLMProvider) -> bytes:
        return blake2b(f"{member.id}\0{conversation_id}".encode(), digest_size=8).digest()

    return max(members, key=weight)


def _busy(member: BaseLLMProvider, load: Load) -> int:
    # What was just given to it may not have begun, and others may ask it as well.
    return max(member.status.in_flight, load.get(member, 0))


class _Custom:
    def __init__(self, choose: Choice) -> None:
        self._choose = choose

    def __call__(
        self, request: LLMRequest, members: Sequence[BaseLLMProvider], load: Load
    ) -> BaseLLMProvider:
        return self._choose(request, members)

    def answered(self, member: BaseLLMProvider, first_s: float) -> None:
        pass


class _InTurn:
    """Whoever has waited the longest for a request."""

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[BaseLLMProvider, int] = WeakKeyDictionary()
        self._turn = 0

    def __call__(
        self, request: LLMRequest, members: Sequence[BaseLLMProvider], load: Load
    ) -> BaseLLMProvider:
        chosen = min(members, key=lambda m: (self._cost(m, load), self._turns.get(m, 0)))
        self._turn += 1
        self._turns[chosen] = self._turn
        return chosen

    def answered(self, member: BaseLLMProvider, first_s: float) -> None:
        pass

    def _cost(self, member: BaseLLMProvider, load: Load) -> float:
        return 0.0


class _LeastBusy(_InTurn):
    """Whoever has the fewest running requests."""

    def _cost(self, member: BaseLLMProvider, load: Load) -> float:
        return _busy(member, load)


class _Latency(_InTurn):
    """Whoever has been the quickest lately, for what it has to do.

    The time to the first piece is averaged with weights that decay with time, so that one that
    was slow is tried again; one that nothing is known of is taken first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: WeakKeyDictionary[BaseLLMProvider, tuple[float, float]] = WeakKeyDictionary()

    def answered(self, member: BaseLLMProvider, first_s: float) -> None:
        now_s = monotonic()
        mean_s, at_s = self._known.get(member, (first_s, now_s))
        weight = max(_faded(now_s - at_s), 0.0) * 0.7
        self._known[member] = (weight * mean_s + (1 - weight) * first_s, now_s)

    def _cost(self, member: BaseLLMProvider, load: Load) -> float:
        mean_s, at_s = self._known.get(member, (0.0, 0.0))
        return mean_s * _faded(monotonic() - at_s) * (_busy(member, load) + 1)


def _faded(age_s: float) -> float:
    return math.exp(-age_s / _MEMORY_S)


_STRATEGIES: dict[str, Callable[[], Chooser]] = {
    "least_busy": _LeastBusy,
    "latency": _Latency,
    "round_robin": _InTurn,
}
