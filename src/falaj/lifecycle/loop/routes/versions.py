"""One version's way: approved, rejected, promoted, started, rolled back; and the environments, over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.changes.model import APPROVE, REJECT
from falaj.governance.identity.guard import Guard, actor
from falaj.kernel.environments import PRODUCTION, STAGING
from falaj.lifecycle.loop.deciding import DecisionService
from falaj.lifecycle.loop.environments import EnvironmentService
from falaj.lifecycle.loop.starting import Order, StartService
from falaj.lifecycle.registry.model import ENVIRONMENT_READ, VERSION_PROMOTE
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.strategy import ROLLOUT_START, ROLLOUT_STEER


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


class Ports(msgspec.Struct, frozen=True):
    """What these routes speak to."""

    registry: RegistryService
    decisions: DecisionService
    starts: StartService
    environments: EnvironmentService


def build(p: Ports, guard: Guard) -> APIRouter:
    """Their routes."""
    router = APIRouter()
    router.include_router(_of_models(p, guard))
    router.include_router(_environments(p, guard))
    return router


def _of_models(p: Ports, guard: Guard) -> APIRouter:
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
