"""Gates on predictions that somebody else's model made: a table of labels and scores, and no model.

What needs a model (latency, parity, scan, provenance) cannot be measured so, and is told as an Error: not measured is
not passed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.digests import sha256_file
from falaj.kernel.errors import FalajError, Invalid
from falaj.lifecycle.data.steps.tables import columns_of, pieces
from falaj.lifecycle.evidence.model import (
    CHAMPION,
    Finding,
    GateSpec,
    Measurement,
    PredictionsOutcome,
    PredictionsTask,
    asked_for,
    in_doubt,
    judge,
)
from falaj.lifecycle.evidence.steps.champion import Beside, not_worse
from falaj.lifecycle.evidence.steps.quality import Holdout, by_slice, interval, metric
from falaj.lifecycle.training.model import TASKS
from falaj.lifecycle.training.steps.metrics import measure
from falaj.workflow.reporting import Reporter

_TRUE = ("true", "1", "1.0", "yes")


def run(task: PredictionsTask, report: Reporter) -> PredictionsOutcome:
    """Measure each gate that is asked for. Raises `Invalid` for a table or a declaration that cannot be used."""
    gates = asked_for(task.gates, task.only)
    bench = Bench(task, gates)
    found: list[Finding] = []
    for n, gate in enumerate(gates):
        report.progress(f"measuring {gate.name}", n, len(gates))
        finding = judge(gate, bench.take(gate))
        found.append(in_doubt(finding) if task.sure else finding)
    artifact = Path(task.artifact) if task.artifact else Path(task.predictions)
    return PredictionsOutcome(
        name=artifact.name,
        subject=sha256_file(artifact),
        predictions=bench.digest,
        rows=len(bench.holdout.labels),
        unlabelled=bench.unlabelled,
        findings=tuple(found),
    )


class Bench:
    """The table, read once, and the readings taken from it."""

    def __init__(self, task: PredictionsTask, gates: tuple[GateSpec, ...]) -> None:
        self._task = task
        path = Path(task.predictions)
        self.digest = sha256_file(path)
        frame = _read(task, gates)
        if sha256_file(path) != self.digest:
            raise Invalid("the table changed while it was read", hint="check it again", code="table_changed")
        if frame.schema[task.label].is_float():  # NaN is no label: so a table with gaps has it
            frame = frame.with_columns(pl.col(task.label).fill_nan(None))
        labelled = frame.filter(pl.col(task.label).is_not_null())
        self.unlabelled = frame.height - labelled.height
        if not labelled.height:
            raise Invalid(
                f"no row has a label in {task.label}",
                hint="check predictions of which it is known what became true",
                code="no_labels",
            )
        labels = _labels(task, labelled[task.label])
        self.holdout = Holdout(task.task, labelled, labels, _scores(task, labelled, task.scores), 0)
        self._champion = _scores(task, labelled, task.champion) if task.champion else None

    def take(self, gate: GateSpec) -> Measurement:
        """One reading, with what it was taken on in its detail."""
        task = self._task
        try:
            if gate.kind == "metric":
                taken = metric(gate, self.holdout, task.resamples, task.seed)
            elif gate.kind == "slice":
                taken = self._worst_slice(gate)
            elif gate.kind == CHAMPION:
                taken = self._beside(gate)
            else:
                return Measurement(gate.name, None, problem=f"not measured: {gate.kind} needs the model itself")
        except FalajError as e:
            return Measurement(gate.name, None, problem=e.message)
        return msgspec.structs.replace(taken, detail={"predictions": self.digest, **taken.detail})

    def _worst_slice(self, gate: GateSpec) -> Measurement:
        taken = by_slice(gate, self.holdout)
        worst = taken.detail.get("worst")
        if worst is None:
            return taken
        named = self.holdout.frame[gate.by].cast(pl.String).fill_null("null")
        places = np.flatnonzero((named == worst).to_numpy())

        def drawn(rows: NDArray[np.int64]) -> float:
            at = places[rows]
            return measure(gate.metric, self.holdout.task, self.holdout.labels[at], self.holdout.scores[at])

        more = interval(drawn, len(places), self._task.resamples, self._task.seed)
        return msgspec.structs.replace(taken, detail={**taken.detail, **more})

    def _beside(self, gate: GateSpec) -> Measurement:
        if self._champion is None:
            return Measurement(gate.name, None, {CHAMPION: ""}, problem="no column has the champion's scores")
        said = ", ".join(self._task.champion)
        facts = {
            CHAMPION: f"{self.digest} {said}",
            "champion_alias": f"column {said}",
            "rows": len(self.holdout.labels),
        }
        pair = Beside(self.holdout.task, self.holdout.labels, self.holdout.scores, self._champion, facts)
        return not_worse(gate, pair, self._task.resamples, self._task.seed)


def _read(task: PredictionsTask, gates: tuple[GateSpec, ...]) -> pl.DataFrame:
    if task.task not in TASKS:
        raise Invalid(
            f"there is no task {task.task[:40]!r}", hint=f"use one of {', '.join(TASKS)}", code="wrong_definition"
        )
    several = task.task == "multiclass"
    if several and not (len(task.scores) == len(task.classes) >= 2):
        raise Invalid(
            f"{len(task.scores)} columns of scores do not fit {len(task.classes)} classes",
            hint="name each class and, in the same order, the column with its probability",
            code="wrong_definition",
        )
    if not several and len(task.scores) != 1:
        raise Invalid(
            f"a {task.task} model has one score, not {len(task.scores)}",
            hint="name the column with it",
            code="wrong_definition",
        )
    path = Path(task.predictions)
    asked = [task.label, *task.scores, *task.champion, *(g.by for g in gates if g.kind == "slice")]
    wanted, there = list(dict.fromkeys(asked)), columns_of(path, task.format)
    missing = [name for name in wanted if name not in there]
    if missing:
        raise Invalid(
            f"the table has no column {', '.join(missing)}",
            hint="name the columns that it has: label, score, champion, by",
            code="missing_column",
            details={"columns": missing},
        )
    read = list(pieces(path, task.format, wanted))
    broken = [reject for piece in read for reject in piece.rejects]
    if broken:
        raise Invalid(
            f"row {broken[0].row} cannot be read: {broken[0].reason}",
            hint="export the table again: figures on part of it would say nothing of the rest",
            code="unreadable_table",
        )
    if not any(len(piece.numbers) for piece in read):
        raise Invalid("the table has no rows", hint="export it again", code="empty_file")
    return pl.concat([piece.frame for piece in read], how="vertical_relaxed")


def _labels(task: PredictionsTask, column: pl.Series) -> NDArray[Any]:
    if task.task == "regression":
        values = column.cast(pl.Float64, strict=False)
        strange = ~values.is_finite().fill_null(False)
        if strange.any():
            raise _odd_label(task, column.filter(strange)[0], "a number")
        return values.to_numpy()
    names = _named(column)
    if task.task == "binary":
        positive = {*_TRUE} if task.positive.lower() in _TRUE else {task.positive.lower()}
        seen = sorted({name.lower() for name in names.unique()} - positive)
        if len(seen) > 1:
            raise _odd_label(task, seen[1], f"one of two classes, of which {task.positive} is the positive one")
        return names.str.to_lowercase().is_in(list(positive)).cast(pl.Int64).to_numpy()
    places = {name: n for n, name in enumerate(task.classes)}
    odd = [name for name in names.unique() if name not in places]
    if odd:
        raise _odd_label(task, odd[0], f"one of the classes {', '.join(task.classes)}")
    return np.array([places[name] for name in names], dtype=np.int64)


def _named(column: pl.Series) -> pl.Series:
    """Labels as text; whole floats as whole numbers, as a table with gaps gives them."""
    if column.dtype.is_float() and bool((column.is_finite() & (column == column.floor())).all()):
        column = column.cast(pl.Int64)
    return column.cast(pl.String)


def _scores(task: PredictionsTask, frame: pl.DataFrame, names: tuple[str, ...]) -> NDArray[Any]:
    """Scores of shape [rows], or [rows, classes]; NaN where there is none, which no gate passes."""
    columns = [frame[name].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy() for name in names]
    return np.column_stack(columns) if task.task == "multiclass" else columns[0]


def _odd_label(task: PredictionsTask, value: object, wanted: str) -> Invalid:
    return Invalid(
        f"the label {task.label} is {str(value)[:40]!r} in a row, and that is not {wanted}",
        hint="mend the table, or say in the gates what the label means",
        code="wrong_label_type",
    )
