"""Everything that speaks for a version, over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from falaj.governance.identity.guard import Guard, actor
from falaj.lifecycle.loop.dossier.model import EVIDENCE_EXPORT
from falaj.lifecycle.loop.dossier.service import DossierService


def build(service: DossierService, guard: Guard) -> APIRouter:
    """The route."""
    routes = guard.router("/api/v1/models", "evidence")

    @routes.get("/{model}/versions/{number}/dossier", EVIDENCE_EXPORT)
    def dossier(
        model: str, number: int, request: Request, region: Annotated[str | None, Query(max_length=40)] = None
    ) -> StreamingResponse:
        found = service.collect(actor(request), model, number, region)
        return StreamingResponse(service.tar(found), media_type="application/x-tar")

    return routes.router
