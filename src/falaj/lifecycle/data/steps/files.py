"""Which files a source names, and their rows as they stand in the file.

Nothing outside the project's folder is read. The bytes that are hashed are the bytes that are parsed.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import polars as pl

from falaj.kernel.digests import sha256
from falaj.kernel.errors import Invalid
from falaj.lifecycle.data.model import SourceSpec
from falaj.lifecycle.data.steps import looks

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
    try:
        found = sorted(root.glob(source.files))
    except ValueError as e:
        raise Invalid(
            f"the pattern {source.files} of source {source.name} is none: {e}",
            hint="write it like 'data/*.csv', or 'data/**/*.csv' for the folders below too",
            code="bad_pattern",
        ) from e
    paths = [path for path in found if not path.is_dir()]
    for path in paths:
        if not path.resolve().is_relative_to(root):
            raise _outside(source, path.relative_to(root).as_posix())
        if not path.is_file():
            raise Invalid(
                f"{path.relative_to(root)} is not a regular file",
                hint="a source reads regular files only; remove it or narrow the pattern",
                code="not_a_regular_file",
            )
    if not paths:
        folders = f"; {found[0].relative_to(root)} is a folder" if found else ""
        raise Invalid(
            f"no file matches {source.files} of source {source.name}{folders}",
            hint=f"put the files below {root}, or mend the pattern in the project",
            code="no_files",
        )
    return paths


def load(path: Path, project: Path) -> SourceFile:
    """A file's bytes and their digest. Raises `Invalid` when it cannot be read, or is written to at that moment."""
    name = path.relative_to(project.resolve()).as_posix()
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            data = file.read()
            after = os.fstat(file.fileno())
    except OSError as e:
        gone = isinstance(e, FileNotFoundError)
        raise Invalid(
            f"{name} cannot be read: {e.strerror}",
            hint="it was taken away meanwhile: run it again" if gone else "check the rights of the file",
            code="source_file_unreadable",
        ) from e
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise Invalid(
            f"{name} was written to while it was read",
            hint="run it again once the file is whole; whoever writes it should write under another name and rename it then",
            code="source_file_changing",
            details={"file": name},
        )
    return SourceFile(name, sha256(data), data)


def parse(source: SourceSpec, file: SourceFile, expected: list[str]) -> tuple[pl.DataFrame, pl.Series]:
    """The rows of a file, and for each whether it was cut short; `expected` are the columns it must have.

    CSV columns are text: what a text means is the contract's business. Raises `Invalid`, naming the file.
    """
    cut: pl.Series | None = None
    if not file.data.strip():
        raise _bad(file, "is empty", "export it again; an empty file is never a day without rows", "empty_file")
    _check_form(source, file)
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


def _check_form(source: SourceSpec, file: SourceFile) -> None:
    """Raise `Invalid` for a file that is plainly something else than its source says."""
    form = looks.form_of(file.data)
    if source.format == "parquet" and not form and looks.is_text(file.data):
        raise _bad(
            file,
            "is text, not Parquet",
            "declare the source with fj.Source.csv or fj.Source.json, or export the file as Parquet",
            "wrong_format",
        )
    if not form or form.lower() == source.format or source.format not in ("csv", "json", "parquet"):
        return
    if form == "Parquet":
        hint = "declare the source with fj.Source.parquet, or export the file in the source's format"
    elif form in looks.PACKED:
        hint = "unpack it first; a source reads plain files"
    elif form == "a web page":
        hint = "download it again: what was saved is probably a sign-in or an error page"
    else:
        hint = "export the table as CSV in UTF-8, or as Parquet"
    raise _bad(file, f"is {form}, not {source.format.replace('csv', 'CSV')}", hint, "wrong_format")


def _csv(source: SourceSpec, file: SourceFile, expected: list[str]) -> tuple[pl.DataFrame, pl.Series | None]:
    data = file.data.removeprefix(b"\xef\xbb\xbf")
    text = _decoded(file, data)
    header = next(_rows(text), [])
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise _bad(
            file, f"has columns twice: {looks.listed(twice)}", "give each column its own name", "duplicate_columns"
        )
    if len(header) == 1 and len(expected) > 1:
        found = next((word for sign, word in _DELIMITERS.items() if sign in header[0]), "")
        if found:
            raise _bad(file, f"is separated by {found}, not commas", "export it with commas", "wrong_delimiter")
    try:
        frame = pl.read_csv(
            io.BytesIO(data), infer_schema=False, null_values=["", *source.null_values], truncate_ragged_lines=False
        )
    except (pl.exceptions.PolarsError, OSError) as e:
        where = _ragged(text, len(header)) or _first_line(e)
        raise _bad(file, f"cannot be read as CSV: {where}", "mend the line or export the file again", "bad_csv") from e

    return _told_apart(file, text, frame)


def _decoded(file: SourceFile, data: bytes) -> str:
    """The text of a CSV file. Raises `Invalid` for another encoding, for null bytes, and for lines that nothing ends."""
    wide = looks.wide_encoding(data)
    if wide:
        raise _bad(
            file,
            f"is {wide.upper()}, not UTF-8",
            f"convert it, for example: iconv -f {wide} -t utf-8 {file.path}",
            "bad_encoding",
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise _bad(
            file,
            f"is not UTF-8: byte {e.start}, in line {line}, cannot be read",
            f"convert it, for example: iconv -f latin1 -t utf-8 {file.path}",
            "bad_encoding",
        ) from e
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise _bad(
            file,
            f"has a null byte in line {line}",
            "export it again; a disk or a program that gave up leaves such files",
            "bad_csv",
        )
    if "\n" not in text and "\r" in text.rstrip("\r"):
        raise _bad(
            file,
            "ends its lines with a carriage return alone, as old Macs did",
            f"convert it, for example: tr '\\r' '\\n' < {file.path} > new.csv",
            "bad_csv",
        )
    return text


def _rows(text: str) -> Iterator[list[str]]:
    """The fields of a CSV text, row by row."""
    csv.field_size_limit(sys.maxsize)  # the whole text is in memory anyway
    return csv.reader(io.StringIO(text, newline=""))


def _told_apart(file: SourceFile, text: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series | None]:
    """The rows without blank lines, and which of them have fewer fields than the header.

    Polars makes nulls of both and says nothing. Either ends in a null, so the fields are counted only
    where there is one.
    """
    if not frame.width or not frame[:, -1].null_count():
        return frame, None
    counts = [len(row) for row in _rows(text)][1:]
    if len(counts) != frame.height:
        raise _bad(file, "cannot be read as CSV: its rows cannot be told apart", "export it again", "bad_csv")
    fields = pl.Series("fields", counts)
    if frame.width > 1:  # with one column a blank line is a row without a value
        frame, fields = frame.filter(fields > 0), fields.filter(fields > 0)
    return frame, (fields > 0) & (fields < frame.width)


def _ragged(text: str, width: int) -> str:
    """Where a CSV text breaks its form: the first row that has not the header's fields, or a quote that nothing ends."""
    csv.field_size_limit(sys.maxsize)
    reader, first = csv.reader(io.StringIO(text, newline=""), strict=True), 1
    try:
        for row in reader:
            if row and len(row) != width:
                over = f" (it goes on to line {reader.line_num})" if reader.line_num > first else ""
                return f"line {first}{over} has {len(row)} fields, and the header {width}"
            first = reader.line_num + 1
    except csv.Error:
        return f"a quote that opens in line {first} is not closed as it should be"
    return ""


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
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise _bad(file, f"is not a JSON list of objects: {e}", "write one object a row", "bad_json") from e
    else:
        for number, line in enumerate(file.data.splitlines(), 1):
            if line.strip():
                try:
                    rows.append(msgspec.json.decode(line, type=dict[str, object]))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
                    raise _bad(
                        file, f"line {number} is not a JSON object: {e}", "write one object a line", "bad_json"
                    ) from e
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pl.DataFrame({name: json_column(name, [row.get(name) for row in rows]) for name in names})


def json_column(name: str, values: list[Any]) -> pl.Series:
    """JSON values in their own type, or as text where types are mixed: whoever needs one type then tells them apart."""
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {bool} or kinds <= {str} or kinds <= {int, float}:
        try:
            mixed = kinds == {int, float}
            return pl.Series(name, [None if v is None else float(v) for v in values] if mixed else values)
        except (pl.exceptions.PolarsError, OverflowError, TypeError):
            pass  # a number that no column type holds stays text, and is a bad row where a number is due
    return pl.Series(name, [_text(v) for v in values], dtype=pl.String)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _check_columns(file: SourceFile, have: list[str], expected: list[str]) -> None:
    missing = [name for name in expected if name not in have]
    if not missing:
        return
    others = [name for name in have if name not in expected]
    near = {name: found for name in missing if (found := looks.nearest(name, others))}
    wanted = [f"{m} (is it {looks.shown(near[m])}?)" if m in near else m for m in missing]
    raise Invalid(
        f"{file.path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(wanted)}; it has {looks.listed(have)}",
        hint="name it in the file as the contract does, or change the contract"
        if near
        else "export it with these columns, or change the contract",
        code="missing_columns",
        details={"file": file.path, "missing": missing, "nearest": near},
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
