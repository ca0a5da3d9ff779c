"""The values of one moment into the online store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.errors import Invalid
from falaj.lifecycle.features.model import MaterializeOutcome, MaterializeTask, ViewFilled, ViewSpec
from falaj.lifecycle.features.steps.join import ViewFrame, latest
from falaj.lifecycle.features.steps.views import EVENT, KEY, Transform, view_rows
from falaj.storage.lake import delta
from falaj.storage.online.lmdb_store import OnlineWriter, Values, ViewMeta
from falaj.workflow.reporting import Reporter


def materialize(task: MaterializeTask, transforms: Mapping[str, Transform], report: Reporter) -> MaterializeOutcome:
    """Compute each view as of `task.as_of` from the named versions and put it online.

    `transforms` are the views' functions by view name. Each view is replaced in one transaction; the same
    operation again changes nothing. Raises `Invalid` for a view without its function or data, and what
    `view_rows` and `OnlineWriter.replace` raise.
    """
    as_of = parse_iso(task.as_of)
    for spec in task.views:
        _check(task, spec, transforms)
    writer = OnlineWriter(Path(task.online))
    filled = []
    try:
        for number, spec in enumerate(task.views):
            report.progress(f"materializing {spec.name}", number, len(task.views))
            source = delta.scan(Path(task.tables[spec.source]), task.versions[spec.source])
            values = latest_values(spec, transforms[spec.name], source, as_of)
            meta = ViewMeta(spec.digest, task.as_of, tuple(c.name for c in spec.columns), 0, task.operation_id)
            meta = writer.replace(meta, online_rows(spec, values))
            filled.append(_filled(spec, values, meta, task.versions[spec.source]))
    finally:
        writer.close()
    report.progress("materialized", len(task.views), len(task.views))
    return MaterializeOutcome(task.as_of, task.operation_id, tuple(filled))


def latest_values(spec: ViewSpec, transform: Transform, source: pl.LazyFrame, as_of: datetime) -> pl.DataFrame:
    """A view's value for every key at `as_of`, without empty keys: no request can name one.

    Of a view with a lookback only the rows are read that a value could need which is still fresh at `as_of`.
    """
    if spec.lookback_seconds:
        since = as_of - timedelta(seconds=spec.ttl_seconds + spec.lookback_seconds)
        source = source.filter(pl.col(spec.source_known_at) >= since)
    found = latest(ViewFrame(spec, view_rows(spec, transform, source)), as_of)
    return found.filter(pl.col(KEY) != "")


def online_rows(spec: ViewSpec, values: pl.DataFrame) -> Iterator[tuple[str, Values]]:
    """Keys and values as the online store keeps them: numbers and booleans as floats, categories as text."""
    columns = [pl.col(c.name) if c.type == "category" else pl.col(c.name).cast(pl.Float64) for c in spec.columns]
    for key, event, *features in values.select(KEY, pl.col(EVENT).to_physical(), *columns).iter_rows():
        yield key, (event, tuple(features))


def _check(task: MaterializeTask, spec: ViewSpec, transforms: Mapping[str, Transform]) -> None:
    if spec.name not in transforms:
        raise Invalid(
            f"the project has no view {spec.name}",
            hint="materialise with the project that declares it",
            code="no_such_view",
        )
    if spec.source not in task.tables or task.versions.get(spec.source, -1) < 0:
        raise Invalid(
            f"view {spec.name} reads {spec.source}, which has no data yet",
            hint=f"run `falaj ingest {spec.source}` first",
            code="no_source_data",
        )


def _filled(spec: ViewSpec, values: pl.DataFrame, meta: ViewMeta, version: int) -> ViewFilled:
    first, last = values.select(pl.col(EVENT).min().alias("first"), pl.col(EVENT).max().alias("last")).row(0)
    return ViewFilled(
        view=spec.name,
        digest=spec.digest,
        keys=meta.keys,
        datasets={spec.source: version},
        event_from="" if first is None else iso(first),
        event_to="" if last is None else iso(last),
    )
