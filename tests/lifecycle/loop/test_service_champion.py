"""Two builds of one model: the second is measured beside the version that the first one put into traffic, and loses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from falaj.lifecycle.evidence.model import Finding, Verdict
from falaj.lifecycle.training.model import read_profile
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.workflow.flow import FlowState
from tests.lifecycle import project
from tests.lifecycle.house import House, house

METRIC = 'fj.gate.metric("roc_auc", at_least=0.6)'
FILES = {
    **project.files(),
    "made.py": project.CODE.replace(METRIC, f'{METRIC}, fj.gate.not_worse_than_champion("log_loss", margin=0.02)'),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = project.lay_out(tmp_path_factory.mktemp("house"))
    with house(root) as opened:
        api = opened.api()
        assert api.post("/api/v1/definition", json={"files": FILES}).status_code == 200
        assert opened.finished(api.post("/api/v1/datasets/sales/loads", json={}).json()["flow"]).state == "done"
        yield opened


def built(home: House, **body: Any) -> FlowState:
    flow = home.api("engineer").post("/api/v1/models/back/builds", json={"as_of": "2024-06-01T00:00:00Z", **body})
    return home.finished(flow.json()["flow"])


def champion_of(home: House, digest: str) -> Finding:
    """The finding of the champion gate, from its verified statement."""
    found = {f.gate.kind: f for _, f in home.plane.evidence.findings(digest) if f is not None}
    return found["champion"]


def test_a_build_faces_the_version_that_serves(home: House) -> None:
    first = built(home)
    assert first.result is not None, first.error
    one = home.plane.registry.version("back", 1)
    assert [f.path for f in one.files] == ["model.onnx", "profile.json", "signature.json"]
    graph, profile, contract = (home.plane.blobs.get(f.sha256) for f in one.files)
    assert profile == home.plane.registry.profile(one)
    folder = home.root / "read"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(graph)
    (folder / "signature.json").write_bytes(contract)
    assert read_profile(profile, LoadedModel.read(folder).contract).rows == 2040  # 68 % of 3,000
    alone = champion_of(home, one.digest)
    assert (alone.reason, alone.measurement.value) == ("there is no champion yet", None)
    assert home.release(one).state == "done"

    worse = built(home, params={"C": 1e-5})
    assert worse.error is not None and worse.error["code"] == "gate_failed", worse
    assert "champion log_loss: Failed" in worse.error["error"]
    two = home.plane.registry.by_digest(worse.error["details"]["digest"])
    beside = champion_of(home, two.digest)
    detail = beside.measurement.detail
    assert (detail["candidate"], detail["champion"], detail["champion_alias"]) == (two.digest, one.digest, "back@1")
    assert beside.verdict is Verdict.FAILED and "misses >= -0.02 against back@1" in beside.reason
    assert detail["period"] == ["2024-01-02T17:00:00.000Z", "2024-01-03T02:59:00.000Z"]  # asked an hour after the sale
    assert detail["rows"] == 600
    assert detail["candidate_value"] > detail["champion_value"] + 0.02
    assert (two.state, home.now(one).state) == ("refused", "serving")
