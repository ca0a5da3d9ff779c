"""The proof: what stands where and why, where a prediction came from, and the log under attack."""

from __future__ import annotations

import shutil
from typing import Any

from falaj.entrypoints.cli.commands.look import tree
from falaj.entrypoints.cli.demo.copies import flip_byte
from falaj.entrypoints.cli.demo.stage import MINUTES, MODEL, Stage, timed
from falaj.governance.audit.sharded import verify_log
from falaj.kernel.digests import short
from falaj.kernel.errors import Integrity, Unavailable


def proof(stage: Stage) -> None:
    """Lineage, the log verified, a copy of it attacked, and the closing table."""
    stage.begin("proof", "Proof", "checked from the bytes")
    _lineage(stage)
    _log(stage)
    _attack(stage)
    _table(stage)


def _lineage(stage: Stage) -> None:
    prediction = stage.facts["prediction"]
    graph = stage.client().get(f"/api/v1/lineage/{prediction}")
    lines = tree(f"prediction:{prediction}", graph["edges"], down=False)
    datasets = sorted({e["parent"] for e in graph["edges"] if e["parent"].startswith("dataset:")})
    if not datasets:
        raise Unavailable(
            "the prediction cannot be traced to a dataset", hint="this is a fault: please report it", code="demo_fault"
        )
    shown = ["  " * depth + _shorter(node) for depth, node in lines if depth <= 4][:14]
    stage.done(
        f"prediction {prediction[:12]}… comes from {', '.join(d.removeprefix('dataset:') for d in datasets)}",
        lines=shown,
    )


def _log(stage: Stage) -> None:
    with timed() as seconds:
        report = stage.client().post("/api/v1/audit/verification")
    if not report["ok"]:
        raise Integrity("; ".join(report["problems"]), hint="the log does not hold", code="audit_broken")
    stage.facts["entries"] = report["size"]
    stage.done(f"falaj audit verify: {report['size']} entries under root {report['root'][:16]}…", seconds=seconds())


def _attack(stage: Stage) -> None:
    """Flip one byte in a copy of the log; verification must name the entry."""
    home = stage.settings.home
    copy = home / "demo" / "log-copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(home / "audit", copy)
    try:
        entries = sorted((copy / "tile" / "entries").rglob("*"), key=lambda p: p.stat().st_size)[-1]
        flip_byte(entries, entries.stat().st_size // 2)
        with timed() as seconds:
            report = verify_log(copy, (home / "audit" / "vkey").read_text().strip())
            took = seconds()
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    if report.ok:
        raise Unavailable("a changed byte was not found", hint="this is a fault: please report it", code="demo_fault")
    error = Integrity(report.problems[0], hint="compare with the home's own log: it still holds", code="audit_broken")
    stage.refused("a copy of the log with one byte flipped", error, took)
    stage.keep_refusal("a log with a flipped byte", "verification", report.problems[0])


def _table(stage: Stage) -> None:
    versions = [v for model in (MODEL, MINUTES) for v in stage.client().get(f"/api/v1/models/{model}/versions")]
    rows: list[list[object]] = [[v["alias"], v["state"], short(v["digest"]), v["author"], _why(v)] for v in versions]
    told = [r for r in stage.refusals if r[1] != "registration"]  # that one has its row already
    rows += [[what, "refused", "", f"at {where}", why] for what, where, why in told]
    stage.screen.table("What stands where, and why", ["what", "state", "digest", "by", "why"], rows)


def _why(version: dict[str, Any]) -> str:
    if version["reason"]:
        return str(version["reason"])
    if version["state"] == "serving":
        return f"{len(version['gates'])} gates passed, approved by another, admitted, verified again at load"
    return ""


def _shorter(node: str) -> str:
    kind, _, rest = node.partition(":")
    words = [short(w) if w.startswith("sha256:") else w for w in rest.split(" ")]
    return f"{kind} {' '.join(words)}"
