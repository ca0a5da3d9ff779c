"""The project's definition, builds and flows over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from falaj.governance.door import Door, Intent
from falaj.governance.identity.guard import Guard, actor, flow_id
from falaj.governance.identity.narrowing import Own, discreet, rows
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import Clock, iso, written_moment
from falaj.kernel.ids import new_id
from falaj.lifecycle.loop.cancelling import CancelService
from falaj.lifecycle.loop.model import (
    BUILD,
    BUILD_FLOW,
    DEFINITION_APPLY,
    DEFINITION_READ,
    FLOW_CANCEL,
    FLOW_READ,
    ProjectDefinition,
)
from falaj.lifecycle.loop.ports import Builds
from falaj.lifecycle.loop.service import DefinitionService
from falaj.workflow.flow import Workflows
from falaj.workflow.steps import StepRunner, StepTask

_DESCRIBE_SECONDS = 90  # importing a project; less than a command line waits for an answer


class Code(BaseModel):
    """A project's code: its Python files and falaj.toml, by path below the project's folder."""

    files: dict[str, str]


class Applying(Code):
    """The same, and why it is to hold."""

    reason: str = Field(default="", max_length=2000)


class Build(BaseModel):
    """What to train with. `as_of`: only what was known then; empty means now."""

    params: dict[str, Any] = {}
    as_of: str = ""


class Reason(BaseModel):
    """Why."""

    reason: str = Field(max_length=2000)


class Ports(msgspec.Struct, frozen=True):
    """What these routes speak to."""

    definitions: DefinitionService
    builds: Builds
    flows: Workflows
    cancelling: CancelService
    steps: StepRunner
    clock: Clock
    door: Door


def build(p: Ports, guard: Guard) -> APIRouter:
    """Their routes."""
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
    async def apply(body: Applying, request: Request) -> dict[str, Any]:
        return p.definitions.apply(actor(request), await describe(actor(request), body.files), body.reason)

    @routes.post("/definition/{number}", DEFINITION_APPLY)
    def again(number: Annotated[int, Path(ge=1, le=10**9)], body: Reason, request: Request) -> dict[str, Any]:
        return p.definitions.reapply(actor(request), number, body.reason)

    @routes.post("/models/{model}/builds", BUILD, status_code=202)
    def start(model: str, body: Build, request: Request) -> dict[str, str]:
        p.builds.check(actor(request), model)
        flow = flow_id(request, "bld", p.clock.now())
        as_of = written_moment(body.as_of) if body.as_of else iso(p.clock.now())
        payload = {"model": model, "params": body.params, "as_of": as_of, "actor": actor(request).name}
        p.flows.start(BUILD_FLOW, flow, payload)
        return {"flow": flow}

    @routes.shared("/flows", FLOW_READ, rows("Flow", "id"))
    def running() -> list[dict[str, Any]]:
        return [{"id": f.id, "name": f.name, "started_at": f.started_at} for f in p.cancelling.running()]

    @routes.post("/flows/{flow}/cancellation", FLOW_CANCEL)
    def cancel(flow: str, body: Reason, request: Request) -> dict[str, Any]:
        return p.cancelling.cancel(actor(request), flow, body.reason)

    @routes.shared("/flows/{flow}", FLOW_READ, _discreetly)
    def watch(flow: str, after: int = 0, wait: Annotated[float, Query(ge=0, le=60)] = 0.0) -> dict[str, Any]:
        state: dict[str, Any] = msgspec.to_builtins(p.flows.state(flow, after, wait))
        return state

    return routes.router


def _discreetly(state: dict[str, Any], _own: Own) -> dict[str, Any]:
    """A flow's state: why it failed is told as any refusal is."""
    return {**state, "error": discreet(state["error"])} if state["error"] else state
