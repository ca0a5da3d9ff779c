"""Freeze the reference of a model that somebody else serves: a table of what it was asked and what it answered."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.digests import canonical_json, sha256, sha256_file
from falaj.kernel.errors import Invalid
from falaj.lifecycle.data.steps.tables import Piece, columns_of, moments, pieces
from falaj.lifecycle.monitoring.model import ExternalModel, ReferenceOutcome, ReferenceTask
from falaj.lifecycle.training.model import (
    CONTRACT_FILE,
    PROFILE_FILE,
    Input,
    ModelContract,
    Output,
    Profile,
    read_profile,
)
from falaj.lifecycle.training.steps.profile import feature_profile, numbers, parts_of
from falaj.lifecycle.training.steps.split import MOST_CATEGORIES
from falaj.lifecycle.training.steps.values import values_of
from falaj.statistics.distances import PARTS_A_DAY
from falaj.storage.parcels import unpack
from falaj.workflow.reporting import Reporter

_POLARS = {"float": pl.Float64(), "integer": pl.Int64(), "boolean": pl.Boolean(), "category": pl.String()}


def run(task: ReferenceTask, report: Reporter) -> ReferenceOutcome:
    """Write contract and profile to the workspace.

    Raises `Invalid` for a table that lacks a column or holds a value that is not of its input's type: what live answers
    are compared with must be whole.
    """
    report.progress("reading the reference")
    task = msgspec.structs.replace(task, table=str(unpack(Path(task.table), Path(task.workspace))))
    frame = _read(task)
    report.progress("freezing the profile")
    model = task.model
    inputs = tuple(_input(name, kind, frame[name]) for name, kind in model.inputs.items())
    contract = ModelContract(
        model=model.name,
        task=model.task,
        inputs=inputs,
        keys=(),
        views=(),
        outputs=(Output(model.score, "FP64", ""),),
        score=model.score,
        classes=model.classes,
        tensor="",
        label=model.label,
    )
    parts = parts_of(frame[model.at]) if model.at else None
    score = tuple(numbers(_finite(model, frame, name), parts) for name in model.columns)
    days = 0 if parts is None else len(np.unique(parts // PARTS_A_DAY))
    profile = Profile(frame.height, {i.name: feature_profile(i, frame[i.name], parts) for i in inputs}, score, days)
    written = {CONTRACT_FILE: canonical_json(contract), PROFILE_FILE: canonical_json(profile)}
    read_profile(written[PROFILE_FILE], contract)
    for name, data in written.items():
        (Path(task.workspace) / name).write_bytes(data)
    return ReferenceOutcome(
        sha256_file(Path(task.table)), frame.height, days, *(sha256(data) for data in written.values())
    )


def _read(task: ReferenceTask) -> pl.DataFrame:
    model, path = task.model, Path(task.table)
    wanted = [*model.inputs, *model.columns, *([model.at] if model.at else [])]
    have = columns_of(path, task.format)
    missing = [name for name in wanted if name not in have]
    if missing:
        raise Invalid(
            f"the reference has no column {', '.join(missing)}",
            hint=f"it has {', '.join(have[:20])}; inputs and scores stand in it by their names",
            code="missing_column",
            details={"columns": missing},
        )
    frames = []
    for piece in pieces(path, task.format, wanted):
        if piece.rejects:
            raise _broken(piece.rejects[0].row, piece.rejects[0].reason)
        columns = [_column(name, kind, piece) for name, kind in model.inputs.items()]
        columns += [_column(name, "float", piece) for name in model.columns]
        if model.at:
            at = moments(piece.frame[model.at])
            if at.null_count():
                raise _broken(
                    int(piece.numbers[int(at.is_null().arg_max() or 0)]), f"{model.at} is no moment with a zone"
                )
            columns.append(at.alias(model.at))
        frames.append(pl.DataFrame(columns))
    if not frames or not sum(f.height for f in frames):
        raise Invalid("the reference has no rows", hint="export it again", code="empty_file")
    return pl.concat(frames)


def _column(name: str, kind: str, piece: Piece) -> pl.Series:
    column = piece.frame[name]
    values, bad = values_of(Input(name, kind), column)
    if bad.any():
        place = int(np.argmax(bad))
        raise _broken(int(piece.numbers[place]), f"{name} is {str(column[place])[:40]!r}, and that is no {kind}")
    if not isinstance(values, np.ndarray):
        return pl.Series(name, values, dtype=pl.String)
    return pl.Series(name, values).fill_nan(None).cast(_POLARS[kind])


def _input(name: str, kind: str, column: pl.Series) -> Input:
    if kind != "category":
        return Input(name, kind)
    categories = tuple(sorted(column.drop_nulls().unique().to_list()))
    if len(categories) > MOST_CATEGORIES:
        raise Invalid(
            f"{name} has {len(categories)} categories, more than {MOST_CATEGORIES}",
            hint="leave it out, or group rare values",
            code="too_many_categories",
        )
    return Input(name, kind, categories=categories)


def _finite(model: ExternalModel, frame: pl.DataFrame, name: str) -> NDArray[np.float64]:
    values = frame[name].fill_null(np.nan).to_numpy()
    if not np.isfinite(values).any():
        raise Invalid(
            f"no row of the reference has a score in {name}",
            hint=f"give what {model.name} answered beside what it was asked",
            code="missing_column",
        )
    return values


def _broken(row: int, why: str) -> Invalid:
    return Invalid(
        f"row {row} of the reference cannot be used: {why}",
        hint="mend the table: what live answers are compared with must be whole",
        code="bad_reference_table",
    )
