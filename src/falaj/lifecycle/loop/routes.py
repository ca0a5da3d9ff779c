"""Definitions, builds, decisions, flows, lineage and the home's state over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from falaj.governance.audit.service import AuditService
from falaj.governance.changes.model import APPROVE, REJECT
from falaj.governance.door import Done, Door, Intent
from falaj.governance.identity.guard import Guard, actor, flow_id
from falaj.governance.lineage.model import LINEAGE_READ, Edge, Node
from falaj.governance.lineage.service import LineageService
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import Clock, iso, parse_iso
from falaj.kernel.environments import PRODUCTION, STAGING
from falaj.kernel.errors import Invalid, NotFound
from falaj.kernel.ids import new_id
from falaj.lifecycle.loop.cancelling import CancelService
from falaj.lifecycle.loop.environments import EnvironmentService
from falaj.lifecycle.loop.model import (
    BUILD,
    BUILD_FLOW,
    CLOCK_SET,
    DEFINITION_APPLY,
    DEFINITION_READ,
    FLOW_CANCEL,
    FLOW_READ,
    STATUS_READ,
    ProjectDefinition,
)
from falaj.lifecycle.loop.overview import OverviewService
from falaj.lifecycle.loop.ports import Builds
from falaj.lifecycle.loop.service import DecisionService, DefinitionService
from falaj.lifecycle.loop.starting import Order, StartService
from falaj.lifecycle.loop.why import WhyService
from falaj.lifecycle.monitoring.service import MonitoringService
from falaj.lifecycle.registry.model import ENVIRONMENT_READ, VERSION_PROMOTE, parse_reference
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.strategy import ROLLOUT_START, ROLLOUT_STEER
from falaj.lifecycle.serving.model import PREDICTION_READ
from falaj.workflow.flow import Workflows
from falaj.workflow.steps import StepRunner, StepTask


class Code(BaseModel):
    """A project's code: its Python files and falaj.toml, by path below the project's folder."""

    files: dict[str, str]


class Build(BaseModel):
    """What to train with. `as_of`: only what was known then; empty means now."""

    params: dict[str, Any] = {}
    as_of: str = ""


_DESCRIBE_SECONDS = 90  # importing a project; less than a command line waits for an answer


class Reason(BaseModel):
    """Why."""

    reason: str = Field(max_length=2000)


class Approving(Reason):
    """Why; and whether the version waits for `falaj rollout start` once nothing is missing."""

    hold: bool = False
    environment: str = PRODUCTION


class Promotion(BaseModel):
    """Where the version shall go."""

    to: str = STAGING


class Start(Reason):
    """How a version gets its traffic; what is left out is as the model's own strategy says."""

    reason: str = Field(default="", max_length=2000)
    at_once: bool = False
    shadow: int | None = None
    canary: list[int] = Field(default=[], max_length=99)
    requests: int | None = None
    again: bool = False


class Moment(BaseModel):
    """What the clock shall show, and how fast it shall run."""

    shows: datetime
    rate: float = Field(default=1.0, gt=0, le=100_000)


class Record(msgspec.Struct, frozen=True):
    """A prediction's record, as far as lineage and a reader need it."""

    prediction_id: str
    model: str
    digest: str
    body: dict[str, Any]


class Ports(msgspec.Struct, frozen=True):
    """What these routes speak to."""

    definitions: DefinitionService
    decisions: DecisionService
    starts: StartService
    environments: EnvironmentService
    registry: RegistryService
    builds: Builds
    flows: Workflows
    steps: StepRunner
    monitoring: MonitoringService
    lineage: LineageService
    audit: AuditService
    why: WhyService
    overview: OverviewService
    record: Callable[[str], Record | None]
    set_clock: Callable[[datetime, float], None]
    home: str
    clock: Clock
    door: Door
    cancelling: CancelService


def build(p: Ports, guard: Guard) -> APIRouter:
    """What spans the stages, over HTTP."""
    router = APIRouter()
    for part in (
        _definitions(p, guard),
        _versions(p, guard),
        _environments(p, guard),
        _state(p, guard),
        _lineage(p, guard),
    ):
        router.include_router(part)
    return router


def _definitions(p: Ports, guard: Guard) -> APIRouter:
    routes = guard.router("/api/v1", "loop")

    async def describe(who: Principal, files: dict[str, str]) -> ProjectDefinition:
        # Describing a project runs its code: only for those whose code may hold.
        p.door.check(Intent(who, DEFINITION_APPLY, Resource("Project", "*")))
        _, folder = p.definitions.unpack(files)
        name = new_id("dsc", p.clock.now())
        try:
            place = str(p.steps.workspace(name, "describe"))
            task = StepTask("describe", {}, place, str(folder), seconds=_DESCRIBE_SECONDS)
            result = await p.steps.run(task, lambda _event: None)
        finally:
            p.steps.clean(name)
        return msgspec.convert(result.value, ProjectDefinition)

    @routes.get("/definition", DEFINITION_READ)
    def definition() -> dict[str, Any]:
        applied: dict[str, Any] = msgspec.to_builtins(p.definitions.applied())
        return applied

    @routes.post("/definition/plan", DEFINITION_READ)
    async def plan(body: Code, request: Request) -> dict[str, Any]:
        new = await describe(actor(request), body.files)
        return {"code": new.code, "changes": msgspec.to_builtins(p.definitions.plan(new))}

    @routes.post("/definition", DEFINITION_APPLY)
    async def apply(body: Code, request: Request) -> dict[str, Any]:
        return p.definitions.apply(actor(request), await describe(actor(request), body.files))

    @routes.post("/models/{model}/builds", BUILD, status_code=202)
    def start(model: str, body: Build, request: Request) -> dict[str, str]:
        p.builds.check(actor(request), model)
        flow = flow_id(request, "bld", p.clock.now())
        as_of = _moment(body.as_of) if body.as_of else iso(p.clock.now())
        payload = {"model": model, "params": body.params, "as_of": as_of, "actor": actor(request).name}
        p.flows.start(BUILD_FLOW, flow, payload)
        return {"flow": flow}

    @routes.get("/flows", FLOW_READ)
    def running() -> list[dict[str, Any]]:
        return [{"id": f.id, "name": f.name, "started_at": f.started_at} for f in p.cancelling.running()]

    @routes.post("/flows/{flow}/cancellation", FLOW_CANCEL)
    def cancel(flow: str, body: Reason, request: Request) -> dict[str, Any]:
        return p.cancelling.cancel(actor(request), flow, body.reason)

    @routes.get("/flows/{flow}", FLOW_READ)
    def watch(flow: str, after: int = 0, wait: Annotated[float, Query(ge=0, le=60)] = 0.0) -> dict[str, Any]:
        state: dict[str, Any] = msgspec.to_builtins(p.flows.state(flow, after, wait))
        return state

    return routes.router


def _versions(p: Ports, guard: Guard) -> APIRouter:
    routes = guard.router("/api/v1/models", "loop")

    @routes.post("/{model}/versions/{number}/approvals", APPROVE)
    def approve(model: str, number: int, body: Approving, request: Request) -> dict[str, Any]:
        version = p.registry.version(model, number)
        if body.environment != PRODUCTION:
            return p.environments.approve(actor(request), version, body.reason, body.environment)
        return p.decisions.approve(actor(request), version, body.reason, hold=body.hold)

    @routes.post("/{model}/versions/{number}/promotions", VERSION_PROMOTE)
    def promote(model: str, number: int, body: Promotion, request: Request) -> dict[str, Any]:
        return p.environments.promote(actor(request), p.registry.version(model, number), body.to)

    @routes.post("/{model}/versions/{number}/rollouts", ROLLOUT_START)
    def start(model: str, number: int, body: Start, request: Request) -> dict[str, Any]:
        order = Order(body.reason, body.at_once, body.shadow, tuple(body.canary), body.requests, body.again)
        return p.starts.start(actor(request), p.registry.version(model, number), order)

    @routes.post("/{model}/versions/{number}/rejections", REJECT)
    def reject(model: str, number: int, body: Reason, request: Request) -> dict[str, Any]:
        return p.decisions.reject(actor(request), p.registry.version(model, number), body.reason)

    @routes.post("/{model}/rollback", ROLLOUT_STEER)
    def roll_back(model: str, body: Reason, request: Request) -> dict[str, Any]:
        return p.decisions.roll_back(actor(request), model, body.reason)

    return routes.router


def _environments(p: Ports, guard: Guard) -> APIRouter:
    routes = guard.router("/api/v1/environments", "loop")

    @routes.get("", ENVIRONMENT_READ)
    def environments() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(e) for e in p.environments.all()]

    @routes.get("/{first}/differences/{second}", ENVIRONMENT_READ)
    def differences(first: str, second: str) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(p.environments.diff(first, second))
        return found

    return routes.router


def _state(p: Ports, guard: Guard) -> APIRouter:
    routes = guard.router("/api/v1", "state")

    @routes.get("/status", STATUS_READ)
    def status() -> dict[str, Any]:
        applied = p.definitions.newest()
        return {
            "home": p.home,
            "now": iso(p.clock.now()),
            "project": applied.definition.name if applied else None,
            "plane": msgspec.to_builtins(p.monitoring.plane()),
            "environments": {e.name: msgspec.to_builtins(e.plane) for e in p.environments.all()},
            "audit": msgspec.to_builtins(p.audit.standing()),
            "serving": [
                {"alias": v.alias, "digest": v.digest, "state": v.state}
                for model in p.registry.models()
                for v in p.registry.versions(model)
                if v.state == "serving"
            ],
        }

    @routes.get("/loop", STATUS_READ)
    def loop() -> dict[str, Any]:
        standing: dict[str, Any] = msgspec.to_builtins(p.overview.loop())
        return standing

    @routes.post("/clock", CLOCK_SET)
    def clock(body: Moment, request: Request) -> dict[str, Any]:
        shows = _moment(body.shows.isoformat())

        def do(_tx: object) -> Done[dict[str, Any]]:
            return Done({"shows": shows, "rate": body.rate})

        intent = Intent(
            actor(request), CLOCK_SET, Resource("Platform", "clock"), detail={"shows": shows, "rate": body.rate}
        )
        answer: dict[str, Any] = p.door.change(intent, do)
        p.set_clock(parse_iso(shows), body.rate)
        return answer

    return routes.router


def _lineage(p: Ports, guard: Guard) -> APIRouter:
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
    if colon and kind in (
        "version",
        "run",
        "dataset",
        "view",
        "evidence",
        "admission",
        "rehearsal",
        "file",
        "project",
        "materialization",
        "scores",
        "table",
    ):
        return _known(p, Node(kind, rest)), ()
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


def _moment(text: str) -> str:
    try:
        return iso(parse_iso(text))
    except ValueError as e:
        raise Invalid(
            f"{text[:60]!r} is not a moment: {e}", hint="write it like 2013-04-01T00:00:00Z", code="bad_moment"
        ) from e
