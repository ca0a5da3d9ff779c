"""Signing keys: which sign and which did, replaced and revoked over HTTP. No private key passes here."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.governance.signing.model import KEY_REVOKE, KEY_ROTATE
from falaj.governance.signing.service import KeyService
from falaj.lifecycle.loop.keeping.model import KEYS_READ
from falaj.lifecycle.loop.revoking import RevokingService


class Rotation(BaseModel):
    """Which key gets a successor, and why."""

    name: str = Field(max_length=40)
    reason: str = Field(max_length=2000)


class Revocation(BaseModel):
    """A key, by name or fingerprint; since when its signatures count no more (empty: none ever did); and why."""

    key: str = Field(max_length=80)
    since: str = Field(default="", max_length=40)
    reason: str = Field(max_length=2000)


def build(keys: KeyService, service: RevokingService, guard: Guard) -> APIRouter:
    """The routes."""
    routes = guard.router("/api/v1/keys", "keys")

    @routes.get("/signing", KEYS_READ)
    def signing() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(r) for r in keys.records()]

    @routes.post("/rotations", KEY_ROTATE)
    def rotate(body: Rotation, request: Request) -> dict[str, Any]:
        ended: dict[str, Any] = msgspec.to_builtins(service.rotate(actor(request), body.name, body.reason))
        return ended

    @routes.post("/revocations", KEY_REVOKE)
    def revoke(body: Revocation, request: Request) -> dict[str, Any]:
        return service.revoke(actor(request), body.key, body.since, body.reason)

    return routes.router
