"""Copies of SQLite files that are in use, made with SQLite's own online backup.

Several files belong to one moment when nothing is committed between their beginnings. A file in WAL mode is pinned: a
read transaction keeps the moment while its writer goes on. One in rollback mode has no such thing and is copied at once.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from falaj.kernel.errors import Integrity

_PATIENCE = 30.0  # seconds to wait for another connection's lock
_WAL = 2  # byte 18 of the header: the file format write version


class Pinned:
    """One file as it was when this was made; whatever is written to it later is not seen. `close` lets go of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = reading(path)
        try:
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # a snapshot begins with a read
        except sqlite3.DatabaseError:
            self._connection.close()
            raise

    def copy(self, target: Path) -> None:
        """Write the pinned state to a new file, not flushed. Raises `OSError`, `sqlite3.Error`."""
        _copy(self._connection, target)

    def close(self) -> None:
        """End the read transaction, so that the file's log can be summed up again."""
        self._connection.close()


def reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, in any thread; it waits up to 30 s for another one's lock. Raises `sqlite3.Error`."""
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=_PATIENCE)


def copy(path: Path, target: Path, *, flush: bool = False) -> None:
    """Copy a file as it is at one moment; whoever writes waits as long as the copying takes without WAL."""
    with closing(reading(path)) as connection:
        _copy(connection, target)
    if flush:
        with target.open("rb") as f:
            os.fsync(f.fileno())


def is_wal(path: Path) -> bool:
    """Whether a reader of this file does not stop its writer."""
    with path.open("rb") as f:
        header = f.read(19)
    return len(header) == 19 and header[18] == _WAL


def check(path: Path) -> None:
    """Let SQLite read every page. Raises `Integrity` for a file that is damaged."""
    try:
        with closing(reading(path)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
    except sqlite3.DatabaseError as e:
        found = [str(e)]
    if found != ["ok"]:
        raise Integrity(
            f"{path.name} is damaged: {found[0] if found else 'nothing can be read'}",
            hint="change nothing, copy the home as it is, and restore it from a backup: `falaj restore`",
            code="database_damaged",
            details={"problems": found},
        )


def _copy(source: sqlite3.Connection, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    with closing(sqlite3.connect(target, isolation_level=None)) as copied:
        source.backup(copied, pages=-1)
