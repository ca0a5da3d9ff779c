"""Sign what was measured, and read it back only through its signature."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.lineage.model import Node
from falaj.governance.lineage.service import LineageService
from falaj.governance.signing.dsse import STATEMENT_TYPE, verify_envelope
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.governance.signing.trust import Keys, valid_at
from falaj.kernel.access import SYSTEM, Resource
from falaj.kernel.clock import iso
from falaj.kernel.digests import canonical_json, digest_of
from falaj.kernel.errors import FalajError, Integrity
from falaj.lifecycle.evidence.model import (
    EVIDENCE_RECORD,
    BuildFacts,
    Finding,
    GateSpec,
    Measurement,
    Origin,
    Proven,
    Statement,
    Verdict,
    proven,
)
from falaj.lifecycle.evidence.ports import Blobs, Envelope, StatementStore
from falaj.lifecycle.evidence.statements import IMPORTED, PROVENANCE, TEST_RESULT, imported, provenance, test_result
from falaj.storage.sql.database import Database, Tx

BUILDER = "https://falaj.dev/builder/control-plane/v1"


class Ports(msgspec.Struct, frozen=True):
    """What the stage works with."""

    database: Database
    store: StatementStore
    blobs: Blobs
    lineage: LineageService
    signer: EnvelopeSigner
    trusted: Keys


class Measured(msgspec.Struct, frozen=True):
    """Everything that was found out about one version."""

    alias: str
    digest: str
    findings: tuple[Finding, ...]
    facts: BuildFacts
    started: str
    finished: str
    origin: Origin | None = None  # of an imported version, in the place of `facts`


class EvidenceService:
    """Measurements become signed statements, and are read back with their signatures verified."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    def record(self, measured: Measured, on_behalf_of: str, operation_id: str) -> str:
        """Sign one statement a gate and one of provenance; returns the digest of the evidence set."""
        digest, at = measured.digest, iso(self._door.clock.now())
        statements = []
        for finding in measured.findings:
            envelope = self._sign(test_result(measured.alias, digest, finding))
            name = finding.gate.name
            statements.append(Statement(name, finding.verdict, finding.reason, TEST_RESULT, envelope, at))
        statements.append(self._made(measured, at))
        evidence = evidence_digest(statements)

        def do(tx: Tx) -> Done[str]:
            self._p.store.add(tx, digest, statements)
            self._p.lineage.record(tx, Node("evidence", evidence), [Node("version", digest)])
            return Done(evidence)

        verdicts = {f.gate.name: f.verdict.value for f in measured.findings}
        detail = {"digest": digest, "evidence": evidence, "verdicts": verdicts}
        resource = Resource("ModelVersion", measured.alias)
        intent = Intent(SYSTEM, EVIDENCE_RECORD, resource, operation_id, {"on_behalf_of": on_behalf_of}, detail)
        return self._door.change(intent, do)

    def statements(self, digest: str) -> list[Statement]:
        """What is filed about a version, unverified; for lists."""
        return self._p.database.read(lambda tx: self._p.store.of(tx, digest))

    def findings(self, digest: str) -> list[tuple[Statement, Finding | None]]:
        """Each filed statement with the finding read from its verified envelope (None for provenance).

        Raises `Integrity` when an envelope does not hold.
        """
        return [(s, _finding(self._verified(digest, s))) for s in self.statements(digest)]

    def examined(self, digest: str) -> list[tuple[Statement, Finding | FalajError | None]]:
        """As `findings`, with what is wrong in the place of each finding whose envelope does not hold."""
        found: list[tuple[Statement, Finding | FalajError | None]] = []
        for statement in self.statements(digest):
            try:
                found.append((statement, _finding(self._verified(digest, statement))))
            except FalajError as e:
                found.append((statement, e))
        return found

    def verdicts(self, digest: str) -> tuple[dict[str, Verdict], str]:
        """Verdict by gate and the set's digest, as `proven` has them."""
        found = self.proven(digest)
        return found.verdicts, found.evidence

    def proven(self, digest: str) -> Proven:
        """What is proven of a version, each finding from an envelope whose signature and subject were verified now.

        A statement that does not hold is left out, so its gate counts as without evidence.
        """
        held: list[Finding] = []
        filed = self.statements(digest)
        for statement in filed:
            try:
                finding = _finding(self._verified(digest, statement))
            except FalajError:
                continue
            if finding is not None:
                held.append(finding)
        return proven(held, evidence_digest(filed))

    def _made(self, measured: Measured, at: str) -> Statement:
        """How the version was built; of an imported one, where it came from."""
        when = {"started": measured.started, "finished": measured.finished}
        if measured.origin is not None:
            came = imported(measured.alias, measured.digest, measured.origin, **when)
            reason = f"imported from {measured.origin.uri}, {measured.origin.source}"[:500]
            return Statement("import", Verdict.SUCCESSFUL, reason, IMPORTED, self._sign(came), at)
        build = provenance(measured.alias, measured.digest, measured.facts, builder=BUILDER, **when)
        return Statement("build", Verdict.SUCCESSFUL, "how it was built", PROVENANCE, self._sign(build), at)

    def _sign(self, statement: dict[str, Any]) -> str:
        return self._p.blobs.put(canonical_json(self._p.signer.sign_statement(statement)))

    def _verified(self, digest: str, filed: Statement) -> dict[str, Any]:
        try:
            envelope: Envelope = msgspec.json.decode(self._p.blobs.get(filed.envelope), type=dict[str, Any])
            payload = verify_envelope(envelope, STATEMENT_TYPE, valid_at(self._p.trusted, filed.created_at))
            statement = msgspec.json.decode(payload, type=dict[str, Any])
            subjects = [s["digest"]["sha256"] for s in statement["subject"]]
        except (msgspec.MsgspecError, KeyError, TypeError) as e:
            raise _unreadable(f"the statement about {filed.gate}") from e
        if subjects != [digest.removeprefix("sha256:")] or statement.get("predicateType") != filed.predicate_type:
            raise Integrity(
                f"the statement about {filed.gate} speaks of another version",
                hint="register the version again",
                code="evidence_for_another",
            )
        return statement


def evidence_digest(statements: list[Statement]) -> str:
    """The name of a set of evidence: over the sorted digests of its envelopes."""
    return digest_of(sorted(s.envelope for s in statements))


def _finding(statement: dict[str, Any]) -> Finding | None:
    """The finding in a test-result statement; its result must agree with its verdict."""
    if statement["predicateType"] != TEST_RESULT:
        return None
    try:
        predicate = statement["predicate"]
        gate, measured = (c["annotations"] for c in predicate["configuration"])
        finding = Finding(
            gate=msgspec.convert(gate, GateSpec),
            measurement=Measurement(measured["gate"], measured["value"], measured["detail"], measured["problem"]),
            verdict=Verdict(measured["verdict"]),
            reason=measured["reason"],
        )
        result = predicate["result"]
    except (msgspec.ValidationError, KeyError, TypeError, ValueError) as e:
        raise _unreadable("a statement of a test result") from e
    if (result == "PASSED") != (finding.verdict is Verdict.SUCCESSFUL):
        raise Integrity(
            "a statement contradicts itself", hint="register the version again", code="evidence_contradicts"
        )
    return finding


def _unreadable(what: str) -> Integrity:
    return Integrity(f"{what} cannot be read", hint="train the version again", code="evidence_unreadable")
