"""Evidence over HTTP, by the digest of the version that it is about."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter

from falaj.governance.identity.guard import Guard
from falaj.kernel.digests import parse_digest
from falaj.lifecycle.evidence.model import EVIDENCE_READ
from falaj.lifecycle.evidence.service import EvidenceService


def build(service: EvidenceService, guard: Guard) -> APIRouter:
    """What speaks for a version, over HTTP."""
    routes = guard.router("/api/v1/evidence", "evidence")

    @routes.get("/{digest}", EVIDENCE_READ)
    def evidence(digest: str) -> list[dict[str, Any]]:
        return [
            {**msgspec.to_builtins(statement), "finding": msgspec.to_builtins(finding)}
            for statement, finding in service.findings(parse_digest(digest))
        ]

    return routes.router
