"""Runs in SQL."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, Row, String, Table, insert, select, update

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
        tx.execute(insert(runs).values(_encoded(msgspec.structs.asdict(run))))

    def update(self, tx: Tx, run_id: str, **values: Any) -> None:
        tx.execute(update(runs).where(runs.c.id == run_id).values(_encoded(values)))


def _encoded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: msgspec.json.encode(v).decode() if k in _JSON else v for k, v in values.items()}


def _run(row: Row[Any]) -> Run:
    values = {str(k): msgspec.json.decode(v) if k in _JSON else v for k, v in row._mapping.items()}
    return msgspec.convert(values, Run)
