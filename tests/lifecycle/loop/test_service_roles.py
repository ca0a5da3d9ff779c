"""Demanded roles are bound to the version: whoever approves must hold them when deciding."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import update

from falaj.governance.changes.store import approvals
from falaj.kernel.errors import Denied
from falaj.lifecycle.registry.model import ModelVersion
from tests.lifecycle.house import House


def demanding(home: House, model: str, *roles: str) -> ModelVersion:
    """A version that awaits approval by people with these roles."""
    packaged = home.packaged(model=model)
    version = msgspec.structs.replace(packaged, approver_roles=roles, approvals=max(1, len(roles)))
    home.plane.registry.package(version, home.author.name, home.operation())
    home.measured(version)
    home.plane.registry.register(version.digest, home.author.name, home.operation())
    found = home.staged(version)
    assert found.approver_roles == roles
    return found


def test_an_approval_without_the_demanded_role_is_not_enough(home: House) -> None:
    version = demanding(home, "demanding", "risk-officer")
    answer = home.plane.decisions.approve(home.owner, version, "as an administrator")
    assert (answer["approvals"], answer["needed"], answer["missing_roles"]) == (1, 1, ["risk-officer"])
    assert answer["flow"] == "" and home.now(version).state == "awaiting approval"
    done = home.plane.decisions.approve(home.risk, home.now(version), "as a risk officer")
    assert done["missing_roles"] == [] and home.finished(done["flow"]).state == "done"


def test_the_role_counts_that_was_held_then(home: House) -> None:
    version = demanding(home, "later", "risk-officer")
    officer = home.person("officer-for-a-day", "risk-officer")
    answer = home.plane.decisions.approve(officer, version, "yes")
    home.person("officer-for-a-day", "viewer")
    assert home.finished(answer["flow"]).state == "done"
    assert [d.roles for d in home.plane.decisions.decisions(version.digest)] == [("risk-officer",)]


def test_one_person_with_two_roles_is_still_one_person(home: House) -> None:
    version = demanding(home, "two-roles", "risk-officer", "platform-admin")
    both = home.person("both", "risk-officer", "platform-admin")
    answer = home.plane.decisions.approve(both, version, "in both my hats")
    assert (answer["approvals"], answer["needed"], answer["missing_roles"], answer["flow"]) == (1, 2, [], "")
    assert home.finished(home.plane.decisions.approve(home.risk, home.now(version), "me too")["flow"]).state == "done"


def test_an_admission_asks_for_the_roles_again(home: House) -> None:
    version = demanding(home, "admitted", "risk-officer")
    home.plane.decisions.approve(home.risk, version, "yes")
    home.sql(update(approvals).where(approvals.c.digest == version.digest).values(roles="platform-admin"))
    with pytest.raises(Denied) as refusal:
        home.plane.registry.admit(version.digest, "production", home.owner)
    assert refusal.value.code == "not_approved" and "risk-officer" in refusal.value.message
