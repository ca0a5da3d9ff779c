"""Which roles an approval brings: those that its giver held when deciding."""

from __future__ import annotations

from falaj.governance.changes.model import Approval, Subject, missing_roles

SUBJECT = Subject("m@1", "sha256:a", "sha256:e", "author", ("risk-officer", "platform-admin"))


def approval(name: str, *roles: str) -> Approval:
    return Approval(f"apr_{name}", "m@1", "sha256:a", "sha256:e", name, "approved", "seen", "", roles)


def test_each_demanded_role_must_be_among_the_approvers() -> None:
    officer, admin, viewer = approval("a", "risk-officer"), approval("b", "platform-admin"), approval("c", "viewer")
    assert missing_roles([], SUBJECT) == SUBJECT.roles
    assert missing_roles([officer, viewer], SUBJECT) == ("platform-admin",)
    assert missing_roles([admin, officer], SUBJECT) == ()
    assert missing_roles([], Subject("m@1", "sha256:a", "sha256:e", "author")) == ()
