"""How much a request might take, and how much it has taken."""

from __future__ import annotations

import msgspec

from ..messages import (
    Delta,
    LLMRequest,
    MetaDelta,
    ReasoningDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
    VectorsDelta,
)
from ..tokens import estimate_text_tokens

NOTHING = Usage()


def longest_answer_tokens(request: LLMRequest, answer_tokens: int) -> int:
    """How long an answer to ``request`` may become; ``answer_tokens`` if it sets no bound."""
    if request.operation == "embed":
        return 0
    return request.options.max_tokens or answer_tokens


class Meter:
    """Follows an answer, to know what it took however it ends.

    Args:
        prompt_tokens: how many the prompt is taken to have.

    Attributes:
        texts: the pieces of text that have come.
        model: the model that answers, as the service names it; empty if it did not say.
        whole: whether the answer has come to its end.
        read: whether the service may have read the prompt although nothing has come.
    """

    __slots__ = (
        "_begun", "_cached", "_prompt_tokens", "_usage", "model", "read", "texts", "whole",
    )  # fmt: skip

    def __init__(self, prompt_tokens: int) -> None:
        self.texts: list[str] = []
        self.model = ""
        self.whole = self.read = self._begun = self._cached = False
        self._prompt_tokens = prompt_tokens
        self._usage: Usage | None = None

    def add(self, delta: Delta) -> None:
        """Take note of a piece that is no text of the answer."""
        if type(delta) is UsageDelta:
            self._usage = delta.usage
        elif type(delta) is MetaDelta:
            self.model = delta.model or self.model
            self._cached = self._cached or delta.cached
        elif type(delta) is ReasoningDelta:
            self.texts.append(delta.text)
        elif type(delta) is ToolCallDelta:
            self.texts.append(delta.arguments)
        elif type(delta) is VectorsDelta:
            self._begun = True

    def used(self) -> Usage:
        """What was taken: by the service's count of a whole answer, else at least by estimate."""
        if self._cached or not (self.read or self._begun or self.texts or self._usage):
            return NOTHING
        if self.whole and self._usage is not None:
            return self._usage
        seen = self._usage or Usage(prompt_tokens=self._prompt_tokens)
        written = estimate_text_tokens("".join(self.texts))
        return msgspec.structs.replace(
            seen, completion_tokens=max(seen.completion_tokens, written), estimated=True
        )
