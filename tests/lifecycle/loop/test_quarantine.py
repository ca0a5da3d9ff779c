"""Data that may not be used, or not here: refused before a byte moves; a version that is held answers nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from falaj.governance.changes.holds import Hold, check_held, holding
from falaj.kernel.access import SYSTEM
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import Denied, FalajError, Invalid
from falaj.lifecycle.rollout.model import champion
from tests.lifecycle import project
from tests.lifecycle.house import House, house

REGION = 'fj.Source.csv(\n    "sales",'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with a project and its data, that says that it is in ae."""
    root = project.lay_out(tmp_path_factory.mktemp("house"))
    with house(root, region="ae") as opened:
        apply(opened, "ae")
        loaded = opened.finished(opened.api().post("/api/v1/datasets/sales/loads", json={}).json()["flow"])
        assert loaded.state == "done", loaded.error
        yield opened


def apply(home: House, region: str) -> None:
    text = project.CODE.replace('purposes=("shop",)', f'purposes=("shop",), region="{region}"')
    assert f'region="{region}"' in text
    answer = home.api().post("/api/v1/definition", json={"files": {**project.files(), "made.py": text}})
    assert answer.status_code == 200, answer.text


def held(home: House, name: str, kind: str = "version", by: str = "risk") -> dict[str, Any]:
    answer = home.api(by).post("/api/v1/quarantine", {"kind": kind, "name": name, "reason": "a sensor was wrong"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def lift(home: House, hold: str, by: str = "owner") -> Any:
    return home.api(by).post(f"/api/v1/quarantine/{hold}/lifting", {"reason": "it was looked at"})


def rules(error: dict[str, Any]) -> set[str]:
    assert error["code"] == "denied_by_policy", error
    return set(error["details"]["rules"])


def test_what_a_hold_reaches() -> None:
    holds = [Hold("h1", "dataset", "sales@3", "ann", "", ""), Hold("h2", "version", "back@1", "ann", "", "")]
    assert [h.id for h in holding(holds, (), ("sales@3",))] == ["h1"]
    assert [h.id for h in holding(holds, (), ("sales@12",))] == ["h1"], "numbers, not texts"
    assert holding(holds, (), ("sales@2", "other@9")) == []
    assert [h.id for h in holding(holds, ("back@1",), ())] == ["h2"]
    assert holding(holds, ("back@11", "back@2"), ()) == []
    for kind, name in (("version", "back"), ("table", "back@1"), ("dataset", "../x@1"), ("version", "back@1\n")):
        with pytest.raises(Invalid):
            check_held(kind, name)


def test_data_in_quarantine_trains_nothing_and_approves_nothing(home: House) -> None:
    engineer = home.api("engineer")
    body = {"as_of": "2024-06-01T00:00:00Z"}
    built = home.finished(engineer.post("/api/v1/models/back/builds", body).json()["flow"])
    assert built.result is not None and built.result["version"] == "back@1", built.error
    version = home.plane.registry.version("back", 1)

    number = home.plane.data.head("sales").version
    hold = held(home, f"sales@{number}", "dataset", "engineer")
    assert hold["affected"] == ["back@1"] and hold["taken_out"] == []
    twice = home.api("risk").post("/api/v1/quarantine", {"kind": "dataset", "name": hold["name"], "reason": "x"})
    assert twice.json()["code"] == "held_already"
    refused = engineer.post("/api/v1/models/back/builds", body)
    assert rules(refused.json()) == {"not-in-quarantine"} and "falaj quarantine list" in refused.json()["hint"]
    filled = engineer.post("/api/v1/features/materializations", {})
    assert rules(filled.json()) == {"not-in-quarantine"}
    approved = home.api("risk").post("/api/v1/models/back/versions/1/approvals", {"reason": "good"})
    assert rules(approved.json()) == {"not-in-quarantine"}
    with pytest.raises(Denied):
        home.plane.registry.admit(version.digest, PRODUCTION, SYSTEM)
    told = home.api("risk").post("/api/v1/policy/explanation", {"action": "training.start", "principal": "engineer", "resource": "back", "attributes": {"purpose": "shop", "purposes": ["shop"]}}).json()  # fmt: skip
    assert [r["id"] for r in told["rules"]] == ["not-in-quarantine"] and told["facts"]["quarantined"] is True
    assert ["if quarantined were false"] in [c["what"] for c in told["changes"]]

    own = lift(home, hold["id"], "engineer")
    assert own.json()["code"] == "denied_by_policy"
    assert lift(home, hold["id"]).json()["lifted_by"] == "owner"
    assert lift(home, hold["id"]).json()["code"] == "not_held"
    assert [e.entry.detail["held"] for e in home.log(action="changes.quarantine")][-1] == hold["name"]
    assert home.release(version).state == "done"


def test_a_version_in_quarantine_leaves_the_traffic_and_comes_back_by_approval(home: House) -> None:
    version = home.registered(model="held")
    assert home.release(version).state == "done"
    assert champion(home.plane.rollout.present("held")) == version.digest
    hold = held(home, version.alias)
    assert hold["taken_out"] == [PRODUCTION] and champion(home.plane.rollout.present("held")) == ""
    assert home.now(version).state == "awaiting approval"
    with pytest.raises(Denied):
        home.plane.decisions.approve(home.owner, home.now(version), "good")
    assert lift(home, hold["id"], "risk").json()["code"] == "denied_by_policy", "whoever put it there"
    assert lift(home, hold["id"]).status_code == 200
    assert home.release(home.now(version), home.owner).state == "done"
    assert champion(home.plane.rollout.present("held")) == version.digest


def test_what_a_crash_left_in_the_traffic_is_taken_out(home: House) -> None:
    version = home.registered(model="crashed")
    assert home.release(version).state == "done"
    home.plane.oversight.holding.look()
    assert champion(home.plane.rollout.present("crashed")) == version.digest
    service = home.plane.oversight.holding._p.quarantine
    service.put(home.risk, "version", version.alias, "and then the process died")
    home.plane.oversight.holding.look()
    assert champion(home.plane.rollout.present("crashed")) == ""


def test_what_is_not_there_cannot_be_held(home: House) -> None:
    api = home.api("risk")
    for body, code in (
        ({"kind": "version", "name": "back@99"}, "no_such_version"),
        ({"kind": "dataset", "name": "sales@99"}, "no_dataset_version"),
        ({"kind": "dataset", "name": "sales"}, "bad_quarantine"),
    ):
        assert api.post("/api/v1/quarantine", {**body, "reason": "x"}).json()["code"] == code
    home.person("looker", "viewer")
    denied = home.api("looker").post("/api/v1/quarantine", {"kind": "version", "name": "back@99", "reason": "x"})
    assert denied.json()["code"] == "denied_by_policy", "who may not is told nothing of what is there"


def test_data_stays_in_its_region(home: House) -> None:
    engineer = home.api("engineer")
    export = "/api/v1/models/back/versions/1/dossier"
    assert home.api("risk").get(export).status_code == 200
    away = home.api("risk").get(f"{export}?region=us").json()
    assert rules(away) == {"data-stays-in-its-region"} and "FALAJ_REGION" in away["hint"]
    apply(home, "us")  # its data may be in us only, and this home is in ae
    try:
        built = engineer.post("/api/v1/models/back/builds", {})
        assert rules(built.json()) == {"data-stays-in-its-region"}
        loaded = engineer.post("/api/v1/datasets/sales/loads", {})
        assert rules(loaded.json()) == {"data-stays-in-its-region"}
        assert rules(home.api("risk").get(export).json()) == {"data-stays-in-its-region"}
        assert home.api("risk").get(f"{export}?region=us").status_code == 200
    finally:
        apply(home, "ae")


def test_a_fact_that_cannot_be_read_denies(home: House) -> None:
    def broken(_question: Any) -> dict[str, Any]:
        raise FalajError("the disk is gone", hint="mend it", code="x")

    api, informed = home.api("risk"), home.plane.informed
    kept = informed._sources
    informed.learn_from(*kept, broken)
    try:
        told = api.get("/api/v1/quarantine").json()
    finally:
        informed.learn_from(*kept)
    assert told["code"] == "denied_by_policy" and "could not be read" in str(told["details"]["errors"])
