"""Whole tables, scored by route, flow and step process, beside what a real data plane answers to the same rows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from falaj.kernel.access import SYSTEM, Principal
from falaj.lifecycle.serving.plane.journal import read_record
from tests.lifecycle.house import MODEL, House
from tests.lifecycle.serving.office import COLUMNS, ROWS, Office, as_parquet, given
from tests.lifecycle.serving.plane.fleet import eventually
from tests.lifecycle.tables import ask, hand_over


@pytest.fixture(scope="module")
def office(home: House) -> Office:
    return Office(home)


@pytest.fixture(scope="module")
def answers(office: Office) -> Iterator[np.ndarray[Any, Any]]:
    """What the data plane answers: row by row, and all at once."""
    home = office.home
    token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
    headers = {"Authorization": f"Bearer {token}"}
    with home.data_plane() as plane, httpx.Client(base_url=plane.address, headers=headers) as http:
        home.plane.serving.settle(home.plane.serving.generation(), 10)

        def infer(first: int, last: int) -> list[float]:
            inputs = [
                {"name": n, "datatype": kind, "shape": [last - first], "data": values[first:last]}
                for n, (kind, values) in COLUMNS.items()
            ]
            answer = http.post(f"/v2/models/{MODEL}/infer", json={"inputs": inputs})
            assert answer.status_code == 200, answer.text
            return list(answer.json()["outputs"][0]["data"])

        one_by_one = [infer(n, n + 1)[0] for n in range(ROWS)]
        assert one_by_one == infer(0, ROWS)
        yield np.array(one_by_one, dtype=np.float32)


def test_equals_the_data_plane_bit_by_bit(office: Office, answers: Any) -> None:
    done = office.score(as_parquet(given()))
    frame = office.scores(done)
    assert (done["rows"], done["scored"], done["features"], done["version"]) == (ROWS, ROWS, "table", "flight-delay@1")
    assert frame["probability"].dtype == pl.Float32
    assert np.array_equal(frame["probability"].to_numpy().view(np.uint32), answers.view(np.uint32))
    assert frame["row"].to_list() == list(range(ROWS)) and frame["prediction"].n_unique() == ROWS
    assert set(frame["digest"]) == {office.version.digest}


def test_csv_and_json_lines_give_the_same_scores(office: Office, answers: Any) -> None:
    for kind, table in (("csv", given().write_csv().encode()), ("jsonl", given().write_ndjson().encode())):
        done = office.score(table, format=kind, to="csv")
        frame = pl.read_csv(office.fetch(done["files"]["scores"]), schema_overrides={"probability": pl.Float32})
        assert np.array_equal(frame["probability"].to_numpy().view(np.uint32), answers.view(np.uint32)), kind


def test_the_same_again_gives_the_same_bytes_and_is_written_down(office: Office) -> None:
    first, second = (office.score(as_parquet(given()), keep=["origin"]) for _ in range(2))
    assert first["scores"] == second["scores"] and first["run"] != second["run"]
    assert office.fetch(first["files"]["scores"]) == office.fetch(second["files"]["scores"])
    entry = office.home.log(action="serving.score")[0].entry
    assert (entry.outcome, entry.principal, entry.resource_id) == ("done", "engineer", "flight-delay@1")
    assert (entry.detail["table"], entry.detail["scores"]) == (first["table"], first["scores"])
    edges = office.home.api("engineer").get(f"/api/v1/lineage/scores:{second['run']}").json()["edges"]
    assert {e["parent"].partition(":")[0] for e in edges} >= {"version", "table"}


def test_rows_that_cannot_be_scored_are_told_apart(office: Office) -> None:
    frame = given().with_columns(
        distance=pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("distance"),
        hour=pl.when(pl.int_range(pl.len()) == 5).then(2.5).otherwise(pl.col("hour").cast(pl.Float64)),
        gusty=pl.when(pl.int_range(pl.len()) == 6).then(7).otherwise(1),
    )
    done = office.score(as_parquet(frame))
    assert "scored" in done, done
    assert (done["scored"], done["rejected"]) == (ROWS - 3, 3)
    assert [(r["row"], r["code"]) for r in office.rejects(done)] == [
        ("3", "null_refused"), ("5", "wrong_type"), ("6", "wrong_type"),
    ]  # fmt: skip
    assert done["reasons"] == {"null_refused": 1, "wrong_type": 2}
    ragged = given().write_csv().encode() + b"1,2,AA\n"
    assert office.score(ragged, format="csv")["reasons"] == {"wrong_fields": 1}
    broken = given().write_ndjson().encode() + b"[1]\n"
    assert office.score(broken, format="jsonl")["reasons"] == {"no_object": 1}


def test_recorded_answers_are_watched_and_labelled_once(office: Office, answers: Any) -> None:
    home, table = office.home, as_parquet(given(distance=[200.0 + n for n in range(ROWS)]))
    done, again = office.score(table, record=True), office.score(table, record=True)
    assert (done["recorded"], again["recorded"], again["segments"]) == (1, 0, done["segments"])
    ids = office.scores(done)["prediction"].to_list()
    assert ids == office.scores(again)["prediction"].to_list()
    home.plane.tail.catch_up(10)
    sent = home.plane.quality.push(home.author, MODEL, [(i, float(n % 2)) for n, i in enumerate(ids)])
    assert sent == {"accepted": ROWS, "unknown": 0}
    record = read_record(home.plane.layout.plane / "journal", ids[-1])
    assert record.digest == office.version.digest
    assert record.outputs["probability"][-1] == pytest.approx(float(office.scores(done)["probability"][-1]))
    eventually(
        lambda: done["segments"][0] in {s.segment for s in home.plane.journals.segments()}, "the segment is sealed"
    )


def test_ids_are_those_of_one_s_own_records_whoever_recorded_the_table_before(office: Office) -> None:
    home, table = office.home, as_parquet(given(distance=[300.0 + n for n in range(ROWS)]))
    home.person("somebody-with-a-longer-name", "ml-engineer")
    assert office.score(table, record=True)["recorded"] == 1
    theirs = office.score(table, "somebody-with-a-longer-name", record=True)
    frame = pl.read_parquet(io.BytesIO(office.fetch(theirs["files"]["scores"], "somebody-with-a-longer-name")))
    record = read_record(home.plane.layout.plane / "journal", frame["prediction"][-1])
    assert record.principal == "somebody-with-a-longer-name"
    assert record.outputs["probability"][-1] == pytest.approx(float(frame["probability"][-1]))


def test_who_may_and_what_is_refused(office: Office) -> None:
    home, table = office.home, as_parquet(given())
    home.person("looker", "viewer")
    assert ask(home, "looker", "POST", "/api/v1/tables", content=table).status_code == 403
    parcel = hand_over(home, "engineer", table)
    home.person("another", "ml-engineer")
    stolen = ask(home, "another", "GET", f"/api/v1/tables/{parcel}")
    assert (stolen.status_code, stolen.json()["code"]) == (404, "no_such_parcel")
    waiting = home.registered()
    assert office.score(table, number=home.now(waiting).number)["code"] == "not_admitted"
    assert office.score(table, number=99)["code"] == "no_such_version"
    assert office.score(table, model="nothing")["code"] in ("nothing_serves", "no_such_model")
    assert office.score(table, environment="moon")["code"] == "no_such_environment"
    assert office.score(b"no table")["code"] == "unreadable_table"
    assert office.score(as_parquet(given().drop("hour")))["code"] == "missing_column"
    assert office.score(as_parquet(given().drop("wind")))["code"] == "features_in_part"
    assert office.score(as_parquet(given().drop("wind", "gusty")))["code"] == "nothing_applied"
    nulls = given().with_columns(distance=pl.lit(None, pl.Float64))
    assert office.score(as_parquet(nulls))["code"] == "nothing_scored"
    assert home.log(action="serving.score")[0].entry.outcome == "refused"
