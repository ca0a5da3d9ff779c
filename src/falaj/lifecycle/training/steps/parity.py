"""The rows on which ONNX and the estimator must agree, with the estimator's own answers.

Agreement on ordinary rows proves little: conversions go wrong at nulls, at unknown categories and at
the far ends. So the rows come in four groups: `unseen` (a sample of the holdout), `null`, `unknown`
and `extreme`, the last three made from holdout rows.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.lifecycle.training.model import Input, ModelContract

GROUP = "parity:group"
NATIVE = "parity:native"
"""The column with the estimator's scores, one list a row: probabilities of all classes, or the value."""

UNSEEN_ROWS = 500
ROWS_EACH = 5
_UNKNOWN = "parity:never seen"
_FAR = ((-10.0, "low"), (10.0, "high"), (-1000.0, "low"), (1000.0, "high"))


def groups(contract: ModelContract) -> tuple[str, ...]:
    """The groups that a contract must be tried on."""
    found = ["unseen"]
    if any(i.null == "allow" for i in contract.inputs):
        found.append("null")
    if any(i.type == "category" and i.unknown == "null" for i in contract.inputs):
        found.append("unknown")
    if any(i.type in ("float", "integer") for i in contract.inputs):
        found.append("extreme")
    return tuple(found)


def parity_rows(contract: ModelContract, train: pl.DataFrame, holdout: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The rows, in raw form, with their group. `holdout` holds rows that the contract accepts, at least one."""
    inputs = contract.inputs
    names = [i.name for i in inputs]
    rng = np.random.default_rng(seed)
    rows = holdout.select(names)

    def some(n: int) -> pl.DataFrame:
        drawn: pl.DataFrame = rows[rng.integers(0, rows.height, n).tolist()]
        return drawn

    sample = rows if rows.height <= UNSEEN_ROWS else rows[np.sort(rng.permutation(rows.height)[:UNSEEN_ROWS]).tolist()]
    made = [_of("unseen", sample)]
    nullable = [i for i in inputs if i.null == "allow"]
    made += [
        _of("null", some(ROWS_EACH).with_columns(pl.lit(None, rows.schema[i.name]).alias(i.name))) for i in nullable
    ]
    if nullable:
        blank = [pl.lit(None, rows.schema[i.name]).alias(i.name) for i in nullable]
        made.append(_of("null", some(ROWS_EACH).with_columns(blank)))
    for i in inputs:
        if i.type == "category" and i.unknown == "null":
            made.append(_of("unknown", some(ROWS_EACH).with_columns(pl.lit(_UNKNOWN).alias(i.name))))
        elif i.type in ("float", "integer"):
            made.append(_of("extreme", some(len(_FAR) + 1).with_columns(_extremes(i, train[i.name]))))
    return pl.concat(made)


def with_native(rows: pl.DataFrame, scores: NDArray[np.float64]) -> pl.DataFrame:
    """The rows with the estimator's own scores beside them."""
    return rows.with_columns(pl.Series(NATIVE, scores.reshape(rows.height, -1).tolist(), dtype=pl.List(pl.Float64)))


def difference(task: str, native: NDArray[np.float64], served: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest difference in each row.

    Probabilities are compared as they are. A value of a regression is compared relative to its size
    where that is above 1, since float32 keeps seven digits of any number. A NaN on one side only is
    an infinite difference.
    """
    scale = np.maximum(1.0, np.abs(native)) if task == "regression" else 1.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(native - served) / scale
    same = (native == served) | (np.isnan(native) & np.isnan(served))
    result: NDArray[np.float64] = np.where(same, 0.0, np.where(np.isfinite(apart), apart, np.inf)).max(axis=1)
    return result


def _of(group: str, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.lit(group).alias(GROUP))


def _extremes(i: Input, column: pl.Series) -> pl.Series:
    """Far below and far above what was trained on, in units of its range, and zero."""
    known = column.drop_nulls().cast(pl.Float64)
    ends = {"low": float(known.min()), "high": float(known.max())}  # type: ignore[arg-type]
    span = max(ends["high"] - ends["low"], abs(ends["high"]), 1.0)
    values = [*(min(max(ends[end] + far * span, -1e37), 1e37) for far, end in _FAR), 0.0]
    if i.type == "integer":
        return pl.Series(i.name, [math.floor(min(max(v, -(2**62)), 2**62)) for v in values], dtype=column.dtype)
    return pl.Series(i.name, values, dtype=column.dtype)
