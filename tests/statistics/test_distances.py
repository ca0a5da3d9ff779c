"""Distances against NumPy and SciPy, and the noise floor against chance itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from falaj.statistics.distances import (
    LAGS,
    Days,
    between_days,
    cells,
    chi_square_critical,
    chi_square_tail,
    half_count,
    js_distance,
    ks_distance,
    mixture_tail,
    noise,
    psi,
    psi_p_value,
    with_slack,
)

pairs = st.integers(2, 12).flatmap(
    lambda b: st.tuples(*[st.lists(st.integers(0, 500), min_size=b, max_size=b).filter(any)] * 2)
)
FLOOR = 1e-3


def shares(counts: list[int]) -> list[float]:
    return [c / sum(counts) for c in counts]


@given(pairs)
def test_psi_is_what_numpy_says(two: tuple[list[int], list[int]]) -> None:
    p, q = map(shares, two)
    a, b = np.maximum(p, FLOOR), np.maximum(q, FLOOR)
    assert psi(p, q, FLOOR) == pytest.approx(float(((a - b) * np.log(a / b)).sum()), abs=1e-12)


@given(pairs)
def test_psi_is_0_for_equal_shares_only_and_never_less(two: tuple[list[int], list[int]]) -> None:
    p, q = map(shares, two)
    assert psi(p, p, FLOOR) == 0
    assert psi(p, q, FLOOR) == pytest.approx(psi(q, p, FLOOR)) and psi(p, q, FLOOR) >= 0
    floored = [(max(a, FLOOR), max(b, FLOOR)) for a, b in zip(p, q, strict=True)]
    assert (psi(p, q, FLOOR) == 0) == all(a == b for a, b in floored)


def test_equal_shares_of_samples_of_different_size_are_equal() -> None:
    p = [0.5, 0.25, 0.25, 0.0]
    assert psi(p, p, half_count(100_000, 40)) == 0
    assert half_count(100_000, 40) == 0.5 / 40


def test_an_empty_bin_costs_what_half_an_observation_costs() -> None:
    assert psi([0.5, 0.5, 0.0], [0.5, 0.4, 0.1], 0.005) == pytest.approx(0.1 * math.log(1.25) + 0.095 * math.log(20))


@given(pairs)
def test_jensen_shannon_is_what_scipy_says(two: tuple[list[int], list[int]]) -> None:
    p, q = map(shares, two)
    assert js_distance(p, q) == pytest.approx(float(np.nan_to_num(jensenshannon(p, q, base=2))), abs=1e-6)
    assert 0 <= js_distance(p, q) <= 1


def test_jensen_shannon_at_its_ends() -> None:
    assert js_distance([0.3, 0.7], [0.3, 0.7]) == 0
    assert js_distance([1.0, 0.0], [0.0, 1.0]) == 1


@given(pairs)
def test_kolmogorov_smirnov_of_the_bins_is_what_scipy_says(two: tuple[list[int], list[int]]) -> None:
    assume(all(sum(c) < 3000 for c in two))
    left, right = (np.repeat(np.arange(len(c)), c) for c in two)
    assert ks_distance(*map(shares, two)) == pytest.approx(float(stats.ks_2samp(left, right, method="asymp").statistic))


def test_kolmogorov_smirnov_where_one_side_has_no_numbers() -> None:
    assert ks_distance([0.0, 0.0], [0.5, 0.5]) == 1
    assert ks_distance([0.0, 0.0], [0.0, 0.0]) == 0


@given(st.floats(0, 400), st.integers(1, 80))
def test_the_tail_is_that_of_scipy(x: float, degrees: int) -> None:
    assert chi_square_tail(x, degrees) == pytest.approx(float(stats.chi2.sf(x, degrees)), rel=1e-8, abs=1e-300)


@given(st.floats(1e-7, 0.999), st.integers(1, 80))
def test_the_critical_value_is_that_of_scipy(alpha: float, degrees: int) -> None:
    assert chi_square_critical(alpha, degrees) == pytest.approx(float(stats.chi2.isf(alpha, degrees)), rel=1e-6)


def test_without_degrees_there_is_no_noise() -> None:
    assert chi_square_critical(0.01, 0) == 0 and chi_square_tail(1.0, 0) == 0 and chi_square_tail(0.0, 0) == 1
    assert noise([1.0], 50, 50, 0.01).critical == 0


@pytest.mark.parametrize(("n", "m"), [(50_000, 300), (50_000, 5_000), (2_000, 2_000)])
@pytest.mark.parametrize("p", [[0.1] * 10, [0.5, 0.25, 0.12, 0.06, 0.04, 0.02, 0.01], [0.9, 0.1]])
def test_chance_stays_below_the_noise_floor_as_often_as_it_should(p: list[float], n: int, m: int) -> None:
    chance = np.random.default_rng(5)
    found = noise(p, n, m, 0.01)
    drawn = [
        (a / n, b / m) for a, b in zip(chance.multinomial(n, p, 4_000), chance.multinomial(m, p, 4_000), strict=True)
    ]
    values = [psi(a.tolist(), b.tolist(), half_count(n, m)) for a, b in drawn]
    assert np.mean(values) == pytest.approx(found.expected, rel=0.15)
    assert np.mean(np.array(values) > found.critical) <= 0.025
    assert psi_p_value(found.critical, found) == pytest.approx(0.01)


def test_bins_that_cannot_hold_half_an_observation_count_as_one() -> None:
    p = [0.5, 0.499, 0.0005, 0.0003, 0.0002]
    assert cells(p, half_count(10**6, 100)) == 3
    assert cells(p, half_count(10**6, 10**5)) == 5
    assert cells([0.5, 0.5], 0.01) == 2
    assert cells([0.1] * 10, half_count(10**6, 1)) == 2


def test_slack_raises_the_floor_and_no_slack_leaves_it() -> None:
    assert with_slack(0.04, [0.5, 0.5], [0.0, 0.0], 1e-3) == pytest.approx(0.04)
    usual = psi([0.5, 0.1], [0.4, 0.0], 1e-3)
    slack = [0.1 * math.sqrt(3), 0.0, 0.1 * math.sqrt(3)]
    assert with_slack(0.04, [0.5, 0.4, 0.1], slack, 1e-3) == pytest.approx((0.2 + math.sqrt(usual)) ** 2)


# ── Days ─────────────────────────────────────────────────────────────────────────────────────────

TENTHS = [0.1] * 10
WEATHER = (1.9, 0.9, 0.5, 0.2, 0.1, 0.0, -0.1, 0.0)
lags = st.tuples(st.floats(0, 9), *[st.floats(-9, 9)] * (LAGS - 1))
day_numbers = st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True).map(lambda d: tuple(sorted(d)))


@pytest.mark.parametrize(
    ("d", "nu", "within"), [(1, 1, 0.25), (1, 10, 0.1), (3, 10, 0.05), (9, 40, 0.05), (9, 1e6, 0.02)]
)
@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.002, 1e-4])
def test_the_tail_of_one_part_is_that_of_f(d: float, nu: float, within: float, alpha: float) -> None:
    x = float(stats.f.isf(alpha, d, nu))
    assert mixture_tail(x, [(1 / d, d)], nu) == pytest.approx(alpha, rel=within)


def test_the_tail_of_two_parts_is_that_of_a_simulation() -> None:
    chance = np.random.default_rng(3)
    sums = 0.01 * chance.chisquare(9, 400_000) + 0.1 * chance.chisquare(2, 400_000)
    drawn = sums / (chance.chisquare(12, 400_000) / 12)
    for alpha in (0.5, 0.1, 0.01, 0.001):
        x = float(np.quantile(drawn, 1 - alpha))
        assert mixture_tail(x, [(0.01, 9), (0.1, 2)], 12) == pytest.approx(alpha, rel=0.1)


@given(st.floats(0.5, 9), st.floats(1, 200), st.floats(1e-3, 1e3), st.floats(1.01, 3))
def test_a_tail_falls_and_is_a_probability(d: float, nu: float, x: float, more: float) -> None:
    parts = [(0.01, 9.0), (1 / d, d)]
    near, far = mixture_tail(x, parts, nu), mixture_tail(x * more, parts, nu)
    assert 0 <= far <= near + 1e-3 <= 1.001
    assert mixture_tail(0, parts, nu) == 1 and mixture_tail(1, [], nu) == 0


@given(day_numbers, st.integers(2, 120), lags)
def test_days_never_take_noise_away(days: tuple[int, ...], reference: int, spread: tuple[float, ...]) -> None:
    known = Days(days, reference, spread, 2.0)
    assert between_days(days, known) >= spread[0] / len(days) - 1e-12
    assert between_days(range(reference), known) >= 0
    found = noise(TENTHS, 5_000, 3_000, 0.01, known)
    assert found.critical >= found.expected * 0.99 or found.critical == pytest.approx(2 * math.log(1 / found.floor))


@given(day_numbers, lags)
def test_the_lags_are_weighed_as_bartlett_does(days: tuple[int, ...], spread: tuple[float, ...]) -> None:
    apart = np.abs(np.subtract.outer(days, days))
    pairs = np.where(apart < LAGS, (1 - apart / LAGS) * np.array(spread)[np.minimum(apart, LAGS - 1)], 0)
    decline = spread[1] / spread[0] if spread[0] else 0
    decline = min(max(decline + (1 + 3 * decline) / 90, 0), 0.95)
    wanted = max(pairs.sum(), (spread[0] * decline**apart).sum()) / len(days) ** 2
    assert between_days(days, Days(days, 90, spread)) == pytest.approx(wanted, abs=1e-9)


def test_days_that_lie_apart_tell_more_than_days_in_a_row() -> None:
    in_a_row, apart = tuple(range(7)), tuple(range(0, 28, 4))
    known = Days((), 90, WEATHER, 2.0)
    assert between_days(tuple(range(28)), known) < between_days(apart, known) < between_days(in_a_row, known)
    assert between_days((), known) == between_days((5,), known) == pytest.approx(WEATHER[0])


def test_more_days_mean_less_noise_and_more_rows_of_the_same_days_do_not() -> None:
    def critical(rows: int, days: int, reference: int = 90) -> float:
        return noise(TENTHS, 50_000, rows, 0.01, Days(tuple(range(days)), reference, WEATHER, 2.0)).critical

    assert critical(2_000, 28) < critical(2_000, 7) < critical(2_000, 2)
    assert critical(2_000, 28, 90) < critical(2_000, 28, 54)
    assert critical(2_000_000, 28) > 0.9 * critical(2_000, 28)
    assert critical(2_000, 28) > 20 * noise(TENTHS, 50_000, 2_000, 0.01).critical


def test_the_least_share_is_half_of_what_a_day_is_worth() -> None:
    constant = (9.0, *[0.0] * 7)  # every day in one bin
    found = noise(TENTHS, 9_000, 2_800, 0.01, Days(tuple(range(0, 560, 20)), 90, constant, 9.0))
    assert found.floor == pytest.approx(0.5 / 28, rel=0.02)
    assert noise(TENTHS, 9_000, 2_800, 0.01, Days(tuple(range(28)), 90, (0.0,) * 8)).floor == half_count(9_000, 2_800)


def test_days_that_are_alike_leave_the_noise_of_rows() -> None:
    alike = noise(TENTHS, 50_000, 3_000, 0.01, Days(tuple(range(28)), 300, (0.0,) * 8, 9.0))
    rows = noise(TENTHS, 50_000, 3_000, 0.01)
    assert alike.expected == pytest.approx(rows.expected) and alike.between == 0
    assert rows.critical < alike.critical < 1.1 * rows.critical


@pytest.mark.parametrize("known", [Days((1, 2, 3), 1), Days((1, 2, 3), 1, WEATHER, 1.0), Days((1, 2, 3), 60)])
def test_a_reference_that_knows_no_second_day_says_nothing(known: Days) -> None:
    found = noise(TENTHS, 5_000, 3_000, 0.01, known)
    turned = [0.0] * 9 + [1.0]
    assert found.critical > psi(TENTHS, turned, found.floor) and psi_p_value(5.0, found) == 1


@given(st.floats(1e-5, 0.2), st.integers(2, 40), st.floats(1, 9))
def test_the_critical_value_has_its_probability(alpha: float, days: int, directions: float) -> None:
    found = noise(TENTHS, 50_000, 3_000, alpha, Days(tuple(range(days)), 90, WEATHER, directions))
    if found.critical < 2 * math.log(1 / found.floor):
        assert psi_p_value(found.critical, found) == pytest.approx(alpha, rel=1e-5)
    else:
        assert psi_p_value(found.critical, found) >= alpha
