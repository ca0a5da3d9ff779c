"""Package, register or refuse, admit: the use cases of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from falaj.governance.changes.model import Subject, missing_roles
from falaj.governance.door import Done, Door, Intent
from falaj.governance.lineage.model import Node
from falaj.governance.lineage.service import LineageService
from falaj.governance.signing.dsse import PublicKey
from falaj.governance.signing.model_signature import verify_model_signature
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.access import SYSTEM, Action, Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.digests import manifest_digest, short
from falaj.kernel.errors import Conflict, Denied, FalajError, Integrity, NotFound
from falaj.lifecycle.registry.model import (
    CHAMPION_CHANGED,
    MEASUREMENT,
    VERSION_ADMIT,
    VERSION_ADMIT_FLOW,
    VERSION_MOVE,
    VERSION_PACKAGE,
    VERSION_REGISTER,
    Admission,
    Facts,
    ModelVersion,
    admission_statement,
    check_admissible,
    check_name,
    unpassed,
)
from falaj.lifecycle.registry.ports import Approvals, Blobs, Champions, VerifiedEvidence, VersionStore
from falaj.lifecycle.training.model import CONTRACT_FILE, PROFILE_FILE, ModelContract
from falaj.storage.sql.database import Database, Tx

_MEASURING = timedelta(minutes=15)
_ADMITTED = timedelta(days=366)


class Ports(msgspec.Struct, frozen=True):
    """What the registry works with."""

    database: Database
    store: VersionStore
    blobs: Blobs
    evidence: VerifiedEvidence
    approvals: Approvals
    champions: Champions
    lineage: LineageService
    signer: EnvelopeSigner
    trusted: Sequence[PublicKey]


class RegistryService:
    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    # reading

    def version(self, model: str, number: int) -> ModelVersion:
        """Raises `NotFound`."""
        found = self._p.database.read(lambda tx: self._p.store.by_number(tx, check_name(model), number))
        return _found(found, f"{model}@{number}")

    def by_digest(self, digest: str) -> ModelVersion:
        """Raises `NotFound`."""
        return _found(self._p.database.read(lambda tx: self._p.store.by_digest(tx, digest)), short(digest))

    def versions(self, model: str) -> list[ModelVersion]:
        return self._p.database.read(lambda tx: self._p.store.of_model(tx, check_name(model)))

    def models(self) -> list[str]:
        return self._p.database.read(self._p.store.models)

    def admission(self, digest: str, environment: str) -> tuple[Admission, dict[str, Any]] | None:
        """The newest admission and its envelope, if there is one."""
        found = self._p.database.read(lambda tx: self._p.store.admission(tx, digest, environment))
        return (found[0], msgspec.json.decode(self._p.blobs.get(found[1]))) if found else None

    def admissions(self, digest: str) -> list[tuple[Admission, str]]:
        """All admissions of a version, newest first, each with the digest of its envelope."""
        return self._p.database.read(lambda tx: self._p.store.admissions(tx, digest))

    def signature(self, version: ModelVersion) -> dict[str, Any]:
        """The OpenSSF signature bundle. Raises `Integrity` when there is none."""
        if not version.signature or not self._p.blobs.exists(version.signature):
            raise Integrity(
                "it carries no signature", hint="sign it: register it through `falaj train`", code="unsigned"
            )
        try:
            return msgspec.json.decode(self._p.blobs.get(version.signature), type=dict[str, Any])
        except msgspec.DecodeError as e:
            raise Integrity(
                "its signature cannot be read", hint="register it through `falaj train`", code="bad_model_signature"
            ) from e

    def profile_of(self, digest: str) -> bytes:
        """The reference profile of the version with this digest."""
        return self.profile(self.by_digest(digest))

    def contract(self, digest: str) -> ModelContract:
        """The contract of the version with this digest. Raises `NotFound`, `Integrity`."""
        file = next((f for f in self.by_digest(digest).files if f.path == CONTRACT_FILE), None)
        if file is None:
            raise NotFound(f"{short(digest)} has no contract", hint="train it again", code="no_contract")
        return msgspec.json.decode(self._p.blobs.get(file.sha256), type=ModelContract)

    def serving(self) -> dict[str, str]:
        """Model → digest of the version that serves."""
        return {v.model: v.digest for m in self.models() for v in self.versions(m) if v.state == "serving"}

    def signature_of(self, digest: str) -> dict[str, Any]:
        """The signature bundle of the version with this digest."""
        return self.signature(self.by_digest(digest))

    def profile(self, version: ModelVersion) -> bytes:
        """`profile.json`: the reference profile frozen with the version. Raises `NotFound`, `Integrity`."""
        file = next((f for f in version.files if f.path == PROFILE_FILE), None)
        if file is None:
            raise NotFound(
                f"{version.alias} has no reference profile",
                hint="it was packaged before models carried one: train it again",
                code="no_profile",
            )
        return self._p.blobs.get(file.sha256)

    # changing

    def package(self, version: ModelVersion, on_behalf_of: str, operation_id: str) -> str:
        """Name a packaged model whose files and signature are in the blob store. Returns its digest.

        Packaging the same bytes again finds the version that they already are. While it is a candidate or refused,
        what holds of it is what it was packaged with last: its signature, author, run, gates and approvers.
        """

        def do(tx: Tx) -> Done[str]:
            earlier = self._p.store.by_digest(tx, version.digest)
            if earlier is None:
                self._p.store.add(tx, version)
            elif earlier.state in ("candidate", "refused"):
                self._p.store.package_again(tx, version)
                if not earlier.number:
                    self._p.store.move(tx, version.digest, state="candidate", reason="")
            self._p.lineage.record(tx, Node("version", version.digest), [Node("run", version.run)])
            return Done(version.digest)

        detail = {"digest": version.digest, "run": version.run, "files": len(version.files)}
        return self._door.change(_system(VERSION_PACKAGE, version.alias, on_behalf_of, operation_id, detail), do)

    def register(self, digest: str, on_behalf_of: str, operation_id: str) -> dict[str, Any]:
        """Give a candidate its number if verified evidence passes every gate.

        Raises `Denied` otherwise, and remembers why. Bytes that are registered already keep their number;
        when they were measured again while nobody had decided about them, or after a data plane refused them,
        they await approval on the new evidence.
        """
        version = self.by_digest(digest)
        proven = self._p.evidence.proven(digest)
        evidence, failed = proven.evidence, unpassed(version.gates, proven.verdicts, proven.reasons)
        intent = _system(
            VERSION_REGISTER, version.alias, on_behalf_of, operation_id, {"digest": digest, "evidence": evidence}
        )
        known = bool(version.number)
        open_again = version.state == "refused" or (
            version.state == "awaiting approval" and evidence != version.evidence
        )
        if known and not open_again:
            return {"version": version.alias, "digest": digest, "state": version.state, "already": True}
        if failed:
            reason = "; ".join(failed)
            self.move(digest, "refused", reason, on_behalf_of, f"{operation_id}:refused")
            error = Denied(
                f"{version.model} is not registered: {reason}",
                hint=f"see `falaj evidence show {version.alias}`; improve the data, the features or the parameters and train again",
                code="gate_failed",
                details={"digest": digest, "failed": failed},
            )
            self._door.refuse(intent, error)
            raise error

        def do(tx: Tx) -> Done[dict[str, Any]]:
            number = version.number or self._p.store.next_number(tx, version.model)
            self._p.store.move(tx, digest, number=number, state="awaiting approval", evidence=evidence, reason="")
            alias = f"{version.model}@{number}"
            result = {"version": alias, "digest": digest, "state": "awaiting approval", "already": known}
            return Done(result, {"version": alias})

        return self._door.change(intent, do)

    def facts(self, version: ModelVersion, environment: str = MEASUREMENT) -> Facts:
        """Find out, from bytes verified now, what speaks for a version; who serves is asked where traffic is."""
        wrong: FalajError | None = None
        try:
            if manifest_digest(version.files) != version.digest:  # evidence and approvals speak of the digest
                raise Integrity(
                    "its files are not those that its digest names", hint="register it again", code="files_differ"
                )
            verify_model_signature(self.signature(version), version.files, self._p.trusted)
        except FalajError as e:
            wrong = e
        proven = self._p.evidence.proven(version.digest)
        subject = self.subject(version)
        counting = self._p.approvals.counting(subject)
        approvals = tuple(a.id for a in counting)
        current = "" if environment == MEASUREMENT else self._p.champions.champion(version.model, environment)
        missing = missing_roles(counting, subject)
        return Facts(wrong, proven.verdicts, proven.evidence, approvals, proven.champion, current, missing)

    def admit(self, digest: str, environment: str, actor: Principal, operation_id: str = "") -> Admission:
        """Sign a verdict that lets a version into an environment. Raises `Denied` with what is missing.

        A version that a flow would release, and that was compared with another champion than serves now, is
        refused: building the same bytes again then measures them again.
        """
        version = self.by_digest(digest)
        action = VERSION_ADMIT_FLOW if actor == SYSTEM else VERSION_ADMIT
        detail = {"digest": digest, "environment": environment}
        intent = Intent(actor, action, Resource("ModelVersion", version.alias), operation_id, detail=detail)
        facts = self.facts(version, environment)
        try:
            check_admissible(version, environment, facts)
        except FalajError as e:
            self._door.refuse(intent, e)
            if e.code == CHAMPION_CHANGED and actor == SYSTEM:
                self.move(digest, "refused", e.message, actor.name, f"{operation_id}:refused" if operation_id else "")
            raise
        now = self._door.clock.now()
        admission = Admission(
            digest=digest,
            model=version.model,
            alias=version.alias,
            environment=environment,
            files=version.files,
            evidence=facts.evidence,
            approvals=facts.approvals,
            issued_at=iso(now),
            expires_at=iso(now + (_MEASURING if environment == MEASUREMENT else _ADMITTED)),
        )
        envelope = self._p.blobs.put(msgspec.json.encode(self._p.signer.sign_statement(admission_statement(admission))))

        def do(tx: Tx) -> Done[dict[str, Any]]:
            current = self._p.store.by_digest(tx, digest)
            if current != version:
                raise Conflict(
                    f"{version.alias} changed meanwhile", hint="look at it again and repeat", code="changed_meanwhile"
                )
            self._p.store.add_admission(tx, admission, envelope)
            node = Node("admission", f"{environment}:{digest}")
            self._p.lineage.record(tx, node, [Node("version", digest), Node("evidence", facts.evidence)])
            return Done(msgspec.to_builtins(admission), {"envelope": envelope, "expires_at": admission.expires_at})

        return msgspec.convert(self._door.change(intent, do), Admission)

    def move(self, digest: str, state: str, reason: str, on_behalf_of: str, operation_id: str) -> None:
        """Move a version to another state."""
        version = self.by_digest(digest)

        def do(tx: Tx) -> Done[str]:
            self._p.store.move(tx, digest, state=state, reason=reason)
            return Done(state)

        detail = {"digest": digest, "from": version.state, "to": state, "reason": reason[:500]}
        self._door.change(_system(VERSION_MOVE, version.alias, on_behalf_of, operation_id, detail), do)

    @staticmethod
    def subject(version: ModelVersion) -> Subject:
        """The version as people decide about it."""
        return Subject(version.alias, version.digest, version.evidence, version.author, version.approver_roles)


def _system(action: Action, alias: str, on_behalf_of: str, operation_id: str, detail: dict[str, Any]) -> Intent:
    context = {"on_behalf_of": on_behalf_of}
    return Intent(SYSTEM, action, Resource("ModelVersion", alias), operation_id, context, detail)


def _found(version: ModelVersion | None, name: str) -> ModelVersion:
    if version is None:
        raise NotFound(f"there is no version {name}", hint="`falaj versions MODEL` lists them", code="no_such_version")
    return version
