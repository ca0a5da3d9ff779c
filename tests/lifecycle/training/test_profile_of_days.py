"""What a profile says of counts and of days, against plain calculations."""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from falaj.kernel.digests import canonical_json
from falaj.lifecycle.training.model import FeatureProfile, Input, ModelContract, Numbers, Profile, read_profile
from falaj.lifecycle.training.steps import profile
from falaj.lifecycle.training.steps.profile import Spread, parts_of
from falaj.statistics.bins import category_reference, numeric_reference
from falaj.statistics.distances import LAGS, PARTS_A_DAY, Days, between_days, noise

Ints = NDArray[np.int64]


def _parts(days: Ints | None) -> Ints | None:
    return None if days is None else days * PARTS_A_DAY


def numbers(values: NDArray[np.float64], days: Ints | None) -> Numbers:
    return profile.numbers(values, _parts(days))


def spread_of(place: Ints, size: int, days: Ints | None) -> Spread:
    return profile.spread_of(place, size, _parts(days))


def feature_profile(spec: Input, column: pl.Series, days: Ints | None) -> FeatureProfile:
    return profile.feature_profile(spec, column, _parts(days))


def clustered(days: int, rows: int, shared: float, seed: int, again: float = 0.0) -> tuple[NDArray[np.float64], Ints]:
    """Values of `days` days of which `shared` of the variance is the day's, and the day of each."""
    chance = np.random.default_rng(seed)
    moves = chance.standard_normal(days)
    for day in range(1, days):
        moves[day] = again * moves[day - 1] + np.sqrt(1 - again**2) * moves[day]
    own = chance.standard_normal((days, rows))
    return (np.sqrt(shared) * moves[:, None] + np.sqrt(1 - shared) * own).ravel(), np.repeat(np.arange(days), rows)


def plainly(place: Ints, size: int, days: Ints) -> list[float]:
    """The lags, bin by bin and pair by pair: before what the mean of these days hides."""
    when = sorted(set(days.tolist()))
    count = {d: np.bincount(place[days == d], minlength=size) for d in when}
    rows = {d: int(c.sum()) for d, c in count.items()}
    mean = len(place) / len(when)
    found: list[float] = []
    for lag in range(LAGS):
        pairs = [(d, d + lag) for d in when if d + lag in count]
        total = 0.0
        for b in range(size):
            share = float((place == b).mean())
            if not share:
                continue
            away = {d: (count[d][b] - rows[d] * share) / mean for d in when}
            auto = sum(away[d] * away[e] for d, e in pairs) / len(pairs) if pairs else None
            if auto is None:
                total = found[-1]
                break
            if not lag:
                several = [d for d in when if rows[d] > 1]
                within = sum(count[d][b] * (rows[d] - count[d][b]) / (rows[d] - 1) for d in several)
                auto -= within / sum(rows[d] for d in several) / mean
            total += auto / share
        found.append(total)
    return found


@given(st.integers(0, 999), st.lists(st.integers(0, 40), min_size=3, max_size=12, unique=True))
@settings(max_examples=30, deadline=None)
def test_the_spread_is_what_a_plain_calculation_gives(seed: int, when: list[int]) -> None:
    chance = np.random.default_rng(seed)
    rows = chance.integers(2, 9, len(when))
    days = np.repeat(np.array(when), rows)
    place = chance.integers(0, 5, len(days)) * (chance.random(len(days)) < 0.7)
    found = spread_of(place, 6, days)
    plain = np.array(plainly(place, 6, days))
    # Every lag lacks the variance of the mean of these days.
    weights = 1 - np.arange(LAGS) / LAGS
    pairs = np.array([len(when), *(2 * max(len(when) - lag, 0) for lag in range(1, LAGS))])
    of_mean = weights * pairs / len(when) ** 2
    raised = plain + max(float(plain @ of_mean), 0.0) / (1 - of_mean.sum())
    raised[0] = max(raised[0], 0.0)
    assert found.lags == pytest.approx(raised.tolist(), abs=1e-7)


def test_independent_rows_leave_days_alike_and_days_of_one_value_are_as_unlike_as_can_be() -> None:
    values, days = clustered(60, 200, 0.0, 1)
    assert max(map(abs, numbers(values, days).spread)) < 0.02
    values, days = clustered(60, 200, 1.0, 1)
    alone = numbers(values, days)
    assert alone.spread[0] == pytest.approx(9, rel=0.1) and 5 < alone.directions <= 9
    values, days = clustered(60, 200, 0.1, 1)
    assert numbers(values, days).directions < 2  # nearly all of what days do is to move the mean


def test_the_spread_foretells_how_far_the_shares_of_days_stray() -> None:
    """Over many references: the mean of Σ (share − mean share)²/share is what `between_days` says."""
    strayed, told = [], []
    for seed in range(60):
        values, days = clustered(148, 40, 0.5, seed, 0.5)
        found = numbers(values[: 90 * 40], days[: 90 * 40])
        r = numeric_reference(found.quantiles, 0, 90 * 40, found.binned)
        shares = np.array(r.bins.count(values[-28 * 40 :].tolist()).shares[:-1])
        strayed.append(float(((shares - 0.1) ** 2 / 0.1).sum()))
        known = Days((), 90, found.spread, found.directions)
        told.append(between_days(range(28), known) + between_days(range(90), known) + 9 / (28 * 40) + 9 / (90 * 40))
    assert np.mean(told) == pytest.approx(np.mean(strayed), rel=0.35)


def test_the_order_of_rows_says_nothing() -> None:
    values, days = clustered(20, 30, 0.5, 2)
    place = (values > 0).astype(np.int64)
    mixed = np.random.default_rng(1).permutation(len(place))
    assert spread_of(place, 3, days) == spread_of(place[mixed], 3, days[mixed]) == spread_of(place, 3, days + 10_000)


def test_a_lag_that_no_two_days_are_apart_is_as_the_one_before() -> None:
    values, days = clustered(30, 50, 0.5, 3)
    found = spread_of((values > 0).astype(np.int64), 2, days * 4).lags
    assert found[0] == found[1] == found[2] == found[3] != found[4] == found[5]


def test_a_day_with_many_rows_counts_by_them() -> None:
    place = np.array([0, 1] * 200 + [0] * 2)
    days = np.array([0] * 100 + [1] * 100 + [2] * 100 + [3] * 100 + [4] * 2)
    assert spread_of(place, 2, days).lags[0] < 0.01
    place = np.array([0] * 100 + [0, 1] * 50 + [1] * 100 + [0, 1] * 50 + [0] * 2)
    assert spread_of(place, 2, days).lags[0] > 0.1


def test_without_a_second_day_nothing_is_said() -> None:
    place = np.array([0, 1, 1])
    assert spread_of(place, 2, np.array([5, 5, 5])) == spread_of(place, 2, None) == Spread()
    one_each = spread_of(np.array([0, 1] * 8), 2, np.arange(16))  # a row a day: all of it may be sampling
    assert one_each.lags[0] == pytest.approx(0, abs=0.2)


def test_numbers_are_counted_as_live_ones_will_be() -> None:
    chance = np.random.default_rng(4)
    values = np.concatenate([np.round(chance.exponential(3, 900), 1), np.full(40, np.nan)])
    found = numbers(values, np.arange(940) // 50)
    r = numeric_reference(found.quantiles, 40, 940, found.binned)
    assert r.bins.count(values.tolist()).counts == (*found.binned, 40)
    assert set(r.slack) == {0.0} and found.mean == pytest.approx(np.nanmean(values))


def test_names_are_counted_as_live_ones_will_be() -> None:
    chance = np.random.default_rng(5)
    many = [None if v > 68 else f"c{v}" for v in (chance.random(3_000) ** 2 * 70).astype(int)]
    days = np.arange(3_000) // 100
    found = feature_profile(Input("c", "category", categories=tuple(f"c{i}" for i in range(70))), pl.Series(many), days)
    bins = category_reference(found.counts or {}, found.nulls, 3_000).bins
    place = np.array([bins.index(v) for v in many])
    assert Spread(found.spread, found.directions, found.within) == spread_of(place, bins.size, days)
    flags = pl.Series([True, False, None, True] * 25)
    told = feature_profile(Input("f", "boolean"), flags, np.arange(100) // 10)
    assert told.counts == {"true": 50, "false": 25} and told.nulls == 25 and len(told.spread) == LAGS


@pytest.mark.parametrize("days", [None, np.arange(40) // 8])
def test_a_number_that_is_null_in_every_row_is_described_and_read(days: Ints | None) -> None:
    nothing = feature_profile(Input("k", "float"), pl.Series([None] * 40, dtype=pl.Float64), days)
    assert (nothing.nulls, nothing.mean, nothing.quantiles, nothing.binned) == (40, None, (), ())
    score = numbers(np.linspace(0, 1, 40), days)
    read = Profile(40, {"k": nothing}, (score,), 0 if days is None else 5)
    contract = ModelContract("m", "binary", (Input("k", "float"),), (), (), (), "probability")
    assert read_profile(canonical_json(read), contract) == read


def test_parts_are_those_of_utc_days() -> None:
    moments = [datetime(2024, 3, 1, 23, 59, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)]
    at = pl.Series(moments, dtype=pl.Datetime("us", "UTC"))
    day = (date(2024, 3, 1) - date(1970, 1, 1)).days
    for same in (at, at.dt.convert_time_zone("Asia/Muscat"), at.dt.cast_time_unit("ms")):
        assert parts_of(same).tolist() == [day * 8 + 7, day * 8 + 8]  # type: ignore[union-attr]
    assert parts_of(pl.Series([date(1969, 12, 31)])).tolist() == [-8]  # type: ignore[union-attr]
    assert parts_of(pl.Series([1, 2])) is None


def test_parts_of_a_day_that_go_their_own_way_are_more_unlike_than_days_and_a_part_alone_says_less() -> None:
    """Each part of a day has a value of its own: eight of them make a day that is like the others, one alone does not."""
    chance = np.random.default_rng(5)
    values = np.repeat(chance.standard_normal(60 * PARTS_A_DAY), 20)
    parts = np.repeat(np.arange(60 * PARTS_A_DAY), 20)
    found = profile.numbers(values, parts)
    assert found.within > 5 * found.spread[0] > 0
    known = Days(tuple(range(0, 28, 2)), 60, found.spread, found.directions, found.within)
    shares = tuple(n / len(values) for n in found.binned)
    whole, one = (
        noise(shares, len(values), 2_000, 0.01, msgspec.structs.replace(known, parts=(count,) * 14))
        for count in (PARTS_A_DAY, 1)
    )
    assert one.critical > 3 * whole.critical
    assert whole.critical == noise(shares, len(values), 2_000, 0.01, known).critical
    alike = profile.numbers(chance.standard_normal(len(values)), parts)
    assert alike.within < 0.2


def test_the_same_rows_give_the_same_bytes() -> None:
    values, days = clustered(30, 40, 0.5, 6)
    a, b = (
        Profile(1200, {"x": FeatureProfile("float", 0, None, n.mean, n.deviation, n.quantiles, n.binned)}, (n,), 30)
        for n in (numbers(values, days), numbers(values.copy(), days.copy()))
    )
    assert canonical_json(a) == canonical_json(b)
    n: Numbers = a.score[0]
    assert all(v == float(f"{v:.9g}") for v in (*n.spread, n.directions))
