"""A home's governance in a folder: real database, door, policy and log; the clock is set by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from falaj.bootstrap.control_plane import actions
from falaj.governance.audit.model import Conditions, Entry
from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.service import AuditService
from falaj.governance.audit.store import SqlAuditStore
from falaj.governance.changes.service import ChangeService
from falaj.governance.changes.store import SqlApprovalStore
from falaj.governance.door import Auditor, Authoriser, Door, operations
from falaj.governance.identity.service import IdentityService
from falaj.governance.identity.store import SqlIdentityStore
from falaj.governance.policy.informed import InformedDecider
from falaj.governance.policy.schema import FACTS
from falaj.governance.policy.service import PolicyInForce, PolicyService
from falaj.governance.policy.store import SqlPolicyStore
from falaj.kernel.access import Principal, Question
from falaj.storage.sql.schema import metadata
from falaj.storage.sql.sqlite import SqliteDatabase

PEPPER = b"p" * 32
ADMIN = Principal("ada", "person", ("platform-admin",))
VIEWER = Principal("vic", "person", ("viewer",))
ENGINEER = Principal("eve", "person", ("ml-engineer",))
RISK = Principal("rita", "person", ("risk-officer",))


class StillClock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.shows = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.shows

    def forward(self, **much: float) -> None:
        self.shows += timedelta(**much)


def usable(question: Question) -> dict[str, Any]:
    """What the loop knows of a thing that rests on no data of the home."""
    known = {"quarantined": False, "region": "", "regions": []}
    return {name: value for name, value in known.items() if name in FACTS.get(question.resource.type, {})}


class Desk:
    """What governance is made of, put together as the control plane does it."""

    def __init__(self, home: Path) -> None:
        self.clock = StillClock()
        self.database = SqliteDatabase(home / "falaj.db", durable=False)
        self.database.change(metadata.create_all)
        store = SqlAuditStore()
        publisher = Publisher(
            self.database, store, home / "audit", Ed25519PrivateKey.generate(), "falaj.example", self.clock
        )
        self.audit = AuditService(self.database, store, publisher)
        self.in_force = PolicyInForce(actions())
        self.informed = InformedDecider(self.in_force)
        self.informed.learn_from(usable)  # there is no data here
        self.door = self.make_door()
        self.identity = IdentityService(self.database, SqlIdentityStore(), self.door, PEPPER, actions())
        self.policy = PolicyService(self.database, SqlPolicyStore(), self.door, self.in_force, self.identity.holders)
        self.changes = ChangeService(self.database, SqlApprovalStore(), self.door)

    def make_door(self, authoriser: Authoriser | None = None, auditor: Auditor | None = None) -> Door:
        """A door that differs in one part."""
        return Door(self.database, authoriser or self.informed, auditor or self.audit, self.clock)

    def entries(self, **conditions: Any) -> list[Entry]:
        """What is in the log, oldest first."""
        return [f.entry for f in reversed(self.audit.search(Conditions(**conditions, limit=1000)))]

    def outcomes(self) -> list[tuple[str, str]]:
        return [(e.action, e.outcome) for e in self.entries()]

    def stored_operations(self) -> dict[str, Any]:
        """operation id → result"""
        rows = self.database.read(lambda tx: tx.execute(select(operations)).all())
        return {row.operation_id: msgspec.json.decode(row.result) for row in rows}
