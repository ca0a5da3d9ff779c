"""What `append` returned survives a power cut: everything that a reader opens on the way was flushed before."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from falaj.storage.lake import delta


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """The paths of what was flushed."""
    found: set[Path] = set()
    really = os.fsync

    def fsync(descriptor: int) -> None:
        found.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        really(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not show what a descriptor stands for")
    monkeypatch.setattr(os, "fsync", fsync)
    return found


def everything(table: Path) -> set[Path]:
    inside = {p for p in table.rglob("*") if not p.name.startswith(".")}
    return {table.parent, table, *inside}


def test_an_undone_orphan_leaves_no_gap_in_the_log(tmp_path: Path, flushed: set[Path]) -> None:
    table = tmp_path / "t"
    named = delta.append(table, pl.DataFrame({"a": [1]}), "op1", base=-1)
    delta.append(table, pl.DataFrame({"a": [66]}), "crashed", base=named)
    version = delta.append(table, pl.DataFrame({"a": [2]}), "op2", base=named)
    assert version == 3, "the commit that undid the orphan stands between"
    assert everything(table) <= flushed


def test_what_sums_the_log_up_is_as_safe_as_the_log(tmp_path: Path, flushed: set[Path]) -> None:
    table = tmp_path / "t"
    for n in range(21):
        delta.append(table, pl.DataFrame({"a": [n]}), f"op{n}", base=n - 1)
    assert list((table / "_delta_log").glob("*.checkpoint*"))
    assert everything(table) <= flushed
