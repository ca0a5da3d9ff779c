"""What the documents of a dossier may say, from what was verified just now."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from falaj.kernel.errors import NotFound
from falaj.lifecycle.evidence.documents.facts import Decision, Facts, Part, Passage
from falaj.lifecycle.evidence.model import Finding, Statement
from falaj.lifecycle.evidence.statements import IMPORTED, PROVENANCE
from falaj.lifecycle.loop.dossier.ports import Ports
from falaj.lifecycle.registry.model import ModelVersion


def known(p: Ports, version: ModelVersion, findings: Sequence[tuple[Statement, Finding | None]]) -> Facts:
    """What the documents may say of a version, from findings that were verified."""
    made = _made(p, findings)
    runtime = next((part.digest for part in made.parts if part.kind == "runtime"), "")
    try:
        contract = p.registry.contract(version.digest)
    except NotFound:
        contract = None
    return msgspec.structs.replace(
        made,
        alias=version.alias,
        model=version.model,
        digest=version.digest,
        author=version.author,
        created_at=version.created_at,
        state=version.state,
        files=version.files,
        findings=tuple(f for _, f in findings if f is not None),
        contract=contract,
        run=version.run,
        libraries=p.libraries(runtime) if runtime else (),
        decisions=tuple(_decisions(p, version)),
        passages=tuple(_passages(p, version)),
    )


def _made(p: Ports, findings: Sequence[tuple[Statement, Finding | None]]) -> Facts:
    """How the version was made, by its verified provenance; or where it came from."""
    nothing = Facts("", "", "", "", "", "", (), ())
    for filed, _ in findings:
        if filed.predicate_type not in (PROVENANCE, IMPORTED):
            continue
        predicate = msgspec.json.decode(payload(p.blobs.get(filed.envelope)))["predicate"]
        if filed.predicate_type == IMPORTED:
            source = predicate["source"]
            origin = {"uri": source["uri"], "sha256": source["digest"]["sha256"], "format": source["format"]}
            return msgspec.structs.replace(nothing, origin=origin, unknown=tuple(predicate["unknown"]))
        build = predicate["buildDefinition"]
        outside = build["externalParameters"]
        parts = tuple(_part(p, d) for d in build["resolvedDependencies"])
        return msgspec.structs.replace(nothing, parts=parts, params=outside["params"], as_of=outside["asOf"])
    return nothing


def _part(p: Ports, dependency: dict[str, Any]) -> Part:
    notes = dependency["annotations"]
    digest, kind, number = f"sha256:{dependency['digest']['sha256']}", notes["kind"], notes.get("version")
    rows = None
    if kind == "dataset":
        known = (v for v in p.data.versions(dependency["name"]) if (v.version, v.digest) == (number, digest))
        rows = next((v.rows for v in known), None)
    return Part(kind, dependency["name"], digest, number, rows)


def _decisions(p: Ports, version: ModelVersion) -> Iterator[Decision]:
    for a in p.changes.of(version.digest):
        yield Decision(a.decision, a.principal, a.roles, a.at, a.reason, a.environment)
    for waiver in p.waivers.of(version.digest):
        gates = ", ".join(waiver.content.waived)
        for s in waiver.content.signatures:
            yield Decision("waived", s.principal, s.roles, s.at, s.reason, gates)
        if waiver.revoked:
            r = waiver.revoked
            yield Decision("revoked a waiver", r.principal, (), r.at, r.reason, gates)


def _passages(p: Ports, version: ModelVersion) -> Iterator[Passage]:
    for a, _ in p.registry.signed_admissions(version.digest):
        rests = f"{len(a.approvals)} approvals" + (f", a waiver of {', '.join(a.waived)}" if a.waived else "")
        yield Passage(a.environment, "admission", a.issued_at, a.expires_at, rests)
    for r, _ in p.registry.signed_rehearsals(version.digest):
        how = f"{r.requests} requests, {r.failures} failed" + (f": {r.reason}" if r.reason else "")
        yield Passage(r.environment, "rehearsal", r.at, "", how)


def payload(envelope: bytes) -> bytes:
    """The payload of an envelope that was verified already."""
    return base64.b64decode(msgspec.json.decode(envelope)["payload"])
