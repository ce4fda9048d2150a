"""Clocks: an answer begins, goes on and ends in time, or the request ends with an error.

The clocks look at pieces of the answer, not at bytes: a server that keeps a dead stream warm with
comments does not fool them.  They run only while we wait for the provider; a reader may take its
time.  The connect clock needs to see the connection and is kept by the transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import inf

import msgspec

from ..errors import LLMError, RequestTimeoutError, StreamInterruptedError
from ..interrupt import Interrupter
from ..messages import Delta, LLMRequest, Timeouts, merged
from . import Exchange, Publish

DEFAULT_TIMEOUTS = Timeouts(connect_s=10.0, first_token_s=120.0, idle_s=60.0, total_s=3600.0)
"""For services on the network."""

LOCAL_TIMEOUTS = Timeouts(connect_s=3.0, first_token_s=inf, idle_s=120.0, total_s=inf)
"""For servers on this machine, which may load a model before the first token."""


class DeadlinePolicy:
    """Ends requests whose provider takes too long.

    Args:
        timeouts: used where neither the request nor its provider says otherwise.
    """

    def __init__(self, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        self.timeouts = merged(timeouts, DEFAULT_TIMEOUTS)

    def wrap(self, exchange: Exchange, publish: Publish) -> Exchange:
        async def timed(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            given = request.options.timeouts
            timeouts = self.timeouts if given is None else merged(given, self.timeouts)
            if timeouts != given:
                # The connect clock is the transport's, which finds it here.
                options = msgspec.structs.replace(request.options, timeouts=timeouts)
                request = msgspec.structs.replace(request, options=options)
            clock = _Clock(timeouts)
            guard, now = clock.guard, asyncio.get_running_loop().time
            try:
                async with aclosing(exchange(request)) as deltas:
                    advance = deltas.__anext__
                    while True:
                        # Every piece comes through here; what can be done when the timer fires,
                        # which is seldom, is done there.
                        if guard.error is not None:
                            raise guard.error
                        step = advance()
                        try:
                            waiting = step.send(None)
                        except StopIteration as there:
                            delta = there.value
                        except StopAsyncIteration:
                            return
                        else:
                            clock.waiting_since_s = now()
                            try:
                                delta = await guard.rest(step, waiting)
                            except StopAsyncIteration:
                                return
                        clock.pieces += 1
                        if clock.pieces == 1:
                            clock.arm()
                        yield delta
            finally:
                clock.stop()

        return timed


class _Clock:
    """The clocks of one request, on one timer that is moved only when it fires."""

    __slots__ = ("_began_s", "_loop", "_timeouts", "_timer", "guard", "pieces", "waiting_since_s")

    def __init__(self, timeouts: Timeouts) -> None:
        self.guard = Interrupter()
        self.pieces = 0
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._began_s = self.waiting_since_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self.arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def arm(self) -> None:
        """Set the timer to the clock that runs out first.

        Called at the start and with the first piece, when the idle clock, usually the shorter
        one, takes over; later ones only move the end that the timer finds when it fires.
        """
        self.stop()
        due, _ = self._next()
        self._timer = None if due == inf else self._loop.call_at(due, self._fired)

    def _fired(self) -> None:
        due, error = self._next()
        if self._loop.time() >= due:
            self.guard.interrupt(error)
        else:
            self.arm()

    def _next(self) -> tuple[float, LLMError]:
        """The clock that runs out first: its time on the loop's clock, and its error."""
        limits, began = self._timeouts, self._began_s
        total = _limit(limits.total_s)
        if self.pieces:
            silent = _limit(limits.idle_s)
            since = self.waiting_since_s if self.guard.waiting else self._loop.time()
            due, error = since + silent, self._silent(silent)
        else:
            first = _limit(limits.first_token_s)
            due, error = began + first, _no_first_token(first)
        return (due, error) if due <= began + total else (began + total, _too_long(total))

    def _silent(self, silent_s: float) -> LLMError:
        return StreamInterruptedError(
            f"the answer fell silent for {silent_s:g} s after {self.pieces} pieces",
            code="idle_timeout",
            hint="raise timeouts.idle_s if this model is known to pause",
        )


def _limit(seconds: float | None) -> float:
    return inf if seconds is None else seconds


def _no_first_token(limit_s: float) -> LLMError:
    return RequestTimeoutError(
        f"no first token within {limit_s:g} s of sending",
        code="first_token_timeout",
        hint="raise timeouts.first_token_s if this model thinks or loads for longer",
    )


def _too_long(limit_s: float) -> LLMError:
    return RequestTimeoutError(
        f"the request took longer than {limit_s:g} s in total",
        code="total_timeout",
        retryable=False,
        hint="raise timeouts.total_s, or limit the answer with max_tokens",
    )
