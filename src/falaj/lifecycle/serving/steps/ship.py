"""Ship a sealed journal segment: its rows go to the table of their model, its records are committed to.

One row a predicted row, `<model>/` below the folder of the tables; inputs, features, statuses and outputs are
JSON objects. The segment's name is the operation id, so a segment is in a table once however often it is shipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from falaj.kernel.clock import iso
from falaj.kernel.digests import sha256_file
from falaj.kernel.files import flush
from falaj.lifecycle.registry.model import check_name
from falaj.lifecycle.serving import seals
from falaj.lifecycle.serving.model import ShipOutcome, Shipped, ShipTask
from falaj.lifecycle.serving.plane.journal import Prediction, payloads_from, records_from
from falaj.storage.lake import delta
from falaj.workflow.reporting import Reporter

SCHEMA: dict[str, pl.DataType] = {
    "prediction": pl.String(),
    "row": pl.Int64(),
    "at": pl.Datetime("us", "UTC"),
    "model": pl.String(),
    "version": pl.String(),
    "digest": pl.String(),
    "role": pl.String(),
    "primary": pl.String(),
    "principal": pl.String(),
    "generation": pl.Int64(),
    "inputs": pl.String(),
    "features": pl.String(),
    "statuses": pl.String(),
    "outputs": pl.String(),
    "error": pl.String(),
    "segment": pl.String(),
}
"""The columns of a predictions table."""

_CHUNK = 20_000  # rows that are Python objects at one time


def ship(task: ShipTask, report: Reporter) -> ShipOutcome:
    """Raises `Integrity` for a damaged segment, `Conflict` while another process writes to a table."""
    segment = Path(task.segment)
    flush(segment)  # its writer may have died before it did
    seals.commit(segment, (payload for payload, _ in payloads_from(segment, 0)))
    seal = seals.check(segment)
    tables: list[Shipped] = []
    span: list[int] = []
    for model, frame in _frames(segment, span).items():
        report.progress(f"shipping {model}", len(tables), 0)
        table = Path(task.tables) / check_name(model)
        tables.append(Shipped(model, delta.append(table, frame, segment.stem), frame.height))
    return ShipOutcome(
        segment=segment.stem,
        records=seal.records,
        rows=sum(t.rows for t in tables),
        bytes=segment.stat().st_size,
        digest=sha256_file(segment),
        root=seal.root,
        tables=tuple(tables),
        first_at=_moment(min(span)) if span else "",
        last_at=_moment(max(span)) if span else "",
    )


def rows_of(record: Prediction, segment: str) -> Iterator[tuple[Any, ...]]:
    """The rows of one record, in the order of `SCHEMA`; a value that a failed record lacks is null."""
    for row in range(record.rows):
        yield (
            record.id,
            row,
            datetime.fromtimestamp(record.at / 1e6, UTC),
            record.model,
            record.version,
            record.digest,
            record.role,
            record.primary,
            record.principal,
            record.generation,
            _json(record.inputs, row),
            _json(record.features, row),
            _json(record.statuses, row),
            _json(record.outputs, row),
            record.error,
            segment,
        )


def _frames(segment: Path, span: list[int]) -> dict[str, pl.DataFrame]:
    """The rows by model; `span` gets the first and the last moment."""
    waiting: dict[str, list[tuple[Any, ...]]] = {}
    parts: dict[str, list[pl.DataFrame]] = {}
    for record, _ in records_from(segment, 0):
        span[:] = [min(record.at, *span), max(record.at, *span)] if span else [record.at, record.at]
        rows = waiting.setdefault(record.model, [])
        rows += rows_of(record, segment.stem)
        if len(rows) >= _CHUNK:
            parts.setdefault(record.model, []).append(_frame(rows))
            waiting[record.model] = []
    for model, rows in waiting.items():
        if rows:
            parts.setdefault(model, []).append(_frame(rows))
    return {model: pl.concat(frames) for model, frames in sorted(parts.items())}


def _frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _json(columns: dict[str, list[Any]], row: int) -> str:
    found = {name: values[row] if row < len(values) else None for name, values in columns.items()}
    return msgspec.json.encode(found).decode()


def _moment(us: int) -> str:
    return iso(datetime.fromtimestamp(us / 1e6, UTC))
