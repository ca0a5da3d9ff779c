"""Metric and slice gates: the model's answers on the holdout, which training never saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import GateSpec, Measurement
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.lifecycle.training.steps.metrics import NotMeasurable, measure


@dataclass(frozen=True)
class Holdout:
    """The holdout as the model answers it: raw rows that the contract accepts, labels and scores."""

    task: str
    frame: pl.DataFrame
    labels: NDArray[Any]
    scores: NDArray[Any]
    refused: int  # rows that the contract does not accept


def read_rows(model: LoadedModel, path: Path) -> pl.DataFrame:
    """The holdout's rows that the contract accepts, labelled or not. Raises `Invalid` if there are none."""
    return _accepted(model, path, labelled=False)[0]


def read_holdout(model: LoadedModel, path: Path) -> Holdout:
    """Read the holdout and let the model answer it. Raises `Invalid` if there is none to judge by."""
    kept, refused = _accepted(model, path, labelled=True)
    contract = model.contract
    return Holdout(
        task=contract.task,
        frame=kept,
        labels=kept[contract.label].to_numpy(),
        scores=model.answers(kept)[contract.score],
        refused=refused,
    )


def _accepted(model: LoadedModel, path: Path, *, labelled: bool) -> tuple[pl.DataFrame, int]:
    """The rows that the contract accepts, and how many it does not."""
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as e:
        raise _missing(f"the holdout cannot be read: {type(e).__name__}") from None
    contract = model.contract
    wanted = (*((contract.label,) if labelled else ()), *(i.name for i in contract.inputs))
    lacking = [n for n in wanted if n not in frame.columns]
    if lacking:
        raise _missing(f"the holdout has no column {', '.join(lacking)}")
    if not frame.height:
        raise _missing("the holdout has no rows")
    accepted = model.accepts(frame)
    kept = frame.filter(pl.Series(accepted))
    if not kept.height:
        raise _missing("the model's contract refuses every row of the holdout")
    return kept, frame.height - kept.height


def metric(gate: GateSpec, holdout: Holdout, resamples: int, seed: int) -> Measurement:
    """One figure on the whole holdout, with a 95 % bootstrap interval (percentiles) in the detail."""
    try:
        value = measure(gate.metric, holdout.task, holdout.labels, holdout.scores)
    except (NotMeasurable, Invalid) as e:
        return Measurement(gate.name, None, problem=str(e))
    detail: dict[str, Any] = {"rows": len(holdout.labels), "refused_rows": holdout.refused}

    def drawn(rows: NDArray[np.int64]) -> float:
        return measure(gate.metric, holdout.task, holdout.labels[rows], holdout.scores[rows])

    detail |= interval(drawn, len(holdout.labels), resamples, seed)
    return Measurement(gate.name, value, detail)


def by_slice(gate: GateSpec, holdout: Holdout) -> Measurement:
    """The worst value over the slices with at least `min_rows` rows; smaller ones are reported only.

    A slice that is large enough and cannot be measured is a problem, not a pass.
    """
    if gate.by not in holdout.frame.columns:
        return Measurement(gate.name, None, problem=f"the holdout has no column {gate.by}")
    column = holdout.frame[gate.by].cast(pl.String).fill_null("null")
    slices: dict[str, dict[str, Any]] = {}
    judged: dict[str, float] = {}
    problems = []
    for value in column.unique().sort().to_list():
        mask = (column == value).to_numpy()
        rows = int(mask.sum())
        entry: dict[str, Any] = {"rows": rows, "judged": rows >= gate.min_rows}
        try:
            entry["value"] = measure(gate.metric, holdout.task, holdout.labels[mask], holdout.scores[mask])
        except Invalid as e:
            return Measurement(gate.name, None, problem=e.message)
        except NotMeasurable as e:
            entry["problem"] = str(e)
            if entry["judged"]:
                problems.append(f"{gate.by} {value} has {rows} rows and cannot be measured: {e}")
        else:
            if entry["judged"]:
                judged[value] = entry["value"]
        slices[value] = entry
    if not judged:
        problems.append(f"no value of {gate.by} has {gate.min_rows} rows")
    if problems:
        return Measurement(gate.name, None, {"slices": slices}, problem="; ".join(problems[:3]))
    worst = (min if gate.at_least is not None else max)(judged, key=judged.__getitem__)
    return Measurement(gate.name, judged[worst], {"worst": worst, "slices": slices})


def interval(figure: Callable[[NDArray[np.int64]], float], rows: int, resamples: int, seed: int) -> dict[str, Any]:
    """The 95 % bootstrap interval (percentiles) of a figure of drawn rows, as detail of a measurement.

    The same `rows`, `resamples` and `seed` draw the same rows. Empty when fewer than half of the draws can be
    measured.
    """
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = rng.integers(0, rows, rows)
        try:
            values.append(figure(drawn))
        except NotMeasurable:
            continue  # a draw without one of the classes
    if len(values) < max(resamples // 2, 2):
        return {}
    return {"interval_95": [float(q) for q in np.quantile(values, (0.025, 0.975))], "resamples": resamples}


def _missing(why: str) -> Invalid:
    return Invalid(why, hint="train the model again with enough labelled rows to hold some out", code="no_holdout")
