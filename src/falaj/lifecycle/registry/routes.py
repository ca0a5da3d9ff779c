"""Versions over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel

from falaj.governance.identity.guard import Guard, actor
from falaj.kernel.environments import STAGING
from falaj.lifecycle.registry.model import VERSION_ADMIT, VERSION_READ
from falaj.lifecycle.registry.service import RegistryService


class Where(BaseModel):
    """The environment to be admitted to."""

    environment: Literal["dev", "staging", "production"]


def build(service: RegistryService, check_model: Callable[[str], None], guard: Guard) -> APIRouter:
    """`check_model` raises `NotFound` for a model that nobody knows; it is asked when there is nothing to show."""
    routes = guard.router("/api/v1/models", "registry")

    @routes.get("", VERSION_READ)
    def models() -> list[str]:
        return service.models()

    @routes.get("/{model}/versions", VERSION_READ)
    def versions(model: str) -> list[dict[str, Any]]:
        found = service.versions(model)
        if not found:
            check_model(model)
        return [{**msgspec.to_builtins(v), "alias": v.alias, **_passed(service, v.digest)} for v in found]

    @routes.post("/{model}/versions/{number}/admissions", VERSION_ADMIT)
    def admit(model: str, number: int, body: Where, request: Request) -> dict[str, Any]:
        version = service.version(model, number)
        admission: dict[str, Any] = msgspec.to_builtins(service.admit(version.digest, body.environment, actor(request)))
        return admission

    return routes.router


def _passed(service: RegistryService, digest: str) -> dict[str, Any]:
    """Which environments have let a version in, and how its rehearsal went (None: there was none), with its statement."""
    found = service.rehearsal(digest, STAGING)
    rehearsal = {**msgspec.to_builtins(found[0]), "statement": found[1]} if found else None
    return {"environments": service.let_in(digest), "rehearsal": rehearsal}
