"""One prediction explained, and where the loop stands: with a real data plane, release, rollback, labels, incidents."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import iso
from falaj.kernel.digests import digest_of
from falaj.lifecycle.loop.model import ModelDefinition, ProjectDefinition
from falaj.lifecycle.monitoring.policy import RetrainPolicy
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.rollout.model import all_to, withdrawn
from falaj.lifecycle.rollout.strategy import Strategy
from falaj.lifecycle.training.model import Run
from falaj.lifecycle.training.service import Allowed
from tests.lifecycle.house import MODEL, Api, House
from tests.lifecycle.serving.plane.fleet import VIEW, eventually, flight


class Shop:
    """Asks the home's data plane and wants to know why."""

    def __init__(self, home: House, http: httpx.Client) -> None:
        self.home = home
        self.http = http
        self.api: Api = home.api("owner")
        self.first: ModelVersion = home.registered()
        assert home.release(self.first).state == "done"

    def ask(self, rows: int = 1, **changed: Any) -> str:
        self.home.plane.serving.settle(self.home.plane.serving.generation(), 10)
        answer = self.http.post(f"/v2/models/{MODEL}/infer", json=flight(rows, **changed))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["parameters"]["prediction_id"])

    def why(self, prediction: str) -> dict[str, Any]:
        answer = self.api.get(f"/api/v1/predictions/{prediction}/why")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def standing(self) -> dict[str, Any]:
        models = self.api.get("/api/v1/loop").json()["models"]
        found: dict[str, Any] = next(m for m in models if m["model"] == MODEL)
        return found


@pytest.fixture(scope="module")
def shop(home: House) -> Iterator[Shop]:
    token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
    with (
        home.data_plane() as plane,
        httpx.Client(base_url=plane.address, headers={"Authorization": f"Bearer {token}"}) as http,
    ):
        yield Shop(home, http)


def test_what_went_in_what_was_looked_up_and_how_old_it_was(shop: Shop) -> None:
    found = shop.why(shop.ask())
    assert found["prediction"]["inputs"]["origin"] == ["JFK"] and found["row"] == 0
    (lookup,) = found["features"]
    assert (lookup["view"], lookup["entity"], lookup["status"]) == (VIEW.name, "JFK", "present")
    assert lookup["values"] == {"wind": 10.0, "gusty": 1.0}
    assert 0 <= lookup["age_seconds"] <= lookup["ttl_seconds"] == 7200
    assert lookup["event_time"] < iso(shop.home.plane.clock.now())
    (missing,) = shop.why(shop.ask(origin="LAX"))["features"]
    assert (missing["status"], missing["age_seconds"], missing["event_time"]) == ("missing", None, "")


def test_who_let_the_version_answer_and_the_entries_that_say_so(shop: Shop) -> None:
    found = shop.why(shop.ask())
    version = shop.home.now(shop.first)
    assert (found["version"]["alias"], found["version"]["digest"]) == (version.alias, version.digest)
    traffic = found["traffic"]
    (approval,) = traffic["approvals"]
    assert (approval["principal"], approval["reason"]) == ("risk", "evidence read")
    assert (traffic["how"], traffic["role"], traffic["weight"]) == ("release", "stable", 100)
    assert traffic["flow"] == f"rel_{approval['id'].partition('_')[2]}"
    told = [(e["action"], e["principal"]) for e in found["log"]]
    assert ("changes.approve", "risk") in told
    assert {
        "registry.package",
        "registry.register",
        "registry.admit_approved",
        "rollout.set_plan",
        "serving.publish",
    } <= {action for action, _ in told}
    assert [e["index"] for e in found["log"]] == sorted(e["index"] for e in found["log"])
    assert (found["run"], found["datasets"]) == (None, [])  # this house packages without training


def test_what_staging_does_with_the_same_model_is_not_what_brought_it_its_traffic(shop: Shop) -> None:
    before = shop.why(shop.ask())["traffic"]
    version = shop.home.now(shop.first)
    shop.home.plane.registry.admit(version.digest, "staging", SYSTEM)
    shop.home.plane.rollouts["staging"].set_plan(all_to(version.model, version.digest), "author", "sth_1:plan")
    shop.home.plane.rollouts["staging"].set_plan(withdrawn(version.model), "author", "sth_1:back")
    while shop.home.plane.staging.generation() < before["generation"]:  # of the same number, and of another environment
        shop.home.plane.staging.publish("author")
    after = shop.why(shop.ask())["traffic"]
    assert {k: after[k] for k in ("flow", "how", "since", "generation")} == {
        k: before[k] for k in ("flow", "how", "since", "generation")
    }
    assert after["how"] == "release"


def test_a_row_has_its_own_label(shop: Shop) -> None:
    prediction = shop.ask(rows=3)
    known = {"labels": [{"prediction": f"{prediction}/2", "value": 1.0}]}

    def taken() -> bool:
        return bool(shop.api.post(f"/api/v1/models/{MODEL}/labels", known).json()["accepted"])

    eventually(taken, "the journal is read")
    found = shop.why(f"{prediction}/2")
    assert (found["row"], found["label"]["value"], found["label"]["prediction"]) == (2, 1.0, prediction)
    assert shop.why(prediction)["label"] is None
    assert shop.api.get(f"/api/v1/predictions/{prediction}/3/why").status_code == 422
    assert shop.api.get(f"/api/v1/predictions/{prediction}/x/why").status_code == 422


def test_only_incidents_that_were_open_then(shop: Shop) -> None:
    incidents = shop.home.plane.incidents

    def pass_on() -> None:
        then = iso(shop.home.plane.clock.now())
        eventually(lambda: iso(shop.home.plane.clock.now()) > then, "times are told in milliseconds: one passes")

    before = shop.ask()
    pass_on()
    mine = incidents.open(MODEL, "drift", shop.first.digest, "the wind has turned")
    everyones = incidents.open("*", "data_plane", "", "it is gone")  # a kind that no watcher settles by itself
    incidents.open("another", "drift", "", "not ours")
    during = shop.ask()
    pass_on()
    incidents.resolve(shop.home.owner, mine.id)
    incidents.settle("*", "data_plane")
    after = shop.ask()
    assert [i["id"] for i in shop.why(during)["incidents"]] == [everyones.id, mine.id]
    assert shop.why(before)["incidents"] == shop.why(after)["incidents"] == []


def test_after_a_roll_back_it_says_who_wanted_it_and_why(shop: Shop) -> None:
    old = shop.ask()
    second = shop.home.registered()
    assert shop.home.release(second).state == "done"
    newer = shop.ask()
    answer = shop.home.plane.decisions.roll_back(shop.home.risk, MODEL, "it is late in the evening")
    assert shop.home.finished(answer["flow"]).state == "done"
    back = shop.why(shop.ask())
    assert (back["version"]["digest"], back["traffic"]["how"]) == (shop.first.digest, "roll back")
    assert back["traffic"]["flow"] == answer["flow"]
    ordered = back["traffic"]["ordered"]
    assert (ordered["principal"], ordered["reason"]) == ("risk", "it is late in the evening")
    assert shop.why(newer)["traffic"]["how"] == shop.why(old)["traffic"]["how"] == "release"
    assert shop.why(newer)["version"]["alias"] == shop.home.now(second).alias
    assert shop.why(old)["traffic"]["flow"] != shop.why(newer)["traffic"]["flow"]


def test_asking_is_audited_and_not_for_everyone(shop: Shop) -> None:
    prediction = shop.ask()
    shop.home.person("passer-by", "viewer")
    path = f"/api/v1/predictions/{prediction}/why"
    assert shop.home.api("passer-by").get(path).status_code == 403
    assert shop.home.api("risk").get(path).status_code == 200
    told = [(f.entry.principal, f.entry.outcome) for f in shop.home.log(resource_id=prediction)]
    assert told[0] == ("risk", "done") and ("passer-by", "denied") in told
    assert shop.api.get("/api/v1/predictions/p_" + "0" * 26 + "_8/why").status_code == 404
    assert shop.api.get("/api/v1/predictions/nothing/why").status_code == 422
    assert shop.api.get(f"/api/v1/predictions/{prediction}/{'9' * 5000}/why").json()["code"] == "no_such_row"


def test_where_the_loop_stands(shop: Shop) -> None:
    waiting = shop.home.registered(approvals=2)
    shop.home.plane.decisions.approve(shop.home.risk, waiting, "one of two")
    incident = shop.home.plane.incidents.open(MODEL, "drift", shop.first.digest, "the wind has turned")
    standing = shop.standing()
    assert standing["serving"] == {"alias": shop.home.now(shop.first).alias, "digest": shop.first.digest}
    assert [i["id"] for i in standing["incidents"]] == [incident.id]
    own = next(a for a in standing["awaiting"] if a["digest"] == waiting.digest)
    assert (own["approvals"], own["needed"]) == (1, 2)
    assert (standing["rollout"], standing["retraining"], standing["retrains"]) == (None, None, False)
    shop.home.plane.incidents.resolve(shop.home.owner, incident.id)
    assert shop.standing()["incidents"] == []
    assert msgspec.json.encode(standing)


def test_a_rollout_stands_in_the_loop_and_in_the_answer_to_why(shop: Shop) -> None:
    home = shop.home
    define(home, strategy=Strategy(steps=(50,), requests=10_000))
    challenger = home.registered()
    answer = home.plane.decisions.approve(home.risk, challenger, "let us see")
    assert answer["flow"].startswith("rol_")
    eventually(lambda: (shop.standing()["rollout"] or {}).get("stage") == "canary", "the rollout begins")
    eventually(
        lambda: home.plane.rollout.plan(MODEL) is not None and len(home.plane.rollout.plans()[0].routes) == 2,
        "its plan",
    )
    rollout = shop.standing()["rollout"]
    assert (rollout["challenger"]["digest"], rollout["weight"], rollout["id"]) == (
        challenger.digest,
        50,
        answer["flow"],
    )

    told: list[dict[str, Any]] = []

    def answered() -> bool:
        told.append(shop.why(shop.ask()))
        return bool(told[-1]["version"]["digest"] == challenger.digest)

    eventually(answered, "half of the answers are the challenger's")
    traffic = told[-1]["traffic"]
    assert (traffic["how"], traffic["role"], traffic["weight"], traffic["flow"]) == (
        "rollout",
        "canary",
        50,
        answer["flow"],
    )
    assert traffic["rollout"]["challenger"] == challenger.digest
    assert "rollout.start" in {e["action"] for e in told[-1]["log"]}
    home.plane.rollout.order(home.risk, MODEL, "abort")
    assert home.finished(answer["flow"]).state == "failed"
    assert shop.standing()["rollout"] is None


def test_the_last_retraining_and_when_the_next_may_start(shop: Shop) -> None:
    home = shop.home
    define(home, retrain=RetrainPolicy(on_drift=True, cooldown_seconds=3600))
    assert (shop.standing()["retrains"], shop.standing()["retrain_from"]) == (True, "")
    incident = home.plane.incidents.open(MODEL, "drift", shop.first.digest, "the wind has turned again")
    home.finished(f"rtr_{incident.id.partition('_')[2]}")
    last = shop.standing()["retraining"]
    assert (last["incident"], last["state"]) == (incident.id, "failed") and last[
        "reason"
    ]  # there is no code to train with
    now = home.plane.clock.now()
    run = Run("run_own", MODEL, "running", SYSTEM.name, {}, "", {}, {}, digest_of("p"), "", iso(now), {}, {}, iso(now))
    home.plane.training.start(SYSTEM, run, Allowed("x", ("x",)), home.operation())
    assert shop.standing()["retrain_from"] == iso(
        now.replace(microsecond=now.microsecond // 1000 * 1000) + timedelta(hours=1)
    )


def define(home: House, **asked: Any) -> None:
    """Apply a definition of the model; nothing can be built from it."""
    model = ModelDefinition(
        MODEL, "binary", "late", "flights", "at", (), (), (), (), "m:train", digest_of("code"), **asked
    )
    definition = ProjectDefinition("p", digest_of(repr(asked)), (), (), (), (model,))
    home.plane.definitions.apply(home.author, definition)
