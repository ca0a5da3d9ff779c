"""What the training part looked like: the reference that live data is compared with.

Beside how values are distributed it says how unlike each other the days are, because rows of one day have much in
common and tell less than as many rows of different days.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.lifecycle.training.model import QUANTILES, FeatureProfile, Input, Numbers, Profile
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.statistics.bins import Bins, category_reference, edges_of
from falaj.statistics.distances import LAGS, PART_SECONDS, PARTS_A_DAY

Whole = NDArray[np.int64]
Real = NDArray[np.float64]
_WEIGHTS = 1 - np.arange(LAGS) / LAGS
"""Bartlett's, as in `distances.between_days`."""
_DIGITS = 9
"""What is measured on days is rounded to so many significant digits, so that the last bit of a sum decides nothing."""


class Spread(NamedTuple):
    """How unlike each other days are; see `statistics.distances.Days`. Empty and 0 where there is no second day."""

    lags: tuple[float, ...] = ()
    directions: float = 0.0
    within: float = 0.0


def profile_of(frame: pl.DataFrame, at: str, model: LoadedModel) -> Profile:
    """The profile of the training part: its rows in raw form, `at` the column with their time."""
    parts = parts_of(frame[at])
    features = {i.name: feature_profile(i, frame[i.name], parts) for i in model.contract.inputs}
    accepted = model.accepts(frame)
    rows = frame.filter(pl.Series(accepted))
    scores = model.answers(rows)[model.contract.score] if rows.height else np.empty(0)
    columns = scores.reshape(len(scores), -1) if len(scores) else np.empty((0, 0))
    seen = None if parts is None else parts[accepted]
    score = tuple(numbers(columns[:, n].astype(np.float64), seen) for n in range(columns.shape[1]))
    return Profile(frame.height, features, score, 0 if parts is None else len(np.unique(parts // PARTS_A_DAY)))


def parts_of(at: pl.Series) -> Whole | None:
    """The part of a UTC day that each moment falls into, counted from 1970; None when the column holds no times."""
    if not isinstance(at.dtype, pl.Datetime | pl.Date):
        return None
    return (at.cast(pl.Datetime("us")).dt.epoch("s") // PART_SECONDS).cast(pl.Int64).to_numpy()


def feature_profile(spec: Input, column: pl.Series, parts: Whole | None) -> FeatureProfile:
    """One feature, from its values in raw form."""
    known, nulls = column.drop_nulls(), column.null_count()
    if spec.type in ("category", "boolean"):
        named = known.cast(pl.String)
        counts = dict(named.value_counts().iter_rows())
        bins = category_reference(counts, nulls, column.len(), boolean=spec.type == "boolean").bins
        place = _places(column.cast(pl.String), bins)
        found = spread_of(place, bins.size, parts)
        return FeatureProfile(
            spec.type, nulls, counts, spread=found.lags, directions=found.directions, within=found.within
        )
    values = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    if not known.len():
        found = spread_of(np.ones(len(values), dtype=np.int64), 2, parts)
        return FeatureProfile(spec.type, nulls, spread=found.lags, directions=found.directions, within=found.within)
    n = numbers(values, parts)
    return FeatureProfile(
        spec.type, nulls, None, n.mean, n.deviation, n.quantiles, n.binned, n.spread, n.directions, n.within
    )  # fmt: skip


def numbers(values: Real, parts: Whole | None) -> Numbers:
    """How numbers are distributed, in all and from day to day; NaN is null. There must be one at least."""
    null = np.isnan(values)
    known = values[~null]
    quantiles = tuple(float(q) for q in np.quantile(known, QUANTILES))
    edges = edges_of(quantiles)
    place = np.where(null, len(edges) + 1, np.searchsorted(np.array(edges), values))
    binned = np.bincount(place, minlength=len(edges) + 2)[:-1]
    found = spread_of(place, len(edges) + 2, parts)
    return Numbers(float(known.mean()), float(known.std()), quantiles, tuple(binned.tolist()), *found)


def spread_of(place: Whole, size: int, parts: Whole | None) -> Spread:
    """How unlike each other days are in what falls into the bins; `place` and `parts` have one entry a row.

    A day counts by its rows: what is compared is the excess of its counts over those of its rows on average, per row
    of an average day (linearised, as for the ratio of a cluster sample). What the sampling of a day's
    rows adds at lag 0 is taken off. A lag that no two days are apart has the value of the lag before it, as the most
    that is known. `directions` is (Σ λ)²/Σ λ² of the long-run covariance between bins, with eigenvalues λ, less what
    few days add to the unevenness of its eigenvalues. `within` is by how much parts of days are more unlike each other
    than whole days.
    """
    if parts is None:
        return Spread()
    when, counts = _table(place, size, parts // PARTS_A_DAY)
    if len(when) < 2:
        return Spread()
    lags = _covariances(when, counts, LAGS)
    of_parts = float(np.trace(_covariances(*_table(place, size, parts), 1)[0]))
    size_of = _WEIGHTS * _pairs(len(when)) / len(when) ** 2
    long_run = np.tensordot(size_of, lags, 1)
    traces = np.trace(lags, axis1=1, axis2=2)
    # Measured from the mean of these days, each lag lacks the variance of that mean.
    traces = traces + max(float(traces @ size_of), 0.0) / (1 - size_of.sum())
    traces[0] = max(traces[0], 0.0)
    return Spread(
        tuple(_rounded(t) for t in traces),
        _rounded(_directions(long_run, len(when), max(counts.shape[1] - 1, 1))),
        _rounded(max(of_parts - float(traces[0]), 0.0)),
    )


def _table(place: Whole, size: int, times: Whole) -> tuple[Whole, Real]:
    """The distinct times, and how many of their rows fall into each bin that holds any."""
    when, which = np.unique(times, return_inverse=True)
    counts = np.bincount(which * size + place, minlength=len(when) * size).reshape(len(when), size).astype(np.float64)
    return when, counts[:, counts.sum(axis=0) > 0]


def _covariances(when: Whole, counts: Real, lags: int) -> Real:
    """[lags, bins, bins]: covariances between times of the bins' shares, each divided by the roots of both shares."""
    rows = counts.sum(axis=1, keepdims=True)
    share = counts.sum(axis=0) / counts.sum()
    excess = (counts - rows * share) / rows.mean() / np.sqrt(share)
    found = np.empty((lags, len(share), len(share)))
    found[0] = excess.T @ excess / len(when) - _within(counts, rows, share) / rows.mean()
    for lag in range(1, lags):
        later = np.searchsorted(when, when + lag)
        there = later < len(when)
        there[there] = when[later[there]] == when[there] + lag
        if there.any():
            product = excess[there].T @ excess[later[there]] / there.sum()
            found[lag] = (product + product.T) / 2
        else:
            found[lag] = found[lag - 1]
    return found


def _within(counts: Real, rows: Real, share: Real) -> Real:
    """The covariance of one row's bins within its day, divided likewise: what sampling adds to a day, times its rows.

    From the days with two rows or more; where there is none, all of the covariance counts as sampling.
    """
    several = rows[:, 0] > 1
    if not several.any():
        within = np.diag(share) - np.outer(share, share)
    else:
        c, n = counts[several], rows[several]
        weighted = c * n / (n - 1)
        within = (np.diag(weighted.sum(axis=0)) - (weighted / n).T @ c) / n.sum()
    scaled: Real = within / np.sqrt(np.outer(share, share))
    return scaled


def _pairs(days: int) -> Real:
    """In how many ordered pairs consecutive days are each lag apart."""
    lags = np.arange(LAGS)
    pairs: Real = np.where(lags == 0, days, 2 * np.maximum(days - lags, 0)).astype(np.float64)
    return pairs


def _directions(covariance: Real, days: int, most: int) -> float:
    """How many directions a covariance has, of `most`, when it was measured on so many consecutive days."""
    trace, square = float(np.trace(covariance)), float((covariance**2).sum())
    if trace <= 0 or square <= 0:
        return 1.0
    degrees = days / (1 + 2 * float((_WEIGHTS[1:] ** 2).sum()))
    unevenness = (square / trace**2 - 1 / degrees) / (1 + 1 / degrees)
    return 1 / min(max(unevenness, 1 / most, 1 / degrees), 1.0)


def _places(column: pl.Series, bins: Bins) -> Whole:
    """The bin of each name, as `Bins.index` has it."""
    names = pl.DataFrame({"name": bins.categories, "place": range(len(bins.categories))}, {"name": pl.String, "place": pl.Int64})  # fmt: skip
    found = column.to_frame("name").join(names, on="name", how="left", maintain_order="left")["place"]
    other, null = bins.size - 2, bins.size - 1
    return pl.select(pl.when(column.is_null()).then(null).otherwise(found.fill_null(other))).to_series().to_numpy()


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
