"""Feature views over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel

from falaj.governance.identity.guard import Guard, actor, flow_id
from falaj.governance.identity.narrowing import rows
from falaj.kernel.clock import Clock
from falaj.lifecycle.features.model import FEATURES_GET, FEATURES_MATERIALIZE, FEATURES_READ, MATERIALIZE
from falaj.lifecycle.features.service import FeatureService
from falaj.workflow.flow import Workflows


class When(BaseModel):
    """The moment to fill the online store for; empty means now."""

    as_of: str = ""


def build(service: FeatureService, flows: Workflows, guard: Guard, clock: Clock) -> APIRouter:
    """Views, their values and what fills them, over HTTP."""
    routes = guard.router("/api/v1/features", "features")

    @routes.shared("", FEATURES_READ, rows("FeatureView", "name"))
    def views() -> list[dict[str, Any]]:
        newest = {m.view: msgspec.to_builtins(m) for m in service.newest()}
        return [{**msgspec.to_builtins(v), "materialized": newest.get(v.name)} for v in service.views()]

    @routes.get("/{view}/log", FEATURES_READ)
    def log(view: str) -> list[dict[str, Any]]:
        return [msgspec.to_builtins(m) for m in service.log(view)]

    @routes.get("/{view}/values/{key:path}", FEATURES_GET)
    def value(view: str, key: str, request: Request) -> dict[str, Any]:
        return service.get(actor(request), view, key)

    @routes.post("/materializations", FEATURES_MATERIALIZE, status_code=202)
    def materialize(body: When, request: Request) -> dict[str, str]:
        as_of = service.check_materialize(actor(request), body.as_of)
        flow = flow_id(request, "mat", clock.now())
        flows.start(MATERIALIZE, flow, {"as_of": as_of, "actor": actor(request).name})
        return {"flow": flow}

    return routes.router
