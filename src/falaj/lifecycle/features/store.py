"""Materialisations in SQL; rows are added, never changed."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, Integer, Row, String, Table, func, insert, select

from falaj.lifecycle.features.model import Materialization
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

materializations = Table(
    "materializations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("view", String, nullable=False, index=True),
    Column("digest", String, nullable=False),
    Column("as_of", String, nullable=False),
    Column("keys", Integer, nullable=False),
    Column("datasets", String, nullable=False),
    Column("operation_id", String, nullable=False),
    Column("created_at", String, nullable=False),
)
_c = materializations.c


class SqlMaterializationStore:
    def add(self, tx: Tx, rows: list[Materialization]) -> None:
        for row in rows:
            values = msgspec.structs.asdict(row)
            values["datasets"] = msgspec.json.encode(row.datasets).decode()
            tx.execute(insert(materializations).values(values))

    def newest(self, tx: Tx) -> list[Materialization]:
        last = select(func.max(_c.id)).group_by(_c.view)
        return [_row(r) for r in tx.execute(select(materializations).where(_c.id.in_(last)).order_by(_c.view))]

    def log(self, tx: Tx, view: str) -> list[Materialization]:
        return [_row(r) for r in tx.execute(select(materializations).where(_c.view == view).order_by(_c.id.desc()))]


def _row(row: Row[Any]) -> Materialization:
    values = {k: v for k, v in row._mapping.items() if k != "id"}
    values["datasets"] = msgspec.json.decode(values["datasets"], type=dict[str, int])
    return Materialization(**values)
