from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.lineage.model import Edge, Node, walk
from falaj.governance.lineage.service import LineageService
from falaj.governance.lineage.store import SqlLineageStore
from falaj.storage.sql.database import Tx
from tests.governance.support import Desk

EDGES = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20).map(
    lambda pairs: [Edge(Node("n", str(c)), Node("n", str(p))) for c, p in set(pairs)]
)


def node(name: str) -> Node:
    kind, _, rest = name.partition(":")
    return Node(kind, rest)


@pytest.fixture
def lineage(desk: Desk) -> LineageService:
    return LineageService(desk.database, SqlLineageStore(), desk.clock)


def record(desk: Desk, lineage: LineageService, child: str, *parents: str) -> None:
    desk.database.change(lambda tx: lineage.record(tx, node(child), [node(p) for p in parents]))


@given(EDGES, st.booleans())
def test_a_walk_finds_every_edge_that_can_be_reached_once(edges: list[Edge], up: bool) -> None:
    """Circles do not hold it up."""
    root = Node("n", "0")

    def step(at: Node) -> list[Edge]:
        return [e for e in edges if (e.child if up else e.parent) == at]

    found = walk(root, step, up)
    reached = {root}
    while more := {e.parent if up else e.child for e in edges if (e.child if up else e.parent) in reached} - reached:
        reached |= more
    assert len(set(found)) == len(found)
    assert set(found) == {e for e in edges if (e.child if up else e.parent) in reached}


@given(EDGES)
def test_a_walk_goes_nearest_first_and_always_the_same_way(edges: list[Edge]) -> None:
    def step(at: Node) -> list[Edge]:
        return [e for e in edges if e.child == at]

    found = walk(Node("n", "0"), step, up=True)
    distance = {Node("n", "0"): 0}
    for edge in found:
        distance.setdefault(edge.parent, distance[edge.child] + 1)
    assert [distance[e.child] for e in found] == sorted(distance[e.child] for e in found)
    assert found == walk(Node("n", "0"), lambda at: reversed(step(at)), up=True)


def test_up_and_down(desk: Desk, lineage: LineageService) -> None:
    record(desk, lineage, "dataset:flights@1", "file:a.csv", "file:b.csv")
    record(desk, lineage, "run:r1", "dataset:flights@1", "view:weather")
    record(desk, lineage, "version:v1", "run:r1")
    up = lineage.upstream(node("version:v1"))
    assert [(e.child.id, e.parent.id) for e in up.edges] == [
        ("v1", "r1"), ("r1", "flights@1"), ("r1", "weather"), ("flights@1", "a.csv"), ("flights@1", "b.csv"),
    ]  # fmt: skip
    down = lineage.downstream(node("file:a.csv"))
    assert [e.child.id for e in down.edges] == ["flights@1", "r1", "v1"]
    assert lineage.upstream(node("file:a.csv")).edges == ()
    assert lineage.downstream(node("version:v1")).edges == ()


def test_saying_it_again_changes_nothing(desk: Desk, lineage: LineageService) -> None:
    for _ in range(2):
        record(desk, lineage, "run:r1", "dataset:d@1", "dataset:d@1")
    assert len(lineage.upstream(node("run:r1")).edges) == 1


def test_equal_ids_of_two_kinds_are_two_things(desk: Desk, lineage: LineageService) -> None:
    record(desk, lineage, "run:same", "dataset:same")
    record(desk, lineage, "version:same", "run:same")
    assert len(lineage.upstream(node("run:same")).edges) == 1
    assert len(lineage.upstream(node("dataset:same")).edges) == 0


def test_what_is_known_from_elsewhere_comes_first(desk: Desk, lineage: LineageService) -> None:
    record(desk, lineage, "version:v1", "run:r1")
    graph = lineage.upstream(node("prediction:p1"), (node("version:v1"),))
    assert [(e.child.id, e.parent.id) for e in graph.edges] == [("p1", "v1"), ("v1", "r1")]


def test_edges_live_and_die_with_the_change_that_makes_them(desk: Desk, lineage: LineageService) -> None:
    def fail(tx: Tx) -> None:
        lineage.record(tx, node("run:r1"), [node("dataset:d@1")])
        raise RuntimeError

    with pytest.raises(RuntimeError):
        desk.database.change(fail)
    assert lineage.upstream(node("run:r1")).edges == ()
