"""Approvals end by time and by people's hand, and the author's own counts for whoever works alone."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.changes.model import Approval, Revoked, Subject, counting, standing
from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.errors import Conflict, Denied, NotFound
from tests.governance.support import ADMIN, ENGINEER, RISK, VIEWER, Desk

BEGAN = "2026-03-01T12:00:00.000Z"
SUBJECT = Subject("m@1", "sha256:" + "a" * 64, "sha256:" + "e" * 64, "eve", days=30)
ALONE = msgspec.structs.replace(SUBJECT, author="ada", own_after_hours=24, since=BEGAN, tier="one-person")


def approval(name: str, days: float = 0.0, **changed: object) -> Approval:
    at = iso(parse_iso(BEGAN) + timedelta(days=days))
    found = Approval(f"apr_{name}", "m@1", SUBJECT.digest, SUBJECT.evidence, name, "approved", "seen", at)
    return msgspec.structs.replace(found, **changed)


@given(st.floats(0, 100), st.integers(0, 60), st.booleans(), st.booleans())
def test_an_approval_counts_until_it_expires_unless_something_rests_on_it(
    age: float, days: int, kept: bool, revoked: bool
) -> None:
    given_by = approval("rita", revoked=Revoked("rita", BEGAN, "no") if revoked else None)
    subject = msgspec.structs.replace(SUBJECT, days=days, kept=("apr_rita",) if kept else ())
    now = parse_iso(BEGAN) + timedelta(days=age)
    expected = not revoked and (not days or kept or now < parse_iso(BEGAN) + timedelta(days=days))
    assert bool(counting([given_by], subject, now)) == expected


@pytest.mark.parametrize(
    ("hours", "changed", "counts"),
    [
        (23.9, {}, False),
        (24.0, {}, True),
        (24.0, {"regulated": True}, False),
        (24.0, {"own_after_hours": 0}, False),
        (24.0, {"since": ""}, False),
        (24.0, {"since": "2026-03-02T12:00:00.000Z"}, False),
    ],
)
def test_ones_own_counts_after_the_delay_only(hours: float, changed: dict[str, object], counts: bool) -> None:
    own, subject = approval("ada", hours / 24), msgspec.structs.replace(ALONE, **changed)
    now = parse_iso(own.at)
    assert bool(counting([own], subject, now)) == counts
    assert standing(own, subject, now) == ("counts" if counts else "own")


def test_one_person_approves_their_own_after_a_delay_and_the_log_says_so(desk: Desk) -> None:
    desk.clock.shows = parse_iso(BEGAN)
    with pytest.raises(Denied) as early:
        desk.changes.decide(ADMIN, ALONE, True, "mine")
    assert early.value.code == "own_approval_too_soon"
    assert early.value.details == {"from": "2026-03-02T12:00:00.000Z"}
    desk.clock.forward(hours=24)
    found = desk.changes.decide(ADMIN, ALONE, True, "slept on it")
    assert desk.changes.counting(ALONE) == [found]
    assert [(e.action, e.outcome) for e in desk.entries()] == [
        ("changes.approve_own", "refused"), ("changes.approve_own", "done"),
    ]  # fmt: skip
    assert desk.entries()[-1].detail["own"] is True


def test_nobody_else_s_tier_and_no_other_role_lets_one_approve_ones_own(desk: Desk) -> None:
    desk.clock.forward(days=9)
    for changed in ({"tier": "limited"}, {"regulated": True}):
        with pytest.raises(Denied):
            desk.changes.decide(ADMIN, msgspec.structs.replace(ALONE, **changed), True, "mine")
    with pytest.raises(Denied) as refused:
        desk.changes.decide(ENGINEER, msgspec.structs.replace(ALONE, author="eve"), True, "mine")
    assert refused.value.code == "denied_by_policy"
    assert desk.changes.of(ALONE.digest) == []


def test_whoever_gave_it_takes_it_back_or_a_risk_officer_does(desk: Desk) -> None:
    first = desk.changes.decide(RISK, SUBJECT, True, "good")
    second = desk.changes.decide(ADMIN, SUBJECT, True, "good too")
    with pytest.raises(Denied):
        desk.changes.revoke(VIEWER, SUBJECT, "", "why not")
    with pytest.raises(Denied):
        desk.changes.revoke(ENGINEER, SUBJECT, second.id, "mine now")
    taken = desk.changes.revoke(RISK, SUBJECT, "", "I was wrong")
    assert (taken.id, taken.revoked and taken.revoked.principal) == (first.id, "rita")
    assert [a.id for a in desk.changes.counting(SUBJECT)] == [second.id]
    desk.changes.revoke(RISK, SUBJECT, "", "and so was ada")
    assert desk.changes.counting(SUBJECT) == []
    with pytest.raises(NotFound) as none:
        desk.changes.revoke(RISK, SUBJECT, "", "again")
    assert none.value.code == "no_such_approval"
    with pytest.raises(NotFound):
        desk.changes.revoke(RISK, SUBJECT, first.id, "again")
    done = [e for e in desk.entries() if e.action.endswith("_approval") and e.outcome == "done"]
    assert [(e.action, e.principal, e.detail["given_by"]) for e in done] == [
        ("changes.withdraw_approval", "rita", "rita"), ("changes.revoke_approval", "rita", "ada"),
    ]  # fmt: skip


def test_after_it_ended_one_may_approve_again(desk: Desk) -> None:
    desk.changes.decide(RISK, SUBJECT, True, "good")
    with pytest.raises(Conflict):
        desk.changes.decide(RISK, SUBJECT, True, "still good")
    desk.clock.forward(days=30)
    assert desk.changes.counting(SUBJECT) == []
    again = desk.changes.decide(RISK, SUBJECT, True, "still good")
    assert desk.changes.counting(SUBJECT) == [again]
    desk.changes.revoke(RISK, SUBJECT, again.id, "no")
    third = desk.changes.decide(RISK, SUBJECT, True, "yes after all")
    assert [a.id for a in desk.changes.counting(SUBJECT)] == [third.id]
