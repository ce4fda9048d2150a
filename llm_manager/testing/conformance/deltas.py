"""The pieces that a provider's own exchange yields, and the order that they must have."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ...messages import (
    Delta,
    FinishDelta,
    KeepAliveDelta,
    LLMRequest,
    MetaDelta,
    RawDelta,
    TextDelta,
    ToolCallDelta,
    UsageDelta,
)
from ...policy import Exchange, Host
from .expect import expect


class DeltaWatch:
    """A policy that writes down what the provider's own exchange yields."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        async def watched(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            self.deltas.clear()
            async for delta in exchange(request):
                if not isinstance(delta, KeepAliveDelta):  # it is for the clocks alone
                    self.deltas.append(delta)
                yield delta

        return watched


def expect_sensible(deltas: list[Delta]) -> None:
    """What holds for the pieces of every complete answer."""
    ends = [place for place, delta in enumerate(deltas) if isinstance(delta, FinishDelta)]
    expect(len(ends) == 1, f"an answer has one FinishDelta, this one has {len(ends)}: {deltas}")
    late = [
        d for d in deltas[ends[0] + 1 :] if not isinstance(d, UsageDelta | MetaDelta | RawDelta)
    ]
    expect(not late, f"nothing but figures may come behind the FinishDelta, but there is {late}")
    empty = [delta for delta in deltas if isinstance(delta, TextDelta) and not delta.text]
    expect(not empty, f"{len(empty)} pieces of the text are empty; leave them out")
    begun: set[int] = set()
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            expect(
                delta.index in begun or (delta.name and delta.id),
                f"the first piece of tool call {delta.index} lacks its name or id: {delta}",
            )
            begun.add(delta.index)
    expect(begun == set(range(len(begun))), f"tool calls are numbered {sorted(begun)}, not from 0")
