"""Plan and commit materialisations; read the online store."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.lineage.model import Node
from falaj.governance.lineage.service import LineageService
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso, written_moment
from falaj.kernel.errors import FalajError, NotFound
from falaj.lifecycle.features.model import (
    FEATURES_GET,
    FEATURES_MATERIALIZE,
    Materialization,
    MaterializeOutcome,
    MaterializeTask,
    ViewSpec,
    fresh,
)
from falaj.lifecycle.features.ports import Datasets, MaterializationStore, Views
from falaj.storage.online.lmdb_store import OnlineReader
from falaj.storage.sql.database import Database, Tx

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Ports(msgspec.Struct, frozen=True):
    """What the stage works with. `online` is the folder of the online store."""

    database: Database
    store: MaterializationStore
    views: Views
    datasets: Datasets
    lineage: LineageService
    online: Path


class FeatureService:
    """Feature views: filling the online store and reading it."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports
        self._reading = threading.Lock()

    def views(self) -> tuple[ViewSpec, ...]:
        """Every view of the applied project."""
        return self._p.views.views()

    def view(self, name: str) -> ViewSpec:
        """Raises `NotFound`."""
        found = next((v for v in self.views() if v.name == name), None)
        if found is None:
            names = ", ".join(v.name for v in self.views()) or "none"
            raise NotFound(
                f"there is no feature view {name[:80]!r}", hint=f"the applied project has {names}", code="no_such_view"
            )
        return found

    def newest(self) -> list[Materialization]:
        """The newest materialization of each view."""
        return self._p.database.read(self._p.store.newest)

    def log(self, view: str) -> list[Materialization]:
        """A view's materializations, newest first. Raises `NotFound`."""
        self.view(view)
        return self._p.database.read(lambda tx: self._p.store.log(tx, view))

    def check_materialize(self, actor: Principal, as_of: str) -> str:
        """Authorise a materialisation; returns the moment it is for (now, when `as_of` is empty)."""
        self._door.check(self._intent(actor, ""))
        return written_moment(as_of) if as_of else iso(self._door.clock.now())

    def plan(self, as_of: str, operation_id: str) -> tuple[MaterializeTask, str]:
        """What a step process shall compute, and the folder of the code that it runs."""
        views = self.views()
        sources = sorted({v.source for v in views})
        task = MaterializeTask(
            views=views,
            tables={s: str(self._p.datasets.table(s)) for s in sources},
            versions={s: self._p.datasets.head(s).version for s in sources},
            as_of=as_of,
            online=str(self._p.online),
            operation_id=operation_id,
        )
        return task, self._p.views.code()

    def commit(self, actor: Principal, outcome: MaterializeOutcome, operation_id: str) -> list[dict[str, Any]]:
        """Record what was filled."""
        now = iso(self._door.clock.now())
        rows = [
            Materialization(v.view, v.digest, outcome.as_of, v.keys, v.datasets, outcome.operation_id, now)
            for v in outcome.views
        ]

        def do(tx: Tx) -> Done[list[dict[str, Any]]]:
            self._p.store.add(tx, rows)
            for row in rows:
                parents = [Node("dataset", f"{name}@{version}") for name, version in row.datasets.items()]
                node = Node("materialization", f"{row.view} {row.as_of}")
                self._p.lineage.record(tx, node, [*parents, Node("view", f"{row.view} {row.digest}")])
            return Done([msgspec.to_builtins(r) for r in rows])

        detail = {"as_of": outcome.as_of, "keys": {r.view: r.keys for r in rows}}
        return self._door.change(self._intent(actor, operation_id, detail), do)

    def refuse(self, actor: Principal, error: FalajError, operation_id: str) -> None:
        """Audit that a materialisation was refused."""
        self._door.refuse(self._intent(actor, operation_id), error)

    def copy_online(self, folder: Path) -> bool:
        """Copy the online store, as it is at one moment, into an empty folder; False when nothing was materialised."""
        if not (self._p.online / "data.mdb").is_file():
            return False
        with self._reading:  # LMDB refuses to open one folder twice in a process
            reader = OnlineReader(self._p.online)
            try:
                reader.copy(folder)
            finally:
                reader.close()
        return True

    def get(self, actor: Principal, view: str, key: str) -> dict[str, Any]:
        """The online value of one key, with its age against the view's time to live.

        Raises `NotFound` without the view or the value, `Denied`, and what `OnlineReader.get_many` raises.
        """
        spec = self.view(view)
        self._door.check(Intent(actor, FEATURES_GET, Resource("FeatureView", view)))
        with self._reading:  # LMDB refuses to open one folder twice in a process
            reader = OnlineReader(self._p.online)
            try:
                (found,) = reader.get_many(spec.digest, [key])
            finally:
                reader.close()
        if found is None:
            raise NotFound(
                f"{view} has no value for {key[:80]!r}",
                hint="materialise first: `falaj features materialize`",
                code="no_feature_value",
            )
        event_us, values = found
        age = self._door.clock.now() - _EPOCH - timedelta(microseconds=event_us)
        names = [c.name for c in spec.columns]
        return {
            "view": view,
            "key": key,
            "values": dict(zip(names, values, strict=True)),
            "age_seconds": round(age.total_seconds(), 3),
            "status": "present" if fresh(age, spec.ttl_seconds) else "expired",
        }

    @staticmethod
    def _intent(actor: Principal, operation_id: str, detail: dict[str, Any] | None = None) -> Intent:
        return Intent(actor, FEATURES_MATERIALIZE, Resource("FeatureView", "*"), operation_id, detail=detail or {})
