"""Rows as they stand in a source's files, brought to the form that its table has, without storing them."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.errors import Invalid
from falaj.lifecycle.data.model import FILE_COLUMN, ROW_COLUMN, SourceSpec
from falaj.lifecycle.data.steps import contract as rules
from falaj.lifecycle.data.steps.ingest import Prepare, run_prepare
from falaj.storage.lake import delta

Numbers = NDArray[np.int64]


def prepared(
    source: SourceSpec, contract: object, prepare: Prepare | None, frame: pl.DataFrame, numbers: Numbers
) -> tuple[pl.DataFrame, Numbers, list[tuple[int, str]]]:
    """The rows after contract and `prepare`, with their numbers, and each row that breaks the contract with the rule.

    Raises `Invalid` for a missing column, and when `prepare` fails or does not return each row once.
    """
    schema = rules.as_schema(contract)
    unknown = list(source.null_values)
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    raw = frame.with_columns(pl.when(~pl.col(name).is_in(unknown)).then(name).alias(name) for name in texts)
    missing = [n for n in (rules.required(schema) if schema else []) if n not in raw.columns]
    if missing:
        raise Invalid(
            f"the table has no column {', '.join(missing)}, which the files of {source.name} have",
            hint="leave out --raw for rows that have the model's inputs already",
            code="missing_columns",
        )
    typed, reasons = (
        rules.judge(raw, schema, "the table") if schema else (raw, pl.Series("reason", [None] * raw.height))
    )
    good = reasons.is_null()
    broken = [(int(numbers[n]), str(reasons[n])) for n in np.flatnonzero(~good.to_numpy()).tolist()]
    kept = numbers[good.to_numpy()]
    origin = [pl.lit("table").alias(FILE_COLUMN), pl.Series(ROW_COLUMN, kept)]
    ready = delta.storable(run_prepare(source, prepare, typed.filter(good).with_columns(origin))).sort(ROW_COLUMN)
    if ready[ROW_COLUMN].to_list() != kept.tolist():
        raise Invalid(
            f"prepare of {source.name} was given {len(kept):,} rows and returned {ready.height:,}",
            hint="prepare must return each row it was given once",
            code="rows_lost",
        )
    return ready.drop(FILE_COLUMN, ROW_COLUMN), kept, broken
