"""The prediction journal over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request

from falaj.governance.identity.guard import Guard, actor
from falaj.lifecycle.serving.journals import JournalService
from falaj.lifecycle.serving.model import JOURNAL_READ, JOURNAL_ROTATE


def build(journals: JournalService, guard: Guard) -> APIRouter:
    routes = guard.router("/api/v1/journal", "serving")

    @routes.get("/segments", JOURNAL_READ)
    def segments() -> list[dict[str, Any]]:
        return [msgspec.to_builtins(s) for s in journals.segments()]

    @routes.post("/rotations", JOURNAL_ROTATE)
    def rotate(request: Request) -> dict[str, Any]:
        return journals.rotate(actor(request))

    return routes.router
