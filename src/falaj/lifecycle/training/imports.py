"""Imports: begun by a person, recorded with what was brought in, and with what came of it."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.lineage.model import Node
from falaj.governance.lineage.service import LineageService
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError, NotFound
from falaj.lifecycle.training.foreign import (
    IMPORT,
    IMPORT_FINISH,
    Import,
    ImportOutcome,
    check_declared,
    check_source,
    source_digest,
)
from falaj.lifecycle.training.ports import Blobs, ImportStore
from falaj.lifecycle.training.service import Allowed
from falaj.storage.sql.database import Database, Tx


class Ports(msgspec.Struct, frozen=True):
    """What imports work with."""

    database: Database
    store: ImportStore
    blobs: Blobs
    lineage: LineageService


class ImportService:
    """Where imported versions came from."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    def get(self, import_id: str) -> Import:
        """Raises `NotFound`."""
        found = self._p.database.read(lambda tx: self._p.store.get(tx, import_id))
        if found is None:
            raise NotFound(
                f"there is no import {import_id[:60]}",
                hint="`falaj versions MODEL` shows what each version was made by",
                code="no_such_import",
            )
        return found

    def of_model(self, model: str) -> list[Import]:
        """Newest first."""
        return self._p.database.read(lambda tx: self._p.store.of_model(tx, model))

    def keep(self, actor: Principal, data: bytes) -> str:
        """Keep one file that is to be imported; returns its digest. Nothing names it until an import does."""
        self._door.check(Intent(actor, IMPORT, Resource("Model", "*")))
        return self._p.blobs.put(data)

    def check(self, actor: Principal, model: str, allowed: Allowed | None) -> None:
        """Authorise an import before anything is read; with `allowed` the project's data would be read for it. Raises `Denied`."""
        self._door.check(Intent(actor, IMPORT, _resource(model, allowed)))

    def start(self, actor: Principal, record: Import, allowed: Allowed | None, operation_id: str) -> Import:
        """Commit the intent to import. A repeated operation returns the import as it was started first."""
        check_source(record.format, record.files)
        check_declared(record.contract)

        def do(tx: Tx) -> Done[dict[str, Any]]:
            self._p.store.put(tx, record)
            self._p.lineage.record(tx, Node("import", record.id), [Node("source", f"{record.source} {record.uri}")])
            return Done(msgspec.to_builtins(record))

        detail = {"import": record.id, "source": record.source, "uri": record.uri[:500], "files": len(record.files)}
        intent = Intent(actor, IMPORT, _resource(record.model, allowed), operation_id, detail=detail)
        return msgspec.convert(self._door.change(intent, do), Import)

    def finish(self, record: Import, outcome: ImportOutcome, operation_id: str) -> Import:
        """Record what came of it; the artifacts are kept by then."""
        done = msgspec.structs.replace(
            record,
            state="finished",
            format=outcome.format,
            claims={**record.claims, **outcome.claims},
            artifacts=outcome.artifacts,
            digest=outcome.digest,
            missing=outcome.missing,
            finished_at=iso(self._door.clock.now()),
        )
        detail = {
            "import": record.id,
            "model": outcome.digest,
            "format": outcome.format,
            "missing": sorted(outcome.missing),
        }
        return self._put(done, operation_id, detail)

    def fail(self, record: Import, error: FalajError, operation_id: str) -> Import:
        """Record why nothing came of it."""
        now = iso(self._door.clock.now())
        done = msgspec.structs.replace(record, state="failed", reason=error.message[:1000], finished_at=now)
        detail = {"import": record.id, "code": error.code, "reason": error.message[:500]}
        return self._put(done, operation_id, detail)

    def _put(self, record: Import, operation_id: str, detail: dict[str, Any]) -> Import:
        def do(tx: Tx) -> Done[dict[str, Any]]:
            self._p.store.put(tx, record)
            return Done(msgspec.to_builtins(record))

        context = {"on_behalf_of": record.author}
        intent = Intent(SYSTEM, IMPORT_FINISH, Resource("Model", record.model), operation_id, context, detail)
        return msgspec.convert(self._door.change(intent, do), Import)


def new_import(import_id: str, asked: dict[str, Any], at: str) -> Import:
    """The record of an import that begins, from what was asked. Raises what `msgspec.convert` raises."""
    record = {
        "id": import_id, "model": asked["model"], "state": "running", "author": asked["actor"], "format": asked["kind"],
        "uri": asked["uri"], "source": "", "files": asked["files"], "claims": asked["claims"], "contract": asked["contract"],
        "artifacts": {}, "digest": "", "missing": {}, "started_at": at,
    }  # fmt: skip
    found = msgspec.convert(record, Import)
    return msgspec.structs.replace(found, source=source_digest(found.files) if found.files else "")


def _resource(model: str, allowed: Allowed | None) -> Resource:
    """With the purposes where the project's data would be read."""
    if allowed is None:
        return Resource("Model", model)
    return Resource("Model", model, {"purpose": allowed.purpose, "purposes": list(allowed.purposes)})
