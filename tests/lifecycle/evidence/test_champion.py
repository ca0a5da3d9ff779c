"""The candidate beside the champion: on the same rows, each through its own contract, in either direction."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from in_toto_attestation.v1 import statement_pb2

from falaj.authoring.project import Project, load_project
from falaj.kernel.digests import manifest, manifest_digest, sha256
from falaj.lifecycle.evidence.model import (
    Baseline,
    EvidenceTask,
    Finding,
    GateSpec,
    Measurement,
    Verdict,
    asks_champion,
    judge,
    proven,
)
from falaj.lifecycle.evidence.statements import test_result as statement_of
from falaj.lifecycle.evidence.steps.champion import Beside, not_worse
from falaj.lifecycle.evidence.steps.run import run
from falaj.lifecycle.training.model import LOWER_IS_BETTER, METRICS, TrainTask
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.lifecycle.training.steps.metrics import measure
from falaj.lifecycle.training.steps.run import run as train
from tests.lifecycle.serving.plane.fleet import Silent

TINY = Path(__file__).parents[2] / "authoring" / "tiny"
AUC = GateSpec("champion", "roc_auc", at_least=-0.01)
A, B = sha256(b"a"), sha256(b"b")

Workspace = Callable[..., Path]


@pytest.fixture(scope="module")
def tiny() -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TINY)
        yield load_project(TINY)


@pytest.fixture(scope="module")
def trained(tiny: Project, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of a model: trained once under a name, with changes of its task and of its rows."""
    root = tmp_path_factory.mktemp("trained")
    definitions = {m.name: m for m in tiny.definition().models}

    def get(name: str, model: str = "tiny-late", rows: int = 1500, task: str = "", **params: Any) -> Path:
        folder = root / name
        if not folder.exists():
            definition = definitions[model]
            spec = msgspec.structs.replace(definition.training(), model=task or model)
            frame = tiny.module.rows()[:rows]
            train(
                TrainTask(spec, str(folder), {**definition.params, **params}), frame, tiny.model(model).train, Silent()
            )
        return folder

    return get


def take(candidate: Path, champion: Path | None, gate: GateSpec = AUC, **changes: Any) -> Measurement:
    baseline = None
    if champion is not None:
        model = champion / "model"
        baseline = Baseline(manifest_digest(manifest(model)), "m@1", str(model))
    base = EvidenceTask(
        model=str(candidate / "model"),
        holdout=str(candidate / "holdout.parquet"),
        parity="",
        gates=(gate,),
        baseline=baseline,
        at="sold_at",
        resamples=60,
    )
    (measurement,) = run(msgspec.structs.replace(base, **changes), Silent()).measurements
    return measurement


def digest(workspace: Path) -> str:
    return manifest_digest(manifest(workspace / "model"))


@pytest.mark.parametrize("metric", METRICS["binary"])
def test_better_is_positive_whichever_way_the_metric_points(trained: Workspace, metric: str) -> None:
    good, weak = trained("good"), trained("weak", n_estimators=1, num_leaves=2)
    gate = GateSpec("champion", metric, at_least=-0.01)
    up, down = take(good, weak, gate), take(weak, good, gate)
    assert up.value is not None and up.value > 0.01, up
    assert down.value == -up.value  # the same holdout for both, so the same difference
    assert judge(gate, up).verdict is Verdict.SUCCESSFUL
    assert judge(gate, down).verdict is Verdict.FAILED
    assert "against m@1" in judge(gate, down).reason
    low, high = up.detail["interval_95"]
    assert 0 < low < up.value < high and up.detail["resamples"] == 60


@pytest.mark.parametrize("metric", METRICS["regression"])
def test_regressions_too(trained: Workspace, metric: str) -> None:
    good, weak = trained("price", "tiny-price"), trained("price-weak", "tiny-price", n_estimators=2)
    measurement = take(good, weak, GateSpec("champion", metric, at_least=0.0))
    assert measurement.value is not None and measurement.value > 0
    better = measurement.detail["candidate_value"] < measurement.detail["champion_value"]
    assert better is (metric in LOWER_IS_BETTER)


def test_several_classes_too(trained: Workspace) -> None:
    kind = trained("kind", "tiny-kind")
    boosted = trained("kind-boosted", "tiny-kind-boosted", task="tiny-kind")
    assert take(kind, boosted, GateSpec("champion", "log_loss", at_least=-9.0)).value is not None


def test_the_champion_beside_itself_is_no_better_and_no_worse(trained: Workspace) -> None:
    measurement = take(trained("good"), trained("good"))
    assert measurement.value == 0 and measurement.detail["interval_95"] == [0, 0]
    assert measurement.detail["candidate"] == measurement.detail["champion"]


def test_the_detail_names_both_versions_the_rows_and_the_period(trained: Workspace) -> None:
    good, weak = trained("good"), trained("weak", n_estimators=1, num_leaves=2)
    detail = take(good, weak).detail
    holdout = pl.read_parquet(good / "holdout.parquet")
    assert (detail["candidate"], detail["champion"], detail["champion_alias"]) == (digest(good), digest(weak), "m@1")
    first, last = (
        getattr(holdout["sold_at"], f)().isoformat(timespec="milliseconds")[:23] + "Z" for f in ("min", "max")
    )
    assert detail["period"] == [first, last]
    assert (detail["rows"], detail["refused_by_candidate"], detail["refused_by_champion"]) == (holdout.height, 0, 0)
    assert detail["views_changed"] == []


def test_both_answer_the_rows_that_both_accept(trained: Workspace) -> None:
    """The champion has no view and refuses nulls; the candidate accepts every row."""
    good, strict = trained("good"), trained("strict", "tiny-late-linear", task="tiny-late")
    holdout = pl.read_parquet(good / "holdout.parquet").with_columns(
        rooms=pl.when(pl.int_range(pl.len()) % 3 > 0).then("rooms")
    )
    spoilt = shutil.copytree(good, good.with_name("spoilt"))
    holdout.write_parquet(spoilt / "holdout.parquet")
    detail = take(spoilt, strict).detail
    candidate, champion = LoadedModel.read(good / "model"), LoadedModel.read(strict / "model")
    kept = holdout.filter(pl.Series(champion.accepts(holdout)))
    assert detail["rows"] == kept.height < holdout.height == detail["rows"] + detail["refused_by_champion"]
    for name, model in (("candidate_value", candidate), ("champion_value", champion)):
        assert detail[name] == measure("roc_auc", "binary", kept["late"].to_numpy(), model.answers(kept)["probability"])


def test_the_champion_reads_categories_by_its_own_contract(trained: Workspace) -> None:
    """Colours in another order and one fewer: read by the candidate's table, the champion would answer otherwise."""
    good, model = trained("good"), LoadedModel.read(trained("good") / "model")
    narrow = tuple(
        msgspec.structs.replace(i, categories=("green", "blue")) if i.name == "colour" else i
        for i in model.contract.inputs
    )
    other = rewritten(good, "colours", inputs=narrow)
    holdout = pl.read_parquet(good / "holdout.parquet")
    expected = LoadedModel.read(other / "model").answers(holdout)["probability"]
    assert not np.array_equal(expected, model.answers(holdout)["probability"])
    detail = take(good, other).detail
    assert detail["champion_value"] == measure("roc_auc", "binary", holdout["late"].to_numpy(), expected)
    assert detail["candidate_value"] != detail["champion_value"]


def test_other_versions_of_the_champion_s_views_are_told(trained: Workspace) -> None:
    good = trained("good")
    other = shutil.copytree(good, good.with_name("other-view"))
    contract = LoadedModel.read(good / "model").contract
    views = tuple(msgspec.structs.replace(v, digest=A) for v in contract.views)
    (other / "model" / "signature.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(contract, views=views))
    )
    measurement = take(good, other)
    assert measurement.detail["views_changed"] == ["shop_load"]
    assert "other versions of its views shop_load" in judge(AUC, measurement).reason


def rewritten(workspace: Path, name: str, **changes: Any) -> Path:
    """A copy whose contract says something else, under its own true digest."""
    copy = shutil.copytree(workspace, workspace.with_name(name), dirs_exist_ok=True)
    contract = LoadedModel.read(workspace / "model").contract
    (copy / "model" / "signature.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(contract, **changes)))
    return Path(copy)


def test_what_cannot_be_compared_is_an_error(trained: Workspace, tmp_path: Path) -> None:
    good, linear = trained("good"), trained("linear", "tiny-late-linear")
    lacking = take(trained("few", "tiny-late-linear", task="tiny-late"), good)
    assert "no column recent, garden, colour" in lacking.problem and "slices=" in lacking.problem
    cases = {
        "its model is tiny-late-linear": take(good, linear),
        "its label is soon": take(good, rewritten(good, "label", label="soon")),
        "its classes is ('true', 'false')": take(good, rewritten(good, "classes", classes=("true", "false"))),
        "its task is regression": take(good, rewritten(good, "task", task="regression")),
        "no column nowhere": take(good, good, at="nowhere"),
        "signature.json cannot be read": take(good, empty(tmp_path)),
        "the holdout cannot be read": take(good, good, holdout=str(tmp_path / "gone")),
        "cannot be measured": take(good, good, GateSpec("champion", "mae", at_least=0.0)),
    }
    for said, measurement in (*cases.items(), ("", lacking)):
        assert said in measurement.problem and measurement.value is None, measurement
        assert judge(AUC, measurement).verdict is Verdict.ERROR
        assert measurement.detail["candidate"]


def empty(folder: Path) -> Path:
    (folder / "empty" / "model").mkdir(parents=True)
    return folder / "empty"


def test_other_bytes_than_the_champion_s_are_an_error(trained: Workspace) -> None:
    good = trained("good")
    measurement = take(good, None, baseline=Baseline(A, "m@1", str(good / "model")))
    assert "are not those that its digest names" in measurement.problem


def test_a_model_without_a_champion_passes_and_says_so(trained: Workspace) -> None:
    measurement = take(trained("good"), None)
    assert (measurement.value, measurement.problem) == (None, "")
    assert measurement.detail == {"candidate": digest(trained("good")), "champion": ""}
    finding = judge(AUC, measurement)
    assert (finding.verdict, finding.reason) == (Verdict.SUCCESSFUL, "there is no champion yet")


@pytest.mark.parametrize(
    ("value", "detail", "problem", "verdict"),
    [
        (-0.01, {"champion": A}, "", Verdict.SUCCESSFUL),
        (-0.0100001, {"champion": A}, "", Verdict.FAILED),
        (0.2, {"champion": A}, "", Verdict.SUCCESSFUL),
        (None, {"champion": ""}, "", Verdict.SUCCESSFUL),
        (None, {"champion": ""}, "the holdout is gone", Verdict.ERROR),
        (0.2, {"champion": ""}, "", Verdict.ERROR),
        (0.2, {}, "", Verdict.ERROR),
        (None, {}, "", Verdict.ERROR),
        (None, {"champion": None}, "", Verdict.ERROR),
        (None, {"champion": A}, "", Verdict.ERROR),
        (float("nan"), {"champion": A}, "", Verdict.ERROR),
    ],
)
def test_only_a_named_champion_or_none_at_all_passes(value: Any, detail: Any, problem: str, verdict: Verdict) -> None:
    finding = judge(AUC, Measurement(AUC.name, value, detail, problem))
    assert finding.verdict is verdict and finding.reason


def test_no_other_gate_passes_without_a_value() -> None:
    for kind in ("metric", "slice", "latency", "parity", "scan", "provenance"):
        gate = GateSpec(kind, "roc_auc", at_least=-0.01)
        assert judge(gate, Measurement(gate.name, None, {"champion": ""})).verdict is Verdict.ERROR


def test_the_statement_names_both_digests() -> None:
    finding = judge(AUC, Measurement(AUC.name, 0.1, {"candidate": A, "champion": B, "champion_alias": "m@1"}))
    statement = statement_of("m@2", A, finding)
    json_format.Parse(json.dumps(statement), statement_pb2.Statement())
    detail = statement["predicate"]["configuration"][1]["annotations"]["detail"]
    assert (detail["candidate"], detail["champion"]) == (A, B)
    assert statement["subject"][0]["digest"]["sha256"] == A.removeprefix("sha256:")


def finding(name: str, champion: Any) -> Finding:
    gate = GateSpec("champion", name, at_least=0.0)
    value = 0.1 if champion else None
    return Finding(gate, Measurement(gate.name, value, {"champion": champion}), Verdict.SUCCESSFUL, "")


@pytest.mark.parametrize(
    ("named", "champion"),
    [([], None), ([A], A), ([A, A], A), ([""], ""), ([A, B], None), (["", A], None), ([None], None), ([[A]], None)],
)
def test_what_two_statements_say_of_the_champion_must_agree(named: list[Any], champion: str | None) -> None:
    other = Finding(GateSpec("scan"), Measurement("scan", 0.0, {"champion": B}), Verdict.SUCCESSFUL, "")
    found = proven([other, *(finding(f"m{n}", c) for n, c in enumerate(named))], A)
    assert (found.champion, found.evidence, len(found.verdicts)) == (champion, A, len(named) + 1)


def test_a_gate_asks_for_the_champion_by_its_kind() -> None:
    assert asks_champion(["scan", AUC.name])
    assert not asks_champion(["metric champion", "slice champion roc_auc", "scan", "champions"])


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(METRICS["binary"]))
def test_changing_sides_changes_the_sign_and_nothing_else(seed: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, 2, 60), rng.uniform(0.01, 0.99, (2, 60))
    labels[:2] = 0, 1
    gate = GateSpec("champion", metric, at_least=0.0)
    one = not_worse(gate, Beside("binary", labels, scores[0], scores[1], {}), 20, seed)
    two = not_worse(gate, Beside("binary", labels, scores[1], scores[0], {}), 20, seed)
    assert one.value is not None and two.value == -one.value
    assert two.detail["interval_95"] == pytest.approx([-x for x in reversed(one.detail["interval_95"])])
    assert {judge_of(one), judge_of(two)} >= {Verdict.SUCCESSFUL}


def judge_of(measurement: Measurement) -> Verdict:
    told = msgspec.structs.replace(measurement, detail={**measurement.detail, "champion": A})
    return judge(GateSpec("champion", "roc_auc", at_least=0.0), told).verdict
