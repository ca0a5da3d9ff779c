"""Where edges are kept."""

from __future__ import annotations

from typing import Protocol

from falaj.governance.lineage.model import Edge, Node
from falaj.storage.sql.database import Tx


class LineageStore(Protocol):
    """Edges from what something was made of to what was made."""

    def add(self, tx: Tx, edges: list[Edge], at: str) -> None:
        """Add edges; one that is there is left alone."""
        ...

    def parents(self, tx: Tx, node: Node) -> list[Edge]:
        """The edges that lead to a node."""
        ...

    def children(self, tx: Tx, node: Node) -> list[Edge]:
        """The edges that lead away from a node."""
        ...
