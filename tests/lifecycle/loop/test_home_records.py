"""Records of the home's own changes, each compared with what was really done, and its way back with what it really does."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text as sql
from sqlalchemy import update

from falaj.governance.changes.records import markdown
from falaj.governance.changes.store import SqlHoldStore
from falaj.governance.identity.ports import External
from falaj.governance.identity.service import Terms
from falaj.governance.policy.decide import default_policy
from falaj.governance.signing.trust import NEVER
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.environments import ENVIRONMENTS
from falaj.kernel.errors import Conflict, Invalid, NotFound
from falaj.lifecycle.loop.store import SqlDefinitionStore, definitions
from tests.lifecycle import project
from tests.lifecycle.house import House, house

READS = """
@id("viewers-read-the-log")
permit (principal in Role::"viewer", action == Action::"audit.read", resource);
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house of its own: other records of the home would stand between."""
    with house(tmp_path_factory.mktemp("house")) as opened:
        yield opened


def records(home: House, only: str) -> list[Any]:
    """The records of a type, oldest first."""
    service = home.plane.oversight.records
    return [service.get(s.id) for s in reversed(service.all(only=only, limit=1000))]


def test_another_policy_says_what_it_changes_and_the_way_back_leads_back(home: House) -> None:
    policy, first = home.plane.policy, default_policy()
    assert records(home, "policy") == []
    policy.apply(home.owner, first + READS, "the board asked for it")
    (one,) = records(home, "policy")
    assert (one.initiator, one.reason, one.kind, one.state, one.environments) == (
        "owner", "the board asked for it", "normal", "done", ENVIRONMENTS,
    )  # fmt: skip
    assert [(a.alias, a.part) for a in one.affected] == [
        ("policy 1", "holds from now on"), ("policy 0", "gives way"), ("rule viewers-read-the-log", "is added"),
    ]  # fmt: skip
    assert [a.digest for a in one.affected[:2]] == [v.digest for v in policy.versions()]
    assert one.title == "version 1 of the policy holds: rules 1 added"
    assert one.risk == "permits more: audit.read for viewer", "what really becomes possible, not what somebody thinks"
    (authority,) = one.authority
    assert (authority.principal, authority.roles) == ("owner", ("platform-admin",))
    assert one.review.state == "open" and one.finished_at == one.started_at == one.requested_at
    (step,) = one.history
    (entry,) = home.log(action="policy.apply", outcome="done")
    assert (step.index, step.at, step.told) == (entry.index, entry.entry.at, "the board asked for it")

    changed = (first + READS).replace('Role::"viewer", action ==', 'Role::"auditor", action ==')
    policy.apply(home.owner, changed, "the wrong role")
    (_, two) = records(home, "policy")
    assert two.affected[2:] == two.affected[2:3] and two.affected[2].part == "is changed"
    assert two.risk == "permits less: audit.read for viewer", "auditors could already"

    words = shlex.split(two.back_out)
    assert words[:4] == ["falaj", "policy", "apply", "--version"] and two.back_out_to == "policy 1"
    policy.apply(home.owner, policy.version(int(words[4])).text, "as the record says")
    one, two, three = records(home, "policy")
    assert (one.state, two.state, three.state) == ("done", "backed out", "done")
    assert [s.told for s in two.history] == ["the wrong role", "as the record says"]
    assert policy.current().text == first + READS
    policy.apply(home.owner, policy.version(0).text, "all back")
    assert records(home, "policy")[0].state == "backed out"


def test_a_policy_that_is_refused_is_no_change(home: House) -> None:
    before = len(records(home, "policy"))
    for text in ("permit (nonsense", home.plane.policy.current().text):
        with pytest.raises((Invalid, Conflict)):
            home.plane.policy.apply(home.owner, text, "because")
    assert len(records(home, "policy")) == before
    assert home.log(action="policy.apply", outcome="refused")


def test_a_text_that_was_changed_beside_the_door_is_not_believed(home: House) -> None:
    policy = home.plane.policy
    applied = policy.apply(home.owner, policy.current().text + READS.replace("viewers", "all"), "one more")

    def write(text: str) -> None:
        home.plane.database.change(
            lambda tx: tx.execute(
                sql("UPDATE policies SET text = :text WHERE number = :number"), {"text": text, "number": applied.number}
            )
        )

    write(default_policy())
    try:
        record = records(home, "policy")[-1]
        assert record.title.endswith("what it changed is not known") and record.back_out_to == ""
        assert [a.alias for a in record.affected] == [f"policy {applied.number}", f"policy {applied.number - 1}"]
        assert record.affected[0].digest == applied.digest, "what the log says, not what the table says"
    finally:
        write(applied.text)
    assert "rules 1 added" in records(home, "policy")[-1].title


def test_roles_given_changed_and_taken_away(home: House) -> None:
    grant, revoke = home.plane.identity.grant, home.plane.identity.revoke
    first = grant(home.owner, Principal("carol", "person", ("viewer",)), Terms(9, ("read",), "flights", "joined ops"))
    more = grant(home.owner, Principal("carol", "person", ("risk-officer",)), 9)
    again = grant(home.owner, Principal("carol", "person", ("risk-officer",)), 9)
    joined, promoted, same = (r for r in records(home, "access") if "carol" in r.title)
    assert (joined.title, joined.reason, joined.initiator) == ("carol is viewer", "joined ops", "owner")
    assert joined.authority[0].roles == ("platform-admin",) and joined.kind == "normal"
    assert [(a.alias, a.part) for a in joined.affected] == [
        ("carol", "has viewer, had none"),
        (f"token {first.id}", f"is good until {first.expires_at}, only read, within flights"),
    ]  # fmt: skip
    assert "may do more: " in joined.risk and "changes.approve" not in joined.risk
    assert joined.back_out == f"falaj token revoke {first.id}"
    assert promoted.title == "carol is risk-officer, was viewer" and promoted.reason == ""
    assert "may do more: " in promoted.risk and "changes.approve" in promoted.risk
    assert promoted.back_out == (f"falaj token create carol --role viewer --reason '…' && falaj token revoke {more.id}")
    assert same.title == "carol gets a token" and "no more and no less" in same.risk

    revoke(home.owner, again.id, "the laptop is gone")
    *_, same, taken = (r for r in records(home, "access") if "carol" in r.title)
    assert (same.state, same.back_out) == ("backed out", "")
    assert [s.told for s in same.history][-1] == "the laptop is gone"
    assert (taken.title, taken.reason) == (f"token {again.id} of carol is revoked", "the laptop is gone")
    assert taken.back_out == "falaj token create carol --role risk-officer --reason '…'"
    with pytest.raises(Invalid):
        revoke(home.owner, more.id, "x" * 201)
    assert home.plane.identity.knows(more.id), "a refusal changes nothing"


def test_sign_ins_are_changes_only_where_they_bring_other_roles(home: House) -> None:
    person = External("dora@example.org", "https://idp.example", "Dora")
    sign_in, lasts = home.plane.identity.sign_in, timedelta(hours=8)
    sign_in(person, ("viewer",), lasts)
    sign_in(person, ("viewer",), lasts)
    sign_in(person, ("auditor",), lasts)
    home.plane.identity.withdraw(person)
    mine = [r for r in records(home, "access") if person.name in r.title]
    assert [(r.title, r.kind, r.initiator) for r in mine] == [
        (f"{person.name} is viewer", "standard", SYSTEM.name),
        (f"{person.name} is auditor, was viewer", "standard", SYSTEM.name),
        (f"{person.name} has no role any more, and no token", "standard", SYSTEM.name),
    ]


def test_keys(home: House) -> None:
    revoking = home.plane.vouching.revoking
    rotated = revoking.rotate(home.owner, "dev", "it is a year old")
    gone = revoking.revoke(home.owner, "model", "", "it lay in a mail")
    one, two = records(home, "key")
    assert (one.kind, one.reason, one.environments) == ("normal", "it is a year old", ("dev",))
    assert [a.digest for a in one.affected] == [rotated.old, rotated.new]
    assert rotated.until in one.affected[0].part and one.back_out.startswith("falaj keys rotate dev ")
    assert (two.kind, two.reason) == ("emergency", "it lay in a mail")
    assert gone["until"] == NEVER and "nothing that it ever signed counts" in two.title
    assert [a.digest for a in two.affected] == [gone["old"], gone["new"]] and two.back_out.startswith("none: ")


def test_break_glass_tells_who_let_whom_and_what_was_done_by_it(home: House) -> None:
    oncall = home.person("oncall", "ml-engineer")
    glass = home.plane.oversight.glass
    waiting = glass.propose(oncall, ("changes.kill",), 1, "never opened")
    asked = glass.propose(oncall, ("rollout.steer", "changes.approve"), 2, "the risk officers are asleep")
    glass.open(home.owner, asked.id, "called by phone")
    (record,) = records(home, "break-glass")
    assert waiting.id not in record.back_out and record.back_out == f"falaj break-glass close {asked.id}"
    assert (record.state, record.kind, record.finished_at) == ("under way", "emergency", "")
    assert (record.initiator, record.reason) == ("oncall", "the risk officers are asleep")
    assert [(a.principal, a.roles, a.what, a.reason) for a in record.authority] == [
        ("oncall", ("ml-engineer",), "asked for it", "the risk officers are asleep"),
        ("owner", ("platform-admin",), "allowed it", "called by phone"),
    ]
    assert [a.alias for a in record.affected] == ["rollout.steer", "changes.approve"]
    with pytest.raises(Conflict) as early:
        home.plane.oversight.records.review(home.risk, record.id, "successful", "fine")
    assert early.value.code == "change_under_way"

    version = home.registered(model="smoking")
    home.plane.decisions.approve(oncall, version, "nobody else is awake", hold=True)
    glass.close(home.risk, asked.id)
    (record,) = records(home, "break-glass")
    assert (record.state, record.back_out) == ("done", "") and record.finished_at
    assert "1 thing was done by it" in record.risk
    assert [s.action for s in record.history] == [
        "changes.propose_glass", "changes.open_glass", "changes.approve", "changes.close_glass",
    ]  # fmt: skip
    reviewed = home.plane.oversight.records.review(home.risk, record.id, "successful", "it was needed, once")
    assert (reviewed.review.state, reviewed.review.reviewer) == ("written", "risk")


def test_quarantine_and_its_end_stand_with_the_model(home: House) -> None:
    version = home.registered(model="doubted")
    quarantine = home.plane.oversight.holding
    hold = quarantine.put(home.risk, "version", version.alias, "its labels may be wrong")
    (put,) = records(home, "quarantine")
    assert (put.kind, put.model, put.affected[0].digest) == ("emergency", "doubted", version.digest)
    assert put.back_out == f"falaj quarantine lift {hold['id']} --reason '…' (somebody else)"
    quarantine.lift(home.owner, hold["id"], "looked at them")
    put, out = records(home, "quarantine")
    assert (put.state, out.reason, out.kind) == ("backed out", "looked at them", "normal")
    assert out.back_out == f"falaj quarantine put {version.alias} --reason '…'"
    listed = home.plane.oversight.records.all("doubted")
    assert {put.id, out.id} <= {s.id for s in listed} and {s.model for s in listed} == {"doubted"}


def test_a_row_that_is_gone_is_told(home: House) -> None:
    held = home.plane.oversight.holding.put(home.risk, "version", home.registered(model="erased").alias, "a doubt")
    (hold,) = (h for h in home.plane.oversight.holding.all() if h.id == held["id"])
    record = records(home, "quarantine")[-1]
    change = home.plane.database.change
    change(lambda tx: tx.execute(sql("DELETE FROM quarantine WHERE id = :id"), {"id": hold.id}))
    try:
        answer = home.api().get(f"/api/v1/changes/{record.id}")
        assert answer.json()["code"] == "record_row_gone"
    finally:
        change(lambda tx: SqlHoldStore().add(tx, hold))
    assert records(home, "quarantine")[-1] == record


def test_over_http_by_type_and_as_a_page(home: House) -> None:
    rows = home.api().get("/api/v1/changes?type=policy&limit=1").json()
    assert [r["type"] for r in rows] == ["policy"] and rows[0]["model"] == ""
    shown = home.api().get(f"/api/v1/changes/{rows[0]['id']}").json()
    assert shown["affected"] and shown["back_out"]
    refused = home.api().get("/api/v1/changes?type=weather")
    assert refused.json()["code"] == "bad_change_type"
    page = markdown(home.plane.oversight.records.get(rows[0]["id"]))
    assert "all: a change of the home itself" in page and "rule " in page
    with pytest.raises(NotFound):  # an entry that only tells how a change went on is the number of none
        home.plane.oversight.records.get(f"chg_{home.log(action='changes.propose_glass')[0].index}")


def test_another_definition_says_what_it_changes_and_the_way_back_leads_back(home: House) -> None:
    api, seen = home.api("owner"), len(records(home, "definition"))
    made = api.post("/api/v1/definition", {"files": project.files(), "reason": "the first one"})
    assert made.status_code == 200, made.text
    number = made.json()["number"]
    loose = {**project.files(), "made.py": project.files()["made.py"].replace("at_least=0.6", "at_least=0.5")}
    assert loose != project.files()
    assert (
        api.post("/api/v1/definition", {"files": loose, "reason": "it failed too often"}).json()["number"] == number + 1
    )
    first, second = records(home, "definition")[seen:]
    assert first.title.startswith(f"definition {number} of ") and first.title.endswith("6 added")
    assert (second.initiator, second.reason, second.state, second.environments) == (
        "owner", "it failed too often", "done", ENVIRONMENTS,
    )  # fmt: skip
    (model,) = [a for a in second.affected if a.alias.startswith("model ")]
    assert "gates" in model.part and "limited risk) is trained, judged or watched otherwise" in second.risk
    assert "what serves goes on" in second.risk and second.back_out_to == f"definition {number}"

    words = shlex.split(second.back_out)
    assert words[:3] == ["falaj", "apply", "--number"]
    back = api.post(f"/api/v1/definition/{words[3]}", {"reason": "as the record says"}).json()
    assert back["number"] == number + 2 and [c["change"] for c in back["changes"]] == ["changed"]
    assert home.plane.definitions.applied().definition.code == home.plane.definitions.numbered(number).definition.code
    first, second, third = records(home, "definition")[seen:]
    assert (first.state, second.state, third.state) == ("done", "backed out", "done")
    assert [s.told for s in second.history] == ["it failed too often", "as the record says"]
    assert api.post("/api/v1/definition/999", {"reason": "x"}).json()["code"] == "no_such_definition"


def test_a_definition_that_is_not_the_one_in_the_log_is_not_believed(home: House) -> None:
    (*_, last) = records(home, "definition")
    number = home.plane.definitions.applied().number
    kept = home.plane.database.read(lambda tx: SqlDefinitionStore().body(tx, number))
    home.sql(update(definitions).where(definitions.c.number == number).values(definition=kept.replace("0.6", "0.1")))
    (*_, altered) = records(home, "definition")
    assert altered.risk.startswith("not known")
    assert not [a for a in altered.affected if a.alias.startswith("model ")]
    home.sql(update(definitions).where(definitions.c.number == number).values(definition=kept))
    (*_, again) = records(home, "definition")
    assert again == last


def test_code_that_was_changed_in_the_home_does_not_hold_again(home: House) -> None:
    first = next(n for n in range(1, 9) if home.plane.definitions.numbered(n).definition.code)
    folder = home.plane.layout.projects / home.plane.definitions.numbered(first).definition.code.removeprefix("sha256:")
    (file, *_) = folder.rglob("*.py")
    whole = file.read_text()
    file.write_text(whole + "\nx = 1\n")
    refused = home.api("owner").post(f"/api/v1/definition/{first}", {"reason": "back"})
    assert refused.json()["code"] == "code_changed"
    file.write_text(whole)
