"""Rollouts over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.lifecycle.rollout.ports import Analyst
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.rollout.strategy import ROLLOUT_READ, ROLLOUT_STEER


class Order(BaseModel):
    """What a person asks of the running rollout."""

    order: str = Field(pattern="^(promote|abort)$")


def build(service: RolloutService, analyst: Analyst, check_model: Callable[[str], None], guard: Guard) -> APIRouter:
    """`check_model` raises `NotFound` for a model that nobody knows; it is asked when there is nothing to show."""
    routes = guard.router("/api/v1/models", "rollout")

    @routes.get("/{model}/rollouts", ROLLOUT_READ)
    def rollouts(model: str) -> list[dict[str, Any]]:
        found = service.rollouts(model)
        if not found:
            check_model(model)
        running = [r for r in found if not r.ended]
        analysis = msgspec.to_builtins(analyst.analyse(running[0])) if running else None
        return [
            {**msgspec.to_builtins(r), "weight": r.weight, "analysis": analysis if not r.ended else None} for r in found
        ]

    @routes.post("/{model}/rollouts/orders", ROLLOUT_STEER)
    def order(model: str, body: Order, request: Request) -> dict[str, Any]:
        if not service.rollouts(model):
            check_model(model)
        ordered: dict[str, Any] = msgspec.to_builtins(service.order(actor(request), model, body.order))
        return ordered

    return routes.router
