"""Datasets over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request

from falaj.governance.identity.guard import Guard, actor
from falaj.kernel.clock import Clock
from falaj.kernel.ids import new_id
from falaj.lifecycle.data.model import DATA_INGEST, DATA_READ, INGEST
from falaj.lifecycle.data.service import DataService
from falaj.workflow.flow import Workflows


def build(service: DataService, flows: Workflows, guard: Guard, clock: Clock) -> APIRouter:
    routes = guard.router("/api/v1/datasets", "data")

    @routes.get("", DATA_READ)
    def heads() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(v) for v in service.heads()]

    @routes.get("/{name}/log", DATA_READ)
    def log(name: str) -> list[dict[str, Any]]:
        return [msgspec.to_builtins(v) for v in service.log(name)]

    @routes.post("/{name}/loads", DATA_INGEST, status_code=202)
    def ingest(name: str, request: Request) -> dict[str, str]:
        service.check_ingest(actor(request), name)
        flow = new_id("ing", clock.now())
        flows.start(INGEST, flow, {"source": name, "actor": actor(request).name})
        return {"flow": flow}

    return routes.router
