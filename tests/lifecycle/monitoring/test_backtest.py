"""What another version would have answered: real graphs on real journal segments, some of them in a real lake."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from falaj.kernel.clock import SystemClock
from falaj.kernel.digests import manifest, manifest_digest, sha256
from falaj.kernel.errors import FalajError
from falaj.lifecycle.monitoring.model import (
    Answerer,
    BacktestAsk,
    BacktestOutcome,
    BacktestTask,
    Recorded,
)
from falaj.lifecycle.monitoring.steps.backtest import run
from falaj.lifecycle.serving.model import ShipTask
from falaj.lifecycle.serving.plane.journal import Journal, Prediction
from falaj.lifecycle.serving.steps.ship import ship
from falaj.lifecycle.training.model import Input, ModelContract, Output
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.lifecycle.training.steps.metrics import measure
from falaj.storage.lake import delta
from tests.lifecycle.serving.plane.fleet import Silent, flight_contract, flight_graph, overflow_contract, overflow_graph

MODEL = "flight-delay"
Columns = dict[str, list[Any]]


class Office:
    """Versions in folders, a journal, a lake and labels."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal, self.tables = root / "journal", root / "predictions"
        self.loaded: dict[str, LoadedModel] = {}  # by alias
        self.answerers: dict[str, Answerer] = {}
        self.labels: list[tuple[str, int, float]] = []
        self.shipped: list[str] = []
        self.version = -1

    def add(self, alias: str, graph: bytes, contract: ModelContract) -> None:
        folder = self.root / alias
        folder.mkdir()
        (folder / "model.onnx").write_bytes(graph)
        (folder / "signature.json").write_bytes(msgspec.json.encode(contract))
        self.loaded[alias] = LoadedModel.read(folder)
        views = {v.name: v.digest for v in contract.views}
        self.answerers[self.digest(alias)] = Answerer(
            alias, contract.task, contract.label, contract.classes, contract.score, views
        )

    def digest(self, alias: str) -> str:
        return manifest_digest(manifest(self.root / alias))

    def answers(self, alias: str, columns: Columns) -> dict[str, list[Any]]:
        model = self.loaded[alias]
        answers = model.run(model.encoder.encode(columns))
        return {name: values.tolist() for name, values in answers.items()}

    def write(self, *asked: tuple[str, str, Columns], **changed: Any) -> list[Prediction]:
        """A segment of requests: who answers on which day, and what was sent and looked up."""
        journal = Journal(self.journal, SystemClock())
        written = []
        for alias, day, columns in asked:
            views = {i.name for i in self.loaded[alias].contract.inputs if i.source == "view"}
            record = Prediction(
                id=journal.next_id,
                at=us(day),
                model=MODEL,
                version=alias,
                digest=self.digest(alias),
                principal="shop",
                generation=1,
                worker="1",
                rows=len(next(iter(columns.values()))),
                inputs={n: v for n, v in columns.items() if n not in views},
                features={n: v for n, v in columns.items() if n in views},
                outputs=self.answers(alias, columns),
            )
            record = msgspec.structs.replace(record, **changed)
            journal.append(record)
            written.append(record)
        journal.close()
        return written

    def ship(self, prediction: Prediction, *, named: bool = True) -> None:
        """Bring a prediction's segment into the lake; with or without a row in SQL that names it."""
        name = prediction.id[2:28]
        outcome = ship(ShipTask(str(self.journal / f"{name}.seg"), str(self.tables)), Silent())
        self.version = next(t.version for t in outcome.tables if t.model == MODEL)
        if named:
            self.shipped.append(name)

    def label(self, prediction: Prediction, *values: float) -> None:
        self.labels += [(prediction.id, row, value) for row, value in enumerate(values)]

    def task(self, alias: str, since: str = "", until: str = "", by: str = "month", **changed: Any) -> BacktestTask:
        path = self.root / "labels.csv"
        with path.open("w", newline="") as f:
            csv.writer(f).writerows(self.labels)
        start, end = (us(d) if d else None for d in (since, until))
        recorded = Recorded(
            MODEL,
            str(self.journal),
            str(self.tables / MODEL),
            self.version if self.shipped else -1,
            tuple(self.shipped),
        )
        ask = BacktestAsk(MODEL, alias, self.digest(alias), by, start, end)
        task = BacktestTask(ask, str(self.root / alias), recorded, str(path), self.answerers)
        return msgspec.structs.replace(task, **changed)

    def backtest(self, alias: str, *args: str, **changed: Any) -> BacktestOutcome:
        return run(self.task(alias, *args, **changed), Silent())


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """Two versions that put flights in another order: the second reads no wind."""
    made = Office(tmp_path)
    made.add(f"{MODEL}@1", flight_graph(), flight_contract())
    without = tuple(i for i in flight_contract().inputs if i.name != "wind")
    still = msgspec.structs.replace(flight_contract(), inputs=(*without, Input("wind_was", "float")))
    made.add(f"{MODEL}@2", flight_graph(-3.0), flight_contract())
    made.add(f"{MODEL}@3", flight_graph(), still)
    # The fourth reads distance and wind the other way round, so it puts flights in another order.
    swapped = [flight_contract().inputs[i] for i in (3, 1, 2, 0, 4)]
    made.add(f"{MODEL}@4", flight_graph(-1.0), msgspec.structs.replace(flight_contract(), inputs=tuple(swapped)))
    return made


def us(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1_000_000


def flights(seed: int, rows: int = 20) -> Columns:
    rng = np.random.default_rng(seed)
    return {
        "distance": rng.uniform(100, 3000, rows).tolist(),
        "hour": rng.integers(0, 24, rows).tolist(),
        "carrier": [str(c) for c in rng.choice(["AA", "B6", "XX"], rows)],
        "origin": ["JFK"] * rows,
        "wind": [None, *rng.uniform(0, 40, rows - 1).tolist()],
        "gusty": rng.integers(0, 2, rows).astype(float).tolist(),
    }


def late(seed: int, rows: int = 20) -> NDArray[np.int64]:
    found = np.random.default_rng(seed + 1000).integers(0, 2, rows)
    found[:2] = 0, 1
    return found


def refused(office: Office, alias: str, *args: str, **changed: Any) -> FalajError:
    with pytest.raises(FalajError) as caught:
        office.backtest(alias, *args, **changed)
    assert caught.value.message and caught.value.hint
    return caught.value


def test_by_month_beside_what_was_served(office: Office) -> None:
    one, four = f"{MODEL}@1", f"{MODEL}@4"
    first = office.write((one, "2024-04-03", flights(1)), (one, "2024-05-01", flights(2)))
    second = office.write((four, "2024-05-20", flights(3)))
    office.ship(first[0])
    for seed, record in enumerate([*first, *second], start=1):
        office.label(record, *late(seed).astype(float))

    outcome = office.backtest(four)
    april, may = outcome.periods
    assert [p.start for p in outcome.periods] == ["2024-04-01", "2024-05-01"]
    assert (april.rows, april.labelled, april.compared, april.answered_by) == (20, 20, 20, {one: 20})
    assert (may.rows, may.answered_by) == (40, {one: 20, four: 20})
    assert (outcome.total.rows, outcome.total.start) == (60, "")
    assert (outcome.first_at, outcome.last_at) == ("2024-04-03T00:00:00.000Z", "2024-05-20T00:00:00.000Z")

    def scores(alias: str, seed: int) -> NDArray[np.float64]:
        return np.array(office.answers(alias, flights(seed))["probability"])

    expected = [
        (april, [late(1)], [scores(one, 1)], [scores(four, 1)]),
        (may, [late(2), late(3)], [scores(one, 2), scores(four, 3)], [scores(four, 2), scores(four, 3)]),
    ]
    for period, labels, served, version in expected:
        assert [f.metric for f in period.figures] == ["roc_auc", "log_loss", "brier"]
        for f in period.figures:
            then, now = (
                measure(f.metric, "binary", np.concatenate(labels), np.concatenate(s)) for s in (served, version)
            )
            assert (f.served, f.version, f.difference) == pytest.approx((then, now, now - then)) and not f.problem
            assert f.better is ((now > then) if f.metric == "roc_auc" else (now < then))
    assert april.figures[0].served != april.figures[0].version


def test_where_it_answered_itself_the_recomputed_scores_are_the_recorded_ones(office: Office) -> None:
    one = f"{MODEL}@1"
    (record,) = office.write((one, "2024-04-03", flights(1)))
    office.label(record, *late(1).astype(float))
    outcome = office.backtest(one)
    assert outcome.reproduced.rows == 20 and outcome.reproduced.largest_difference is not None
    assert outcome.reproduced.largest_difference <= outcome.reproduced.tolerance == 1e-6
    assert all(f.difference == pytest.approx(0, abs=1e-6) for f in outcome.total.figures)
    assert office.backtest(f"{MODEL}@2").reproduced.largest_difference is None

    office.write((one, "2024-04-04", flights(2)), outputs={"probability": [0.5] * 20, "label": [0] * 20})
    error = refused(office, one)
    assert (error.kind, error.code, error.details["differ"]) == ("integrity", "not_reproduced", 20)


def test_each_answer_counts_once_and_only_answers_do(office: Office) -> None:
    one, two = f"{MODEL}@1", f"{MODEL}@2"
    (named,) = office.write((one, "2024-04-03", flights(1)))
    (early,) = office.write((one, "2024-04-04", flights(2)))
    office.ship(early, named=False)  # in the table, and no row in SQL says so yet
    office.ship(named)
    for shipped in (False, True):
        (mirrored,) = office.write((two, "2024-04-03", flights(1)), role="shadow", primary=named.id)
        if shipped:
            office.ship(mirrored)
    office.write((two, "2024-04-03", flights(1)), role="canary", primary=named.id, outputs={}, error="it failed")
    office.write((one, "2024-04-05", flights(3)), outputs={}, error="no_finite_answer")
    office.write((one, "2024-04-06", flights(4)), model="another")
    office.label(named, *late(1).astype(float))
    with (office.journal / f"{early.id[2:28]}.seg").open("ab") as f:
        f.write(b"\x10\x00\x00\x00torn")  # what a power cut leaves

    total = office.backtest(two).total
    assert (total.rows, total.labelled, total.answered_by) == (40, 20, {one: 40})
    assert office.backtest(two).unanswered == 20
    shadowed = office.backtest(one)
    assert shadowed.reproduced.rows == 40


def test_a_range_holds_its_start_and_not_its_end(office: Office) -> None:
    one = f"{MODEL}@1"
    days = ("2024-04-01", "2024-04-08", "2024-04-15")
    records = office.write(*((one, day, flights(n)) for n, day in enumerate(days)))
    for n, record in enumerate(records):
        office.label(record, *late(n).astype(float))
    for shipped in (False, True):
        if shipped:
            office.ship(records[0])
        weeks = office.backtest(one, "2024-04-01", "2024-04-15", "week").periods
        assert [(w.start, w.rows) for w in weeks] == [("2024-04-01", 20), ("2024-04-08", 20)]
        assert [d.start for d in office.backtest(one, "2024-04-02", "", "day").periods] == list(days[1:])
        assert refused(office, one, "2024-05-01").code == "no_predictions"


def test_what_was_not_recorded_is_not_guessed(office: Office) -> None:
    (record,) = office.write((f"{MODEL}@1", "2024-04-03", flights(1)))
    office.label(record, *late(1).astype(float))
    error = refused(office, f"{MODEL}@3")
    assert (error.kind, error.code) == ("invalid", "not_recorded")
    assert "reads wind_was" in error.message and "2024-04-03" in error.message
    assert error.details == {"input": "wind_was", "prediction": record.id, "answered_by": f"{MODEL}@1"}


def test_rows_that_it_refuses_are_in_neither_figure(office: Office) -> None:
    lenient = tuple(msgspec.structs.replace(i, null="allow") for i in flight_contract().inputs)
    office.add(f"{MODEL}@5", flight_graph(), msgspec.structs.replace(flight_contract(), inputs=lenient))
    asked = flights(1)
    asked["distance"][3:8] = [None] * 5
    (record,) = office.write((f"{MODEL}@5", "2024-04-03", asked))
    office.label(record, *late(1).astype(float))
    total = office.backtest(f"{MODEL}@2").total
    assert (total.rows, total.labelled, total.refused, total.compared) == (20, 20, 5, 15)
    kept = np.array([v is not None for v in asked["distance"]])
    served = np.array(record.outputs["probability"])[kept]
    assert total.figures[0].served == pytest.approx(measure("roc_auc", "binary", late(1)[kept], served))


def test_a_period_that_cannot_be_measured_says_why(office: Office) -> None:
    one = f"{MODEL}@1"
    days = ("2024-04-03", "2024-05-03", "2024-06-03")
    april, may, _ = office.write(*((one, day, flights(n)) for n, day in enumerate(days)))
    assert refused(office, one).code == "no_labels_yet"
    office.label(april, *[1.0] * 20)
    office.label(may, *late(1).astype(float))
    first, second, third = (p.figures for p in office.backtest(one).periods)
    assert (first[0].served, first[0].problem) == (None, "one class only") and first[2].problem == ""
    assert second[0].problem == "" and {f.problem for f in third} == {"no label has come"}


def swap(name: str) -> Callable[[Office], None]:
    def change(office: Office) -> None:
        digest = office.digest(f"{MODEL}@1")
        other = {"label": "soon", "classes": ("late", "on time"), "task": "regression"}[name]
        office.answerers[digest] = msgspec.structs.replace(office.answerers[digest], **{name: other})

    return change


def forget(office: Office) -> None:
    del office.answerers[office.digest(f"{MODEL}@1")]


@pytest.mark.parametrize(
    ("change", "code"),
    [(swap("label"), "not_comparable"), (swap("classes"), "not_comparable"), (swap("task"), "not_comparable"), (forget, "model_contract_missing")],
)  # fmt: skip
def test_versions_that_mean_something_else_are_not_compared(
    office: Office, change: Callable[[Office], None], code: str
) -> None:
    (record,) = office.write((f"{MODEL}@1", "2024-04-03", flights(1)))
    office.label(record, *late(1).astype(float))
    change(office)
    assert refused(office, f"{MODEL}@2").code == code


def test_a_feature_of_another_type_is_not_compared(office: Office) -> None:
    inputs = tuple(
        msgspec.structs.replace(i, type="category", categories=("9",)) if i.name == "hour" else i
        for i in flight_contract().inputs
    )
    office.add(f"{MODEL}@5", flight_graph(), msgspec.structs.replace(flight_contract(), inputs=inputs))
    office.write((f"{MODEL}@1", "2024-04-03", flights(1)))
    error = refused(office, f"{MODEL}@5")
    assert error.code == "not_comparable" and "hour" in error.message


def test_other_bytes_are_not_run(office: Office) -> None:
    office.write((f"{MODEL}@1", "2024-04-03", flights(1)))
    task = office.task(f"{MODEL}@1")
    (office.root / f"{MODEL}@1" / "model.onnx").write_bytes(flight_graph(9.0))
    with pytest.raises(FalajError) as caught:
        run(task, Silent())
    assert (caught.value.kind, caught.value.code) == ("integrity", "files_differ")


def test_what_it_may_have_learnt_from_and_other_views_are_told(office: Office) -> None:
    other = tuple(msgspec.structs.replace(v, digest=sha256(b"another")) for v in flight_contract().views)
    office.add(f"{MODEL}@5", flight_graph(), msgspec.structs.replace(flight_contract(), views=other))
    april, may = office.write(*((f"{MODEL}@1", day, flights(1)) for day in ("2024-04-03", "2024-05-03")))
    for record in (april, may):
        office.label(record, *late(1).astype(float))
    outcome = office.backtest(f"{MODEL}@5", as_of_us=us("2024-05-01"))
    assert ([p.seen for p in outcome.periods], outcome.total.seen) == ([20, 0], 20)
    assert (outcome.as_of[:10], outcome.views_changed) == ("2024-05-01", ("airport_weather",))
    same = office.backtest(f"{MODEL}@2")
    assert (same.total.seen, same.views_changed, same.as_of) == (0, (), "")


def test_several_classes(office: Office) -> None:
    outputs = (Output("probabilities", "FP32", "probabilities"), Output("class", "INT64", "label"))
    several = msgspec.structs.replace(flight_contract(), task="multiclass", outputs=outputs, score="probabilities")
    for name, bias in (("m@1", 0.0), ("m@2", -2.0)):
        office.add(name, flight_graph(bias), several)
    (record,) = office.write(("m@1", "2024-04-03", flights(1)))
    office.label(record, *[*late(1).astype(float)[:-2], 7.0, 0.5])  # the last two name no class
    total = office.backtest("m@2").total
    assert (total.labelled, [f.metric for f in total.figures]) == (18, ["roc_auc", "log_loss", "brier", "accuracy"])
    scores = np.array(office.answers("m@2", flights(1))["probabilities"])[:18]
    for f in total.figures:
        assert f.version == pytest.approx(measure(f.metric, "multiclass", late(1)[:18], scores))
    assert office.backtest("m@1").reproduced.rows == 20


def test_regressions_and_answers_that_are_no_numbers(office: Office) -> None:
    office.add("o@1", overflow_graph(), overflow_contract())
    office.write(("o@1", "2024-04-03", {"x": [1.0, 2.0, 3.0]}))
    (record,) = office.write(
        ("o@1", "2024-04-03", {"x": [1e9, 1.0]}), outputs={"value": [4.0, 4e30]}, digest=office.digest(f"{MODEL}@1")
    )
    office.answerers[office.digest(f"{MODEL}@1")] = msgspec.structs.replace(
        office.answerers[office.digest("o@1")], alias="o@0"
    )
    office.label(record, 1.0, 1e30)
    total = office.backtest("o@1").total
    assert (total.rows, total.labelled, total.refused, total.compared) == (5, 2, 1, 1)
    assert [f.metric for f in total.figures] == ["mae", "rmse"]
    mae = total.figures[0]
    assert mae.served == pytest.approx(3e30) and mae.version == pytest.approx(0, abs=1e24) and mae.better


def test_more_rows_than_one_batch(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falaj.lifecycle.monitoring.steps.recorded.BATCH", 7)
    one, two = f"{MODEL}@1", f"{MODEL}@2"
    records = office.write(*((one, f"2024-04-0{n}", flights(n)) for n in (1, 2, 3)))
    office.write((one, "2024-04-09", flights(9)))
    office.ship(records[0])
    for n, record in enumerate(records, start=1):
        office.label(record, *late(n).astype(float))
    total = office.backtest(two).total
    assert (total.rows, total.labelled) == (80, 60)
    labels = np.concatenate([late(n) for n in (1, 2, 3)])
    for alias, found in ((one, total.figures[2].served), (two, total.figures[2].version)):
        scores = np.concatenate([office.answers(alias, flights(n))["probability"] for n in (1, 2, 3)])
        assert found == pytest.approx(measure("brier", "binary", labels, scores))


def test_the_table_is_read_at_the_version_that_sql_names(office: Office) -> None:
    """A segment that comes later is read from its file until SQL names it."""
    one = f"{MODEL}@1"
    (first,) = office.write((one, "2024-04-03", flights(1)))
    (second,) = office.write((one, "2024-04-04", flights(2)))
    office.label(first, *late(1).astype(float))
    office.ship(first)
    task = office.task(one)
    office.ship(second)
    table = office.tables / MODEL
    assert delta.scan(table, delta.head(table)).collect().height == 40
    assert run(task, Silent()).total.rows == 40
    (office.journal / f"{first.id[2:28]}.seg").unlink()  # archived: the lake has it
    assert run(task, Silent()).total.rows == 40
