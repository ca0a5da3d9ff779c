"""Break-glass as a use case: asked for by one person, allowed by another, told to everybody, ended by itself.

It holds only once its alert is out, and by the machine's clock: a home that replays another day prolongs nothing. What holds
is kept in memory and looked at for each decision, so that it ends to the moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import msgspec

from falaj.governance.changes.glass import (
    GLASS_CLOSE,
    GLASS_END,
    GLASS_OPEN,
    GLASS_PROPOSE,
    PROPOSED_MINUTES,
    Glass,
    check_asked,
)
from falaj.governance.changes.ports import GlassStore
from falaj.governance.changes.service import check_reason
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.clock import Clock, iso, parse_iso
from falaj.kernel.errors import Conflict, Invalid, NotFound
from falaj.kernel.ids import new_id
from falaj.storage.sql.database import Database, Tx


class GlassService:
    """Who may do more than their roles allow, and for how long. `alert` tells everybody; returns the incident's id."""

    def __init__(
        self, database: Database, store: GlassStore, door: Door, clock: Clock, alert: Callable[[Glass], str]
    ) -> None:
        self._database = database
        self._store = store
        self._door = door
        self._clock = clock
        self._alert = alert
        self._lock = threading.Lock()
        self._open: tuple[Glass, ...] = ()
        self._refresh()

    def all(self) -> list[Glass]:
        """Newest first; none is ever removed."""
        return self._database.read(self._store.all)

    def in_force(self) -> tuple[Glass, ...]:
        """Those that hold now."""
        now = self._clock.now()
        return tuple(g for g in self._open if g.holds(now))

    def of(self, name: str) -> dict[str, str]:
        """What a principal may do by break-glass now: action → the id of what allows it."""
        return {action: g.id for g in self.in_force() if g.proposed_by == name for action in g.actions}

    def propose(self, actor: Principal, actions: tuple[str, ...], hours: float, reason: str) -> Glass:
        """Ask for actions. Raises `Invalid` for what cannot be asked for, or by a service."""
        told, actions = check_reason(reason), tuple(dict.fromkeys(actions))
        check_asked(actions, hours)
        if actor.kind != "person":
            raise Invalid("only a person breaks glass", hint="ask with a token of your own", code="not_a_person")
        now = self._clock.now()
        glass = Glass(new_id("gls", now), actions, hours * 60, told, actor.name, iso(now))

        def do(tx: Tx) -> Done[str]:
            self._store.add(tx, glass)
            return Done(glass.id)

        detail = {"actions": list(actions), "hours": hours, "reason": told[:500]}
        self._door.change(Intent(actor, GLASS_PROPOSE, Resource("Glass", glass.id), detail=detail), do)
        return glass

    def open(self, actor: Principal, glass_id: str, reason: str) -> Glass:
        """Allow somebody else what they asked for. It holds once the alert is out, which is before this returns.

        Raises `NotFound`, `Denied` for whoever asked, `Conflict` for what was opened before or waited too long.
        """
        told, asked, now = check_reason(reason), self._get(glass_id), self._clock.now()
        until = iso(now + timedelta(minutes=asked.minutes))
        opened = msgspec.structs.replace(
            asked, opened_by=actor.name, opened_at=iso(now), opened_reason=told, until=until
        )
        asker = {"__entity": {"type": "Principal", "id": asked.proposed_by}}

        def do(tx: Tx) -> Done[str]:
            late = now >= parse_iso(asked.proposed_at) + timedelta(minutes=PROPOSED_MINUTES)
            if late or asked.opened_at or asked.closed_at or not self._store.change(tx, opened, asked):
                why = "waited too long" if late else "was opened or closed already"
                raise Conflict(f"{asked.id} {why}", hint="ask again: `falaj break-glass ask`", code="glass_not_waiting")
            return Done(asked.id)

        detail = {
            "for": asked.proposed_by, "actions": list(asked.actions), "until": until, "asked": asked.reason[:500],
            "reason": told[:500],
        }  # fmt: skip
        resource = Resource("Glass", asked.id, {"proposed_by": asker})
        self._door.change(Intent(actor, GLASS_OPEN, resource, detail=detail), do)
        self._tell(opened)
        return self._get(glass_id)

    def close(self, actor: Principal, glass_id: str) -> Glass:
        """End one before its time, or take a proposal back. Raises `NotFound`, `Conflict` when it has ended."""
        self._end(actor, self._get(glass_id))
        return self._get(glass_id)

    def look(self) -> None:
        """Tell what a crash kept from being told, and write down what has ended by itself."""
        now = self._clock.now()
        for glass in self.all():
            if glass.until and not glass.closed_at:
                if now >= parse_iso(glass.until):
                    self._end(SYSTEM, glass)
                elif not glass.incident:
                    self._tell(glass)

    def _tell(self, glass: Glass) -> None:
        told = msgspec.structs.replace(glass, incident=self._alert(glass))
        self._database.change(lambda tx: self._store.change(tx, told, glass))
        self._refresh()

    def _end(self, actor: Principal, glass: Glass) -> None:
        ended = msgspec.structs.replace(glass, closed_by=actor.name, closed_at=iso(self._clock.now()))

        def do(tx: Tx) -> Done[str]:
            if glass.closed_at or not self._store.change(tx, ended, glass):
                raise Conflict(f"{glass.id} has ended", hint="nothing to do", code="glass_not_waiting")
            return Done(glass.id)

        action = GLASS_END if actor == SYSTEM else GLASS_CLOSE
        detail = {"for": glass.proposed_by, "until": glass.until}
        self._door.change(Intent(actor, action, Resource("Glass", glass.id), detail=detail), do)
        self._refresh()

    def _get(self, glass_id: str) -> Glass:
        found = next((g for g in self.all() if g.id == glass_id), None)
        if found is None:
            raise NotFound(f"there is no {glass_id[:60]}", hint="see `falaj break-glass list`", code="no_such_glass")
        return found

    def _refresh(self) -> None:
        with self._lock:  # from reading on: what was read first must not be taken last
            self._open = tuple(g for g in self.all() if g.until and not g.closed_at)
