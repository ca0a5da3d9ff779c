"""Quarantine as a use case: one person puts something there at once, somebody else lets it out."""

from __future__ import annotations

import msgspec

from falaj.governance.changes.holds import QUARANTINE, QUARANTINE_LIFT, Hold, check_held, holding
from falaj.governance.changes.ports import HoldStore
from falaj.governance.changes.service import check_reason
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import Conflict, NotFound
from falaj.kernel.ids import new_id
from falaj.storage.sql.database import Database, Tx


class QuarantineService:
    """What is in quarantine, and was."""

    def __init__(self, database: Database, store: HoldStore, door: Door) -> None:
        self._database = database
        self._store = store
        self._door = door

    def all(self) -> list[Hold]:
        """Newest first."""
        return self._database.read(self._store.all)

    def holding(self, versions: tuple[str, ...] = (), datasets: tuple[str, ...] = ()) -> list[Hold]:
        """What holds one of these now; names are `MODEL@N` and `NAME@N`."""
        return holding(self.all(), versions, datasets)

    def put(self, actor: Principal, kind: str, name: str, reason: str) -> Hold:
        """Put something into quarantine. Raises `Conflict` when it is there already, `Invalid` without a reason."""
        check_held(kind, name)
        told, now = check_reason(reason), self._door.clock.now()
        hold = Hold(new_id("hld", now), kind, name, actor.name, told, iso(now))

        def do(tx: Tx) -> Done[str]:
            if any((h.kind, h.name) == (kind, name) and not h.lifted_at for h in self._store.all(tx)):
                raise Conflict(
                    f"{name} is in quarantine already", hint="`falaj quarantine list` says why", code="held_already"
                )
            self._store.add(tx, hold)
            return Done(hold.id)

        detail = {"held": name, "kind": kind, "reason": told[:500]}
        self._door.change(Intent(actor, QUARANTINE, Resource("Quarantine", hold.id), detail=detail), do)
        return hold

    def lift(self, actor: Principal, hold_id: str, reason: str) -> Hold:
        """Let it out. Raises `NotFound` when it is not in quarantine, `Denied` for whoever put it there."""
        told = check_reason(reason)
        found = next((h for h in self.all() if h.id == hold_id and not h.lifted_at), None)
        if found is None:
            raise NotFound(
                f"nothing is in quarantine as {hold_id[:60]}", hint="see `falaj quarantine list`", code="not_held"
            )
        now = iso(self._door.clock.now())
        lifted = msgspec.structs.replace(found, lifted_by=actor.name, lifted_at=now, lifted_reason=told)
        author = {"__entity": {"type": "Principal", "id": found.by}}

        def do(tx: Tx) -> Done[str]:
            if not self._store.lift(tx, lifted):
                raise Conflict("somebody else let it out meanwhile", hint="nothing to do", code="changed_meanwhile")
            return Done(found.id)

        detail = {"held": found.name, "kind": found.kind, "put_by": found.by, "reason": told[:500]}
        resource = Resource("Quarantine", found.id, {"author": author})
        self._door.change(Intent(actor, QUARANTINE_LIFT, resource, detail=detail), do)
        return lifted
