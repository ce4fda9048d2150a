"""Gives an earlier answer again instead of asking for it once more.

A hit is shown in the response and in the events, costs nothing, and needs neither a connection nor
a place among the requests that run.  What fails in the cache never fails a request.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Iterable

from ..checks import check_number, check_type, shown
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidParameterError, LLMError, as_llm_error
from ..events import ErrorOccurred
from ..messages import Data, Delta, LLMRequest, MetaDelta
from ..status import ErrorInfo
from . import Exchange, Host
from .cache_answer import follows, is_worth_keeping, packed, unpacked
from .cache_key import cache_key
from .cache_store import CacheStore, MemoryStore
from .patterns import model_filter

log = logging.getLogger("llm_manager.cache")

# So many pieces are given again before others have their turn on the event loop.
_PIECES_PER_TURN = 256


class CacheStats(Data, frozen=True, kw_only=True):
    """How a cache does.

    Attributes:
        hits: requests that were answered from it.
        misses: requests that were looked for in vain, refreshed ones included.
        stored: answers that were put into it.
        failures: how often the store could not do what it was asked to.
        entries: how many answers it holds; of a file, as of the last time that it was looked at.
        size_bytes: how many bytes they have.
    """

    hits: int = 0
    misses: int = 0
    stored: int = 0
    failures: int = 0
    entries: int = 0
    size_bytes: int = 0


class CachePolicy:
    """Keeps whole answers, and gives them again, piece by piece, to requests that are the same.

    ::

        manager.add_policy(CachePolicy())

    By itself it serves only requests that are meant to be repeatable: with ``temperature`` 0, with
    a ``seed``, or for embeddings.  ``response_cache="use"`` in the options says so of any other
    request; ``"refresh"`` asks anew and keeps the new answer; ``"off"`` leaves the cache out.

    Kept are answers that came to their end: no failures, nothing that was broken off, cancelled or
    filtered, and none that was cut off unless the request gave ``max_tokens``.

    One object given to several providers is one cache, in which each provider finds its own
    answers only.  A provider that passes requests on to others is left to theirs.  Two equal
    requests at the same time are both sent.

    Args:
        store: where answers are kept, e.g. `SqliteStore`; default: a `MemoryStore`.
        models: patterns of the models that it is for; default: all.
        max_entries, max_bytes: limits of the `MemoryStore`; another store has its own.
        max_age_s: older answers are not given again, in seconds; None: they do not age.
        only_deterministic: False: every request is served, unless it says ``"off"``.
        clock: what time it is.

    Raises:
        InvalidParameterError: a value cannot be, or ``store`` is no store.
    """

    around_parts = True

    def __init__(
        self,
        store: CacheStore | None = None,
        *,
        models: str | Iterable[str] | None = None,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        max_age_s: float | None = None,
        only_deterministic: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        limits = {
            name: limit
            for name, limit in (("max_entries", max_entries), ("max_bytes", max_bytes))
            if limit is not None
        }
        if max_age_s is not None:
            check_number("max_age_s", max_age_s, above=0)
        check_type("only_deterministic", only_deterministic, bool)
        self.store = MemoryStore(**limits) if store is None else _checked(store, limits)
        self.max_age_s = max_age_s
        self.only_deterministic = only_deterministic
        self.clock = clock
        self._is_for = model_filter(models)
        self._hits = self._misses = self._stored = self._failures = 0

    @property
    def stats(self) -> CacheStats:
        """How it does, since it was made."""
        return CacheStats(
            hits=self._hits,
            misses=self._misses,
            stored=self._stored,
            failures=self._failures,
            entries=self.store.entries,
            size_bytes=self.store.size_bytes,
        )

    async def clear(self) -> None:
        """Forget all answers, those of other processes in a shared file included.

        Raises:
            LLMError: the store cannot.
        """
        await self.store.clear()

    def wrap(self, exchange: Exchange, host: Host) -> Exchange:
        if host.is_composite:
            return exchange

        def cached(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            # Nothing stands between an answer and its reader if it is not to be kept.
            return through(request) if self._serves(request) else exchange(request)

        async def through(request: LLMRequest) -> AsyncGenerator[Delta, None]:
            settings, key = host.settings, await cache_key(request, host)
            kept = None if key is None else await self._kept(key, request, host)
            if kept is not None:
                yield MetaDelta(cached=True)
                for number, delta in enumerate(kept, 1):
                    if not number % _PIECES_PER_TURN:
                        await asyncio.sleep(0)
                    yield delta
                return
            answer: list[Delta] = []
            take = answer.append
            deltas = exchange(request)
            try:
                async for delta in deltas:
                    take(delta)
                    yield delta
            finally:
                await deltas.aclose()
            # Retries take a while, and the answer may come from new settings: then it is another's.
            if key is not None and host.settings is settings:
                await self._keep(key, request, answer, host)

        return cached

    def _serves(self, request: LLMRequest) -> bool:
        options = request.options
        wish = options.response_cache
        if wish == "off" or not self._is_for(request.model):
            return False
        return (
            wish is not None
            or not self.only_deterministic
            or options.temperature == 0
            or options.seed is not None
            or request.operation == "embed"
        )

    async def _kept(self, key: str, request: LLMRequest, host: Host) -> list[Delta] | None:
        """The answer to give again, or None."""
        found = None
        if request.options.response_cache != "refresh":
            now_s = self.clock.wall()
            oldest_s = -math.inf if self.max_age_s is None else now_s - self.max_age_s
            try:
                body = await self.store.get(key, now_s=now_s, oldest_s=oldest_s)
            except Exception as error:  # noqa: BLE001 - of somebody's store; no request fails by it
                body = None
                self._tell(as_llm_error(error), request, host)
            found = None if body is None else unpacked(body)
        if found is None:
            self._misses += 1
        else:
            self._hits += 1
        return found

    async def _keep(self, key: str, request: LLMRequest, answer: list[Delta], host: Host) -> None:
        if not is_worth_keeping(request, answer):
            return
        schema = request.options.response_format
        if isinstance(schema, dict) and not await asyncio.to_thread(follows, schema, answer):
            return
        body = packed(answer)
        if body is None:
            return
        try:
            await self.store.put(key, body, now_s=self.clock.wall())
        except Exception as error:  # noqa: BLE001 - of somebody's store; no request fails by it
            self._tell(as_llm_error(error), request, host)
        else:
            self._stored += 1

    def _tell(self, error: LLMError, request: LLMRequest, host: Host) -> None:
        self._failures += 1
        log.warning("the cache of answers is left out: %s", error)
        host.publish(
            ErrorOccurred(error=ErrorInfo.of(error), operation="cache", request_id=request.id)
        )


def _checked(store: object, limits: dict[str, int]) -> CacheStore:
    if not isinstance(store, CacheStore) or isinstance(store, type):
        raise InvalidParameterError(
            f"store must be a MemoryStore, a SqliteStore or another CacheStore, got {shown(store)}"
        )
    if limits:
        raise InvalidParameterError(
            f"{' and '.join(limits)} belong to the store that is given", hint="set them there"
        )
    return store
