"""The inventory, the kill switch, approvals taken back, and change records over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from falaj.governance.audit.veil import Veil
from falaj.governance.changes.inventory import (
    INVENTORY_READ,
    INVENTORY_SET,
    KILL,
    MODEL_RETIRE,
    MODEL_VALIDATE,
    REVIVE_PROPOSE,
)
from falaj.governance.changes.model import REVOKE_OWN
from falaj.governance.changes.oversight import Examined, InventoryService
from falaj.governance.changes.records import CHANGE_READ, CHANGE_REVIEW, change_id, entry_of
from falaj.governance.door import Door, Intent
from falaj.governance.identity.guard import Guard, actor
from falaj.governance.identity.narrowing import Own, rows
from falaj.kernel.access import Action, Resource
from falaj.lifecycle.loop.inventory import InventoryView
from falaj.lifecycle.loop.overseeing import OverseeingService
from falaj.lifecycle.loop.records.service import RecordService
from falaj.lifecycle.registry.service import RegistryService

_Text = Annotated[str | None, Field(max_length=2000)]


class Reason(BaseModel):
    """Why."""

    reason: str = Field(max_length=2000)


class Said(Reason):
    """What a person says of a model; what is left out stays as it is."""

    owner: _Text = None
    intended_use: _Text = None
    impact: _Text = None
    tier: _Text = None
    regulated: bool | None = None
    revalidate_by: _Text = None
    fallback: dict[str, Any] | None = None


class Validated(BaseModel):
    """What a validation found, and until when it holds."""

    outcome: str = Field(max_length=40)
    findings: list[str] = Field(default=[], max_length=100)
    until: str = Field(max_length=40)


class Retiring(Reason):
    """Whether the model is retired, or reinstated."""

    retired: bool = True


class Revoking(Reason):
    """Which approval, and for which environment; without an id the newest that stands."""

    approval: str = Field(default="", max_length=60)
    environment: Literal["staging", "production"] = "production"


class Reviewed(BaseModel):
    """How a change went."""

    outcome: str = Field(max_length=40)
    text: str = Field(max_length=4000)


class Ports(msgspec.Struct, frozen=True):
    """What these routes speak to."""

    registry: RegistryService
    inventory: InventoryService
    view: InventoryView
    overseeing: OverseeingService
    records: RecordService
    check_model: Callable[[str], None]
    door: Door
    veil: Veil


def build(p: Ports, guard: Guard) -> APIRouter:
    """Their routes."""
    router = APIRouter()
    router.include_router(_inventory(p, guard))
    router.include_router(_models(p, guard))
    router.include_router(_changes(p, guard))
    return router


def _inventory(p: Ports, guard: Guard) -> APIRouter:
    routes = guard.router("/api/v1/inventory", "oversight")

    @routes.shared("", INVENTORY_READ, rows("Model", "model"))
    def inventory() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(r) for r in p.view.all()]

    @routes.get("/{model}", INVENTORY_READ)
    def record(model: str) -> dict[str, Any]:
        p.check_model(model)
        return _record(p, model)

    @routes.post("/{model}/facts", INVENTORY_SET)
    def say(model: str, body: Said, request: Request) -> dict[str, Any]:
        _permitted(p, request, INVENTORY_SET, model)
        said = {name: value for name, value in body.model_dump(exclude={"reason"}).items() if value is not None}
        p.inventory.set(actor(request), model, said, body.reason)
        return _record(p, model)

    @routes.post("/{model}/retirement", MODEL_RETIRE)
    def retire(model: str, body: Retiring, request: Request) -> dict[str, Any]:
        _permitted(p, request, MODEL_RETIRE, model)
        if body.retired:
            out = p.overseeing.retire(actor(request), model, body.reason)
        else:
            p.inventory.set(actor(request), model, {"retired": False}, body.reason)
            out = []
        return {**_record(p, model), "taken_out": out}

    @routes.post("/{model}/validations/{number}", MODEL_VALIDATE)
    def validate(model: str, number: int, body: Validated, request: Request) -> dict[str, Any]:
        version = p.registry.version(model, number)
        examined = Examined(
            model, version.alias, version.digest, version.author, body.outcome, tuple(body.findings), body.until
        )
        found: dict[str, Any] = msgspec.to_builtins(p.inventory.validate(actor(request), examined))
        return found

    return routes.router


def _models(p: Ports, guard: Guard) -> APIRouter:
    routes = guard.router("/api/v1/models", "oversight")

    @routes.post("/{model}/kill", KILL)
    def kill(model: str, body: Reason, request: Request) -> dict[str, Any]:
        _permitted(p, request, KILL, model)
        return p.overseeing.kill(actor(request), model, body.reason)

    @routes.post("/{model}/revival", REVIVE_PROPOSE)
    def revive(model: str, body: Reason, request: Request) -> dict[str, Any]:
        _permitted(p, request, REVIVE_PROPOSE, model)
        return p.overseeing.revive(actor(request), model, body.reason)

    @routes.post("/{model}/versions/{number}/revocations", REVOKE_OWN)
    def revoke(model: str, number: int, body: Revoking, request: Request) -> dict[str, Any]:
        version = p.registry.version(model, number)
        return p.overseeing.revoke(actor(request), version, body.environment, body.approval, body.reason)

    return routes.router


def _changes(p: Ports, guard: Guard) -> APIRouter:
    routes = guard.router("/api/v1/changes", "oversight")

    def named(request: Request, index: int) -> int:
        """An entry's number, as whoever asks knows it."""
        project = actor(request).project
        return p.veil.number(project, index) if project else index

    def meant(request: Request, change: str) -> str:
        """The change that they mean."""
        project = actor(request).project
        return change_id(p.veil.index(project, entry_of(change))) if project else change

    def veiled(request: Request, found: dict[str, Any]) -> dict[str, Any]:
        history = [{**step, "index": named(request, step["index"])} for step in found.get("history", ())]
        own = {"history": history} if "history" in found else {}
        return {**found, "id": change_id(named(request, entry_of(found["id"]))), **own}

    @routes.shared("", CHANGE_READ, rows("Change", "id"))
    def changes(
        request: Request,
        own: Own | None,
        model: str = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        only: Annotated[str, Query(alias="type", max_length=40)] = "",
    ) -> list[dict[str, Any]]:
        if model:
            p.door.check_within(Intent(actor(request), CHANGE_READ, Resource("Model", model)))
            p.check_model(model)
        found = p.records.all(
            model, limit, only, lambda c: own is None or own("Change", change_id(named(request, entry_of(c))))
        )
        return [veiled(request, msgspec.to_builtins(c)) for c in found]

    @routes.get("/{change}", CHANGE_READ)
    def change(change: str, request: Request) -> dict[str, Any]:
        return veiled(request, msgspec.to_builtins(p.records.get(meant(request, change))))

    @routes.post("/{change}/reviews", CHANGE_REVIEW)
    def review(change: str, body: Reviewed, request: Request) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(p.records.review(actor(request), change, body.outcome, body.text))
        return found

    return routes.router


def _record(p: Ports, model: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(p.view.record(model))
    return found


def _permitted(p: Ports, request: Request, action: Action, model: str) -> None:
    """Who may not do it is told so before anything else, also of models that are not there."""
    p.door.check(Intent(actor(request), action, Resource("Model", model)))
    p.check_model(model)
