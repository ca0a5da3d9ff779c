"""Runs and imports over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor, flow_id
from falaj.kernel.clock import Clock, iso
from falaj.kernel.digests import FileEntry
from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.foreign import (
    FILE_BYTES,
    IMPORT,
    IMPORT_FLOW,
    IMPORT_READ,
    PREFIX,
    SOURCE_FILES,
    check_source,
    read_declared,
)
from falaj.lifecycle.training.imports import ImportService
from falaj.lifecycle.training.model import RUN_READ
from falaj.lifecycle.training.ports import Imports
from falaj.lifecycle.training.service import TrainingService
from falaj.workflow.flow import Workflows


def build(service: TrainingService, check_model: Callable[[str], None], guard: Guard) -> APIRouter:
    """`check_model` raises `NotFound` for a model that nobody knows; it is asked when there is nothing to show."""
    routes = guard.router("/api/v1", "training")

    @routes.get("/runs/{run_id}", RUN_READ)
    def run(run_id: str) -> dict[str, Any]:
        return {**msgspec.to_builtins(service.run(run_id)), "curves": service.curves(run_id)}

    @routes.get("/models/{model}/runs", RUN_READ)
    def runs(model: str) -> list[dict[str, Any]]:
        found = service.runs(model)
        if not found:
            check_model(model)
        return [msgspec.to_builtins(r) for r in found]

    return routes.router


class Source(BaseModel):
    """What is to be imported: its kind, where it came from, its files by digest (each was uploaded before), and what is said of it."""

    kind: Literal["onnx", "mlflow"]
    uri: str = Field(min_length=1, max_length=1000)
    files: list[dict[str, Any]] = Field(min_length=1, max_length=SOURCE_FILES)
    contract: dict[str, Any] = {}
    claims: dict[str, str] = Field(default={}, max_length=50)


class ImportPorts(msgspec.Struct, frozen=True):
    """What the import routes speak to."""

    service: ImportService
    imports: Imports
    flows: Workflows
    clock: Clock
    check_model: Callable[[str], None]


def build_imports(p: ImportPorts, guard: Guard) -> APIRouter:
    """Files come first, one by one, as they are; then an import names them by their digests. No path of a caller is ever opened."""
    routes = guard.router("/api/v1", "imports")

    @routes.post("/imports/files", IMPORT)
    async def upload(request: Request) -> dict[str, Any]:
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > FILE_BYTES:
                raise Invalid(
                    f"the file is larger than {FILE_BYTES >> 20} MB",
                    hint="models of this size are not imported: export a smaller one",
                    code="source_too_large",
                )
        digest = await run_in_threadpool(p.service.keep, actor(request), bytes(data))
        return {"digest": digest, "size": len(data)}

    @routes.post("/models/{model}/imports", IMPORT, status_code=202)
    def start(model: str, body: Source, request: Request) -> dict[str, str]:
        who = actor(request)
        p.imports.check(who, model)
        contract = msgspec.to_builtins(read_declared(body.contract))
        at = iso(p.clock.now())
        try:
            files = msgspec.convert(body.files, tuple[FileEntry, ...])
        except msgspec.ValidationError as e:
            raise Invalid(f"the files cannot be read: {e}", hint="name path, size and sha256", code="bad_source") from e
        check_source(body.kind, files)
        flow = flow_id(request, PREFIX, p.clock.now())
        payload = {
            "model": model, "kind": body.kind, "uri": body.uri, "files": msgspec.to_builtins(files), "contract": contract,
            "claims": {k[:60]: v[:300] for k, v in body.claims.items()}, "actor": who.name, "at": at,
        }  # fmt: skip
        p.flows.start(IMPORT_FLOW, flow, payload)
        return {"flow": flow}

    @routes.get("/imports/{import_id}", IMPORT_READ)
    def one(import_id: str) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(p.service.get(import_id))
        return found

    @routes.get("/models/{model}/imports", IMPORT_READ)
    def imports(model: str) -> list[dict[str, Any]]:
        found = p.service.of_model(model)
        if not found:
            p.check_model(model)
        return [msgspec.to_builtins(i) for i in found]

    return routes.router
