"""What another version would have answered: it is run on the very inputs that were recorded, and judged by the labels.

Both figures of a period rest on the same rows. A version that reads what was not recorded is refused: no value is
guessed. Where the version itself answered, its recomputed scores must equal the recorded ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.clock import iso
from falaj.kernel.digests import manifest, manifest_digest
from falaj.kernel.errors import Conflict, FalajError, Integrity, Invalid, NotFound
from falaj.lifecycle.monitoring.model import (
    BACKTEST_METRICS,
    Answerer,
    BacktestOutcome,
    BacktestPeriod,
    BacktestTask,
    Figure,
    Reproduced,
)
from falaj.lifecycle.monitoring.steps import recorded
from falaj.lifecycle.monitoring.steps.recorded import Row
from falaj.lifecycle.training.model import LOWER_IS_BETTER, ModelContract
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.lifecycle.training.steps.metrics import NotMeasurable, measure
from falaj.lifecycle.training.steps.parity import difference
from falaj.workflow.reporting import Reporter

TOLERANCE = 1e-6
"""By how much a recomputed score may differ from the recorded one; relative to the value for a regression above 1."""
_EVERY = {"day": "1d", "week": "1w", "month": "1mo"}
_KEPT = {"prediction": pl.String(), "row": pl.Int64(), "at": pl.Int64(), "digest": pl.String()}
_LABELS = {"prediction": pl.String(), "row": pl.Int64(), "label": pl.Float64()}

Scores = NDArray[np.float64]
"""Of shape [rows, columns]; NaN where there is no answer."""


@dataclass
class _Answers:
    """What is kept of the rows: who answered, and both scores. `unanswered` rows are counted only."""

    frames: list[pl.DataFrame] = field(default_factory=list)  # of `_KEPT`
    served: list[Scores] = field(default_factory=list)
    version: list[Scores] = field(default_factory=list)
    unanswered: int = 0


@dataclass(frozen=True)
class _Compared:
    """All rows in the order of their moments. `labels` is NaN where none has come."""

    task: str
    frame: pl.DataFrame  # at, digest, start
    labels: Scores  # [rows]
    served: Scores
    version: Scores


def run(task: BacktestTask, report: Reporter) -> BacktestOutcome:
    """Let the version answer the recorded requests and compare.

    Memory holds a batch of rows at a time, and of each row its id and its scores.

    Raises `NotFound` (no_predictions), `Conflict` (no_labels), `Invalid` (not_recorded, not_comparable) and
    `Integrity` (model_changed, not_reproduced, and for damaged records).
    """
    ask = task.ask
    model = _loaded(task)
    answers = _Answers()
    for rows in recorded.batches(task.recorded, ask.start_us, ask.end_us):
        _answer(task, model, rows, answers)
        report.progress("answering recorded requests", sum(f.height for f in answers.frames))
    if not answers.frames:
        raise _no_predictions(task)
    report.progress("comparing with the labels")
    compared = _compare(task, model.contract, answers)
    if not np.isfinite(compared.labels).any():
        raise _no_labels(task, len(compared.labels))
    at = compared.frame["at"]
    starts = compared.frame["start"]
    periods = tuple(
        _period(task, compared, (starts == start).to_numpy(), start.date().isoformat())
        for start in starts.unique().sort()
    )
    return BacktestOutcome(
        version=ask.alias,
        digest=ask.digest,
        task=model.contract.task,
        by=ask.by,
        first_at=_moment(at[0]),
        last_at=_moment(at[-1]),
        unanswered=answers.unanswered,
        periods=periods,
        total=_period(task, compared, np.ones(len(at), dtype=bool), ""),
        reproduced=_reproduced(task, compared),
        views_changed=_views_changed(task, model.contract, compared.frame["digest"]),
        as_of="" if task.as_of_us is None else _moment(task.as_of_us),
    )


def _loaded(task: BacktestTask) -> LoadedModel:
    folder = Path(task.folder)
    if manifest_digest(manifest(folder)) != task.ask.digest:
        raise Integrity(
            f"the files of {task.ask.alias} are not those that its digest names",
            hint="restore the home's blobs folder from a backup",
            code="files_differ",
        )
    return LoadedModel.read(folder)


def _answer(task: BacktestTask, model: LoadedModel, rows: Sequence[Row], answers: _Answers) -> None:
    """Add what callers got for these rows, and what the version says to them."""
    answered = [r for r in rows if r.outputs]
    answers.unanswered += len(rows) - len(answered)
    if not answered:
        return
    for digest in {r.digest for r in answered}:
        _check_comparable(task, model.contract, digest)
    served = [r.outputs[task.answerers[r.digest].score] for r in answered]
    answers.frames.append(pl.DataFrame([r[:4] for r in answered], schema=_KEPT, orient="row"))
    answers.served.append(np.asarray(served, dtype=np.float64).reshape(len(answered), -1))
    answers.version.append(_scores(task, model, answered))


def _scores(task: BacktestTask, model: LoadedModel, rows: Sequence[Row]) -> Scores:
    """The version's scores; NaN where its contract refuses the row or its answer is not finite."""
    columns = {i.name: _column(task, i.name, rows) for i in model.contract.inputs}
    try:
        accepted = model.encoder.accepts(columns)
        kept = columns if accepted.all() else {n: _where(values, accepted) for n, values in columns.items()}
        matrix = model.encoder.encode(kept)
    except FalajError as e:
        raise Invalid(
            f"{task.ask.alias} cannot read what was recorded: {e.message}",
            hint="the feature has another type now: take a range in which versions of the same inputs answered, "
            "with --from and --until",
            code="not_comparable",
        ) from e
    width = len(model.contract.classes) if model.contract.task == "multiclass" else 1
    scores = np.full((len(rows), width), np.nan)
    if len(matrix):
        scores[accepted] = np.asarray(model.run(matrix)[model.contract.score], np.float64).reshape(len(matrix), -1)
    scores[~np.isfinite(scores).all(axis=1)] = np.nan
    return scores


def _column(task: BacktestTask, name: str, rows: Sequence[Row]) -> list[Any]:
    """An input's recorded values. A null was recorded as such; a name that is not there was not recorded."""
    try:
        return [r.values[name] for r in rows]
    except KeyError:
        lacking = next(r for r in rows if name not in r.values)
        who = task.answerers[lacking.digest].alias
        raise Invalid(
            f"{task.ask.alias} reads {name}, which was not recorded on {_moment(lacking.at)[:10]}, when {who} answered",
            hint="take a range in which versions that read it answered, with --from and --until: "
            "what was not recorded is not guessed",
            code="not_recorded",
            details={"input": name, "prediction": lacking.prediction, "answered_by": who},
        ) from None


def _where(values: list[Any], kept: NDArray[np.bool_]) -> list[Any]:
    return [value for value, keep in zip(values, kept, strict=True) if keep]


def _check_comparable(task: BacktestTask, contract: ModelContract, digest: str) -> None:
    """The label is coded by the answering version's classes, so both must mean the same by it."""
    found = task.answerers.get(digest)
    if found is None:
        raise NotFound(
            f"{digest} answered, and the registry knows no contract of it",
            hint="restore the home's database and blobs from a backup of the same moment as its journal",
            code="model_contract_missing",
        )
    for what in ("task", "label", "classes"):
        ours, theirs = getattr(contract, what), getattr(found, what)
        if ours != theirs:
            raise Invalid(
                f"{task.ask.alias} cannot be compared with {found.alias}: its {what} is {ours}, that one's {theirs}",
                hint="take a range in which comparable versions answered, with --from and --until",
                code="not_comparable",
            )


def _compare(task: BacktestTask, contract: ModelContract, answers: _Answers) -> _Compared:
    """Join the labels and put the rows in order."""
    try:
        labels = pl.read_csv(task.labels, has_header=False, schema=_LABELS)
    except pl.exceptions.NoDataError:
        labels = pl.DataFrame(schema=_LABELS)
    frame = (
        pl.concat(answers.frames)
        .with_row_index("place")
        .join(labels, on=["prediction", "row"], how="left")
        .sort("at", "prediction", "row")
        .with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
        .with_columns(start=pl.col("at").dt.truncate(_EVERY[task.ask.by]))
    )
    order = frame["place"].to_numpy()
    values = frame["label"].fill_null(np.nan).to_numpy()
    served, version = np.concatenate(answers.served)[order], np.concatenate(answers.version)[order]
    columns = frame.select("at", "digest", "start")
    return _Compared(contract.task, columns, _usable(contract, values), served, version)


def _usable(contract: ModelContract, labels: Scores) -> Scores:
    """Labels as `measure` takes them. One that names no class is none."""
    if contract.task == "binary":
        return np.where(np.isfinite(labels), labels > 0.5, np.nan)
    if contract.task == "multiclass":
        known = (labels == np.floor(labels)) & (labels >= 0) & (labels < len(contract.classes))
        return np.where(known, labels, np.nan)
    return np.where(np.isfinite(labels), labels, np.nan)


def _period(task: BacktestTask, compared: _Compared, rows: NDArray[np.bool_], start: str) -> BacktestPeriod:
    labelled = rows & np.isfinite(compared.labels)
    answered = np.isfinite(compared.version).all(axis=1)
    both = labelled & answered
    frame = compared.frame.filter(pl.Series(rows))
    counts = frame["digest"].value_counts(sort=True)
    as_of = task.as_of_us
    return BacktestPeriod(
        start=start,
        rows=int(rows.sum()),
        labelled=int(labelled.sum()),
        compared=int(both.sum()),
        refused=int((rows & ~answered).sum()),
        seen=0 if as_of is None else int((frame["at"].dt.epoch("us") < as_of).sum()),
        answered_by={task.answerers[d].alias: n for d, n in counts.iter_rows()},
        figures=_figures(compared, both, bool(labelled.any())),
    )


def _figures(compared: _Compared, rows: NDArray[np.bool_], labelled: bool) -> tuple[Figure, ...]:
    names = BACKTEST_METRICS[compared.task]
    if not rows.any():
        problem = "it has no answer to any labelled row" if labelled else "no label has come"
        return tuple(Figure(name, problem=problem) for name in names)
    labels = compared.labels[rows]
    labels = labels if compared.task == "regression" else labels.astype(np.int64)
    served, version = (
        s[rows] if compared.task == "multiclass" else s[rows, 0] for s in (compared.served, compared.version)
    )
    return tuple(_figure(name, compared.task, labels, served, version) for name in names)


def _figure(metric: str, task: str, labels: NDArray[Any], served: Scores, version: Scores) -> Figure:
    try:
        then, now = measure(metric, task, labels, served), measure(metric, task, labels, version)
    except NotMeasurable as e:
        return Figure(metric, problem=str(e))
    apart = now - then
    better = None if apart == 0 else (apart < 0) is (metric in LOWER_IS_BETTER)
    return Figure(metric, then, now, apart, better)


def _reproduced(task: BacktestTask, compared: _Compared) -> Reproduced:
    """Compare where the version answered itself. Raises `Integrity` (not_reproduced) beyond the tolerance."""
    own = (compared.frame["digest"] == task.ask.digest).to_numpy()
    if not own.any():
        return Reproduced(0, None, TOLERANCE)
    apart = difference(compared.task, compared.served[own], compared.version[own])
    largest = float(apart.max())
    if largest > TOLERANCE:
        wrong = int((apart > TOLERANCE).sum())
        raise Integrity(
            f"{task.ask.alias} does not give again what was recorded: {wrong:,} of the {len(apart):,} rows that it answered "
            f"itself differ, by up to {largest:.3g}",
            hint="figures that rest on such a recomputation say nothing: compare the runtime here with the one that served",
            code="not_reproduced",
            details={"rows": len(apart), "differ": wrong},
        )
    return Reproduced(len(apart), largest, TOLERANCE)


def _views_changed(task: BacktestTask, contract: ModelContract, answered: pl.Series) -> tuple[str, ...]:
    """The version's views of which the recorded values are another version's."""
    found: list[Answerer] = [task.answerers[d] for d in answered.unique()]
    changed = {v.name for v in contract.views if any(a.views.get(v.name, v.digest) != v.digest for a in found)}
    return tuple(sorted(changed))


def _moment(value: datetime | int) -> str:
    return iso(value if isinstance(value, datetime) else datetime.fromtimestamp(value / 1e6, UTC))


def _no_predictions(task: BacktestTask) -> NotFound:
    ask = task.ask
    given = ask.start_us is not None or ask.end_us is not None
    return NotFound(
        f"no answer of {ask.model} is recorded{' in this range' if given else ''}",
        hint="take a wider range: --from, --until"
        if given
        else f"ask it first: `falaj predict {ask.model} --data FILE`",
        code="no_predictions",
    )


def _no_labels(task: BacktestTask, rows: int) -> Conflict:
    return Conflict(
        f"no label has come of the {rows:,} rows of {task.ask.model} in this range",
        hint=f"send what became true: `falaj labels push {task.ask.model} --data FILE`",
        code="no_labels_yet",
    )
