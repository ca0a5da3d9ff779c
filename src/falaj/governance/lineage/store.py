"""Edges in SQL."""

from __future__ import annotations

from sqlalchemy import Column, Index, String, Table, insert, select

from falaj.governance.lineage.model import Edge, Node
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

edges_table = Table(
    "lineage_edges",
    metadata,
    Column("child_kind", String, primary_key=True),
    Column("child_id", String, primary_key=True),
    Column("parent_kind", String, primary_key=True),
    Column("parent_id", String, primary_key=True),
    Column("at", String, nullable=False),
    Index("ix_lineage_edges_parent", "parent_kind", "parent_id"),
)
_c = edges_table.c


class SqlLineageStore:
    """A `LineageStore` over the table above."""

    def add(self, tx: Tx, edges: list[Edge], at: str) -> None:
        """Add edges with the moment (RFC 3339); one that is there is left alone."""
        for e in edges:
            values = {
                "child_kind": e.child.kind, "child_id": e.child.id,
                "parent_kind": e.parent.kind, "parent_id": e.parent.id, "at": at,
            }  # fmt: skip
            same = [column == values[column.name] for column in edges_table.primary_key]
            if tx.execute(select(_c.at).where(*same)).first() is None:
                tx.execute(insert(edges_table).values(values))

    def parents(self, tx: Tx, node: Node) -> list[Edge]:
        """The edges that lead to a node, in no order."""
        return _edges(tx, (_c.child_kind == node.kind) & (_c.child_id == node.id))

    def children(self, tx: Tx, node: Node) -> list[Edge]:
        """The edges that lead away from a node, in no order."""
        return _edges(tx, (_c.parent_kind == node.kind) & (_c.parent_id == node.id))


def _edges(tx: Tx, condition: object) -> list[Edge]:
    rows = tx.execute(select(edges_table).where(condition))  # type: ignore[arg-type]
    return [Edge(Node(r.child_kind, r.child_id), Node(r.parent_kind, r.parent_id)) for r in rows]
