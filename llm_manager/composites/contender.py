"""One member in a race for the first answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ..errors import LLMError
from ..messages import Delta, KeepAliveDelta, LLMRequest, Usage
from ..stream import LLMStream
from .models import Ask
from .passing import answer_of, stream_of


class Contender:
    """One member in a race, with its stream."""

    def __init__(self, ask: Ask) -> None:
        self.member, self._model = ask
        self._stream: LLMStream | None = None
        self._deltas: AsyncGenerator[Delta, None] | None = None
        self._begun: list[Delta] = []

    async def run(self, request: LLMRequest, began_s: float, whole: bool) -> LLMError | None:
        """Read the first piece, or the ``whole`` answer; returns why that did not work."""
        try:
            self._stream = stream_of(self.member, self._model, request, began_s)
            self._deltas = answer_of(self.member, self._stream)
            async for delta in self._deltas:
                if type(delta) is not KeepAliveDelta:
                    self._begun.append(delta)
                    if not whole:
                        break
        except LLMError as error:
            return error.in_context(provider_id=self.member.id)
        return None

    async def answer(self) -> AsyncGenerator[Delta, None]:
        """The whole answer, from its first piece on."""
        for delta in self._begun:
            yield delta
        if self._deltas is not None:
            async for delta in self._deltas:
                yield delta

    async def leave(self) -> None:
        """Cancel what still runs, and close its connection."""
        if self._stream is not None and self._deltas is not None and self._stream.running:
            self._stream.cancel("another one was faster")
            await self._deltas.aclose()

    @property
    def usage(self) -> Usage | None:
        """What it has used up, as far as that is known."""
        return None if self._stream is None else self._stream.response.usage
