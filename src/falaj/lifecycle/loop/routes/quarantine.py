"""Quarantine over HTTP."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.changes.holds import QUARANTINE, QUARANTINE_LIFT, QUARANTINE_READ
from falaj.governance.identity.guard import Guard, actor
from falaj.governance.identity.narrowing import rows
from falaj.lifecycle.loop.holding import HoldingService


class Reason(BaseModel):
    """Why."""

    reason: str = Field(max_length=2000)


class Held(Reason):
    """A version `MODEL@N`, or a dataset from its version `NAME@N` on; and why."""

    kind: Literal["dataset", "version"]
    name: str = Field(max_length=140)


def build(service: HoldingService, guard: Guard) -> APIRouter:
    """The routes."""
    routes = guard.router("/api/v1/quarantine", "oversight")

    @routes.shared("", QUARANTINE_READ, rows("Quarantine", "id"))
    def held() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(h) for h in service.all()]

    @routes.post("", QUARANTINE)
    def put(body: Held, request: Request) -> dict[str, Any]:
        return service.put(actor(request), body.kind, body.name, body.reason)

    @routes.post("/{hold}/lifting", QUARANTINE_LIFT)
    def lift(hold: str, body: Reason, request: Request) -> dict[str, Any]:
        lifted: dict[str, Any] = msgspec.to_builtins(service.lift(actor(request), hold, body.reason))
        return lifted

    return routes.router
