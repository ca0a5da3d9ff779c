"""Score a whole table."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import Client, connect
from falaj.entrypoints.cli.commands.build import run_flow
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.digests import sha256_file
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import Conflict, FalajError, Integrity, Invalid
from falaj.lifecycle.registry.model import check_name, parse_reference

FORMATS = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """How the table is read, and what becomes of the answers."""

    rejects: Annotated[
        Path | None, Parameter(help="Where rows that cannot be scored go, with the reason; OUT.rejects.csv.")
    ] = None
    at: Annotated[str, Parameter(help="The column with each row's moment; as the model's, if not given.")] = ""
    as_of: Annotated[str, Parameter(help="Use only what was known then; now, if not given.")] = ""
    raw: Annotated[
        bool,
        Parameter(negative=(), help="The rows are as in the source's files: contract and prepare come first."),
    ] = False
    keep: Annotated[
        list[str] | None, Parameter(negative="", help="A column to write beside the scores; may be repeated.")
    ] = None
    record: Annotated[
        bool, Parameter(negative=(), help="Record the answers as predictions: for drift, labels and `falaj why`.")
    ] = False
    force: Annotated[bool, Parameter(negative=(), help="Overwrite files that are there.")] = False
    environment: Annotated[str, Parameter(help="Where the version must be admitted.")] = PRODUCTION


_PLAIN = How()


def score(
    version: Annotated[str, Parameter(help="MODEL@N; or MODEL, for the version that answers now.")],
    /,
    *,
    data: Annotated[Path, Parameter(help="The table: .csv, .parquet, or .jsonl with one object a line.")],
    out: Annotated[Path, Parameter(help="Where the scores go: .parquet or .csv.")],
    how: How = _PLAIN,
    common: Common = DEFAULT,
) -> None:
    """Score a whole table with an admitted version, each row with its features as they were known at its time.

    Features are joined from the lake, unless the table has all of them. Rows that cannot be scored are written apart
    with the reason. The files appear whole or not at all.
    """
    body = {
        "format": table_format(data, tuple(dict.fromkeys(FORMATS.values()))),
        "to": table_format(out, ("parquet", "csv")),
        "environment": how.environment,
        "as_of": how.as_of,
        "at": how.at,
        "raw": how.raw,
        "keep": how.keep or [],
        "record": how.record,
    }
    model, number = parse_reference(version) if "@" in version else (check_name(version), None)
    rejects = how.rejects or out.with_name(f"{out.stem}.rejects.csv")
    check_writable((out, rejects), force=how.force)
    with connect(common.settings()) as client:
        table = client.hand_over(readable(data))["name"]
        try:
            done = run_flow(
                client, f"/api/v1/models/{model}/scores", {**body, "table": table, "number": number}, common
            )
            wanted = {"scores": out, "rejects": rejects}
            take(client, {wanted[k]: (name, done[k]) for k, name in done["files"].items()}, force=how.force)
        finally:
            with contextlib.suppress(FalajError):  # it goes by itself after a day
                client.delete(f"/api/v1/tables/{table}")
    if common.json:
        render.show_json({**done, "files": {"scores": str(out), "rejects": str(rejects)}})
        return
    _tell(done, out, rejects)


def _tell(done: dict[str, Any], out: Path, rejects: Path) -> None:
    render.line(
        f"{done['version']} {render.digest(done['digest'])} scored {done['scored']:,} of {done['rows']:,} rows "
        f"({done['rows'] / max(done['seconds'], 1e-9):,.0f} rows/s, {done['peak_mb']:,.0f} MB at most): {out}"
    )
    if done["features"] == "lake":
        when = f"as known at each row's {done['moment']}" if done["moment"] else f"as known at {done['as_of']}"
        read = ", ".join(f"{name}@{number}" for name, number in done["datasets"].items())
        render.line(f"features {when}, from {read}")
    elif done["features"]:
        render.line("features are those that the table holds")
    for code, count in done["reasons"].items():
        render.line(f"  {count:>9,}  {code}")
    if done["rejected"]:
        render.line(f"not scored, each with its reason: {rejects}")
    if done["segments"]:
        new = "recorded as predictions" if done["recorded"] else "recorded before: nothing is recorded twice"
        render.line(new)
    render.line(f"in the log and in the lineage as {done['run']}")


def table_format(path: Path, allowed: tuple[str, ...]) -> str:
    """What a file's name says that it is. Raises `Invalid`."""
    found = FORMATS.get(path.suffix.lower(), "")
    if found not in allowed:
        raise Invalid(
            f"{path.name} does not say what it is",
            hint=f"let its name end in {', '.join(s for s, f in FORMATS.items() if f in allowed)}",
            code="unknown_format",
        )
    return found


def readable(path: Path) -> Path:
    """The path of a file that is there. Raises `Invalid`."""
    if not path.is_file():
        raise Invalid(f"there is no file {path}", hint="name a file that is there", code="no_such_file")
    return path


def check_writable(paths: tuple[Path, ...], *, force: bool) -> None:
    """Raise `Conflict` for a file that would be overwritten without --force, `Invalid` where no file can be: in the place of
    a folder, or below one that is not there."""
    for path in paths:
        if path.is_dir():
            raise Invalid(f"{path} is a folder", hint="name a file", code="not_a_regular_file")
        if path.exists() and not force:
            raise Conflict(
                f"{path} is there already", hint="choose another name, or overwrite it: --force", code="file_exists"
            )
        if not path.absolute().parent.is_dir():
            raise Invalid(f"there is no folder {path.parent}", hint="make it first", code="no_such_folder")


def take(client: Client, wanted: dict[Path, tuple[str, str]], *, force: bool) -> None:
    """Fetch parcels and put each in its place, once all are there and hold what their digests say."""
    hidden = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in wanted}
    try:
        for path, (name, digest) in wanted.items():
            client.fetch(name, hidden[path])
            if sha256_file(hidden[path]) != digest:
                raise Integrity(
                    f"{path.name} did not arrive as it was written",
                    hint="do it again; look at the disk and the network if it happens twice",
                    code="transfer_broken",
                )
            with hidden[path].open("rb") as f:
                os.fsync(f.fileno())
        check_writable(tuple(wanted), force=force)
        for path in reversed(wanted):  # the scores last: with them everything is there
            hidden[path].replace(path)
    finally:
        for path in hidden.values():
            path.unlink(missing_ok=True)
    for name, _ in wanted.values():
        with contextlib.suppress(FalajError):  # as above
            client.delete(f"/api/v1/tables/{name}")
