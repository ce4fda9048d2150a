"""How much a request might take, and how much it has taken."""

from __future__ import annotations

import msgspec

from ..messages import (
    Delta,
    MetaDelta,
    ReasoningDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
    VectorsDelta,
)
from ..tokens import estimate_text_tokens

NOTHING = Usage()


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

    # How things are at first: most of it stays so, and one is made for every request.
    model = ""
    whole = read = _begun = _cached = False
    _usage: Usage | None = None

    def __init__(self, prompt_tokens: int) -> None:
        self.texts: list[str] = []
        self._prompt_tokens = prompt_tokens

    def add(self, delta: Delta) -> None:
        """Take note of a piece that is no text of the answer."""
        if type(delta) is UsageDelta:
            self._usage = delta.usage
        elif type(delta) is MetaDelta:
            if delta.model:
                self.model = delta.model
            if delta.cached:
                self._cached = True
        elif type(delta) is ReasoningDelta:
            self.texts.append(delta.text)
        elif type(delta) is ToolCallDelta:
            self.texts.append(delta.arguments)
        elif type(delta) is VectorsDelta:
            self._begun = True

    def used(self) -> Usage:
        """What was taken: by the service's count of a whole answer, else at least by estimate."""
        if self._cached:
            return NOTHING
        if self.whole and self._usage is not None:
            return self._usage
        if not (self.read or self._begun or self.texts or self._usage):
            return NOTHING
        seen = self._usage or Usage(prompt_tokens=self._prompt_tokens)
        written = estimate_text_tokens("".join(self.texts))
        return msgspec.structs.replace(
            seen, completion_tokens=max(seen.completion_tokens, written), estimated=True
        )
