"""Values as they were known: the join against the rule said in plain Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.kernel.errors import Invalid
from falaj.lifecycle.features.model import ColumnSpec, EntitySpec, ViewSpec, fresh
from falaj.lifecycle.features.steps.join import ViewFrame, latest, training_frame
from falaj.lifecycle.features.steps.views import view_rows

T0 = datetime(2013, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
TTL = 4
SCHEMA: dict[str, Any] = {"key": pl.String, "event": TIME, "known": TIME, "x": pl.Float64, "c": pl.String}


def spec(columns: tuple[ColumnSpec, ...] = (ColumnSpec("x", "float"), ColumnSpec("c", "category"))) -> ViewSpec:
    return ViewSpec(
        "view", EntitySpec("thing", "key"), "source", "event", "known", TTL, columns, "m:f", "sha256:" + "0" * 64
    )


def at(second: int | None) -> datetime | None:
    return None if second is None else T0 + timedelta(seconds=second)


def view_of(rows: list[tuple[Any, ...]]) -> ViewFrame:
    frame = pl.DataFrame(
        [(key, at(event), at(known), x, c) for key, event, known, x, c in rows], schema=SCHEMA, orient="row"
    )
    return ViewFrame(spec(), view_rows(spec(), lambda source: source, frame.lazy()))


def spine_of(rows: list[tuple[str | None, int | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(n, key, at(second)) for n, (key, second) in enumerate(rows)],
        schema={"n": pl.Int64, "key": pl.String, "t": TIME},
        orient="row",
    )


def by_the_rule(
    rows: list[tuple[Any, ...]], key: str | None, t: int | None, ttl: int | None
) -> tuple[float | None, str | None]:
    """Known by t, greatest event time, ties by known time, then by values; usable within the TTL."""
    if key is None or t is None:
        return (None, None)
    known = [r for r in rows if r[0] == key and r[1] is not None and r[2] is not None and r[2] <= t]
    if not known:
        return (None, None)
    _, event, _, x, c = max(
        known, key=lambda r: (r[1], r[2], r[3] is not None, r[3] or 0.0, r[4] is not None, r[4] or "")
    )
    if ttl is not None and not fresh(timedelta(seconds=t - event), ttl):
        return (None, None)
    return (x, c)


KEYS = st.sampled_from(["a", "b", None])
SECONDS = st.none() | st.integers(0, 3) | st.integers(0, 12)
ROWS = st.lists(
    st.tuples(KEYS, SECONDS, SECONDS, st.none() | st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from(["p", "q", None])),
    max_size=14,
)


@settings(max_examples=400)
@given(ROWS, st.lists(st.tuples(st.sampled_from(["a", "b", "z", None]), st.none() | st.integers(-1, 20)), max_size=8))
def test_the_join_is_the_rule(rows: list[tuple[Any, ...]], wanted: list[tuple[str | None, int | None]]) -> None:
    joined = training_frame(spine_of(wanted), "t", [view_of(rows)])
    assert joined["n"].to_list() == list(range(len(wanted)))
    assert joined.select("x", "c").rows() == [by_the_rule(rows, key, t, TTL) for key, t in wanted]


@settings(max_examples=200)
@given(ROWS, st.integers(0, 14))
def test_the_latest_value_is_the_same_rule_without_the_ttl(rows: list[tuple[Any, ...]], t: int) -> None:
    moment = at(t)
    assert moment is not None
    found = {row[0]: row[3:] for row in latest(view_of(rows), moment).iter_rows()}
    for key in ("a", "b"):
        assert found.get(key, (None, None)) == by_the_rule(rows, key, t, None)


@settings(max_examples=50)
@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[Any, ...]], random: Any) -> None:
    wanted: list[tuple[str | None, int | None]] = [(key, t) for key in ("a", "b") for t in range(15)]
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, two = (training_frame(spine_of(wanted), "t", [view_of(r)]) for r in (rows, shuffled))
    assert one.equals(two)


def test_a_value_known_late_does_not_hide_a_newer_one() -> None:
    rows = [("a", 5, 6, 5.0, None), ("a", 3, 7, 3.0, None)]
    joined = training_frame(spine_of([("a", 6), ("a", 8), ("a", 9), ("a", 10)]), "t", [view_of(rows)])
    assert joined["x"].to_list() == [5.0, 5.0, 5.0, None]


def test_rows_with_the_same_times_are_told_apart_by_their_values() -> None:
    rows = [("a", 1, 1, 2.0, "p"), ("b", 1, 1, 9.0, "p"), ("a", 1, 1, 3.0, "p"), ("a", 1, 1, 1.0, "q")]
    for order in (rows, rows[::-1], rows[2:] + rows[:2]):
        view = view_of(order)
        assert training_frame(spine_of([("a", 1)]), "t", [view])["x"].to_list() == [3.0]
        assert latest(view, T0 + timedelta(seconds=1))["x"].to_list() == [3.0, 9.0]


def test_the_ttl_counts_from_the_event_and_both_ends_are_fresh() -> None:
    rows = [("a", 5, 5, 1.0, "p")]
    joined = training_frame(spine_of([("a", 4), ("a", 5), ("a", 9), ("a", 10)]), "t", [view_of(rows)])
    assert joined["x"].to_list() == [None, 1.0, 1.0, None]


def test_a_value_for_the_future_is_not_used_though_it_is_known() -> None:
    rows = [("a", 9, 1, 1.0, "p")]
    joined = training_frame(spine_of([("a", 5), ("a", 9)]), "t", [view_of(rows)])
    assert joined["x"].to_list() == [None, 1.0]


def test_several_views_over_several_keys_keep_every_row_in_order() -> None:
    other = ViewSpec(
        "other", EntitySpec("place", "place"), "s", "event", "known", 100, (ColumnSpec("y", "integer"),), "m:f", "d"
    )
    frame = pl.DataFrame({"place": [7, 8], "event": [at(1)] * 2, "known": [at(1)] * 2, "y": [70, 80]}).cast(
        {"event": TIME, "known": TIME}
    )
    second = ViewFrame(other, view_rows(other, lambda s: s, frame.lazy()))
    spine = spine_of([("a", 9), ("z", 2), (None, None), ("a", 3)]).with_columns(
        place=pl.Series([8, 7, 7, None], dtype=pl.Int32)
    )
    joined = training_frame(spine.lazy(), "t", [view_of([("a", 3, 3, 1.0, "p")]), second])
    assert joined.columns == ["n", "key", "t", "place", "x", "c", "y"]
    assert joined.select("n", "x", "y").rows() == [(0, None, 80), (1, None, 70), (2, None, None), (3, 1.0, None)]


def test_no_views_and_no_rows_are_fine() -> None:
    spine = spine_of([("a", 1)])
    assert training_frame(spine, "t", []).equals(spine)
    assert training_frame(spine.clear(), "t", [view_of([("a", 1, 1, 1.0, "p")])]).shape == (0, 5)
    assert training_frame(spine, "t", [view_of([])])["x"].to_list() == [None]


def test_nan_is_null() -> None:
    joined = training_frame(spine_of([("a", 2)]), "t", [view_of([("a", 1, 1, float("nan"), "p")])])
    assert joined["x"].to_list() == [None]


def test_clashing_or_missing_columns_are_refused() -> None:
    view, spine = view_of([]), spine_of([("a", 1)])
    for rows, moment, views, code in (
        (spine, "t", [view, view], "column_clash"),
        (spine.with_columns(x=1), "t", [view], "column_clash"),
        (spine.drop("key"), "t", [view], "no_key_column"),
        (spine, "nowhere", [view], "no_time_column"),
        (spine.with_columns(pl.col("t").dt.replace_time_zone(None)), "t", [view], "no_time_column"),
    ):
        with pytest.raises(Invalid) as caught:
            training_frame(rows, moment, views)
        assert caught.value.code == code and caught.value.hint


def rows(**columns: Any) -> pl.LazyFrame:
    base = {"key": ["a"], "event": [T0], "known": [T0], "x": [1.0], "c": ["p"]}
    return pl.DataFrame({**base, **columns}).cast({"event": TIME, "known": TIME}).lazy()


@pytest.mark.parametrize(
    "result",
    [
        rows(x=[1]),
        rows(extra=[1.0]),
        rows(c=[True]),
        rows(x=[[1.0]]),
        rows(key=[1.5]),
        rows().drop("c"),
        rows().drop("key"),
        rows().drop("known"),
        rows().with_columns(pl.col("event").dt.replace_time_zone(None)),
        rows().with_columns(pl.col("event").dt.convert_time_zone("Asia/Muscat")),
    ],
)
def test_a_view_is_held_to_its_declaration(result: pl.LazyFrame) -> None:
    with pytest.raises(Invalid) as caught:
        view_rows(spec(), lambda source: result, rows())
    assert caught.value.code == "view_schema" and caught.value.hint


def fails(source: pl.LazyFrame) -> pl.LazyFrame:
    raise KeyError("no")


def test_code_that_fails_is_the_views_own_fault() -> None:
    for transform in (fails, lambda source: source.select("nowhere"), lambda source: None):
        with pytest.raises(Invalid) as caught:
            view_rows(spec(), transform, rows())
        assert caught.value.code == "view_failed"
    words = pl.col("c").cast(pl.Int64).cast(pl.String)
    late = ViewFrame(spec(), view_rows(spec(), lambda source: source.with_columns(words), rows()))
    with pytest.raises(Invalid) as caught:
        latest(late, T0)
    assert caught.value.code == "view_failed"
