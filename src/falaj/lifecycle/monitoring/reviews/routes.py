"""Reviews over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.governance.identity.narrowing import rows
from falaj.lifecycle.monitoring.reviews.model import REVIEW_ASK, REVIEW_DECIDE, REVIEW_READ, word_of
from falaj.lifecycle.monitoring.reviews.service import ReviewService

Limit = Annotated[int, Query(ge=1, le=1000)]


class Asked(BaseModel):
    """Why a person is to look at it: whom it is about does not agree, or somebody here has a doubt."""

    because: str = Field(max_length=40)


class Decision(BaseModel):
    """Confirm, or override: then `to` is what holds instead, a class's name or a number, and `code` says why."""

    decision: Literal["confirm", "override"]
    to: str = Field(default="", max_length=200)
    code: str = Field(default="", max_length=60)


def build(service: ReviewService, guard: Guard) -> APIRouter:
    """The routes."""
    routes = guard.router("/api/v1", "oversight")

    @routes.shared("/reviews", REVIEW_READ, rows("Review", "id"))
    def listed(
        request: Request,
        state: Literal["", "pending", "confirmed", "overridden"] = "",
        model: Annotated[str, Query(max_length=200)] = "",
        limit: Limit = 100,
    ) -> list[dict[str, Any]]:
        return [r.told() for r in service.listed(actor(request), state, model, limit)]

    @routes.get("/reviews/{review}", REVIEW_READ)
    def one(review: str, request: Request) -> dict[str, Any]:
        found = service.shown(actor(request), review)
        return {**found.told(), "codes": service.codes(found.model), "choices": service.choices(found.digest)}

    @routes.post("/reviews/{review}/decision", REVIEW_DECIDE)
    def decide(review: str, body: Decision, request: Request) -> dict[str, Any]:
        return service.decide(actor(request), review, word_of(body.decision, body.to, body.code)).told()

    @routes.post("/predictions/{prediction:path}/review", REVIEW_ASK)
    def ask(prediction: str, body: Asked, request: Request) -> dict[str, Any]:
        return service.ask(actor(request), prediction, body.because)

    return routes.router
