"""Every row judged by a pandera contract: the first rule that it breaks, or none.

A contract is a `pandera.polars` `DataFrameModel` or `DataFrameSchema`. Its column types say what the
text of a file means; a text that does not mean it makes a bad row, not a failed load.
"""

from __future__ import annotations

import re
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

from falaj.kernel.errors import Invalid

_DATETIME_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")


def as_schema(contract: object) -> pa.DataFrameSchema | None:
    """The schema of a contract; None for none. Raises `Invalid` for something else."""
    if contract is None:
        return None
    if isinstance(contract, pa.DataFrameSchema):
        return contract
    if isinstance(contract, type) and issubclass(contract, pa.DataFrameModel):
        return contract.to_schema()
    raise Invalid(
        f"{contract!r} is not a contract",
        hint="use a pandera.polars DataFrameModel or DataFrameSchema",
        code="bad_contract",
    )


def required(schema: pa.DataFrameSchema) -> list[str]:
    """The columns that a file must have."""
    return [name for name, column in schema.columns.items() if column.required and not column.regex]


def judge(raw: pl.DataFrame, schema: pa.DataFrameSchema, where: str) -> tuple[pl.DataFrame, pl.Series]:
    """The rows in the contract's types, and for each row the first rule it breaks (null: it is good).

    Reasons read `column: rule`, such as `tailnum: not_nullable`, `distance: in_range(1, 6000)`,
    `distance: type(Int64)`; a rule over several columns is its own name. Uniqueness is judged within
    `where`, the file. Raises `Invalid` when a rule cannot be judged row by row.
    """
    frame, reasons = _cast(_kept(raw, schema, where), schema, where)
    for error in _errors(frame, schema):
        passed = error.check_output
        if not isinstance(passed, pl.DataFrame) or passed.height != frame.height:
            raise _not_by_row(error, where)
        broken = ~passed.to_series().fill_null(False)
        reasons = reasons.zip_with(reasons.is_not_null() | ~broken, _constant(_reason(error), frame.height))
    return frame, reasons.rename("reason")


def _kept(raw: pl.DataFrame, schema: pa.DataFrameSchema, where: str) -> pl.DataFrame:
    if not schema.strict:
        return raw
    known = [n for n in raw.columns if any(_names(column, n) for column in schema.columns.values())]
    extra = [n for n in raw.columns if n not in known]
    if extra and schema.strict != "filter":
        raise Invalid(
            f"{where} has columns that the contract does not know: {', '.join(extra)}",
            hint='add them to the contract, or set strict = "filter" to leave them out',
            code="unexpected_columns",
        )
    return raw.select(known)


def _names(column: pa.Column, name: str) -> bool:
    return bool(re.fullmatch(str(column.name), name)) if column.regex else column.name == name


def _cast(frame: pl.DataFrame, schema: pa.DataFrameSchema, where: str) -> tuple[pl.DataFrame, pl.Series]:
    reasons = pl.Series("reason", [None] * frame.height, dtype=pl.String)
    casts: dict[str, pl.Series] = {}
    for name, column in [(n, c) for c in schema.columns.values() for n in frame.columns if _names(c, n)]:
        target = _dtype(column)
        if target is None or frame[name].dtype == target:
            continue
        before = frame[name]
        try:
            after = _converted(before, target)
        except pl.exceptions.PolarsError as e:
            raise Invalid(
                f"{where}: column {name} has the type {before.dtype}, which cannot become {target}",
                hint="export it in the contract's type, or change the contract",
                code="column_not_castable",
            ) from e
        casts[name] = after
        failed = after.is_null() & before.is_not_null()
        if failed.any():
            reasons = reasons.zip_with(
                reasons.is_not_null() | ~failed, _constant(f"{name}: type({target})", frame.height)
            )
    return frame.with_columns(casts.values()), reasons


def _converted(values: pl.Series, target: pl.DataType) -> pl.Series:
    """Values in another type; null where they do not mean one. Never guesses a time zone, never rounds."""
    frame, column = values.to_frame(), pl.col(values.name)
    if isinstance(values.dtype, pl.String):
        return frame.select(_from_text(column.str.strip_chars(), target)).to_series()
    if _zoned(values.dtype) is not _zoned(target) and None not in (_zoned(values.dtype), _zoned(target)):
        return pl.Series(values.name, [None] * len(values), dtype=target)
    if values.dtype.is_float() and target.is_integer():
        return frame.select(pl.when(column == column.floor()).then(column).cast(target, strict=False)).to_series()
    return values.cast(target, strict=False)


def _zoned(dtype: pl.DataType) -> bool | None:
    """Whether a time type has a zone; None for what is no time."""
    return dtype.time_zone is not None if isinstance(dtype, pl.Datetime) else None


def _from_text(text: pl.Expr, target: pl.DataType) -> pl.Expr:
    if isinstance(target, pl.Boolean):
        lower = text.str.to_lowercase()
        return pl.when(lower.is_in(["true", "1"])).then(True).when(lower.is_in(["false", "0"])).then(False)
    if isinstance(target, pl.Date):
        return text.str.to_date("%Y-%m-%d", strict=False)
    if isinstance(target, pl.Datetime):
        if target.time_zone is None:
            return pl.coalesce(
                text.str.to_datetime(f, time_unit=target.time_unit, strict=False) for f in _DATETIME_FORMATS
            )
        zoned = text.str.replace("[Zz]$", "+00:00")
        return pl.coalesce(
            zoned.str.to_datetime(f + "%:z", time_unit=target.time_unit, strict=False).dt.convert_time_zone(
                target.time_zone
            )
            for f in _DATETIME_FORMATS
        )
    return text.cast(target, strict=False)


def _dtype(column: pa.Column) -> pl.DataType | None:
    kind = getattr(column.dtype, "type", None)
    if isinstance(kind, type) and issubclass(kind, pl.DataType):
        return kind()
    return kind if isinstance(kind, pl.DataType) else None


def _errors(frame: pl.DataFrame, schema: pa.DataFrameSchema) -> list[SchemaError]:
    # The depth and the switch are set here, so that no environment variable turns the check off.
    with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
        try:
            schema.validate(frame, lazy=True)
        except SchemaErrors as e:
            return list(e.schema_errors)
    return []


def _reason(error: SchemaError) -> str:
    check: Any = error.check
    rule = check if isinstance(check, str) else str(check.error or check.name or "check")
    rule = {"field_uniqueness": "unique", "multiple_fields_uniqueness": "unique"}.get(rule, rule)
    return f"{error.schema.name}: {rule}" if isinstance(error.schema, pa.Column) else rule


def _not_by_row(error: SchemaError, where: str) -> Invalid:
    if error.reason_code == SchemaErrorReason.CHECK_ERROR:
        why = f"it failed: {str(error).strip().splitlines()[0]}"
    else:
        why = str(error).strip().splitlines()[0]
    return Invalid(
        f"{where}: the rule {_reason(error)!r} cannot be judged row by row: {why}",
        hint="let the check return one true or false for each row",
        code="bad_contract",
    )


def _constant(text: str, length: int) -> pl.Series:
    return pl.select(pl.repeat(text, length, dtype=pl.String)).to_series()
