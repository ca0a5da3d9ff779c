"""Waivers as people decide about them: proposed, signed by a second person, in force, revoked; and read back for admission."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.lineage.model import Node
from falaj.governance.lineage.service import LineageService
from falaj.governance.signing.dsse import STATEMENT_TYPE
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.governance.signing.trust import Keys, every
from falaj.kernel.access import Action, Principal, Resource
from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.digests import canonical_json
from falaj.kernel.errors import Conflict, FalajError, Integrity, Invalid, NotFound
from falaj.kernel.ids import new_id
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.registry.model import ModelVersion, missing, unpassed, unwaived
from falaj.lifecycle.registry.ports import Blobs, VerifiedEvidence, WaiverStore
from falaj.lifecycle.registry.waiver import (
    WAIVER_PROPOSE,
    WAIVER_REVOKE,
    WAIVER_SIGN,
    Revocation,
    Signature,
    Standing,
    Waived,
    Waiver,
    check_until,
    check_waivable,
    fits,
    read_waiver,
    refused,
    signed_by,
    unsigned,
    waiver_statement,
)
from falaj.storage.sql.database import Database, Tx

_REASON = 1000  # characters


class Ports(msgspec.Struct, frozen=True):
    """What waivers work with. `signers` are the environments' own, so that each data plane can read a waiver; `keys` their halves, by environment.

    `days` is how long a waiver may last.
    """

    database: Database
    store: WaiverStore
    blobs: Blobs
    evidence: VerifiedEvidence
    lineage: LineageService
    signers: Sequence[EnvelopeSigner]
    keys: Sequence[Keys]
    days: int


class Proposal(msgspec.Struct, frozen=True):
    """What somebody proposes to waive of a version: gates by name, why, and until when (RFC 3339)."""

    gates: tuple[str, ...]
    reason: str
    until: str


class WaiverService:
    """Two people let an imported version in without what nobody can know of it, for a time."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    # reading

    def of(self, digest: str) -> list[Waiver]:
        """All waivers of a version as they are filed, newest first."""
        return self._p.database.read(lambda tx: self._p.store.of(tx, digest))

    def in_force(self) -> list[Waiver]:
        """All that were signed and not revoked; some may have expired."""
        return [w for w in self._p.database.read(self._p.store.all) if w.statement and not w.revoked]

    def now(self) -> str:
        """The present moment, RFC 3339."""
        return iso(self._door.clock.now())

    def standing(self, digest: str, evidence: str, lacking: Sequence[str]) -> Standing:
        """What covers a version's missing gates now, read from its verified statement; else the most that speaks against it."""
        now = self._door.clock.now()
        best = Standing()
        for waiver in self.of(digest):
            found = self._standing(waiver, evidence, lacking, now)
            if found.waiver is None:
                best = found if best == Standing() else best  # the newest waiver is the one to explain
            elif best.waiver is None or parse_iso(found.waiver.until) > parse_iso(best.waiver.until):
                best = found
        return best

    def envelope(self, statement: str) -> dict[str, Any]:
        """The signed statement of a waiver, by its digest. Raises `Integrity`, for one that was revoked too."""
        found = next((w for w in self._p.database.read(self._p.store.all) if w.statement == statement), None)
        if found is None or found.revoked:
            raise refused("it was revoked" if found else "it is not filed here", "waiver_revoked")
        return self._envelope(statement)

    def signed(self, digest: str) -> list[tuple[Waived, str]]:
        """Those of a version that two people signed, oldest first, each read from its verified statement, with its digest.

        Waivers that were taken back or have ended too; not those by a key that was revoked since. Raises `Integrity` when
        one does not hold.
        """
        found = []
        for statement in (w.statement for w in reversed(self.of(digest)) if w.statement):
            try:
                found.append((self._read(statement), statement))
            except Integrity:
                for keys in self._p.keys:
                    read_waiver(self._envelope(statement), every(keys))  # raises for what is broken
        return found

    # deciding

    def propose(self, actor: Principal, version: ModelVersion, proposal: Proposal) -> Waiver:
        """Propose a waiver; the proposal is the first signature. Raises what speaks against it."""
        clock = self._door.clock.now()
        proven = self._p.evidence.proven(version.digest)
        content = Waived(
            id=new_id("wvr", clock),
            digest=version.digest,
            model=version.model,
            alias=version.alias,
            author=version.author,
            evidence=version.evidence,
            waived=tuple(sorted(set(proposal.gates))),
            reason=_why(proposal.reason),
            proposed_at=iso(clock),
            until=iso(_moment(proposal.until)),
        )

        def do(tx: Tx) -> Done[dict[str, Any]]:
            self._check(version, content, proven.evidence, proven.verdicts)
            if any(w.state(iso(clock)) == "proposed" for w in self._p.store.of(tx, version.digest)):
                raise Conflict(
                    f"a waiver of {version.alias} is proposed already",
                    hint=f"sign it: `falaj waiver sign {version.alias} --reason '…'`; or revoke it",
                    code="waiver_proposed_already",
                )
            signature = Signature(actor.name, actor.roles, content.reason, iso(clock))
            signed_by(content, signature)
            self._p.store.add(tx, Waiver(content))
            self._p.store.sign(tx, content.id, signature)
            return Done({"id": content.id}, {"waiver": content.id})

        self._door.change(self._intent(actor, WAIVER_PROPOSE, version, content), do)
        return self._found(content.id)

    def sign(self, actor: Principal, version: ModelVersion, reason: str) -> Waiver:
        """Sign the waiver that is proposed of a version; the second signature puts it in force."""
        now = self.now()
        open_ones = [w for w in self.of(version.digest) if w.state(now) == "proposed"]
        if not open_ones:
            raise NotFound(
                f"no waiver of {version.alias} waits for a signature",
                hint=f"`falaj waiver list {version.alias}` shows them; propose one: `falaj waiver propose {version.alias}`",
                code="no_such_waiver",
            )
        filed = open_ones[0].content
        intent = self._intent(actor, WAIVER_SIGN, version, filed)
        self._door.check(intent)
        signature = Signature(actor.name, actor.roles, _why(reason), now)
        statement = ""
        try:
            content = signed_by(filed, signature)
            if not unsigned(content):
                statement = self._signed(content)
        except FalajError as e:
            self._door.refuse(intent, e)
            raise

        def do(tx: Tx) -> Done[dict[str, Any]]:
            current = next((w for w in self._p.store.of(tx, version.digest) if w.content.id == filed.id), None)
            if current is None or current != open_ones[0]:
                raise Conflict("the waiver changed meanwhile", hint="look at it again", code="changed_meanwhile")
            proven = self._p.evidence.proven(version.digest)
            self._check(version, filed, proven.evidence, proven.verdicts)
            self._p.store.sign(tx, filed.id, signature)
            if statement:
                self._p.store.complete(tx, filed.id, statement)
                self._p.lineage.record(tx, Node("waiver", filed.id), [Node("version", version.digest)])
            return Done({"id": filed.id}, {"in_force": bool(statement), "statement": statement})

        self._door.change(intent, do)
        return self._found(filed.id)

    def revoke(self, actor: Principal, version: ModelVersion, reason: str) -> Waiver:
        """Take back every waiver of a version that is in force or proposed; returns the newest. Raises `NotFound` for none."""
        now = self.now()
        standing = [w for w in self.of(version.digest) if w.state(now) in ("proposed", "in force")]
        if not standing:
            raise NotFound(
                f"{version.alias} has no waiver that could be revoked",
                hint=f"`falaj waiver list {version.alias}` shows them",
                code="no_such_waiver",
            )
        revocation = Revocation(actor.name, now, _why(reason))

        def do(tx: Tx) -> Done[dict[str, Any]]:
            for waiver in standing:
                self._p.store.revoke(tx, waiver.content.id, revocation)
            return Done({"id": standing[0].content.id}, {"revoked": [w.content.id for w in standing]})

        self._door.change(self._intent(actor, WAIVER_REVOKE, version, standing[0].content), do)
        return self._found(standing[0].content.id)

    # what several need

    def _check(self, version: ModelVersion, content: Waived, evidence: str, verdicts: dict[str, Verdict]) -> None:
        """Whether what is to be waived can be, on the evidence that there is now."""
        failed = unpassed(unwaived(version, verdicts), verdicts)
        check_waivable(content.waived, missing(version, verdicts), failed, imported=version.imported)
        if not version.number or evidence != content.evidence or evidence != version.evidence:
            raise Conflict(
                f"the evidence of {version.alias} is not the set that it was registered with",
                hint="import it again, and propose the waiver on the new evidence",
                code="waiver_evidence_changed",
            )
        check_until(parse_iso(content.until), self._door.clock.now(), self._p.days)

    def _standing(self, waiver: Waiver, evidence: str, lacking: Sequence[str], now: datetime) -> Standing:
        if waiver.revoked:
            why = f"its waiver was revoked by {waiver.revoked.principal}: {waiver.revoked.reason}"
            return Standing(problem=why, code="waiver_revoked")
        if not waiver.statement:
            people = ", ".join(s.principal for s in waiver.content.signatures)
            return Standing(problem=f"its waiver is signed by {people} only", code="waiver_unsigned")
        try:
            content = self._read(waiver.statement)
        except FalajError as e:
            return Standing(problem=e.message, code=e.code)
        problem, code = fits(content, waiver.content.digest, evidence, lacking, now)
        return Standing(problem=problem, code=code) if code else Standing(content, waiver.statement, "", "")

    def _intent(self, actor: Principal, action: Action, version: ModelVersion, content: Waived) -> Intent:
        author = {"__entity": {"type": "Principal", "id": version.author}}
        resource = Resource("ModelVersion", version.alias, {"author": author})
        detail = {
            "digest": version.digest, "evidence": content.evidence, "waiver": content.id, "waived": list(content.waived),
            "until": content.until,
        }  # fmt: skip
        return Intent(actor, action, resource, detail=detail)

    def _signed(self, content: Waived) -> str:
        """One envelope with a signature by each environment's key, kept; returns its digest."""
        body = canonical_json(waiver_statement(content))
        envelopes = [signer.sign(STATEMENT_TYPE, body) for signer in self._p.signers]
        together = {**envelopes[0], "signatures": [s for e in envelopes for s in e["signatures"]]}
        return self._p.blobs.put(canonical_json(together))

    def _read(self, statement: str) -> Waived:
        """A signed waiver, if it holds by the keys of every environment: each data plane asks its own."""
        contents = [read_waiver(self._envelope(statement), keys) for keys in self._p.keys]
        return contents[0]

    def _envelope(self, digest: str) -> dict[str, Any]:
        try:
            return msgspec.json.decode(self._p.blobs.get(digest), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise Integrity("a waiver cannot be read", hint="propose it again", code="unreadable_payload") from e

    def _found(self, waiver_id: str) -> Waiver:
        return next(w for w in self._p.database.read(self._p.store.all) if w.content.id == waiver_id)


def _why(reason: str) -> str:
    text = reason.strip()
    if not text or len(text) > _REASON:
        raise Invalid(
            f"a waiver needs a reason of 1 to {_REASON} characters", hint="say why: --reason '…'", code="no_reason"
        )
    return text


def _moment(text: str) -> datetime:
    try:
        return parse_iso(f"{text}T00:00:00Z" if len(text) == 10 else text)
    except ValueError as e:
        raise Invalid(
            f"{text[:40]!r} is no day and no moment", hint="write it like 2027-01-31", code="bad_moment"
        ) from e
