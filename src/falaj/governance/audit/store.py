"""The audit log in SQL.

The index of an entry is the head's size, and the head row moves in the same transaction, last of all that a change
does: an index is a position, contiguous, never reused. To move it is to lock it until the commit, so that two transactions
cannot take one index; a sequence would leave gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    bindparam,
    insert,
    select,
    update,
)

from falaj.governance.audit.merkle import leaf_hash
from falaj.governance.audit.model import COLUMNS, Conditions, Entry, Stored, bounded, columns_of
from falaj.kernel.clock import iso
from falaj.storage.sql.database import Tx
from falaj.storage.sql.prepared import Prepared
from falaj.storage.sql.schema import metadata

_Position = BigInteger().with_variant(Integer, "sqlite")  # SQLite keys rows by INTEGER only

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("idx", _Position, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    Column("leaf", LargeBinary(32), nullable=False),
    *(Column(name, String, nullable=False) for name in COLUMNS),
)
for _name in COLUMNS:
    if _name != "resource_type":
        Index(None, audit_entries.c[_name])
Index("ix_audit_entries_resource", audit_entries.c.resource_type, audit_entries.c.resource_id)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", _Position, nullable=False),
)

_HEAD = 1
_MOST = (1 << 63) - 1  # SQL knows no larger number, whoever asks
_size = select(audit_head.c.size).where(audit_head.c.id == _HEAD)
_start_head = insert(audit_head)
_append = Prepared(insert(audit_entries))
_move_head = Prepared(
    update(audit_head)
    .where(audit_head.c.id == bindparam("head"))
    .values(size=audit_head.c.size + bindparam("more"))
    .returning(audit_head.c.size)
)
_stored = (audit_entries.c.idx, audit_entries.c.data, audit_entries.c.leaf, *(audit_entries.c[n] for n in COLUMNS))
_range = (
    select(*_stored)
    .where(audit_entries.c.idx >= bindparam("first"), audit_entries.c.idx < bindparam("end"))
    .order_by(audit_entries.c.idx)
)


class SqlAuditStore:
    """An `AuditStore` over the tables above."""

    def append_many(self, tx: Tx, batch: Sequence[tuple[bytes, Entry]]) -> range:
        """Append entries, each with the bytes that `encode(entry)` gave, at once; returns their indices."""
        end = _move_head.execute(tx, [{"head": _HEAD, "more": len(batch)}]).scalar()
        if end is None:
            tx.execute(_start_head, {"id": _HEAD, "size": len(batch)})
            end = len(batch)
        indices = range(end - len(batch), end)
        if batch:
            _append.execute(tx, [_row(idx, data, entry) for idx, (data, entry) in zip(indices, batch, strict=True)])
        return indices

    def entries(self, tx: Tx, start: int, count: int) -> list[Stored]:
        """The rows from index `start` to below `start + count`, by index."""
        return [_as_stored(row) for row in tx.execute(_range, {"first": start, "end": start + count})]

    def search(self, tx: Tx, conditions: Conditions) -> list[Stored]:
        """The rows that meet all conditions, newest first."""
        c = audit_entries.c
        query = select(*_stored).where(c.idx < _size.scalar_subquery()).order_by(c.idx.desc()).limit(conditions.limit)
        for name in COLUMNS:
            wanted = getattr(conditions, name, None)
            if wanted is not None:
                query = query.where(c[name] == bounded(wanted))
        if conditions.since is not None:
            query = query.where(c.at >= iso(conditions.since))
        if conditions.until is not None:
            query = query.where(c.at < iso(conditions.until))
        if conditions.before_index is not None:
            query = query.where(c.idx < min(max(conditions.before_index, 0), _MOST))
        return [_as_stored(row) for row in tx.execute(query)]

    def of_actions(self, tx: Tx, actions: Sequence[str], since: int) -> list[Stored]:
        """The rows of these actions from index `since` on, whatever came of them, by index."""
        c = audit_entries.c
        query = select(*_stored).where(c.action.in_(actions), c.idx >= since).order_by(c.idx)
        return [_as_stored(row) for row in tx.execute(query)]

    def size(self, tx: Tx) -> int:
        """How many entries were ever appended."""
        return tx.execute(_size).scalar() or 0


def _row(idx: int, data: bytes, entry: Entry) -> dict[str, object]:
    return {"idx": idx, "data": data, "leaf": leaf_hash(data)} | dict(zip(COLUMNS, columns_of(entry), strict=True))


def _as_stored(row: Row[Any]) -> Stored:
    idx, data, leaf, *columns = tuple(row)
    return Stored(idx, data, leaf, tuple(columns))
