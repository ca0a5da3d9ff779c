"""Bins come from the reference alone, and so do its shares."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.kernel.errors import Invalid
from falaj.statistics.bins import (
    MAX_CATEGORIES,
    Bins,
    Counts,
    Reference,
    category_reference,
    edges_of,
    numeric_reference,
)

LEVELS = [q / 20 for q in range(21)]
finite = st.floats(-1e6, 1e6)
anything = st.one_of(st.none(), st.floats(), st.integers(), st.booleans(), st.text(max_size=3))


def reference(values: Any, nulls: int = 0) -> Reference:
    return numeric_reference([float(q) for q in np.quantile(values, LEVELS)], nulls, len(values) + nulls)


def shares(found: Reference, values: Any) -> tuple[float, ...]:
    return found.bins.count(np.asarray(values, dtype=float).tolist()).shares


def test_a_continuous_feature_is_cut_at_its_deciles() -> None:
    found = reference(np.random.default_rng(0).normal(size=10_000), nulls=2_500)
    assert found.bins.size == 11
    assert found.shares == pytest.approx([0.08] * 10 + [0.2])
    assert found.slack == (0.0,) * 11
    assert found.bins.labels[0].startswith("≤") and found.bins.labels[-2:][0].startswith(">")


@given(st.lists(finite, min_size=60, max_size=400, unique=True))
def test_distinct_values_have_the_shares_that_the_quantiles_say(values: list[float]) -> None:
    found = reference(values)
    assert shares(found, values) == pytest.approx(found.shares, abs=2 / len(values))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12))
def test_repeated_values_have_their_share_within_the_slack(weights: list[int]) -> None:
    values = np.repeat(np.arange(len(weights)), np.array(weights) * 97)
    found = reference(values)
    for seen, told, slack in zip(shares(found, values), found.shares, found.slack, strict=True):
        assert abs(seen - told) <= slack + 0.011


@given(st.lists(st.integers(-30, 30), min_size=3, max_size=300), st.integers(0, 50))
def test_counted_shares_are_exact_whatever_repeats(values: list[int], nulls: int) -> None:
    quantiles = [float(q) for q in np.quantile(values, LEVELS)]
    edges = edges_of(quantiles)
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    found = numeric_reference(quantiles, nulls, len(values) + nulls, counts.tolist())
    assert found.bins.edges == edges and not any(found.slack)
    assert found.shares == found.bins.count([*values, *[None] * nulls]).shares


def test_counts_that_are_not_those_of_the_bins_are_refused() -> None:
    for counts in ([100], [50, 51], [-1, 101, 0], [0, 50, 51]):
        with pytest.raises(Invalid) as e:
            numeric_reference([1.0] * 21, 0, 100, counts)
        assert e.value.code == "bad_reference"


def test_a_value_that_repeats_gets_a_bin_of_its_own() -> None:
    found = reference([0.0] * 600 + [float(x) for x in range(1, 401)])
    zero = found.bins.index(0.0)
    assert found.bins.index(-1e-9) == zero - 1 and found.bins.index(1e-9) == zero + 1
    assert found.shares[zero] == pytest.approx(0.6, abs=found.slack[zero] + 1e-9)


def test_a_constant_feature_can_move_either_way() -> None:
    found = reference([3.0] * 50)
    assert found.shares == (0.0, 1.0, 0.0, 0.0)
    assert [found.bins.index(x) for x in (2.9, 3.0, 3.1, None)] == [0, 1, 2, 3]


def test_a_feature_that_was_always_null() -> None:
    found = numeric_reference((), 40, 40)
    assert found.shares == (0.0, 1.0)
    assert found.bins.index(1.5) == 0 and found.bins.index(None) == 1
    assert found.bins.labels == ("any number", "null")


def test_what_is_no_number_is_null_and_infinities_lie_at_the_ends() -> None:
    bins = Bins("numeric", edges=(0.0, 1.0))
    odd: list[Any] = [None, math.nan, "7", [], -math.inf, math.inf, 10**400, True]
    assert [bins.index(x) for x in odd] == [3, 3, 3, 3, 0, 2, 2, 1]


def test_categories_are_the_most_frequent_then_other_then_null() -> None:
    counts = {f"c{i:03}": 200 - i for i in range(120)}
    rows = sum(counts.values()) + 10
    found = category_reference(counts, 10, rows)
    assert found.bins.size == MAX_CATEGORIES + 2
    assert (
        found.bins.categories[0] == "c000" and found.bins.index("c119") == found.bins.index("unseen") == MAX_CATEGORIES
    )
    assert found.shares[-2] == pytest.approx(sum(200 - i for i in range(50, 120)) / rows)
    assert found.shares[-1] == pytest.approx(10 / rows) and sum(found.shares) == pytest.approx(1)


def test_booleans_are_read_as_the_model_reads_them() -> None:
    bins = category_reference({"true": 3, "false": 1}, 0, 4, boolean=True).bins
    assert [bins.index(x) for x in (False, True, 0, 1.0, "true", 2, None, math.nan)] == [0, 1, 0, 1, 1, 2, 3, 3]


@given(st.lists(anything, max_size=50))
def test_counting_is_the_index_of_each(values: list[Any]) -> None:
    for bins in (
        Bins("numeric", edges=(-1.0, 0.0, 2.5)),
        Bins("category", categories=("a", "", "1")),
        Bins("boolean", categories=("false", "true")),
    ):
        expected = [0] * bins.size
        for value in values:
            expected[bins.index(value)] += 1
        assert bins.count(values) == Counts(tuple(expected))


triples = st.tuples(*[st.lists(st.integers(0, 10**9), min_size=4, max_size=4)] * 3)


@given(triples)
def test_counts_add_up_in_any_order(three: tuple[list[int], ...]) -> None:
    a, b, c = (Counts(tuple(x)) for x in three)
    assert (a + b) + c == a + (b + c) and a + b == b + a and a + Counts((0,) * 4) == a


def test_counts_of_other_bins_are_refused() -> None:
    with pytest.raises(Invalid) as e:
        Counts((1, 2)) + Counts((1, 2, 3))
    assert e.value.code == "other_bins"


@pytest.mark.parametrize(
    ("quantiles", "nulls", "rows"),
    [([1.0, 2.0, 1.5], 0, 9), ([0.0, math.nan, 1.0], 0, 9), ([0.0, 1.0, math.inf], 0, 9), ((), 3, 9),
     ([0.0, 1.0, 2.0], 9, 9), ([0.0, 1.0, 2.0], -1, 9), ([0.0, 1.0, 2.0], 0, 0), ([1.0], 0, 9)],
)  # fmt: skip
def test_quantiles_that_contradict_themselves_are_refused(quantiles: Any, nulls: int, rows: int) -> None:
    with pytest.raises(Invalid) as e:
        numeric_reference(quantiles, nulls, rows)
    assert e.value.code == "bad_reference"


@pytest.mark.parametrize(
    ("counts", "nulls", "rows"), [({"a": 3}, 0, 4), ({"a": -1}, 5, 4), ({}, 0, 0), ({"a": 5}, -1, 4)]
)
def test_counts_that_contradict_their_rows_are_refused(counts: dict[str, int], nulls: int, rows: int) -> None:
    with pytest.raises(Invalid) as e:
        category_reference(counts, nulls, rows)
    assert e.value.code == "bad_reference"


@given(st.lists(finite, min_size=21, max_size=200), finite, finite)
@settings(max_examples=200)
def test_the_rank_rises_from_0_to_1(values: list[float], x: float, y: float) -> None:
    found = reference(values)
    low, high = sorted((x, y))
    assert 0 <= found.rank(low) <= found.rank(high) <= 1
    assert found.rank(min(values) - 1) == 0 and found.rank(max(values) + 1) == 1


def test_the_rank_is_the_share_below_with_ties_halved() -> None:
    values = np.random.default_rng(2).exponential(size=50_000)
    found = reference(values)
    for x in (0.01, 0.3, 1.0, 4.0):
        assert found.rank(x) == pytest.approx(float((values < x).mean()), abs=0.03)
    assert reference([7.0] * 30).rank(7.0) == 0.5
    assert math.isnan(found.rank(math.nan)) and math.isnan(numeric_reference((), 3, 3).rank(1.0))
    assert found.rank(math.inf) == 1
