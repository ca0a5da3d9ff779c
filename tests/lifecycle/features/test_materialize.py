"""Offline and online values are the same ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.kernel.clock import iso
from falaj.kernel.digests import sha256
from falaj.kernel.errors import Invalid
from falaj.lifecycle.features.model import (
    ColumnSpec,
    EntitySpec,
    MaterializeOutcome,
    MaterializeTask,
    ViewSpec,
    fresh,
)
from falaj.lifecycle.features.steps.join import ViewFrame, training_frame
from falaj.lifecycle.features.steps.materialize import latest_values, materialize
from falaj.lifecycle.features.steps.views import view_rows
from falaj.storage.lake import delta
from falaj.storage.online.lmdb_store import OnlineReader

T0 = datetime(2013, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
COLUMNS = (
    ColumnSpec("mean", "float"),
    ColumnSpec("n", "integer"),
    ColumnSpec("up", "boolean"),
    ColumnSpec("c", "category"),
)
VIEW = ViewSpec("v", EntitySpec("thing", "key"), "rows", "known", "known", 3600, COLUMNS, "m:v", sha256(b"v"))


class Quiet:
    def progress(self, text: str, done: int = 0, total: int = 0) -> None: ...

    def metric(self, key: str, value: float, step: int) -> None: ...


def rolling(rows: pl.LazyFrame) -> pl.LazyFrame:
    window = pl.col("x").rolling_mean_by("known", window_size="30m").over("key")
    return rows.filter(pl.col("known").is_not_null()).select(
        "key", "known", mean=window, n=pl.col("x").cast(pl.Int64), up=pl.col("x") > 1, c=pl.col("c")
    )


def filled(root: Path, rows: list[tuple[Any, ...]]) -> int:
    frame = pl.DataFrame(
        [(k, None if m is None else T0 + timedelta(minutes=m), x, c) for k, m, x, c in rows],
        schema={"key": pl.String, "known": TIME, "x": pl.Float64, "c": pl.String},
        orient="row",
    )
    return delta.append(root / "lake", frame, "op0")


def task(root: Path, version: int, as_of: datetime, operation: str = "op1") -> MaterializeTask:
    return MaterializeTask(
        (VIEW,), {"rows": str(root / "lake")}, {"rows": version}, iso(as_of), str(root / "online"), operation
    )


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None, ""]),
        st.none() | st.integers(0, 120),
        st.none() | st.floats(-5, 5).map(lambda x: round(x, 2)),
        st.sampled_from(["p", "q", None]),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=25)
@given(ROWS, st.integers(0, 150))
def test_what_is_read_online_is_what_training_would_have_seen(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], minute: int
) -> None:
    root = tmp_path_factory.mktemp("skew")
    version, as_of = filled(root, rows), T0 + timedelta(minutes=minute)
    materialize(task(root, version, as_of), {"v": rolling}, Quiet())
    reader = OnlineReader(root / "online")
    keys = ["a", "b", "c", "zz"]
    spine = pl.DataFrame({"key": keys, "t": [as_of] * 4}).cast({"t": TIME})
    view = ViewFrame(VIEW, view_rows(VIEW, rolling, delta.scan(root / "lake", version)))
    offline = training_frame(spine, "t", [view]).drop("key", "t").rows()
    for found, expected in zip(reader.get_many(VIEW.digest, keys), offline, strict=True):
        online: tuple[Any, ...] = (None,) * 4
        if found is not None and fresh(
            as_of - (datetime.fromtimestamp(0, UTC) + timedelta(microseconds=found[0])), 3600
        ):
            online = found[1]
        assert online == expected
    reader.close()


@settings(max_examples=25)
@given(ROWS, st.integers(0, 150))
def test_a_lookback_reads_fewer_rows_and_gives_the_same_fresh_values(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], minute: int
) -> None:
    root = tmp_path_factory.mktemp("lookback")
    version, as_of = filled(root, rows), T0 + timedelta(minutes=minute)
    source = delta.scan(root / "lake", version)
    limited = msgspec.structs.replace(VIEW, ttl_seconds=1200, lookback_seconds=1800, source_known_at="known")
    whole = msgspec.structs.replace(VIEW, ttl_seconds=1200)
    few, all_ = (
        {
            row[0]: row[1:]
            for row in latest_values(view, rolling, source, as_of).select("__key", "__event", "n", "up").rows()
        }
        for view in (limited, whole)
    )
    oldest = as_of - timedelta(seconds=1200)
    assert few == {key: row for key, row in all_.items() if row[0] >= oldest} | {
        k: v for k, v in few.items() if v[0] < oldest
    }
    means = [
        {key: mean for key, event, mean in found.select("__key", "__event", "mean").rows() if event >= oldest}
        for found in (latest_values(view, rolling, source, as_of) for view in (limited, whole))
    ]
    assert means[0] == pytest.approx(means[1], nan_ok=True)


def test_rows_from_before_the_lookback_are_not_read(tmp_path: Path) -> None:
    version = filled(tmp_path, [("a", 0, 1.0, "p"), ("b", 100, 2.0, "p")])
    limited = msgspec.structs.replace(VIEW, ttl_seconds=1200, lookback_seconds=1800, source_known_at="known")
    seen: list[int] = []

    def transform(rows: pl.LazyFrame) -> pl.LazyFrame:
        seen.append(rows.select(pl.len()).collect().item())
        return rolling(rows)

    latest_values(limited, transform, delta.scan(tmp_path / "lake", version), T0 + timedelta(minutes=120))
    assert seen == [1]


def test_the_outcome_counts_keys_and_spans_times(tmp_path: Path) -> None:
    version = filled(
        tmp_path,
        [("a", 0, 1.0, "p"), ("a", 30, 3.0, "p"), ("b", 10, 2.0, "q"), ("c", 90, 1.0, "p"), (None, 5, 1.0, "p")],
    )
    outcome = materialize(task(tmp_path, version, T0 + timedelta(hours=1)), {"v": rolling}, Quiet())
    (view,) = outcome.views
    assert (view.view, view.digest, view.keys, view.datasets) == ("v", VIEW.digest, 2, {"rows": 0})
    assert (view.event_from, view.event_to) == ("2013-01-01T00:10:00.000Z", "2013-01-01T00:30:00.000Z")
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=MaterializeOutcome) == outcome
    reader = OnlineReader(tmp_path / "online")
    found = reader.get_many(VIEW.digest, ["a"])[0]
    assert found == (int((T0 + timedelta(minutes=30)).timestamp() * 1e6), (3.0, 3.0, 1.0, "p"))
    meta = reader.meta(VIEW.digest)
    assert meta is not None and meta.columns == ("mean", "n", "up", "c") and meta.operation_id == "op1"
    reader.close()


def test_only_the_named_version_is_read_and_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    version = filled(tmp_path, [("a", 0, 1.0, "p")])
    orphan = delta.scan(tmp_path / "lake", version).with_columns(key=pl.lit("orphan")).collect()
    delta.append(tmp_path / "lake", orphan, "crashed")
    first = materialize(task(tmp_path, version, T0), {"v": rolling}, Quiet())
    assert first.views[0].keys == 1
    assert materialize(task(tmp_path, version, T0), {"v": rolling}, Quiet()) == first


def test_a_view_without_code_or_data_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    version = filled(tmp_path, [("a", 0, 1.0, "p")])
    for what, transforms, code in (
        (task(tmp_path, version, T0), {}, "no_such_view"),
        (task(tmp_path, -1, T0), {"v": rolling}, "no_source_data"),
        (msgspec.structs.replace(task(tmp_path, 0, T0), tables={}), {"v": rolling}, "no_source_data"),
    ):
        with pytest.raises(Invalid) as caught:
            materialize(what, transforms, Quiet())
        assert caught.value.code == code
    assert not (tmp_path / "online").exists()
