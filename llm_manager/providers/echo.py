"""A provider that repeats what it is told: no key, no network, no surprise.

It is the embedded default of the demo, and a partner for an application's own tests: what it
answers, how fast, and how it fails can be told in advance.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from copy import copy
from typing import Any

import msgspec

from ..checks import YEAR_S, check_number
from ..errors import InvalidParameterError, LLMError, ModelNotFoundError, ProviderConnectionError
from ..messages import (
    Data,
    Delta,
    FinishDelta,
    LLMModelInfo,
    LLMRequest,
    MetaDelta,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageDelta,
    VectorsDelta,
)
from ..provider import BaseLLMProvider


class EchoAnswer(Data, frozen=True, kw_only=True):
    """What `EchoProvider` shall do with one request.

    Attributes:
        text: the answer; None repeats the last message.
        reasoning: thought aloud before the answer.
        delay_s: silence before the first word, in seconds.
        words_per_s: speed; None for the provider's.
        tool: name of a tool to call instead of answering with text.
        arguments: what to call it with.
        calls: several tools to call, in place of ``tool``; behind ``text``, if there is some.
        vectors: the answer to a request for embeddings.
        error: raised after ``after_words`` words.
        after_words: see ``error``.
        hang_after_words: fall silent for ever after so many words.
    """

    text: str | None = None
    reasoning: str = ""
    delay_s: float = 0.0
    words_per_s: float | None = None
    tool: str | None = None
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    calls: tuple[ToolCall, ...] = ()
    vectors: tuple[list[float], ...] = ()
    error: Any = None
    after_words: int = 0
    hang_after_words: int | None = None

    def __post_init__(self) -> None:
        if self.error is not None and not isinstance(self.error, LLMError):
            raise InvalidParameterError(f"error must be an LLMError, got {self.error!r}")

    @property
    def all_calls(self) -> tuple[ToolCall, ...]:
        """The tools to call, from ``tool`` or from ``calls``."""
        if self.tool is None:
            return self.calls
        arguments = msgspec.json.encode(self.arguments).decode()
        return (ToolCall(id="call-1", name=self.tool, arguments_json=arguments),)


class EchoProvider(BaseLLMProvider):
    """Repeats the last message, word by word.

    Args:
        words_per_s: speed of the answer; infinity sends it without pauses.
        connect_delay_s: how long connecting takes, in seconds.
        models: ids of the models it claims to have.
        common: see `BaseLLMProvider`.
    """

    kind = "echo"
    capabilities = frozenset(
        {"chat", "completion", "tools", "vision", "files", "reasoning", "json_object"}
    )

    kept_on_update = frozenset({"requests", "_script", "_outage"})

    def __init__(
        self,
        *,
        words_per_s: float = 50.0,
        connect_delay_s: float = 0.0,
        models: Sequence[str] = ("echo",),
        **common: Any,
    ) -> None:
        check_number("words_per_s", words_per_s, above=0)
        check_number("connect_delay_s", connect_delay_s, low=0, high=YEAR_S)
        if isinstance(models, str):
            raise InvalidParameterError(f"models must be a sequence of ids, got {models!r}")
        common.setdefault("default_model", next(iter(models), None))
        super().__init__(**common)
        self._words_per_s = words_per_s
        self._connect_delay_s = connect_delay_s
        self._models = tuple(models)
        self.requests: deque[LLMRequest] = deque(maxlen=100)
        """The last requests that it was sent, oldest first, for an application's own tests."""
        self._script: deque[EchoAnswer] = deque()
        self._outage: LLMError | None = None

    # ---- for tests and demonstrations ------------------------------------------------------------

    def script(self, *answers: EchoAnswer) -> None:
        """Decide the next answers, one for each request; afterwards it echoes again."""
        for answer in answers:
            if not isinstance(answer, EchoAnswer):
                raise InvalidParameterError(f"script takes EchoAnswer, got {answer!r:.60}")
        self._script.extend(answers)

    def go_offline(self, error: LLMError | None = None) -> None:
        """Fail every probe and request from now on, as if the server had gone."""
        self._outage = error or ProviderConnectionError("connection refused", code="refused")

    def go_online(self) -> None:
        """End what `go_offline` began; the provider finds out by itself."""
        self._outage = None

    def set_models(self, *models: str) -> None:
        """Offer other models from now on."""
        self._models = models

    # ---- the provider ----------------------------------------------------------------------------

    async def _open(self) -> None:
        await asyncio.sleep(self._connect_delay_s)

    async def _close(self) -> None:
        pass

    async def _list_models(self) -> list[LLMModelInfo]:
        self._refuse_while_offline()
        return [
            LLMModelInfo.known(
                "registry",
                id=model,
                provider_id=self.id,
                context_window_tokens=8192,
                capabilities=self.capabilities,
                input_modalities=frozenset({"text", "image", "file"}),
                loaded=True,
            )
            for model in self._models
        ]

    async def _exchange(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        introduced = False
        async with aclosing(self._deltas(request)) as deltas:
            async for delta in deltas:
                if not introduced:
                    introduced = True
                    yield MetaDelta(request.model, f"echo-{request.id}")
                yield delta

    async def _deltas(self, request: LLMRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        self._refuse_while_offline()
        if request.model not in self._models:
            raise ModelNotFoundError(f"there is no model {request.model!r}", http_status=404)
        plan = self._next_answer(request)
        await asyncio.sleep(plan.delay_s)
        if plan.error is not None and plan.after_words == 0:
            raise copy(plan.error)
        pause_s = 1 / (plan.words_per_s or self._words_per_s)
        if request.operation == "embed":
            yield VectorsDelta(list(plan.vectors))
            yield FinishDelta("stop", "stop")
            return
        calls = plan.all_calls
        said = "" if calls else _last_text(request)
        spoken, finish = _spoken(said if plan.text is None else plan.text, request)
        for word in _words(plan.reasoning):
            yield ReasoningDelta(word)
            await asyncio.sleep(pause_s)
        for count in range(len(spoken) + 1):
            if plan.error is not None and count >= min(plan.after_words, len(spoken)):
                raise copy(plan.error)
            if count == plan.hang_after_words:
                await asyncio.Event().wait()
            self._refuse_while_offline()
            if count < len(spoken):
                yield TextDelta(spoken[count])
                await asyncio.sleep(pause_s)
        for index, call in enumerate(calls):
            yield ToolCallDelta(index, call.id, call.name, call.arguments_json)
        yield FinishDelta("tool_calls", "tool_calls") if calls else finish
        prompt = sum(len(_words(m.text)) for m in request.messages)
        yield UsageDelta(Usage(prompt_tokens=prompt, completion_tokens=len(spoken)))

    def _next_answer(self, request: LLMRequest) -> EchoAnswer:
        """What to do with ``request``."""
        return self._script.popleft() if self._script else EchoAnswer()

    def _refuse_while_offline(self) -> None:
        if self._outage is not None:
            raise copy(self._outage)


def _last_text(request: LLMRequest) -> str:
    return request.messages[-1].text if request.messages else request.prefix


def _words(text: str) -> list[str]:
    """``text`` in pieces of one word each, with the space that follows; nothing is lost."""
    pieces = text.split(" ")
    return [f"{p} " for p in pieces[:-1]] + [p for p in pieces[-1:] if p]


def _spoken(text: str, request: LLMRequest) -> tuple[list[str], FinishDelta]:
    """The words of an answer, cut by ``stop`` and ``max_tokens``, and why it ends."""
    for stop in request.options.stop or ():
        text = text.split(stop, 1)[0]
    words = _words(text)
    limit = request.options.max_tokens
    if limit is not None and len(words) > limit:
        return words[:limit], FinishDelta("length", "length")
    return words, FinishDelta("stop", "stop")
