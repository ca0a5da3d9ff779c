"""Runs and imports in SQL."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, Row, String, Table, delete, insert, select, update

from falaj.lifecycle.training.foreign import Import
from falaj.lifecycle.training.model import Run
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

_JSON = ("params", "datasets", "views", "metrics", "artifacts")
runs = Table(
    "runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False, index=True),
    Column("state", String, nullable=False),
    Column("author", String, nullable=False),
    *(Column(name, String, nullable=False) for name in _JSON),
    Column("training_set", String, nullable=False),
    Column("project", String, nullable=False),
    Column("runtime", String, nullable=False),
    Column("as_of", String, nullable=False),
    Column("started_at", String, nullable=False),
    Column("finished_at", String, nullable=False),
    Column("reason", String, nullable=False),
)


class SqlRunStore:
    def get(self, tx: Tx, run_id: str) -> Run | None:
        row = tx.execute(select(runs).where(runs.c.id == run_id)).first()
        return _run(row) if row else None

    def of_model(self, tx: Tx, model: str) -> list[Run]:
        query = select(runs).where(runs.c.model == model).order_by(runs.c.started_at.desc(), runs.c.id.desc())
        return [_run(r) for r in tx.execute(query)]

    def add(self, tx: Tx, run: Run) -> None:
        tx.execute(insert(runs).values(_encoded(msgspec.structs.asdict(run), _JSON)))

    def update(self, tx: Tx, run_id: str, **values: Any) -> None:
        tx.execute(update(runs).where(runs.c.id == run_id).values(_encoded(values, _JSON)))


_IMPORT_JSON = ("files", "claims", "contract", "artifacts", "missing")
imports_table = Table(
    "imports",
    metadata,
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False, index=True),
    *(
        Column(name, String, nullable=False)
        for name in (
            "state", "author", "format", "uri", "source", "files", "claims", "contract", "artifacts", "digest", "missing",
            "started_at", "finished_at", "reason",
        )
    ),
)  # fmt: skip


class SqlImportStore:
    """Imports in SQL."""

    def get(self, tx: Tx, import_id: str) -> Import | None:
        """The import of this id; None when there is none."""
        row = tx.execute(select(imports_table).where(imports_table.c.id == import_id)).first()
        return _import(row) if row else None

    def of_model(self, tx: Tx, model: str) -> list[Import]:
        """Newest first."""
        query = select(imports_table).where(imports_table.c.model == model).order_by(imports_table.c.id.desc())
        return [_import(r) for r in tx.execute(query)]

    def put(self, tx: Tx, record: Import) -> None:
        """Write it down, in the place of what was known before."""
        values = _encoded(msgspec.structs.asdict(record), _IMPORT_JSON)
        tx.execute(delete(imports_table).where(imports_table.c.id == record.id))
        tx.execute(insert(imports_table).values(values))


def _import(row: Row[Any]) -> Import:
    return msgspec.convert(_decoded(row, _IMPORT_JSON), Import)


def _run(row: Row[Any]) -> Run:
    return msgspec.convert(_decoded(row, _JSON), Run)


def _encoded(values: dict[str, Any], as_json: tuple[str, ...]) -> dict[str, Any]:
    return {k: msgspec.json.encode(v).decode() if k in as_json else v for k, v in values.items()}


def _decoded(row: Row[Any], as_json: tuple[str, ...]) -> dict[str, Any]:
    return {str(k): msgspec.json.decode(v) if k in as_json else v for k, v in row._mapping.items()}
