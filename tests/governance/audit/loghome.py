"""As much of a home as its audit log needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from falaj.bootstrap.control_plane import actions
from falaj.governance.audit.export import pack, unpack
from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.rotating import LogKeyService, Replaced, settle
from falaj.governance.audit.service import AuditService
from falaj.governance.audit.sharding import Begun, ShardService
from falaj.governance.audit.store import SqlAuditStore
from falaj.governance.audit.witnessing import Witnesses
from falaj.governance.door import Door
from falaj.governance.policy.service import PolicyInForce
from falaj.governance.signing.keys import KeyRing
from falaj.kernel.errors import Denied
from falaj.storage.sql.schema import metadata
from falaj.storage.sql.sqlite import SqliteDatabase
from tests.governance.support import ADMIN, ENGINEER, StillClock

ORIGIN = "falaj.example/log"


class LogHome:
    """Keys, database, log and door of a home; `restart` is a new process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.log = folder / "audit"
        self.clock = StillClock()
        self.store = SqlAuditStore()
        self.witnesses: Witnesses | None = None
        self.database = SqliteDatabase(folder / "falaj.db", durable=False)
        self.database.change(metadata.create_all)
        self.restart()

    def restart(self, period: str = "none", **places: str) -> None:
        """Open it again: with shards by this period, with keys that lie in these places."""
        self.ring = KeyRing(self.folder / "keys", places)
        settle(self.ring, self.log, self.database, self.store)
        self.publisher = Publisher(
            self.database, self.store, self.log, self.ring.log, ORIGIN, self.clock, self.witnesses
        )
        self.audit = AuditService(self.database, self.store, self.publisher)
        self.door = Door(self.database, PolicyInForce(actions()), self.audit, self.clock)
        self.keys = LogKeyService(self.ring, self.publisher, self.database, self.store, self.door)
        self.shards = ShardService(self.publisher, self.database, self.store, self.door, period)

    def busy(self, times: int = 3) -> bytes:
        """Some entries under a checkpoint, which is returned."""
        for _ in range(times):
            with pytest.raises(Denied):
                self.keys.rotate(ENGINEER, "may not")
        self.publisher.publish()
        return self.publisher.checkpoint

    def rotate(self) -> Replaced:
        return self.keys.rotate(ADMIN, "a new year")

    def shard(self) -> Begun:
        return self.shards.begin(ADMIN, "a new year")

    def exported(self, to: Path) -> Path:
        """The log as it is handed out."""
        packed = to.with_suffix(".tar")
        packed.write_bytes(b"".join(pack(self.audit.snapshot())))
        unpack(packed, to)
        return to

    def holds(self) -> None:
        found = self.audit.verify()
        assert found.ok, found.problems
        assert found.size == self.audit.size() and found.unsigned == 0
