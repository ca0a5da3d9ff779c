"""Where edges are kept."""

from __future__ import annotations

from typing import Protocol

from falaj.governance.lineage.model import Edge, Node
from falaj.storage.sql.database import Tx


class LineageStore(Protocol):
    def add(self, tx: Tx, edges: list[Edge], at: str) -> None: ...

    def parents(self, tx: Tx, node: Node) -> list[Edge]: ...

    def children(self, tx: Tx, node: Node) -> list[Edge]: ...
