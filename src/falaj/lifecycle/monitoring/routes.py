"""Labels, drift, incidents and backtests over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.kernel.clock import Clock
from falaj.kernel.ids import new_id
from falaj.lifecycle.monitoring.backtest import BacktestService
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.model import (
    BACKTEST,
    DRIFT_READ,
    INCIDENT_READ,
    INCIDENT_RESOLVE,
    LABELS_PUSH,
    VERSION_BACKTEST,
)
from falaj.lifecycle.monitoring.quality import QualityService
from falaj.workflow.flow import Workflows


class LabelRow(BaseModel):
    """What became true of one row: `prediction` is its id, with `/row` when it was not the first row. `value` is 1 or 0 for a
    binary label, the class's position in the contract's `classes` for several, the value for a regression."""

    prediction: str = Field(max_length=120)
    value: float


class Labels(BaseModel):
    """Labels, up to 10,000 at once."""

    labels: list[LabelRow] = Field(max_length=10_000)


class Range(BaseModel):
    """Days or moments, `until` not in the range itself; empty for no end. `by` is day, week or month."""

    since: str = Field(default="", max_length=40)
    until: str = Field(default="", max_length=40)
    by: str = Field(default="month", max_length=20)


class Ports(msgspec.Struct, frozen=True):
    """What these routes speak to. `check_model` raises `NotFound` for a model that nobody knows; it is asked when there
    is nothing to show."""

    quality: QualityService
    incidents: IncidentService
    backtests: BacktestService
    flows: Workflows
    clock: Clock
    check_model: Callable[[str], None]


def build(p: Ports, guard: Guard) -> APIRouter:
    routes = guard.router("/api/v1", "monitoring")

    @routes.post("/models/{model}/labels", LABELS_PUSH)
    def push(model: str, body: Labels, request: Request) -> dict[str, Any]:
        return p.quality.push(actor(request), model, [(row.prediction, row.value) for row in body.labels])

    @routes.get("/models/{model}/drift", DRIFT_READ)
    def drift(model: str) -> list[dict[str, Any]]:
        found = p.quality.windows(model)
        if not found:
            p.check_model(model)
        return [msgspec.to_builtins(w) for w in found]

    @routes.get("/incidents", INCIDENT_READ)
    def listed() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(i) for i in p.incidents.all()]

    @routes.post("/incidents/{incident}/resolution", INCIDENT_RESOLVE)
    def resolve(incident: str, request: Request) -> dict[str, Any]:
        resolved: dict[str, Any] = msgspec.to_builtins(p.incidents.resolve(actor(request), incident))
        return resolved

    @routes.post("/models/{model}/versions/{number}/backtests", VERSION_BACKTEST, status_code=202)
    def backtest(model: str, number: Annotated[int, Path(ge=1)], body: Range, request: Request) -> dict[str, str]:
        ask = p.backtests.ask(actor(request), (model, number), body.since, body.until, body.by)
        flow = new_id("bkt", p.clock.now())
        p.flows.start(BACKTEST, flow, {"ask": msgspec.to_builtins(ask), "actor": actor(request).name})
        return {"flow": flow}

    return routes.router
