"""Tables that somebody hands over: what cannot be read is a rejected row or a refusal, and never the end of the step."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from falaj.kernel.errors import Invalid
from falaj.lifecycle.data.steps.tables import columns_of, moments, pieces

DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def test_an_object_of_endless_depth_is_a_rejected_row(tmp_path: Path) -> None:
    table = tmp_path / "a.jsonl"
    table.write_bytes(b'{"a": 1}\n' + DEEP + b'\n{"a": 2}\n')
    (piece,) = pieces(table, "jsonl")
    assert piece.frame["a"].to_list() == [1, 2] and piece.numbers.tolist() == [0, 2]
    assert [(r.row, r.code) for r in piece.rejects] == [(1, "no_object")]
    table.write_bytes(DEEP)
    with pytest.raises(Invalid) as refused:
        columns_of(table, "jsonl")
    assert refused.value.code == "unreadable_table"


def test_columns_are_those_of_the_first_row_that_is_one(tmp_path: Path) -> None:
    table = tmp_path / "a.jsonl"
    table.write_bytes(b'\n{"a": 1, "b": 2}\n')
    assert columns_of(table, "jsonl") == ["a", "b"]


def test_whole_numbers_and_fractions_are_numbers_also_beside_a_null(tmp_path: Path) -> None:
    table = tmp_path / "a.jsonl"
    table.write_bytes(b'{"a": 1}\n{"a": 2.5}\n{"a": null}\n')
    (piece,) = pieces(table, "jsonl")
    assert piece.frame["a"].dtype == pl.Float64 and piece.frame["a"].to_list() == [1.0, 2.5, None]


def test_a_moment_before_the_first_year_is_no_moment() -> None:
    texts = pl.Series("at", ["0001-01-01T00:00:00+05:00", "2013-01-01T10:00:00Z", "soon", None])
    assert moments(texts).to_list() == [None, datetime(2013, 1, 1, 10, tzinfo=UTC), None, None]
