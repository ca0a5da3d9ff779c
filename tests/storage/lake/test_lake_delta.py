"""Delta tables: one commit per operation, orphans undone, versions named by their files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from deltalake.transaction import AddAction

from falaj.kernel.errors import Conflict, Integrity, Invalid, NotFound
from falaj.lifecycle.data.model import dataset_digest
from falaj.storage.lake import delta


def frame(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"a": list(values)})


def read(table: Path, version: int) -> list[int]:
    return sorted(delta.scan(table, version).collect()["a"].to_list())


def test_the_same_operation_appends_once(tmp_path: Path) -> None:
    table = tmp_path / "t"
    assert delta.head(table) == -1
    assert delta.append(table, frame(1, 2), "op1") == 0
    assert delta.append(table, frame(3), "op2") == 1
    assert delta.append(table, frame(1, 2), "op1") == 0
    assert delta.append(table, frame(3), "op2") == 1
    assert delta.head(table) == 1
    assert read(table, 0) == [1, 2]
    assert read(table, 1) == [1, 2, 3]
    assert delta.rows(table, 1) == 3


def test_an_orphan_never_reaches_the_next_version(tmp_path: Path) -> None:
    table = tmp_path / "t"
    named = delta.append(table, frame(1), "op1", base=-1)
    delta.append(table, frame(66), "crashed", base=named)
    version = delta.append(table, frame(2), "op2", base=named)
    assert read(table, version) == [1, 2]
    assert read(table, named) == [1]


def test_an_orphan_before_the_first_named_version_is_left_out_whatever_its_columns(tmp_path: Path) -> None:
    table = tmp_path / "t"
    delta.append(table, pl.DataFrame({"other": ["x"]}), "crashed", base=-1)
    version = delta.append(table, frame(1), "op1", base=-1)
    assert read(table, version) == [1]


def test_an_operation_that_was_overtaken_is_done_again_on_the_new_head(tmp_path: Path) -> None:
    table = tmp_path / "t"
    named = delta.append(table, frame(1), "op1", base=-1)
    delta.append(table, frame(7), "late", base=named)
    named = delta.append(table, frame(2), "op2", base=named)
    version = delta.append(table, frame(7), "late", base=named)
    assert version > named
    assert read(table, version) == [1, 2, 7]


def test_a_record_of_a_version_that_the_table_lacks_is_an_integrity_error(tmp_path: Path) -> None:
    table = tmp_path / "t"
    delta.append(table, frame(1), "op1")
    with pytest.raises(Integrity) as caught:
        delta.append(table, frame(2), "op2", base=5)
    assert caught.value.code == "lake_version_missing"
    with pytest.raises(Integrity):
        delta.scan(table, 5)
    with pytest.raises(NotFound):
        delta.scan(tmp_path / "none", 0)


def test_changed_columns_are_refused_and_not_cast(tmp_path: Path) -> None:
    table = tmp_path / "t"
    delta.append(table, frame(1), "op1")
    for changed in (pl.DataFrame({"a": ["2"]}), pl.DataFrame({"b": [2]}), pl.DataFrame({"a": [2], "b": [2]})):
        with pytest.raises(Conflict) as caught:
            delta.append(table, changed, "op2")
        assert caught.value.code == "schema_changed"
    assert delta.head(table) == 0


def test_columns_may_come_in_another_order(tmp_path: Path) -> None:
    table = tmp_path / "t"
    delta.append(table, pl.DataFrame({"a": [1], "b": ["x"]}), "op1")
    version = delta.append(table, pl.DataFrame({"b": ["y"], "a": [2]}), "op2")
    assert sorted(delta.scan(table, version).collect().rows()) == [(1, "x"), (2, "y")]


def test_times_become_utc_microseconds_and_naive_ones_are_refused(tmp_path: Path) -> None:
    moment = datetime(2013, 7, 1, 12, tzinfo=UTC)
    rows = pl.DataFrame({"t": [moment]}).select(
        pl.col("t").dt.convert_time_zone("America/New_York").dt.cast_time_unit("ns")
    )
    version = delta.append(tmp_path / "t", rows, "op1")
    stored = delta.scan(tmp_path / "t", version).collect()
    assert stored.schema["t"] == pl.Datetime("us", "UTC")
    assert stored["t"].to_list() == [moment]
    with pytest.raises(Invalid) as caught:
        delta.append(tmp_path / "n", pl.DataFrame({"t": [moment.replace(tzinfo=None)]}), "op1")
    assert caught.value.code == "naive_time"


def test_types_that_delta_lacks_become_ones_it_has(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {"u": pl.Series([4_000_000_000], dtype=pl.UInt32), "c": pl.Series(["x"], dtype=pl.Categorical), "n": [None]}
    )
    version = delta.append(tmp_path / "t", rows, "op1")
    assert delta.scan(tmp_path / "t", version).collect().rows() == [(4_000_000_000, "x", None)]


def test_the_manifest_names_a_version_by_its_files(tmp_path: Path) -> None:
    table = tmp_path / "t"
    first = delta.append(table, frame(1), "op1")
    before = delta.manifest(table, first)
    second = delta.append(table, frame(2), "op2")
    assert delta.manifest(table, first) == before
    assert set(before) < set(delta.manifest(table, second))
    assert all((table / path).stat().st_size == size for path, size in delta.manifest(table, second))
    assert dataset_digest(before) != dataset_digest(delta.manifest(table, second))


def test_history_tells_who_wrote_which_version(tmp_path: Path) -> None:
    table = tmp_path / "t"
    delta.append(table, frame(1), "op1", note="first")
    delta.append(table, frame(2), "op2", note="second")
    assert [(c.version, c.operation_id, c.note) for c in delta.history(table)] == [
        (0, "op1", "first"),
        (1, "op2", "second"),
    ]
    found = delta.committed(table, "op2")
    assert found is not None and found.note == "second"
    assert delta.committed(table, "op3") is None


def test_a_writer_that_was_overtaken_does_not_retry_on_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "t"
    delta.append(table, frame(1), "op1")

    written = delta._written

    def overtaken(table: Path, rows: pl.DataFrame) -> AddAction:
        monkeypatch.undo()
        delta.append(table, frame(9), "op9")  # somebody else, between our look and our commit
        return written(table, rows)

    monkeypatch.setattr(delta, "_written", overtaken)
    with pytest.raises(Conflict) as caught:
        delta.append(table, frame(2), "op2")
    assert caught.value.code == "lake_busy"
    assert read(table, delta.head(table)) == [1, 9]
