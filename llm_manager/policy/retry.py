"""Retries: visible, bounded, and only while nothing of the answer has been handed out.

Once a piece of the answer has reached the reader, a failure ends the stream: a second answer
would not continue the first one.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import TypeAlias, cast

from .._threads import reset_after_fork
from ..checks import check_number, check_type
from ..errors import LLMError, RequestTimeoutError, as_llm_error
from ..messages import Delta, KeepAliveDelta, LLMRequest, Retries, merged
from . import Exchange, Host

Opened: TypeAlias = tuple[Delta | None, AsyncGenerator[Delta, None]]
"""The first piece of an answer, if there is one, and the rest."""

DEFAULT_RETRIES = Retries(attempts=3, wait_s=0.5, wait_max_s=20.0, retry_after_max_s=60.0)


class RetryPolicy:
    """Sends a request again when its error says that this may help.

    The wait doubles with each attempt and is drawn at random up to its bound ("full jitter"), so
    that many clients do not come back at once.  A wait that the provider asks for counts if it is
    longer, and one of 0 means at once; one above ``retry_after_max_s`` ends the request instead of
    sleeping silently, with an error whose ``retry_at`` says when it makes sense again.

    A token bucket per provider (`RetryBudget`) keeps an outage from multiplying the traffic: with
    50 tokens, ten retries (five after time-outs), then one for each five successes.

    Args:
        retries: used where neither the request nor its provider says otherwise.
        budget_tokens: size of the token bucket, at least 0; with fewer than 5, nothing is retried.

    Raises:
        InvalidParameterError: an argument cannot be.
    """

    def __init__(self, retries: Retries = DEFAULT_RETRIES, *, budget_tokens: int = 50) -> None:
        check_type("retries", retries, Retries)
        check_number("budget_tokens", budget_tokens, low=0, whole=True)
        self.retries = merged(retries, DEFAULT_RETRIES)
        self._budget_tokens = budget_tokens

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        budget = RetryBudget(self._budget_tokens)

        async def retrying(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            given = request.options.retries
            retries = self.retries if given is None else merged(given, self.retries)

            async def send() -> Opened:
                deltas = exchange(request)
                try:
                    return await _first_piece(deltas), deltas
                except BaseException:  # also when cancelled, the connection is closed
                    await deltas.aclose()
                    raise

            failed: Exception | None = None
            try:
                try:
                    first, rest = await send()
                except Exception as error:  # a provider class may let out anything
                    if retries.attempts == 1 or not is_worth_it(error, retries):
                        raise
                    failed = error
                if failed is not None:  # here, where the next failure does not mention it
                    try_again = (await _loaded()).try_again
                    first, rest = await try_again(send, failed, request, retries, budget, host)
            except LLMError as error:
                _say_when_to_come_back(error, retries)
                raise
            finally:
                failed = None  # which would keep this frame, and be kept by it
            async with aclosing(rest):
                if first is not None:
                    yield first
                async for delta in rest:
                    yield delta
            budget.refund()

        return retrying


class RetryBudget:
    """A token bucket: a retry takes 5 tokens, one after a timeout 10, a success gives 1 back.

    The figures are those of the AWS SDKs' standard retry mode (botocore, ``retries/quota.py``),
    scaled to the smaller bucket of a desktop process.
    """

    def __init__(self, tokens: int) -> None:
        self._size = self._tokens = tokens
        self._lock = threading.Lock()
        reset_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def take(self, error: BaseException) -> bool:
        """Pay for one retry; False if there is not enough left."""
        price = 10 if isinstance(error, RequestTimeoutError) else 5
        with self._lock:
            if self._tokens < price:
                return False
            self._tokens -= price
            return True

    def refund(self) -> None:
        with self._lock:
            self._tokens = min(self._size, self._tokens + 1)


async def _first_piece(deltas: AsyncGenerator[Delta, None]) -> Delta | None:
    """The first piece of the answer; None if there is none.  Signs of life are none."""
    async for delta in deltas:
        if type(delta) is not KeepAliveDelta:
            return delta
    return None


def _say_when_to_come_back(error: LLMError, retries: Retries) -> None:
    asked_s, bound_s = error.retry_after_s, retries.retry_after_max_s
    if asked_s is None or error.retry_at is not None:
        return
    error.retry_at = datetime.now(UTC) + timedelta(seconds=asked_s)
    if bound_s is not None and asked_s > bound_s:
        error.hint = (
            f"the provider asks to wait for {asked_s:.0f} s, which is more than "
            f"retries.retry_after_max_s ({bound_s:g} s) allows; ask again after {error.retry_at:%X}"
            " UTC"
        )


def is_worth_it(error: Exception, retries: Retries) -> bool:
    """Whether sending it again may help, and soon enough."""
    known = as_llm_error(error)
    asked_s, bound_s = known.retry_after_s, retries.retry_after_max_s
    if not known.retryable:
        return False
    return asked_s is None or bound_s is None or asked_s <= bound_s


async def _loaded() -> ModuleType:
    """The module that tries again; tenacity takes longer to load than a request to send."""
    name = f"{__package__}.attempts"
    module = sys.modules.get(name)
    if hasattr(module, "try_again"):  # and is not just being loaded by another thread
        return cast(ModuleType, module)
    return await asyncio.to_thread(importlib.import_module, name)
