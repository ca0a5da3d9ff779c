from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.changes.model import Approval, Subject, counting
from falaj.kernel.access import Principal
from falaj.kernel.errors import Conflict, Denied, Invalid
from tests.governance.support import ADMIN, ENGINEER, RISK, VIEWER, Desk

SUBJECT = Subject("flight-delay@1", "sha256:" + "a" * 64, "sha256:" + "e" * 64, "eve")
RON = Principal("ron", "person", ("risk-officer",))
NAMES = st.sampled_from(["eve", "rita", "ron", "ada"])
DIGESTS = st.sampled_from([SUBJECT.digest, "sha256:" + "b" * 64])
EVIDENCE = st.sampled_from([SUBJECT.evidence, "sha256:" + "f" * 64])
APPROVALS = st.lists(
    st.builds(
        Approval, id=st.just("apr"), alias=st.just(SUBJECT.alias), digest=DIGESTS, evidence=EVIDENCE, principal=NAMES,
        decision=st.sampled_from(["approved", "rejected"]), reason=st.just("why"), at=st.just("now"),
        environment=st.sampled_from(["staging", "production"]),
    ),
    max_size=12,
)  # fmt: skip


@given(APPROVALS)
def test_what_counts(approvals: list[Approval]) -> None:
    found = counting(approvals, SUBJECT)
    people = [a.principal for a in found]
    assert len(set(people)) == len(people)
    assert "eve" not in people
    bound = (SUBJECT.digest, SUBJECT.evidence, "production")
    assert all((a.digest, a.evidence, a.environment) == bound and a.decision == "approved" for a in found)
    assert set(people) == {
        a.principal
        for a in approvals
        if a.principal != "eve" and a.decision == "approved" and (a.digest, a.evidence, a.environment) == bound
    }


def test_a_decision_is_kept_audited_and_counted(desk: Desk) -> None:
    given = desk.changes.decide(RISK, SUBJECT, True, "  the evidence is good  ")
    assert (given.principal, given.decision, given.reason) == ("rita", "approved", "the evidence is good")
    assert desk.changes.of(SUBJECT.digest) == desk.changes.counting(SUBJECT) == [given]
    (entry,) = desk.entries()
    assert (entry.action, entry.outcome, entry.resource_id) == ("changes.approve", "done", SUBJECT.alias)
    assert entry.detail == {
        "digest": SUBJECT.digest, "evidence": SUBJECT.evidence, "environment": "production", "approval": given.id,
    }  # fmt: skip


def test_the_author_cannot_approve_but_may_reject(desk: Desk) -> None:
    author = Principal("eve", "person", ("risk-officer", "platform-admin"))
    with pytest.raises(Denied) as denied:
        desk.changes.decide(author, SUBJECT, True, "my own")
    assert denied.value.details["rules"] == ["four-eyes"]
    assert desk.changes.of(SUBJECT.digest) == []
    desk.changes.decide(author, SUBJECT, False, "my own, and it is bad")
    assert desk.changes.counting(SUBJECT) == []


@pytest.mark.parametrize(
    "actor", [VIEWER, ENGINEER, Principal("a", "person", ("auditor",)), Principal("s", "service", ("service",))]
)
@pytest.mark.parametrize("approve", [True, False])
def test_only_who_judges_risk_decides(desk: Desk, actor: Principal, approve: bool) -> None:
    with pytest.raises(Denied):
        desk.changes.decide(actor, msgspec.structs.replace(SUBJECT, author="ann"), approve, "because")
    assert desk.changes.of(SUBJECT.digest) == []
    assert [e.outcome for e in desk.entries()] == ["denied"]


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True), (False, False)])
def test_nobody_decides_twice_about_the_same_evidence(desk: Desk, first: bool, second: bool) -> None:
    given = desk.changes.decide(RISK, SUBJECT, first, "because")
    with pytest.raises(Conflict) as refused:
        desk.changes.decide(RISK, SUBJECT, second, "because")
    assert refused.value.code == "already_decided"
    assert desk.changes.of(SUBJECT.digest) == [given]
    assert [e.outcome for e in desk.entries()] == ["done", "refused"]


def test_new_evidence_voids_an_approval_and_asks_again(desk: Desk) -> None:
    desk.changes.decide(RISK, SUBJECT, True, "because")
    measured_again = msgspec.structs.replace(SUBJECT, evidence="sha256:" + "f" * 64)
    assert desk.changes.counting(measured_again) == []
    desk.changes.decide(RISK, measured_again, True, "still good")
    assert names(desk.changes.counting(measured_again)) == names(desk.changes.counting(SUBJECT)) == ["rita"]


def test_an_approval_for_one_environment_means_nothing_in_another(desk: Desk) -> None:
    staging = msgspec.structs.replace(SUBJECT, environment="staging")
    desk.changes.decide(RISK, staging, True, "try it")
    assert desk.changes.counting(SUBJECT) == []
    desk.changes.decide(RISK, SUBJECT, True, "and now for callers")
    assert [a.environment for a in desk.changes.counting(staging)] == ["staging"]
    assert [e.detail["environment"] for e in desk.entries()] == ["staging", "production"]


def test_an_approval_of_another_version_does_not_count(desk: Desk) -> None:
    desk.changes.decide(RISK, msgspec.structs.replace(SUBJECT, digest="sha256:" + "b" * 64), True, "because")
    assert desk.changes.counting(SUBJECT) == []


def test_each_of_several_people_counts_once(desk: Desk) -> None:
    for actor in (RISK, RON, ADMIN):
        desk.changes.decide(actor, SUBJECT, True, "because")
    assert sorted(names(desk.changes.counting(SUBJECT))) == ["ada", "rita", "ron"]


@pytest.mark.parametrize("reason", ["", " ", "\n\t", "x" * 1001])
def test_a_decision_needs_a_reason(desk: Desk, reason: str) -> None:
    with pytest.raises(Invalid, match="reason"):
        desk.changes.decide(RISK, SUBJECT, True, reason)
    assert desk.entries() == []


def test_the_reason_is_not_in_the_log(desk: Desk) -> None:
    """It is free text, which may name people; the log cannot forget."""
    desk.changes.decide(RISK, SUBJECT, True, "as Mrs. Miller said")
    assert "Miller" not in str(desk.entries())


def names(approvals: Sequence[Approval]) -> list[str]:
    return [a.principal for a in approvals]
