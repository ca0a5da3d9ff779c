"""Runs over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import APIRouter

from falaj.governance.identity.guard import Guard
from falaj.lifecycle.training.model import RUN_READ
from falaj.lifecycle.training.service import TrainingService


def build(service: TrainingService, check_model: Callable[[str], None], guard: Guard) -> APIRouter:
    """`check_model` raises `NotFound` for a model that nobody knows; it is asked when there is nothing to show."""
    routes = guard.router("/api/v1", "training")

    @routes.get("/runs/{run_id}", RUN_READ)
    def run(run_id: str) -> dict[str, Any]:
        return {**msgspec.to_builtins(service.run(run_id)), "curves": service.curves(run_id)}

    @routes.get("/models/{model}/runs", RUN_READ)
    def runs(model: str) -> list[dict[str, Any]]:
        found = service.runs(model)
        if not found:
            check_model(model)
        return [msgspec.to_builtins(r) for r in found]

    return routes.router
