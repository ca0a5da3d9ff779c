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
    cells,
    chi_square_critical,
    chi_square_tail,
    half_count,
    js_distance,
    ks_distance,
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
    assert psi_p_value(found.critical, found.cells, n, m) == pytest.approx(0.01)


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
