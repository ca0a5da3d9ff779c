"""From a build that goes well to the ways in which one does not, through the API and real step processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lifecycle import project
from tests.lifecycle.house import House, house


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with a project and its data."""
    root = project.lay_out(tmp_path_factory.mktemp("house"))
    with house(root) as opened:
        api = opened.api()
        assert api.post("/api/v1/definition", json={"files": project.files()}).status_code == 200
        loaded = opened.finished(api.post("/api/v1/datasets/sales/loads", json={}).json()["flow"])
        assert loaded.state == "done", loaded.error
        yield opened


def test_a_function_that_fails_leaves_a_failed_run_with_its_reason(home: House) -> None:
    api = home.api("engineer")
    state = home.finished(api.post("/api/v1/models/broken/builds", json={}).json()["flow"])
    assert state.error is not None and state.error["code"] == "training_failed"
    assert "made.py, line" in state.error["hint"]
    (run,) = api.get("/api/v1/models/broken/runs").json()
    assert (run["state"], run["author"]) == ("failed", "engineer")
    assert "the matrix is singular today" in run["reason"] and run["finished_at"]
    entry = home.log(action="training.finish")[0].entry
    assert "singular" not in str(
        entry.detail
    )  # what an exception says may hold a row's values: the log keeps them for good
    assert entry.detail["code"] == "training_failed" and entry.detail["on_behalf_of"] == "engineer"
    assert api.get("/api/v1/models/broken/versions").json() == []
    assert not list(home.plane.layout.scratch.glob("bld_*"))


def test_a_build_goes_well_once_and_the_same_bytes_keep_their_decision(home: House) -> None:
    api = home.api("engineer")
    body = {"as_of": "2024-06-01T00:00:00Z"}
    state = home.finished(api.post("/api/v1/models/back/builds", json=body).json()["flow"])
    assert state.state == "done" and state.result is not None, state.error
    assert state.result["version"] == "back@1" and state.result["state"] == "awaiting approval"
    gates = {e["gate"]: e["verdict"] for e in state.events if e.get("type") == "gate"}
    assert set(gates.values()) == {"Successful"}
    version = home.plane.registry.version("back", 1)
    assert set(version.gates) == set(gates) == {"metric roc_auc", "parity max_abs_difference", "scan", "provenance"}
    steps = [e["step"] for e in state.events if e.get("type") == "step"]
    assert steps == ["train", "package", "evidence", "rehearse"]
    found = state.result["rehearsal"]
    assert (found["source"], found["requests"], found["failures"]) == ("holdout", 200, 0)  # nobody asked production yet
    lineage = api.get("/api/v1/lineage/back@1").json()
    kinds = {e["parent"].partition(":")[0] for e in lineage["edges"]}
    assert kinds >= {"run", "dataset", "view", "project", "file"}

    released = home.release(version)
    assert released.state == "done"
    evidence = home.plane.evidence.statements(version.digest)
    again = home.finished(api.post("/api/v1/models/back/builds", json=body).json()["flow"])
    assert again.state == "done" and again.result is not None
    assert (again.result["version"], again.result["state"], again.result["already"]) == ("back@1", "serving", True)
    assert home.plane.evidence.statements(version.digest) == evidence
    assert home.plane.registry.admit(version.digest, "production", home.risk).evidence == version.evidence


def test_a_purpose_that_the_data_does_not_allow(home: House) -> None:
    other = project.CODE.replace('purpose="shop"', 'purpose="marketing"')
    answer = home.api().post("/api/v1/definition/plan", json={"files": {**project.files(), "made.py": other}})
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_definition")
    assert "marketing" in answer.json()["error"]


def test_a_model_s_seed_and_history_reach_its_training(home: House) -> None:
    """3,000 sales, a minute between two, all known at noon; each is asked for an hour after it was made."""
    model = """

@fj.model(
    name="counted", task="binary", label="back", spine=sales, at="asked_at", features=features, purpose="shop", seed=7,
    history="30h", holdout=0.5, validation=0,
)
def counted(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    raise RuntimeError(f"seed {data.seed}, {len(data.numpy().label)} rows")
"""
    files = {**project.files(), "made.py": project.CODE + model}
    assert home.api().post("/api/v1/definition", json={"files": files}).status_code == 200
    api = home.api("engineer")
    body = {"as_of": "2024-01-03T12:00:00Z"}
    state = home.finished(api.post("/api/v1/models/counted/builds", json=body).json()["flow"])
    assert state.error is not None and state.error["code"] == "training_failed"
    (run,) = api.get("/api/v1/models/counted/runs").json()
    assert "seed 7, 630 rows" in run["reason"]  # sold from 5:00 on 2 January until 1:59: 1,260, half of them held out
