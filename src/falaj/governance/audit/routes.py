"""The audit log over HTTP. Reading it is audited itself."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request

from falaj.governance.audit.model import ACTIONS, Conditions
from falaj.governance.audit.service import AuditService
from falaj.governance.door import Door, Intent
from falaj.governance.identity.guard import Guard, actor
from falaj.kernel.access import Resource

AUDIT_READ, AUDIT_VERIFY = ACTIONS


def build(service: AuditService, door: Door, guard: Guard) -> APIRouter:
    """The log over HTTP."""
    routes = guard.router("/api/v1/audit", "audit")

    @routes.get("", AUDIT_READ)
    def search(
        request: Request,
        principal: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        outcome: str | None = None,
        before: int | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> list[dict[str, Any]]:
        conditions = Conditions(
            principal=principal, action=action, resource_id=subject, outcome=outcome, limit=limit, before_index=before
        )
        asked = {k: v for k, v in msgspec.to_builtins(conditions).items() if v is not None}
        door.read(Intent(actor(request), AUDIT_READ, Resource("AuditLog", "*"), detail={"conditions": asked}))
        return [
            {"index": f.index, "signed": f.signed, **msgspec.to_builtins(f.entry)} for f in service.search(conditions)
        ]

    @routes.post("/verification", AUDIT_VERIFY)
    def verify() -> dict[str, Any]:
        report: dict[str, Any] = msgspec.to_builtins(service.verify())
        return report

    return routes.router
