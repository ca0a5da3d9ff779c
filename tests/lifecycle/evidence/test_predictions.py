"""Gates on a table of predictions: what is a label, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import GateSpec, PredictionsOutcome, PredictionsTask
from falaj.lifecycle.evidence.steps.predictions import run
from tests.lifecycle.serving.plane.fleet import Silent

GONE = float("nan")


def checked(folder: Path, labels: list[Any], task: str = "binary", kind: str = "parquet") -> PredictionsOutcome:
    table = folder / f"t.{kind}"
    frame = pl.DataFrame({"late": labels, "score": [0.9, 0.1, 0.8, 0.2][: len(labels)]})
    frame.write_parquet(table) if kind == "parquet" else frame.write_csv(table)
    gate = GateSpec("metric", "mae" if task == "regression" else "roc_auc", at_least=0.0)
    return run(
        PredictionsTask(str(table), kind, (gate,), task, "late", ("score",), positive="1", resamples=2), Silent()
    )


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_gap_in_a_column_of_floats_is_no_label(tmp_path: Path, task: str) -> None:
    found = checked(tmp_path, [1.0, 0.0, GONE, 0.0], task)
    assert (found.rows, found.unlabelled) == (3, 1) and found.findings[0].measurement.problem == ""


@pytest.mark.parametrize(
    ("labels", "task", "kind"),
    [
        ([1.0, 0.0, float("inf"), 0.0], "regression", "parquet"),
        ([1.0, 0.0, float("inf"), 0.0], "binary", "parquet"),
        (["1", "0", "nan", "0"], "regression", "csv"),
        (["1", "0", "inf", "0"], "regression", "csv"),
    ],
)
def test_what_is_no_number_and_no_class_is_no_label(tmp_path: Path, labels: list[Any], task: str, kind: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked(tmp_path, labels, task, kind)
    assert refused.value.code == "wrong_label_type"
