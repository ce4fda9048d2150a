"""How much a request might spend, and how much it has."""

from __future__ import annotations

from typing import cast

from ..messages import (
    Delta,
    LLMRequest,
    MetaDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from ..tokens import estimate_prompt_tokens, estimate_text_tokens


def estimated_usage(request: LLMRequest, answer_tokens: int) -> Usage:
    """What ``request`` might take: its prompt, and the longest answer that it allows.

    Args:
        request: what is to be sent.
        answer_tokens: how long an answer is taken to be where the request sets no bound.
    """
    longest = 0 if request.operation == "embed" else request.options.max_tokens or answer_tokens
    return Usage(
        prompt_tokens=estimate_prompt_tokens(request), completion_tokens=longest, estimated=True
    )


class Meter:
    """Follows an answer, to know what it took however it ends."""

    __slots__ = ("cached", "pieces", "usage")

    def __init__(self) -> None:
        self.pieces: list[Delta] = []
        self.usage: Usage | None = None
        self.cached = False

    def add(self, delta: Delta) -> None:
        """Take note of a piece that is no text."""
        if type(delta) is UsageDelta:
            self.usage = delta.usage
        elif type(delta) is MetaDelta:
            self.cached = self.cached or delta.cached
        else:
            self.pieces.append(delta)

    def used(self, request: LLMRequest, *, whole: bool, sent: bool) -> Usage:
        """What was taken: by the service's count of a whole answer, else at least by estimate.

        Args:
            request: what was asked.
            whole: whether the answer came to its end.
            sent: whether the service may have read the prompt although nothing has come.
        """
        if self.cached or not (sent or self.pieces or self.usage):
            return Usage()
        if whole and self.usage is not None:
            return self.usage
        seen = self.usage or Usage(prompt_tokens=estimate_prompt_tokens(request))
        written = max(seen.completion_tokens, self._estimated_tokens())
        return Usage(
            prompt_tokens=seen.prompt_tokens,
            completion_tokens=written,
            cached_tokens=seen.cached_tokens,
            cache_write_tokens=seen.cache_write_tokens,
            reasoning_tokens=seen.reasoning_tokens,
            estimated=True,
        )

    def _estimated_tokens(self) -> int:
        texts = [
            cast(TextDelta, piece).text
            for piece in self.pieces
            if type(piece) in (TextDelta, ReasoningDelta)
        ]
        texts += [piece.arguments for piece in self.pieces if type(piece) is ToolCallDelta]
        return estimate_text_tokens("".join(texts))
