"""Open, list and resolve incidents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import NotFound
from falaj.kernel.ids import new_id
from falaj.lifecycle.monitoring.model import INCIDENT_CLOSE, INCIDENT_OPEN, INCIDENT_RESOLVE, Incident
from falaj.lifecycle.monitoring.ports import IncidentStore
from falaj.storage.sql.database import Database, Tx


class IncidentService:
    """One open incident a model and kind: the same trouble seen again is the same incident."""

    def __init__(self, database: Database, store: IncidentStore, door: Door) -> None:
        self._database = database
        self._store = store
        self._door = door
        self._listeners: list[Callable[[Incident], object]] = []

    def on_open(self, listener: Callable[[Incident], object]) -> None:
        """Call `listener` after an incident was opened."""
        self._listeners.append(listener)

    def all(self) -> list[Incident]:
        """Newest first."""
        return self._database.read(self._store.all)

    def find(self, incident_id: str) -> Incident | None:
        """One incident, if there is one of this id."""
        return self._database.read(lambda tx: self._store.get(tx, incident_id))

    def open_of(self, model: str) -> list[Incident]:
        """A model's incidents that are not resolved, oldest first."""
        return self._database.read(lambda tx: self._store.open(tx, model))

    def open(self, model: str, kind: str, digest: str, reason: str) -> Incident:
        """The open incident of this kind; a new one is audited and told to whoever listens.

        It is told again when the very same trouble is opened again: whoever opened it may have ended before all had
        heard. So what a listener does for an incident, it does once.
        """
        earlier = next((i for i in self.open_of(model) if i.kind == kind), None)
        if earlier is not None:
            if (earlier.digest, earlier.reason) == (digest, reason[:1000]):
                self._tell(earlier)
            return earlier
        now = self._door.clock.now()
        incident = Incident(new_id("inc", now), model, kind, "open", digest, reason[:1000], iso(now))

        def do(tx: Tx) -> Done[dict[str, Any]]:
            self._store.add(tx, incident)
            return Done({"id": incident.id})

        detail = {"incident": incident.id, "kind": kind, "digest": digest, "reason": incident.reason[:500]}
        self._door.change(Intent(SYSTEM, INCIDENT_OPEN, Resource("Incident", incident.id), detail=detail), do)
        self._tell(incident)
        return incident

    def _tell(self, incident: Incident) -> None:
        for listener in self._listeners:
            listener(incident)

    def settle(self, model: str, kind: str) -> None:
        """The trouble is gone: resolve the open incidents of this kind."""
        for incident in self.open_of(model):
            if incident.kind == kind:
                self.resolve(SYSTEM, incident.id)

    def resolve(self, actor: Principal, incident_id: str) -> Incident:
        """Raises `NotFound`; resolving again changes nothing."""
        now = iso(self._door.clock.now())

        def do(tx: Tx) -> Done[dict[str, Any]]:
            found = self._store.get(tx, incident_id)
            if found is None:
                raise NotFound(
                    f"there is no incident {incident_id[:60]}",
                    hint="`falaj incidents list` shows them",
                    code="no_such_incident",
                )
            if found.state != "resolved":
                self._store.close(tx, incident_id, "resolved", now)
                found = msgspec.structs.replace(found, state="resolved", closed_at=now)
            return Done(msgspec.to_builtins(found), {"model": found.model})

        action = INCIDENT_CLOSE if actor == SYSTEM else INCIDENT_RESOLVE
        intent = Intent(actor, action, Resource("Incident", incident_id))
        return msgspec.convert(self._door.change(intent, do), Incident)
