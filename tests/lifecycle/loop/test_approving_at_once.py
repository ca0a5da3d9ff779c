"""Several people approve one version at the same moment: one of them completes it, one release comes of it."""

from __future__ import annotations

import pytest

from falaj.kernel.access import Principal
from falaj.kernel.errors import Conflict
from falaj.lifecycle.registry.model import ModelVersion
from tests.lifecycle.house import House


def told(home: House, version: ModelVersion, by: Principal) -> str:
    """What a person is told who cannot approve any more."""
    with pytest.raises(Conflict) as refused:
        home.plane.decisions.approve(by, version, "read")
    return refused.value.code


def releases(home: House, model: str) -> list[str]:
    return [f.entry.operation_id for f in home.log(action="rollout.set_plan", resource_id=model)]


def test_only_the_approval_that_completed_it_starts_it_again(home: House) -> None:
    """Two gave one, and the other's was first to complete it: repeating one's own starts nothing beside that."""
    version = home.registered(model="beside")
    home.plane.changes.decide(home.risk, home.plane.registry.subject(version), True, "read")
    home.plane.decisions.approve(home.owner, version, "read", hold=True)
    approved = home.now(version)
    assert approved.state == "approved"
    assert told(home, approved, home.risk) == "not_awaiting"
    flow = home.plane.decisions.approve(home.owner, approved, "again")["flow"]
    assert home.finished(flow).state == "done" and home.now(version).state == "serving"
    assert releases(home, "beside") == [f"{flow}:plan"]


def test_the_first_of_two_who_are_needed_starts_nothing_by_repeating(home: House) -> None:
    version = home.registered(approvals=2, model="first-of-two")
    home.plane.decisions.approve(home.risk, version, "read")
    home.plane.decisions.approve(home.owner, version, "read", hold=True)
    assert told(home, home.now(version), home.risk) == "not_awaiting"
    assert releases(home, "first-of-two") == []


def test_who_read_that_it_awaits_approval_is_told_that_it_does_no_more(home: House) -> None:
    stale = home.registered(model="stale")
    flow = home.plane.decisions.approve(home.risk, stale, "read")["flow"]
    assert told(home, stale, home.owner) == "not_awaiting"
    assert home.finished(flow).state == "done"
    assert releases(home, "stale") == [f"{flow}:plan"]
