"""The recorded answers of a model: those of shipped segments from the lake, all others from the journal itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from falaj.lifecycle.monitoring.model import Recorded
from falaj.lifecycle.serving.plane.journal import SUFFIX, Prediction, records_from
from falaj.storage.lake import delta

BATCH = 10_000
"""How many rows are Python objects at one time; one record more when it comes from the journal."""

_object = msgspec.json.Decoder(dict[str, Any])


class Row(NamedTuple):
    """One row that a caller asked for. `values` are inputs and looked-up features as the model saw them; `outputs`
    is empty when there was no answer."""

    prediction: str
    row: int
    at: int  # µs since 1970
    digest: str
    values: dict[str, Any]
    outputs: dict[str, Any]


def batches(recorded: Recorded, start_us: int | None, end_us: int | None) -> Iterator[list[Row]]:
    """The rows from `start_us` up to, not with, `end_us`, each once, in no order; at most some `BATCH` at a time.

    What was only mirrored, and a canary's failure that another version answered, are no answers and left out.
    Raises `Integrity` for a damaged segment and for a lake that lacks the version.
    """
    yield from _shipped(recorded, start_us, end_us)
    waiting = iter(_waiting(recorded, start_us, end_us))
    while rows := list(islice(waiting, BATCH)):
        yield rows


def _shipped(recorded: Recorded, start_us: int | None, end_us: int | None) -> Iterator[list[Row]]:
    """From the lake. A segment that SQL does not name yet may be in the table already; it is read from its file."""
    if recorded.version < 0:
        return
    wanted = pl.col("segment").is_in(recorded.shipped) & (pl.col("primary") == "")
    if start_us is not None:
        wanted &= pl.col("at") >= _moment(start_us)
    if end_us is not None:
        wanted &= pl.col("at") < _moment(end_us)
    columns = ("prediction", "row", pl.col("at").dt.epoch("us"), "digest", "inputs", "features", "outputs")
    scan = delta.scan(Path(recorded.table), recorded.version).filter(wanted).select(*columns)
    for frame in scan.collect_batches(chunk_size=BATCH, maintain_order=False):
        yield [
            Row(prediction, row, at, digest, {**_object.decode(sent), **_object.decode(found)}, _object.decode(out))
            for prediction, row, at, digest, sent, found, out in frame.iter_rows()
        ]


def _waiting(recorded: Recorded, start_us: int | None, end_us: int | None) -> Iterator[Row]:
    """From the segments that are not in the lake yet, the one that is being written to as well."""
    shipped = set(recorded.shipped)
    for path in sorted(Path(recorded.journal).glob(f"*{SUFFIX}")):
        if path.stem in shipped:
            continue
        for record, _ in records_from(path, 0):
            inside = (start_us is None or record.at >= start_us) and (end_us is None or record.at < end_us)
            if record.model == recorded.model and not record.primary and inside:
                yield from _rows(record)


def _rows(record: Prediction) -> Iterator[Row]:
    values = {**record.inputs, **record.features}
    for row in range(record.rows):
        yield Row(
            record.id,
            row,
            record.at,
            record.digest,
            {name: column[row] for name, column in values.items()},
            {name: column[row] for name, column in record.outputs.items()},
        )


def _moment(us: int) -> pl.Expr:
    return pl.lit(us, pl.Int64).cast(pl.Datetime("us", "UTC"))
