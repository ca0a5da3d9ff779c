"""Files that are not what a source expects: each is refused with the reason or quarantined, and nothing that was there is lost."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.badinput.home import Home, running

HEAD = "sold_at,known_at,shop,price,visits,note\n"
FIRST, MORE = 20, 40  # rows after the first load and after the second
PERSON = "Salma Al-Harthy"  # stands where a number is due: nobody's business but the loader's


def line(n: int, **changed: str) -> str:
    cells = {
        "sold_at": f"2024-01-01T{n % 24:02d}:00:00Z",
        "known_at": f"2024-01-02T{n % 24:02d}:00:00Z",
        "shop": "north",
    }
    return ",".join({**cells, "price": str(50 + n), "visits": str(n), "note": "", **changed}.values()) + "\n"


def csv(*more: str, rows: range = range(20, 40)) -> str:
    return HEAD + "".join(line(n) for n in rows) + "".join(more)


GOOD, NEXT = csv(rows=range(20)), csv()
CODE = """
import polars as pl, pandera.polars as pa
from typing import Annotated
import falaj as fj

class Sale(pa.DataFrameModel):
    sold_at: Annotated[pl.Datetime, "us", "UTC"]
    known_at: Annotated[pl.Datetime, "us", "UTC"]
    shop: str
    price: float = pa.Field(ge=0, nullable=True)
    visits: int
    note: str = pa.Field(nullable=True)

def local(rows):  # clocks of New York that say nothing of their zone
    return rows.with_columns(
        pl.col("sold_at", "known_at").str.to_datetime("%Y-%m-%dT%H:%M:%SZ").dt.replace_time_zone("America/New_York").dt.convert_time_zone("UTC"))

def source(name, files, kind="csv", **more):
    return getattr(fj.Source, kind)(name, files, event_time="sold_at", known_at="known_at", **({"contract": Sale} | more))
"""


def parquet(text: str) -> bytes:
    out = io.BytesIO()
    pl.read_csv(io.BytesIO(text.encode()), try_parse_dates=False).write_parquet(out)
    return out.getvalue()


@dataclass(frozen=True)
class Case:
    """A file that is refused: what is told of it."""

    content: str | bytes
    code: str
    says: str
    hints: str = ""
    kind: str = "csv"
    options: str = ""
    good: tuple[str | bytes, str | bytes] = field(default=(GOOD, NEXT))


PACKED = (parquet(GOOD), parquet(NEXT))
REFUSED = {
    "missing-column": Case("sold_at,shop\n2024-01-01T00:00:00Z,north\n", "missing_columns", "lacks the columns known_at, price"),
    "renamed-column": Case(NEXT.replace("visits", "Visits "), "missing_columns", "visits (is it 'Visits '?)", "name it in the file"),
    "another-spelling": Case(NEXT.replace("price", "pricing"), "missing_columns", "price (is it pricing?); it has sold_at"),
    "twice-the-column": Case(NEXT.replace("note", "price"), "duplicate_columns", "has columns twice: price"),
    "new-column": Case(csv(line(1, visits="x")).replace("note\n", "note,extra\n").replace(",\n", ",,1\n"), "schema_changed", "extra is new", "strict = 'filter'"),
    "wrong-type": Case(csv(*(line(n, price=PERSON) for n in range(5))), "contract_breach", "price: type(Float64) (5)", "nothing was stored"),
    "decimal-commas": Case(HEAD + line(1, price='"12,5"'), "contract_breach", "1 of 1 rows"),
    "nothing": Case("", "empty_file", "is empty"),
    "blank": Case(" \n\n\t\n", "empty_file", "is empty"),
    "header-only": Case(HEAD, "empty_file", "has columns but no rows"),
    "semicolons": Case(NEXT.replace(",", ";"), "wrong_delimiter", "separated by semicolons", "commas"),
    "tabs": Case(NEXT.replace(",", "\t"), "wrong_delimiter", "separated by tabs"),
    "latin-1": Case(csv(line(1, shop="café")).encode("latin-1"), "bad_encoding", "in line 22, cannot be read", "iconv -f latin1"),
    "utf-16": Case(NEXT.encode("utf-16"), "bad_encoding", "is UTF-16", "iconv -f utf-16 "),
    "utf-16-unmarked": Case(NEXT.encode("utf-16-be"), "bad_encoding", "is UTF-16BE", "iconv -f utf-16be"),
    "zeros": Case(NEXT.encode() + b"\0" * 4096, "bad_csv", "a null byte in line 22"),
    "long-row": Case(csv(line(1)[:-1] + ",a,b\n"), "bad_csv", "line 22 has 8 fields, and the header 6"),
    "open-quote": Case(csv(line(1, note='"not closed')), "bad_csv", "a quote that opens in line 22"),
    "old-mac": Case(NEXT.replace("\n", "\r"), "bad_csv", "carriage return", "tr "),
    "packed": Case(gzip.compress(NEXT.encode()), "wrong_format", "is gzip, not CSV", "unpack"),
    "workbook": Case(b"PK\x03\x04" + b"\0\xff" * 500, "wrong_format", "Excel workbook"),
    "sign-in-page": Case("<!DOCTYPE html><html>Sign in</html>", "wrong_format", "a web page"),
    "parquet-as-csv": Case(parquet(NEXT), "wrong_format", "is Parquet, not CSV", "fj.Source.parquet"),
    "csv-as-parquet": Case(NEXT, "wrong_format", "is text, not Parquet", "fj.Source.csv", kind="parquet", good=PACKED),
    "half-a-parquet": Case(PACKED[1][:700], "bad_parquet", "not a whole Parquet file", "copy", kind="parquet", good=PACKED),
    "hour-that-was-not": Case(csv(line(1, sold_at="2024-03-10T02:30:00Z")), "prepare_failed", "prepare of source", "non_existent", options=", contract=None, prepare=local"),
    "hour-that-was-twice": Case(csv(line(1, sold_at="2024-11-03T01:30:00Z")), "prepare_failed", "prepare of source", "ambiguous", options=", contract=None, prepare=local"),
    "no-zone-no-contract": Case(NEXT, "not_a_time", "column sold_at", "UTC", options=", contract=None"),
}  # fmt: skip
TOLD_AT_ONCE = {"no-zone-no-contract"}  # wrong from the first load on

ODD = {  # a row among twenty good ones → the rule that it breaks, or none when it is a good row
    "text-in-a-number": (line(1, price=PERSON), "price: type(Float64)"),
    "cut-short": ("2024-01-01T00:00:00Z,2024-01-02T00:00:00Z\n", "row: cut_short"),
    "beyond-int64": (line(1, visits="99999999999999999999"), "visits: type(Int64)"),
    "minus-infinity": (line(1, price="-inf"), "price: greater_than_or_equal_to(0)"),
    "not-a-number": (line(1, price="NaN"), ""),
    "infinity": (line(1, price="1e400"), ""),
    "another-zone": (line(1, sold_at="2024-01-01T04:00:00+04:00"), ""),
    "no-zone": (line(1, sold_at="2024-01-01 00:00:00"), "sold_at: type("),
    "a-date": (line(1, sold_at="2024-01-01"), "sold_at: type("),
    "seconds-since-1970": (line(1, sold_at="1704067200"), "sold_at: type("),
    "no-time": (line(1, sold_at=""), "sold_at: not_nullable"),
    "in-the-future": (line(1, sold_at="2124-01-01T00:00:00Z", known_at="2124-01-01T00:00:00Z"), ""),
    "known-before-it-happened": (line(1, sold_at="2024-01-03T00:00:00Z"), ""),
    "a-novel-in-a-field": (line(1, note="x" * 2_000_000), ""),
    "a-quoted-line-end": (line(1, note='"two\nlines"'), ""),
}  # fmt: skip
NAMED = {"arabic": "مبيعات يناير 2024.csv", "long": "x" * 240 + ".csv", "signs": "a 'b' [c] %20 #1 é.csv"}
OTHERS = (
    "same-file", "same-content", "changed", "latest", "folder", "link", "gone-link", "pipe", "no-match", "bad-glob", "columns-with-odd-names",
)  # fmt: skip


def project() -> str:
    kinds = {
        **{name: (c.kind, c.options) for name, c in REFUSED.items()},
        **dict.fromkeys((*ODD, *NAMED, *OTHERS), ("csv", "")),
    }
    kinds["columns-with-odd-names"] = ("csv", ", contract=None, prepare=lambda rows: rows.with_columns(pl.col('sold_at', 'known_at')"
                                       ".str.to_datetime('%Y-%m-%dT%H:%M:%SZ', time_zone='UTC'))")  # fmt: skip
    made = []
    for n, (name, (kind, options)) in enumerate(kinds.items()):
        files = f"data/{name}/**x/*.csv" if name == "bad-glob" else f"data/{name}/*.{kind}"
        made.append(f"s{n} = source({name!r}, {files!r}, {kind!r}{options})\n")
    return CODE + "".join(made)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with running(tmp_path_factory.mktemp("shop") / "shop", project()) as home:
        yield home


def put(home: Home, source: str, content: str | bytes, name: str = "more.csv") -> Path:
    path = home.folder / "data" / source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def first_load(home: Home, source: str, content: str | bytes = GOOD, kind: str = "csv") -> list[Any]:
    put(home, source, content, f"first.{kind}")
    loaded = home.done("ingest", source)
    assert (loaded["version"], loaded["added"], loaded["quarantined"]) == (0, FIRST, 0)
    found: list[Any] = home.done("data", "log", source)
    return found


def unharmed(home: Home, source: str, log: list[Any]) -> None:
    """What was there is as it was: the versions, the rows that readers see, an empty quarantine."""
    assert home.done("data", "log", source) == log
    if log:
        assert home.rows(source, 0) == FIRST
    assert home.quarantined(source) == []


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_and_its_mended_self_is_loaded(home: Home, name: str) -> None:
    case = REFUSED[name]
    log = [] if name in TOLD_AT_ONCE else first_load(home, name, case.good[0], case.kind)
    path = put(home, name, case.content, f"more.{case.kind}")
    error = home.refused("ingest", name)
    assert error["code"] == case.code, error
    assert case.says in error["error"] and case.hints in error["hint"], error
    unharmed(home, name, log)
    if log:
        path.write_bytes(case.good[1].encode() if isinstance(case.good[1], str) else case.good[1])
        loaded = home.done("ingest", name)
        assert (loaded["version"], loaded["added"], loaded["rows"]) == (1, FIRST, MORE)
        assert home.rows(name, 0) == FIRST and home.rows(name, 1) == MORE


@pytest.mark.parametrize("name", ODD)
def test_an_odd_row_is_stored_or_lies_in_quarantine_as_it_stood_in_the_file(home: Home, name: str) -> None:
    row, reason = ODD[name]
    first_load(home, name)
    put(home, name, csv(row))
    ended = home("ingest", name, "--json")
    assert ended.code == 0, ended
    assert (ended.json["added"], ended.json["quarantined"]) == ((20, 1) if reason else (21, 0))
    bad = home.quarantined(name)
    assert len(bad) == (1 if reason else 0)
    if bad:
        assert bad[0]["reason"].startswith(reason) and (bad[0]["file"], bad[0]["row"]) == (f"data/{name}/more.csv", 21)
        assert bad[0]["reason"] in ended.json["reasons"]
        assert [(e["row"], e["reason"]) for e in ended.json["examples"]] == [(21, bad[0]["reason"])]
    assert home.rows(name, 0) == FIRST and home.rows(name, 1) == ended.json["rows"] == FIRST + ended.json["added"]


@pytest.mark.parametrize("name", NAMED)
def test_a_file_may_have_any_name_that_the_disk_takes(home: Home, name: str) -> None:
    first_load(home, name)
    put(home, name, NEXT, NAMED[name])
    loaded = home.done("ingest", name)
    assert (loaded["added"], loaded["files"][0]["path"]) == (FIRST, f"data/{name}/{NAMED[name]}")


def test_columns_may_have_any_name_that_a_file_gives_them(home: Home) -> None:
    name = "columns-with-odd-names"
    put(
        home, name, NEXT.replace("shop", "المتجر").replace("note", "n" * 300).replace("price", "price (€)"), "first.csv"
    )
    assert home.done("ingest", name)["added"] == FIRST


def test_the_same_again_is_nothing_new(home: Home) -> None:
    log = first_load(home, "same-file")
    ended = home("ingest", "same-file")
    assert (ended.code, ended.out) == (0, "same-file: nothing new (1 files known)\n")
    put(home, "same-file", GOOD, "under another name.csv")
    assert home.done("ingest", "same-file")["skipped"] == 2
    assert home.done("data", "log", "same-file") == log


def test_a_file_that_changed_after_its_load_is_not_stored_twice(home: Home) -> None:
    log = first_load(home, "changed")
    path = put(home, "changed", GOOD + NEXT.removeprefix(HEAD), "first.csv")
    error = home.refused("ingest", "changed")
    assert error["code"] == "file_changed" and "20 of its 40 rows are stored already" in error["error"]
    unharmed(home, "changed", log)
    path.write_text(GOOD)
    put(home, "changed", NEXT, "second.csv")
    assert home.done("ingest", "changed")["rows"] == MORE


def test_a_file_that_is_replaced_by_other_rows_is_new(home: Home) -> None:
    first_load(home, "latest")
    put(home, "latest", NEXT, "first.csv")
    assert home.done("ingest", "latest")["rows"] == MORE


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("folder", "no_files", "more.csv is a folder"),
        ("link", "source_outside_project", "leads out of the project"),
        ("gone-link", "source_outside_project", "leads out of the project"),
        ("pipe", "not_a_regular_file", "not a regular file"),
        ("no-match", "no_files", "no file matches data/no-match/*.csv"),
        ("bad-glob", "bad_pattern", "**x"),
    ],
)
def test_what_is_no_file_of_the_project(home: Home, tmp_path: Path, name: str, code: str, says: str) -> None:
    folder = home.folder / "data" / name
    folder.mkdir(parents=True)
    if name == "folder":
        (folder / "more.csv").mkdir()
    elif name == "pipe":
        os.mkfifo(folder / "more.csv")
    elif name.endswith("link"):
        (tmp_path / "outside.csv").write_text(GOOD)
        (folder / "more.csv").symlink_to(tmp_path / ("outside.csv" if name == "link" else "nowhere.csv"))
    error = home.refused("ingest", name)
    assert error["code"] == code and says in error["error"], error
    assert home.done("data", "log", name) == []


def test_a_person_sees_the_first_rows_and_the_log_does_not(home: Home) -> None:
    """Last, after every case of this module has left its entry."""
    put(home, "no-match", csv(*(line(n, price=PERSON) for n in range(5))))
    ended = home("ingest", "no-match")
    assert ended.code == 1 and "Traceback" not in ended.err
    assert f"data/no-match/more.csv row 21: price: type(Float64): '{PERSON}'" in ended.err
    entries = home.done("audit", "log", "--limit", "500")
    assert "contract_breach" in str(entries) and PERSON not in str(entries)
    assert PERSON not in home.log.read_text()
