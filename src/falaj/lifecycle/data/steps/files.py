"""Which files a source names, and their rows as they stand in the file.

Nothing outside the project's folder is read. The bytes that are hashed are the bytes that are parsed.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath

import msgspec
import polars as pl

from falaj.kernel.digests import sha256
from falaj.kernel.errors import Invalid
from falaj.lifecycle.data.model import SourceSpec

_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class SourceFile(msgspec.Struct, frozen=True):
    """One file with its bytes, as they were when they were hashed. `path` is relative to the project."""

    path: str
    sha256: str
    data: bytes


def matching(source: SourceSpec, project: Path) -> list[Path]:
    """The files of a source, sorted by path.

    Raises `Invalid` for a pattern or a link that leads out of the project, and when nothing matches.
    """
    pattern = PurePosixPath(source.files)
    if not source.files or pattern.is_absolute() or ".." in pattern.parts:
        raise _outside(source, source.files)
    root = project.resolve()
    paths = sorted(path for path in root.glob(source.files) if not path.is_dir())
    for path in paths:
        if not path.resolve().is_relative_to(root):
            raise _outside(source, path.relative_to(root).as_posix())
        if not path.is_file():
            raise Invalid(
                f"{path.relative_to(root)} is not a regular file",
                hint="a source reads regular files only; remove it or narrow the pattern",
                code="not_a_file",
            )
    if not paths:
        raise Invalid(
            f"no file matches {source.files} of source {source.name}",
            hint=f"put the files below {root}, or mend the pattern in the project",
            code="no_files",
        )
    return paths


def load(path: Path, project: Path) -> SourceFile:
    """A file's bytes and their digest. Raises `Invalid` when it cannot be read."""
    name = path.relative_to(project.resolve()).as_posix()
    try:
        data = path.read_bytes()
    except OSError as e:
        raise Invalid(
            f"{name} cannot be read: {e.strerror}", hint="check the rights of the file", code="unreadable"
        ) from e
    return SourceFile(name, sha256(data), data)


def parse(source: SourceSpec, file: SourceFile, expected: list[str]) -> tuple[pl.DataFrame, pl.Series]:
    """The rows of a file, and for each whether it was cut short; `expected` are the columns it must have.

    CSV columns are text: what a text means is the contract's business. Raises `Invalid`, naming the file.
    """
    cut: pl.Series | None = None
    if not file.data.strip():
        raise _bad(file, "is empty", "export it again; an empty file is never a day without rows", "empty_file")
    if source.format == "csv":
        frame, cut = _csv(source, file, expected)
    elif source.format == "parquet":
        frame = _parquet(file)
    elif source.format == "json":
        frame = _json(file)
    else:
        raise Invalid(
            f"source {source.name} has the format {source.format!r}",
            hint="use csv, parquet or json",
            code="unknown_format",
        )
    _check_columns(file, frame.columns, expected)
    if frame.height == 0:
        raise _bad(
            file,
            "has columns but no rows",
            "export it again, or take it away if there is nothing to load",
            "empty_file",
        )
    whole = pl.Series("cut", [False]).new_from_index(0, frame.height)
    return frame, whole if cut is None else cut


def _csv(source: SourceSpec, file: SourceFile, expected: list[str]) -> tuple[pl.DataFrame, pl.Series | None]:
    data = file.data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise _bad(
            file,
            f"is not UTF-8: byte {e.start} cannot be read",
            f"convert it, for example: iconv -f latin1 -t utf-8 {file.path}",
            "bad_encoding",
        ) from e
    header = next(csv.reader(io.StringIO(text, newline="")), [])
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise _bad(file, f"has columns twice: {', '.join(twice)}", "give each column its own name", "duplicate_columns")
    if len(header) == 1 and len(expected) > 1:
        found = next((word for sign, word in _DELIMITERS.items() if sign in header[0]), "")
        if found:
            raise _bad(file, f"is separated by {found}, not commas", "export it with commas", "wrong_delimiter")
    try:
        frame = pl.read_csv(
            io.BytesIO(data), infer_schema=False, null_values=["", *source.null_values], truncate_ragged_lines=False
        )
    except (pl.exceptions.PolarsError, OSError) as e:
        line = _ragged_line(text, len(header))
        where = f"line {line} does not have the {len(header)} fields of its header" if line else _first_line(e)
        raise _bad(file, f"cannot be read as CSV: {where}", "mend the line or export the file again", "bad_csv") from e

    return _told_apart(file, text, frame)


def _told_apart(file: SourceFile, text: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series | None]:
    """The rows without blank lines, and which of them have fewer fields than the header.

    Polars makes nulls of both and says nothing. Either ends in a null, so the fields are counted only
    where there is one.
    """
    if not frame.width or not frame[:, -1].null_count():
        return frame, None
    counts = [len(row) for row in csv.reader(io.StringIO(text, newline=""))][1:]
    if len(counts) != frame.height:
        raise _bad(file, "cannot be read as CSV: its rows cannot be told apart", "export it again", "bad_csv")
    fields = pl.Series("fields", counts)
    if frame.width > 1:  # with one column a blank line is a row without a value
        frame, fields = frame.filter(fields > 0), fields.filter(fields > 0)
    return frame, (fields > 0) & (fields < frame.width)


def _ragged_line(text: str, width: int) -> int:
    reader = csv.reader(io.StringIO(text, newline=""))
    return next((reader.line_num for row in reader if row and len(row) != width), 0)


def _parquet(file: SourceFile) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(file.data))
    except (pl.exceptions.PolarsError, OSError) as e:
        raise _bad(
            file,
            f"is not a whole Parquet file: {_first_line(e)}",
            "copy or export it again; a copy that was cut off looks like this",
            "bad_parquet",
        ) from e


def _json(file: SourceFile) -> pl.DataFrame:
    rows: list[dict[str, object]] = []
    if file.data.lstrip()[:1] == b"[":
        try:
            rows = msgspec.json.decode(file.data, type=list[dict[str, object]])
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise _bad(file, f"is not a JSON list of objects: {e}", "write one object a row", "bad_json") from e
    else:
        for number, line in enumerate(file.data.splitlines(), 1):
            if line.strip():
                try:
                    rows.append(msgspec.json.decode(line, type=dict[str, object]))
                except (msgspec.DecodeError, UnicodeDecodeError) as e:
                    raise _bad(
                        file, f"line {number} is not a JSON object: {e}", "write one object a line", "bad_json"
                    ) from e
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pl.DataFrame({name: _column(name, [row.get(name) for row in rows]) for name in names})


def _column(name: str, values: list[object]) -> pl.Series:
    """A JSON column in its own type, or as text where the file mixes types: the contract then tells them apart."""
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int} or kinds <= {bool} or kinds <= {str} or kinds <= {int, float}:
        try:
            return pl.Series(name, values, strict=False)
        except (pl.exceptions.PolarsError, OverflowError):
            pass  # a number that no column type holds stays text, and is a bad row where a number is due
    return pl.Series(name, [_text(v) for v in values], dtype=pl.String)


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _check_columns(file: SourceFile, have: list[str], expected: list[str]) -> None:
    missing = [name for name in expected if name not in have]
    if missing:
        raise _bad(
            file,
            f"lacks the columns {', '.join(missing)}; it has {', '.join(have[:12])}{' …' if len(have) > 12 else ''}",
            "export it with these columns, or change the contract",
            "missing_columns",
        )


def _bad(file: SourceFile, what: str, hint: str, code: str) -> Invalid:
    return Invalid(f"{file.path} {what}", hint=hint, code=code, details={"file": file.path})


def _outside(source: SourceSpec, what: str) -> Invalid:
    return Invalid(
        f"source {source.name} leads out of the project: {what}",
        hint="name files below the project's folder, and copy what a link points to",
        code="source_outside_project",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
