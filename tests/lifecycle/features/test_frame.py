"""What a model learns from: rows whose outcome was known, no older than its history, beside the views as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from falaj.kernel.clock import iso
from falaj.kernel.digests import sha256
from falaj.lifecycle.features.model import ColumnSpec, EntitySpec, FrameTask, ViewSpec
from falaj.lifecycle.features.steps.frame import build_frame
from falaj.lifecycle.training.model import DatasetUse, Input, TrainingSpec, TrainTask, training_set_digest
from falaj.storage.lake import delta

T0 = datetime(2013, 1, 1, tzinfo=UTC)
DAY = 86400
AS_OF = T0 + timedelta(days=10)
VIEW = ViewSpec(
    "seen", EntitySpec("thing", "key"), "rows", "at", "known", 9 * DAY, (ColumnSpec("n", "integer"),), "m:seen", sha256(b"v")
)  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row a day for 20 days, whose outcome is known half a day later; the moment of decision is its own."""
    folder = tmp_path_factory.mktemp("lake") / "rows"
    days = range(20)
    frame = pl.DataFrame(
        {
            "key": ["k"] * len(days),
            "at": [T0 + timedelta(days=d) for d in days],
            "known": [T0 + timedelta(days=d, hours=12) for d in days],
            "day": list(days),
        },
        schema_overrides={"at": pl.Datetime("us", "UTC"), "known": pl.Datetime("us", "UTC")},
    )
    delta.append(folder, frame, "op1")
    return folder


def frame(table: Path, views: tuple[ViewSpec, ...] = (), **changed: Any) -> pl.DataFrame:
    task = FrameTask("rows", "at", "known", iso(AS_OF), views, {"rows": str(table)}, {"rows": 0})
    return build_frame(msgspec.structs.replace(task, **changed), {"seen": counted}).sort("at")


def counted(rows: pl.LazyFrame) -> pl.LazyFrame:
    """How many rows of a key there were up to each."""
    return rows.sort("at").select("key", "at", "known", n=pl.int_range(pl.len()).over("key"))


def test_without_a_history_every_row_whose_outcome_was_known_is_learnt_from(table: Path) -> None:
    assert frame(table)["day"].to_list() == list(range(10))


@pytest.mark.parametrize(
    ("seconds", "days"),
    [
        (3 * DAY, [7, 8, 9]),  # the first is exactly three days old
        (3 * DAY - 1, [8, 9]),
        (3 * DAY + 1, [7, 8, 9]),
        (DAY // 2, []),
        (100 * DAY, list(range(10))),
    ],
)
def test_a_history_ends_at_rows_of_exactly_that_age(table: Path, seconds: int, days: list[int]) -> None:
    assert frame(table, history_seconds=seconds)["day"].to_list() == days


def test_a_history_counts_back_from_the_moment_that_the_frame_is_of(table: Path) -> None:
    later = iso(AS_OF + timedelta(days=4))
    assert frame(table, history_seconds=2 * DAY, as_of=later)["day"].to_list() == [12, 13]


def test_views_go_on_seeing_older_rows(table: Path) -> None:
    """A value may be of a row that is too old to be learnt from itself."""
    rows = frame(table, (VIEW,), history_seconds=3 * DAY)
    assert rows["n"].to_list() == [6, 7, 8]
    assert rows.equals(frame(table, (VIEW,)).tail(3))


def test_the_name_of_a_training_set_tells_its_history_and_its_seed() -> None:
    spec = TrainingSpec("m", "binary", "y", "at", (Input("x", "float"),))
    task = TrainTask(spec, "/tmp/one", {"a": 1}, (DatasetUse("rows", 0, sha256(b"rows")),), iso(AS_OF))

    def short(seconds: int) -> TrainTask:
        return msgspec.structs.replace(task, spec=msgspec.structs.replace(spec, history_seconds=seconds))

    names = [training_set_digest(t) for t in (task, short(DAY), short(2 * DAY), msgspec.structs.replace(task, seed=1))]
    assert len(set(names)) == 4
    assert names[0] == training_set_digest(msgspec.structs.replace(short(0), workspace="/tmp/two"))
