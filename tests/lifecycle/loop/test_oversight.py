"""What the inventory asks for is enforced: at admission, by approvals, in rollouts and retraining."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from falaj.governance.changes.oversight import Examined
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import iso
from falaj.kernel.environments import DEV, PRODUCTION, STAGING
from falaj.kernel.errors import Conflict, Denied, FalajError
from falaj.lifecycle.registry.model import ModelVersion
from tests.lifecycle.house import House


def say(home: House, model: str, **said: Any) -> None:
    home.plane.inventory.set(home.owner, model, said, "agreed")


def validate(home: House, version: ModelVersion, by: Principal, outcome: str = "passed", days: float = 100) -> None:
    until = iso(home.plane.clock.now() + timedelta(days=days))
    findings = () if outcome == "passed" else ("it leaks the label",)
    examined = Examined(version.model, version.alias, version.digest, version.author, outcome, findings, until)
    home.plane.inventory.validate(by, examined)


def approve(home: House, version: ModelVersion, by: Principal) -> dict[str, Any]:
    return home.plane.decisions.approve(by, home.now(version), "evidence read")


def code_of(home: House, version: ModelVersion, environment: str = PRODUCTION) -> str:
    with pytest.raises(FalajError) as refused:
        home.plane.registry.admit(version.digest, environment, SYSTEM)
    assert refused.value.hint
    return refused.value.code


def revoke(home: House, version: ModelVersion, by: Principal) -> dict[str, Any]:
    return home.plane.oversight.overseeing.revoke(by, home.now(version), PRODUCTION, "", "I was wrong")


def test_high_risk_needs_two_people_a_validation_and_somebody_s_order(home: House) -> None:
    model = "credit"
    say(home, model, tier="high")
    version = home.registered(model=model)
    admin = home.person("second", "platform-admin")
    assert code_of(home, version) == "validation_missing"
    with pytest.raises(Denied):
        validate(home, version, home.author)
    validate(home, version, home.risk)
    assert code_of(home, version) == "not_approved"
    first = approve(home, version, admin)
    assert (first["approvals"], first["needed"], first["missing_roles"], first["flow"]) == (1, 2, ["risk-officer"], "")
    second = approve(home, version, home.owner)
    assert (second["approvals"], second["missing_roles"]) == (2, ["risk-officer"])
    third = approve(home, version, home.risk)
    assert (third["missing_roles"], third["flow"], third["held"]) == ([], "", True), "its tier starts nothing by itself"
    assert home.now(version).state == "approved" and home.plane.rollout.plan(model) is None
    answer = home.api("risk").post(f"/api/v1/models/{model}/versions/1/rollouts", {"reason": "go"}).json()
    assert home.finished(answer["flow"]).state == "done"
    admission = home.plane.registry.proven_admission(version.digest, PRODUCTION)
    assert admission is not None and (admission.tier, admission.marks) == ("high", ())


def test_a_challenger_of_a_high_risk_model_waits_for_a_person(home: House) -> None:
    model = "waits"
    permissions = home.plane.permissions
    assert permissions.waits(model) == "" and permissions.starts(model) and permissions.retrains(model)
    say(home, model, tier="high")
    assert "falaj rollout promote waits" in permissions.waits(model)
    assert not permissions.starts(model) and permissions.retrains(model)
    say(home, model, tier="critical")
    assert not permissions.retrains(model)


def test_a_failed_validation_freezes_too(home: House) -> None:
    version = home.registered(model="failing")
    validate(home, version, home.risk, "failed")
    assert code_of(home, version) == "validation_failed"
    validate(home, version, home.owner, "passed with findings")
    assert code_of(home, version) == "not_approved"


def test_a_retired_model_is_admitted_nowhere_and_takes_no_traffic(home: House) -> None:
    model = "gone"
    version = home.registered(model=model)
    assert home.release(version).state == "done"
    later = home.registered(model=model)
    assert home.plane.oversight.overseeing.retire(home.owner, model, "replaced") == [PRODUCTION]
    assert home.plane.rollout.plan(model) is None and home.now(version).state == "retired"
    for environment in ("measurement", DEV, STAGING, PRODUCTION):
        assert code_of(home, later, environment) == "model_retired"
        assert code_of(home, version, environment) == "model_retired"
    assert not home.plane.permissions.retrains(model)
    say(home, model, retired=False)
    assert home.plane.registry.admit(later.digest, DEV, SYSTEM)


def test_a_retirement_that_a_crash_cut_short_is_carried_out_by_the_next_look(home: House) -> None:
    model = "half-gone"
    assert home.release(home.registered(model=model)).state == "done"
    home.plane.inventory.set(home.owner, model, {"retired": True}, "replaced")  # the word alone, as before a crash
    assert home.plane.rollout.plan(model) is not None
    home.plane.oversight.overseeing.look()
    assert home.plane.rollout.plan(model) is None


def test_revoked_before_admission_it_awaits_approval_again(home: House) -> None:
    version = home.registered(model="before")
    home.plane.decisions.approve(home.risk, version, "fine", hold=True)
    assert revoke(home, version, home.risk)["taken_out"] == []
    assert home.now(version).state == "awaiting approval"
    assert code_of(home, version) == "not_approved"
    assert home.finished(approve(home, version, home.risk)["flow"]).state == "done"


def test_revoked_after_admission_the_version_before_gets_the_traffic_back(home: House) -> None:
    model = "after"
    first, second = home.registered(model=model), home.registered(model=model)
    assert home.release(first).state == "done" and home.release(second).state == "done"
    assert revoke(home, second, home.owner)["taken_out"] == [PRODUCTION]
    plan = home.plane.rollout.plan(model)
    assert plan is not None and [r.digest for r in plan.routes] == [first.digest]
    assert (home.now(first).state, home.now(second).state) == ("serving", "awaiting approval")
    assert "revoked by owner: I was wrong" in home.now(second).reason
    assert revoke(home, first, home.risk)["taken_out"] == [PRODUCTION]
    assert home.plane.rollout.plan(model) is None, "there is none before that anybody still answers for"


def test_one_of_three_may_go_where_two_are_enough(home: House) -> None:
    version = home.registered(model="three", approvals=2)
    admin = home.person("third", "platform-admin")
    approve(home, version, admin)
    home.plane.decisions.approve(home.risk, version, "fine", hold=True)
    home.plane.registry.admit(version.digest, PRODUCTION, home.owner)
    home.plane.changes.decide(home.owner, home.plane.registry.subject(home.now(version)), True, "me too")
    assert revoke(home, version, admin)["taken_out"] == []
    assert home.now(version).state == "approved"


def test_a_revocation_that_a_crash_cut_short_is_carried_out_by_the_next_look(home: House) -> None:
    version = home.registered(model="crashed")
    assert home.release(version).state == "done"
    home.plane.changes.revoke(home.risk, home.plane.registry.subject(home.now(version)), "", "it is bad")
    assert home.plane.rollout.plan("crashed") is not None
    home.plane.oversight.overseeing.look()
    assert home.plane.rollout.plan("crashed") is None
    home.plane.oversight.overseeing.look()


def test_people_look_at_one_record(home: House) -> None:
    model = "seen"
    version = home.registered(model=model)
    assert home.release(version).state == "done"
    api = home.api()
    body = {"owner": "ops", "intended_use": "planning", "impact": "late crews", "tier": "high", "reason": "agreed"}
    row = api.post(f"/api/v1/inventory/{model}/facts", body).json()
    assert (row["owner"], row["in_force"]["tier"], row["in_force"]["approvals"]) == ("ops", "high", 2)
    assert row["versions"][0]["serving"] == [PRODUCTION]
    assert row["in_force"]["frozen"][0].startswith("validation_missing")
    assert api.get(f"/api/v1/inventory/{model}").json() == row
    assert model in {r["model"] for r in api.get("/api/v1/inventory").json()}
    assert api.get("/api/v1/inventory/nobody").json()["code"] == "no_such_model"
    assert home.api("engineer").post(f"/api/v1/inventory/{model}/facts", body).status_code == 403
    entry = home.log(action="changes.set_inventory", resource_id=model, outcome="done")[0].entry
    assert entry.detail["tier"] == "high" and entry.detail["tier_before"] == "limited"
    assert "ops" not in str(entry.detail), "free text may name people, and the log cannot forget"


def test_a_decision_about_what_awaits_none_is_still_refused(home: House) -> None:
    version = home.registered(model="decided")
    assert home.release(version).state == "done"
    with pytest.raises(Conflict) as refused:
        approve(home, version, home.owner)
    assert refused.value.code == "not_awaiting"
