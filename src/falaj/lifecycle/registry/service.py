"""Package, register or refuse, admit: the use cases of the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from falaj.governance.changes.model import Subject, missing_roles
from falaj.governance.changes.tiers import ONE_PERSON
from falaj.governance.door import Done, Door, Intent
from falaj.governance.lineage.model import Node
from falaj.governance.lineage.service import LineageService
from falaj.governance.signing.model_signature import verify_model_signature
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.governance.signing.trust import Keys, every
from falaj.kernel.access import SYSTEM, Action, Principal, Resource
from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.digests import canonical_json, manifest_digest, short
from falaj.kernel.environments import MEASUREMENT, PRODUCTION, home_of
from falaj.kernel.errors import Conflict, Denied, FalajError, Integrity, Invalid, NotFound
from falaj.lifecycle.evidence.model import Proven
from falaj.lifecycle.registry.model import (
    CHAMPION_CHANGED,
    MEASURING,
    UNDECIDED,
    VERSION_ADMIT,
    VERSION_ADMIT_FLOW,
    VERSION_MOVE,
    VERSION_PACKAGE,
    VERSION_REGISTER,
    VERSION_REHEARSE,
    Admission,
    Before,
    Environment,
    Facts,
    ModelVersion,
    Rehearsal,
    asked,
    check_admissible,
    check_name,
    missing,
    unpassed,
    unstaged,
    unwaived,
)
from falaj.lifecycle.registry.ports import (
    Approvals,
    Blobs,
    Champions,
    NoWaivers,
    Oversight,
    VerifiedEvidence,
    VersionStore,
    Waivers,
)
from falaj.lifecycle.registry.statements import (
    admission_statement,
    read_admission,
    read_rehearsal,
    rehearsal_statement,
)
from falaj.lifecycle.registry.waiver import NOTHING, Lacking, Standing
from falaj.lifecycle.training.model import CONTRACT_FILE, PROFILE_FILE, ModelContract
from falaj.storage.sql.database import Database, Tx

T = TypeVar("T")
_MEASURED = timedelta(minutes=15)
_ADMITTED = timedelta(days=366)
_NUMBERS = 2**63 - 1  # the largest that the database can be asked for


class Ports(msgspec.Struct, frozen=True):
    """What the registry works with. `signers` and `keys` are each environment's own, `trusted` signs models."""

    database: Database
    store: VersionStore
    blobs: Blobs
    evidence: VerifiedEvidence
    approvals: Approvals
    champions: Champions
    lineage: LineageService
    environments: Sequence[Environment]
    signers: Mapping[str, EnvelopeSigner]
    keys: Mapping[str, Keys]
    trusted: Keys
    oversight: Oversight
    waivers: Waivers = NoWaivers()


class RegistryService:
    """Versions: packaged, registered or refused, admitted to environments, rehearsed."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    # reading

    def version(self, model: str, number: int) -> ModelVersion:
        """Raises `NotFound`."""
        name = check_name(model)
        found = self._p.database.read(lambda tx: self._p.store.by_number(tx, name, min(max(number, 0), _NUMBERS)))
        if found is None:
            there = ", ".join([v.alias for v in self.versions(name) if v.number][:5])
            raise NotFound(
                f"there is no version {name}@{number}"[:120],
                hint=f"there is {there}; `falaj versions {name}` lists them"
                if there
                else f"make one: `falaj train {name}`",
                code="no_such_version",
            )
        return found

    def by_digest(self, digest: str) -> ModelVersion:
        """Raises `NotFound`."""
        return _found(self._p.database.read(lambda tx: self._p.store.by_digest(tx, digest)), short(digest))

    def versions(self, model: str) -> list[ModelVersion]:
        """All versions of a model, candidates and refused ones too, oldest first."""
        return self._p.database.read(lambda tx: self._p.store.of_model(tx, check_name(model)))

    def models(self) -> list[str]:
        """The names of all models that have a version."""
        return self._p.database.read(self._p.store.models)

    def admission(self, digest: str, environment: str) -> tuple[Admission, dict[str, Any]] | None:
        """The newest admission and its envelope, if there is one."""
        found = self._p.database.read(lambda tx: self._p.store.admission(tx, digest, environment))
        return (found[0], msgspec.json.decode(self._p.blobs.get(found[1]))) if found else None

    def admissions(self, digest: str) -> list[tuple[Admission, str]]:
        """All admissions of a version, newest first, each with the digest of its envelope."""
        return self._p.database.read(lambda tx: self._p.store.admissions(tx, digest))

    def admitted(self, environment: str) -> list[str]:
        """The digests of the versions that an environment has admitted, the newest admission last."""
        return self._p.database.read(lambda tx: self._p.store.admitted(tx, environment))

    def proven_admission(self, digest: str, environment: str) -> Admission | None:
        """The newest admission, read through the signature of the environment's key; None when that does not hold."""
        found = self._p.database.read(lambda tx: self._p.store.admission(tx, digest, environment))
        try:
            return read_admission(self._envelope(found[1]), self._p.keys[home_of(environment)]) if found else None
        except FalajError:
            return None

    def proven_rehearsal(self, digest: str, environment: str) -> Rehearsal | None:
        """The newest rehearsal, read as `proven_admission` reads."""
        found = self._p.database.read(lambda tx: self._p.store.rehearsal(tx, digest, environment))
        try:
            return read_rehearsal(self._envelope(found[1]), self._p.keys[home_of(environment)]) if found else None
        except FalajError:
            return None

    def signed_admissions(self, digest: str) -> list[tuple[Admission, str]]:
        """The admissions that count, oldest first, each read through its signature now, with the digest of its envelope.

        One by a key that was revoked since is left out. Raises `Integrity` when one does not hold.
        """
        filed = [(a.environment, envelope) for a, envelope in reversed(self.admissions(digest))]
        return self._counting(filed, read_admission)

    def signed_rehearsals(self, digest: str) -> list[tuple[Rehearsal, str]]:
        """The newest rehearsal in each environment, read as `signed_admissions` reads."""
        found = [self.rehearsal(digest, e.name) for e in self._p.environments]
        return self._counting([(r.environment, envelope) for r, envelope in filter(None, found)], read_rehearsal)

    def _counting(
        self, filed: Sequence[tuple[str, str]], read: Callable[[dict[str, Any], Keys], T]
    ) -> list[tuple[T, str]]:
        found = []
        for environment, digest in filed:
            envelope, keys = self._envelope(digest), self._p.keys[home_of(environment)]
            try:
                found.append((read(envelope, keys), digest))
            except Integrity:
                read(envelope, every(keys))  # raises for what is broken; else its key came to an end before it
        return found

    def rehearsal(self, digest: str, environment: str) -> tuple[Rehearsal, str] | None:
        """The newest rehearsal as it is filed, with the digest of its envelope; for lists."""
        return self._p.database.read(lambda tx: self._p.store.rehearsal(tx, digest, environment))

    def let_in(self, digest: str) -> tuple[str, ...]:
        """The environments that have admitted a version, as it is filed; for lists."""
        admitted = {a.environment for a, _ in self.admissions(digest)}
        return tuple(e.name for e in self._p.environments if e.name in admitted)

    @property
    def environments(self) -> tuple[Environment, ...]:
        """The environments of this home, in the order in which a version passes them."""
        return tuple(self._p.environments)

    def environment(self, name: str) -> Environment:
        """Raises `Invalid` for an environment that this home does not have."""
        found = next((e for e in (*self._p.environments, MEASURING) if e.name == name), None)
        if found is None:
            names = ", ".join(e.name for e in self._p.environments)
            raise Invalid(
                f"there is no environment {name[:40]!r}", hint=f"there is {names}", code="no_such_environment"
            )
        return found

    def signature(self, version: ModelVersion) -> dict[str, Any]:
        """The OpenSSF signature bundle. Raises `Integrity` when there is none."""
        if not version.signature or not self._p.blobs.exists(version.signature):
            raise Integrity(
                "it carries no signature", hint="sign it: register it through `falaj train`", code="unsigned"
            )
        try:
            return msgspec.json.decode(self._p.blobs.get(version.signature), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise Integrity(
                "its signature cannot be read", hint="register it through `falaj train`", code="bad_model_signature"
            ) from e

    def check_signature(self, version: ModelVersion) -> None:
        """Raise `Integrity` unless a key that counts signed exactly the version's files."""
        verify_model_signature(
            self.signature(version), version.files, self._p.trusted, version.signed_at or version.created_at
        )

    def profile_of(self, digest: str) -> bytes:
        """The reference profile of the version with this digest. Raises `NotFound`, `Integrity`."""
        return self.profile(self.by_digest(digest))

    def contract(self, digest: str) -> ModelContract:
        """The contract of the version with this digest. Raises `NotFound`, `Integrity`."""
        file = next((f for f in self.by_digest(digest).files if f.path == CONTRACT_FILE), None)
        if file is None:
            raise NotFound(f"{short(digest)} has no contract", hint="train it again", code="model_contract_missing")
        return msgspec.json.decode(self._p.blobs.get(file.sha256), type=ModelContract)

    def serving(self) -> dict[str, str]:
        """Model → digest of the version that serves."""
        return {v.model: v.digest for m in self.models() for v in self.versions(m) if v.state == "serving"}

    def signature_of(self, digest: str) -> tuple[dict[str, Any], str]:
        """The signature bundle of the version with this digest, and when it was filed (RFC 3339).

        Raises `NotFound`, `Integrity`.
        """
        version = self.by_digest(digest)
        return self.signature(version), version.signed_at or version.created_at

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
        version = msgspec.structs.replace(version, signed_at=iso(self._door.clock.now()))

        def do(tx: Tx) -> Done[str]:
            earlier = self._p.store.by_digest(tx, version.digest)
            if earlier is not None and earlier.imported != version.imported:
                raise made_otherwise(earlier)
            if earlier is None:
                self._p.store.add(tx, version)
            elif earlier.state in ("candidate", "refused"):
                self._p.store.package_again(tx, version)
                if not earlier.number:
                    self._p.store.move(tx, version.digest, state="candidate", reason="")
            made_by = Node("import" if version.imported else "run", version.run)
            self._p.lineage.record(tx, Node("version", version.digest), [made_by])
            return Done(version.digest)

        detail = {"digest": version.digest, "run": version.run, "files": len(version.files)}
        return self._door.change(_system(VERSION_PACKAGE, version.alias, on_behalf_of, operation_id, detail), do)

    def register(self, digest: str, on_behalf_of: str, operation_id: str) -> dict[str, Any]:
        """Give a candidate its number if verified evidence passes every gate.

        Raises `Denied` otherwise, and remembers why; `Conflict` when the version changed meanwhile. Bytes that are
        registered already keep their number; when they were measured again while nobody had decided about them, or
        after a data plane refused them, they stand before staging again, on the new evidence.
        """
        version = self.by_digest(digest)
        proven = self._p.evidence.proven(digest)
        evidence = proven.evidence
        failed = unpassed(unwaived(version, proven.verdicts), proven.verdicts, proven.reasons)
        intent = _system(
            VERSION_REGISTER, version.alias, on_behalf_of, operation_id, {"digest": digest, "evidence": evidence}
        )
        known = bool(version.number)
        open_again = version.state == "refused" or (version.state in UNDECIDED and evidence != version.evidence)
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
            if self._p.store.by_digest(tx, digest) != version:  # two builds may come to the same bytes at once
                raise _changed(version)
            number = version.number or self._p.store.next_number(tx, version.model)
            self._p.store.move(tx, digest, number=number, state="registered", evidence=evidence, reason="")
            alias = f"{version.model}@{number}"
            result = {"version": alias, "digest": digest, "state": "registered", "already": known}
            return Done(result, {"version": alias})

        return self._door.change(intent, do)

    def facts(self, version: ModelVersion, name: str = MEASUREMENT) -> Facts:
        """Find out, from bytes verified now, what speaks for a version; who serves is asked where traffic is."""
        environment = self.environment(name)
        wrong: FalajError | None = None
        try:
            if manifest_digest(version.files) != version.digest:  # evidence and approvals speak of the digest
                raise Integrity(
                    "its files are not those that its digest names", hint="register it again", code="files_differ"
                )
            self.check_signature(version)
        except FalajError as e:
            wrong = e
        proven = self._p.evidence.proven(version.digest)
        subject = self.subject(version, name)
        counting = self._p.approvals.counting(subject)
        own = any(a.principal == version.author for a in counting)
        return Facts(
            signature=wrong,
            verdicts=proven.verdicts,
            evidence=proven.evidence,
            approvals=tuple(a.id for a in counting),
            champion=proven.champion,
            current=self._p.champions.champion(version.model, name) if environment.traffic else "",
            missing_roles=missing_roles(counting, subject),
            before=self.before(version, environment.after) if environment.after else None,
            at=iso(self._door.clock.now()),
            waiver=self.standing(version, proven),
            governed=self._p.oversight.governed(version.model),
            own=own,
        )

    def standing(self, version: ModelVersion, proven: Proven) -> Standing:
        """What covers the gates that a version is missing; nothing is asked for one that misses none."""
        lacking = missing(version, proven.verdicts)
        return self._p.waivers.standing(version.digest, proven.evidence, lacking) if lacking else NOTHING

    def lacking(self, version: ModelVersion) -> Lacking | None:
        """What an imported version is missing, and whether a waiver covers it now; None for one that was trained here."""
        if not version.imported:
            return None
        proven = self._p.evidence.proven(version.digest)
        gates = missing(version, proven.verdicts)
        covering = self.standing(version, proven)
        words = covering.waiver.words if covering.waiver else f"{', '.join(gates)}: missing, and {covering.problem}"
        return Lacking(version.run, gates, covering.waiver is not None, words if gates else "")

    def waiver_of(self, admission: Admission) -> dict[str, Any] | None:
        """The signed waiver that an admission rests on, None when it needs none. Raises `Integrity` when it was revoked."""
        return self._p.waivers.envelope(admission.waiver) if admission.waiver else None

    def before(self, version: ModelVersion, name: str) -> Before:
        """What an environment says of a version to the one after it, each from a signature that was verified now."""
        digest, environment = version.digest, self.environment(name)
        rehearsal = self.proven_rehearsal(digest, name) if environment.rehearsal else None
        return Before(environment, self.proven_admission(digest, name), rehearsal)

    def lacks(self, version: ModelVersion, name: str) -> str:
        """Why a version may not leave an environment for the next; empty when it may."""
        return unstaged(version, self.before(version, name), iso(self._door.clock.now()))

    def admit(self, digest: str, environment: str, actor: Principal, operation_id: str = "") -> Admission:
        """Sign a verdict that lets a version into an environment. Raises `Denied` with what is missing.

        A version that a flow would release, and that was compared with another champion than serves now, is
        refused: building the same bytes again then measures them again.
        """
        version = self.by_digest(digest)
        place = self.environment(environment)
        action = VERSION_ADMIT_FLOW if actor == SYSTEM else VERSION_ADMIT
        detail = {"digest": digest, "environment": environment}
        resource = Resource("ModelVersion", version.alias, {"environment": environment})
        intent = Intent(actor, action, resource, operation_id, detail=detail)
        facts = self.facts(version, environment)
        try:
            check_admissible(version, place, facts)
        except FalajError as e:
            self._door.refuse(intent, e)
            if e.code == CHAMPION_CHANGED and actor == SYSTEM:
                self.move(digest, "refused", e.message, actor.name, f"{operation_id}:refused" if operation_id else "")
            raise
        now = self._door.clock.now()
        ends = now + (_MEASURED if place == MEASURING else _ADMITTED)
        waiver = None if place == MEASURING else facts.waiver.waiver
        admission = Admission(
            digest=digest,
            model=version.model,
            alias=version.alias,
            environment=environment,
            files=version.files,
            evidence=facts.evidence,
            approvals=facts.approvals,
            issued_at=iso(now),
            expires_at=iso(min(ends, parse_iso(waiver.until)) if waiver else ends),
            waiver=facts.waiver.statement if waiver else "",
            waived=waiver.waived if waiver else (),
            tier=facts.governed.tier.name if facts.governed and place.traffic else "",
            marks=(ONE_PERSON.name,) if facts.own else (),
        )
        envelope = self._signed(admission_statement(admission), environment)

        def do(tx: Tx) -> Done[dict[str, Any]]:
            if self._p.store.by_digest(tx, digest) != version:
                raise _changed(version)
            self._p.store.add_admission(tx, admission, envelope)
            node = Node("admission", f"{environment}:{digest}")
            self._p.lineage.record(tx, node, [Node("version", digest), Node("evidence", facts.evidence)])
            waived = {"waiver": admission.waiver, "waived": list(admission.waived)} if admission.waiver else {}
            told = {"tier": admission.tier} if admission.tier else {}
            marked = {"marks": list(admission.marks)} if admission.marks else {}
            found = {"envelope": envelope, "expires_at": admission.expires_at, **waived, **told, **marked}
            return Done(msgspec.to_builtins(admission), found)

        return msgspec.convert(self._door.change(intent, do), Admission)

    def rehearsed(self, rehearsal: Rehearsal, on_behalf_of: str, operation_id: str) -> str:
        """Sign and keep how a rehearsal went; returns the version's state.

        One that passed makes a registered version await approval for production. One that failed refuses a version
        that nobody has decided about, is audited, and raises `Denied`.
        """
        version = self.by_digest(rehearsal.digest)
        envelope = self._signed(rehearsal_statement(rehearsal), rehearsal.environment)

        def do(tx: Tx) -> Done[str]:
            now = self._p.store.by_digest(tx, version.digest) or version  # somebody may have decided meanwhile
            state, reason = now.state, now.reason
            if rehearsal.passed and state == "registered":
                state, reason = "awaiting approval", ""
            elif not rehearsal.passed and state in UNDECIDED:
                state, reason = "refused", f"its rehearsal in {rehearsal.environment} failed: {rehearsal.reason}"
            self._p.store.add_rehearsal(tx, rehearsal, envelope)
            self._p.store.move(tx, version.digest, state=state, reason=reason)
            node = Node("rehearsal", f"{rehearsal.environment}:{version.digest}")
            self._p.lineage.record(tx, node, [Node("version", version.digest)])
            return Done(state, {"envelope": envelope, "passed": rehearsal.passed, "state": state})

        detail = {
            "digest": version.digest, "environment": rehearsal.environment, "requests": rehearsal.requests,
            "failures": rehearsal.failures, "source": rehearsal.source,
        }  # fmt: skip
        intent = _system(VERSION_REHEARSE, version.alias, on_behalf_of, operation_id, detail)
        state = self._door.change(intent, do)
        if not rehearsal.passed:
            error = Denied(
                f"{version.alias} did not pass its rehearsal in {rehearsal.environment}: {rehearsal.reason}",
                hint=f"mend what failed; then `falaj promote {version.alias} --to {rehearsal.environment}`, or train again",
                code="rehearsal_failed",
                details=msgspec.to_builtins(rehearsal),
            )
            self._door.refuse(intent, error)
            raise error
        return state

    def reopen(self, digest: str, environment: str, on_behalf_of: str, operation_id: str) -> ModelVersion:
        """Let a version that its rehearsal refused be rehearsed again. Any other stays as it is."""
        version = self.by_digest(digest)
        last = self.proven_rehearsal(digest, environment)
        failed = last is not None and not last.passed and last.evidence == version.evidence
        if version.state == "refused" and failed:
            self.move(digest, "registered", "", on_behalf_of, operation_id)
        return self.by_digest(digest)

    def decide(self, digest: str, state: str, reason: str, on_behalf_of: str, operation_id: str) -> None:
        """Move a version that awaits approval to `approved` or `rejected`.

        Raises `Conflict` when it does not await approval any more: of two who decide at the same moment one comes first.
        """
        self.move(digest, state, reason, on_behalf_of, operation_id, only_from="awaiting approval")

    def lapse(self, digest: str, on_behalf_of: str, operation_id: str) -> None:
        """Let an approved version await approval again: what it rested on counts no more. Raises `Conflict` for another."""
        why = "its approvals no longer suffice"
        self.move(digest, "awaiting approval", why, on_behalf_of, operation_id, only_from="approved")

    def done(self, operation_id: str) -> bool:
        """Whether an operation was done."""
        return self._door.result(operation_id) is not None

    def move(
        self, digest: str, state: str, reason: str, on_behalf_of: str, operation_id: str, *, only_from: str = ""
    ) -> None:
        """Move a version to another state; with `only_from`, only out of that one, else `Conflict`."""
        version = self.by_digest(digest)

        def do(tx: Tx) -> Done[str]:
            now = self._p.store.by_digest(tx, digest)
            if only_from and now is not None and now.state != only_from:
                raise Conflict(
                    f"{version.alias} is {now.state} by now, it is not {only_from}",
                    hint=f"`falaj versions {version.model}` shows where each version stands",
                    code="not_awaiting",
                )
            self._p.store.move(tx, digest, state=state, reason=reason)
            return Done(state)

        detail = {"digest": digest, "from": version.state, "to": state, "reason": reason[:500]}
        self._door.change(_system(VERSION_MOVE, version.alias, on_behalf_of, operation_id, detail), do)

    def subject(self, version: ModelVersion, environment: str = PRODUCTION) -> Subject:
        """The version as people decide about it for an environment."""
        place, governed = self.environment(environment), self._p.oversight.governed(version.model)
        _, roles = asked(place, version, governed)
        admission = self.proven_admission(version.digest, environment)
        holds = admission is not None and parse_iso(admission.expires_at) > self._door.clock.now()
        kept = admission.approvals if admission and holds and admission.evidence == version.evidence else ()
        hours = governed.tier.own_after_hours if place.traffic else 0
        return Subject(
            version.alias, version.digest, version.evidence, version.author, roles, environment, governed.approval_days, kept,
            hours, self._waits_since(version, place) if hours else "", governed.tier.name, governed.regulated,
        )  # fmt: skip

    def asked(self, version: ModelVersion, environment: str = PRODUCTION) -> tuple[int, tuple[str, ...]]:
        """How many people must approve a version for an environment now, and which roles must be among them."""
        return asked(self.environment(environment), version, self._p.oversight.governed(version.model))

    def marks(self, digest: str) -> tuple[str, ...]:
        """How a version was ever let in, as it is filed: `one-person` if its author alone approved it. Never taken back."""
        return tuple(dict.fromkeys(m for a, _ in self.admissions(digest) for m in a.marks))

    def _waits_since(self, version: ModelVersion, place: Environment) -> str:
        """When a version left the environment before on its present evidence; empty when it has not."""
        last = self.proven_rehearsal(version.digest, place.after) if place.after else None
        return last.at if last is not None and last.passed and last.evidence == version.evidence else ""

    def _signed(self, statement: dict[str, Any], environment: str) -> str:
        """A statement signed with the environment's key and kept; returns the digest of its envelope."""
        signer = self._p.signers[home_of(environment)]
        return self._p.blobs.put(canonical_json(signer.sign_statement(statement)))

    def _envelope(self, digest: str) -> dict[str, Any]:
        try:
            return msgspec.json.decode(self._p.blobs.get(digest), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise Integrity(
                "a signed statement cannot be read", hint="admit the version again", code="bad_envelope"
            ) from e


def _system(action: Action, alias: str, on_behalf_of: str, operation_id: str, detail: dict[str, Any]) -> Intent:
    context = {"on_behalf_of": on_behalf_of}
    return Intent(SYSTEM, action, Resource("ModelVersion", alias), operation_id, context, detail)


def made_otherwise(earlier: ModelVersion) -> Conflict:
    """Why bytes that were trained here are not imported, and the other way round: each has its own evidence."""
    how = "imported" if earlier.imported else "trained here"
    return Conflict(
        f"these bytes are {earlier.alias}, which was {how}",
        hint=f"use that version: `falaj versions {earlier.model}`",
        code="made_otherwise",
    )


def _changed(version: ModelVersion) -> Conflict:
    return Conflict(f"{version.alias} changed meanwhile", hint="look at it again and repeat", code="changed_meanwhile")


def _found(version: ModelVersion | None, name: str) -> ModelVersion:
    if version is None:
        raise NotFound(f"there is no version {name}", hint="`falaj versions MODEL` lists them", code="no_such_version")
    return version
