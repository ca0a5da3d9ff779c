"""Approvals: frozen types and pure rules."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from falaj.governance.changes.glass import GLASS_CLOSE, GLASS_END, GLASS_OPEN, GLASS_PROPOSE, GLASS_READ
from falaj.governance.changes.holds import QUARANTINE, QUARANTINE_LIFT, QUARANTINE_READ
from falaj.governance.changes.inventory import (
    INVENTORY_READ,
    INVENTORY_SET,
    KILL,
    MODEL_RETIRE,
    MODEL_VALIDATE,
    REVIVE,
    REVIVE_PROPOSE,
)
from falaj.governance.changes.records import CHANGE_READ, CHANGE_REVIEW
from falaj.kernel.access import Action
from falaj.kernel.clock import parse_iso
from falaj.kernel.environments import PRODUCTION

APPROVE = Action("changes.approve", "risk", "ModelVersion", "approve a version for release")
APPROVE_OWN = Action("changes.approve_own", "risk", "ModelVersion", "approve a version of one's own, alone")
REJECT = Action("changes.reject", "risk", "ModelVersion", "reject a version")
REVOKE_OWN = Action("changes.withdraw_approval", "risk", "ModelVersion", "take back an approval of one's own")
REVOKE = Action("changes.revoke_approval", "risk", "ModelVersion", "take back somebody else's approval")
ACTIONS = (
    APPROVE, APPROVE_OWN, REJECT, REVOKE_OWN, REVOKE, INVENTORY_READ, INVENTORY_SET, MODEL_RETIRE, MODEL_VALIDATE, KILL,
    REVIVE_PROPOSE, REVIVE, CHANGE_READ, CHANGE_REVIEW, QUARANTINE_READ, QUARANTINE, QUARANTINE_LIFT,
    GLASS_READ, GLASS_PROPOSE, GLASS_OPEN, GLASS_CLOSE, GLASS_END,
)  # fmt: skip


class Subject(msgspec.Struct, frozen=True):
    """What is decided about: a version's name for people, its digest, its evidence set, its author, and where it shall go.

    `roles` are demanded of its approvers: each must have been held by one of them at least. An approval expires `days`
    after it was given (0: never) unless it is among `kept`: those that an admission in force rests on. With
    `own_after_hours` the author's own approval counts if it was given so long after `since` (RFC 3339), when the
    version began to wait; `tier` and `regulated` are what the policy looks at then.
    """

    alias: str
    digest: str
    evidence: str
    author: str
    roles: tuple[str, ...] = ()
    environment: str = PRODUCTION
    days: int = 0
    kept: tuple[str, ...] = ()
    own_after_hours: int = 0
    since: str = ""
    tier: str = ""
    regulated: bool = False


class Revoked(msgspec.Struct, frozen=True):
    """Who took an approval back, when, and why."""

    principal: str
    at: str
    reason: str


class Approval(msgspec.Struct, frozen=True):
    """One person's decision: approved or rejected. `roles` are those that the person held then."""

    id: str
    alias: str
    digest: str
    evidence: str
    principal: str
    decision: str
    reason: str
    at: str
    roles: tuple[str, ...] = ()
    environment: str = PRODUCTION
    revoked: Revoked | None = None


def counting(approvals: list[Approval], subject: Subject, now: datetime | None = None) -> list[Approval]:
    """The approvals that count at the moment `now`: for this digest, evidence and environment, one a person, neither revoked
    nor expired; the author's own only where the tier lets it, and only after the delay."""
    by_person: dict[str, Approval] = {}
    for a in approvals:
        if _bound(a, subject) and a.decision == "approved" and standing(a, subject, now) == "counts":
            by_person.setdefault(a.principal, a)
    return list(by_person.values())


def standing(approval: Approval, subject: Subject, now: datetime | None = None) -> str:
    """How a decision about this subject stands: counts | revoked | expired | own."""
    if approval.revoked is not None:
        return "revoked"
    if approval.decision == "approved" and approval.principal == subject.author and not _own(approval, subject):
        return "own"
    if subject.days and now is not None and approval.id not in subject.kept and now >= expires(approval, subject.days):
        return "expired"
    return "counts"


def expires(approval: Approval, days: int) -> datetime:
    """When an approval ends that nothing rests on."""
    return parse_iso(approval.at) + timedelta(days=days)


def own_from(subject: Subject) -> datetime | None:
    """From when on the author's own approval counts; None: never."""
    if not (subject.own_after_hours and subject.since) or subject.regulated:
        return None
    return parse_iso(subject.since) + timedelta(hours=subject.own_after_hours)


def missing_roles(approvals: list[Approval], subject: Subject) -> tuple[str, ...]:
    """The roles demanded of the approvers that no giver of these approvals held when deciding."""
    held = {role for a in approvals for role in a.roles}
    return tuple(role for role in subject.roles if role not in held)


def completing(approvals: list[Approval], needed: int, subject: Subject) -> Approval | None:
    """The approval with which those before it were enough, by number and by role; None while they are not."""
    given = sorted(approvals, key=lambda a: (a.at, a.id))
    enough = (n for n in range(1, len(given) + 1) if n >= needed and not missing_roles(given[:n], subject))
    return next((given[n - 1] for n in enough), None)


def _bound(approval: Approval, subject: Subject) -> bool:
    return (approval.digest, approval.evidence, approval.environment) == (
        subject.digest,
        subject.evidence,
        subject.environment,
    )


def _own(approval: Approval, subject: Subject) -> bool:
    start = own_from(subject)
    return start is not None and parse_iso(approval.at) >= start
