"""Signing in on a second device, and signing out, over HTTP.

Whoever signs in has no token yet, so two routes are open. They tell nothing about anyone: the first gives a code that is
worth nothing until somebody confirms it at the provider, the second a token to whoever holds the first one's handle.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import PUBLIC, Guard, actor
from falaj.governance.identity.model import SIGN_OUT
from falaj.governance.identity.oidc.signin import SignIns
from falaj.governance.identity.service import IdentityService
from falaj.governance.identity.verify import bearer, id_in
from falaj.kernel.errors import Unauthenticated


class Handle(BaseModel):
    """What the first of the two calls returned."""

    handle: str = Field(max_length=100)


def build(sign_ins: SignIns | None, identity: IdentityService, guard: Guard) -> APIRouter:
    """The routes; without a provider they say so."""
    routes = guard.router("/api/v1/sign-in", "identity")

    @routes.post("/device", PUBLIC)
    def begin() -> dict[str, Any]:
        shown: dict[str, Any] = msgspec.to_builtins(there(sign_ins).begin_device())
        return shown

    @routes.post("/device/token", PUBLIC)
    def look(body: Handle) -> dict[str, Any]:
        token = there(sign_ins).look(body.handle)
        if token is None:
            return {"state": "waiting"}
        return {"state": "done", "display": identity.display(token.principal), **msgspec.to_builtins(token)}

    @routes.delete("", SIGN_OUT)
    def end(request: Request) -> dict[str, str]:
        token = id_in(bearer(request.headers.get("authorization", "")))
        identity.sign_out(actor(request), token)
        return {"revoked": token}

    return routes.router


def there(sign_ins: SignIns | None) -> SignIns:
    """The provider's sign-ins. Raises `Unauthenticated` when there is no provider: without one nobody gets in."""
    if sign_ins is None:
        raise Unauthenticated(
            "this home has no identity provider",
            hint="set oidc_issuer, oidc_client_id and oidc_groups, or use a token: `falaj token create NAME --role ROLE`",
            code="no_identity_provider",
        )
    return sign_ins
