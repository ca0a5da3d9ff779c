"""Where the home stands, where each model stands in the loop, and what the clock shows, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.audit.service import AuditService
from falaj.governance.changes.breaking import GlassService
from falaj.governance.door import Done, Door, Intent
from falaj.governance.identity.guard import Guard, actor
from falaj.governance.identity.narrowing import Own, rows
from falaj.kernel.access import Resource
from falaj.kernel.clock import Clock, iso, parse_iso, written_moment
from falaj.lifecycle.loop.environments import EnvironmentService
from falaj.lifecycle.loop.model import CLOCK_SET, STATUS_READ
from falaj.lifecycle.loop.overview import OverviewService
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.monitoring.service import MonitoringService
from falaj.lifecycle.registry.service import RegistryService


class Moment(BaseModel):
    """What the clock shall show, and how fast it shall run."""

    shows: datetime
    rate: float = Field(default=1.0, gt=0, le=100_000)


class Ports(msgspec.Struct, frozen=True):
    """What these routes speak to."""

    registry: RegistryService
    environments: EnvironmentService
    definitions: DefinitionService
    monitoring: MonitoringService
    audit: AuditService
    overview: OverviewService
    set_clock: Callable[[datetime, float], None]
    glass: GlassService
    home: str
    clock: Clock
    door: Door


def build(p: Ports, guard: Guard) -> APIRouter:
    """Their routes."""
    routes = guard.router("/api/v1", "state")

    @routes.shared("/status", STATUS_READ, _own_status)
    def status() -> dict[str, Any]:
        applied = p.definitions.newest()
        return {
            "home": p.home,
            "now": iso(p.clock.now()),
            "project": applied.definition.name if applied else None,
            "plane": msgspec.to_builtins(p.monitoring.plane()),
            "environments": {e.name: msgspec.to_builtins(e.plane) for e in p.environments.all()},
            "audit": msgspec.to_builtins(p.audit.standing()),
            "glass": [{"id": g.id, "words": g.words, "incident": g.incident} for g in p.glass.in_force()],
            "serving": [
                {"alias": v.alias, "digest": v.digest, "state": v.state}
                for model in p.registry.models()
                for v in p.registry.versions(model)
                if v.state == "serving"
            ],
        }

    @routes.shared("/loop", STATUS_READ, _own_loop)
    def loop() -> dict[str, Any]:
        standing: dict[str, Any] = msgspec.to_builtins(p.overview.loop())
        return standing

    @routes.post("/clock", CLOCK_SET)
    def clock(body: Moment, request: Request) -> dict[str, Any]:
        shows = written_moment(body.shows.isoformat())

        def do(_tx: object) -> Done[dict[str, Any]]:
            return Done({"shows": shows, "rate": body.rate})

        intent = Intent(
            actor(request), CLOCK_SET, Resource("Platform", "clock"), detail={"shows": shows, "rate": body.rate}
        )
        answer: dict[str, Any] = p.door.change(intent, do)
        p.set_clock(parse_iso(shows), body.rate)
        return answer

    return routes.router


def _own_status(status: dict[str, Any], own: Own) -> dict[str, Any]:
    """What serves of one's own, and whether the plane that answers for it is well; nothing of how much there is of anything."""
    project = status["project"]
    return {
        "now": status["now"],
        "project": project if project and own("Project", project) else None,
        "plane": {"state": status["plane"]["state"]},
        "serving": [v for v in status["serving"] if own("ModelVersion", v["digest"])],
    }


def _own_loop(loop: dict[str, Any], own: Own) -> dict[str, Any]:
    """Where one's own models stand; what concerns all models is the operator's."""
    return {
        "models": rows("Model", "model")(loop["models"], own),
        "incidents": rows("Incident", "id")(loop["incidents"], own),
    }
