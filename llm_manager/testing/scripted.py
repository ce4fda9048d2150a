"""A provider for the tests of an app: it says and does what the test has told it, and no more.

::

    provider = ScriptedProvider().answer("Hello.").fail(RateLimitError("slow down"))

It is `EchoProvider` with a script that has to be complete: a question that nobody has thought of
is an error, not an echo.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from ..errors import InvalidRequestError, LLMError, StreamInterruptedError
from ..messages import Capability, LLMRequest, ToolCall
from ..providers.echo import EchoAnswer, EchoProvider


class ScriptedProvider(EchoProvider):
    """Answers by script; each method adds what happens to one more request.

    An error that may pass is retried as with any provider, and the next attempt takes the next
    step of the script.  ``requests`` holds what it was asked, ``go_offline`` and ``set_models`` are
    those of `EchoProvider`.

    Args:
        models: ids of the models it claims to have.
        capabilities: what it claims to be able to do; default: everything it can play.
        words_per_s: speed of its answers; default: without pauses.
        common: see `EchoProvider` and `BaseLLMProvider`.
    """

    kind = "scripted"
    capabilities = EchoProvider.capabilities | {"json_schema", "fim", "embeddings"}

    def __init__(
        self,
        *,
        models: Sequence[str] = ("scripted",),
        capabilities: Iterable[Capability] | None = None,
        words_per_s: float = math.inf,
        **common: Any,
    ) -> None:
        if capabilities is not None:
            self.capabilities = frozenset(capabilities)
        super().__init__(models=models, words_per_s=words_per_s, **common)

    @property
    def unplayed(self) -> int:
        """How many steps of the script are still to come."""
        return len(self._script)

    def answer(self, text: str, *, reasoning: str = "", delay_s: float = 0.0) -> Self:
        """Answer with ``text``, word by word, after ``delay_s`` seconds of silence."""
        return self._then(text=text, reasoning=reasoning, delay_s=delay_s)

    def tool_call(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, text: str = ""
    ) -> Self:
        """Ask for the tool ``name`` to be called, behind ``text``."""
        return self._then(tool=name, arguments=dict(arguments or {}), text=text)

    def tool_calls(self, *calls: ToolCall, text: str = "") -> Self:
        """Ask for several tools to be called in one answer."""
        return self._then(calls=calls, text=text)

    def vectors(self, *vectors: Sequence[float]) -> Self:
        """Answer a request for embeddings, one vector for each text."""
        return self._then(vectors=tuple(list(vector) for vector in vectors))

    def fail(self, error: LLMError, *, text: str = "", after_words: int = 0) -> Self:
        """Raise ``error``, behind so many words of ``text``."""
        return self._then(error=error, text=text, after_words=after_words)

    def cut_after(self, words: int, text: str) -> Self:
        """Break off behind so many words of ``text``, as when a cable is pulled."""
        error = StreamInterruptedError("the answer broke off")
        return self.fail(error, text=text, after_words=words)

    def hang(self, *, text: str = "", after_words: int = 0) -> Self:
        """Fall silent for ever behind so many words of ``text``."""
        return self._then(text=text, hang_after_words=after_words)

    def _then(self, **step: Any) -> Self:
        self.script(EchoAnswer(**step))
        return self

    def _next_answer(self, request: LLMRequest) -> EchoAnswer:
        if self._script:
            return self._script.popleft()
        asked = request.messages[-1].text if request.messages else request.prefix
        raise InvalidRequestError(
            f"the script has no answer to request {len(self.requests)}: {asked!r:.80}",
            hint="add one before, e.g. with .answer('...')",
        )
