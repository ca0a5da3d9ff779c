"""Release with a real data plane: what it verifies takes the traffic, what it refuses takes none."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import update

from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.errors import Conflict, Denied, Invalid
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.store import versions
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import MODEL, House
from tests.lifecycle.serving.plane.fleet import flight


@pytest.fixture(scope="module")
def serving(home: House) -> Iterator[httpx.Client]:
    """The home's data plane, asked as a service."""
    token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
    with (
        home.data_plane() as plane,
        httpx.Client(base_url=plane.address, headers={"Authorization": f"Bearer {token}"}) as http,
    ):
        yield http


def answers(http: httpx.Client, model: str = MODEL) -> str:
    """Who answers: a version's number, or the status of a refusal."""
    answer = http.post(f"/v2/models/{model}/infer", json=flight())
    return str(answer.json()["model_version"]) if answer.status_code == 200 else str(answer.status_code)


def tamper(home: House, version: ModelVersion) -> None:
    """Change one bit of the encrypted graph on disk."""
    graph = next(f.sha256 for f in version.files if f.path == "model.onnx")
    path = blob_path(home.plane.blobs.root, graph)
    sealed = bytearray(path.read_bytes())
    sealed[-20] ^= 1
    path.chmod(0o600)
    path.write_bytes(sealed)


def test_the_channel_s_last_part_in_order(home: House, serving: httpx.Client) -> None:
    """One after another, because each stands on the one before: release, replace, refuse, withdraw."""
    assert answers(serving) == "404"
    first = home.registered()
    done = home.release(first)
    assert (done.state, done.result and done.result["loaded"]) == ("done", True)
    assert (home.now(first).state, answers(serving)) == ("serving", str(first.number))

    second = home.registered()
    assert home.release(second).state == "done"
    assert (home.now(first).state, home.now(second).state) == ("retired", "serving")
    assert answers(serving) == str(second.number)

    third = home.registered()
    tamper(home, third)
    failed = home.release(third)
    assert failed.state == "failed" and failed.error is not None and failed.error["kind"] == "integrity"
    refused = home.now(third)
    assert refused.state == "refused" and refused.reason == failed.error["error"]
    assert home.now(second).state == "serving"
    assert home.plane.rollout.plan(MODEL) == home.plane.rollout.plan(second.model)
    assert [r.digest for r in home.plane.rollout.plans()[0].routes] == [second.digest]
    home.plane.serving.settle(home.plane.serving.generation(), 10)
    assert answers(serving) == str(second.number)
    entry = home.log(action="serving.load", resource_id=third.alias, outcome="refused")[0].entry
    assert entry.detail["code"] == failed.error["code"] and entry.detail["hint"]

    with pytest.raises(Conflict, match="it does not await approval"):
        home.plane.decisions.approve(home.owner, home.now(third), "let me try")


def test_a_first_version_that_is_refused_leaves_the_model_without_traffic(home: House, serving: httpx.Client) -> None:
    version = home.registered(model="lonely")
    tamper(home, version)
    assert home.release(version).state == "failed"
    assert home.now(version).state == "refused"
    assert home.plane.rollout.plan("lonely") is None
    home.plane.serving.settle(home.plane.serving.generation(), 10)
    assert answers(serving, "lonely") == "404"


def test_without_a_data_plane_the_bundle_waits(tmp_path_factory: pytest.TempPathFactory, home: House) -> None:
    generation = home.plane.serving.generation()
    version = home.registered(model="waiting")
    state = home.release(version)
    assert state.state == "done" and state.result is not None
    assert state.result["generation"] == generation + 1


def test_the_author_may_not_and_engineers_may_not(home: House) -> None:
    version = home.registered()
    with pytest.raises(Denied) as refusal:
        home.plane.decisions.approve(home.author, version, "mine")
    assert refusal.value.code == "denied_by_policy"
    twin = home.person("twin", "ml-engineer", "risk-officer")
    home.sql(update(versions).where(versions.c.digest == version.digest).values(author="twin"))
    with pytest.raises(Denied) as refusal:
        home.plane.decisions.approve(twin, home.now(version), "mine")
    assert "four-eyes" in refusal.value.details["rules"]
    assert home.now(version).state == "awaiting approval"


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1001])
def test_a_decision_needs_a_reason(home: House, reason: str) -> None:
    version = home.registered()
    with pytest.raises(Invalid):
        home.plane.decisions.approve(home.risk, version, reason)
    assert home.now(version).state == "awaiting approval"


def test_two_approvals_when_two_are_needed(home: House) -> None:
    version = home.registered(approvals=2, model="two")
    first = home.plane.decisions.approve(home.risk, version, "one")
    assert (first["approvals"], first["needed"], first["flow"]) == (1, 2, "")
    with pytest.raises(Conflict) as refusal:
        home.plane.decisions.approve(home.risk, home.now(version), "again")
    assert refusal.value.code == "already_decided"
    assert home.now(version).state == "awaiting approval"
    second = home.plane.decisions.approve(home.owner, home.now(version), "two")
    assert home.finished(second["flow"]).state == "done"


def test_a_rejected_version_stays_rejected(home: House) -> None:
    version = home.registered()
    assert home.plane.decisions.reject(home.risk, version, "the slices look uneven")["state"] == "rejected"
    assert home.now(version).reason == "rejected by risk"
    for decide in (home.plane.decisions.approve, home.plane.decisions.reject):
        with pytest.raises(Conflict):
            decide(home.owner, home.now(version), "again")
    home.plane.registry.package(home.now(version), "engineer", home.operation())
    assert home.plane.registry.register(version.digest, "engineer", home.operation())["state"] == "rejected"


def test_a_crash_between_approval_and_release_is_made_good_by_approving_again(home: House) -> None:
    version = home.registered(model="crashed")
    home.plane.changes.decide(home.risk, home.plane.registry.subject(version), True, "and then the lights went out")
    answer = home.plane.decisions.approve(home.risk, home.now(version), "again")
    assert home.finished(answer["flow"]).state == "done"
    assert [d.principal for d in home.plane.decisions.decisions(version.digest)] == ["risk"]


def test_a_crash_before_the_release_started_too(home: House) -> None:
    version = home.registered(model="crashed-later")
    approval = home.plane.changes.decide(home.risk, home.plane.registry.subject(version), True, "yes")
    home.plane.registry.move(version.digest, "approved", "", "risk", f"{approval.id}:approved")
    answer = home.plane.decisions.approve(home.risk, home.now(version), "again")
    assert home.finished(answer["flow"]).state == "done"
    assert home.now(version).state == "serving"


def test_bytes_that_the_plane_refused_may_be_built_and_approved_again(home: House) -> None:
    version = home.registered(model="mended")
    home.plane.registry.move(version.digest, "refused", "the data plane refused it", "risk", home.operation())
    home.plane.registry.package(home.now(version), "engineer", home.operation())
    home.measured(version)
    again = home.plane.registry.register(version.digest, "engineer", home.operation())
    assert (again["version"], again["state"], again["already"]) == (version.alias, "registered", True)
    home.staged(version)
    assert home.release(version).state == "done"


def test_a_rollback_returns_to_the_version_that_served_before_and_not_to_the_newest(home: House) -> None:
    """A second version was given up for the first; a third must not fall back to it."""
    model = "back-and-forth"
    first, second, third = (home.registered(model=model) for _ in range(3))
    assert home.release(first).state == home.release(second).state == "done"

    def given_back() -> str:
        answer = home.plane.decisions.roll_back(home.risk, model, "it is late")
        assert home.finished(answer["flow"]).state == "done"
        return str(answer["digest"])

    assert given_back() == first.digest
    assert home.release(third).state == "done"
    assert given_back() == first.digest
    assert given_back() == third.digest
