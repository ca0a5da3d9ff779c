"""The log of a table is summed up now and then; what SQL named before stays readable."""

from __future__ import annotations

import os
import time
from pathlib import Path

import polars as pl

from falaj.storage.lake import delta

COMMITS = 20


def checkpoints(table: Path) -> list[str]:
    return sorted(p.name for p in (table / "_delta_log").glob("*.checkpoint*.parquet"))


def filled(table: Path, commits: int, first: int = 0) -> None:
    for n in range(first, first + commits):
        assert delta.append(table, pl.DataFrame({"a": [n]}), f"op{n}", base=n - 1) == n


def read(table: Path, version: int) -> list[int]:
    return sorted(delta.scan(table, version).collect()["a"].to_list())


def test_twenty_commits_are_summed_up_and_every_version_stays_readable(tmp_path: Path) -> None:
    table = tmp_path / "t"
    filled(table, COMMITS - 1)
    assert checkpoints(table) == []
    manifest, files = delta.manifest(table, 3), len(list(table.glob("part-*")))
    filled(table, 2, COMMITS - 1)
    (checkpoint,) = checkpoints(table)
    assert 0 < int(checkpoint.partition(".")[0]) <= COMMITS
    assert [read(table, v) for v in range(COMMITS + 1)] == [list(range(v + 1)) for v in range(COMMITS + 1)]
    assert delta.manifest(table, 3) == manifest and delta.rows(table, 3) == 4
    assert len(list(table.glob("part-*"))) == files + 2
    assert [c.operation_id for c in delta.history(table)] == [f"op{n}" for n in range(COMMITS + 1)]
    assert delta.append(table, pl.DataFrame({"a": [5]}), "op5") == 5, "an operation from before it is known"


def test_a_version_stays_readable_however_old_its_entry_in_the_log_is(tmp_path: Path) -> None:
    """A table's log may be cleaned of old entries when it is summed up; ours is not: SQL may name any version."""
    table = tmp_path / "t"
    filled(table, COMMITS + 5)
    long_ago = time.time() - 90 * 86400
    for entry in (table / "_delta_log").iterdir():
        os.utime(entry, (long_ago, long_ago))
    filled(table, 2 * COMMITS, COMMITS + 5)
    assert len(checkpoints(table)) == 3
    assert [read(table, v) for v in range(3 * COMMITS)] == [list(range(v + 1)) for v in range(3 * COMMITS)]
    assert delta.append(table, pl.DataFrame({"a": [5]}), "op5") == 5
    assert len(delta.history(table)) == 3 * COMMITS + 5


def test_an_orphan_after_a_checkpoint_is_undone_like_any_other(tmp_path: Path) -> None:
    table = tmp_path / "t"
    filled(table, COMMITS + 1)
    delta.append(table, pl.DataFrame({"a": [66]}), "crashed", base=COMMITS)
    version = delta.append(table, pl.DataFrame({"a": [21]}), "op21", base=COMMITS)
    assert read(table, version) == list(range(COMMITS + 2))
    assert read(table, COMMITS) == list(range(COMMITS + 1))
