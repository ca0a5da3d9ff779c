"""Signing keys: which sign and which did, replaced and revoked over HTTP; and the key-encryption key. No private key passes here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.audit.rotating import LogKeyService
from falaj.governance.audit.rotation import KEY as LOG
from falaj.governance.identity.guard import Guard, actor
from falaj.governance.signing.kek import NAME as KEK
from falaj.governance.signing.model import KEY_REVOKE, KEY_ROTATE
from falaj.governance.signing.service import KeyService
from falaj.governance.signing.storekeys import Rotated
from falaj.governance.signing.trust import KeyRecord
from falaj.kernel.access import Principal
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


class Ports(msgspec.Struct, frozen=True):
    """What the routes are about; `rotate_kek` replaces the key-encryption key, `kek` tells of it."""

    keys: KeyService
    log: LogKeyService
    service: RevokingService
    rotate_kek: Callable[[Principal, str], Rotated]
    kek: Callable[[], dict[str, str]]


def build(ports: Ports, guard: Guard) -> APIRouter:
    """The routes. The log's key is not revoked: who holds its vkey decides whom to believe."""
    keys, log, service = ports.keys, ports.log, ports.service
    routes = guard.router("/api/v1/keys", "keys")

    @routes.get("/signing", KEYS_READ)
    def signing() -> list[dict[str, Any]]:
        return [*(_told(r, *keys.lies(r)) for r in (*keys.records(), *log.records())), ports.kek()]

    @routes.post("/rotations", KEY_ROTATE)
    def rotate(body: Rotation, request: Request) -> dict[str, Any]:
        who = actor(request)
        if body.name in (LOG, KEK):
            done = log.rotate(who, body.reason) if body.name == LOG else ports.rotate_kek(who, body.reason)
            replaced: dict[str, Any] = msgspec.to_builtins(done)
            return replaced
        ended: dict[str, Any] = msgspec.to_builtins(service.rotate(who, body.name, body.reason))
        return ended

    @routes.post("/revocations", KEY_REVOKE)
    def revoke(body: Revocation, request: Request) -> dict[str, Any]:
        return service.revoke(actor(request), body.key, body.since, body.reason)

    return routes.router


def _told(record: KeyRecord, at: str, asked: str) -> dict[str, Any]:
    """A key, where it lies (empty: in the home), and where the settings want its successor if that is somewhere else."""
    told: dict[str, Any] = msgspec.to_builtins(record)
    return told | {"at": at, "asked": "" if at == asked or (asked and at.startswith(f"{asked}/")) else asked}
