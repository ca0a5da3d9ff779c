"""A person starts a version's way into traffic. No data plane runs here: a rollout goes on when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from falaj.kernel.access import Principal
from falaj.kernel.digests import digest_of
from falaj.kernel.errors import Conflict, Denied, FalajError, Invalid
from falaj.lifecycle.loop.model import ROLLOUT_FLOW, ModelDefinition, ProjectDefinition
from falaj.lifecycle.loop.starting import Order
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.rollout.model import all_to
from falaj.lifecycle.rollout.strategy import Rollout, Strategy
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import House, house
from tests.lifecycle.serving.plane.fleet import eventually

OWN = Strategy(shadow=7, steps=(20, 60), requests=40)
MODELS = ("held", "lost", "back", "taken", "free", "again", "broken", "taken-over", "raced", "asked", "fresh")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose models roll out by steps."""
    with house(tmp_path_factory.mktemp("house")) as opened:
        models = tuple(
            ModelDefinition(m, "binary", "late", "f", "at", (), (), (), (), "m:t", digest_of("c"), strategy=OWN)
            for m in MODELS
        )
        definition = ProjectDefinition("p", digest_of("p"), (), (), (), models)
        opened.plane.definitions.apply(opened.author, definition)
        yield opened


def serving(home: House, model: str) -> ModelVersion:
    """A version that takes all traffic of a model."""
    version = home.registered(model=model)
    assert home.release(version).state == "done"
    return home.now(version)


def held(home: House, model: str) -> ModelVersion:
    """A version that was approved and waits."""
    version = home.registered(model=model)
    answer = home.plane.decisions.approve(home.risk, version, "not before the weekend", hold=True)
    assert (answer["flow"], answer["rollout"], answer["approvals"]) == ("", False, 1)
    return home.now(version)


def start(home: House, version: ModelVersion, by: Principal | None = None, **order: Any) -> dict[str, Any]:
    return home.plane.starts.start(by or home.risk, home.now(version), Order(**order))


def refused(home: House, kind: type[FalajError], version: ModelVersion, **order: Any) -> FalajError:
    """How a start is refused; it says what to do next."""
    with pytest.raises(kind) as refusal:
        start(home, version, **order)
    assert refusal.value.hint
    return refusal.value


def promoted(home: House, flow: str) -> None:
    rollout = home.plane.rollout.rollout(flow)
    home.plane.rollout.order(home.risk, rollout.model, "promote")
    assert home.finished(flow).state == "done"


def aborted(home: House, flow: str) -> None:
    rollout = home.plane.rollout.rollout(flow)
    home.plane.rollout.order(home.risk, rollout.model, "abort")
    assert home.finished(flow).state == "failed"


def test_a_held_version_waits_until_somebody_starts_it(home: House) -> None:
    first = serving(home, "held")
    version = held(home, "held")
    assert (version.state, home.plane.rollout.running("held")) == ("approved", None)
    assert home.plane.rollout.plan("held") == all_to("held", first.digest)

    answer = start(home, version, reason="it is Monday")
    assert (answer["version"], answer["rollout"], answer["already"]) == (version.alias, True, False)
    running = home.plane.rollout.running("held")
    assert running is not None and (running.id, running.strategy) == (answer["flow"], OWN)
    assert (running.challenger, running.stable, running.stage) == (version.digest, first.digest, "shadow")
    entry = home.log(action="rollout.start", resource_id="held")[0].entry
    assert (entry.principal, entry.detail["reason"]) == ("risk", "it is Monday")

    again = start(home, version, steps=(1, 2), reason="twice")
    assert (again["flow"], again["already"], again["strategy"]["steps"]) == (answer["flow"], True, OWN.steps)
    assert len(home.plane.rollout.rollouts("held")) == 1
    assert refused(home, Conflict, first).code == "rollout_running"
    promoted(home, answer["flow"])
    assert (home.now(first).state, home.now(version).state) == ("retired", "serving")
    assert refused(home, Conflict, version).code == "serves_already"


def test_a_rollout_whose_start_was_lost_is_started(home: House) -> None:
    """The power went after the rollout was written down, before its flow began."""
    first, version = serving(home, "lost"), held(home, "lost")
    now = home.now(version).created_at
    lost = Rollout("rol_lost", "lost", version.digest, first.digest, OWN, "shadow", 0, 0, "risk", "", now, now)
    home.plane.rollout.start(home.risk, lost, "lost:start")
    answer = start(home, version)
    assert (answer["flow"], answer["already"]) == ("rol_lost", True)
    aborted(home, "rol_lost")


def test_a_retired_version_gets_the_traffic_back_by_steps(home: House) -> None:
    first = serving(home, "back")
    second = held(home, "back")
    promoted(home, start(home, second)["flow"])
    answer = start(home, first, steps=(30,), shadow=0, requests=5, reason="the old one knew the fair")
    running = home.plane.rollout.running("back")
    assert running is not None and running.strategy == Strategy(0, (30,), 5, OWN.limits)
    eventually(lambda: len(home.plane.rollout.present("back").routes) == 2, "its plan")
    promoted(home, answer["flow"])
    assert (home.now(first).state, home.now(second).state) == ("serving", "retired")


def test_at_once_and_as_often_as_one_likes(home: House) -> None:
    first, second = serving(home, "free"), held(home, "free")
    answer = start(home, second, at_once=True, reason="nobody sleeps")
    assert (answer["rollout"], answer["strategy"]) == (False, None)
    assert home.finished(answer["flow"]).state == "done"
    assert (home.now(first).state, home.now(second).state) == ("retired", "serving")
    entry = home.log(action="rollout.start", resource_id="free")[0].entry
    assert (entry.outcome, entry.detail["flow"], entry.detail["reason"]) == ("done", answer["flow"], "nobody sleeps")
    generation = home.plane.serving.generation()
    assert home.finished(start(home, second, at_once=True)["flow"]).state == "done"
    assert home.plane.serving.generation() == generation + 1


def test_where_nothing_serves_it_is_at_once(home: House) -> None:
    version = held(home, "fresh")
    assert refused(home, Conflict, version, steps=(10,)).code == "nothing_serves"
    answer = start(home, version)
    assert not answer["rollout"] and home.finished(answer["flow"]).state == "done"


def test_what_may_not_be_started(home: House) -> None:
    serving(home, "taken")
    unapproved = home.registered(model="taken")
    assert refused(home, Denied, unapproved).code == "not_approved"
    entry = home.log(action="rollout.start", resource_id="taken", outcome="refused")[0].entry
    assert (entry.principal, entry.detail["code"], entry.detail["challenger"]) == (
        "risk", "not_approved", unapproved.digest,
    )  # fmt: skip
    version = held(home, "taken")
    with pytest.raises(Denied) as refusal:
        start(home, version, by=home.author)
    assert refusal.value.code == "denied_by_policy"
    home.plane.decisions.reject(home.risk, unapproved, "uneven")
    assert refused(home, Conflict, unapproved).code == "wrong_state"
    for order in ({"at_once": True, "requests": 3}, {"steps": (50, 10)}, {"requests": 0}, {"shadow": -1}):
        refused(home, Invalid, version, **order)
    assert home.plane.rollout.running("taken") is None and home.now(version).state == "approved"


def test_what_was_rolled_back_is_tried_again_only_in_so_many_words(home: House) -> None:
    serving(home, "again")
    version = held(home, "again")
    first = start(home, version)["flow"]
    aborted(home, first)
    assert home.now(version).state == "rolled back"
    refusal = refused(home, Conflict, version)
    assert refusal.code == "was_rolled_back" and "--again" in refusal.hint
    generation = home.plane.serving.generation()
    answer = start(home, version, again=True, reason="the disk was full")
    eventually(lambda: home.plane.rollout.rollout(answer["flow"]).generation > 0, "it begins")
    plan = home.plane.rollout.present("again")
    assert plan.guard is not None and plan.guard.forgives == generation
    assert plan.guard.max_score_shift is None and plan.guard.max_error_share == OWN.limits.errors
    moved = home.log(action="registry.move", resource_id=version.alias)[0].entry.detail
    assert (moved["from"], moved["to"]) == ("rolled back", "approved") and "the disk was full" in moved["reason"]
    promoted(home, answer["flow"])
    assert home.now(version).state == "serving"


def test_a_rollout_that_breaks_off_gives_the_traffic_back(home: House) -> None:
    first, second = serving(home, "broken"), held(home, "broken")
    graph = blob_path(home.plane.blobs.root, next(f.sha256 for f in second.files if f.path == "model.onnx"))
    sealed = graph.read_bytes()
    graph.unlink()  # the plan is set, and then its bundle cannot be made
    flow = start(home, second)["flow"]
    assert home.finished(flow).state == "failed"
    ended = home.plane.rollout.rollout(flow)
    assert (ended.stage, home.now(second).state) == ("aborted", "approved")
    assert home.plane.rollout.plan("broken") == all_to("broken", first.digest)
    graph.write_bytes(sealed)
    flow = start(home, second)["flow"]
    eventually(lambda: home.plane.rollout.rollout(flow).generation > 0, "it begins")
    aborted(home, flow)


def test_what_another_version_has_taken_is_left_alone(home: House) -> None:
    """Its own plan was taken over while it waited: nothing is done to whoever took it."""
    first, second = serving(home, "taken-over"), held(home, "taken-over")
    flow = start(home, second, shadow=0)["flow"]
    eventually(lambda: home.plane.rollout.rollout(flow).generation > 0, "it begins")
    other = held(home, "taken-over")
    plan = all_to("taken-over", other.digest)
    home.plane.registry.admit(other.digest, "production", home.owner)
    home.plane.rollout.set_plan(plan, "risk", home.operation())
    home.plane.rollout.order(home.risk, "taken-over", "promote")
    failed = home.finished(flow)
    assert failed.error is not None and failed.error["code"] == "plan_changed"
    assert home.plane.rollout.plan("taken-over") == plan and home.now(second).state == "approved"
    home.plane.rollout.set_plan(all_to("taken-over", first.digest), "risk", home.operation())


def test_while_one_is_on_its_way_no_other_is_released_beside_it(home: House) -> None:
    serving(home, "raced")
    one, two = held(home, "raced"), home.registered(model="raced")
    flow = start(home, one)["flow"]
    with pytest.raises(Conflict) as refusal:
        home.plane.decisions.approve(home.risk, two, "me too")
    assert refusal.value.code == "rollout_running" and "falaj rollout start" in refusal.value.hint
    assert home.now(two).state == "approved"  # it was approved, and can be started later
    assert refused(home, Conflict, two, at_once=True).code == "rollout_running"
    aborted(home, flow)
    later = start(home, two)["flow"]
    aborted(home, later)


def test_over_http(home: House) -> None:
    serving(home, "asked")
    version = home.registered(model="asked")
    path = f"/api/v1/models/asked/versions/{version.number}"
    api = home.api("risk")
    approved = api.post(f"{path}/approvals", {"reason": "read", "hold": True}).json()
    assert (approved["approvals"], approved["flow"]) == (1, "")
    assert home.api("engineer").post(f"{path}/rollouts", {}).status_code == 403
    assert api.post(f"{path}/rollouts", {"canary": [50, 10]}).status_code == 422
    assert api.post("/api/v1/models/asked/versions/99/rollouts", {}).status_code == 404
    body = {"reason": "now", "canary": [5], "shadow": 3, "requests": 9}
    answer = api.post(f"{path}/rollouts", body).json()
    assert (answer["strategy"]["steps"], answer["strategy"]["shadow"], answer["strategy"]["requests"]) == ([5], 3, 9)
    assert api.post(f"{path}/rollouts", {}).json()["already"] is True
    assert home.plane.workflows.state(answer["flow"]).name == ROLLOUT_FLOW
    aborted(home, answer["flow"])
