"""All gates of a trained version, measured on real files and a real HTTP server."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import polars as pl
import pytest

from falaj.authoring.project import load_project
from falaj.kernel.digests import manifest, manifest_digest, sha256
from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import BuildFacts, EvidenceTask, GateSpec, Measurement, Verdict, findings, judge
from falaj.lifecycle.evidence.steps.run import run
from falaj.lifecycle.training.model import DatasetUse, TrainTask
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.lifecycle.training.steps.parity import GROUP, NATIVE
from falaj.lifecycle.training.steps.run import run as train

TINY = Path(__file__).parents[2] / "authoring" / "tiny"
LATENCY = GateSpec("latency", "p99_ms", at_most=10_000)
PARITY = GateSpec("parity", "max_abs_difference", at_most=1e-4)
AUC = GateSpec("metric", "roc_auc", at_least=0.6)


class Quiet:
    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """Nobody watches."""

    def metric(self, key: str, value: float, step: int) -> None:
        """Nobody watches."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One workspace a model: with a view, and with request features only."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TINY)
        project = load_project(TINY)
        frame = project.module.rows()
        for m in project.definition().models:
            if m.name in ("tiny-late", "tiny-late-linear", "tiny-price", "tiny-kind"):
                train(
                    TrainTask(m.training(), str(root / m.name), m.params), frame, project.model(m.name).train, Quiet()
                )
        yield root


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a trained workspace, to do harm to."""
    return lambda name: Path(shutil.copytree(trained / name, tmp_path / name))


def task(workspace: Path, *gates: GateSpec, **changes: Any) -> EvidenceTask:
    base = EvidenceTask(
        model=str(workspace / "model"),
        holdout=str(workspace / "holdout.parquet"),
        parity=str(workspace / "parity.parquet"),
        gates=gates,
        resamples=40,
        requests=30,
        warm_up=3,
    )
    return msgspec.structs.replace(base, **changes)


def take(workspace: Path, gate: GateSpec, **changes: Any) -> Measurement:
    (measurement,) = run(task(workspace, gate, **changes), Quiet(), token="secret").measurements
    return measurement


def test_every_gate_of_a_good_model_passes_but_provenance(trained: Path) -> None:
    gates = (
        AUC,
        GateSpec("metric", "brier", at_most=0.25),
        GateSpec("slice", "accuracy", at_least=0.5, by="shop", min_rows=20),
        PARITY,
        GateSpec("scan"),
        GateSpec("provenance"),
    )
    outcome = run(task(trained / "tiny-late", *gates), Quiet())
    verdicts = {f.gate.kind: f.verdict for f in findings(gates, outcome.measurements)}
    assert verdicts.pop("provenance") is Verdict.FAILED
    assert set(verdicts.values()) == {Verdict.SUCCESSFUL}
    assert outcome.digest == manifest_digest(manifest(trained / "tiny-late" / "model"))
    low, high = outcome.measurements[0].detail["interval_95"]
    assert outcome.measurements[0].value is not None
    assert low < outcome.measurements[0].value < high
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=type(outcome)) == outcome


@pytest.mark.parametrize(
    ("name", "metric"),
    [("tiny-price", "mae"), ("tiny-price", "r2"), ("tiny-kind", "log_loss"), ("tiny-kind", "roc_auc")],
)
def test_other_tasks_have_their_own_figures(trained: Path, name: str, metric: str) -> None:
    measurement = take(trained / name, GateSpec("metric", metric, at_least=-100))
    assert measurement.value is not None
    assert measurement.detail["rows"] > 200


def test_provenance_is_complete_when_every_fact_is_there(trained: Path) -> None:
    facts = BuildFacts(
        project=sha256(b"a"),
        datasets=(DatasetUse("sales", 1, sha256(b"b")),),
        views={"shop_load": sha256(b"c")},
        runtime=sha256(b"d"),
        training_set=sha256(b"e"),
    )
    assert take(trained / "tiny-late", GateSpec("provenance"), facts=facts).value == 0
    for missing in ("project", "runtime", "training_set"):
        lacking = msgspec.structs.replace(facts, **{missing: ""})
        assert take(trained / "tiny-late", GateSpec("provenance"), facts=lacking).value == 1
    assert (
        take(trained / "tiny-late", GateSpec("provenance"), facts=msgspec.structs.replace(facts, views={})).value == 1
    )


def test_the_worst_slice_is_judged_and_small_ones_are_reported(workspace: Callable[[str], Path]) -> None:
    folder = workspace("tiny-late")
    rows = pl.read_parquet(folder / "holdout.parquet")
    tiny = pl.when(pl.int_range(pl.len()) < 5).then(pl.lit("corner")).otherwise("shop")
    wrong = pl.when(pl.col("shop") == "west").then(1 - pl.col("late")).otherwise("late")
    rows.with_columns(shop=tiny, late=wrong).write_parquet(folder / "holdout.parquet")
    measurement = take(folder, GateSpec("slice", "accuracy", at_least=0.5, by="shop", min_rows=20))
    assert measurement.detail["worst"] == "west"
    assert measurement.value == measurement.detail["slices"]["west"]["value"] < 0.5
    assert measurement.detail["slices"]["corner"] == {
        "rows": 5,
        "judged": False,
        "value": measurement.detail["slices"]["corner"]["value"],
    }


def test_a_large_slice_that_cannot_be_measured_is_an_error(workspace: Callable[[str], Path]) -> None:
    folder = workspace("tiny-late")
    rows = pl.read_parquet(folder / "holdout.parquet")
    one = pl.when(pl.col("shop") == "west").then(0).otherwise("late")
    rows.with_columns(late=one).write_parquet(folder / "holdout.parquet")
    gate = GateSpec("slice", "roc_auc", at_least=0.5, by="shop", min_rows=20)
    assert "one class only" in take(folder, gate).problem
    assert "no value of shop" in take(folder, msgspec.structs.replace(gate, min_rows=10_000)).problem
    assert "no column nowhere" in take(folder, msgspec.structs.replace(gate, by="nowhere")).problem


@pytest.mark.parametrize("kind", ["gone", "empty", "no label", "not parquet"])
def test_without_a_holdout_quality_is_an_error_and_the_rest_is_measured(
    workspace: Callable[[str], Path], kind: str
) -> None:
    folder = workspace("tiny-late")
    path = folder / "holdout.parquet"
    rows = pl.read_parquet(path)
    if kind == "gone":
        path.unlink()
    elif kind == "not parquet":
        path.write_bytes(b"rows")
    else:
        (rows.head(0) if kind == "empty" else rows.drop("late")).write_parquet(path)
    outcome = run(task(folder, AUC, PARITY), Quiet())
    quality, parity = outcome.measurements
    assert quality.value is None
    assert "holdout" in quality.problem
    assert judge(AUC, quality).verdict is Verdict.ERROR
    assert judge(PARITY, parity).verdict is Verdict.SUCCESSFUL


@pytest.mark.parametrize("group", ["unseen", "null", "unknown", "extreme"])
def test_parity_fails_on_a_difference_in_any_group_and_errs_when_a_group_is_missing(
    workspace: Callable[[str], Path], group: str
) -> None:
    folder = workspace("tiny-late")
    path = folder / "parity.parquet"
    rows = pl.read_parquet(path)
    native = rows[NATIVE].to_list()
    hit = rows[GROUP].to_list().index(group)
    native[hit] = [native[hit][0] + 0.01, native[hit][1] - 0.01]
    rows.with_columns(pl.Series(NATIVE, native)).write_parquet(path)
    measurement = take(folder, PARITY)
    assert judge(PARITY, measurement).verdict is Verdict.FAILED
    assert measurement.detail["groups"][group]["max_abs_difference"] == pytest.approx(0.01, abs=1e-5)
    rows.filter(pl.col(GROUP) != group).write_parquet(path)
    assert f"no parity rows for {group}" in take(folder, PARITY).problem


def test_parity_is_an_error_without_rows_and_fails_on_nan(workspace: Callable[[str], Path]) -> None:
    folder = workspace("tiny-late")
    path = folder / "parity.parquet"
    rows = pl.read_parquet(path)
    rows.with_columns(pl.Series(NATIVE, [[float("nan")] * 2] * rows.height)).write_parquet(path)
    assert judge(PARITY, take(folder, PARITY)).verdict is Verdict.FAILED
    path.unlink()
    assert judge(PARITY, take(folder, PARITY)).verdict is Verdict.ERROR


def _edit(folder: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")


def _append(path: Path, more: bytes) -> None:
    path.write_bytes(path.read_bytes() + more)


def _external(model: onnx.ModelProto) -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "outside")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    model.graph.initializer.append(tensor)


def _foreign(model: onnx.ModelProto) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("evil.ops", 1))
    model.graph.node.append(onnx.helper.make_node("Run", ["features"], ["out"], domain="evil.ops"))


def _function(model: onnx.ModelProto) -> None:
    body = [onnx.helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(
        onnx.helper.make_function("", "Same", ["a"], ["b"], body, [onnx.helper.make_opsetid("", 18)])
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "extra.txt").write_text("x"), "extra.txt does not belong"),
        (lambda f: (f / "model.pkl").write_bytes(b"cos\nsystem\n(S'echo'\ntR."), "picklescan found"),
        (lambda f: (f / "signature.json").write_bytes(b"cos\nsystem\n(S'echo'\ntR."), "picklescan found"),
        (lambda f: (f / "signature.json").unlink(), "signature.json is missing"),
        (lambda f: (f / "signature.json").write_text("{}"), "is not a contract"),
        (lambda f: (f / "profile.json").unlink(), "profile.json is missing"),
        (lambda f: (f / "profile.json").write_bytes(b"cos\nsystem\n(S'echo'\ntR."), "picklescan found"),
        (lambda f: (f / "profile.json").write_bytes(b"cos\nsystem\n(S'echo'\ntR."), "profile.json is not a profile"),
        (lambda f: _append(f / "profile.json", b" "), "profile.json is not in its canonical form"),
        (lambda f: _append(f / "profile.json", b" " * (16 << 20)), "profile.json has more than 16,777,216 bytes"),
        (lambda f: (f / "model.onnx").write_bytes(b"\x80\x04graph"), "not a sound ONNX graph"),
        (lambda f: (f / "model.onnx").write_bytes(b"PK\x03\x04"), "begins like an archive"),
        (lambda f: (f / "model.onnx").write_bytes(b"\x1f\x8b\x08\x08name\x00"), "begins like an archive"),
        (lambda f: _edit(f, _external), "not a sound ONNX graph: Data of TensorProto ( tensor name: outside)"),
        (lambda f: _edit(f, _foreign), "operator evil.ops:Run is not a standard one"),
        (lambda f: _edit(f, _function), "functions are defined inside"),
    ],
)
def test_the_scan_finds_what_does_not_belong(
    workspace: Callable[[str], Path], change: Callable[[Path], object], said: str
) -> None:
    folder = workspace("tiny-late")
    change(folder / "model")
    measurement = take(folder, GateSpec("scan"))
    assert measurement.value is not None, measurement.problem
    assert measurement.value >= 1
    assert any(said in p for p in measurement.detail["problems"]), measurement.detail


def test_a_folder_with_a_link_has_no_name_and_is_not_measured(workspace: Callable[[str], Path]) -> None:
    folder = workspace("tiny-late")
    (folder / "model" / "link").symlink_to(folder / "holdout.parquet")
    with pytest.raises(Invalid, match="not a regular file"):
        run(task(folder, GateSpec("scan")), Quiet())


def test_a_gate_of_a_kind_that_does_not_exist_is_an_error(trained: Path) -> None:
    assert "no gate of kind" in take(trained / "tiny-late", GateSpec("mood")).problem


# ── The data plane's side, by a plain HTTP server that answers with the model ─────────────────────


class Plane(ThreadingHTTPServer):
    """Open Inference Protocol v2 for one model; `spoil` may change an answer before it is sent."""

    def __init__(self, model: LoadedModel, digest: str, spoil: Callable[[dict[str, Any]], object]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.digest, self.spoil = model, digest, spoil
        self.bodies: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Plane
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        plane = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        plane.bodies.append(body)
        columns = {i["name"]: i["data"] for i in body["inputs"]}
        columns.update({i.name: [None] for i in plane.model.contract.inputs if i.source == "view"})
        answers = plane.model.run(plane.model.encoder.encode(columns))
        reply = {
            "id": body["id"],
            "model_name": plane.model.contract.model,
            "parameters": {"version_digest": plane.digest},
            "outputs": [
                {"name": n, "shape": [1], "datatype": "FP32", "data": v.ravel().tolist()} for n, v in answers.items()
            ],
        }
        plane.spoil(reply)
        allowed = self.headers.get("Authorization") == "Bearer secret"
        data = json.dumps(reply).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quietly."""


@pytest.fixture
def serve() -> Iterator[Callable[..., Plane]]:
    started: list[tuple[Plane, threading.Thread]] = []

    def start(workspace: Path, spoil: Callable[[dict[str, Any]], object] = lambda reply: None) -> Plane:
        folder = workspace / "model"
        plane = Plane(LoadedModel.read(folder), manifest_digest(manifest(folder)), spoil)
        thread = threading.Thread(target=plane.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((plane, thread))
        return plane

    yield start
    for plane, thread in started:
        plane.shutdown()
        plane.server_close()
        thread.join()


def address(plane: Plane) -> str:
    return f"http://127.0.0.1:{plane.server_address[1]}"


@pytest.mark.parametrize("name", ["tiny-late", "tiny-late-linear"])
def test_latency_is_measured_on_answers_that_are_the_model_s_own(
    trained: Path, serve: Callable[..., Plane], name: str
) -> None:
    plane = serve(trained / name)
    measurement = take(trained / name, LATENCY, plane=address(plane))
    assert measurement.problem == ""
    assert measurement.value == measurement.detail["p99_ms"] >= measurement.detail["p50_ms"] > 0
    assert measurement.detail["requests"] == 30
    assert measurement.detail["compared"] is (name == "tiny-late-linear")
    inputs = {i["name"]: i for i in plane.bodies[0]["inputs"]}
    if name == "tiny-late":
        assert inputs.keys() == {"size", "rooms", "garden", "colour", "shop"}
        assert {n: i["datatype"] for n, i in inputs.items()} == {
            "size": "FP64",
            "rooms": "INT64",
            "garden": "BOOL",
            "colour": "BYTES",
            "shop": "BYTES",
        }


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: r["outputs"][0].update(data=[r["outputs"][0]["data"][0] + 0.01]), "away from the model's own"),
        (lambda r: r["outputs"][0].update(data=[None]), "not a"),
        (lambda r: r["outputs"].clear(), "has no output"),
        (lambda r: r.update(id="other"), "is for request 'other'"),
        (lambda r: r["parameters"].update(version_digest="sha256:other"), "another version answered"),
        (lambda r: r.update(parameters={}), "does not name the version"),
        (lambda r: r.pop("outputs"), "cannot be read"),
    ],
)
def test_answers_that_are_not_the_model_s_own_are_an_error(
    trained: Path, serve: Callable[..., Plane], spoil: Callable[[dict[str, Any]], object], said: str
) -> None:
    plane = serve(trained / "tiny-late-linear", spoil)
    measurement = take(trained / "tiny-late-linear", LATENCY, plane=address(plane))
    assert said in measurement.problem
    assert judge(LATENCY, measurement).verdict is Verdict.ERROR


def test_a_plane_that_refuses_or_is_not_there_is_an_error(trained: Path, serve: Callable[..., Plane]) -> None:
    folder = trained / "tiny-late-linear"
    plane = serve(folder)
    refused = run(task(folder, LATENCY, plane=address(plane)), Quiet(), token="wrong").measurements[0]
    assert "answered 401" in refused.problem
    assert "no data plane" in take(folder, LATENCY).problem
    assert "cannot be reached" in take(folder, LATENCY, plane="http://127.0.0.1:1").problem
