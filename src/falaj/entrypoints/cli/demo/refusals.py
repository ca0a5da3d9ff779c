"""What is not let through: a version that fails a gate, an unsigned one, a tampered one."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from falaj.entrypoints.cli.client import Client, connect
from falaj.entrypoints.cli.demo.copies import copy_home, flip_byte
from falaj.entrypoints.cli.demo.stage import MODEL, Stage, timed
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError, Integrity, Unavailable
from falaj.lifecycle.serving.process import PlaneFolders, start_plane
from falaj.lifecycle.serving.service import live_workers
from falaj.storage.blobs.local import blob_path

WEAK = {"n_estimators": 1, "num_leaves": 2}


def refusals(stage: Stage) -> None:
    """Three things that do not get through, one line each with reason and next step."""
    stage.begin("evidence", "Refusals", "no evidence, no signature, other bytes: no traffic")
    _fails_a_gate(stage)
    copy = copy_home(stage.settings.home, stage.settings.home / "demo" / "copy")
    try:
        _unsigned(stage, copy)
        _tampered(stage, copy)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _fails_a_gate(stage: Stage) -> None:
    with timed() as seconds:
        try:
            stage.flow(f"/api/v1/models/{MODEL}/builds", {"params": WEAK, "as_of": iso(stage.now())})
        except FalajError as e:
            _expect(e, "gate_failed")
            stage.refused("a tree with two leaves, at registration", e, seconds())
            stage.keep_refusal("a weak model", "registration", e.message)
            return
    raise Unavailable("a weak model was registered", hint="this is a fault: please report it", code="demo_fault")


def _unsigned(stage: Stage, copy: Path) -> None:
    """In the copy, take the signature away and ask for admission."""
    version = serving_version(stage.client("risk-officer"))
    blob_path(copy / "blobs", version["signature"]).unlink()
    settings = msgspec.structs.replace(stage.settings, home=copy, principal="risk-officer", server="")
    with connect(settings) as client, timed() as seconds:
        path = f"/api/v1/models/{MODEL}/versions/{version['number']}/admissions"
        try:
            client.post(path, {"environment": "production"})
        except FalajError as e:
            _expect(e, "unsigned")
            stage.refused(f"{version['alias']} without its signature, at admission", e, seconds())
            stage.keep_refusal("an unsigned version", "admission", e.message)
            return
    raise Unavailable("an unsigned version was admitted", hint="this is a fault: please report it", code="demo_fault")


def _tampered(stage: Stage, copy: Path) -> None:
    """In the copy, change one bit of the model's file and start a data plane on it."""
    home = stage.settings.home
    version = serving_version(stage.client("risk-officer"))
    model = next(f for f in version["files"] if f["path"].endswith(".onnx"))
    flip_byte(blob_path(copy / "blobs", model["sha256"]), 4096)
    plane = copy / "plane"
    plane.mkdir(mode=0o700, exist_ok=True)
    for name in ("key.pem", "trust.json", "bundle.json"):
        shutil.copyfile(home / "plane" / name, plane / name)
    with timed() as seconds:
        process = start_plane(PlaneFolders(plane, copy / "blobs", home / "online", copy))
        try:
            report = _report(plane, version["digest"])
        finally:
            process.stop()
    if report.get("state") != "refused":
        raise Unavailable("a tampered model was loaded", hint="this is a fault: please report it", code="demo_fault")
    error = Integrity(report["reason"], hint=report["hint"], code=report["code"])
    stage.refused(f"{version['alias']} with one bit of model.onnx changed, at load", error, seconds())
    stage.keep_refusal("a tampered model file", "load", error.message)


def serving_version(client: Client) -> dict[str, Any]:
    """The version that takes the traffic."""
    rows: list[dict[str, Any]] = client.get(f"/api/v1/models/{MODEL}/versions")
    return next(r for r in rows if r["state"] == "serving")


def _report(plane: Path, digest: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for worker in live_workers(plane):
            for report in worker.releases:
                if report.digest == digest:
                    found: dict[str, Any] = msgspec.to_builtins(report)
                    return found
        time.sleep(0.02)
    return {}


def _expect(error: FalajError, code: str) -> None:
    if error.code != code:
        raise error
