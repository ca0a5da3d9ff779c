"""Versions of the home's policy in SQL."""

from __future__ import annotations

from sqlalchemy import Column, Integer, Row, String, Table, desc, insert, select

from falaj.governance.policy.model import PolicyVersion
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

policies = Table(
    "policies",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", String, nullable=False),
    Column("text", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("author", String, nullable=False),
    Column("at", String, nullable=False),
)


class SqlPolicyStore:
    def newest(self, tx: Tx) -> PolicyVersion | None:
        row = tx.execute(select(policies).order_by(desc(policies.c.number)).limit(1)).first()
        return _version(row) if row else None

    def one(self, tx: Tx, number: int) -> PolicyVersion | None:
        row = tx.execute(select(policies).where(policies.c.number == number)).first()
        return _version(row) if row else None

    def all(self, tx: Tx) -> list[PolicyVersion]:
        return [_version(r) for r in tx.execute(select(policies).order_by(desc(policies.c.number)))]

    def add(self, tx: Tx, version: PolicyVersion) -> None:
        tx.execute(
            insert(policies).values(
                number=version.number,
                digest=version.digest,
                text=version.text,
                reason=version.reason,
                author=version.author,
                at=version.at,
            )
        )


def _version(row: Row[tuple[object, ...]]) -> PolicyVersion:
    return PolicyVersion(row.number, row.digest, row.text, row.reason, row.author, row.at)
