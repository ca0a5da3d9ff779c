"""Seal the log's shard and begin the next one: by a person, with a reason, or when its period has ended.

The switch is one entry: it is the first of the new shard, and names the key, size and root that the old one ends with. They are
known in its own transaction only, after the head row was locked, so no entry can come in between. What follows it, the final
checkpoint and the new shard's folder, the publisher does whenever it sees that entry; so a crash ends before or after it.
"""

from __future__ import annotations

import base64
import threading
from typing import Any

import msgspec

from falaj.governance.audit import shards, tiles
from falaj.governance.audit.merkle import leaf_hash
from falaj.governance.audit.model import AUDIT_SHARD, AUDIT_TURN, MAX_ENTRY
from falaj.governance.audit.ports import AuditStore
from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.shards import End, Shard
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import SYSTEM, Action, Principal, Resource
from falaj.kernel.clock import parse_iso
from falaj.kernel.digests import canonical_json
from falaj.kernel.errors import Invalid
from falaj.storage.sql.database import Database, Tx

_LOG = Resource("AuditLog", "*")
_ROOM = MAX_ENTRY - 1200  # bytes for the detail of an entry


class Begun(msgspec.Struct, frozen=True):
    """A shard that began: which one, its name and key, where it lies, its first entry, and what the one before ended with."""

    number: int
    origin: str
    vkey: str
    place: str
    first: int
    sealed: str
    size: int
    root: str


class ShardService:
    """`period` is none, year or month: by it shards are named, and unless it is none they begin with it."""

    def __init__(self, publisher: Publisher, database: Database, store: AuditStore, door: Door, period: str) -> None:
        self._publisher = publisher
        self._database = database
        self._store = store
        self._door = door
        self._period = period
        self._changing = threading.RLock()

    def begin(self, actor: Principal, reason: str) -> Begun:
        """Seal the shard that grows and begin the next one. Raises `Invalid` without a reason, `Unavailable`, `Denied`."""
        return self._begin(actor, AUDIT_SHARD, reason)

    def turn(self) -> Begun | None:
        """Begin the next shard if the period of the one that grows is over; None if not, or if no period is set."""
        with self._changing:  # a person may be about to begin one
            if self._period == shards.NONE or not self._over():
                return None
            now = shards.period_of(self._period, self._door.clock.now())
            return self._begin(SYSTEM, AUDIT_TURN, f"{now} has begun")

    def _over(self) -> bool:
        """Whether the clock shows a later period than the one in which the shard began; never for an empty log."""
        grows = self._publisher.shards()[-1]
        since = grows.at
        if not since:
            rows = self._database.read(lambda tx: self._store.entries(tx, 0, 1))
            since = rows[0].columns[0] if rows else ""
        now = shards.period_of(self._period, self._door.clock.now())
        return bool(since) and shards.period_of(self._period, parse_iso(since)) < now

    def _begin(self, actor: Principal, action: Action, reason: str) -> Begun:
        self._door.check(Intent(actor, action, _LOG))
        why = reason.strip()
        with self._changing, self._publisher.held():
            self._publisher.publish()
            earlier = self._publisher.shards()
            edge, key = self._publisher.edge, self._publisher.vkey
            period = shards.period_of(self._period, self._door.clock.now())
            name = shards.name_for(earlier[0].origin, period, [s.origin for s in earlier])
            vkey = self._publisher.verifier_for(name).vkey
            draft = Shard(len(earlier) + 1, name, 0, End(key, 2**62, "=" * 44), vkey)
            if not why or len(canonical_json({"reason": why, **shards.beginning(draft)})) > _ROOM:
                raise Invalid("a short reason is needed", hint="say why: --reason '…'", code="no_reason")

            def do(tx: Tx) -> Done[dict[str, Any]]:
                size = self._store.append_many(tx, ()).start  # the head is locked from here to the commit
                signed = earlier[-1].first + edge.size
                leaves = [leaf_hash(row.data) for row in self._store.entries(tx, signed, size - signed)]
                last, _ = tiles.grow(edge, leaves)
                end = End(key, last.size, base64.b64encode(last.root()).decode())
                shard = msgspec.structs.replace(draft, first=size, previous=end)
                told = Begun(
                    shard.number, name, vkey, shard.place, size, earlier[-1].origin, end.size, end.root
                )  # fmt: skip
                return Done(msgspec.to_builtins(told), shards.beginning(shard))

            told = self._door.change(Intent(actor, action, _LOG, detail={"reason": why}), do)
            self._publisher.publish()
            self._publisher.witnessed()
        return msgspec.convert(told, Begun)
