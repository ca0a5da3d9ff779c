"""A home may lie anywhere, also below a folder with a space or an accent in its name."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from falaj.storage.lake import delta


@pytest.mark.parametrize("name", ["a home", "صفحة"])
def test_a_table_is_read_back_wherever_it_lies(tmp_path: Path, name: str) -> None:
    table = tmp_path / name / "rows"
    first = delta.append(table, pl.DataFrame({"n": [1, 2]}), "one")
    second = delta.append(table, pl.DataFrame({"n": [3]}), "two", base=first)
    assert delta.scan(table, first).collect()["n"].to_list() == [1, 2]
    assert sorted(delta.scan(table, second).collect()["n"].to_list()) == [1, 2, 3]
