"""The file of `SqliteStore`: how it is begun, known again, and read.

All of it waits for disks and locks; none of it is for an event loop.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigurationError
from .cache_key import FORMAT

# Marks a file as ours, so that nobody's own database is ever written to: "LLMc" in ASCII.
_APPLICATION_ID = 0x4C4C4D63
# A hit is noted as a use no more often than this, in seconds: a note is a write.
_NOTED_EVERY_S = 60.0

_SCHEMA = """
    CREATE TABLE answers (
        key TEXT PRIMARY KEY, body BLOB NOT NULL, size INTEGER NOT NULL,
        created_s REAL NOT NULL, used_s REAL NOT NULL
    );
    CREATE INDEX by_use ON answers (used_s, size);
"""


def opened(path: Path, wait_s: float) -> sqlite3.Connection:
    """A connection to the file, which is created if it is not there; see `wait_for_others`.

    Raises:
        ConfigurationError: it belongs to something else.
        OSError, sqlite3.Error: it is damaged, or cannot be opened or written to.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite would create it for everybody to read; the files beside it get the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, timeout=wait_s, check_same_thread=False)
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


def wait_for_others(db: sqlite3.Connection, wait_s: float) -> None:
    """From now on, wait so long, in seconds, for another process that holds the file."""
    db.execute(f"PRAGMA busy_timeout = {wait_s * 1000:.0f}")


def file_id(path: Path) -> tuple[int, int] | None:
    """Which file it is that has this name now; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def read(db: sqlite3.Connection, key: str, now_s: float, oldest_s: float) -> bytes | None:
    """What is kept under ``key``, unless it was put there before ``oldest_s``; notes the use."""
    query = "SELECT body, created_s, used_s FROM answers WHERE key = ?"
    row = db.execute(query, (key,)).fetchone()
    if row is None:
        return None
    body, created_s, used_s = row
    if not (isinstance(body, bytes) and isinstance(created_s, float) and isinstance(used_s, float)):
        return None  # damaged in a way that SQLite does not see
    if created_s < oldest_s:
        _note(db, "DELETE FROM answers WHERE key = ?", (key,))
        return None
    if now_s > used_s + _NOTED_EVERY_S:
        _note(db, "UPDATE answers SET used_s = ? WHERE key = ?", (now_s, key))
    return body


def _note(db: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> None:
    """Write what may as well be written another time, if the file can be written to at once."""
    wait_for_others(db, 0.0)
    with suppress(sqlite3.OperationalError), db:
        db.execute(statement, values)


def is_damage(error: Exception) -> bool:
    """Whether the file itself is bad, and not only out of reach for now."""
    if isinstance(error, UnicodeDecodeError):
        return True  # what SQLite says about it quotes the damage
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def unusable(path: Path, text: str) -> ConfigurationError:
    """What is said of a file that there is no using."""
    return ConfigurationError(
        f"the cache file {str(path)!r} cannot be used: {text}",
        code="cache_unusable",
        hint="give SqliteStore a file of its own, in a folder that can be written to",
    )
