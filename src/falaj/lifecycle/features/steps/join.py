"""Values as they were known.

At time t the value of an entity is, of its rows with known time ≤ t, the one with the greatest event
time (ties: the greatest known time; then the greatest values), if 0 ≤ t − event time ≤ TTL.

A row that is known later but happened earlier than one known before can never be that value. Dropping
such rows leaves, per entity, rows whose event times grow with their known times; on those, one backward
as-of join on known time gives the rule's answer for every t.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl

from falaj.kernel import faults
from falaj.kernel.errors import Invalid
from falaj.lifecycle.features.model import ViewSpec
from falaj.lifecycle.features.steps.views import EVENT, KEY, KNOWN

_ROW, _AT = "__row", "__at"
_TIME = pl.Datetime("us", "UTC")
_NEVER = datetime(1, 1, 1, tzinfo=UTC)  # before anything was known


class ViewFrame(msgspec.Struct, frozen=True):
    """A view and its rows, as `views.view_rows` returns them."""

    spec: ViewSpec
    rows: pl.LazyFrame


def timeline(view: ViewFrame) -> pl.DataFrame:
    """The rows that are at some time an entity's value, sorted by known time; of equal ones the last counts.

    Rows without key, event time or known time are left out: they are nobody's, or never known. Raises
    `Invalid` when the view's code fails on the rows.
    """
    try:
        frame = view.rows.drop_nulls([KEY, KNOWN, EVENT]).sort(KNOWN, EVENT).collect()
    except pl.exceptions.PolarsError as e:
        raise Invalid(
            f"view {view.spec.name} failed on its rows: {type(e).__name__}",
            hint="mend the view in the project",
            code="view_failed",
            details=faults.told(e),
        ) from e
    if _has_ties(frame):
        # The values decide, not the order of files: else the same data could give another training set.
        frame = frame.sort(KNOWN, EVENT, *(c.name for c in view.spec.columns))
    return frame.filter(pl.col(EVENT) == pl.col(EVENT).cum_max().over(KEY))


def latest(view: ViewFrame, as_of: datetime) -> pl.DataFrame:
    """The value of every entity at `as_of`, sorted by key; whether it is fresh enough is the reader's question."""
    known = timeline(msgspec.structs.replace(view, rows=view.rows.filter(pl.col(KNOWN) <= pl.lit(as_of, _TIME))))
    return known.unique(KEY, keep="last", maintain_order=True).sort(KEY)


def _has_ties(frame: pl.DataFrame) -> bool:
    """Whether an entity has two rows with the same times; `frame` is sorted by them."""
    like_next = (pl.col(KNOWN) == pl.col(KNOWN).shift(-1)) & (pl.col(EVENT) == pl.col(EVENT).shift(-1))
    near = frame.filter(like_next | like_next.shift(1)).select(KEY, KNOWN, EVENT)
    return bool(near.is_duplicated().any())


def training_frame(spine: pl.LazyFrame | pl.DataFrame, at: str, views: Sequence[ViewFrame]) -> pl.DataFrame:
    """The spine with the columns of each view as they were known at each row's own time.

    Every row of the spine stays, in its order. `at` is a UTC time column; a row without it, without a key,
    or whose value is missing or older than the view's TTL has nulls. Raises `Invalid` for columns that
    are missing, of the wrong type, or there twice.
    """
    frame = spine.collect() if isinstance(spine, pl.LazyFrame) else spine
    _check(frame, at, views)
    return enriched(frame, at, [(view.spec, timeline(view)) for view in views])


def enriched(frame: pl.DataFrame, at: str, known: Sequence[tuple[ViewSpec, pl.DataFrame]]) -> pl.DataFrame:
    """As `training_frame`, with each view's `timeline`: work it out once to enrich a table piece by piece."""
    keys = {spec.entity.key for spec, _ in known}
    asked = frame.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias(_ROW),
        pl.col(at).fill_null(_NEVER).alias(_AT),
        *(pl.col(key).cast(pl.String).alias(_renamed(key)) for key in sorted(keys)),
    ).sort(_AT)
    answers = [_values(asked, spec, rows) for spec, rows in known]
    if not answers:
        return frame
    found = pl.concat([asked.select(_ROW), *answers], how="horizontal").sort(_ROW).drop(_ROW)
    return pl.concat([frame, found], how="horizontal")


def _values(asked: pl.DataFrame, spec: ViewSpec, rows: pl.DataFrame) -> pl.DataFrame:
    """The view's columns for rows sorted by `__at`, in that order; `rows` are its timeline."""
    columns = [c.name for c in spec.columns]
    age = pl.col(_AT) - pl.col(EVENT)
    fresh = (age >= timedelta(0)) & (age <= timedelta(seconds=spec.ttl_seconds))
    key = _renamed(spec.entity.key)
    return (
        asked.lazy()
        .select(_AT, key)
        .join_asof(
            rows.lazy(),
            left_on=_AT,
            right_on=KNOWN,
            by_left=key,
            by_right=KEY,
            strategy="backward",
            check_sortedness=False,  # both sides are sorted just above; Polars cannot see it per key
        )
        .select(pl.when(fresh).then(pl.col(name)).alias(name) for name in columns)
        .collect()
    )


def _renamed(key: str) -> str:
    return f"__by_{key}"


def _check(frame: pl.DataFrame, at: str, views: Sequence[ViewFrame]) -> None:
    if frame.schema.get(at) != _TIME:
        raise Invalid(
            f"the rows to enrich have no UTC time column {at}"
            if at not in frame.columns
            else f"{at} is {frame.schema[at]}",
            hint="name a column of the spine that is a datetime in microseconds with the time zone UTC",
            code="no_time_column",
        )
    names = list(frame.columns)
    for view in views:
        if view.spec.entity.key not in frame.columns:
            raise Invalid(
                f"view {view.spec.name} needs the key {view.spec.entity.key}, which the rows to enrich lack",
                hint="add the key to the spine, or leave the view out",
                code="no_key_column",
            )
        names += [c.name for c in view.spec.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Invalid(
            f"columns come from two places: {', '.join(twice)}",
            hint="rename them in one of the views",
            code="column_clash",
            details={"columns": twice},
        )
