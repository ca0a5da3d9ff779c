"""A real log in a folder: SQLite, store, publisher, service."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.service import AuditService
from falaj.governance.audit.store import SqlAuditStore
from falaj.governance.door import Event
from falaj.storage.sql.schema import metadata
from falaj.storage.sql.sqlite import SqliteDatabase
from tests.governance.support import StillClock

ORIGIN = "falaj.example/log"


class Log:
    """One home's log; `restart` makes a new publisher over the same files."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "audit"
        self.key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
        self.clock = StillClock()
        self.store = SqlAuditStore()
        self.open()

    def open(self) -> None:
        self.database = SqliteDatabase(self.home / "falaj.db", durable=False)
        self.database.change(metadata.create_all)
        self.restart()

    def restart(self) -> None:
        self.publisher = Publisher(self.database, self.store, self.folder, self.key, ORIGIN, self.clock)
        self.service = AuditService(self.database, self.store, self.publisher)

    def event(self, n: int, **changes: Any) -> Event:
        facts: dict[str, Any] = {
            "at": self.clock.now(),
            "principal": "owner",
            "action": "model.approve",
            "resource_type": "ModelVersion",
            "resource_id": f"m@{n}",
            "outcome": "done",
            "operation_id": f"op_{n}",
            "detail": {"n": n},
        }
        return Event(**facts | changes)

    def append(self, count: int) -> None:
        """Append `count` entries in one transaction, numbered from the present size."""
        first = self.service.size()
        self.database.change(lambda tx: self.service.record_many(tx, [self.event(first + i) for i in range(count)]))

    def sql(self, statement: str, *values: object) -> None:
        """Change the database as somebody with the file would: past the platform."""
        connection = sqlite3.connect(self.home / "falaj.db")
        with connection:
            connection.execute(statement, values)
        connection.close()

    def files(self) -> dict[str, bytes]:
        """Every published file."""
        return {p.relative_to(self.folder).as_posix(): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
