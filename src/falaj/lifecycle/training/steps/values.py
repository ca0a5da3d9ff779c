"""The columns of a table as the encoder takes them, whatever types a file gave them."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.lifecycle.training.encoding import LARGEST, Values
from falaj.lifecycle.training.model import Input

Flags = NDArray[np.bool_]
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def values_of(spec: Input, column: pl.Series) -> tuple[Values, Flags]:
    """A column as `Encoder` takes it, and which of its values do not mean a value of the input's type."""
    if spec.type == "category":
        text = column if column.dtype == pl.String else _as_text(column)
        return text.to_list(), _lost(column, text)
    read = _truth(column) if spec.type == "boolean" else _number(column)
    bad = _lost(column, read)
    numbers = read.cast(pl.Float64).fill_null(np.nan).to_numpy()
    known = ~np.isnan(numbers)
    bad |= known & ~(np.abs(numbers) <= LARGEST)
    if spec.type == "integer":
        bad |= known & (numbers != np.floor(numbers))
    return np.where(bad, np.nan, numbers), bad


def _as_text(column: pl.Series) -> pl.Series:
    whole = column.dtype.is_integer() or column.dtype in (pl.Boolean, pl.Categorical, pl.Enum, pl.Null)
    return column.cast(pl.String) if whole else pl.Series(column.name, [None] * len(column), dtype=pl.String)


def _number(column: pl.Series) -> pl.Series:
    """Numbers; NaN is not known. A truth value is no number."""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    if column.dtype in (pl.Boolean, pl.Object) or column.dtype.is_temporal() or column.dtype.is_nested():
        return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    return column.cast(pl.Float64, strict=False)


def _truth(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Boolean:
        return column
    text = column.cast(pl.String, strict=False) if column.dtype == pl.String or column.dtype.is_integer() else None
    if text is None:
        numbers = _number(column)
        return pl.Series(column.name, [v == 1 if v in (0, 1) else None for v in numbers], dtype=pl.Boolean)
    return pl.Series(column.name, [_TRUTH.get(v.strip().lower()) if v else None for v in text], dtype=pl.Boolean)


def _lost(before: pl.Series, after: pl.Series) -> Flags:
    given = before.is_not_nan() & before.is_not_null() if before.dtype.is_float() else before.is_not_null()
    return (given.fill_null(False) & after.is_null()).to_numpy()
