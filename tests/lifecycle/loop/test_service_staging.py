"""Staging with real data planes: a version is loaded there and asked what production was asked, before people decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.environments import PRODUCTION, STAGING
from falaj.kernel.errors import Integrity
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.serving.plane.verify import Trust, open_bundle, read_trust
from falaj.lifecycle.serving.process import PlaneFolders, plane_folder, start_plane
from falaj.storage.blobs.local import blob_path
from falaj.workflow.flow import FlowState
from tests.lifecycle.house import MODEL, House
from tests.lifecycle.serving.plane.fleet import flight

ASKED = 7


@pytest.fixture(scope="module")
def asked(home: House) -> House:
    """A home whose production has answered a few requests, with its first version."""
    first = home.registered()
    assert home.release(first).state == "done"
    token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
    with home.data_plane() as plane, httpx.Client(headers={"Authorization": f"Bearer {token}"}) as http:
        url = f"{plane.address}/v2/models/{MODEL}/infer"
        for n in range(ASKED):
            assert http.post(url, json=flight(n + 1)).status_code == 200
        assert http.post(url, json=flight(origin=None)).status_code == 200
    return home


def registered(home: House, model: str = MODEL) -> ModelVersion:
    """A version that has its number, and nothing of staging."""
    version = home.packaged(model=model)
    home.measured(version)
    home.plane.registry.register(version.digest, home.author.name, home.operation())
    return home.now(version)


def promote(home: House, version: ModelVersion, who: str = "engineer", to: str = STAGING) -> httpx.Response:
    return home.api(who).post(f"/api/v1/models/{version.model}/versions/{version.number}/promotions", {"to": to})


def promoted(home: House, version: ModelVersion) -> FlowState:
    answer = promote(home, version)
    assert answer.status_code == 200, answer.json()
    return home.finished(answer.json()["flow"])


def staging_folder(home: House) -> Path:
    return plane_folder(home.plane.layout.home, STAGING)


def flipped(home: House, version: ModelVersion) -> None:
    """Change one bit of the encrypted graph, or change it back."""
    path = blob_path(home.plane.blobs.root, next(f.sha256 for f in version.files if f.path == "model.onnx"))
    sealed = bytearray(path.read_bytes())
    sealed[-20] ^= 1
    path.chmod(0o600)
    path.write_bytes(sealed)


def test_a_version_answers_what_production_was_asked(asked: House) -> None:
    version = registered(asked)
    refused = asked.api("risk").post(
        f"/api/v1/models/{MODEL}/versions/{version.number}/approvals", {"reason": "too early"}
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "not_awaiting")
    done = promoted(asked, version)
    assert done.state == "done" and done.result is not None, done.error
    assert (done.result["state"], done.result["environments"]) == ("awaiting approval", ["dev", "staging"])
    found = done.result["rehearsal"]
    assert (found["passed"], found["source"], found["requests"], found["failures"]) == (True, "journal", ASKED + 1, 0)
    assert found["statuses"]["present"] == sum(range(1, ASKED + 1)) and found["statuses"]["missing"] == 1
    assert 0 < found["p50_ms"] <= found["p99_ms"] and found["evidence"] == version.evidence
    told = [e for e in done.events if e["type"] in ("environment", "rehearsal")]
    assert [e["type"] for e in told] == ["environment", "environment", "rehearsal"] and told[-1]["seconds"] > 0
    assert asked.plane.staging.workers() == []  # it was started for the rehearsal only
    again = promote(asked, version)
    assert again.json() == {"flow": "", "environment": STAGING, "already": True}
    entries = [f.entry for f in asked.log(resource_id=version.alias, outcome="done")]
    assert {"registry.admit_approved", "registry.rehearse", "registry.promote"} <= {e.action for e in entries}
    assert asked.release(version).state == "done"


def test_a_version_that_staging_cannot_load_is_refused_and_comes_back_when_it_is_mended(asked: House) -> None:
    before = asked.plane.rollouts[STAGING].plan(MODEL)
    version = registered(asked)
    flipped(asked, version)
    failed = promoted(asked, version)
    assert failed.error is not None and failed.error["code"] == "rehearsal_failed", failed
    refused = asked.now(version)
    assert refused.state == "refused" and "staging's data plane refused it" in refused.reason
    assert asked.plane.rollouts[STAGING].plan(MODEL) is None and before is not None
    assert asked.plane.serving.workers() == asked.plane.staging.workers() == []
    flipped(asked, version)
    assert promoted(asked, version).state == "done" and asked.now(version).state == "awaiting approval"


def test_two_at_once_do_not_answer_for_each_other(asked: House) -> None:
    both = [registered(asked) for _ in range(2)]
    flows = [promote(asked, v).json()["flow"] for v in both]
    ended = [asked.finished(flow) for flow in flows]
    assert [e.state for e in ended] == ["done", "done"], ended
    for version, done in zip(both, ended, strict=True):
        assert done.result is not None and done.result["rehearsal"]["digest"] == version.digest
        assert done.result["rehearsal"]["failures"] == 0


def test_who_may_promote_and_where_to(asked: House) -> None:
    version = registered(asked)
    asked.person("vera", "viewer")
    assert promote(asked, version, "vera").json()["code"] == "denied_by_policy"
    denied = promote(asked, version, "owner", PRODUCTION)
    assert denied.status_code == 403 and denied.json()["details"]["rules"] == ["production-is-entered-by-approval"]
    assert promote(asked, version, to="dev").json()["code"] == "not_promoted_to"
    assert promote(asked, version, to="nowhere").json()["code"] == "no_such_environment"
    asked.plane.registry.move(version.digest, "rejected", "no", "risk", asked.operation())
    assert promote(asked, version).json()["code"] == "wrong_state"
    unasked = asked.api("risk").post(
        f"/api/v1/models/{MODEL}/versions/{version.number}/approvals", {"reason": "yes", "environment": STAGING}
    )
    assert unasked.json()["code"] == "no_approval_asked"


def test_a_data_plane_that_runs_is_used_and_has_a_policy_and_keys_of_its_own(asked: House) -> None:
    layout = asked.plane.layout
    staged = registered(asked)
    running = start_plane(PlaneFolders(staging_folder(asked), layout.blobs, layout.online, layout.home))
    try:
        assert promoted(asked, staged).state == "done"
        assert [w.pid for w in asked.plane.staging.workers()] and running.address
        answers = {who: answer(asked, running.address, who) for who in ("engineer", "risk")}
        assert answers == {"engineer": str(staged.number), "risk": "403"}
        shop = asked.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
        assert ask(running.address, shop).json()["details"]["rules"] == ["services-ask-production"]
        shown = {e["name"]: e for e in asked.api().get("/api/v1/environments").json()}
        assert shown["staging"]["plane"]["address"] == running.address
        assert [s["alias"] for s in shown["staging"]["serving"]] == [staged.alias]
        assert asked.api().get("/api/v1/status").json()["environments"]["staging"]["state"] == "running"
    finally:
        running.stop()


def ask(address: str, token: str) -> httpx.Response:
    return httpx.post(f"{address}/v2/models/{MODEL}/infer", json=flight(), headers={"Authorization": f"Bearer {token}"})


def answer(home: House, address: str, who: str) -> str:
    """Who answers someone: a version's number, or the status of a refusal."""
    token = home.plane.identity.grant(SYSTEM, home.plane.identity.principal(who), 1).token
    found = ask(address, token)
    return str(found.json()["model_version"]) if found.status_code == 200 else str(found.status_code)


def test_a_bundle_of_one_environment_means_nothing_in_another(asked: House) -> None:
    folders = {STAGING: staging_folder(asked), PRODUCTION: asked.plane.layout.plane}
    asked.plane.serving.publish("risk")
    asked.plane.staging.publish("risk")
    envelopes: dict[str, dict[str, Any]] = {
        name: msgspec.json.decode((folder / "bundle.json").read_bytes()) for name, folder in folders.items()
    }
    trust = {name: read_trust(folder / "trust.json") for name, folder in folders.items()}
    for own, other in ((STAGING, PRODUCTION), (PRODUCTION, STAGING)):
        assert open_bundle(envelopes[own], trust[own])[0].environment == own
        with pytest.raises(Integrity) as stranger:
            open_bundle(envelopes[own], trust[other])
        assert stranger.value.code == "bad_signature"
        with pytest.raises(Integrity) as elsewhere:  # the right key, the wrong name
            open_bundle(envelopes[own], Trust(other, trust[own].keys, trust[own].model))
        assert elsewhere.value.code == "wrong_environment"


def test_the_difference_between_two_environments_and_why(asked: House) -> None:
    version = registered(asked)
    assert promoted(asked, version).state == "done"
    api = asked.api()
    found = api.get("/api/v1/environments/staging/differences/production").json()
    (model,) = [m for m in found["models"] if m["model"] == MODEL]
    serving = next(v for v in asked.plane.registry.versions(MODEL) if v.state == "serving")
    assert (model["first"]["digest"], model["second"]["digest"]) == (version.digest, serving.digest)
    assert (
        model["why"] == f"{version.alias} is not admitted to production: 0 of 1 approvals"
        and "falaj approve" in model["hint"]
    )
    assert {d["what"] for d in found["differences"]} == {"key", "policy", "approvals", "rehearsal", "comes after"}
    assert api.get("/api/v1/environments/staging/differences/staging").json()["differences"] == []
    assert api.get("/api/v1/environments/staging/differences/measurement").status_code == 422
    assert api.get("/api/v1/environments/staging/differences/nowhere").status_code == 422
    rows = {r["alias"]: r for r in api.get(f"/api/v1/models/{MODEL}/versions").json()}
    assert rows[version.alias]["environments"] == ["dev", "staging"]
    assert rows[version.alias]["rehearsal"]["passed"] and rows[version.alias]["rehearsal"]["statement"]
    assert rows[serving.alias]["environments"] == ["dev", "staging", "production"]
