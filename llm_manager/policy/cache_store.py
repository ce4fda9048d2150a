"""Where a cache keeps its answers: in memory, or wherever somebody's own store puts them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple, Protocol, runtime_checkable

from .._threads import reset_after_fork
from ..checks import check_number


@runtime_checkable
class CacheStore(Protocol):
    """Keeps bytes under a key, and forgets what was not used for longest when it is full.

    It may raise `LLMError` when it cannot: the request goes on without the cache, and the error is
    told as an ``error`` event.
    """

    @property
    def entries(self) -> int:
        """How many answers it holds, as far as it knows without looking."""

    @property
    def size_bytes(self) -> int:
        """How many bytes they have, as far as it knows without looking."""

    async def get(self, key: str, *, now_s: float, oldest_s: float) -> bytes | None:
        """What is kept under ``key``; None if there is nothing, or it was put before ``oldest_s``.

        Times are seconds since 1970, UTC.
        """

    async def put(self, key: str, body: bytes, *, now_s: float) -> None:
        """Keep ``body`` under ``key``."""

    async def clear(self) -> None:
        """Forget everything."""


class _Entry(NamedTuple):
    body: bytes
    created_s: float


class MemoryStore:
    """Keeps answers in this process; the least recently used one goes first.

    Args:
        max_entries: how many answers at most.
        max_bytes: how many bytes they may have together; a larger one is not kept.

    Raises:
        InvalidParameterError: a number cannot be.
    """

    def __init__(self, *, max_entries: int = 1000, max_bytes: int = 50_000_000) -> None:
        check_number("max_entries", max_entries, low=1, whole=True)
        check_number("max_bytes", max_bytes, low=1, whole=True)
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self._kept: OrderedDict[str, _Entry] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()
        reset_after_fork(self)

    @property
    def entries(self) -> int:
        """How many answers it holds."""
        return len(self._kept)

    @property
    def size_bytes(self) -> int:
        """How many bytes they have."""
        return self._size_bytes

    async def get(self, key: str, *, now_s: float, oldest_s: float) -> bytes | None:
        """See `CacheStore.get`."""
        with self._lock:
            entry = self._kept.get(key)
            if entry is None:
                return None
            if entry.created_s < oldest_s:
                self._forget(key)
                return None
            self._kept.move_to_end(key)
            return entry.body

    async def put(self, key: str, body: bytes, *, now_s: float) -> None:
        """See `CacheStore.put`."""
        with self._lock:
            self._forget(key)
            if len(body) > self.max_bytes:
                return
            self._kept[key] = _Entry(body, now_s)
            self._size_bytes += len(body)
            while len(self._kept) > self.max_entries or self._size_bytes > self.max_bytes:
                self._forget(next(iter(self._kept)))

    async def clear(self) -> None:
        """See `CacheStore.clear`."""
        with self._lock:
            self._kept.clear()
            self._size_bytes = 0

    def _forget(self, key: str) -> None:
        entry = self._kept.pop(key, None)
        if entry is not None:
            self._size_bytes -= len(entry.body)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
