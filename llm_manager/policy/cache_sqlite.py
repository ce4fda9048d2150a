"""`SqliteStore`: answers in a file that outlives the process and that several may share.

The file holds the answers in clear, and no prompts: only hashes of them.  It is readable by its
owner alone.  SQLite waits for disks and locks, so it never runs on the event loop.
"""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from .._threads import reset_after_fork
from ..checks import check_number
from ..errors import ConfigurationError, InvalidParameterError
from .cache_file import file_id, is_damage, opened, read, unusable, wait_for_others

T = TypeVar("T")

# What SQLite keeps beside the file while it is open.
_BESIDE = ("-wal", "-shm")
# How long another process may hold the file before an answer goes without the cache, in seconds.
_WAIT_FOR_OTHERS_S = 1.0
# After a wait in vain nobody waits again for so long, or requests would queue up here.
_WITHOUT_WAITING_S = 5.0


class SqliteStore:
    """Keeps answers in a SQLite file; the least recently used one goes first.

    ::

        with SqliteStore("answers.sqlite") as store:
            manager.add_policy(CachePolicy(store))

    The file is opened by its first use, created if it is not there (mode 0600), and opened again if
    it is used after `close`.  A damaged one is renamed to ``NAME.corrupt-TIME`` and a new one is
    begun.

    Its methods raise `ConfigurationError`: with the code ``cache_corrupt`` when a damaged file was
    put aside, ``cache_unusable`` when there is no using it.

    Args:
        path: the file; its folder is created if it is not there.
        max_entries: how many answers at most.
        max_bytes: how many bytes they may have together; the file is a little larger.

    Raises:
        InvalidParameterError: a value cannot be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_entries: int = 10_000,
        max_bytes: int = 500_000_000,
    ) -> None:
        name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(name, str) or not name or "\0" in name:
            raise InvalidParameterError(f"path must be the path of a file, got {path!r:.60}")
        check_number("max_entries", max_entries, low=1, whole=True)
        check_number("max_bytes", max_bytes, low=1, whole=True)
        self.path = Path(name).absolute()
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self._entries = self._size_bytes = 0
        self._failed_at_s = -math.inf
        self._file: tuple[int, int] | None = None
        self._lock = threading.RLock()
        self._open: list[sqlite3.Connection] = []
        self._closer = weakref.finalize(self, _close, self._open)
        reset_after_fork(self)

    @property
    def entries(self) -> int:
        """How many answers it held when it was last looked at."""
        return self._entries

    @property
    def size_bytes(self) -> int:
        """How many bytes they had."""
        return self._size_bytes

    async def get(self, key: str, *, now_s: float, oldest_s: float) -> bytes | None:
        """See `CacheStore.get`."""
        return await self._do(lambda db: read(db, key, now_s, oldest_s))

    async def put(self, key: str, body: bytes, *, now_s: float) -> None:
        """See `CacheStore.put`."""

        def write(db: sqlite3.Connection) -> None:
            with db:
                db.execute(
                    "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)",
                    (key, body, len(body), now_s, now_s),
                )
                self._make_room(db)

        if len(body) <= self.max_bytes:
            await self._do(write)

    async def clear(self) -> None:
        """See `CacheStore.clear`; the file becomes small."""

        def forget(db: sqlite3.Connection) -> None:
            with db:
                db.execute("DELETE FROM answers")
            self._entries = self._size_bytes = 0
            with suppress(sqlite3.OperationalError):  # another process reads: it stays large
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        await self._do(forget)

    def close(self) -> None:
        """Close the file; what is written is complete.  Idempotent."""
        with self._lock:
            _close(self._open)

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- inside ----------------------------------------------------------------------------------

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.to_thread(self._do_here, work)

    def _do_here(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return work(self._connection())
            except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
                damaged, text = is_damage(error), str(error)
            self.close()
            self._failed_at_s = time.monotonic()
            raise self._put_aside(text) if damaged else unusable(self.path, text)

    def _connection(self) -> sqlite3.Connection:
        tired = time.monotonic() < self._failed_at_s + _WITHOUT_WAITING_S
        wait_s = 0.0 if tired else _WAIT_FOR_OTHERS_S
        if self._open and file_id(self.path) != self._file:
            self.close()  # somebody has deleted or replaced it
        if self._open:
            wait_for_others(self._open[0], wait_s)
        else:
            self._open.append(opened(self.path, wait_s))
            self._file = file_id(self.path)
            with self._open[0] as db:
                self._make_room(db)
        return self._open[0]

    def _make_room(self, db: sqlite3.Connection) -> None:
        """Forget what was not used for longest until the limits are kept."""
        entries, size = db.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM answers"
        ).fetchone()
        if entries > self.max_entries or size > self.max_bytes:
            gone = []
            for key, of_one in db.execute("SELECT key, size FROM answers ORDER BY used_s"):
                if entries <= self.max_entries and size <= self.max_bytes:
                    break
                gone.append((key,))
                entries, size = entries - 1, size - of_one
            db.executemany("DELETE FROM answers WHERE key = ?", gone)
        self._entries, self._size_bytes = entries, size

    def _put_aside(self, text: str) -> ConfigurationError:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        aside = self.path.with_name(f"{self.path.name}.corrupt-{moment}")
        try:
            self.path.rename(aside)
            for ending in _BESIDE:
                beside = self.path.with_name(self.path.name + ending)
                if beside.exists():
                    beside.rename(f"{aside}{ending}")
        except OSError as error:
            return unusable(self.path, f"{text}; and it cannot be renamed: {error.strerror}")
        return ConfigurationError(
            f"the cache file {str(self.path)!r} is damaged ({text}); it was renamed to "
            f"{aside.name!r}, and a new one is begun",
            code="cache_corrupt",
        )

    def _after_fork(self) -> None:
        """Forget the parent's connection without closing it: its locks belong to the parent."""
        self._closer.detach()
        _of_parents.append(self._open)
        self._lock = threading.RLock()
        self._open = []
        self._closer = weakref.finalize(self, _close, self._open)


_of_parents: list[list[sqlite3.Connection]] = []


def _close(connections: list[sqlite3.Connection]) -> None:
    while connections:
        connections.pop().close()
