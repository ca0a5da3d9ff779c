"""A training run, start to end."""

from __future__ import annotations

import os
import random
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import polars as pl

from falaj.kernel import faults
from falaj.kernel.digests import canonical_json, manifest, manifest_digest, sha256_file
from falaj.kernel.errors import FalajError, Invalid
from falaj.lifecycle.training.model import (
    HOLDOUT_FILE,
    METRICS,
    PARITY_FILE,
    PROFILE_FILE,
    TENSOR,
    ModelContract,
    TrainingSpec,
    TrainOutcome,
    TrainTask,
    training_set_digest,
)
from falaj.lifecycle.training.steps.contract import LoadedModel, contract_for, write_model
from falaj.lifecycle.training.steps.convert import to_onnx
from falaj.lifecycle.training.steps.metrics import NotMeasurable, measure
from falaj.lifecycle.training.steps.native import Native, final_step, library_of
from falaj.lifecycle.training.steps.parity import parity_rows, with_native
from falaj.lifecycle.training.steps.profile import profile_of
from falaj.lifecycle.training.steps.split import Split, split
from falaj.lifecycle.training.steps.training_set import Estimator, Params, TrainingSet, params_of
from falaj.workflow.reporting import Reporter

TrainFunction = Callable[[TrainingSet, Params], Estimator]
Frame = pl.DataFrame | Callable[[], pl.DataFrame]

METRICS_FILE = "metrics.json"


def run(task: TrainTask, frame: Frame, train: TrainFunction, report: Reporter) -> TrainOutcome:
    """Train one model and leave it in the workspace.

    `frame` has the spine's columns, the views' columns and the label, one row a decision; or is a
    function that gives it. Leaves `model/` (model.onnx, signature.json, profile.json), `parity.parquet`,
    `holdout.parquet` and `metrics.json`. The same task on the same frame leaves the
    same bytes, as far as the training function is deterministic. Raises `Invalid` with a code for
    each thing that can be wrong with the data, the function or the estimator.
    """
    started = time.perf_counter()
    spec = task.spec
    params = params_of(task.params)
    report.progress("reading the training set")
    parts = split(spec, frame() if callable(frame) else frame)
    report.progress(f"training on {parts.rows['train']:,} rows")
    data = TrainingSet(parts, spec.task, task.seed, report)
    estimator = _train(train, data, params)
    report.progress("converting to ONNX")
    model, native = _convert(spec, parts, estimator, data)
    report.progress("measuring")
    workspace = Path(task.workspace)
    contract = _write(workspace, task, parts, model, native)
    metrics, refused = _metrics(spec, parts, model)
    (workspace / METRICS_FILE).write_bytes(canonical_json(metrics))
    files = manifest(workspace / "model")
    names = (PARITY_FILE, HOLDOUT_FILE, METRICS_FILE)
    return TrainOutcome(
        files=files,
        digest=manifest_digest(files),
        artifacts={name: sha256_file(workspace / name) for name in names},
        rows={**parts.rows, "refused_by_contract": refused},
        metrics=metrics,
        training_set=training_set_digest(task),
        contract=contract,
        library=_library(estimator),
        seconds=round(time.perf_counter() - started, 3),
    )


def _train(train: TrainFunction, data: TrainingSet, params: Params) -> Estimator:
    own = os.getpid()
    random.seed(data.seed)
    np.random.seed(data.seed % 2**32)  # what libraries fall back to when they are given no seed
    try:
        estimator: Estimator | None = train(data, params)
    except FalajError:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as e:  # the project's own code may raise anything
        raise Invalid(
            f"the training function raised {type(e).__name__}{faults.place(e)}",
            hint=f"mend it{faults.place(e)}, `falaj apply`, and train again",
            code="training_failed",
            details={**faults.told(e), "traceback": "".join(traceback.format_exception(e))[-4000:]},
        ) from e
    if os.getpid() != own:  # it forked and this is the copy: there is one model to hand over
        os._exit(0)
    if estimator is None:
        raise Invalid(
            "the training function returned nothing", hint="end it with 'return model'", code="not_an_estimator"
        )
    return estimator


def _convert(spec: TrainingSpec, parts: Split, estimator: Estimator, data: TrainingSet) -> tuple[LoadedModel, Native]:
    native = Native(estimator, spec.task, parts.classes, data.form)
    inputs = native.with_rules(parts.inputs, parts.train.frame.head(1000))
    graph = to_onnx(estimator, spec.model, TENSOR, inputs)
    contract = contract_for(spec, inputs, parts.classes, graph)
    return LoadedModel(contract, graph.SerializeToString(deterministic=True)), native


def _write(workspace: Path, task: TrainTask, parts: Split, model: LoadedModel, native: Native) -> ModelContract:
    contract, spec = model.contract, task.spec
    folder = workspace / "model"
    write_model(folder, contract, model.graph)
    (folder / PROFILE_FILE).write_bytes(canonical_json(profile_of(parts.train.frame, spec.at, model)))
    holdout = parts.holdout
    accepted = holdout.frame.filter(pl.Series(model.accepts(holdout.frame)))
    if not accepted.height:
        raise Invalid(
            "the model refuses every row of the holdout, because each has a null that it cannot do without",
            hint="add an imputer before the estimator, or use one that accepts nulls, such as LightGBM",
            code="nothing_acceptable",
        )
    rows = parity_rows(contract, parts.train.frame, accepted, task.seed)
    with_native(rows, native.answers(contract.inputs, rows)).write_parquet(workspace / PARITY_FILE)
    kept = dict.fromkeys([*(i.name for i in contract.inputs), *(k.name for k in spec.keys), *spec.slices, spec.at])
    holdout.frame.select(*kept).with_columns(pl.Series(spec.label, holdout.label)).write_parquet(
        workspace / HOLDOUT_FILE
    )
    return contract


def _metrics(spec: TrainingSpec, parts: Split, model: LoadedModel) -> tuple[dict[str, float], int]:
    """The figures of the converted model, on the rows that its contract accepts, and how many it refuses."""
    found: dict[str, float] = {}
    refused = 0
    for name, part in (("train", parts.train), ("validation", parts.validation), ("holdout", parts.holdout)):
        accepted = model.accepts(part.frame)
        refused += int((~accepted).sum())
        if name == "holdout":  # its figures are evidence, and are measured as such
            continue
        if not accepted.any():
            continue
        scores = model.answers(part.frame.filter(pl.Series(accepted)))[model.contract.score]
        for metric in METRICS[spec.task]:
            try:
                found[f"{name}_{metric}"] = measure(metric, spec.task, part.label[accepted], scores)
            except NotMeasurable:
                continue  # such as an area under the curve of one class; an absent figure says so
    return found, refused


def _library(estimator: Estimator) -> str:
    name = library_of(final_step(estimator))
    return f"{name} {metadata.version({'sklearn': 'scikit-learn'}.get(name, name))}"
