"""Delta tables: one commit per operation, and readers that see exactly the version they ask for.

A version becomes visible when a SQL row names it. What an operation appended and never got committed
in SQL is an orphan: the next operation restores the named version before it appends, so an orphan's
rows never reach a version that is read.

Data files are Parquet, sealed as a whole (`storage.sealed`) under the lake's key for their table and name, and opened in
memory by whoever reads. The log is not sealed: names of columns, numbers of rows and sizes stand in it, no values, so it has
no statistics of columns. Files of 0.1 are plain Parquet with statistics; they are read as they are.

Data files are Parquet, sealed as a whole (`storage.sealed`) under the lake's key for their table and name, and opened in
memory by whoever reads. The log is not sealed: names of columns, numbers of rows and sizes stand in it, no values, so there
are no statistics of columns. Files of 0.1 are plain Parquet with statistics, and are read as they are.

Survives a process crash at any point; `append` returns after the new files, the commit and their
folders were flushed, so a version that it returned survives a power cut as well.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, create_table_with_add_actions

from falaj.kernel.disk import refusal
from falaj.kernel.errors import Conflict, Integrity, Invalid, NotFound, Unavailable
from falaj.kernel.files import flush, write_private
from falaj.storage.keychain import keys_of, not_held
from falaj.storage.sealed import is_sealed, seal, unseal

_SETTINGS = {
    "delta.checkpointInterval": "20",  # commits after which the log is summed up: opening a table reads no more entries
    "delta.enableExpiredLogCleanup": "false",  # else entries of 30 days ago go then, and with them versions that SQL names
}
_OPERATION = "falaj.operation"
_NOTE = "falaj.note"
_LAST = "_last_checkpoint"
SEALED = ".sealed"
"""How the names of data files end that are sealed."""
_SIGNED: dict[type[pl.DataType], pl.DataType] = {
    pl.UInt8: pl.Int16(),
    pl.UInt16: pl.Int32(),
    pl.UInt32: pl.Int64(),
    pl.UInt64: pl.Int64(),
}


class Commit(msgspec.Struct, frozen=True):
    """One version of a table. `at_ms` is Unix milliseconds by the machine that wrote it.

    `operation_id` and `note` are what `append` was given; empty for a restore.
    """

    version: int
    at_ms: int
    action: str
    operation_id: str
    note: str


def head(table: Path) -> int:
    """The newest version of a table, named by SQL or not; -1 where there is no table."""
    return _open(table).version() if DeltaTable.is_deltatable(str(table)) else -1


def append(table: Path, frame: pl.DataFrame, operation_id: str, *, base: int | None = None, note: str = "") -> int:
    """Append rows in one commit and return its version; the same operation again returns the same version.

    `base` is the version that SQL names (-1: none yet). Commits after it are orphans and are undone
    first. Without `base` the rows go on top of whatever is there. `note` is stored in the commit.

    Delta records an application's transaction but does not refuse a repeated one, so it is compared
    here, and a commit is never retried on top of somebody else's.

    Raises `Invalid` for a timestamp without a zone, `Conflict` when the columns do not fit the table or
    another process is writing to it, `Integrity` when `base` is not in the table.
    """
    done = committed(table, operation_id, base=base)
    if done is not None:
        _flush(table, done.version)
        return done.version
    frame = storable(frame)
    with _told(table):
        fresh = _undo_orphans(table, base)
    current = head(table)
    if current >= 0 and not fresh:
        frame = _fitting(frame, table, current)
    with _told(table):
        properties = CommitProperties(
            custom_metadata={_OPERATION: operation_id, _NOTE: note},
            max_commit_retries=0,
            app_transactions=[Transaction(operation_id, current + 1)],
        )
        schema = Schema.from_arrow(frame.schema)
        if current < 0:
            files = [_written(_created(table), frame)]
            create_table_with_add_actions(
                str(table), schema, files, mode="error", configuration=_SETTINGS, commit_properties=properties
            )
        else:
            opened, mode = _open(table), "overwrite" if fresh else "append"
            opened.create_write_transaction([_written(table, frame)], mode, schema, commit_properties=properties)
        _flush(table, current + 1)
    return current + 1


def check_fits(table: Path, frame: pl.DataFrame, version: int) -> None:
    """Raise `Conflict` (schema_changed) when rows have other columns or types than a version: `append` would refuse them."""
    _fitting(storable(frame), table, version)


def committed(table: Path, operation_id: str, *, base: int | None = None) -> Commit | None:
    """The commit of an operation, or None.

    With `base`, a commit at or before it is not the answer: SQL has moved on, and what the operation
    left there was either named or undone.
    """
    if head(table) < 0:
        return None
    version = _open(table).transaction_version(operation_id)
    if version is None or (base is not None and version <= base):
        return None
    return _commit(table, version)


def scan(table: Path, version: int) -> pl.LazyFrame:
    """The rows of exactly one version. Raises `NotFound` without a table, `Integrity` without the version."""
    opened = _open(table, version)
    # The files by their names below the table, in the log's order: as addresses, a space in the path is lost.
    files = [table / uri.rpartition("/")[2] for uri in opened.file_uris()]
    if not files:
        return pl.scan_delta(opened)
    if not any(_is_sealed(file) for file in files):
        return pl.scan_parquet(files, glob=False)
    return pl.scan_parquet([_plain(file) for file in files])


def manifest(table: Path, version: int) -> list[tuple[str, int]]:
    """The data files of a version as (path below the table, bytes), sorted."""
    files = _files(table, version)
    return sorted(zip(files["path"].to_list(), files["size_bytes"].to_list(), strict=True))


def rows(table: Path, version: int) -> int:
    """How many rows a version has, from the table's own statistics."""
    return int(_files(table, version)["num_records"].sum())


def history(table: Path) -> tuple[Commit, ...]:
    """Every version that the log still tells of, oldest first."""
    entries = _open(table).history()
    return tuple(
        Commit(
            int(e["version"]),
            int(e["timestamp"]),
            str(e["operation"]),
            str(e.get(_OPERATION, "")),
            str(e.get(_NOTE, "")),
        )
        for e in reversed(entries)
    )


def storable(frame: pl.DataFrame) -> pl.DataFrame:
    """The same values in types that a Delta table keeps.

    Timestamps become microseconds in UTC, unsigned integers the next signed ones, categories text.
    A column of nulls only becomes text. Raises `Invalid` for a timestamp without a zone.
    """
    casts: list[pl.Expr] = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if isinstance(dtype, pl.Datetime):
            if dtype.time_zone is None:
                raise Invalid(
                    f"column {name} has times without a zone",
                    hint="in prepare, say which zone they are in (dt.replace_time_zone) and convert them to UTC",
                    code="naive_time",
                )
            if dtype != pl.Datetime("us", "UTC"):
                casts.append(column.dt.convert_time_zone("UTC").dt.cast_time_unit("us"))
        elif type(dtype) in _SIGNED:
            casts.append(column.cast(_SIGNED[type(dtype)]))
        elif isinstance(dtype, (pl.Categorical, pl.Enum, pl.Null)):
            casts.append(column.cast(pl.String))
    return frame.with_columns(casts) if casts else frame


def _written(table: Path, frame: pl.DataFrame) -> AddAction:
    """Put the rows into a new file that no version names yet. Raises `Integrity` without a key, `OSError`."""
    keys = keys_of(table).lake
    if not keys:
        raise not_held(f"the table {table.name}")
    name = f"part-{uuid.uuid4()}.parquet{SEALED}"
    rows = io.BytesIO()
    frame.write_parquet(rows, statistics=False)
    sealed = seal(rows.getvalue(), keys[0], _identity(table / name))
    write_private(table / name, sealed)
    stats = msgspec.json.encode({"numRecords": frame.height}).decode()
    return AddAction(name, len(sealed), {}, (table / name).stat().st_mtime_ns // 1_000_000, True, stats)


def _plain(file: Path) -> bytes:
    """The Parquet bytes of a data file. Raises `Integrity`."""
    try:
        data = file.read_bytes()
    except OSError as e:
        raise Integrity(
            f"a data file of {file.parent.name} cannot be read: {e}",
            hint="restore the lake folder from a backup of the same moment as the database",
            code="lake_version_missing",
        ) from e
    return unseal(data, keys_of(file).lake, _identity(file)) if is_sealed(data) else data


def _is_sealed(file: Path) -> bool:
    return file.name.endswith(SEALED)


def _identity(file: Path) -> str:
    """What a data file is, wherever the lake lies."""
    return "/".join(file.parts[-3:])


def _open(table: Path, version: int | None = None) -> DeltaTable:
    try:
        return DeltaTable(str(table), version=version)
    except TableNotFoundError as e:
        raise NotFound(f"there is no table {table.name}", hint="ingest the source first", code="no_table") from e
    except DeltaError as e:
        raise Integrity(
            f"{table.name} has no readable version {'' if version is None else version}: {e}",
            hint="restore the lake folder from a backup of the same moment as the database",
            code="lake_version_missing",
        ) from e


@contextmanager
def _told(table: Path) -> Iterator[None]:
    """What the library says when it cannot write, in our words."""
    try:
        yield
    except CommitFailedError as e:
        raise refusal(e, table) or Conflict(
            f"another process wrote to {table.name} at the same time",
            hint="run it again; one load of a source at a time is enough",
            code="lake_busy",
        ) from e
    except (DeltaError, OSError) as e:
        raise refusal(e, table) or Unavailable(
            f"cannot write {table.name}: {e}",
            hint="check free disk space and the rights of the lake folder",
            code="lake_not_written",
        ) from e


def _created(table: Path) -> Path:
    table.mkdir(parents=True, exist_ok=True)
    return table


def _undo_orphans(table: Path, base: int | None) -> bool:
    """Bring the head back to `base`; True means that nothing is named and the table starts over."""
    current = head(table)
    if base is None or base == current:
        return False
    if base > current:
        raise Integrity(
            f"{table.name} ends at version {current}, but version {base} is on record",
            hint="restore the lake folder from a backup of the same moment as the database",
            code="lake_version_missing",
        )
    if base < 0:
        return True
    _open(table).restore(base)
    _flush(table, current + 1)  # the next commit survives a power cut, and its log must have no gap before it
    return False


def _fitting(frame: pl.DataFrame, table: Path, version: int) -> pl.DataFrame:
    """The frame with the table's columns in the table's order; Delta would cast in silence."""
    want, have = dict(scan(table, version).collect_schema()), dict(frame.schema)
    if want == have:
        return frame.select(list(want))
    changed = [f"{n} was {want[n]}, is {have[n]}" for n in want if n in have and want[n] != have[n]]
    changed += [f"{n} is new" for n in have if n not in want] + [f"{n} is missing" for n in want if n not in have]
    raise Conflict(
        f"the columns of {table.name} have changed: {'; '.join(changed)}",
        hint="keep the columns and types, leave new columns out (in the contract: class Config: strict = 'filter'), or give "
        "the changed source a new name",
        code="schema_changed",
        details={"changed": changed},
    )


def _files(table: Path, version: int) -> pl.DataFrame:
    frame = pl.DataFrame(_open(table, version).get_add_actions(flatten=True))
    return frame.select("path", "size_bytes", "num_records")


def _log_entry(table: Path, version: int) -> Path:
    return table / "_delta_log" / f"{version:020d}.json"


def _actions(table: Path, version: int) -> list[dict[str, Any]]:
    try:
        return [msgspec.json.decode(line) for line in _log_entry(table, version).read_bytes().splitlines() if line]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Integrity(
            f"the commit {version} of {table.name} cannot be read: {e}",
            hint="restore the lake folder from a backup of the same moment as the database",
            code="lake_version_missing",
        ) from e


def _commit(table: Path, version: int) -> Commit:
    info: dict[str, Any] = next((a["commitInfo"] for a in _actions(table, version) if "commitInfo" in a), {})
    return Commit(
        version,
        int(info.get("timestamp", 0)),
        str(info.get("operation", "")),
        str(info.get(_OPERATION, "")),
        str(info.get(_NOTE, "")),
    )


def _flush(table: Path, version: int) -> None:
    """Make a commit survive a power cut: its data files first, then the log entry and what sums the log up, then the
    folders. Readers begin at the newest summary, so half a one would hide the table."""
    added = [table / a["add"]["path"] for a in _actions(table, version) if "add" in a]
    folders = {path.parent for path in added} | {table, table / "_delta_log", table.parent}
    summed = [*(table / "_delta_log").glob(f"{version:020d}.checkpoint*"), table / "_delta_log" / _LAST]
    for path in [*added, _log_entry(table, version), *(p for p in summed if p.exists()), *sorted(folders)]:
        flush(path)
