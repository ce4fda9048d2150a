"""Asking a provider whether it is there: how one probe goes, and how often idle ones are sent.

What an answer means for the status is the connection's part.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from .clock import Clock, utc_now
from .emitter import EventEmitter
from .errors import LLMError, RequestTimeoutError, as_llm_error
from .events import HealthCheck
from .machine import StatusMachine
from .status import ErrorInfo, ProviderStatus, Reason

QUICK_S = 2.0
_PATIENCE_S = 8.0


class Prober:
    """Sends probes to one provider.

    Args:
        emitter, machine: where they are announced.
        ask: asks the provider; returns whether it has a model to offer, or None if unknown.
        pieces: how much has come of the running answers so far.
        clock: what time it is.
        quick_s: a probe that takes longer shows that the provider is slow; one that takes this and
            8 seconds more has failed.
    """

    def __init__(
        self,
        emitter: EventEmitter,
        machine: StatusMachine,
        ask: Callable[[], Coroutine[Any, Any, bool | None]],
        pieces: Callable[[], int],
        clock: Clock,
        quick_s: float,
    ) -> None:
        self.quick_s = quick_s
        self._emitter = emitter
        self._machine = machine
        self._ask = ask
        self._pieces = pieces
        self._clock = clock

    async def probe(self, epoch: int) -> bool | None:
        """Ask something cheap; what is not answered quickly shows at once that it is slow.

        Returns:
            Whether it has a model to offer; None if that is not known.

        Raises:
            LLMError: it cannot be used, or did not answer in time and says nothing else either.
        """
        provider_id = self._machine.state.provider_id
        publish, clock = self._emitter.publish, self._clock
        publish(HealthCheck(provider_id=provider_id, phase="started"))
        began_s, pieces = clock.monotonic(), self._pieces()
        slow = asyncio.get_running_loop().call_later(self.quick_s, self._is_slow, epoch)

        def latency_ms() -> float:
            return round((clock.monotonic() - began_s) * 1000, 3)

        try:
            async with asyncio.timeout(self.quick_s + _PATIENCE_S):
                has_models = await self._ask()
        except TimeoutError:
            if self._pieces() > pieces:
                # It is busy answering: that proves more than the probe could.
                self._machine.measure(latency_ms=latency_ms())
                return None
            failure: LLMError = RequestTimeoutError(
                f"no answer to a probe within {self.quick_s + _PATIENCE_S:g} s"
            )
        except Exception as error:  # noqa: BLE001 - a provider's author may raise anything
            failure = as_llm_error(error)
        else:
            self._machine.measure(latency_ms=latency_ms(), verified_at=utc_now(clock))
            publish(
                HealthCheck(provider_id=provider_id, phase="succeeded", latency_ms=latency_ms())
            )
            return has_models
        finally:
            slow.cancel()
        publish(
            HealthCheck(
                provider_id=provider_id,
                phase="failed",
                latency_ms=latency_ms(),
                error=ErrorInfo.of(failure),
            )
        )
        raise failure.in_context(provider_id=provider_id)

    def _is_slow(self, epoch: int) -> None:
        if self._machine.state.status is ProviderStatus.CONNECTED:
            self._machine.change(ProviderStatus.DEGRADED, Reason.SLOW, epoch=epoch)


class Poller:
    """Calls ``look`` again and again, on the loop where it was begun, until that says no.

    Args:
        look: a method, held weakly: who forgets a provider must not be kept from losing it.
        interval_s: seconds between two calls; None or infinity: never.
    """

    def __init__(self, look: Callable[[float], bool], interval_s: float | None) -> None:
        self.interval_s = interval_s
        self._look = weakref.WeakMethod(look)
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Begin on the running loop, unless a running loop does it already."""
        interval_s = self.interval_s
        if interval_s is None or interval_s == math.inf:
            return
        if self._loop is not None and self._loop.is_running():
            return
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:  # called where no loop runs: the next request will tell
            return
        self._loop.call_later(interval_s, _poll, weakref.ref(self), interval_s)

    def _call(self, interval_s: float) -> None:
        look, self._loop = self._look(), None
        if look is not None and look(interval_s):
            self.begin()


def _poll(poller: weakref.ref[Poller], interval_s: float) -> None:
    alive = poller()
    if alive is not None:
        alive._call(interval_s)
