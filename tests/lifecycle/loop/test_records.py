"""Change records say what happened, from the log and the tables; each is compared with what was really done."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from falaj.governance.changes.records import markdown
from falaj.kernel.clock import iso
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import Conflict, Denied, Invalid, NotFound
from falaj.lifecycle.registry.model import ModelVersion
from tests.lifecycle.house import House
from tests.lifecycle.registry.test_waivers import imported, in_force


def records(home: House, model: str, kind: str = "") -> list[Any]:
    """A model's records, oldest first."""
    service = home.plane.oversight.records
    found = [service.get(s.id) for s in reversed(service.all(model))]
    return [r for r in found if not kind or r.type == kind]


def released(home: House, model: str) -> ModelVersion:
    version = home.registered(model=model)
    assert home.release(version).state == "done"
    return home.now(version)


def production(home: House, model: str) -> list[Any]:
    return [r for r in records(home, model, "promotion") if r.environments == (PRODUCTION,)]


def test_a_promotion_carries_everything_that_a_change_needs(home: House) -> None:
    model = "filled"
    first, second = released(home, model), released(home, model)
    one, two = production(home, model)
    assert (one.state, one.kind, one.back_out_to) == ("done", "normal", "")
    assert one.back_out == f"falaj kill {model} --reason '…'"
    (approval,) = home.plane.changes.of(second.digest)
    assert (two.initiator, two.reason, two.requested_at) == ("risk", "evidence read", approval.at)
    assert [(a.alias, a.digest, a.part) for a in two.affected] == [
        (second.alias, second.digest, "takes the traffic"), (first.alias, first.digest, "gives it up"),
    ]  # fmt: skip
    assert (two.risk, two.back_out, two.back_out_to) == (
        "limited risk",
        f"falaj rollback {model} --reason '…'",
        first.alias,
    )
    (authority,) = two.authority
    assert (authority.principal, authority.roles, authority.at) == ("risk", ("risk-officer",), approval.at)
    assert two.requested_at <= two.started_at <= two.finished_at
    actions = [s.action for s in two.history]
    for action in ("changes.approve", "registry.admit_approved", "rollout.set_plan", "registry.move"):
        assert action in actions
    entries = {f.index: f.entry for f in home.log(limit=1000)}
    for step in two.history:
        assert (entries[step.index].action, entries[step.index].at) == (step.action, step.at)
    assert two.review.state == "open"
    assert home.plane.oversight.records.get(two.id) == two


def test_the_back_out_plan_works(home: House) -> None:
    """The command of the record, as a person would give it."""
    model = "undone"
    first, second = released(home, model), released(home, model)
    record = production(home, model)[-1]
    assert record.back_out.startswith(f"falaj rollback {model}")
    answer = home.api("risk").post(f"/api/v1/models/{model}/rollback", {"reason": "it is worse"}).json()
    assert home.finished(answer["flow"]).state == "done"
    assert home.now(first).state == "serving"
    (back,) = records(home, model, "rollback")
    assert (back.kind, back.state, back.initiator, back.reason) == ("emergency", "done", "risk", "it is worse")
    assert [a.alias for a in back.affected] == [first.alias, second.alias]
    assert back.back_out == f"falaj rollout start {second.alias} --at-once --reason '…'"


def test_a_refused_promotion_says_so(home: House) -> None:
    model = "refused"
    version = home.registered(model=model)
    home.plane.inventory.set(home.owner, model, {"revalidate_by": iso(home.plane.clock.now())}, "due")
    assert home.release(version).state == "failed"
    (record,) = production(home, model)
    assert record.state == "refused" and record.finished_at
    assert any(s.outcome == "refused" and "validated again" in s.told for s in record.history)
    assert [a.principal for a in record.authority] == ["risk"]


def test_a_kill_and_a_revival(home: House) -> None:
    model = "killed"
    version = released(home, model)
    overseeing = home.plane.oversight.overseeing
    overseeing.kill(home.risk, model, "it answers nonsense")
    (kill,) = records(home, model, "kill")
    assert (kill.kind, kill.state, kill.initiator, kill.reason) == ("emergency", "done", "risk", "it answers nonsense")
    assert [(a.alias, a.part) for a in kill.affected] == [(version.alias, "is killed")]
    assert "falaj revive killed" in kill.back_out
    overseeing.revive(home.risk, model, "mended")
    overseeing.revive(home.owner, model, "looked at it")
    kill, revival = records(home, model, "kill") + records(home, model, "revival")
    assert kill.state == "backed out"
    assert [(a.principal, a.what, a.reason) for a in revival.authority] == [
        ("risk", "proposed it", "mended"), ("owner", "agreed", "looked at it"),
    ]  # fmt: skip


def test_tiers_retirements_and_approvals_taken_back(home: House) -> None:
    model = "words"
    version = released(home, model)
    say = home.plane.inventory.set
    say(home.owner, model, {"owner": "ops"}, "new team")
    say(home.owner, model, {"tier": "critical"}, "it decides on loans")
    home.plane.oversight.overseeing.revoke(home.risk, version, PRODUCTION, "", "I was wrong")
    home.plane.oversight.overseeing.retire(home.owner, model, "replaced")
    tier, revoked, retired = [r for r in records(home, model) if r.type != "promotion"]
    assert (tier.type, tier.reason) == ("inventory", "it decides on loans"), "who owns it is no change of the service"
    assert tier.back_out == f"falaj inventory set {model} --tier limited --reason '…'"
    assert "limited risk before, critical risk after" in tier.risk
    assert (revoked.type, revoked.kind, revoked.reason) == ("approval revoked", "emergency", "I was wrong")
    assert (retired.type, retired.reason, retired.risk) == ("retirement", "replaced", "critical risk")


def test_a_waiver(home: House) -> None:
    version = imported(home)
    in_force(home, version)
    (given,) = records(home, version.model, "waiver")
    assert len(given.authority) == 2 and given.authority[0].roles
    assert given.back_out == f"falaj waiver revoke {version.alias} --reason '…'"
    home.plane.intake.waiving.revoke(home.risk, home.now(version), "ours is trained")
    given, taken = records(home, version.model, "waiver")
    assert (given.state, taken.reason) == ("backed out", "ours is trained")


def test_staging_is_a_standard_change(home: House) -> None:
    version = home.registered(model="staged")
    assert version.state == "awaiting approval"
    assert [r.kind for r in records(home, "staged")] in ([], ["standard"])


def test_a_review_is_written_by_a_person_and_once_it_is_over(home: House) -> None:
    model = "reviewed"
    released(home, model)
    record = production(home, model)[-1]
    service = home.plane.oversight.records
    with pytest.raises(Denied):
        service.review(home.author, record.id, "successful", "fine")
    with pytest.raises(Invalid) as bad:
        service.review(home.risk, record.id, "brilliant", "fine")
    assert bad.value.code == "bad_review"
    found = service.review(home.risk, record.id, "successful with issues", "p99 rose by a third")
    assert (found.review.state, found.review.reviewer) == ("written", "risk")
    assert service.get(record.id) == found
    for wrong, error in (("chg_999999", NotFound), ("42", Invalid), ("chg_-1", Invalid), ("chg_01", Invalid)):
        with pytest.raises(error):
            service.get(wrong)


def test_the_page_holds_what_the_record_holds_and_no_markup_of_others(home: House) -> None:
    model = "paged"
    version = home.registered(model=model)
    home.plane.decisions.approve(home.risk, version, "fine | <b>bold</b>\n# heading", hold=True)
    answer = home.api("risk").post(f"/api/v1/models/{model}/versions/1/rollouts", {"reason": "now | then"}).json()
    assert home.finished(answer["flow"]).state == "done"
    record = production(home, model)[-1]
    page = markdown(record)
    assert page.startswith(f"# {record.id}: ") and page.count("\n# ") == 0
    assert "fine \\| &lt;b>bold" in page and "now \\| then" in page
    for line in page.splitlines():
        if line.startswith("| "):
            assert line.replace("\\|", "").count("|") in (3, 4, 6, 7)
    assert home.api().get(f"/api/v1/changes/{record.id}").json()["id"] == record.id
    listed = home.api().get(f"/api/v1/changes?model={model}").json()
    assert record.id in {row["id"] for row in listed}


def test_a_change_that_is_under_way_is_not_reviewed(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    model = "under-way"
    released(home, model)
    record = production(home, model)[-1]
    service = home.plane.oversight.records
    real = service.get
    monkeypatch.setattr(service, "get", lambda change: _changed(real(change)))
    with pytest.raises(Conflict) as refused:
        service.review(home.risk, record.id, "successful", "fine")
    assert refused.value.code == "change_under_way"


def _changed(record: Any) -> Any:
    return msgspec.structs.replace(record, state="under way")
