"""Datasets over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from falaj.governance.door import Door, Intent
from falaj.governance.identity.guard import Guard, actor, flow_id
from falaj.governance.identity.narrowing import rows
from falaj.kernel.access import Action, Resource
from falaj.kernel.clock import Clock
from falaj.lifecycle.data.model import DATA_INGEST, DATA_READ, INGEST, TABLE_FETCH, TABLE_HAND_OVER
from falaj.lifecycle.data.service import DataService
from falaj.storage.parcels import Parcels
from falaj.workflow.flow import Workflows


def build(service: DataService, flows: Workflows, guard: Guard, clock: Clock) -> APIRouter:
    """Datasets over HTTP."""
    routes = guard.router("/api/v1/datasets", "data")

    @routes.shared("", DATA_READ, rows("Dataset", "name"))
    def heads() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(v) for v in service.heads()]

    @routes.get("/{name}/log", DATA_READ)
    def log(name: str) -> list[dict[str, Any]]:
        return [msgspec.to_builtins(v) for v in service.log(name)]

    @routes.post("/{name}/loads", DATA_INGEST, status_code=202)
    def ingest(name: str, request: Request) -> dict[str, str]:
        service.check_ingest(actor(request), name)
        flow = flow_id(request, "ing", clock.now())
        flows.start(INGEST, flow, {"source": name, "actor": actor(request).name})
        return {"flow": flow}

    return routes.router


def tables(parcels: Parcels, door: Door, guard: Guard) -> APIRouter:
    """Tables on their way: handed over by a caller, fetched and taken away by the same."""
    routes = guard.router("/api/v1/tables", "data")

    def check(request: Request, action: Action, name: str) -> str:
        who = actor(request)
        door.check(Intent(who, action, Resource("Table", name)))
        return who.name

    @routes.post("", TABLE_HAND_OVER, status_code=201)
    async def hand_over(request: Request) -> dict[str, Any]:
        parcel = await parcels.receive(check(request, TABLE_HAND_OVER, "*"), request.stream())
        told: dict[str, Any] = msgspec.to_builtins(parcel)
        return told

    @routes.get("/{name}", TABLE_FETCH)
    def fetch(name: str, request: Request) -> StreamingResponse:
        size, content = parcels.read(check(request, TABLE_FETCH, name), name)
        return StreamingResponse(content, media_type="application/octet-stream", headers={"content-length": str(size)})

    @routes.delete("/{name}", TABLE_FETCH)
    def take_away(name: str, request: Request) -> dict[str, str]:
        parcels.remove(check(request, TABLE_FETCH, name), name)
        return {"name": name}

    return routes.router
