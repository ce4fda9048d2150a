"""The attempts after the first one has failed: when, how many, and announced.

A module of its own, because the library behind it is loaded when a request has failed, and not
with every program: most requests do not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from ..checks import YEAR_S
from ..errors import LLMError, as_llm_error
from ..events import RetryScheduled
from ..messages import LLMRequest, Retries
from ..status import ErrorInfo
from . import Host
from .retry import Opened, RetryBudget, is_worth_it


async def try_again(
    send: Callable[[], Awaitable[Opened]],
    failed: Exception,
    request: LLMRequest,
    retries: Retries,
    budget: RetryBudget,
    host: Host,
) -> Opened:
    """Send ``request`` again, and again, as long as that may help.

    Args:
        send: one attempt.
        failed: how the first one ended.
        request: what is sent.
        retries: how often, and after which waits.
        budget: pays for each attempt.
        host: where they are announced.

    Raises:
        Exception: what the last attempt raised.
    """
    of = retries.attempts or 1
    longest_s = min(retries.wait_max_s or 0.0, YEAR_S)
    backoff = wait_random_exponential(
        multiplier=min(retries.wait_s or 0.0, longest_s), max=longest_s
    )
    first = [failed]

    async def attempt() -> Opened:
        if first:
            raise first.pop()
        return await send()

    def worth_it(error: BaseException) -> bool:
        return isinstance(error, Exception) and is_worth_it(error, retries)

    def stop(state: RetryCallState) -> bool:
        return stop_after_attempt(of)(state) or not budget.take(_error(state))

    def wait(state: RetryCallState) -> float:
        asked_s = _error(state).retry_after_s
        return 0.0 if asked_s == 0 else max(backoff(state), asked_s or 0.0)

    def announce(state: RetryCallState) -> None:
        wait_s = state.next_action.sleep if state.next_action else 0.0
        host.publish(
            RetryScheduled(
                request_id=request.id,
                attempt=state.attempt_number,
                of=of,
                wait_s=wait_s,
                retry_at=datetime.now(UTC) + timedelta(seconds=wait_s),
                error=ErrorInfo.of(_error(state)),
            )
        )

    attempts = AsyncRetrying(
        stop=stop,
        wait=wait,
        retry=retry_if_exception(worth_it),
        before_sleep=announce,
        reraise=True,
    )
    return await attempts(attempt)


def _error(state: RetryCallState) -> LLMError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Exception)  # `worth_it` lets nothing else through
    return as_llm_error(error)
