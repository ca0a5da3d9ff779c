"""Plan a load, and commit what it came to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.lineage.model import Node
from falaj.governance.lineage.service import LineageService
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import Conflict, FalajError, NotFound
from falaj.lifecycle.data.model import DATA_INGEST, DatasetVersion, IngestOutcome, IngestTask
from falaj.lifecycle.data.ports import DatasetStore, Sources
from falaj.storage.sql.database import Database, Tx


class Ports(msgspec.Struct, frozen=True):
    """What the stage works with. `lake` holds the tables, `files` the project's data files."""

    database: Database
    store: DatasetStore
    sources: Sources
    lineage: LineageService
    lake: Path
    files: Path


class DataService:
    """Versions of datasets, and what adds one."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    def head(self, name: str) -> DatasetVersion:
        """The newest version. Raises `NotFound` before the first load."""
        found = self._p.database.read(lambda tx: self._p.store.head(tx, name))
        if found is None:
            raise NotFound(
                f"the dataset {name} has no version yet",
                hint=f"load it first: `falaj ingest {name}`",
                code="no_dataset_version",
            )
        return found

    def log(self, name: str) -> list[DatasetVersion]:
        """All versions, newest first. Raises `NotFound` for a source that is not defined now."""
        self._p.sources.source(name)
        return self.versions(name)

    def versions(self, name: str) -> list[DatasetVersion]:
        """All versions of a dataset, newest first, whether or not its source is still defined."""
        return self._p.database.read(lambda tx: self._p.store.log(tx, name))

    def heads(self) -> list[DatasetVersion]:
        """The newest version of each dataset, by name."""
        return self._p.database.read(self._p.store.heads)

    def table(self, name: str) -> Path:
        """The folder of a dataset's Delta table."""
        return self._p.lake / "datasets" / name

    def check_ingest(self, actor: Principal, name: str) -> None:
        """Authorise a load before anything is read."""
        self._p.sources.source(name)
        self._door.check(self._intent(actor, name, ""))

    def plan(self, name: str, operation_id: str) -> tuple[IngestTask, str]:
        """What a step process shall load, and the folder of the code that it runs."""
        source = self._p.sources.source(name)
        store = self._p.store
        head, files, paths = self._p.database.read(  # in one read: another load may be committed at any time
            lambda tx: (store.head(tx, name), store.known_files(tx, name), store.known_paths(tx, name))
        )
        task = IngestTask(
            source=source,
            project=str(self._p.files),
            table=str(self.table(name)),
            quarantine=str(self._p.lake / "quarantine" / name),
            operation_id=operation_id,
            base_version=head.version if head else -1,
            known_files=tuple(files),
            known_paths=paths,
        )
        return task, self._p.sources.code()

    def commit(self, actor: Principal, outcome: IngestOutcome, operation_id: str) -> dict[str, Any]:
        """Make what a load stored the head. A load that found nothing new changes nothing."""
        version = DatasetVersion(
            name=outcome.name,
            version=outcome.version,
            digest=outcome.digest,
            rows=outcome.rows,
            added=outcome.added,
            quarantined=outcome.quarantined,
            reasons=outcome.reasons,
            files=outcome.files,
            operation_id=outcome.operation_id,
            created_at=iso(self._door.clock.now()),
        )
        more = {"skipped": outcome.skipped, "examples": msgspec.to_builtins(outcome.examples)}
        result = {**msgspec.to_builtins(version), **more}
        if not outcome.files:
            return result

        def do(tx: Tx) -> Done[dict[str, Any]]:
            head = self._p.store.head(tx, version.name)
            if (head.version if head else -1) != outcome.base_version:
                raise Conflict(
                    f"another load of {version.name} finished first",
                    hint="run it again: it takes what is left",
                    code="load_overtaken",
                )
            self._p.store.add(tx, version)
            node = Node("dataset", f"{version.name}@{version.version}")
            self._p.lineage.record(tx, node, [Node("file", f"{f.path} {f.sha256}") for f in version.files])
            return Done(result)

        facts = ("version", "digest", "added", "quarantined")
        detail = {"files": len(version.files), **{k: getattr(version, k) for k in facts}}
        return self._door.change(self._intent(actor, version.name, operation_id, detail), do)

    def refuse(self, actor: Principal, name: str, error: FalajError, operation_id: str) -> None:
        """Audit that a load was refused."""
        self._door.refuse(self._intent(actor, name, operation_id), error)

    def _intent(self, actor: Principal, name: str, operation_id: str, detail: dict[str, Any] | None = None) -> Intent:
        return Intent(actor, DATA_INGEST, Resource("Dataset", name), operation_id, detail=detail or {})
