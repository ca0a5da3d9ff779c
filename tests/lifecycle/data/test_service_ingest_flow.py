"""A load and a materialisation through the API: step process, commit, refusal, audit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lifecycle import project
from tests.lifecycle.house import Api, House, house


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose project is applied."""
    root = project.lay_out(tmp_path_factory.mktemp("house"))
    with house(root) as opened:
        assert opened.api().post("/api/v1/definition", json={"files": project.files()}).status_code == 200
        yield opened


def run(home: House, api: Api, path: str, body: Any = None) -> Any:
    started = api.post(path, json=body or {})
    assert started.status_code == 202, started.text
    return home.finished(started.json()["flow"])


def test_files_land_once_and_bad_ones_not_at_all(home: House) -> None:
    api = home.api("engineer")
    assert api.get("/api/v1/datasets/sales/log").json() == []
    state = run(home, api, "/api/v1/datasets/sales/loads")
    assert state.state == "done", state.error
    first = state.result
    assert (first["rows"], first["added"], first["quarantined"], first["skipped"]) == (3000, 3000, 0, 0)
    again = run(home, api, "/api/v1/datasets/sales/loads").result
    assert (again["files"], again["skipped"], again["version"]) == ([], 1, first["version"])
    assert [v["version"] for v in api.get("/api/v1/datasets/sales/log").json()] == [first["version"]]
    entries = home.log(action="data.ingest", outcome="done")
    assert len(entries) == 1 and entries[0].entry.detail["digest"] == first["digest"]

    (home.root / "data" / "sales-2.csv").write_text("sold_at,shop,price,visits,back\nyesterday,north,1,1,1\n")
    failed = run(home, api, "/api/v1/datasets/sales/loads")
    assert failed.state == "failed" and failed.error["hint"]
    (refused,) = home.log(action="data.ingest", outcome="refused")
    assert (refused.entry.principal, refused.entry.detail["code"]) == ("engineer", failed.error["code"])
    assert [v["version"] for v in api.get("/api/v1/datasets/sales/log").json()] == [first["version"]]
    assert not list(home.plane.layout.scratch.glob("ing_*"))
    (home.root / "data" / "sales-2.csv").unlink()

    project.write_sales(home.root / "data" / "sales-3.csv", rows=50, seed=2)
    more = run(home, api, "/api/v1/datasets/sales/loads").result
    assert (more["rows"], more["added"]) == (3050, 50)
    lineage = api.get(f"/api/v1/lineage/sales@{more['version']}").json()
    assert any("sales-3.csv" in e["parent"] for e in lineage["edges"])

    filled = run(home, api, "/api/v1/features/materializations").result
    assert [(v["view"], v["keys"]) for v in filled["views"]] == [("shop_price", 2)]
    value = api.get("/api/v1/features/shop_price/values/north").json()
    assert value["status"] == "present" and set(value["values"]) == {"last_price"}
    assert api.get("/api/v1/features/shop_price/values/west").status_code == 404
    assert len(api.get("/api/v1/features/shop_price/log").json()) == 1
    (done,) = home.log(action="features.materialize", outcome="done")
    assert done.entry.detail["keys"] == {"shop_price": 2}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/datasets/nothing/loads", 404),
        ("/api/v1/models/nothing/builds", 404),
    ],
)
def test_what_is_not_defined_is_not_started(home: House, path: str, status: int) -> None:
    assert home.api("engineer").post(path, json={}).status_code == status


def test_whoever_may_not_load_is_told_before_anything_is_read(home: House) -> None:
    for path in ("/api/v1/datasets/sales/loads", "/api/v1/features/materializations", "/api/v1/models/back/builds"):
        answer = home.api("risk").post(path, json={})
        assert (answer.status_code, answer.json()["code"]) == (403, "denied_by_policy"), path
    denied = home.log(principal="risk", outcome="denied")
    assert {f.entry.action for f in denied} == {"data.ingest", "features.materialize", "training.start"}


def test_a_moment_that_is_none_is_refused(home: House) -> None:
    api = home.api("engineer")
    for path in ("/api/v1/features/materializations", "/api/v1/models/back/builds"):
        assert api.post(path, json={"as_of": "noon"}).status_code == 422
        assert api.post(path, json={"as_of": "2024-01-01T00:00:00"}).status_code == 422
