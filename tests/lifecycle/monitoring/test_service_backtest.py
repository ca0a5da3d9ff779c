"""A backtest as somebody asks for it: route, flow, step process and audit log, on what a real data plane recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from falaj.kernel.access import SYSTEM, Principal
from falaj.lifecycle.registry.model import ModelVersion
from tests.lifecycle.house import MODEL, House
from tests.lifecycle.serving.plane.fleet import eventually, flight


class Traffic:
    """Two versions; the first answered, the second did not."""

    def __init__(self, home: House, http: httpx.Client) -> None:
        self.home = home
        self.http = http
        self.first: ModelVersion = home.registered()
        assert home.release(self.first).state == "done"
        self.second = home.registered()
        home.plane.serving.settle(home.plane.serving.generation(), 10)

    def ask(self, rows: int) -> str:
        answer = self.http.post(f"/v2/models/{MODEL}/infer", json=flight(rows))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["parameters"]["prediction_id"])

    def start(self, version: ModelVersion, who: str = "engineer", **body: Any) -> httpx.Response:
        path = f"/api/v1/models/{MODEL}/versions/{self.home.now(version).number}/backtests"
        return self.home.api(who).post(path, body)

    def result(self, version: ModelVersion, **body: Any) -> Any:
        """The end of a flow: its result, or its error."""
        answer = self.start(version, **body)
        assert answer.status_code == 202, answer.text
        state = self.home.finished(answer.json()["flow"])
        return state.result if state.state == "done" else state.error

    def entry(self) -> Any:
        return self.home.log(action="monitoring.backtest")[0].entry


@pytest.fixture(scope="module")
def traffic(home: House) -> Iterator[Traffic]:
    token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
    with (
        home.data_plane() as plane,
        httpx.Client(base_url=plane.address, headers={"Authorization": f"Bearer {token}"}) as http,
    ):
        yield Traffic(home, http)


def test_from_the_question_to_the_answer(traffic: Traffic) -> None:
    home = traffic.home
    one, two = home.now(traffic.first).alias, home.now(traffic.second).alias
    assert traffic.result(traffic.second)["code"] == "no_predictions"
    assert (traffic.entry().outcome, traffic.entry().detail["code"]) == ("refused", "no_predictions")

    shipped = traffic.ask(3)
    assert traffic.result(traffic.second)["code"] == "no_labels_yet"
    home.plane.journals.rotate(home.author)
    eventually(lambda: shipped[2:28] in {s.segment for s in home.plane.journals.segments()}, "it is shipped")
    later = traffic.ask(2)
    labels = [(f"{shipped}/0", 1.0), (f"{shipped}/1", 0.0), (f"{later}/0", 1.0)]

    def taken() -> bool:
        return bool(home.plane.quality.push(home.owner, MODEL, labels)["accepted"] == 3)

    eventually(taken, "the journal is read")
    found = traffic.result(traffic.second, by="day")
    assert (found["version"], found["digest"], found["by"]) == (two, traffic.second.digest, "day")
    total = found["total"]
    assert (total["rows"], total["labelled"], total["answered_by"]) == (5, 3, {one: 5})
    assert [f["metric"] for f in total["figures"]] == ["roc_auc", "log_loss", "brier"]
    assert total["figures"][2]["served"] != total["figures"][2]["version"]  # another bias
    assert found["reproduced"] == {"rows": 0, "largest_difference": None, "tolerance": 1e-6}

    told = traffic.entry()
    assert (told.outcome, told.principal, told.resource_id) == ("done", "engineer", two)
    assert (told.detail["rows"], told.detail["labelled"]) == (5, 3)
    assert traffic.result(traffic.first)["reproduced"]["rows"] == 5
    assert not list(home.plane.layout.scratch.glob("bkt_*")), "the version's files are gone again"


def test_who_may_ask_and_for_what(traffic: Traffic) -> None:
    traffic.home.person("passer-by", "viewer")
    assert traffic.start(traffic.first, "passer-by").status_code == 403
    assert traffic.entry().outcome == "denied"
    ends = [
        traffic.start(traffic.first, since="2024-04-02", until="2024-04-02"),
        traffic.start(traffic.first, since="yesterday"),
        traffic.start(traffic.first, since="2024-04-02T00:00:00"),
        traffic.start(traffic.first, by="year"),
    ]
    assert [(e.status_code, e.json()["code"]) for e in ends] == [
        (422, "empty_range"), (422, "bad_moment"), (422, "bad_moment"), (422, "bad_period"),
    ]  # fmt: skip
    api = traffic.home.api("engineer")
    missing = api.post(f"/api/v1/models/{MODEL}/versions/99/backtests", {})
    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_version")
    assert api.post(f"/api/v1/models/{MODEL}/versions/0/backtests", {}).status_code == 422
    assert traffic.result(traffic.first, since="2999-01-01")["code"] == "no_predictions"
