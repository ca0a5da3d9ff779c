"""Run a view's code and hold the result to the columns that the view declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from falaj.kernel import faults
from falaj.kernel.errors import FalajError, Invalid
from falaj.lifecycle.features.model import ColumnSpec, ViewSpec

Transform = Callable[[Any], Any]
"""Project code: a source's rows as a lazy frame in, the view's rows as a lazy frame out."""

KEY, EVENT, KNOWN = "__key", "__event", "__known"
_TIME = pl.Datetime("us", "UTC")
_STORED: dict[str, pl.DataType] = {
    "float": pl.Float64(),
    "integer": pl.Int64(),
    "boolean": pl.Boolean(),
    "category": pl.String(),
}


def view_rows(spec: ViewSpec, transform: Transform, source: pl.LazyFrame) -> pl.LazyFrame:
    """A view's rows: `__key` (text), `__event`, `__known` (µs, UTC) and the declared columns in their order.

    NaN becomes null: both mean that a value is not known. Raises `Invalid` when the code fails or its
    result does not have the declared columns and types.
    """
    result = _run(spec.name, transform, source)
    schema = result.collect_schema()
    _check_key_and_times(spec.name, spec.entity.key, (spec.event_time, spec.known_at), schema)
    found = {c.name: c.type for c in _columns(spec.name, schema, _reserved(spec))}
    declared = {c.name: c.type for c in spec.columns}
    if found != declared:
        raise Invalid(
            f"view {spec.name} returns {_said(found)}, but declares {_said(declared)}",
            hint="let the function return what `features=` declares, or declare what it returns; then apply again",
            code="view_schema",
        )
    return result.select(
        pl.col(spec.entity.key).cast(pl.String).alias(KEY),
        pl.col(spec.event_time).alias(EVENT),
        pl.col(spec.known_at).alias(KNOWN),
        *(_value(column) for column in spec.columns),
    )


def _run(name: str, transform: Transform, source: pl.LazyFrame) -> pl.LazyFrame:
    try:
        result = transform(source)
        lazy = result.lazy() if isinstance(result, pl.DataFrame) else result
        if isinstance(lazy, pl.LazyFrame):
            lazy.collect_schema()
            return lazy
    except FalajError:
        raise
    except Exception as e:  # project code may raise anything; the person who wrote it needs to see what
        raise Invalid(
            f"view {name} failed: {type(e).__name__}{faults.place(e)}",
            hint="mend the view in the project",
            code="view_failed",
            details=faults.told(e),
        ) from e
    raise Invalid(f"view {name} returned {type(result).__name__}", hint="return a lazy frame", code="view_failed")


def _check_key_and_times(name: str, key: str, times: tuple[str, str], schema: pl.Schema) -> None:
    for column in (key, *times):
        if column not in schema:
            raise Invalid(
                f"view {name} does not return {column}",
                hint=f"return the key {key} and the times {' and '.join(dict.fromkeys(times))} beside the features",
                code="view_schema",
            )
    for column in times:
        if schema[column] != _TIME:
            raise Invalid(
                f"{column} of view {name} is {schema[column]}, not a time in UTC",
                hint="keep it a datetime in microseconds with the time zone UTC",
                code="view_schema",
            )
    if not (schema[key].is_integer() or isinstance(schema[key], (pl.String, pl.Categorical, pl.Enum))):
        raise Invalid(
            f"the key {key} of view {name} is {schema[key]}", hint="keys are text or whole numbers", code="view_schema"
        )


def _columns(name: str, schema: pl.Schema, reserved: set[str]) -> tuple[ColumnSpec, ...]:
    return tuple(
        ColumnSpec(column, _kind(name, column, dtype)) for column, dtype in schema.items() if column not in reserved
    )


def _kind(view: str, column: str, dtype: pl.DataType) -> str:
    if dtype.is_float():
        return "float"
    if dtype.is_integer():
        return "integer"
    if isinstance(dtype, pl.Boolean):
        return "boolean"
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        return "category"
    raise Invalid(
        f"{column} of view {view} is {dtype}, which no model reads",
        hint="a feature is a float, an integer, a boolean or a text (a category)",
        code="view_schema",
    )


def _reserved(spec: ViewSpec) -> set[str]:
    return {spec.entity.key, spec.event_time, spec.known_at}


def _value(column: ColumnSpec) -> pl.Expr:
    value = pl.col(column.name).cast(_STORED[column.type])
    return value.fill_nan(None) if column.type == "float" else value


def _said(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items()) or "nothing"
