"""Leaves a provider alone that fails again and again, and finds out when it can be used.

::

    closed --- too many failures --> open --- its time is over --> half open
       ^                              ^                                |
       |                              +---- the one request failed ----+
       +------------------------------- the one request was answered --+

Only what the provider is to blame for counts: no connection, time-outs, 5xx and overload, answers
that break off.  A refusal (4xx, a rate limit, a filter) is an answer, and a request that was
stopped or never sent says nothing.

A server that goes away takes with it all answers that are on their way: their failures are one.

The provider's snapshot has the last word.  If it says that the circuit is closed, somebody else,
a probe for example, has found the provider usable, and counting begins anew; so it does with every
epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ..checks import YEAR_S, check_number
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import LLMError, ProviderError, RequestCancelledError, as_llm_error
from ..messages import Delta, LLMRequest
from ..status import Reason, is_evidence, is_hard_failure, is_soft_failure
from . import Exchange, Host
from .circuit_state import Circuit, Outcome, Passage

# Errors of our own side, which never reached the provider.
_OURS = frozenset({"draining", "closed", Reason.UNEXPECTED})


class CircuitBreaker:
    """Refuses requests at once while a provider fails, instead of letting each of them wait.

    It opens after ``failures_in_a_row``, or when of at least ``least_requests`` in the last
    ``window_s`` a share of ``failure_share`` has failed.  While it is open, requests raise
    `CircuitOpenError`, whose ``retry_at`` says until when; ``options.force`` passes.  Then it is
    half open: one request is sent.  It closes when that one is answered to the end, or breaks off
    for a reason that is not the provider's; its failure doubles the open time.  If that request
    is cancelled, or has not ended after ``open_s``, the next one is sent as well.

    The n-th opening lasts n times ``open_s``; n goes down by one with each minute without a
    failure.  The figures are Envoy's outlier detection and gRPC's proposal A50.

    Args:
        failures_in_a_row: 1 or more.
        failure_share: of the requests in the window, above 0 and at most 1.
        least_requests: fewer in the window prove nothing by their share.
        window_s, open_s, open_max_s: in seconds.
        jitter: how far an open time may be off, as a share of it, so that many clients do not
            come back at once; it never becomes longer than ``open_max_s``.
        clock: what time it is.

    Raises:
        InvalidParameterError: a number cannot be.
    """

    def __init__(
        self,
        failures_in_a_row: int = 5,
        failure_share: float = 0.5,
        *,
        least_requests: int = 10,
        window_s: float = 60.0,
        open_s: float = 30.0,
        open_max_s: float = 300.0,
        jitter: float = 0.2,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_number("failures_in_a_row", failures_in_a_row, low=1, whole=True)
        check_number("failure_share", failure_share, above=0, high=1)
        check_number("least_requests", least_requests, low=1, whole=True)
        check_number("window_s", window_s, above=0)
        check_number("open_s", open_s, above=0, high=YEAR_S)
        check_number("open_max_s", open_max_s, low=open_s, high=YEAR_S)
        check_number("jitter", jitter, low=0, high=1)
        self.failures_in_a_row = failures_in_a_row
        self.failure_share = failure_share
        self.least_requests = least_requests
        self.window_s = window_s
        self.open_s = open_s
        self.open_max_s = open_max_s
        self.jitter = jitter
        self.clock = clock

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        circuit = Circuit(self, host)

        async def guarded(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            passage = circuit.enter(forced=request.options.force)
            begun = False
            outcome: Outcome = "unknown"
            failure: LLMError | None = None
            try:
                async with aclosing(exchange(request)) as deltas:
                    async for delta in deltas:
                        begun = True
                        yield delta
                outcome = "answered"
            except (GeneratorExit, asyncio.CancelledError):
                outcome = _when_stopped(passage, begun)
                raise
            except Exception as error:  # whatever it is, it is looked at and raised again
                failure = as_llm_error(error)
                stopped = isinstance(error, RequestCancelledError)
                outcome = _when_stopped(passage, begun) if stopped else _judged(failure, begun)
                raise
            finally:
                circuit.leave(passage, outcome, failure)

        return guarded


def _when_stopped(passage: Passage, begun: bool) -> Outcome:
    """An answer that was on its way shows that the provider answers, if not that it can finish."""
    return "answered" if begun and passage.kind == "usual" else "unknown"


def _judged(error: LLMError, begun: bool) -> Outcome:
    """What a failed request says about the provider."""
    sent = isinstance(error, ProviderError) and is_evidence(error) and error.code not in _OURS
    if not sent or (begun and error.code == "total_timeout"):
        return "unknown"  # a long answer is not a bad one
    return "failed" if is_hard_failure(error) or is_soft_failure(error) else "answered"
