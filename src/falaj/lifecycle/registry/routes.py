"""Versions over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.governance.identity.narrowing import rows
from falaj.kernel.access import Principal
from falaj.kernel.environments import STAGING
from falaj.lifecycle.registry.model import VERSION_ADMIT, VERSION_READ, ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.registry.waiver import WAIVER_PROPOSE, WAIVER_READ, WAIVER_REVOKE, WAIVER_SIGN
from falaj.lifecycle.registry.waivers import Proposal


class Where(BaseModel):
    """The environment to be admitted to."""

    environment: Literal["dev", "staging", "production"]


def build(service: RegistryService, check_model: Callable[[str], None], guard: Guard) -> APIRouter:
    """`check_model` raises `NotFound` for a model that nobody knows; it is asked when there is nothing to show."""
    routes = guard.router("/api/v1/models", "registry")

    @routes.shared("", VERSION_READ, rows("ModelVersion"))
    def models() -> list[str]:
        return service.models()

    @routes.get("/{model}/versions", VERSION_READ)
    def versions(model: str) -> list[dict[str, Any]]:
        found = service.versions(model)
        if not found:
            check_model(model)
        return [
            {
                **msgspec.to_builtins(v), "alias": v.alias, **_passed(service, v.digest),
                "imported": msgspec.to_builtins(service.lacking(v)), "marks": service.marks(v.digest),
            }
            for v in found
        ]  # fmt: skip

    @routes.post("/{model}/versions/{number}/admissions", VERSION_ADMIT)
    def admit(model: str, number: int, body: Where, request: Request) -> dict[str, Any]:
        version = service.version(model, number)
        admission: dict[str, Any] = msgspec.to_builtins(service.admit(version.digest, body.environment, actor(request)))
        return admission

    return routes.router


class WaiverProposal(BaseModel):
    """What to waive of a version: gates by name, why, and until which day or moment."""

    missing: list[str] = Field(min_length=1, max_length=100)
    reason: str = Field(max_length=2000)
    until: str = Field(max_length=40)


class WaiverReason(BaseModel):
    """Why."""

    reason: str = Field(max_length=2000)


class Waiving(Protocol):
    """Decides about waivers, and does what follows; implemented by the loop."""

    def of(self, version: ModelVersion) -> list[dict[str, Any]]:
        """A version's waivers, newest first."""
        ...

    def propose(self, actor: Principal, version: ModelVersion, proposal: Proposal) -> dict[str, Any]:
        """Propose one; the proposal is the first signature."""
        ...

    def sign(self, actor: Principal, version: ModelVersion, reason: str) -> dict[str, Any]:
        """Sign what is proposed."""
        ...

    def revoke(self, actor: Principal, version: ModelVersion, reason: str) -> dict[str, Any]:
        """Take it back."""
        ...


def build_waivers(service: RegistryService, waiving: Waiving, guard: Guard) -> APIRouter:
    """What is missing of an imported version, waived by two people for a time."""
    routes = guard.router("/api/v1/models", "waivers")

    @routes.get("/{model}/versions/{number}/waivers", WAIVER_READ)
    def waivers(model: str, number: int) -> list[dict[str, Any]]:
        return waiving.of(service.version(model, number))

    @routes.post("/{model}/versions/{number}/waivers", WAIVER_PROPOSE)
    def propose(model: str, number: int, body: WaiverProposal, request: Request) -> dict[str, Any]:
        proposal = Proposal(tuple(body.missing), body.reason, body.until)
        return waiving.propose(actor(request), service.version(model, number), proposal)

    @routes.post("/{model}/versions/{number}/waivers/signatures", WAIVER_SIGN)
    def sign(model: str, number: int, body: WaiverReason, request: Request) -> dict[str, Any]:
        return waiving.sign(actor(request), service.version(model, number), body.reason)

    @routes.post("/{model}/versions/{number}/waivers/revocations", WAIVER_REVOKE)
    def revoke(model: str, number: int, body: WaiverReason, request: Request) -> dict[str, Any]:
        return waiving.revoke(actor(request), service.version(model, number), body.reason)

    return routes.router


def _passed(service: RegistryService, digest: str) -> dict[str, Any]:
    """Which environments have let a version in, and how its rehearsal went (None: there was none), with its statement."""
    found = service.rehearsal(digest, STAGING)
    rehearsal = {**msgspec.to_builtins(found[0]), "statement": found[1]} if found else None
    return {"environments": service.let_in(digest), "rehearsal": rehearsal}
