"""Labels, drift, incidents and backtests over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.governance.identity.narrowing import rows
from falaj.kernel.clock import Clock
from falaj.kernel.ids import new_id
from falaj.lifecycle.monitoring.backtest import BacktestService
from falaj.lifecycle.monitoring.external import ExternalService
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.model import (
    BACKTEST,
    DRIFT_READ,
    EXTERNAL,
    EXTERNAL_DECLARE,
    EXTERNAL_READ,
    INCIDENT_READ,
    INCIDENT_RESOLVE,
    LABELS_PUSH,
    PREDICTIONS_PUSH,
    VERSION_BACKTEST,
    Pushed,
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


class Answer(BaseModel):
    """One answer of an endpoint: its own id, when, what it was asked and answered. `error` says why there is no answer,
    `version` is what it calls itself. `at` has a zone: 2026-01-31T12:00:00Z."""

    id: str = Field(max_length=400)
    at: str = Field(max_length=60)
    inputs: dict[str, Any]
    outputs: dict[str, Any] = {}
    latency_ms: float | None = None
    error: str = Field(default="", max_length=10_000)
    version: str = Field(default="", max_length=400)


class Answers(BaseModel):
    """Answers of an endpoint, up to 10,000 at once."""

    predictions: list[Answer] = Field(max_length=10_000)


class Declaration(BaseModel):
    """A model that somebody else serves, and its reference: a table that was handed over."""

    model: dict[str, Any]
    table: str = Field(max_length=60)
    format: str = Field(max_length=20)


class Range(BaseModel):
    """Days or moments, `until` not in the range itself; empty for no end. `by` is day, week or month."""

    since: str = Field(default="", max_length=40)
    until: str = Field(default="", max_length=40)
    by: str = Field(default="month", max_length=20)


class Ports(msgspec.Struct, frozen=True):
    """What these routes speak to. `check_model` raises `NotFound` for a model that nobody knows; it is asked when there
    is nothing to show."""

    quality: QualityService
    external: ExternalService
    incidents: IncidentService
    backtests: BacktestService
    flows: Workflows
    clock: Clock
    check_model: Callable[[str], None]


def build(p: Ports, guard: Guard) -> APIRouter:
    """Labels, windows, incidents and backtests."""
    routes = guard.router("/api/v1", "monitoring")

    @routes.post("/models/{model}/labels", LABELS_PUSH)
    def push(model: str, body: Labels, request: Request) -> dict[str, Any]:
        rows, unknown = [(row.prediction, row.value) for row in body.labels], 0
        if model in p.external.names():
            rows, unknown = p.external.translate(model, rows)
        answer = p.quality.push(actor(request), model, rows)
        return {**answer, "unknown": answer["unknown"] + unknown}

    @routes.get("/models/{model}/drift", DRIFT_READ)
    def drift(model: str) -> list[dict[str, Any]]:
        found = p.quality.windows(model)
        if not found and model not in p.external.names():
            p.check_model(model)
        return [msgspec.to_builtins(w) for w in found]

    @routes.shared("/incidents", INCIDENT_READ, rows("Incident", "id"))
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


def external(p: Ports, guard: Guard) -> APIRouter:
    """Models that somebody else serves."""
    routes = guard.router("/api/v1/external", "monitoring")

    @routes.get("", EXTERNAL_READ)
    def watched() -> list[dict[str, Any]]:
        return p.external.all()

    @routes.get("/{name}", EXTERNAL_READ)
    def one(name: str) -> dict[str, Any]:
        return p.external.told(name)

    @routes.post("", EXTERNAL_DECLARE, status_code=202)
    def declare(body: Declaration, request: Request) -> dict[str, str]:
        model = p.external.ask(actor(request), body.model, body.table)
        flow = new_id("ext", p.clock.now())
        told = {"model": msgspec.to_builtins(model), "table": body.table, "format": body.format}
        p.flows.start(EXTERNAL, flow, {**told, "actor": actor(request).name})
        return {"flow": flow}

    @routes.post("/{name}/predictions", PREDICTIONS_PUSH)
    def push(name: str, body: Answers, request: Request) -> dict[str, Any]:
        return p.external.push(actor(request), name, [Pushed(**row.model_dump()) for row in body.predictions])

    return routes.router
