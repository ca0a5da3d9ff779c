"""Training runs from a frame to a model folder, for every task and library of the tiny project."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import onnx
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.svm import LinearSVC

from falaj.authoring.project import Project, load_project
from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import (
    PROFILE_FILE,
    DatasetUse,
    Input,
    ModelContract,
    TrainingSpec,
    TrainOutcome,
    TrainTask,
    read_profile,
)
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.lifecycle.training.steps.convert import to_onnx
from falaj.lifecycle.training.steps.parity import GROUP, NATIVE, difference
from falaj.lifecycle.training.steps.run import run
from falaj.lifecycle.training.steps.split import split
from falaj.lifecycle.training.steps.training_set import Params
from falaj.statistics.distances import LAGS

TINY = Path(__file__).parents[2] / "authoring" / "tiny"
MODELS = ("tiny-late", "tiny-kind", "tiny-kind-boosted", "tiny-price", "tiny-price-linear", "tiny-late-linear")


class Recorder:
    """Keeps what a step reports."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.points: list[tuple[str, float, int]] = []

    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        self.texts.append(text)

    def metric(self, key: str, value: float, step: int) -> None:
        self.points.append((key, value, step))


@pytest.fixture(scope="module")
def tiny() -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TINY)
        yield load_project(TINY)


@pytest.fixture(scope="module")
def frame(tiny: Project) -> pl.DataFrame:
    rows: pl.DataFrame = tiny.module.rows()
    return rows


def spec_of(tiny: Project, name: str) -> tuple[TrainingSpec, dict[str, Any]]:
    found = next(m for m in tiny.definition().models if m.name == name)
    return found.training(), found.params


def train(tiny: Project, frame: pl.DataFrame, folder: Path, name: str) -> TrainOutcome:
    spec, params = spec_of(tiny, name)
    return run(TrainTask(spec, str(folder), params), frame, tiny.model(name).train, Recorder())


@pytest.mark.parametrize("name", MODELS)
def test_every_library_leaves_a_model_that_answers_as_the_estimator_does(
    tiny: Project, frame: pl.DataFrame, tmp_path: Path, name: str
) -> None:
    outcome = train(tiny, frame, tmp_path, name)
    assert [f.path for f in outcome.files] == ["model.onnx", "profile.json", "signature.json"]
    model = LoadedModel.read(tmp_path / "model")
    assert model.contract == outcome.contract
    rows = pl.read_parquet(tmp_path / "parity.parquet")
    native = np.array(rows[NATIVE].to_list())
    if model.contract.task == "binary":
        native = native[:, [1]]
    served = model.answers(rows)[model.contract.score].astype(float).reshape(rows.height, -1)
    assert difference(model.contract.task, native, served).max() < 1e-5
    assert {"unseen", "null", "extreme"} <= set(rows[GROUP])
    assert onnx.load(tmp_path / "model" / "model.onnx").graph.input[0].name == "features"
    best = outcome.metrics.get("validation_roc_auc", outcome.metrics.get("validation_r2"))
    assert best is not None
    assert best > 0.75


def test_the_same_task_leaves_the_same_bytes(tiny: Project, frame: pl.DataFrame, tmp_path: Path) -> None:
    first = train(tiny, frame, tmp_path / "a", "tiny-late")
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    second = train(tiny, shuffled, tmp_path / "b", "tiny-late")
    assert msgspec.structs.replace(first, seconds=0) == msgspec.structs.replace(second, seconds=0)


def test_the_model_carries_the_profile_of_its_training_part(tiny: Project, frame: pl.DataFrame, tmp_path: Path) -> None:
    outcome = train(tiny, frame, tmp_path, "tiny-late")
    profile = read_profile((tmp_path / "model" / PROFILE_FILE).read_bytes(), outcome.contract)
    part = split(spec_of(tiny, "tiny-late")[0], frame).train.frame
    assert PROFILE_FILE not in outcome.artifacts
    assert profile.rows == part.height == outcome.rows["train"]
    colour, size = profile.features["colour"], profile.features["size"]
    assert colour.counts == dict(part["colour"].drop_nulls().value_counts().iter_rows())
    assert colour.nulls == part["colour"].null_count() > 0
    assert profile.features["garden"].counts == {
        "true": part["garden"].sum(), "false": (~part["garden"]).sum()
    }  # fmt: skip
    assert size.mean == pytest.approx(part["size"].mean())
    assert (size.quantiles[0], size.quantiles[10], size.quantiles[-1]) == pytest.approx(
        (part["size"].min(), part["size"].median(), part["size"].max())
    )
    (score,) = profile.score
    assert 0 <= score.quantiles[0] < score.mean < score.quantiles[-1] <= 1
    assert profile.days == part["sold_at"].dt.date().n_unique() > 7
    assert sum(size.binned) + size.nulls == sum(score.binned) == profile.rows
    assert {len(f.spread) for f in profile.features.values()} == {len(score.spread)} == {LAGS}


@pytest.mark.parametrize("name", MODELS)
def test_every_task_s_profile_fits_its_contract(tiny: Project, frame: pl.DataFrame, tmp_path: Path, name: str) -> None:
    outcome = train(tiny, frame, tmp_path, name)
    profile = read_profile((tmp_path / "model" / PROFILE_FILE).read_bytes(), outcome.contract)
    assert len(profile.score) == (len(outcome.contract.classes) if outcome.contract.task == "multiclass" else 1)


def test_parts_follow_each_other_in_time_and_count_every_row(tiny: Project, frame: pl.DataFrame) -> None:
    parts = split(spec_of(tiny, "tiny-late")[0], frame)
    train_at, validation_at, holdout_at = (p.frame["sold_at"] for p in (parts.train, parts.validation, parts.holdout))
    assert train_at.max() < validation_at.min()  # type: ignore[operator]
    assert validation_at.max() < holdout_at.min()  # type: ignore[operator]
    rows = parts.rows
    assert rows["without_label"] == frame["late"].null_count() > 0
    assert rows["given"] == rows["without_label"] + rows["train"] + rows["validation"] + rows["holdout"]
    colour = next(i for i in parts.inputs if i.name == "colour")
    assert colour.categories == ("amber", "blue", "green")  # violet is seen later only
    assert "violet" in parts.holdout.frame["colour"].to_list()


def test_curves_are_reported(tiny: Project, frame: pl.DataFrame, tmp_path: Path) -> None:
    spec, params = spec_of(tiny, "tiny-late")
    report = Recorder()
    run(TrainTask(spec, str(tmp_path), params), lambda: frame, tiny.model("tiny-late").train, report)
    assert [step for _, _, step in report.points] == list(range(20))
    assert all(math.isfinite(value) for _, value, _ in report.points)


def test_the_contract_refuses_nulls_where_the_estimator_cannot_take_them(
    tiny: Project, frame: pl.DataFrame, tmp_path: Path
) -> None:
    rules = {i.name: i.null for i in train(tiny, frame, tmp_path, "tiny-late-linear").contract.inputs}
    assert rules == {"rooms": "refuse", "size": "allow"}


def test_a_training_set_s_name_covers_what_can_change_it(tiny: Project, frame: pl.DataFrame, tmp_path: Path) -> None:
    spec, params = spec_of(tiny, "tiny-late-linear")
    base = TrainTask(spec, str(tmp_path), params, (DatasetUse("sales", 1, "sha256:" + "0" * 64),), "2024-01-01")
    function = tiny.model("tiny-late-linear").train
    names = {
        run(task, frame, function, Recorder()).training_set
        for task in (
            base,
            msgspec.structs.replace(base, workspace=str(tmp_path / "else")),
            msgspec.structs.replace(base, as_of="2024-01-02"),
            msgspec.structs.replace(base, params={"x": 1}),
            msgspec.structs.replace(base, datasets=(DatasetUse("sales", 2, "sha256:" + "0" * 64),)),
        )
    }
    assert len(names) == 4


def test_forms_hold_the_same_values(tiny: Project, frame: pl.DataFrame, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def look(data: Any, params: Params) -> Any:
        seen["codes"] = data.numpy().features
        seen["pandas"] = data.pandas()
        seen["polars"] = data.polars()
        seen["pandas codes"] = data.pandas(codes=True).features.to_numpy()
        return tiny.model("tiny-late").train(data, params)

    spec, params = spec_of(tiny, "tiny-late")
    run(TrainTask(spec, str(tmp_path), params), frame, look, Recorder())
    codes = seen["codes"]
    np.testing.assert_array_equal(codes, seen["pandas codes"])
    pandas, polars = seen["pandas"].features, seen["polars"].features
    assert list(pandas["colour"].cat.categories) == ["amber", "blue", "green"]
    assert polars["colour"].dtype == pl.Enum(["amber", "blue", "green"])
    np.testing.assert_array_equal(np.where(np.isnan(codes[:, 4]), -1, codes[:, 4]), pandas["colour"].cat.codes)
    np.testing.assert_array_equal(polars["size"].fill_null(math.nan).to_numpy(), codes[:, 1])
    assert set(np.unique(seen["pandas"].label)) == {0, 1}


def _fit(data: Any, kind: Any) -> Any:
    rows = data.numpy()
    return kind.fit(np.nan_to_num(rows.features), rows.label)


class Unheard:
    """An estimator that nothing converts."""

    classes_ = (0, 1)

    def predict(self, x: Any) -> Any:
        return np.zeros(len(x))

    def predict_proba(self, x: Any) -> Any:
        return np.full((len(x), 2), 0.5)


def _booster(data: Any, objective: str) -> Any:
    rows = data.numpy()
    return lightgbm.train({"objective": objective, "verbose": -1}, lightgbm.Dataset(rows.features, rows.label), 5)


def _raise(data: Any, params: Any) -> Any:
    raise KeyError("gone")


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [
        (_raise, "training_failed", "raised KeyError in test_run.py, line"),
        (lambda data, params: None, "not_an_estimator", "returned nothing"),
        (lambda data, params: 3, "not_an_estimator", "cannot predict"),
        (lambda data, params: params["trees"], "unknown_parameter", "'trees'"),
        (lambda data, params: Unheard(), "not_convertible", "cannot be converted to ONNX"),
        (lambda data, params: _fit(data, LinearSVC()), "wrong_estimator", "gives no probabilities"),
        (
            lambda data, params: _fit(data, HistGradientBoostingRegressor(max_iter=2)),
            "wrong_estimator",
            "probabilities",
        ),
        (
            lambda data, params: HistGradientBoostingClassifier(max_iter=2).fit(*data.pandas()),
            "not_convertible",
            "no faithful ONNX form",
        ),
        (
            lambda data, params: lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(
                data.pandas().features.assign(
                    colour=lambda x: x["colour"].cat.reorder_categories(["green", "blue", "amber"])
                ),
                data.pandas().label,
            ),
            "other_categories",
            "other categories",
        ),
        (
            lambda data, params: lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(
                data.numpy().features, data.numpy().label + 3
            ),
            "wrong_classes",
            r"\[3, 4\]",
        ),
        (
            lambda data, params: lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(
                data.numpy().features, np.where(data.numpy().label == 1, "late", "early")
            ),
            "wrong_classes",
            r"\['early', 'late'\]",
        ),
        (lambda data, params: lightgbm.LGBMClassifier(), "not_an_estimator", "LGBMClassifier unfitted"),
        (lambda data, params: _booster(data, "binary"), "wrong_estimator", "Booster gives no probabilities"),
    ],
)
def test_a_training_function_that_fails_is_refused_with_the_reason(
    tiny: Project, frame: pl.DataFrame, tmp_path: Path, function: Any, code: str, said: str
) -> None:
    spec, _ = spec_of(tiny, "tiny-late")
    with pytest.raises(Invalid, match=said) as error:
        run(TrainTask(spec, str(tmp_path)), frame, function, Recorder())
    assert error.value.code == code
    assert error.value.hint


def test_lightgbm_s_own_booster_is_an_estimator_of_numbers(tiny: Project, frame: pl.DataFrame, tmp_path: Path) -> None:
    spec, _ = spec_of(tiny, "tiny-price")
    outcome = run(TrainTask(spec, str(tmp_path)), frame, lambda data, params: _booster(data, "regression"), Recorder())
    rows = pl.read_parquet(tmp_path / "parity.parquet")
    served = LoadedModel.read(tmp_path / "model").answers(rows)["value"].astype(float).reshape(rows.height, -1)
    assert outcome.library.startswith("lightgbm ")
    assert difference("regression", np.array(rows[NATIVE].to_list()), served).max() < 1e-5


def test_a_label_that_is_no_number_is_no_label(tiny: Project, frame: pl.DataFrame) -> None:
    """Tables with gaps give labels as floats, and NaN for none."""
    spec = msgspec.structs.replace(spec_of(tiny, "tiny-late")[0], positive="1")
    known = frame.filter(pl.col("late").is_not_null()).with_columns(late=pl.col("late").cast(pl.Float64))
    gone = pl.int_range(pl.len()) % 10 == 0
    parts = split(spec, known.with_columns(late=pl.when(gone).then(float("nan")).otherwise("late")))
    assert parts.rows["without_label"] == known.select(gone.sum()).item() > 0
    assert parts.classes == ("0", "1")


def test_an_error_in_the_training_function_names_its_line(tiny: Project, frame: pl.DataFrame, tmp_path: Path) -> None:
    spec, _ = spec_of(tiny, "tiny-late")
    with pytest.raises(Invalid) as error:
        run(TrainTask(spec, str(tmp_path)), frame, _raise, Recorder())
    assert 'raise KeyError("gone")' in error.value.details["shown"][-2]
    assert (
        error.value.details["shown"][-1] == "KeyError: 'gone'" and "gone" not in error.value.message + error.value.hint
    )
    assert "KeyError" in error.value.details["traceback"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda f: f.with_columns(late=pl.lit(value=True)), "one_class"),
        (lambda f: f.with_columns(late=pl.lit(None, pl.Boolean)), "no_labelled_rows"),
        (lambda f: f.with_columns(late=pl.Series(["a", "b", "c"] * 500)), "wrong_class_count"),
        (lambda f: f.with_columns(late=pl.Series(["a", "b"] * 750)), "unknown_positive"),
        (lambda f: f.with_columns(late=pl.Series([0.5, 1.5] * 750)), "wrong_label_type"),
        (lambda f: f.with_columns(late=pl.col("hour") > 700), "one_class"),
        (lambda f: f.with_columns(size=pl.lit(None, pl.Float64)), "feature_all_null"),
        (lambda f: f.with_columns(size=pl.lit("big")), "wrong_feature_type"),
        (lambda f: f.with_columns(colour=pl.int_range(1500).cast(pl.String)), "too_many_categories"),
        (lambda f: f.drop("colour"), "missing_column"),
        (lambda f: f.with_columns(sold_at=f["sold_at"][0]), "too_few_rows"),
    ],
)
def test_data_that_cannot_be_learnt_from_is_refused(tiny: Project, frame: pl.DataFrame, change: Any, code: str) -> None:
    spec = msgspec.structs.replace(spec_of(tiny, "tiny-late")[0], holdout=0.1, validation=0.05)
    with pytest.raises(Invalid) as error:
        split(spec, change(frame))
    assert error.value.code == code


def test_thresholds_between_two_float32_keep_rows_on_their_side() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 2)).astype(np.float32)
    y = 50 * x[:, 0] + rng.normal(size=4000)
    inputs = (Input("a", "float"), Input("b", "float"))
    boosted = lightgbm.LGBMRegressor(n_estimators=30, verbose=-1, num_threads=1).fit(x, y)
    hist = HistGradientBoostingRegressor(max_iter=30).fit(x, y)
    for estimator, edges in ((boosted, _lightgbm_edges(boosted)), (hist, _hist_edges(hist))):
        rows = np.zeros((len(edges), 2), dtype=np.float32)
        for row, (feature, threshold) in enumerate(edges):
            rows[row, feature] = np.float32(threshold)
        graph = to_onnx(estimator, "m", "features", inputs)
        model = LoadedModel(ModelContract("m", "regression", inputs, (), (), (), ""), graph.SerializeToString())
        served = np.asarray(model._session.run(None, {"features": rows})[0]).ravel()
        native = np.asarray(estimator.predict(rows))
        assert difference("regression", native[:, None], served[:, None]).max() < 1e-5


def _lightgbm_edges(estimator: Any) -> list[tuple[int, float]]:
    table = estimator.booster_.trees_to_dataframe()
    split_rows = table[table["split_feature"].notna()]
    return [
        (int(f.removeprefix("Column_")), float(t))
        for f, t in zip(split_rows["split_feature"], split_rows["threshold"], strict=True)
    ]


def _hist_edges(estimator: Any) -> list[tuple[int, float]]:
    nodes = np.concatenate([tree.nodes for iteration in estimator._predictors for tree in iteration])
    return [(int(n["feature_idx"]), float(n["num_threshold"])) for n in nodes if not n["is_leaf"]]
