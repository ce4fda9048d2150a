"""The file of `SqliteStore`: how it is begun, known again, and read.

All of it waits for disks and locks; none of it is for an event loop.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from ..errors import ConfigurationError
from .cache_key import FORMAT

# Marks a file as ours, so that nobody's own database is ever written to: "LLMc" in ASCII.
_APPLICATION_ID = 0x4C4C4D63
# How long another process may hold the file before an answer goes without the cache, in seconds.
_WAIT_FOR_OTHERS_S = 1.0
# A hit is noted as a use no more often than this, in seconds: a note is a write.
_NOTED_EVERY_S = 60.0

_SCHEMA = """
    CREATE TABLE answers (
        key TEXT PRIMARY KEY, body BLOB NOT NULL, size INTEGER NOT NULL,
        created_s REAL NOT NULL, used_s REAL NOT NULL
    );
    CREATE INDEX by_use ON answers (used_s, size);
"""


def opened(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is created if it is not there.

    Raises:
        ConfigurationError: it belongs to something else.
        OSError, sqlite3.Error: it is damaged, or cannot be opened or written to.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite would create it for everybody to read; the files beside it get the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, timeout=_WAIT_FOR_OTHERS_S, check_same_thread=False)
    try:
        _prepare(db, path)
    except BaseException:  # whatever it is, nothing must stay open
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    if not _is_ready(db):
        with db:
            db.execute("BEGIN IMMEDIATE")
            if not _is_ready(db):  # another process may have been quicker
                _begin(db, path)
    db.execute("PRAGMA journal_mode = WAL")
    # After a crash of the machine the newest answers may be missing; the file is whole.
    db.execute("PRAGMA synchronous = NORMAL")


def _begin(db: sqlite3.Connection, path: Path) -> None:
    owner = db.execute("PRAGMA application_id").fetchone()[0]
    if owner != _APPLICATION_ID and db.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise unusable(path, "it is a database of something else")
    db.execute("DROP TABLE IF EXISTS answers")
    for statement in filter(str.strip, _SCHEMA.split(";")):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {FORMAT}")


def _is_ready(db: sqlite3.Connection) -> bool:
    marks = [db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("application_id", "user_version")]
    return marks == [_APPLICATION_ID, FORMAT]


def read(db: sqlite3.Connection, key: str, now_s: float, oldest_s: float) -> bytes | None:
    """What is kept under ``key``, unless it was put there before ``oldest_s``; notes the use."""
    query = "SELECT body, created_s, used_s FROM answers WHERE key = ?"
    row = db.execute(query, (key,)).fetchone()
    if row is None:
        return None
    body, created_s, used_s = row
    if created_s < oldest_s:
        with db:
            db.execute("DELETE FROM answers WHERE key = ?", (key,))
        return None
    if now_s > used_s + _NOTED_EVERY_S:
        with db:
            db.execute("UPDATE answers SET used_s = ? WHERE key = ?", (now_s, key))
    return bytes(body)


def is_damage(error: Exception) -> bool:
    """Whether the file itself is bad, and not only out of reach for now."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def unusable(path: Path, text: str) -> ConfigurationError:
    """What is said of a file that there is no using."""
    return ConfigurationError(
        f"the cache file {str(path)!r} cannot be used: {text}",
        code="cache_unusable",
        hint="give SqliteStore a file of its own, in a folder that can be written to",
    )
