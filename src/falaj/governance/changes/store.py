"""Approvals in SQL; rows are added, never changed."""

from __future__ import annotations

import msgspec
from sqlalchemy import Column, String, Table, insert, select

from falaj.governance.changes.model import Approval
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

approvals = Table(
    "approvals",
    metadata,
    Column("id", String, primary_key=True),
    Column("alias", String, nullable=False),
    Column("digest", String, nullable=False, index=True),
    Column("evidence", String, nullable=False),
    Column("principal", String, nullable=False),
    Column("roles", String, nullable=False),
    Column("decision", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("at", String, nullable=False),
    Column("environment", String, nullable=False),
)


class SqlApprovalStore:
    """An `ApprovalStore` over the table above."""

    def add(self, tx: Tx, approval: Approval) -> None:
        """Write one down; an id that is there already is an error of SQL."""
        values = {**msgspec.structs.asdict(approval), "roles": " ".join(approval.roles)}
        tx.execute(insert(approvals).values(values))

    def of(self, tx: Tx, digest: str) -> list[Approval]:
        """Those about a version, oldest first."""
        rows = tx.execute(
            select(approvals).where(approvals.c.digest == digest).order_by(approvals.c.at, approvals.c.id)
        )
        return [Approval(**{**row._mapping, "roles": tuple(row.roles.split())}) for row in rows]
