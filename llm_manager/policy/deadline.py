"""Clocks: an answer begins, goes on and ends in time, or the request ends with an error.

The clocks look at pieces of the answer and at signs of life (`KeepAliveDelta`), which keep the idle
clock from running out but not the one for content: a server that keeps a dead stream warm with
comments does not fool them for ever.  They run only while we wait for the provider; a reader may
take its time.  The connect clock needs to see the connection and is kept by the transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from functools import partial
from math import inf
from operator import itemgetter

import msgspec

from ..checks import check_type
from ..errors import LLMError, RequestTimeoutError, StreamInterruptedError
from ..events import StreamStalled
from ..interrupt import Interrupter
from ..messages import Delta, KeepAliveDelta, LLMRequest, Timeouts, merged
from . import Exchange, Host

DEFAULT_TIMEOUTS = Timeouts(
    connect_s=10.0, first_token_s=120.0, idle_s=60.0, content_idle_s=300.0, total_s=3600.0
)
"""For services on the network."""

LOCAL_TIMEOUTS = Timeouts(
    connect_s=3.0, first_token_s=inf, idle_s=120.0, content_idle_s=600.0, total_s=inf
)
"""For servers on this machine, which may load a model before the first token."""

# A silence is announced when half of its limit has passed, and not later than this.
_STALLED_S = 15.0
# A timer that fires later than this shows that the process, not the provider, stood still.
_LATE_S = 5.0


class DeadlinePolicy:
    """Ends requests whose provider takes too long.

    An answer that has fallen silent is announced as ``streamStalled`` some time before that.  Time
    in which this process stood still does not count.

    Args:
        timeouts: used where neither the request nor its provider says otherwise.

    Raises:
        InvalidParameterError: ``timeouts`` is something else.
    """

    def __init__(self, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        check_type("timeouts", timeouts, Timeouts)
        self.timeouts = merged(timeouts, DEFAULT_TIMEOUTS)

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        async def timed(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            given = request.options.timeouts
            timeouts = self.timeouts if given is None else merged(given, self.timeouts)
            if timeouts != given:
                # The connect clock is the transport's, which finds it here.
                options = msgspec.structs.replace(request.options, timeouts=timeouts)
                request = msgspec.structs.replace(request, options=options)
            clock = _Clock(timeouts, request.id, host)
            guard, now, sign_of_life = clock.guard, asyncio.get_running_loop().time, KeepAliveDelta
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
                        if type(delta) is sign_of_life:
                            clock.is_alive()
                            continue
                        clock.pieces += 1
                        if clock.pieces == 1:
                            clock.arm()
                        yield delta
            finally:
                clock.stop()

        return timed


class _Clock:
    """The clocks of one request, on one timer that is moved only when it fires.

    Attributes:
        guard: what the clocks end.
        pieces: how many pieces of the answer have come.
        waiting_since_s: when we last began to wait, on the loop's clock.
    """

    __slots__ = (
        "_alive_at_piece", "_announced", "_began_s", "_due_s", "_host", "_last_piece_s", "_loop",
        "_request_id", "_timeouts", "_timer", "guard", "pieces", "waiting_since_s",
    )  # fmt: skip

    def __init__(self, timeouts: Timeouts, request_id: str, host: Host) -> None:
        self.guard = Interrupter()
        self.pieces = 0
        self._timeouts = timeouts
        self._request_id = request_id
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._began_s = self.waiting_since_s = self._last_piece_s = self._loop.time()
        self._alive_at_piece = -1
        self._announced: set[tuple[int, bool]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = inf
        self.arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def is_alive(self) -> None:
        """Something has come, only no piece of the answer."""
        if self._alive_at_piece != self.pieces:
            self._alive_at_piece = self.pieces
            self._last_piece_s = self._loop.time()
            self.arm()

    def arm(self) -> None:
        """Set the timer to what is due next.

        Called at the start, and whenever a clock takes over that may be shorter: with the first
        piece, and with the first sign of life after a piece.  Later ones only move the end that the
        timer finds when it fires.
        """
        self.stop()
        now_s = self._loop.time()
        end_s, _ = self._end(now_s)
        self._due_s = min([end_s, *(warn_s for warn_s, *_ in self._warnings(now_s))])
        if self.pieces:
            # A silence that begins in a moment has to be announced in time as well.
            self._due_s = min(self._due_s, now_s + _warn_after_s(min(self._silence_limits_s())))
        self._timer = None if self._due_s == inf else self._loop.call_at(self._due_s, self._fired)

    def _fired(self) -> None:
        now_s = self._loop.time()
        late_s = now_s - self._due_s
        if late_s > _LATE_S:
            self._forgive(late_s, now_s)
        end_s, error = self._end(now_s)
        if now_s >= end_s:
            self.guard.interrupt(error())
            return
        for warn_s, since_s, alive in self._warnings(now_s):
            if now_s >= warn_s:
                self._announced.add((self.pieces, alive))
                self._host.publish(
                    StreamStalled(
                        request_id=self._request_id,
                        silent_s=now_s - since_s,
                        fails_in_s=end_s - now_s,
                        alive=alive,
                    )
                )
        self.arm()

    def _forgive(self, late_s: float, now_s: float) -> None:
        """The process stood still, and so do the clocks for that time."""
        self._began_s += late_s
        self.waiting_since_s = min(self.waiting_since_s + late_s, now_s)
        self._last_piece_s = min(self._last_piece_s + late_s, now_s)

    def _end(self, now_s: float) -> tuple[float, Callable[[], LLMError]]:
        """The clock that runs out first: its time, and what makes its error."""
        limits, began_s = self._timeouts, self._began_s
        first_s, total_s = _limit(limits.first_token_s), _limit(limits.total_s)
        idle_s, content_s = self._silence_limits_s()
        ends: list[tuple[float, Callable[[], LLMError]]] = [
            (began_s + total_s, partial(_too_long, total_s))
        ]
        if self.pieces:
            silent_since_s, no_content_since_s = self._silent_since(now_s)
            ends += [
                (silent_since_s + idle_s, partial(_silent, idle_s, self.pieces)),
                (no_content_since_s + content_s, partial(_no_content, content_s, self.pieces)),
            ]
        else:
            ends.append((began_s + first_s, partial(_no_first_token, first_s)))
        return min(reversed(ends), key=itemgetter(0))

    def _warnings(self, now_s: float) -> Iterator[tuple[float, float, bool]]:
        """What is to be announced: when, the beginning of the silence, whether life shows."""
        if self.pieces:
            silent_since_s, no_content_since_s = self._silent_since(now_s)
            idle_s, content_s = self._silence_limits_s()
            alive = no_content_since_s < silent_since_s
            if (self.pieces, False) not in self._announced:
                limit_s = idle_s if alive else min(idle_s, content_s)
                yield silent_since_s + _warn_after_s(limit_s), silent_since_s, False
            if alive and (self.pieces, True) not in self._announced:
                yield no_content_since_s + _warn_after_s(content_s), no_content_since_s, True

    def _silent_since(self, now_s: float) -> tuple[float, float]:
        """Since when nothing has come, and since when no piece of the answer has."""
        if not self.guard.waiting:
            return now_s, now_s
        alive = self._alive_at_piece == self.pieces
        return self.waiting_since_s, self._last_piece_s if alive else self.waiting_since_s

    def _silence_limits_s(self) -> tuple[float, float]:
        return _limit(self._timeouts.idle_s), _limit(self._timeouts.content_idle_s)


def _limit(seconds: float | None) -> float:
    return inf if seconds is None else seconds


def _warn_after_s(limit_s: float) -> float:
    return inf if limit_s == inf else min(limit_s / 2, _STALLED_S)


def _no_first_token(limit_s: float) -> LLMError:
    return RequestTimeoutError(
        f"no first token within {limit_s:g} s of sending",
        code="first_token_timeout",
        hint="raise timeouts.first_token_s if this model thinks or loads for longer",
    )


def _silent(limit_s: float, pieces: int) -> LLMError:
    return StreamInterruptedError(
        f"the answer fell silent for {limit_s:g} s after {pieces} pieces",
        code="idle_timeout",
        hint="raise timeouts.idle_s if this model is known to pause",
    )


def _no_content(limit_s: float, pieces: int) -> LLMError:
    return StreamInterruptedError(
        f"the connection is alive, but the answer has not gone on for {limit_s:g} s "
        f"after {pieces} pieces",
        code="content_idle_timeout",
        hint="raise timeouts.content_idle_s if this model is known to think for longer",
    )


def _too_long(limit_s: float) -> LLMError:
    return RequestTimeoutError(
        f"the request took longer than {limit_s:g} s in total",
        code="total_timeout",
        retryable=False,
        hint="raise timeouts.total_s, or limit the answer with max_tokens",
    )
