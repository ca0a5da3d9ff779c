"""The prediction journal, and scoring whole tables, over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.kernel.clock import Clock
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.ids import new_id
from falaj.lifecycle.serving.journals import JournalService
from falaj.lifecycle.serving.model import JOURNAL_READ, JOURNAL_ROTATE, SCORE, TABLE_SCORE
from falaj.lifecycle.serving.scoring import ScoreService
from falaj.workflow.flow import Workflows


class Table(BaseModel):
    """A table that was handed over, and how to score it: see `falaj score --help`. Without `number`, the version that
    answers now."""

    table: str = Field(max_length=60)
    format: str = Field(max_length=20)
    to: str = Field(default="parquet", max_length=20)
    number: int | None = Field(default=None, ge=1)
    environment: str = Field(default=PRODUCTION, max_length=40)
    as_of: str = Field(default="", max_length=40)
    at: str = Field(default="", max_length=200)
    raw: bool = False
    keep: list[str] = Field(default=[], max_length=100)
    record: bool = False


def build(journals: JournalService, guard: Guard) -> APIRouter:
    """The journal's segments."""
    routes = guard.router("/api/v1/journal", "serving")

    @routes.get("/segments", JOURNAL_READ)
    def segments() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(s) for s in journals.segments()]

    @routes.post("/rotations", JOURNAL_ROTATE)
    def rotate(request: Request) -> dict[str, Any]:
        return journals.rotate(actor(request))

    return routes.router


def scores(service: ScoreService, flows: Workflows, guard: Guard, clock: Clock) -> APIRouter:
    """Scoring whole tables."""
    routes = guard.router("/api/v1/models", "serving")

    @routes.post("/{model}/scores", TABLE_SCORE, status_code=202)
    def score(model: str, body: Table, request: Request) -> dict[str, str]:
        who = actor(request)
        ask = service.ask(who, model, body.number, body.model_dump())
        flow = new_id("sco", clock.now())
        flows.start(SCORE, flow, {"ask": msgspec.to_builtins(ask), "actor": who.name})
        return {"flow": flow}

    return routes.router
