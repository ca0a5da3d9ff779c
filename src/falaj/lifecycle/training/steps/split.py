"""A training frame → labels as numbers, parts by time, categories frozen from the training part."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.encoding import Values
from falaj.lifecycle.training.model import Input, TrainingSpec

MOST_CATEGORIES = 1000
"""More values than this are an identifier, not a category."""

_POLARS = {"float": pl.Float64, "integer": pl.Int64, "boolean": pl.Boolean, "category": pl.String}


@dataclass(frozen=True)
class Part:
    """Rows of one part: the frame in raw form, and the label as class index (int64) or value (float64)."""

    frame: pl.DataFrame
    label: NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """The three parts, oldest first, with what is known after looking at the training part."""

    train: Part
    validation: Part
    holdout: Part
    inputs: tuple[Input, ...]  # with categories
    classes: tuple[str, ...]
    rows: dict[str, int]


def split(spec: TrainingSpec, frame: pl.DataFrame) -> Split:
    """Divide a frame by time; never at random, so that nothing of the future is learnt from.

    Rows without a label (NaN is none) or a time are dropped and counted. Rows of one moment stay together.
    Raises `Invalid` for missing columns, a column of another type than declared, a feature that is
    null everywhere, too few classes, and parts without rows.
    """
    _check_columns(spec, frame)
    labelled = frame.filter(pl.col(spec.label).is_not_null() & pl.col(spec.at).is_not_null())
    if labelled.schema[spec.label].is_float():  # as a table with gaps gives them
        labelled = labelled.filter(pl.col(spec.label).is_finite())
    rows = {"given": frame.height, "without_label": frame.height - labelled.height, "labelled": labelled.height}
    if not labelled.height:
        raise Invalid(
            f"no row of the training set has a label ({spec.label}) and a time ({spec.at})",
            hint="check the label's column, and that outcomes have been ingested up to the as-of time",
            code="no_labelled_rows",
        )
    # The order is total: rows of one moment are ordered by their own content, so two runs see the same rows.
    ordered = labelled.sort(spec.at, *(c for c in labelled.columns if c != spec.at), nulls_last=True)
    names = {i.name for i in spec.inputs}
    keys = [pl.col(k.name).cast(pl.String) for k in spec.keys if k.name not in names]  # as a request sends them
    raw = ordered.with_columns(*(_raw(i) for i in spec.inputs), *keys)
    label, classes = _labels(spec, raw)
    parts = train, validation, holdout = _by_time(spec, raw, label)
    for name, part in zip(("train", "validation", "holdout"), parts, strict=True):
        rows[name] = part.frame.height
    _check_classes(spec, train, classes)
    inputs = tuple(_freeze(i, train.frame) for i in spec.inputs)
    return Split(train, validation, holdout, inputs, classes, rows)


def raw_columns(frame: pl.DataFrame, inputs: tuple[Input, ...]) -> dict[str, Values]:
    """The columns of a frame as `Encoder` takes them."""
    return {
        i.name: frame[i.name].to_list()
        if i.type == "category"
        else frame[i.name].cast(pl.Float64).fill_null(math.nan).to_numpy()
        for i in inputs
    }


def _check_columns(spec: TrainingSpec, frame: pl.DataFrame) -> None:
    wanted = [spec.label, spec.at, *(i.name for i in spec.inputs), *(k.name for k in spec.keys), *spec.slices]
    missing = sorted({name for name in wanted if name not in frame.columns})
    if missing:
        raise Invalid(
            f"the training set has no column {', '.join(missing)}",
            hint=f"it has {', '.join(frame.columns)}; check the features, the label and the slices of {spec.model}",
            code="missing_column",
            details={"columns": missing},
        )
    for i in spec.inputs:
        have = frame.schema[i.name]
        fits = {
            "float": have.is_numeric(),
            "integer": have.is_integer() or have.is_float(),
            "boolean": have == pl.Boolean or have.is_integer(),
            "category": have in (pl.String, pl.Categorical, pl.Enum, pl.Boolean) or have.is_integer(),
        }[i.type]
        if not fits and have != pl.Null:
            raise Invalid(
                f"{i.name} is declared as {i.type} but the data has {have}",
                hint=f"declare {i.name} with the type it has, or convert it where it is prepared",
                code="wrong_feature_type",
            )


def _raw(i: Input) -> pl.Expr:
    column = pl.col(i.name)
    if i.type == "float":  # not finite is not known
        value = column.cast(pl.Float64)
        return pl.when(value.is_finite()).then(value).otherwise(None).alias(i.name)
    return column.cast(_POLARS[i.type])


def _labels(spec: TrainingSpec, frame: pl.DataFrame) -> tuple[NDArray[np.int64] | NDArray[np.float64], tuple[str, ...]]:
    column = frame[spec.label]
    if spec.task == "regression":
        if not column.dtype.is_numeric():
            raise Invalid(
                f"the label {spec.label} is {column.dtype}, and a regression needs a number",
                hint="name a numeric label, or choose the task 'binary' or 'multiclass'",
                code="wrong_label_type",
            )
        return column.cast(pl.Float64).to_numpy(), ()
    if column.dtype.is_float():
        if not bool((column == column.floor()).all()):
            raise Invalid(
                f"the label {spec.label} has fractions, and {spec.task} needs classes",
                hint="choose the task 'regression', or make the label a string, a boolean or a whole number",
                code="wrong_label_type",
            )
        column = column.cast(pl.Int64)
    names = column.cast(pl.String)
    classes = tuple(sorted(names.unique().to_list()))
    if spec.task == "binary":
        classes = _binary_classes(spec, classes)
    codes = names.cast(pl.Enum(list(classes))).to_physical().cast(pl.Int64)
    return codes.to_numpy(), classes


def _binary_classes(spec: TrainingSpec, classes: tuple[str, ...]) -> tuple[str, ...]:
    if len(classes) == 1:
        raise _one_class(spec, classes[0])
    if len(classes) != 2:
        raise Invalid(
            f"the label {spec.label} has {len(classes)} classes ({', '.join(classes[:6])}), and binary needs two",
            hint="choose the task 'multiclass', or make the label a boolean",
            code="wrong_class_count",
        )
    if spec.positive not in classes:
        raise Invalid(
            f"the positive class {spec.positive!r} is not among {', '.join(classes)}",
            hint=f"set positive={classes[1]!r}, or the other one",
            code="unknown_positive",
        )
    return (classes[0] if classes[1] == spec.positive else classes[1], spec.positive)


def _one_class(spec: TrainingSpec, only: str) -> Invalid:
    return Invalid(
        f"every row of the training part has the label {only!r}: there is nothing to tell apart",
        hint=f"check how {spec.label} is computed, or train on a longer time",
        code="one_class",
    )


def _by_time(
    spec: TrainingSpec, frame: pl.DataFrame, label: NDArray[np.int64] | NDArray[np.float64]
) -> tuple[Part, Part, Part]:
    at = frame[spec.at]

    def cut(end: int, share: float) -> int:
        if share <= 0:
            return end
        moment = at[min(max(math.floor(end * (1 - share)), 0), end - 1)]
        return int((at < moment).sum())

    last = cut(frame.height, spec.holdout)
    middle = cut(last, spec.validation) if last else 0
    parts = (
        Part(frame[:middle], label[:middle]),
        Part(frame[middle:last], label[middle:last]),
        Part(frame[last:], label[last:]),
    )
    empty = [
        name
        for name, part, share in zip(
            ("training", "validation", "holdout"), parts, (1.0, spec.validation, 1.0), strict=True
        )
        if share > 0 and not part.frame.height
    ]
    if empty:
        raise Invalid(
            f"{frame.height} labelled rows leave none for {' and '.join(empty)}",
            hint=f"bring more rows, spread over time in {spec.at}, or change the shares for holdout and validation",
            code="too_few_rows",
        )
    return parts


def _check_classes(spec: TrainingSpec, train: Part, classes: tuple[str, ...]) -> None:
    if not classes:
        return
    seen = np.unique(train.label)
    if len(seen) == 1:
        raise _one_class(spec, classes[int(seen[0])])
    if len(seen) != len(classes):
        later = [c for n, c in enumerate(classes) if n not in seen]
        raise Invalid(
            f"the class {', '.join(later[:6])} is seen only after the training part ends",
            hint="train on a longer time, hold out less, or join rare classes into one",
            code="unseen_class",
        )


def _freeze(i: Input, frame: pl.DataFrame) -> Input:
    column = frame[i.name].drop_nulls()
    if not column.len():
        raise Invalid(
            f"the feature {i.name} is null in every row of the training part",
            hint=f"check the view {i.view} and its TTL" if i.view else f"check the column {i.name} of the spine",
            code="feature_all_null",
            details={"input": i.name},
        )
    if i.type != "category":
        return i
    categories = tuple(sorted(column.unique().to_list()))
    if len(categories) > MOST_CATEGORIES:
        raise Invalid(
            f"{i.name} has {len(categories)} categories, more than {MOST_CATEGORIES}",
            hint="group rare values where the feature is computed, or use a number such as a rate instead",
            code="too_many_categories",
        )
    return msgspec.structs.replace(i, categories=categories)
