"""Nodes and edges: frozen types and pure rules.

A node is `kind:id`: a file, project, dataset, view, materialization, run, import, version, evidence, waiver,
rehearsal, admission, prediction, and so on. An edge says that `child` was made from `parent`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from falaj.kernel.access import Action

LINEAGE_READ = Action("lineage.read", "read", "Lineage", "see what a thing was made from and what was made from it")
ACTIONS = (LINEAGE_READ,)


class Node(msgspec.Struct, frozen=True, order=True):
    """A thing by its kind and its id, such as `version` and a digest."""

    kind: str
    id: str


class Edge(msgspec.Struct, frozen=True, order=True):
    """`child` was made from `parent`."""

    child: Node
    parent: Node


class Graph(msgspec.Struct, frozen=True):
    """What was found from `root`: all edges, nearest first."""

    root: Node
    edges: tuple[Edge, ...]


def walk(root: Node, step: Callable[[Node], Iterable[Edge]], up: bool) -> list[Edge]:
    """Edges from `root` upwards (to parents) or downwards, breadth first, each once."""
    seen, queue, edges = {root}, [root], []
    while queue:
        for edge in sorted(step(queue.pop(0))):
            edges.append(edge)
            following = edge.parent if up else edge.child
            if following not in seen:
                seen.add(following)
                queue.append(following)
    return edges
