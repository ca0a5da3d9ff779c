"""Statements in SQL: which envelopes speak about which version. The envelopes are blobs."""

from __future__ import annotations

import msgspec
from sqlalchemy import Column, Integer, String, Table, delete, insert, select

from falaj.lifecycle.evidence.model import Statement
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

statements_table = Table(
    "statements",
    metadata,
    Column("digest", String, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("gate", String, nullable=False),
    Column("verdict", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("predicate_type", String, nullable=False),
    Column("envelope", String, nullable=False),
    Column("created_at", String, nullable=False),
)
_c = statements_table.c


class SqlStatementStore:
    def add(self, tx: Tx, digest: str, statements: list[Statement]) -> None:
        tx.execute(delete(statements_table).where(_c.digest == digest))
        for position, statement in enumerate(statements):
            values = {**msgspec.structs.asdict(statement), "verdict": statement.verdict.value}
            tx.execute(insert(statements_table).values(digest=digest, position=position, **values))

    def of(self, tx: Tx, digest: str) -> list[Statement]:
        rows = tx.execute(select(statements_table).where(_c.digest == digest).order_by(_c.position))
        skipped = ("digest", "position")
        return [
            msgspec.convert({str(k): v for k, v in r._mapping.items() if k not in skipped}, Statement) for r in rows
        ]
