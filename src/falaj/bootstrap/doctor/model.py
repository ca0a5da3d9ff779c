"""A finding, and the patient."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import msgspec
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from falaj.governance.signing.keys import KeyRing
from falaj.governance.signing.ports import WrappedKey
from falaj.governance.signing.storekeys import BLOBS, open_keys
from falaj.kernel import locks
from falaj.kernel.errors import FalajError, Integrity, Unavailable
from falaj.kernel.settings import Settings
from falaj.storage.sql.snapshot import reading

WELL, NOTE, PROBLEM, BROKEN = "well", "note", "problem", "broken"
"""Levels: all is well · worth knowing · something does not work or soon will not · bytes are not what they must be."""

OPEN = "open the home once, which puts it right"
"""What `--mend` does about a finding where only an open home can."""


class Finding(msgspec.Struct, frozen=True):
    """What a check found. `name` is stable; `hint` is the next step; `mend` says what `--mend` would do, if it can."""

    check: str
    name: str
    level: str
    text: str
    hint: str = ""
    mend: str = ""
    path: str = ""


class Report(msgspec.Struct, frozen=True):
    """Everything that was found. `exit_code`: 0 well, 1 problems, 4 integrity broken."""

    home: str
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0 well, 1 problems, 4 integrity broken."""
        levels = {f.level for f in self.findings}
        return 4 if BROKEN in levels else int(PROBLEM in levels)


class Patient:
    """A home that is looked at and not touched. `deep` reads every byte; `running` is the process that has it open
    (0: none, -1: one that did not say who it is)."""

    def __init__(self, settings: Settings, *, deep: bool) -> None:
        self.settings = settings
        self.home = settings.home
        self.deep = deep
        self.running = (locks.holder(self.home / "lock") or -1) if locks.held(self.home / "lock") else 0
        self._keys: KeyRing | None = None
        self._blob_keys: tuple[bytes, ...] | FalajError | None = None

    def keys(self) -> KeyRing:
        """The keys; opening makes none. Raises `Integrity` for one that is missing or cannot be read."""
        if self._keys is None:
            self._keys = KeyRing(self.home / "keys")
        return self._keys

    def blob_keys(self) -> tuple[bytes, ...]:
        """What wraps the data keys of blobs. Raises like `keys`, and `Unavailable` when the key-encryption key lies elsewhere and
        is away; where SQL has no such keys that open, the key-encryption key itself, as in 0.1."""
        if self._blob_keys is None:
            try:
                self._blob_keys = self._opened()
            except (Integrity, Unavailable) as e:
                self._blob_keys = e
        if isinstance(self._blob_keys, FalajError):
            raise self._blob_keys
        return self._blob_keys

    def _opened(self) -> tuple[bytes, ...]:
        ring = self.keys()
        first = (ring.kek,) if ring.kek else ()
        try:
            rows = self.rows("SELECT store, number, wrapped, kek FROM store_keys WHERE store = ?", BLOBS)
            return open_keys([WrappedKey(*row) for row in rows], ring.wraps, BLOBS) or first
        except (sqlite3.Error, Integrity):
            if ring.wraps.at:
                raise
            return first

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of `falaj.db`. Raises `sqlite3.Error`."""
        with closing(self.connection()) as connection:
            return list(connection.execute(query, values))

    def connection(self, name: str = "falaj.db") -> sqlite3.Connection:
        """A connection that cannot write."""
        return reading(self.home / name)

    def transaction(self, work: Callable[[Connection], Any]) -> Any:
        """Do `work` on a read-only snapshot, as the stores want it."""
        engine = create_engine("sqlite://", creator=self.connection, poolclass=StaticPool)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")  # without it each query would see a moment of its own
                return work(connection)
        finally:
            engine.dispose()


Check = Callable[[Patient], Iterable[Finding]]
