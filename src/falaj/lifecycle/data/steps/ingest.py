"""One load: the new files of a source become one Delta version, and bad rows their quarantine.

    find files → skip known ones → read → judge by contract → prepare → count → store both tables

What comes in is stored or quarantined; nothing else can happen to a row. A load whose share of bad
rows is over the limit is refused and stores nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from falaj.kernel import faults
from falaj.kernel.clock import iso
from falaj.kernel.digests import short
from falaj.kernel.errors import Conflict, Denied, FalajError, Integrity, Invalid
from falaj.lifecycle.data.model import (
    FILE_COLUMN,
    ROW_COLUMN,
    BadRow,
    FileLoad,
    IngestOutcome,
    IngestTask,
    SourceSpec,
    breach,
    dataset_digest,
)
from falaj.lifecycle.data.steps import contract as rules
from falaj.lifecycle.data.steps import files as sources
from falaj.storage.lake import delta
from falaj.workflow.reporting import Reporter

Prepare = Callable[[Any], Any]
"""Project code between contract and table: lazy frame in, lazy frame out, the same rows, `_file` and `_row` kept."""

_TIME = pl.Datetime("us", "UTC")
_EXAMPLES = 5  # bad rows that are pointed at
_LONGEST = 40  # characters of a value in a message


class _Note(msgspec.Struct, frozen=True):
    """What a commit remembers of its load, so that the same operation has the same outcome for ever."""

    added: int
    quarantined: int
    reasons: dict[str, int]
    files: tuple[FileLoad, ...]
    skipped: int
    base_version: int
    event_from: str
    event_to: str
    examples: tuple[BadRow, ...] = ()


class _Judged(msgspec.Struct, frozen=True):
    """The rows of one file: the good ones typed, the bad ones with reason and raw JSON."""

    path: str
    sha256: str
    rows: int
    good: pl.DataFrame
    bad: pl.DataFrame


def ingest(task: IngestTask, contract: object, prepare: Prepare | None, report: Reporter) -> IngestOutcome:
    """Load the files of a source that are new.

    `contract` is a pandera.polars model or schema, or None; `prepare` maps a lazy frame to a lazy frame.
    The same operation again returns the same outcome, whatever files have appeared since.

    Raises `Invalid` for files or code that cannot be used, `Denied` (contract_breach) over the limit of bad rows,
    `Integrity` (rows_lost) when rows in ≠ stored + quarantined, and `Conflict`: file_changed for a file that was
    loaded before and whose rows would be stored again, schema_changed for columns that are not the table's.
    """
    table = Path(task.table)
    done = delta.committed(table, task.operation_id, base=task.base_version)
    if done is not None:
        return _outcome(task, done.version, msgspec.json.decode(done.note, type=_Note))
    new, skipped = _new_files(task)
    if not new:
        return _outcome(task, task.base_version, _Note(0, 0, {}, (), skipped, task.base_version, "", ""))
    schema = rules.as_schema(contract)
    judged = []
    for number, file in enumerate(new):
        report.progress(f"reading {file.path}", number, len(new))
        judged.append(_judged(task.source, file, schema))
    report.progress("preparing rows", len(new), len(new))
    good, late_bad = _prepared(task.source, judged, prepare)
    bad = pl.concat([*(j.bad for j in judged), late_bad])
    loads = _counted(judged, good, bad)
    reasons = _reasons(bad)
    _refuse_breach(task.source, loads, reasons, bad)
    _refuse_again(task, judged, good)
    if task.base_version >= 0:  # before bad rows go to quarantine: a load that is refused leaves none there
        delta.check_fits(table, good, task.base_version)
    report.progress("storing", len(new), len(new))
    note = msgspec.structs.replace(_note(task, good, reasons, loads, skipped), examples=_examples(bad))
    if bad.height:
        delta.append(Path(task.quarantine), bad.with_columns(operation=pl.lit(task.operation_id)), task.operation_id)
    version = delta.append(
        table, good, task.operation_id, base=task.base_version, note=msgspec.json.encode(note).decode()
    )
    return _outcome(task, version, note)


def _note(
    task: IngestTask, good: pl.DataFrame, reasons: dict[str, int], loads: tuple[FileLoad, ...], skipped: int
) -> _Note:
    time = pl.col(task.source.event_time)
    first, last = good.select(time.min().alias("first"), time.max().alias("last")).row(0)
    return _Note(
        added=good.height,
        quarantined=sum(load.quarantined for load in loads),
        reasons=reasons,
        files=loads,
        skipped=skipped,
        base_version=task.base_version,
        event_from="" if first is None else iso(first),
        event_to="" if last is None else iso(last),
    )


def _new_files(task: IngestTask) -> tuple[list[sources.SourceFile], int]:
    project, seen = Path(task.project), set(task.known_files)
    new, skipped = [], 0
    for path in sources.matching(task.source, project):
        file = sources.load(path, project)
        if file.sha256 in seen:
            skipped += 1
        else:
            seen.add(file.sha256)
            new.append(file)
    if not new and task.base_version < 0:
        raise Invalid(
            f"all files of source {task.source.name} were loaded before, yet it has no version",
            hint="the known files do not belong to this source; look at `falaj data log`",
            code="files_without_version",
        )
    return new, skipped


def _judged(source: SourceSpec, file: sources.SourceFile, schema: Any) -> _Judged:
    raw, cut = sources.parse(source, file, rules.required(schema) if schema is not None else [])
    taken = [name for name in (FILE_COLUMN, ROW_COLUMN) if name in raw.columns]
    if taken:
        raise Invalid(
            f"{file.path} has a column {taken[0]}", hint="rename it; Falaj adds this column itself", code="taken_column"
        )
    if schema is None:
        typed, reasons = raw, pl.Series("reason", [None] * raw.height, dtype=pl.String)
    else:
        typed, reasons = rules.judge(raw, schema, file.path)
    if cut.any():
        reasons = pl.Series("reason", ["row: cut_short"]).new_from_index(0, raw.height).zip_with(cut, reasons)
    number = pl.int_range(1, raw.height + 1, dtype=pl.Int64, eager=True).alias(ROW_COLUMN)
    is_bad = reasons.is_not_null()
    good = typed.with_columns(pl.lit(short(file.sha256)).alias(FILE_COLUMN), number).filter(~is_bad)
    origin = [(file.path, file.sha256)] * int(is_bad.sum())
    bad = _quarantined(reasons.filter(is_bad), origin, number.filter(is_bad), raw.filter(is_bad))
    return _Judged(file.path, file.sha256, raw.height, good, bad)


def _quarantined(
    reasons: pl.Series, origin: list[tuple[str, str]], numbers: pl.Series, rows: pl.DataFrame
) -> pl.DataFrame:
    """Bad rows as quarantine keeps them; `origin` is (path, SHA-256) of each one's file."""
    return pl.DataFrame(
        {
            "reason": reasons,
            "file": pl.Series([path for path, _ in origin], dtype=pl.String),
            "sha256": pl.Series([sha256 for _, sha256 in origin], dtype=pl.String),
            "row": numbers,
            "raw": _as_json(rows),
        }
    )


def _as_json(rows: pl.DataFrame) -> pl.Series:
    """Each row as a JSON object; a column that holds bytes becomes text first, since Polars writes none."""
    texts = [
        pl.Series(name, [None if v is None else msgspec.json.encode(v).decode() for v in rows[name]], pl.String)
        for name, dtype in rows.schema.items()
        if "Binary" in str(dtype)
    ]
    return rows.with_columns(texts).select(pl.struct(pl.all()).struct.json_encode()).to_series()


def _prepared(source: SourceSpec, judged: list[_Judged], prepare: Prepare | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All good rows after `prepare`, and those among them that have no event time, as bad rows."""
    typed = _together(source, judged)
    frame = delta.storable(run_prepare(source, prepare, typed))
    _check_times(source, frame)
    timeless = frame.filter(pl.col(source.event_time).is_null()).select(FILE_COLUMN, ROW_COLUMN)
    late = typed.join(timeless, on=[FILE_COLUMN, ROW_COLUMN], how="semi")
    files = {short(j.sha256): (j.path, j.sha256) for j in judged}
    reasons = pl.Series([f"{source.event_time}: not_nullable"] * late.height, dtype=pl.String)
    origin = [files[name] for name in late[FILE_COLUMN]]
    bad = _quarantined(reasons, origin, late[ROW_COLUMN], late.drop(FILE_COLUMN, ROW_COLUMN))
    return frame.filter(pl.col(source.event_time).is_not_null()), bad


def _together(source: SourceSpec, judged: list[_Judged]) -> pl.DataFrame:
    try:
        return pl.concat([j.good for j in judged], how="diagonal")
    except pl.exceptions.PolarsError as e:
        raise Invalid(
            f"the files of source {source.name} do not have the same column types: {e}",
            hint="give the source a contract, which settles the types",
            code="files_disagree",
        ) from e


def run_prepare(source: SourceSpec, prepare: Prepare | None, typed: pl.DataFrame) -> pl.DataFrame:
    """The rows after the project's `prepare`. Raises `Invalid` when it fails or loses where rows came from."""
    if prepare is None:
        return typed
    try:
        result = prepare(typed.lazy())
        frame = result.collect() if isinstance(result, pl.LazyFrame) else result
    except FalajError:
        raise
    except Exception as e:  # project code may raise anything; the person who wrote it needs to see what
        raise Invalid(  # what it says may hold values: that is for whoever loads, not for the log
            f"prepare of source {source.name} failed: {type(e).__name__}{faults.place(e)}",
            hint=_mended(str(e)),
            code="prepare_failed",
            details=faults.told(e),
        ) from e
    if not isinstance(frame, pl.DataFrame):
        raise Invalid(
            f"prepare of source {source.name} returned {type(frame).__name__}",
            hint="return the lazy frame that it was given, with columns added",
            code="prepare_failed",
        )
    lost = [name for name in (FILE_COLUMN, ROW_COLUMN) if name not in frame.columns]
    if lost:
        raise Invalid(
            f"prepare of source {source.name} dropped {', '.join(lost)}",
            hint="keep them: use with_columns or drop, or add them to select; they say where each row came from",
            code="prepare_dropped_origin",
        )
    return frame


def _mended(said: str) -> str:
    """What to do about a failure of `prepare`."""
    if "ambiguous" in said or "non-existent" in said:
        return (
            "clocks were changed then: say what such an hour means, dt.replace_time_zone(zone, ambiguous='earliest', "
            "non_existent='null')"
        )
    return "mend the function in the project"


def _check_times(source: SourceSpec, frame: pl.DataFrame) -> None:
    for name in dict.fromkeys((source.event_time, source.known_at)):
        if name not in frame.columns:
            raise Invalid(
                f"source {source.name} has no column {name} after prepare",
                hint="let prepare add it, or name another column in the source",
                code="no_time_column",
            )
        if frame.schema[name] != _TIME:
            raise Invalid(
                f"column {name} of source {source.name} is {frame.schema[name]}, not a time in UTC",
                hint="make it a datetime with the time zone UTC, in the contract or in prepare",
                code="not_a_time",
            )


def _counted(judged: list[_Judged], good: pl.DataFrame, bad: pl.DataFrame) -> tuple[FileLoad, ...]:
    """Rows in = stored + quarantined, file by file, each row once."""
    stored = dict(good.group_by(FILE_COLUMN).agg(pl.col(ROW_COLUMN).n_unique()).iter_rows())
    copies = good.height - sum(stored.values())
    refused = dict(bad.group_by("sha256").len().iter_rows())
    loads = tuple(
        FileLoad(j.path, j.sha256, j.rows, stored.get(short(j.sha256), 0), refused.get(j.sha256, 0)) for j in judged
    )
    for load in loads:
        if copies or load.rows != load.stored + load.quarantined:
            raise Integrity(
                f"of {load.rows} rows of {load.path}, {load.stored} would be stored and {load.quarantined} quarantined"
                + (f", and {copies} rows stand twice" if copies else ""),
                hint="prepare must return each row it was given once: it may not filter, join to many or aggregate",
                code="rows_lost",
                details=msgspec.to_builtins(load),
            )
    return loads


def _reasons(bad: pl.DataFrame) -> dict[str, int]:
    counts = bad.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
    return dict(counts.iter_rows())


def _examples(bad: pl.DataFrame) -> tuple[BadRow, ...]:
    return tuple(BadRow(*row) for row in bad.select("file", "row", "reason").head(_EXAMPLES).iter_rows())


def _shown(bad: pl.DataFrame) -> list[str]:
    """The first bad rows in words, with the value that is at fault: for whoever loads, never for a log."""
    lines = []
    for file, row, reason, raw in bad.select("file", "row", "reason", "raw").head(_EXAMPLES).iter_rows():
        column, colon, _ = reason.partition(": ")
        value = msgspec.json.decode(raw).get(column) if colon and column != "row" else None
        text = str(value)
        cut = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        lines.append(f"{file} row {row}: {reason}" + ("" if value is None else f": {cut!r}"))
    return lines


def _refuse_again(task: IngestTask, judged: list[_Judged], good: pl.DataFrame) -> None:
    """Refuse a file that was loaded before and has changed, when rows of it that are stored already would be stored twice."""
    for file in judged:
        before = [short(digest) for digest in task.known_paths.get(file.path, ())]
        if not before or task.base_version < 0:
            continue
        stored = delta.scan(Path(task.table), task.base_version).filter(pl.col(FILE_COLUMN).is_in(before))
        fresh = good.lazy().filter(pl.col(FILE_COLUMN) == short(file.sha256))
        columns = [n for n in good.columns if n not in (FILE_COLUMN, ROW_COLUMN)]
        known = stored.collect_schema()
        if any(known.get(n) != good.schema[n] for n in columns):
            continue  # the columns or their types have changed too, which the table refuses
        again = fresh.join(stored, on=columns, how="semi", nulls_equal=True).select(pl.len()).collect().item()
        if again:
            raise Conflict(
                f"{file.path} was loaded before and has changed since: {again:,} of its {file.rows:,} rows are stored already",
                hint="leave loaded files as they are, and bring what is new or mended in a file of its own",
                code="file_changed",
                details={"file": file.path, "again": again, "rows": file.rows},
            )


def _refuse_breach(
    source: SourceSpec, loads: tuple[FileLoad, ...], reasons: dict[str, int], bad_rows: pl.DataFrame
) -> None:
    rows, bad = sum(load.rows for load in loads), sum(load.quarantined for load in loads)
    if not breach(rows, bad, source.max_bad):
        return
    told = "; ".join(f"{reason} ({count})" for reason, count in list(reasons.items())[:5])
    raise Denied(
        f"{bad} of {rows} rows of {source.name} break the contract"
        f" ({bad / rows:.1%}, at most {source.max_bad:.1%}): {told}",
        hint="nothing was stored; mend the files, or if the data has changed for good, change the contract",
        code="contract_breach",
        details={
            "rows": rows,
            "bad": bad,
            "max_bad": source.max_bad,
            "reasons": reasons,
            "files": {load.path: load.quarantined for load in loads if load.quarantined},
            "shown": _shown(bad_rows),
        },
    )


def _outcome(task: IngestTask, version: int, note: _Note) -> IngestOutcome:
    table = Path(task.table)
    return IngestOutcome(
        name=task.source.name,
        version=version,
        digest=dataset_digest(delta.manifest(table, version)),
        rows=delta.rows(table, version),
        added=note.added,
        quarantined=note.quarantined,
        reasons=note.reasons,
        files=note.files,
        skipped=note.skipped,
        operation_id=task.operation_id,
        base_version=note.base_version,
        event_from=note.event_from,
        event_to=note.event_to,
        examples=note.examples,
    )
