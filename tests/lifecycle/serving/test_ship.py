"""Journal segments on their way to the lake and into the audit log, with a real data plane and real step processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import polars as pl
import pytest
from sqlalchemy import delete

from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Denied
from falaj.lifecycle.serving import seals
from falaj.lifecycle.serving.journals import Shipper
from falaj.lifecycle.serving.model import ShipTask
from falaj.lifecycle.serving.plane.journal import Journal, Prediction, iter_records
from falaj.lifecycle.serving.steps.ship import ship
from falaj.lifecycle.serving.store import segments as segments_table
from falaj.storage.lake import delta
from falaj.workflow.flow import FlowState
from tests.lifecycle.house import MODEL, House
from tests.lifecycle.serving.plane.fleet import Silent, eventually, flight


@pytest.fixture(scope="module")
def served(home: House) -> Iterator[httpx.Client]:
    """A data plane with one version, asked as a service."""
    home.plane.shipper.stop()  # the tests look themselves
    assert home.release(home.registered()).state == "done"
    token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
    with (
        home.data_plane() as plane,
        httpx.Client(base_url=plane.address, headers={"Authorization": f"Bearer {token}"}) as http,
    ):
        home.plane.serving.settle(home.plane.serving.generation(), 10)
        yield http


def journal_of(home: House) -> Path:
    return home.plane.layout.plane / "journal"


def shipped(home: House) -> FlowState:
    """Look once, and wait for the end of what it started."""
    flow = home.plane.shipper.look()
    assert flow
    state = home.finished(flow)
    home.plane.shipper.look()
    return state


def test_what_was_predicted_is_shipped_once_and_is_one_leaf(home: House, served: httpx.Client) -> None:
    ids = [
        served.post(f"/v2/models/{MODEL}/infer", json=flight(rows)).json()["parameters"]["prediction_id"]
        for rows in (1, 3)
    ]
    assert home.plane.journals.pending() == [], "the data plane is still writing to it"
    assert home.plane.shipper.look() == ""
    home.plane.journals.rotate(home.author)
    eventually(lambda: len(home.plane.journals.pending()) == 1, "the data plane ends its segment")
    (name,) = home.plane.journals.pending()

    state = shipped(home)
    assert state.state == "done" and state.result is not None, state
    (segment,) = home.plane.journals.segments()
    assert (segment.segment, segment.records, segment.rows) == (name, 2, 4)
    assert home.plane.journals.pending() == [] and home.plane.shipper.look() == ""

    (table,) = segment.tables
    rows = delta.scan(home.plane.layout.lake / "predictions" / MODEL, table.version).collect().sort("prediction", "row")
    assert list(zip(rows["prediction"], rows["row"], strict=True)) == sorted(
        [(ids[0], 0), *((ids[1], n) for n in range(3))]
    )
    record = next(r for r in iter_records(journal_of(home) / f"{name}.seg") if r.id == ids[1])
    row = rows.filter(pl.col("prediction") == ids[1]).to_dicts()[2]
    assert (row["principal"], row["role"], row["generation"], row["digest"]) == (
        "shop",
        "stable",
        record.generation,
        record.digest,
    )
    assert msgspec.json.decode(row["inputs"]) == {"distance": 500.0, "hour": 9, "carrier": "AA", "origin": "JFK"}
    assert msgspec.json.decode(row["features"]) == {"wind": 10.0, "gusty": 1.0}
    assert msgspec.json.decode(row["outputs"])["probability"] == pytest.approx(record.outputs["probability"][2])

    (entry,) = home.log(action="serving.seal_journal")
    assert entry.entry.outcome == "done" and entry.entry.resource_id == name
    assert entry.entry.detail["root"] == segment.root == seals.check(journal_of(home) / f"{name}.seg").root
    assert (entry.entry.detail["records"], entry.entry.detail["tables"]) == (2, {MODEL: table.version})


def test_a_segment_that_is_shipped_again_changes_nothing(home: House, served: httpx.Client) -> None:
    """As after a crash between the table and the database, or when the database came back from a backup."""
    (segment,) = home.plane.journals.segments()
    entries = len(home.log(action="serving.seal_journal"))
    home.sql(delete(segments_table))
    again = Shipper(home.plane.journals, home.plane.workflows, home.plane.incidents)
    home.plane.journals._shipped = None
    flow = again.look()
    assert flow == f"shp_{segment.segment}_2" and home.finished(flow).state == "done"
    table = home.plane.layout.lake / "predictions" / MODEL
    assert delta.head(table) == segment.tables[0].version and delta.rows(table, delta.head(table)) == segment.rows
    assert len(home.log(action="serving.seal_journal")) == entries
    home.sql(
        segments_table.insert().values(
            {**msgspec.structs.asdict(segment), "tables": msgspec.json.encode(segment.tables).decode()}
        )
    )


def test_a_damaged_segment_opens_an_incident_and_holds_up_nobody(home: House, served: httpx.Client) -> None:
    broken = written(journal_of(home), "broken", models=("m", "m"))
    data = bytearray(broken.read_bytes())
    data[140] ^= 1
    broken.write_bytes(data)
    whole = written(journal_of(home), "whole", at=2)
    first, second = shipped(home), shipped(home)
    by_name = {s.state: s for s in (first, second)}
    assert by_name.keys() == {"done", "failed"}
    assert by_name["failed"].error is not None and by_name["failed"].error["code"] == "journal_damaged"
    assert whole.stem in {s.segment for s in home.plane.journals.segments()}
    (incident,) = home.plane.incidents.open_of("*")
    assert incident.kind == "journal" and broken.stem in incident.reason
    assert home.log(action="serving.seal_journal", resource_id=broken.stem)[0].entry.outcome == "refused"
    assert home.plane.shipper.look() == "", "it is tried again after a pause"

    data[140] ^= 1
    broken.write_bytes(data)
    mended = Shipper(home.plane.journals, home.plane.workflows, home.plane.incidents)
    flow = mended.look()
    assert flow == f"shp_{broken.stem}_2" and home.finished(flow).state == "done"
    assert mended.look() == "" and home.plane.incidents.open_of("*") == []


def test_who_may_ask_for_new_segments(home: House, served: httpx.Client) -> None:
    with pytest.raises(Denied):
        home.plane.journals.rotate(home.person("guest", "viewer"))
    assert home.api("engineer").post("/api/v1/journal/rotations").status_code == 200
    assert home.api("guest").get("/api/v1/journal/segments").json()[0]["root"].startswith("sha256:")


def test_a_failed_record_and_two_models_in_one_segment(tmp_path: Path) -> None:
    path = written(tmp_path / "journal", "mixed", models=("a", "b", "a"), error="it failed")
    outcome = ship(ShipTask(str(path), str(tmp_path / "tables")), Silent())
    assert [(t.model, t.rows) for t in outcome.tables] == [("a", 2), ("b", 1)] and outcome.records == 3
    rows = delta.scan(tmp_path / "tables" / "b", 0).collect().to_dicts()
    assert (rows[0]["error"], rows[0]["outputs"], rows[0]["segment"]) == ("it failed", "{}", path.stem)
    shutil.rmtree(tmp_path / "tables" / "b")  # as if the step had died between the two
    again = ship(ShipTask(str(path), str(tmp_path / "tables")), Silent())
    assert again == outcome and delta.rows(tmp_path / "tables" / "a", 0) == 2


def written(folder: Path, text: str, at: int = 1, models: tuple[str, ...] = ("m",), error: str = "") -> Path:
    """A sealed segment with one record a model."""
    before = set(folder.glob("*.seg"))
    journal = Journal(folder, SystemClock())
    for model in models:
        journal.append(
            Prediction(
                id=journal.next_id, at=at, model=model, version=f"{model}@1", digest="sha256:" + "0" * 64, principal="p",
                generation=1, worker="9", rows=1, inputs={"name": [text]}, outputs={} if error else {"y": [0.25]}, error=error,
            )
        )  # fmt: skip
    journal.close()
    (path,) = set(folder.glob("*.seg")) - before
    return path
