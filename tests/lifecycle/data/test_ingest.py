"""One load, from files to a Delta version and its quarantine."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.kernel.errors import Conflict, Denied, FalajError, Integrity, Invalid
from falaj.lifecycle.data.model import BadRow, IngestOutcome, IngestTask, SourceSpec, dataset_digest
from falaj.lifecycle.data.steps.ingest import ingest
from falaj.storage.lake import delta

HEADER = "id,distance,at,name\n"
GOOD = "1,100,2013-01-01T10:00:00Z,a\n2,200,2013-01-01T11:00:00Z,\n"


class Contract(pa.DataFrameModel):
    id: int
    distance: int = pa.Field(in_range={"min_value": 1, "max_value": 6000})
    at: Annotated[pl.Datetime, "us", "UTC"]
    name: str = pa.Field(nullable=True)

    @pa.dataframe_check(error="id_below_distance")
    def id_below_distance(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("id") < pl.col("distance"))


class Quiet:
    def progress(self, text: str, done: int = 0, total: int = 0) -> None: ...

    def metric(self, key: str, value: float, step: int) -> None: ...


def task(root: Path, operation: str = "op1", **changes: Any) -> IngestTask:
    source = SourceSpec(
        "trips", "csv", "data/*.csv", "at", "at", null_values=("NA",), max_bad=changes.pop("max_bad", 0.5)
    )
    source = msgspec.structs.replace(source, **changes.pop("source", {}))
    whole = IngestTask(source, str(root), str(root / "lake/good"), str(root / "lake/bad"), operation)
    return msgspec.structs.replace(whole, **changes)


def put(root: Path, name: str, content: str | bytes) -> Path:
    path = root / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def load(what: IngestTask, contract: object = Contract, prepare: Callable[[Any], Any] | None = None) -> IngestOutcome:
    return ingest(what, contract, prepare, Quiet())


def stored(root: Path, outcome: IngestOutcome) -> pl.DataFrame:
    return delta.scan(root / "lake/good", outcome.version).collect().sort("id")


def quarantined(root: Path) -> pl.DataFrame:
    table = root / "lake/bad"
    return delta.scan(table, delta.head(table)).collect().sort("file", "row")


def test_good_rows_are_stored_with_their_origin(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD)
    outcome = load(task(tmp_path))
    rows = stored(tmp_path, outcome)
    assert rows["at"].to_list() == [datetime(2013, 1, 1, 10, tzinfo=UTC), datetime(2013, 1, 1, 11, tzinfo=UTC)]
    assert rows["name"].to_list() == ["a", None]
    assert rows["_row"].to_list() == [1, 2]
    assert rows["_file"].to_list() == [outcome.files[0].sha256[7:19]] * 2
    assert (outcome.version, outcome.rows, outcome.added, outcome.quarantined) == (0, 2, 2, 0)
    assert outcome.digest == dataset_digest(delta.manifest(tmp_path / "lake/good", 0))
    assert (outcome.event_from, outcome.event_to) == ("2013-01-01T10:00:00.000Z", "2013-01-01T11:00:00.000Z")
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=IngestOutcome) == outcome


def test_each_bad_row_goes_to_quarantine_with_the_first_rule_that_it_breaks(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a.csv",
        HEADER
        + GOOD
        + "three,300,2013-01-01T10:00:00Z,not a number\n"
        + "4,7000,2013-01-01T10:00:00Z,too far\n"
        + ",500,2013-01-01T10:00:00Z,no id\n"
        + "6,NA,2013-01-01T10:00:00Z,no distance\n"
        + "7,700,2013-01-01T10:00:00,no zone\n"
        + "8.5,9999,soon,three wrongs\n"
        + "9,5,2013-01-01T10:00:00Z,two columns\n",
    )
    outcome = load(task(tmp_path, max_bad=0.9))
    assert outcome.reasons == {
        "id: type(Int64)": 2,
        "distance: in_range(1, 6000)": 1,
        "id: not_nullable": 1,
        "distance: not_nullable": 1,
        "at: type(Datetime(time_unit='us', time_zone='UTC'))": 1,
        "id_below_distance": 1,
    }
    assert outcome.added == 2 and outcome.quarantined == 7
    bad = quarantined(tmp_path)
    assert bad["row"].to_list() == [3, 4, 5, 6, 7, 8, 9]
    assert set(bad["file"]) == {"data/a.csv"} and set(bad["operation"]) == {"op1"}
    raw = msgspec.json.decode(bad["raw"][5])
    assert raw == {"id": "8.5", "distance": "9999", "at": "soon", "name": "three wrongs"}
    assert bad["reason"][5] == "id: type(Int64)"


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.sampled_from(["1", "x", "", "9000", "50"]), min_size=1, max_size=8), min_size=1, max_size=3)
)
def test_what_comes_in_is_stored_or_quarantined(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]]
) -> None:
    root = tmp_path_factory.mktemp("ingest")
    for number, distances in enumerate(files):
        lines = "".join(f"{-number - 1},{d},2013-01-01T10:00:00Z,f{number}\n" for d in distances)
        put(root, f"{number}.csv", HEADER + lines)
    outcome = load(task(root, max_bad=1.0))
    assert outcome.added + outcome.quarantined == sum(map(len, files))
    assert sum(outcome.reasons.values()) == outcome.quarantined
    for load_of, distances in zip(outcome.files, files, strict=True):
        assert load_of.rows == len(distances) == load_of.stored + load_of.quarantined
        assert load_of.stored == sum(d in ("1", "50") for d in distances)
    assert stored(root, outcome)["distance"].to_list().count(50) == sum(d.count("50") for d in files)


def test_known_files_are_skipped_and_new_ones_added(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD)
    first = load(task(tmp_path))
    known = tuple(f.sha256 for f in first.files)
    again = load(task(tmp_path, "op2", base_version=first.version, known_files=known))
    assert (again.version, again.digest, again.added, again.skipped, again.files) == (0, first.digest, 0, 1, ())
    put(tmp_path, "b.csv", HEADER + "3,300,2013-01-02T10:00:00Z,c\n")
    put(tmp_path, "copy-of-a.csv", HEADER + GOOD)
    second = load(task(tmp_path, "op3", base_version=first.version, known_files=known))
    assert (second.version, second.added, second.rows, second.skipped) == (1, 1, 3, 2)
    assert [f.path for f in second.files] == ["data/b.csv"]


def test_a_load_that_crashed_before_sql_gives_the_same_outcome_again(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD + "x,1,2013-01-01T10:00:00Z,\n")
    first = load(task(tmp_path))
    put(tmp_path, "b.csv", HEADER + "3,300,2013-01-02T10:00:00Z,came after the crash\n")
    assert load(task(tmp_path)) == first
    assert delta.head(tmp_path / "lake/good") == first.version
    assert quarantined(tmp_path).height == 1


def test_a_crash_between_the_two_tables_does_not_double_the_quarantine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD + "x,1,2013-01-01T10:00:00Z,\n")
    real = delta.append

    def crash(table: Path, *rest: Any, **more: Any) -> int:
        if table.name == "good":
            raise KeyboardInterrupt
        return real(table, *rest, **more)

    monkeypatch.setattr(delta, "append", crash)
    with pytest.raises(KeyboardInterrupt):
        load(task(tmp_path))
    monkeypatch.undo()
    assert load(task(tmp_path)).quarantined == 1
    assert quarantined(tmp_path).height == 1


def test_too_many_bad_rows_refuse_the_load_and_store_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD + "x,1,2013-01-01T10:00:00Z,\n")
    with pytest.raises(Denied) as caught:
        load(task(tmp_path, max_bad=0.3))
    assert caught.value.code == "contract_breach"
    assert caught.value.details["reasons"] == {"id: type(Int64)": 1}
    assert "33.3%" in caught.value.message and caught.value.hint
    assert not (tmp_path / "lake").exists()
    assert load(task(tmp_path, max_bad=0.34)).added == 2


def test_a_row_that_was_cut_short_is_a_bad_row_even_where_nulls_are_allowed(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD + "\n3,300,2013-01-01T10:00:00Z\n4,4")
    outcome = load(task(tmp_path))
    assert (outcome.added, outcome.reasons) == (2, {"row: cut_short": 2})
    assert quarantined(tmp_path)["row"].to_list() == [3, 4]


def test_without_a_contract_all_rows_are_good(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id,at\nx,2013-01-01T10:00:00Z\n")
    times = pl.col("at").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    outcome = load(task(tmp_path), None, lambda rows: rows.with_columns(at=times))
    assert (outcome.added, outcome.reasons) == (1, {})


def test_a_row_without_event_time_after_prepare_is_a_bad_row(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD)
    outcome = load(
        task(tmp_path),
        prepare=lambda rows: rows.with_columns(at=pl.when(pl.col("id") == 2).then("at")).sort("id", descending=True),
    )
    assert (outcome.added, outcome.reasons) == (1, {"at: not_nullable": 1})
    assert quarantined(tmp_path)["row"].to_list() == [1]
    assert stored(tmp_path, outcome)["_row"].to_list() == [2]


def test_a_source_may_have_columns_that_are_called_as_those_of_the_quarantine(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id,file,sha256,row,at\n1,mine,own,8,2013-01-01T10:00:00Z\n2,a,b,9,2013-01-01T10:00:00Z\n")
    columns = {"id": pa.Column(int), "at": pa.Column(pl.Datetime("us", "UTC"))}
    outcome = load(
        task(tmp_path),
        pa.DataFrameSchema(columns),
        prepare=lambda rows: rows.with_columns(at=pl.when(pl.col("id") == 2).then("at")),
    )
    assert outcome.examples == (BadRow("data/a.csv", 1, "at: not_nullable"),)
    (kept,) = quarantined(tmp_path).to_dicts()
    assert kept["sha256"] == outcome.files[0].sha256
    raw = msgspec.json.decode(kept["raw"])
    assert (raw["id"], raw["file"], raw["sha256"], raw["row"]) == (1, "mine", "own", "8")


def test_bytes_in_a_parquet_file_are_stored_and_kept_in_quarantine(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    at = datetime(2013, 1, 1, tzinfo=UTC)
    rows = {"id": [1, None], "at": [at, at], "key": [b"\x00", b"\xff"], "keys": [[b"a"], None]}
    pl.DataFrame(rows).write_parquet(tmp_path / "data/a.parquet")
    source = {"format": "parquet", "files": "data/*.parquet"}
    outcome = load(task(tmp_path, source=source), pa.DataFrameSchema({"id": pa.Column(int)}))
    assert stored(tmp_path, outcome)["key"].to_list() == [b"\x00"]
    assert msgspec.json.decode(quarantined(tmp_path)["raw"][0])["key"] == '"/w=="'


def test_a_number_of_json_that_no_column_can_hold_is_a_bad_row_and_no_null(tmp_path: Path) -> None:
    huge = "9" * 60
    put(
        tmp_path,
        "a.json",
        f'[{{"id": 1, "at": "2013-01-01T10:00:00Z"}}, {{"id": {huge}, "at": "2013-01-01T10:00:00Z"}}]',
    )
    columns = {"id": pa.Column(int, nullable=True), "at": pa.Column(pl.Datetime("us", "UTC"))}
    outcome = load(task(tmp_path, source={"format": "json", "files": "data/*.json"}), pa.DataFrameSchema(columns))
    assert (outcome.added, outcome.reasons) == (1, {"id: type(Int64)": 1})
    assert msgspec.json.decode(quarantined(tmp_path)["raw"][0])["id"] == huge


def double(rows: pl.LazyFrame) -> pl.LazyFrame:
    return pl.concat([rows, rows])


def fails(rows: pl.LazyFrame) -> pl.LazyFrame:
    raise ZeroDivisionError("no")


NAIVE = pl.col("at").dt.replace_time_zone(None)
LOCAL = pl.col("at").dt.convert_time_zone("America/New_York").cast(pl.String)


@pytest.mark.parametrize(
    ("prepare", "kind", "code"),
    [
        (lambda rows: rows.filter(pl.col("id") > 1), Integrity, "rows_lost"),
        (double, Integrity, "rows_lost"),
        (lambda rows: rows.with_columns(_row=pl.lit(1, pl.Int64)), Integrity, "rows_lost"),
        (lambda rows: rows.select("id", "at"), Invalid, "prepare_dropped_origin"),
        (lambda rows: rows.with_columns(at=NAIVE), Invalid, "naive_time"),
        (lambda rows: rows.with_columns(at=LOCAL), Invalid, "not_a_time"),
        (lambda rows: rows.drop("at"), Invalid, "no_time_column"),
        (lambda rows: rows.with_columns(pl.col("nowhere")), Invalid, "prepare_failed"),
        (lambda rows: None, Invalid, "prepare_failed"),
        (fails, Invalid, "prepare_failed"),
    ],
)
def test_what_prepare_may_not_do(
    tmp_path: Path, prepare: Callable[[Any], Any], kind: type[FalajError], code: str
) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD)
    with pytest.raises(kind) as caught:
        load(task(tmp_path), prepare=prepare)
    assert caught.value.code == code and caught.value.hint
    assert not (tmp_path / "lake").exists()


def cut_parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"id": [1], "distance": [1], "at": ["x"], "name": [""]}).write_parquet(buffer)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


@pytest.mark.parametrize(
    ("form", "content", "code", "says"),
    [
        ("csv", "", "empty_file", "empty"),
        ("csv", " \n", "empty_file", "empty"),
        ("csv", HEADER, "empty_file", "no rows"),
        ("csv", "id,at\n1,x\n", "missing_columns", "distance, name"),
        ("csv", (HEADER + GOOD).replace(",", ";"), "wrong_delimiter", "semicolons"),
        ("csv", (HEADER + GOOD).replace(",", "\t"), "wrong_delimiter", "tabs"),
        ("csv", (HEADER + "1,2,2013-01-01T10:00:00Z,caf\xe9\n").encode("latin1"), "bad_encoding", "UTF-8"),
        ("csv", (HEADER + GOOD).encode("utf-16"), "bad_encoding", "UTF-8"),
        ("csv", "id,id,distance,at,name\n1,1,1,x,y\n", "duplicate_columns", "id"),
        ("csv", HEADER + GOOD + "1,2,3,4,5,6\n", "bad_csv", "line 4"),
        ("csv", HEADER.replace("id", "_row,id") + "1,1,2,2013-01-01T10:00:00Z,a\n", "taken_column", "_row"),
        ("parquet", cut_parquet(), "bad_parquet", "Parquet"),
        ("parquet", b"id,at\n1,2\n", "wrong_format", "Parquet"),
        ("json", b'{"id": 1}\n{"id": \n', "bad_json", "line 2"),
        ("json", b'[{"id": 1}, 2]', "bad_json", "list of objects"),
        ("json", b'{"id": 1}\n', "missing_columns", "distance"),
        ("xml", b"<a/>", "unknown_format", "xml"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, form: str, content: str | bytes, code: str, says: str
) -> None:
    put(tmp_path, "a.csv", content)
    with pytest.raises(Invalid) as caught:
        load(task(tmp_path, source={"format": form}))
    assert caught.value.code == code and caught.value.hint
    assert says in caught.value.message
    assert "a.csv" in caught.value.message or code == "unknown_format"


@pytest.mark.parametrize("pattern", ["/etc/*.conf", "../*.csv", "data/../../*.csv", ""])
def test_a_pattern_out_of_the_project_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(Invalid) as caught:
        load(task(tmp_path, source={"files": pattern}))
    assert caught.value.code == "source_outside_project"


def test_a_link_out_of_the_project_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "secret.csv"
    outside.write_text(HEADER + GOOD)
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    (root / "data/a.csv").symlink_to(outside)
    with pytest.raises(Invalid) as caught:
        load(task(root))
    assert caught.value.code == "source_outside_project"


def test_no_file_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        load(task(tmp_path))
    assert caught.value.code == "no_files" and "data/*.csv" in caught.value.message


def test_parquet_and_json_rows_are_held_to_the_same_contract(tmp_path: Path) -> None:
    moment = datetime(2013, 1, 1, 10, tzinfo=UTC)
    (tmp_path / "data").mkdir()
    pl.DataFrame({"id": [1.0, 2.5], "distance": [10, 20], "at": [moment] * 2, "name": ["a", "b"]}).write_parquet(
        tmp_path / "data/a.parquet"
    )
    put(
        tmp_path,
        "a.ndjson",
        '{"id": 3, "distance": 30, "at": "2013-01-01T10:00:00Z", "name": "c"}\n'
        '{"id": "word", "distance": 40, "at": "2013-01-01T12:00:00+02:00"}\n\n',
    )
    one = load(task(tmp_path, source={"format": "parquet", "files": "data/*.parquet"}))
    assert (one.added, one.reasons) == (1, {"id: type(Int64)": 1})
    two = load(task(tmp_path, "op2", source={"format": "json", "files": "data/*.ndjson"}, base_version=one.version))
    assert (two.added, two.rows, two.reasons) == (1, 2, {"id: type(Int64)": 1})
    assert stored(tmp_path, two)["at"].to_list() == [moment, moment]


def test_the_environment_cannot_turn_the_contract_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDERA_VALIDATION_ENABLED", "False")
    monkeypatch.setenv("PANDERA_VALIDATION_DEPTH", "SCHEMA_ONLY")
    put(tmp_path, "a.csv", HEADER + GOOD + "4,7000,2013-01-01T10:00:00Z,\n")
    assert load(task(tmp_path)).quarantined == 1


def test_rules_that_cannot_be_judged_row_by_row_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD)
    columns = {"id": pa.Column(int), "at": Contract.to_schema().columns["at"]}
    whole = pa.DataFrameSchema(columns, checks=pa.Check(lambda data: False, name="never"))
    broken = pa.DataFrameSchema(columns, checks=pa.Check(lambda data: data.lazyframe.select("nowhere"), name="broken"))
    for contract in (broken, "not a contract"):
        with pytest.raises(Invalid) as caught:
            load(task(tmp_path), contract)
        assert caught.value.code == "bad_contract"
    with pytest.raises(Invalid, match="never"):
        load(task(tmp_path), whole)


def test_strict_contracts_refuse_or_leave_out_columns_that_they_do_not_know(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD)
    columns = {name: c for name, c in Contract.to_schema().columns.items() if name != "name"}
    with pytest.raises(Invalid) as caught:
        load(task(tmp_path), pa.DataFrameSchema(columns, strict=True))
    assert caught.value.code == "unexpected_columns" and "name" in caught.value.message
    outcome = load(task(tmp_path), pa.DataFrameSchema(columns, strict="filter"))
    assert stored(tmp_path, outcome).columns == ["id", "distance", "at", "_file", "_row"]


def test_a_changed_file_whose_types_have_changed_too_is_refused_for_its_types(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", HEADER + GOOD)
    first = load(task(tmp_path))
    put(tmp_path, "a.csv", HEADER + GOOD + "3,300,2013-01-01T12:00:00Z,c\n")
    columns = {**Contract.to_schema().columns, "id": pa.Column(float, name="id")}
    known = tuple(file.sha256 for file in first.files)
    again = task(
        tmp_path, "op2", base_version=first.version, known_files=known, known_paths={first.files[0].path: known}
    )
    with pytest.raises(Conflict) as caught:
        load(again, pa.DataFrameSchema(columns))
    assert caught.value.code == "schema_changed" and "id was Int64, is Float64" in caught.value.message
