"""Checks of leaving an answer before its end: by break, by cancelling, by closing, by shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from dataclasses import replace
from time import monotonic

import pytest

from ...errors import RequestCancelledError
from ...messages import LLMResponse, LLMStreamEvent
from ...provider import BaseLLMProvider
from ...stream import LLMStream
from ..peer import Reply
from .base import Conformance, HttpKit
from .expect import expect, raises
from .stage import Stage, check
from .wire import WORDS

log = logging.getLogger("llm_manager.testing")

GOAL_S = 0.05
"""How soon a connection should be closed at the server; a slower one is logged, not refused."""

WAYS = ["break", "aclose", "async_with", "callback", "thread", "task", "disconnect"]
OUTCOMES = {
    "break": "abandoned",
    "aclose": "abandoned",
    "async_with": "abandoned",
    "callback": "cancelled",
    "thread": "cancelled",
    "task": "cancelled",
    "disconnect": "cancelled",
}


class LeavingChecks(Conformance):
    """What every provider does."""

    @pytest.mark.parametrize("way", WAYS)
    @check
    async def test_an_answer_can_be_left_at_any_time(self, stage: Stage, way: str) -> None:
        provider = stage.make()
        hangs = stage.plays(provider, replace(self.wanted, hang_after=1))
        if not hangs and way in ("task", "disconnect"):
            pytest.skip("the answer may be over before somebody else can end it")
        response = await leave(provider, self.model, self.prompt, way)
        left_s = monotonic()
        await self._released(stage, way, left_s)
        finished = await stage.finished(provider)
        expect(
            finished.outcome == OUTCOMES[way],
            f"a request that was left by {way} is announced as {finished.outcome!r} instead of "
            f"{OUTCOMES[way]!r}",
        )
        if hangs:
            expect(
                response.text == WORDS[0],
                f"what had arrived is {WORDS[0]!r}, and the stream says {response.text!r}",
            )
        usage = finished.usage
        expect(
            usage is not None and usage.estimated and usage.completion_tokens > 0,
            f"the tokens of a broken-off answer are estimated, not {usage}",
        )
        stage.plays(provider, self.wanted)
        again = await provider.generate_completion(self.model, self.prompt)
        expect(again.text, "the next request after that has an empty answer")

    async def _released(self, stage: Stage, way: str, left_s: float) -> None:
        """Wait until the answer's source is free again."""


class WireLeavingChecks(LeavingChecks, HttpKit):
    """What only a provider with a server does."""

    async def _released(self, stage: Stage, way: str, left_s: float) -> None:
        try:
            await stage.server.left()
        except AssertionError as error:
            expect(False, f"left by {way}, the provider does not close its connection: {error}")
        took_s = monotonic() - left_s
        level = logging.DEBUG if took_s <= GOAL_S else logging.WARNING
        log.log(level, "left by %s: closed at the server after %.1f ms", way, took_s * 1000)

    @pytest.mark.parametrize("way", ["stream", "task"])
    @check
    async def test_it_can_be_left_before_the_first_byte(self, stage: Stage, way: str) -> None:
        provider = stage.make()
        stage.server.plays(Reply(instead="hang"))
        stream = provider.stream_completion(self.model, self.prompt)
        asking = asyncio.create_task(_collected(stream))
        await stage.server.asked()
        asking.cancel() if way == "task" else stream.cancel()
        await asyncio.wait([asking])
        await self._released(stage, f"cancelling the {way} before the first byte", monotonic())
        expect(
            asking.cancelled() == (way == "task"),
            f"cancelling the {way} ends the request with {asking!r}",
        )
        stage.plays(provider, self.wanted)
        await provider.generate_completion(self.model, self.prompt)

    @check
    async def test_it_can_be_left_between_two_attempts(self, stage: Stage) -> None:
        provider = stage.make()
        stage.server.plays(self.error(503, "not now"))
        stream = provider.stream_completion(
            self.model, self.prompt, options={"retries": {"wait_s": 60.0, "wait_max_s": 60.0}}
        )
        scheduled = asyncio.Event()
        provider.on("retryScheduled", lambda event: scheduled.set())
        asking = asyncio.create_task(_collected(stream))
        await scheduled.wait()
        stream.cancel()
        with raises(RequestCancelledError, "it is cancelled while it waits for the next attempt"):
            await asking
        expect(len(stage.server.questions) == 1, "a cancelled request was sent again")

    @check
    async def test_leaving_often_does_not_use_up_its_connections(self, stage: Stage) -> None:
        provider = stage.make()
        stage.plays(provider, replace(self.wanted, hang_after=1))
        for _ in range(12):
            async for _ in provider.stream_completion(self.model, self.prompt):
                break
        await stage.server.left(12)
        stage.plays(provider, self.wanted)
        response = await provider.generate_completion(self.model, self.prompt)
        expect(response.text == self.wanted.whole_text, f"the answer is {response.text!r}")


async def leave(provider: BaseLLMProvider, model: str, prompt: str, way: str) -> LLMResponse:
    """Begin to read an answer and leave it behind its first piece; what had arrived."""
    stream: LLMStream

    def left(event: LLMStreamEvent) -> None:
        if way == "callback" and _is_content(event):
            stream.cancel()
        elif way == "thread" and _is_content(event):
            thread = threading.Thread(target=stream.cancel)
            thread.start()
            thread.join()

    stream = provider.stream_completion(model, prompt, callback=left)
    if way in ("callback", "thread"):
        with raises(RequestCancelledError, f"it is cancelled by a {way}"):
            await stream
    elif way == "break":
        await _read_one_piece(stream)
    elif way == "aclose":
        await _read_one_piece(stream)
        await stream.aclose()
    elif way == "async_with":
        async with stream:
            await _read_one_piece(stream)
    else:
        await _ended_by_another(provider, stream, way)
    return stream.response


async def _ended_by_another(provider: BaseLLMProvider, stream: LLMStream, way: str) -> None:
    """Let a task read, and end it by its cancellation or by a shutdown of the provider."""
    begun = asyncio.Event()

    async def read() -> None:
        async for event in stream:
            if _is_content(event):
                begun.set()

    reading = asyncio.create_task(read())
    await begun.wait()
    if way == "task":
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    else:
        await provider.disconnect(0)
        with raises(RequestCancelledError, "the provider is disconnected meanwhile"):
            await reading


async def _read_one_piece(stream: LLMStream) -> None:
    async for event in stream:
        if _is_content(event):
            break


def _is_content(event: LLMStreamEvent) -> bool:
    """Whether it is a piece of the answer; token counts may come before the first."""
    return event.kind != "usage"


async def _collected(stream: LLMStream) -> LLMResponse:
    return await stream
