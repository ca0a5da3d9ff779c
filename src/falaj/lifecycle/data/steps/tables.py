"""Tables that somebody hands over, read piece by piece: CSV, Parquet, or one JSON object a line.

A value that does not mean what its column is for makes its row a rejected one; it never stops the table.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.clock import parse_iso
from falaj.kernel.errors import Invalid
from falaj.lifecycle.data.steps.files import json_column

PIECE = 50_000
"""How many rows are in memory at one time."""
_TIME = pl.Datetime("us", "UTC")


class Reject(NamedTuple):
    """A row that cannot be used: its number in the table, from 0, and why."""

    row: int
    code: str
    reason: str


class Piece(NamedTuple):
    """Rows of a table with their numbers, and those of the same stretch that are no rows."""

    frame: pl.DataFrame
    numbers: NDArray[np.int64]
    rejects: tuple[Reject, ...] = ()


def columns_of(path: Path, kind: str) -> list[str]:
    """The columns of a table; of JSON lines, those of the first row. Raises `Invalid`."""
    try:
        if kind == "parquet":
            return list(pl.read_parquet_schema(path))
        if kind == "jsonl":
            with path.open("rb") as f:
                first = next((line for line in f if line.strip()), b"{}")
            return list(msgspec.json.decode(first, type=dict[str, Any]))
        with path.open(encoding="utf-8-sig", newline="") as text:
            header = next(csv.reader(text), [])
    except (
        pl.exceptions.PolarsError, OSError, UnicodeDecodeError, csv.Error, msgspec.DecodeError, RecursionError,
    ) as e:  # fmt: skip
        raise _unreadable(kind, e) from e
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise Invalid(
            f"the table has columns twice: {', '.join(twice)}",
            hint="give each column its own name",
            code="duplicate_columns",
        )
    return header


def pieces(path: Path, kind: str, wanted: Sequence[str] | None = None, size: int = PIECE) -> Iterator[Piece]:
    """The table in pieces of at most `size` rows, with the columns `wanted` (None: all). Raises `Invalid`."""
    try:
        yield from {"csv": _csv, "parquet": _parquet, "jsonl": _jsonl}[kind](path, wanted, size)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError, csv.Error) as e:
        raise _unreadable(kind, e) from e


def _csv(path: Path, wanted: Sequence[str] | None, size: int) -> Iterator[Piece]:
    with path.open(encoding="utf-8-sig", newline="") as f:
        lines = csv.reader(f)
        header = next(lines, [])
        kept = [(n, name) for n, name in enumerate(header) if wanted is None or name in wanted]
        first, waiting = 0, (line for line in lines if line)
        while block := list(islice(waiting, size)):
            whole = [len(line) == len(header) for line in block]
            rejects = tuple(
                Reject(first + n, "wrong_fields", f"it has {len(line)} fields, the header {len(header)}")
                for n, line in enumerate(block)
                if not whole[n]
            )
            good = block if not rejects else [line for line, fine in zip(block, whole, strict=True) if fine]
            columns = list(zip(*good, strict=True)) if good else [()] * len(header)
            frame = pl.DataFrame({name: pl.Series(name, columns[n], dtype=pl.String) for n, name in kept})
            frame = frame.with_columns(pl.when(pl.all() != "").then(pl.all()))
            yield Piece(frame, first + np.flatnonzero(whole), rejects)
            first += len(block)


def _parquet(path: Path, wanted: Sequence[str] | None, size: int) -> Iterator[Piece]:
    scan, first = pl.scan_parquet(path), 0
    if wanted is not None:
        scan = scan.select(name for name in scan.collect_schema() if name in wanted)
    for frame in scan.collect_batches(chunk_size=size, maintain_order=True):
        yield Piece(frame, np.arange(first, first + frame.height, dtype=np.int64))
        first += frame.height


def _jsonl(path: Path, wanted: Sequence[str] | None, size: int) -> Iterator[Piece]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    with path.open("rb") as f:
        first, lines = 0, (line for line in f if line.strip())
        while block := list(islice(lines, size)):
            rows, numbers, rejects = [], [], []
            for n, line in enumerate(block, first):
                try:
                    rows.append(decoder.decode(line))
                    numbers.append(n)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
                    rejects.append(Reject(n, "no_object", f"it is not a JSON object: {e}"))
            names = wanted if wanted is not None else list(dict.fromkeys(name for row in rows for name in row))
            frame = pl.DataFrame({name: json_column(name, [row.get(name) for row in rows]) for name in names})
            yield Piece(frame, np.array(numbers, dtype=np.int64), tuple(rejects))
            first += len(block)


def moments(column: pl.Series) -> pl.Series:
    """Times in UTC with microseconds; null where there is none. Raises `Invalid` for times without a zone."""
    if isinstance(column.dtype, pl.Datetime):
        if column.dtype.time_zone is None:
            raise Invalid(
                f"column {column.name} has times without a zone",
                hint="write them in UTC, such as 2013-04-01T06:00:00Z",
                code="naive_time",
            )
        return column.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    if column.dtype != pl.String:
        return pl.Series(column.name, [None] * len(column), dtype=_TIME)
    known = {text: _parsed(text) for text in column.unique().to_list()}
    return pl.Series(column.name, [known[text] for text in column], dtype=_TIME)


def _parsed(text: str | None) -> datetime | None:
    try:
        return parse_iso(text.strip()) if text else None
    except ValueError:
        return None


def _unreadable(kind: str, error: Exception) -> Invalid:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return Invalid(
        f"the table cannot be read as {kind}: {first[:300]}",
        hint="its name says what it is (.csv, .parquet, .jsonl); export it again",
        code="unreadable_table",
    )
