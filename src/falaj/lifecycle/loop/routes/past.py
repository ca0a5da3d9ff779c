"""Where things come from: lineage, a prediction's record, and why it was answered so, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Request

from falaj.governance.door import Door, Intent
from falaj.governance.identity.guard import Guard, actor
from falaj.governance.lineage.model import LINEAGE_READ, Edge, Node
from falaj.governance.lineage.service import LineageService
from falaj.kernel.access import Principal, Resource
from falaj.kernel.errors import NotFound
from falaj.lifecycle.loop.why import WhyService
from falaj.lifecycle.registry.model import parse_reference
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.serving.model import PREDICTION_READ


class Record(msgspec.Struct, frozen=True):
    """A prediction's record, as far as lineage and a reader need it."""

    prediction_id: str
    model: str
    digest: str
    body: dict[str, Any]


class Ports(msgspec.Struct, frozen=True):
    """What these routes speak to. `record` finds a prediction in the journal."""

    registry: RegistryService
    lineage: LineageService
    why: WhyService
    record: Callable[[str], Record | None]
    door: Door


def build(p: Ports, guard: Guard) -> APIRouter:
    """Their routes."""
    routes = guard.router("/api/v1", "lineage")

    @routes.get("/lineage/{name:path}", LINEAGE_READ)
    def lineage(name: str, request: Request, down: bool = False) -> dict[str, Any]:
        root, first = _root(p, name, actor(request))
        graph = p.lineage.downstream(root) if down else p.lineage.upstream(root, first)
        return {"root": msgspec.to_builtins(root), "edges": [_edge(e) for e in graph.edges]}

    @routes.get("/predictions/{prediction:path}/why", PREDICTION_READ)
    def why(prediction: str, request: Request) -> dict[str, Any]:
        p.door.read(Intent(actor(request), PREDICTION_READ, Resource("Prediction", prediction)))
        explained: dict[str, Any] = msgspec.to_builtins(p.why.explain(prediction))
        return explained

    @routes.get("/predictions/{prediction:path}", PREDICTION_READ)
    def prediction(prediction: str, request: Request) -> dict[str, Any]:
        p.door.read(Intent(actor(request), PREDICTION_READ, Resource("Prediction", prediction)))
        found: dict[str, Any] = msgspec.to_builtins(_record(p, prediction))
        return found

    return routes.router


def _root(p: Ports, name: str, reader: Principal) -> tuple[Node, tuple[Node, ...]]:
    """A node from what a person writes: a prediction id, MODEL@N, DATASET@VERSION or KIND:ID."""
    kind, colon, rest = name.partition(":")
    if colon and kind != "prediction":  # those are in the journal, and in lineage only by their version
        return _known(p, Node(kind, rest)), ()
    name = rest if colon else name
    model, at, number = name.rpartition("@")
    if at:
        if model in p.registry.models() and number != "0":  # versions of models start at 1, those of datasets at 0
            return Node("version", p.registry.version(*parse_reference(name)).digest), ()
        return _known(p, Node("dataset", name)), ()
    p.door.read(Intent(reader, PREDICTION_READ, Resource("Prediction", name)))
    return Node("prediction", name), (Node("version", _record(p, name).digest),)


def _known(p: Ports, node: Node) -> Node:
    """The node, if anything was made of it or it was made of anything. Raises `NotFound`."""
    if not (p.lineage.upstream(node).edges or p.lineage.downstream(node).edges):
        raise NotFound(
            f"nothing is known of {node.id[:80]!r}",
            hint="`falaj data log NAME` lists a dataset's versions, `falaj versions MODEL` a model's",
            code="nothing_known",
        )
    return node


def _record(p: Ports, prediction: str) -> Record:
    found = p.record(prediction)
    if found is None:
        raise NotFound(
            f"there is no prediction {prediction[:80]!r} in this home's journal",
            hint="the id is `prediction_id` in the answer's parameters",
            code="prediction_not_found",
        )
    return found


def _edge(edge: Edge) -> dict[str, str]:
    return {"child": f"{edge.child.kind}:{edge.child.id}", "parent": f"{edge.parent.kind}:{edge.parent.id}"}
