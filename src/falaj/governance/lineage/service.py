"""Record and walk lineage. Edges are written in the transaction of the change that makes the child."""

from __future__ import annotations

from falaj.governance.lineage.model import Edge, Graph, Node, walk
from falaj.governance.lineage.ports import LineageStore
from falaj.kernel.clock import Clock, iso
from falaj.storage.sql.database import Database, Tx


class LineageService:
    """Who came from what, in both directions."""

    def __init__(self, database: Database, store: LineageStore, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock

    def record(self, tx: Tx, child: Node, parents: list[Node]) -> None:
        """`child` was made from `parents`; saying it again changes nothing."""
        self._store.add(tx, [Edge(child, p) for p in parents], iso(self._clock.now()))

    def upstream(self, root: Node, first: tuple[Node, ...] = ()) -> Graph:
        """Everything that `root` was made from. `first` are parents known from elsewhere (a journal)."""
        given = [Edge(root, parent) for parent in first]

        def step(node: Node) -> list[Edge]:
            if node == root and given:
                return given
            return self._database.read(lambda tx: self._store.parents(tx, node))

        return Graph(root, tuple(walk(root, step, up=True)))

    def downstream(self, root: Node) -> Graph:
        """Everything that was made from `root`."""
        found = walk(root, lambda n: self._database.read(lambda tx: self._store.children(tx, n)), up=False)
        return Graph(root, tuple(found))
