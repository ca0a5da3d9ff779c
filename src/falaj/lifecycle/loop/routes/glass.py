"""Break-glass over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.changes.breaking import GlassService
from falaj.governance.changes.glass import GLASS_CLOSE, GLASS_OPEN, GLASS_PROPOSE, GLASS_READ
from falaj.governance.identity.guard import Guard, actor


class Reason(BaseModel):
    """Why."""

    reason: str = Field(max_length=2000)


class Asked(Reason):
    """The actions that are needed, for how many hours, and why."""

    actions: list[str] = Field(max_length=20)
    hours: float = 1.0


def build(service: GlassService, guard: Guard) -> APIRouter:
    """The routes."""
    routes = guard.router("/api/v1/glass", "oversight")

    @routes.get("", GLASS_READ)
    def glasses() -> list[dict[str, Any]]:
        held = {g.id for g in service.in_force()}
        return [{**msgspec.to_builtins(g), "holds": g.id in held} for g in service.all()]

    @routes.post("", GLASS_PROPOSE)
    def ask(body: Asked, request: Request) -> dict[str, Any]:
        asked: dict[str, Any] = msgspec.to_builtins(
            service.propose(actor(request), tuple(body.actions), body.hours, body.reason)
        )
        return asked

    @routes.post("/{glass}/opening", GLASS_OPEN)
    def open_(glass: str, body: Reason, request: Request) -> dict[str, Any]:
        opened: dict[str, Any] = msgspec.to_builtins(service.open(actor(request), glass, body.reason))
        return opened

    @routes.post("/{glass}/closing", GLASS_CLOSE)
    def close(glass: str, request: Request) -> dict[str, Any]:
        closed: dict[str, Any] = msgspec.to_builtins(service.close(actor(request), glass))
        return closed

    return routes.router
