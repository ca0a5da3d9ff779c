"""Tokens and console links over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.governance.identity.model import IDENTITY_GRANT, IDENTITY_READ, IDENTITY_REVOKE, SESSION_OPEN, WHO_AM_I
from falaj.governance.identity.service import IdentityService, SessionService, Terms
from falaj.governance.identity.verify import bearer, id_in
from falaj.kernel.access import Principal


class Grant(BaseModel):
    """A principal, its roles, how long its token lasts, what it is good for (left out: all that the roles give),
    the project that it is bound to (left out: none), and why it is given."""

    name: str = Field(max_length=64)
    kind: str = Field(default="person", pattern="^(person|service)$")
    roles: list[str]
    days: int = 90
    scope: list[str] | None = None
    project: str = Field(default="", max_length=64)
    reason: str = ""


def build(identity: IdentityService, sessions: SessionService, guard: Guard) -> APIRouter:
    """Tokens, principals and console links over HTTP."""
    routes = guard.router("/api/v1", "identity")

    @routes.get("/tokens", IDENTITY_READ)
    def tokens() -> list[dict[str, Any]]:
        rows = identity.known_tokens()
        return [
            {
                "id": t.id,
                "principal": t.principal,
                "roles": t.roles,
                "expires_at": t.expires_at,
                "scope": t.scope,
                "project": t.project,
            }
            for t in rows
        ]

    @routes.post("/tokens", IDENTITY_GRANT)
    def grant(body: Grant, request: Request) -> dict[str, Any]:
        principal = Principal(body.name, body.kind, tuple(body.roles))
        terms = Terms(body.days, None if body.scope is None else tuple(body.scope), body.project, body.reason)
        answer: dict[str, Any] = msgspec.to_builtins(identity.grant(actor(request), principal, terms))
        return answer

    @routes.delete("/tokens/{token_id}", IDENTITY_REVOKE)
    def revoke(token_id: str, request: Request, reason: str = "") -> dict[str, str]:
        identity.revoke(actor(request), token_id, reason)
        return {"revoked": token_id}

    @routes.post("/sessions", SESSION_OPEN)
    def session(request: Request) -> dict[str, str]:
        token = id_in(bearer(request.headers.get("authorization", "")))
        return {"code": sessions.link(actor(request), token)}

    @routes.get("/whoami", WHO_AM_I)
    def whoami(request: Request) -> dict[str, Any]:
        me: dict[str, Any] = msgspec.to_builtins(actor(request))
        return me

    return routes.router
