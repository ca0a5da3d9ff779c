"""Labels, drift and incidents over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.model import DRIFT_READ, INCIDENT_READ, INCIDENT_RESOLVE, LABELS_PUSH
from falaj.lifecycle.monitoring.quality import QualityService


class LabelRow(BaseModel):
    """What became true of one row: `prediction` is its id, with `/row` when it was not the first row."""

    prediction: str = Field(max_length=120)
    value: float


class Labels(BaseModel):
    """Labels, up to 10,000 at once."""

    labels: list[LabelRow] = Field(max_length=10_000)


def build(
    quality: QualityService, incidents: IncidentService, check_model: Callable[[str], None], guard: Guard
) -> APIRouter:
    """`check_model` raises `NotFound` for a model that nobody knows; it is asked when there is nothing to show."""
    routes = guard.router("/api/v1", "monitoring")

    @routes.post("/models/{model}/labels", LABELS_PUSH)
    def push(model: str, body: Labels, request: Request) -> dict[str, Any]:
        return quality.push(actor(request), model, [(row.prediction, row.value) for row in body.labels])

    @routes.get("/models/{model}/drift", DRIFT_READ)
    def drift(model: str) -> list[dict[str, Any]]:
        found = quality.windows(model)
        if not found:
            check_model(model)
        return [msgspec.to_builtins(w) for w in found]

    @routes.get("/incidents", INCIDENT_READ)
    def listed() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(i) for i in incidents.all()]

    @routes.post("/incidents/{incident}/resolution", INCIDENT_RESOLVE)
    def resolve(incident: str, request: Request) -> dict[str, Any]:
        resolved: dict[str, Any] = msgspec.to_builtins(incidents.resolve(actor(request), incident))
        return resolved

    return routes.router
