"""Take a person's decision about a version, and take it back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from falaj.governance.changes.model import (
    APPROVE,
    APPROVE_OWN,
    REJECT,
    REVOKE,
    REVOKE_OWN,
    Approval,
    Revoked,
    Subject,
    counting,
    own_from,
    standing,
)
from falaj.governance.changes.ports import ApprovalStore
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Action, Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import Conflict, Denied, Invalid, NotFound
from falaj.kernel.ids import new_id
from falaj.storage.sql.database import Database, Tx


class ChangeService:
    """Approvals and rejections, each by somebody, about a digest and its evidence."""

    def __init__(self, database: Database, store: ApprovalStore, door: Door) -> None:
        self._database = database
        self._store = store
        self._door = door

    def decide(self, actor: Principal, subject: Subject, approve: bool, reason: str) -> Approval:
        """Record a decision. Raises `Denied` for the author (in the tier for one person: before the delay is over),
        `Conflict` for a second decision by the same person about the same evidence and environment while the first
        stands, `Invalid` without a reason."""
        told = check_reason(reason)
        now = self._door.clock.now()
        own = approve and actor.name == subject.author and bool(subject.own_after_hours)
        intent = self._intent(actor, APPROVE_OWN if own else APPROVE if approve else REJECT, subject)
        if own:
            self._check_delay(intent, subject, now)
        approval = Approval(
            id=new_id("apr", now),
            alias=subject.alias,
            digest=subject.digest,
            evidence=subject.evidence,
            principal=actor.name,
            decision="approved" if approve else "rejected",
            reason=told,
            at=iso(now),
            roles=actor.roles,
            environment=subject.environment,
        )
        intent.detail["approval"] = approval.id

        def do(tx: Tx) -> Done[dict[str, Any]]:
            for earlier in self._store.of(tx, subject.digest):
                about = (earlier.principal, earlier.evidence, earlier.environment)
                stands = standing(earlier, subject, now) == "counts" or earlier.decision == "rejected"
                if about == (actor.name, subject.evidence, subject.environment) and stands:
                    raise Conflict(
                        f"{actor.name} already {earlier.decision} {subject.alias}",
                        hint="nothing more to do; a second pair of eyes must be another person's",
                        code="already_decided",
                    )
            self._store.add(tx, approval)
            return Done({"id": approval.id})

        self._door.change(intent, do)
        return approval

    def revoke(self, actor: Principal, subject: Subject, approval_id: str, reason: str) -> Approval:
        """Take an approval back: one's own, or as somebody who judges risk another's. Without an id, the newest that
        stands: one's own before others'. Raises `NotFound` when there is none, `Denied` by policy."""
        told = check_reason(reason)
        now = self._door.clock.now()
        found = self._to_revoke(actor, subject, approval_id)
        own = found.principal == actor.name
        intent = self._intent(actor, REVOKE_OWN if own else REVOKE, subject)
        intent.detail.update(approval=found.id, given_by=found.principal)

        def do(tx: Tx) -> Done[dict[str, Any]]:
            if any(a.id == found.id and a.revoked for a in self._store.of(tx, subject.digest)):
                raise _none_to_revoke(subject)
            self._store.revoke(tx, found.id, Revoked(actor.name, iso(now), told))
            return Done({"id": found.id})

        self._door.change(intent, do)
        return next(a for a in self.of(subject.digest) if a.id == found.id)

    def of(self, digest: str) -> list[Approval]:
        """What was decided about a version, oldest first."""
        return self._database.read(lambda tx: self._store.of(tx, digest))

    def revoked(self) -> list[Approval]:
        """Every approval that was taken back."""
        return self._database.read(self._store.revoked)

    def counting(self, subject: Subject) -> list[Approval]:
        """The approvals that count for this subject now."""
        return counting(self.of(subject.digest), subject, self._door.clock.now())

    def _to_revoke(self, actor: Principal, subject: Subject, approval_id: str) -> Approval:
        given = [a for a in self.of(subject.digest) if a.decision == "approved" and not a.revoked]
        about = [a for a in given if (a.id == approval_id if approval_id else a.evidence == subject.evidence)]
        if not about:
            raise _none_to_revoke(subject)
        return max(about, key=lambda a: (a.principal == actor.name, a.at, a.id))

    def _check_delay(self, intent: Intent, subject: Subject, now: datetime) -> None:
        start = own_from(subject)
        if start is not None and now >= start:
            return
        when = f"from {iso(start)} on" if start else "once it has left staging"
        error = Denied(
            f"{subject.author} is the author of {subject.alias}, and alone may approve it only {when}",
            hint="wait, and look at its evidence again then; or somebody else approves it now",
            code="own_approval_too_soon",
            details={"from": iso(start) if start else ""},
        )
        self._door.check(intent)
        self._door.refuse(intent, error)
        raise error

    @staticmethod
    def _intent(actor: Principal, action: Action, subject: Subject) -> Intent:
        author = {"__entity": {"type": "Principal", "id": subject.author}}
        facts: dict[str, Any] = {"author": author, "environment": subject.environment}
        if action == APPROVE_OWN:
            facts |= {"tier": subject.tier, "regulated": subject.regulated}
        detail: dict[str, Any] = {
            "digest": subject.digest, "evidence": subject.evidence, "environment": subject.environment,
        }  # fmt: skip
        if action == APPROVE_OWN:
            detail |= {"own": True, "waited_from": subject.since}
        return Intent(actor, action, Resource("ModelVersion", subject.alias, facts), detail=detail)


def check_reason(reason: str) -> str:
    """The reason as it is kept. Raises `Invalid` without one."""
    if not reason.strip() or len(reason) > 1000:
        raise Invalid(
            "a decision needs a reason of 1 to 1000 characters", hint="say why: --reason '…'", code="no_reason"
        )
    return reason.strip()


def _none_to_revoke(subject: Subject) -> NotFound:
    return NotFound(
        f"{subject.alias} has no approval that could be revoked",
        hint=f"`falaj versions {subject.alias.partition('@')[0]}` shows where it stands; `falaj changes list` who approved what",
        code="no_such_approval",
    )
