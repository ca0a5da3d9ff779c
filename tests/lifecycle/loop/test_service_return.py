"""A home that is moved to another day while its data plane runs, and a version that comes back after it was refused."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import parse_iso
from falaj.lifecycle.registry.model import ModelVersion
from falaj.storage.blobs.local import blob_path
from falaj.workflow.flow import FlowState
from tests.lifecycle import project
from tests.lifecycle.house import House, house

ROW = {"price": 70.0, "visits": 8, "shop": "north"}
DAY = "2024-06-01T00:00:00.000Z"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with a project and its data, on the machine's time."""
    root = project.lay_out(tmp_path_factory.mktemp("house"))
    with house(root) as opened:
        api = opened.api()
        assert api.post("/api/v1/definition", json={"files": project.files()}).status_code == 200
        assert opened.finished(api.post("/api/v1/datasets/sales/loads", json={}).json()["flow"]).state == "done"
        yield opened


@pytest.fixture(scope="module")
def serving(home: House) -> Iterator[httpx.Client]:
    """The home's data plane, started on the machine's time."""
    token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 366).token
    with (
        home.data_plane() as plane,
        httpx.Client(base_url=plane.address, headers={"Authorization": f"Bearer {token}"}) as http,
    ):
        yield http


def built(home: House) -> FlowState:
    answer = home.api("engineer").post("/api/v1/models/back/builds", json={"as_of": DAY})
    return home.finished(answer.json()["flow"])


def asked(http: httpx.Client) -> int:
    """How a request for a prediction ends."""
    told = http.get("/v2/models/back")
    inputs = [
        {"name": w["name"], "datatype": w["datatype"], "shape": [1], "data": [ROW[w["name"]]]}
        for w in told.json().get("inputs", [])
    ]
    return http.post("/v2/models/back/infer", json={"inputs": inputs}).status_code if inputs else told.status_code


def tamper(home: House, version: ModelVersion) -> None:
    """Change one bit of the encrypted graph on disk."""
    path = blob_path(home.plane.blobs.root, next(f.sha256 for f in version.files if f.path == "model.onnx"))
    sealed = bytearray(path.read_bytes())
    sealed[-20] ^= 1
    path.chmod(0o600)
    path.write_bytes(sealed)


def test_both_planes_follow_a_clock_that_is_set_later(home: House, serving: httpx.Client) -> None:
    assert serving.get("/v2/models/back").status_code == 404
    answer = home.api().post("/api/v1/clock", json={"shows": DAY})
    assert answer.status_code == 200 and home.plane.clock.now().date() == parse_iso(DAY).date()
    deadline = time.monotonic() + 10
    while not all(w.updated_at.startswith("2024-06-01") for w in home.plane.serving.workers()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_version_that_was_refused_at_load_is_trained_again_and_comes_back(home: House, serving: httpx.Client) -> None:
    """On the other day: an admission of that day is good for a data plane that was started on the machine's."""
    first = built(home)
    assert first.result is not None, first.error
    version = home.plane.registry.version("back", 1)
    tamper(home, version)
    failed = home.release(version)
    assert failed.state == "failed" and home.now(version).state == "refused"
    home.plane.serving.settle(home.plane.serving.generation(), 10)
    assert asked(serving) == 404

    again = built(home)
    assert again.state == "done" and again.result is not None, again.error
    assert (again.result["digest"], again.result["version"]) == (version.digest, "back@1")
    assert (again.result["state"], again.result["already"]) == ("awaiting approval", True)
    assert home.now(version).evidence != version.evidence
    released = home.release(version)
    assert released.state == "done" and released.result is not None and released.result["loaded"], released.error
    assert asked(serving) == 200
