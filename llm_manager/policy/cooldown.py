"""Does not send what the service has said it would refuse.

A service that answered "too many requests" names a time to come back, and many tell with each
answer what is left.  To ask anyway costs a round trip, and often a longer wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Literal, NamedTuple

from .._threads import reset_after_fork
from ..checks import check_number
from ..clock import SYSTEM_CLOCK, Clock, utc_now
from ..errors import RateLimitError
from ..events import RequestQueued
from ..messages import Delta, LLMRequest
from ..status import LLMProviderStatus, RateLimits
from ..tokens import estimate_prompt_tokens, is_long
from . import Exchange, Host

# Another answer may show that the wait is over; this often somebody looks.
_LOOK_AGAIN_S = 1.0


class CooldownPolicy:
    """Waits, visibly, until the service takes requests again; fails at once if that takes long.

    It looks at the snapshot: at ``cooldown_until``, and at ``rate_limits``, from which the requests
    sent since are counted off.  The tokens of a request are estimated; one that is larger than the
    whole allowance is sent, because waiting does not help it.  A wait is announced as
    ``requestQueued`` and counted in ``queued``.  ``options.force`` passes.

    Args:
        wait_max_s: how long a request waits here at most, in seconds, all its waits together; what
            would take longer raises `RateLimitError` with the code ``cooling_down`` and
            ``retry_at``.
        clock: what time it is.

    Raises:
        InvalidParameterError: a number cannot be.
    """

    def __init__(self, wait_max_s: float = 10.0, *, clock: Clock = SYSTEM_CLOCK) -> None:
        check_number("wait_max_s", wait_max_s, low=0)
        self.wait_max_s = wait_max_s
        self.clock = clock

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        allowance = _Allowance(self.clock)

        def cooled(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            status, tokens = host.status, 0
            if status.cooldown_until is None and status.rate_limits is None:
                return exchange(request)
            if status.rate_limits is not None and status.rate_limits.tokens_left is not None:
                if is_long(request):
                    return estimated(request)
                tokens = estimate_prompt_tokens(request)
            wait = allowance.take(request, tokens, status)
            # Nothing stands between an answer and its reader if there was nothing to wait for.
            return exchange(request) if wait is None else waited(request, tokens, wait)

        async def estimated(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            tokens = await asyncio.to_thread(estimate_prompt_tokens, request)
            wait = allowance.take(request, tokens, host.status)
            async with aclosing(waited(request, tokens, wait)) as deltas:
                async for delta in deltas:
                    yield delta

        async def waited(
            request: LLMRequest, tokens: int, wait: _Wait | None
        ) -> AsyncGenerator[Delta, None]:
            if wait is not None:
                await self._wait(request, tokens, wait, allowance, host)
            async with aclosing(exchange(request)) as deltas:
                async for delta in deltas:
                    yield delta

        return cooled

    async def _wait(
        self, request: LLMRequest, tokens: int, wait: _Wait, allowance: _Allowance, host: Host
    ) -> None:
        """Return when ``request`` may be sent."""
        loop = asyncio.get_running_loop()
        began_s, announced = loop.time(), None
        following: _Wait | None = wait
        host.count_queued(+1)
        try:
            while following is not None:
                left_s = self.wait_max_s - (loop.time() - began_s)
                wait = following
                wait_s = (wait.until - utc_now(self.clock)).total_seconds()
                if wait_s > left_s:
                    raise _too_long(wait, wait_s)
                if wait != announced:
                    announced = wait
                    host.publish(
                        RequestQueued(request_id=request.id, reason=wait.reason, until=wait.until)
                    )
                await asyncio.sleep(min(max(wait_s, 0.0), _LOOK_AGAIN_S))
                following = allowance.take(request, tokens, host.status)
        finally:
            host.count_queued(-1)


class _Wait(NamedTuple):
    """Why and until when a request is not sent."""

    reason: Literal["cooldown", "rate_limit"]
    until: datetime


class _Allowance:
    """What is left for one provider, the requests sent since it was told counted off."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: RateLimits | None = None
        self._told_at = utc_now(clock)
        self._requests = self._tokens = 0
        reset_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def take(self, request: LLMRequest, tokens: int, status: LLMProviderStatus) -> _Wait | None:
        """Count a request with a prompt of so many tokens off, or say what it has to wait for."""
        force, now = request.options.force, utc_now(self._clock)
        until = status.cooldown_until
        if until is not None and until > now and not force:
            return _Wait("cooldown", until)
        told = status.rate_limits
        if told is None:
            return None
        with self._lock:
            if told is not self._told:
                self._told, self._told_at, self._requests, self._tokens = told, now, 0, 0
            until = self._refilled_at(told, tokens, now)
            if until is not None and not force:
                return _Wait("rate_limit", until)
            self._requests += 1
            self._tokens += tokens
            return None

    def _refilled_at(self, told: RateLimits, tokens: int, now: datetime) -> datetime | None:
        """When there will be enough, or None if there is, or nobody can tell."""
        if now < self._told_at:
            return None  # somebody has set the time of day back, and the moments mean nothing now
        lacking = []
        if told.requests_left is not None and told.requests_left <= self._requests:
            lacking.append(told.requests_reset_at)
        fits = told.tokens_limit is None or tokens < told.tokens_limit
        if told.tokens_left is not None and told.tokens_left - self._tokens < tokens and fits:
            lacking.append(told.tokens_reset_at)
        ahead = [moment for moment in lacking if moment is not None and moment > now]
        return max(ahead, default=None)


def _too_long(wait: _Wait, wait_s: float) -> RateLimitError:
    why = (
        "the service asked us to wait"
        if wait.reason == "cooldown"
        else "the service said that nothing is left for now"
    )
    return RateLimitError(
        f"not sent: {why}, for {wait_s:.0f} s more",
        code="cooling_down",
        retry_after_s=wait_s,
        retry_at=wait.until,
        hint="ask again then, or set force=True in the options to send it at once",
    )
