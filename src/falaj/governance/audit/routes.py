"""The audit log over HTTP: search, and the log itself by the paths of c2sp.org/tlog-tiles.

Whatever tells entries is audited itself: a search, an entry bundle, a proof, an export.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from falaj.governance.audit.export import pack
from falaj.governance.audit.model import (
    AUDIT_EXPORT,
    AUDIT_FETCH,
    AUDIT_PROVE,
    AUDIT_READ,
    AUDIT_SHARD,
    AUDIT_VERIFY,
    Conditions,
    Found,
)
from falaj.governance.audit.service import AuditService
from falaj.governance.audit.sharding import ShardService
from falaj.governance.audit.shards import place
from falaj.governance.audit.tiles import parse_path
from falaj.governance.audit.veil import Veil
from falaj.governance.door import Door, Intent
from falaj.governance.identity.guard import Guard, GuardedRouter, actor
from falaj.governance.identity.narrowing import Own, apart, within
from falaj.kernel.access import Resource
from falaj.kernel.errors import Invalid, NotFound

_LOG = Resource("AuditLog", "*")
_TEXT = "text/plain; charset=utf-8"
Size = Annotated[int, Query(ge=1, le=2**62)]


@dataclass(frozen=True)
class Wanted:
    """Which entries: the parameters of a search. `subject` is the id of a thing; `before` an entry, for the next page."""

    principal: str | None = None
    action: str | None = None
    subject: str | None = None
    outcome: str | None = None
    since: str | None = None
    until: str | None = None
    before: int | None = None
    limit: Annotated[int, Query(ge=1, le=1000)] = 50


class NewShard(BaseModel):
    """Why the log's shard is sealed."""

    reason: str = Field(max_length=2000)


def build(service: AuditService, sharding: ShardService, door: Door, veil: Veil, guard: Guard) -> APIRouter:
    """The log over HTTP."""
    routes = guard.router("/api/v1/audit", "audit")

    @routes.shared("", AUDIT_READ, _of_project)
    def search(request: Request, wanted: Annotated[Wanted, Depends()], own: Own | None) -> list[dict[str, Any]]:
        who = actor(request)
        before = wanted.before if own is None or wanted.before is None else veil.index(who.project, wanted.before)
        conditions = Conditions(
            principal=wanted.principal,
            action=wanted.action,
            resource_id=wanted.subject,
            outcome=wanted.outcome,
            since=_moment(wanted.since),
            until=_moment(wanted.until),
            limit=wanted.limit,
            before_index=before,
        )
        asked = {k: v for k, v in msgspec.to_builtins(conditions).items() if v is not None}
        part = {"project": who.project} if own else {}
        door.read(Intent(apart(who), AUDIT_READ, _LOG, detail={"conditions": asked, **part}))
        if own is None:
            return [_told(f, f.index) for f in service.search(conditions)]
        found = service.search_within(conditions, lambda e: _concerns(msgspec.to_builtins(e), own))
        return [_told(f, veil.number(who.project, f.index)) for f in found]

    @routes.post("/verification", AUDIT_VERIFY)
    def verify() -> dict[str, Any]:
        report: dict[str, Any] = msgspec.to_builtins(service.verify())
        return report

    @routes.get("/proofs/{index}", AUDIT_PROVE)
    def prove(request: Request, index: int) -> Response:
        door.read(Intent(actor(request), AUDIT_PROVE, _LOG, detail={"entry": index}))
        return Response(service.prove(index), media_type=_TEXT)

    @routes.get("/export", AUDIT_EXPORT)
    def export(request: Request) -> Response:
        door.read(Intent(actor(request), AUDIT_EXPORT, _LOG))
        return StreamingResponse(pack(service.snapshot()), media_type="application/x-tar")

    @routes.post("/shards", AUDIT_SHARD)
    def shard(body: NewShard, request: Request) -> dict[str, Any]:
        begun: dict[str, Any] = msgspec.to_builtins(sharding.begin(actor(request), body.reason))
        return begun

    @routes.get("/shards", AUDIT_FETCH)
    def shards() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(s) for s in service.shards()]

    _published(service, door, routes)
    return routes.router


def _told(found: Found, number: int) -> dict[str, Any]:
    return {"index": number, "signed": found.signed, **msgspec.to_builtins(found.entry)}


def _of_project(found: list[dict[str, Any]], own: Own) -> list[dict[str, Any]]:
    return [entry for entry in found if _concerns(entry, own)]


def _concerns(entry: dict[str, Any], own: Own) -> bool:
    """Whether an entry is about a thing of one's own. Who knocked from another project is the operator's to know."""
    knocked = entry["outcome"] == "denied" and within(entry["detail"].get("rules"))
    return not knocked and own(entry["resource_type"], entry["resource_id"])


def _moment(text: str | None) -> datetime | None:
    """A time as it is written in the log. Raises `Invalid` for anything else, a number of seconds among it."""
    if text is None:
        return None
    try:
        if not text.isdecimal():
            return datetime.fromisoformat(text)
    except ValueError:
        pass  # the same refusal as for a number
    raise Invalid(
        f"{text[:40]!r} is no time",
        hint="write it like 2026-03-01T00:00:00Z",
        code="bad_time",
    )


def _published(service: AuditService, door: Door, routes: GuardedRouter) -> None:
    """The log as it is published, each shard below a prefix that a tlog-tiles client is given: `/api/v1/audit/log` for the
    first one, `/api/v1/audit/log/shard/N` for each later one."""
    _shard(service, door, routes)

    @routes.get("/log/shard/{shard}/checkpoint", AUDIT_FETCH)
    def checkpoint_of(shard: int) -> Response:
        return _checkpoint(service, shard)

    @routes.get("/log/shard/{shard}/vkey", AUDIT_FETCH)
    def vkey_of(shard: int) -> Response:
        return Response(f"{service.tree(shard).vkey}\n", media_type=_TEXT)

    @routes.get("/log/shard/{shard}/rotation/{number}", AUDIT_FETCH)
    def rotation_of(shard: int, number: int) -> Response:
        return _rotation(service, shard, number)

    @routes.get("/log/shard/{shard}/tile/{path:path}", AUDIT_FETCH)
    def tile_of(request: Request, shard: int, path: str) -> Response:
        return _tile(service, door, request, (shard, path))

    @routes.get("/consistency", AUDIT_FETCH)
    def consistency(old: Size, new: Size | None = None, origin: str | None = None) -> dict[str, Any]:
        proof: dict[str, Any] = msgspec.to_builtins(service.consistency(old, new, origin))
        return proof

    @routes.get("/witnesses", AUDIT_FETCH)
    def witnesses() -> dict[str, Any]:
        standing: dict[str, Any] = msgspec.to_builtins(service.watched())
        return standing


def _shard(service: AuditService, door: Door, routes: GuardedRouter) -> None:
    """The first shard, which is the whole log until it is sealed."""

    @routes.get("/log/checkpoint", AUDIT_FETCH)
    def checkpoint() -> Response:
        return _checkpoint(service, 1)

    @routes.get("/log/vkey", AUDIT_FETCH)
    def vkey() -> Response:
        return Response(f"{service.tree(1).vkey}\n", media_type=_TEXT)

    @routes.get("/log/rotation/{number}", AUDIT_FETCH)
    def rotation(number: int) -> Response:
        return _rotation(service, 1, number)

    @routes.get("/log/tile/{path:path}", AUDIT_FETCH)
    def tile(request: Request, path: str) -> Response:
        return _tile(service, door, request, (1, path))


def _checkpoint(service: AuditService, shard: int) -> Response:
    return Response(service.tree(shard).checkpoint, media_type=_TEXT)


def _rotation(service: AuditService, shard: int, number: int) -> Response:
    found = service.statement(number, shard)
    if found is None:
        raise NotFound(
            "the log's key was not replaced that often",
            hint="they are counted from 1; `falaj keys history` lists the log's keys",
            code="no_such_rotation",
        )
    return Response(found, media_type=_TEXT)


def _tile(service: AuditService, door: Door, request: Request, which: tuple[int, str]) -> Response:
    shard, path = which
    name = parse_path(f"tile/{path}")
    if name is not None and name.level is None:  # a bundle tells entries, the other tiles only hashes
        bundle = f"{place(shard)}{name.path}"
        door.read(Intent(actor(request), AUDIT_FETCH, _LOG, detail={"bundle": bundle}))
    data = None if name is None else service.tile(name, shard)
    if data is None:
        raise NotFound(
            "the log has no such tile",
            hint="ask for tiles of the size that the checkpoint names, by the paths of c2sp.org/tlog-tiles",
            code="no_such_tile",
        )
    return Response(data, media_type="application/octet-stream")
