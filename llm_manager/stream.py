"""A running answer: iterate it, await it, give it a callback, stop it.

However a reader leaves - to the end, by ``break``, by an exception, by `LLMStream.cancel`, by the
cancellation of its task, or by dropping the object - the connection is closed and the request is
announced as finished, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from time import monotonic
from typing import Any, cast

import msgspec

from .errors import LLMError, ProviderError, RequestCancelledError
from .interrupt import Interrupter
from .messages import (
    Delta,
    FinishDelta,
    FinishReason,
    KeepAliveDelta,
    LLMEmbeddings,
    LLMRequest,
    LLMResponse,
    LLMStreamEvent,
    MetaDelta,
    Part,
    PartDelta,
    RawDelta,
    ReasoningDelta,
    TextDelta,
    TextPart,
    Timings,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageDelta,
    VectorsDelta,
)
from .tokens import ImageRule, estimate_prompt_tokens, estimate_text_tokens

StreamCallback = Callable[[LLMStreamEvent], Awaitable[object] | object]


class Assembly:
    """An answer being put together from its deltas."""

    def __init__(
        self, request: LLMRequest, provider_id: str, image_rule: ImageRule | None = None
    ) -> None:
        self.request = request
        self._image_rule = image_rule
        self.provider_id = provider_id
        self.attempts = 0
        self.pieces = 0
        self.signs_of_life = 0
        self._usage: Usage | None = None
        self._parts: list[tuple[int, Part]] = []
        self._vectors: list[list[float]] = []
        self.began_s = monotonic()
        self._first_s: float | None = None
        self._ended_s: float | None = None
        self._broken_off = False
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, tuple[str, str, list[str]]] = {}
        self._finish: FinishReason | None = None
        self._provider_finish: str | None = None
        self._model = request.model
        self._response_id: str | None = None
        self._answered_by = provider_id
        self._cached = False
        self._raw: list[Any] | None = [] if request.options.include_raw else None

    def begin(self) -> None:
        """Start the clock; the object may have been made long before."""
        self.began_s = monotonic()

    def add(self, delta: Delta) -> LLMStreamEvent | None:
        """Take in a delta; returns the event that the reader gets for it, if any."""
        # The branches stand in the order of how often they are taken; the first is on the path of
        # every token.
        if type(delta) is TextDelta:
            text = delta.text
            self._text.append(text)
            index = self.pieces
            if index == 0:
                self._first_s = monotonic()
            self.pieces = index + 1
            return LLMStreamEvent(kind="text", index=index, text=text)
        if type(delta) is ReasoningDelta:
            self._reasoning.append(delta.text)
            return self._event("reasoning", text=delta.text)
        if type(delta) is ToolCallDelta:
            id, name, arguments = self._calls.get(delta.index, ("", "", []))
            arguments.append(delta.arguments)
            self._calls[delta.index] = (id or delta.id, name or delta.name, arguments)
            return self._event("tool_call", tool_call=delta)
        if type(delta) is UsageDelta:
            self._usage = delta.usage
            return self._event("usage", usage=delta.usage)
        if type(delta) is PartDelta:
            # Its place is behind the pieces of text that have come so far.
            self._parts.append((len(self._text), delta.part))
            return self._event("part", part=delta.part)
        if type(delta) is FinishDelta:
            self._finish, self._provider_finish = delta.reason, delta.provider_reason
        elif type(delta) is MetaDelta:
            self._model = delta.model or self._model
            self._response_id = delta.response_id or self._response_id
            self._answered_by = delta.provider_id or self._answered_by
            self._cached = self._cached or delta.cached
        elif type(delta) is VectorsDelta:
            self._vectors.extend(delta.vectors)
        elif type(delta) is RawDelta:
            if self._raw is not None:
                self._raw.append(delta.document)
        elif type(delta) is KeepAliveDelta:
            pass  # for the clocks, if there were any
        else:
            raise ProviderError(
                f"the provider class yielded {delta!r:.60}, not a delta",
                code="unexpected",
                hint="yield TextDelta(text) and end with FinishDelta('stop')",
            )
        return None

    def _event(self, kind: Any, **content: Any) -> LLMStreamEvent:
        if self.pieces == 0:
            self._first_s = monotonic()
        index, self.pieces = self.pieces, self.pieces + 1
        return LLMStreamEvent(kind=kind, index=index, **content)

    def end(self) -> LLMStreamEvent:
        """The last event, with the whole answer."""
        self._ended_s = monotonic()
        return self._event("done", response=self.response())

    def break_off(self) -> None:
        """Take note that no more will come although the answer is not complete."""
        if self._ended_s is None:
            self._ended_s = monotonic()
            self._broken_off = self._finish is None

    @property
    def usage(self) -> Usage | None:
        """Token counts: the provider's, or an estimate for an answer that was broken off."""
        return self._estimated_usage() if self._broken_off and self.pieces else self._usage

    def _estimated_usage(self) -> Usage:
        # Some providers count the prompt first; what they say of an answer that had only begun is
        # too little.
        known = self._usage or Usage(
            prompt_tokens=estimate_prompt_tokens(self.request, self._image_rule)
        )
        reasoning = estimate_text_tokens("".join(self._reasoning))
        arguments = (a for _, _, pieces in self._calls.values() for a in pieces)
        completion = reasoning + estimate_text_tokens("".join((*self._text, *arguments)))
        return msgspec.structs.replace(
            known,
            completion_tokens=max(known.completion_tokens, completion),
            reasoning_tokens=max(known.reasoning_tokens, reasoning),
            estimated=True,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What the end of the request tells about the answer; see `RequestFinished`."""
        return {
            "duration_s": self.duration_s,
            "first_token_s": self.first_token_s,
            "attempts": self.attempts,
            "usage": self.usage,
            "response_model": self._model,
            "response_id": self._response_id,
            "finish_reason": self._finish,
            "answered_by": self._answered_by,
            "cached": self._cached,
        }

    @property
    def first_token_s(self) -> float | None:
        return None if self._first_s is None else self._first_s - self.began_s

    @property
    def duration_s(self) -> float:
        return (self._ended_s or monotonic()) - self.began_s

    def response(self) -> LLMResponse:
        """What has arrived so far."""
        return LLMResponse(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=tuple(
                ToolCall(id=id, name=name, arguments_json="".join(arguments) or "{}")
                for _, (id, name, arguments) in sorted(self._calls.items())
            ),
            parts=self._all_parts(),
            finish_reason=self._finish,
            provider_finish_reason=self._provider_finish,
            usage=self.usage,
            model=self._model,
            provider_id=self.provider_id,
            answered_by=self._answered_by,
            cached=self._cached,
            request_id=self.request.id,
            response_id=self._response_id,
            timings=Timings(
                first_token_s=self.first_token_s,
                total_s=self.duration_s,
                attempts=max(self.attempts, 1),
            ),
            raw=None if self._raw is None else tuple(self._raw),
        )

    def embeddings(self) -> LLMEmbeddings:
        """What has arrived, as the answer to an embedding request."""
        return LLMEmbeddings(
            vectors=tuple(self._vectors),
            model=self._model,
            usage=self.usage,
            provider_id=self.provider_id,
            request_id=self.request.id,
        )

    def _all_parts(self) -> tuple[Part, ...]:
        """Text and other parts in the order of their arrival; empty if there is only text."""
        if not self._parts:
            return ()
        parts: list[Part] = []
        begin = 0
        for place, part in [*self._parts, (len(self._text), None)]:
            if text := "".join(self._text[begin:place]):
                parts.append(TextPart(text=text))
            if part is not None:
                parts.append(part)
            begin = place
        return tuple(parts)


class LLMStream:
    """One request and its answer.  Nothing is sent before it is awaited or iterated.

    ::

        response = await stream                       # to the end
        async for event in stream: print(event.text)  # piece by piece
        async with stream: ...                        # closed however you leave
        stream.cancel()                               # from any thread

    An answer is read once: iterating a second time raises `RuntimeError`.  `response` tells at any
    time what has arrived.
    """

    def __init__(
        self,
        deltas: AsyncGenerator[Delta, None],
        assembly: Assembly,
        *,
        callback: StreamCallback | None = None,
        interrupter: Interrupter | None = None,
    ) -> None:
        self._deltas = deltas
        self._assembly = assembly
        self._callback = callback
        self._interrupter = interrupter or Interrupter()
        self._closing: asyncio.Task[None] | None = None
        self._started = False
        self._done = False
        self._ended = False
        self._closed_early = False

    def __repr__(self) -> str:
        state = "ended" if self._ended else "running" if self.running else "not started"
        return f"<LLMStream {self.request_id} to {self._assembly.provider_id!r}, {state}>"

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._started and not self._ended

    @property
    def heard(self) -> int:
        """How often anything has come, signs of life included."""
        return self._assembly.pieces + self._assembly.signs_of_life

    @property
    def embeddings(self) -> LLMEmbeddings:
        """What has arrived, of the answer to an embedding request."""
        return self._assembly.embeddings()

    @property
    def request(self) -> LLMRequest:
        """What was asked."""
        return self._assembly.request

    @property
    def request_id(self) -> str:
        """Our id of the request, as in the events."""
        return self._assembly.request.id

    @property
    def response(self) -> LLMResponse:
        """What has arrived so far; ``finish_reason`` is None until the answer is complete."""
        return self._assembly.response()

    def cancel(self, reason: str = "cancelled") -> None:
        """Stop the request: close its connection and raise `RequestCancelledError` at the reader.

        Safe from any thread, at any time, any number of times.  The error's ``partial`` holds what
        had arrived.
        """
        self.interrupt(RequestCancelledError(reason))

    def interrupt(self, error: LLMError) -> None:
        """`cancel` with an error of the caller's choice."""
        self._interrupter.interrupt(error)
        loop = self._interrupter.loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, the connection with it
                loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        """Close the connection even though nobody reads at the moment."""
        if not self._interrupter.waiting and self._closing is None and not self._done:
            self._closing = asyncio.get_running_loop().create_task(self._deltas.aclose())

    async def aclose(self) -> None:
        """Close the connection; nothing happens if it is closed already."""
        self._started = True
        self._closed_early = not self._ended
        if self._interrupter.waiting:
            # Another task reads right now; it gets the error and closes everything itself.
            self.cancel("closed while it was read")
        elif self._closing is not None:
            await asyncio.shield(self._closing)
        else:
            await self._deltas.aclose()

    async def __aenter__(self) -> LLMStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __await__(self) -> Generator[Any, None, LLMResponse]:
        return self._run().__await__()

    def deltas(self) -> AsyncGenerator[Delta, None]:
        """Reads it as pieces and not as events, for a provider that passes them on as its own."""
        return cast("AsyncGenerator[Delta, None]", self._read(as_deltas=True))

    def __aiter__(self) -> AsyncGenerator[LLMStreamEvent, None]:
        # A generator of its own: leaving the loop drops it, and that closes the connection, even
        # while the stream itself is still referred to.
        return self._read()

    async def _run(self) -> LLMResponse:
        """Read to the end."""
        if not self._done:
            async for _ in self._read():
                pass
        return self.response

    async def _read(self, as_deltas: bool = False) -> AsyncGenerator[LLMStreamEvent, None]:
        if self._started:
            raise RuntimeError(
                f"{self!r} has been read already; an answer can be read once, see `response`"
            )
        self._started = True
        deltas, interrupter, assembly = self._deltas, self._interrupter, self._assembly
        advance, add, callback = deltas.__anext__, assembly.add, self._callback
        try:
            while True:
                try:
                    if interrupter.error is not None:
                        raise interrupter.error
                    step = advance()
                    try:
                        waiting = step.send(None)
                    except StopIteration as there:
                        delta = there.value
                    else:
                        delta = await interrupter.rest(step, waiting)
                except StopAsyncIteration:
                    if self._closed_early:
                        # It was closed between two pieces: a part must not look like the whole.
                        raise RequestCancelledError("closed while it was read") from None
                    break
                event = add(delta)
                if as_deltas:
                    yield delta
                elif event is not None:
                    if callback is not None:
                        await self._call_back(event)
                    yield event
            last = assembly.end()
            self._done = True
            if self._callback is not None:
                await self._call_back(last)
            if not as_deltas:
                yield last
        except LLMError as error:
            error.in_context(provider_id=assembly.provider_id, request_id=assembly.request.id)
            assembly.break_off()
            if error.partial is None and assembly.pieces:
                error.partial = assembly.response()
            raise
        finally:
            assembly.break_off()
            self._ended = True
            await self.aclose()

    async def _call_back(self, event: LLMStreamEvent) -> None:
        assert self._callback is not None
        result = self._callback(event)
        if inspect.isawaitable(result):
            await result
