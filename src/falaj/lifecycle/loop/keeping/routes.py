"""Backups and the public ids of keys over HTTP. Private keys and recovery codes never pass here."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.lifecycle.loop.keeping.model import BACKUP_READ, HOME_BACKUP, KEYS_BACKUP, KEYS_READ, KEYS_RESTORE
from falaj.lifecycle.loop.keeping.service import BackupService, KeysService


class Where(BaseModel):
    """The folder that the backup goes to: absolute, as the control plane sees it."""

    to: str = Field(max_length=4096)


class Sealed(BaseModel):
    """The digest of the file that the keys were sealed into."""

    archive: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class Names(BaseModel):
    """Which keys were brought back."""

    names: list[str] = Field(max_length=100)


def build(backups: BackupService, keys: KeysService, guard: Guard) -> APIRouter:
    """The routes."""
    routes = guard.router("/api/v1", "keeping")

    @routes.post("/backups", HOME_BACKUP)
    def take(body: Where, request: Request) -> dict[str, str]:
        return {"id": backups.start(actor(request), body.to)}

    @routes.get("/backups/{backup_id}", BACKUP_READ)
    def state(backup_id: str, wait: Annotated[float, Query(ge=0, le=30)] = 0.0) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(backups.state(backup_id, wait))
        return found

    @routes.get("/keys", KEYS_READ)
    def show() -> dict[str, str]:
        return keys.ids

    @routes.post("/keys/backups", KEYS_BACKUP)
    def sealed(body: Sealed, request: Request) -> dict[str, Any]:
        return keys.sealed(actor(request), body.archive)

    @routes.post("/keys/restorations", KEYS_RESTORE)
    def restored(body: Names, request: Request) -> dict[str, Any]:
        return keys.restored(actor(request), body.names)

    return routes.router
