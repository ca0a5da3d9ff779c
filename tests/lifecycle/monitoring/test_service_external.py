"""A model that somebody else serves: its access records are pushed, and watched."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from falaj.lifecycle.data.steps.tables import PIECE
from falaj.lifecycle.monitoring.model import Pushed
from falaj.lifecycle.serving.plane.journal import read_record
from tests.lifecycle.house import House
from tests.lifecycle.monitoring.visits import (
    Endpoint,
    days,
    declare,
    incidents,
    push,
    windows,
)
from tests.lifecycle.serving.plane.fleet import eventually
from tests.lifecycle.tables import ask


def test_a_drift_planted_in_the_second_half_is_found(home: House, endpoint: Endpoint) -> None:
    found = declare(home, endpoint)
    assert (found["number"], found["governed"], found["reference"]["rows"]) == (1, False, 800)
    assert declare(home, endpoint)["digest"] == found["digest"], "the same reference again changes nothing"
    chance = random.Random(2)
    asked = [*days(chance, 0, 5, 60), *days(chance, 5, 10, 60, older=25.0)]
    asked[3][1]["age"] = None
    records = endpoint.ask(asked, "live")
    assert push(home, "visits", records) == {"accepted": 600, "duplicates": 0, "refused": []}
    eventually(lambda: ("drift", "open") in incidents(home, "visits"), "the drift is seen")
    first, second = windows(home, "visits")
    assert (first["rows"], first["errors"], first["claims"]) == (299, 1, "2026-01")
    assert (first["verdict"], second["verdict"]) == ("Successful", "Failed"), (first["reason"], second["reason"])
    assert "age" in second["drifted"] and first["p99_ms"] > 0
    (incident,) = [i for i in home.plane.incidents.all() if i.model == "visits" and i.kind == "drift"]
    assert incident.reason.startswith("2026-01-07 to 2026-01-12")
    assert not home.plane.training.runs("visits"), "nothing is trained for a model of somebody else"


def test_control_without_a_planted_drift_nothing_is_found(home: House, endpoint: Endpoint) -> None:
    declare(home, endpoint, "calm")
    records = endpoint.ask(days(random.Random(2), 0, 10, 60), "calm")
    assert push(home, "calm", records)["accepted"] == 600
    eventually(lambda: [w["rows"] for w in windows(home, "calm")] == [300, 300], "all is read")
    home.plane.tail.catch_up(10)
    assert {w["verdict"] for w in windows(home, "calm")} == {"Successful"}
    assert incidents(home, "calm") == []


def test_labels_join_by_the_endpoint_s_own_ids(home: House, endpoint: Endpoint) -> None:
    assert declare(home, endpoint, "labelled", at="at")["reference"]["rows"] == 800
    records = endpoint.ask(days(random.Random(4), 0, 5, 50), "mine")
    push(home, "labelled", records)
    eventually(lambda: [w["rows"] for w in windows(home, "labelled")] == [250], "all is read")
    chance = random.Random(5)
    rows = [{"prediction": r["id"], "value": float(chance.random() < r["outputs"]["probability"])} for r in records]
    sent = home.api("engineer").post(
        "/api/v1/models/labelled/labels", {"labels": [*rows, {"prediction": "nobody", "value": 1}]}
    )
    assert sent.json() == {"accepted": 250, "unknown": 1}
    (window,) = windows(home, "labelled")
    assert window["labels"] == 250 and window["metric"] == "roc_auc" and 0.6 < window["quality"] < 1


def test_what_comes_again_counts_once(home: House, endpoint: Endpoint) -> None:
    declare(home, endpoint, "again")
    records = endpoint.ask(days(random.Random(6), 0, 1, 30), "once")
    assert push(home, "again", [*records, records[0]])["duplicates"] == 1
    assert push(home, "again", records) == {"accepted": 0, "duplicates": 30, "refused": []}
    # A sender that never got its answer: the journal has the record twice, and it still counts once.
    declared = home.plane.external
    twice = declared._append([declared._record(home.author, declared.model("again"), Pushed(**records[0]))])
    home.plane.tail.catch_up(10)
    assert [w["rows"] for w in windows(home, "again")] == [30]
    store, second = home.plane.quality._p.store, (twice[0].id, 0)
    assert home.plane.metrics.read(lambda tx: store.known(tx, "again", [second])) == set()


def test_records_that_cannot_be_used_are_told_and_the_others_taken(home: House, endpoint: Endpoint) -> None:
    declare(home, endpoint, "picky")
    fine = {
        "id": "a",
        "at": "2026-01-06T00:00:00Z",
        "inputs": {"age": 30, "secret": "x"},
        "outputs": {"probability": 0.4},
    }
    sent = push(home, "picky", [
        fine,
        {**fine, "id": "b", "inputs": {"age": "thirty"}},
        {**fine, "id": "c", "at": "2026-01-06T00:00:00"},
        {**fine, "id": "d", "at": "2999-01-06T00:00:00Z"},
        {**fine, "id": "e", "outputs": {}},
        {**fine, "id": "f", "latency_ms": -1},
        {**fine, "id": ""},
    ])  # fmt: skip
    assert sent["accepted"] == 1
    assert [r["code"] for r in sent["refused"]] == [
        "wrong_type", "bad_moment", "from_the_future", "no_answer", "wrong_type", "bad_prediction_id",
    ]  # fmt: skip
    eventually(lambda: [w["rows"] for w in windows(home, "picky")] == [1], "it is read")
    (window,) = windows(home, "picky")
    assert (window["claims"], window["p50_ms"]) == ("", None), "nobody said how long it took"
    known, _ = home.plane.external.translate("picky", [("a", 1.0)])
    kept = read_record(home.plane.layout.plane / "journal", known[0][0])
    assert kept.inputs == {"age": [30], "country": [None], "member": [None]}


def test_who_may_and_what_is_refused(home: House, endpoint: Endpoint) -> None:
    declare(home, endpoint, "asked")
    home.person("looker", "viewer")
    assert push(home, "asked", [], "looker")["code"] == "denied_by_policy"
    assert push(home, "nobody", [])["code"] == "no_such_external_model"
    assert home.api("looker").get("/api/v1/external/asked").json()["governed"] is False
    version = home.packaged()
    assert declare(home, endpoint, version.model)["code"] == "name_taken"
    assert declare(home, endpoint, "odd", task="guessing")["code"] == "wrong_external_model"
    assert declare(home, endpoint, "odd", table=b'{"age": 1}')["code"] == "missing_column"
    broken = b'{"age": "old", "country": "AE", "member": true, "probability": 0.5, "at": "2026-01-01T00:00:00Z"}'
    assert declare(home, endpoint, "odd", table=broken)["code"] == "bad_reference_table"
    assert [e.entry.outcome for e in home.log(action="monitoring.declare_external")][:2] == ["refused", "refused"]


def test_a_value_that_is_none_is_told_with_its_row_however_long_the_table(home: House, endpoint: Endpoint) -> None:
    fine = b'{"age": 30, "country": "AE", "member": true, "probability": 0.5}\n'
    table = fine * (PIECE + 7) + fine.replace(b"30", b'"old"')
    refused = declare(home, endpoint, "long", table=table)
    assert refused["code"] == "bad_reference_table" and f"row {PIECE + 7} " in refused["error"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": {"age": 10**30}},
        {"inputs": {"age": -(2**63) - 1}},
        {"outputs": {"probability": 10**400}},
        {"latency_ms": 1e300},
        {"inputs": {"country": "\ud800"}},
    ],
)
def test_what_no_record_can_hold_is_told_and_the_others_taken(
    home: House, endpoint: Endpoint, wrong: dict[str, Any]
) -> None:
    name = "huge"
    if name not in home.plane.external.names():
        declare(home, endpoint, name)
    number = len(home.plane.external._known(name, [f"{n}" for n in range(20)]))
    fine = {"id": f"{number}", "at": "2026-01-06T00:00:00Z", "inputs": {"age": 30}, "outputs": {"probability": 0.4}}
    body = json.dumps({"predictions": [fine, {**fine, "id": "odd", **wrong}]})  # as the endpoint sends it: in ASCII
    as_json = {"content-type": "application/json"}
    sent = ask(home, "engineer", "POST", f"/api/v1/external/{name}/predictions", content=body, headers=as_json).json()
    assert sent["accepted"] == 1, sent
    assert [r["code"] for r in sent["refused"]] == ["wrong_type"]
