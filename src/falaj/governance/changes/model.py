"""Approvals: frozen types and pure rules."""

from __future__ import annotations

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.environments import PRODUCTION

APPROVE = Action("changes.approve", "risk", "ModelVersion", "approve a version for release")
REJECT = Action("changes.reject", "risk", "ModelVersion", "reject a version")
ACTIONS = (APPROVE, REJECT)


class Subject(msgspec.Struct, frozen=True):
    """What is decided about: a version's name for people, its digest, its evidence set, its author, and where it shall go.

    `roles` are demanded of its approvers: each must have been held by one of them at least.
    """

    alias: str
    digest: str
    evidence: str
    author: str
    roles: tuple[str, ...] = ()
    environment: str = PRODUCTION


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


def counting(approvals: list[Approval], subject: Subject) -> list[Approval]:
    """The approvals that count: for this digest, evidence and environment, one a person, none by the author."""
    by_person: dict[str, Approval] = {}
    for a in approvals:
        bound = (a.digest, a.evidence, a.environment) == (subject.digest, subject.evidence, subject.environment)
        if bound and a.decision == "approved" and a.principal != subject.author:
            by_person.setdefault(a.principal, a)
    return list(by_person.values())


def missing_roles(approvals: list[Approval], subject: Subject) -> tuple[str, ...]:
    """The roles demanded of the approvers that no giver of these approvals held when deciding."""
    held = {role for a in approvals for role in a.roles}
    return tuple(role for role in subject.roles if role not in held)
