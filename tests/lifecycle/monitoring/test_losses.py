"""How wrong an answer was: right is 0, nothing is worse than 1, and what cannot be told is left out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.lifecycle.monitoring.drift import ReferenceProfile
from falaj.lifecycle.monitoring.losses import can_judge, loss, scale_of
from falaj.lifecycle.training.model import QUANTILES, Numbers
from falaj.statistics.bins import Reference, numeric_reference

NAN = math.nan


def test_binary_is_the_brier_score() -> None:
    assert loss("binary", 0.75, 1.0) == pytest.approx(0.0625)
    assert loss("binary", 0.75, 0.0) == pytest.approx(0.5625)


def test_multiclass_is_half_the_brier_score_of_the_vector() -> None:
    assert loss("multiclass", (0.5, 0.3, 0.2), 1.0) == pytest.approx((0.25 + 0.49 + 0.04) / 2)
    assert loss("multiclass", (5.0, 3.0, 2.0), 1.0) == pytest.approx((0.25 + 0.49 + 0.04) / 2)
    assert loss("multiclass", (1.0, 0.0), 1.0) == 1.0


def test_regression_is_a_part_of_the_range() -> None:
    assert loss("regression", 30.0, 25.0, scale=50) == pytest.approx(0.1)
    assert loss("regression", 300.0, 25.0, scale=50) == 1.0


@pytest.mark.parametrize(
    ("task", "score", "label"),
    [
        ("binary", 0.5, 2.0), ("binary", 0.5, NAN), ("binary", NAN, 1.0), ("binary", 1.5, 1.0), ("binary", (0.5, 0.5), 1.0),
        ("multiclass", 0.5, 1.0), ("multiclass", (0.5, 0.5), 2.0), ("multiclass", (0.5, 0.5), 0.5),
        ("multiclass", (0.5, NAN), 1.0), ("multiclass", (0.0, 0.0), 1.0), ("multiclass", (), 0.0),
        ("multiclass", (-0.5, 1.5), 0.0), ("regression", 1.0, 1.0), ("ranking", 1.0, 1.0),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_left_out(task: str, score: float | tuple[float, ...], label: float) -> None:
    assert loss(task, score, label) is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.integers(0, 5))
def test_a_vector_loses_between_nothing_and_one(score: list[float], label: int) -> None:
    found = loss("multiclass", tuple(score), float(label))
    assert found is None or 0 <= found <= 1
    assert (found is None) == (label >= len(score) or sum(score) <= 0)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(), st.floats(1e-9, 1e9))
def test_a_number_loses_between_nothing_and_one(score: float, label: float, scale: float) -> None:
    found = loss("regression", score, label, scale)
    assert (found is None) == (not math.isfinite(label))
    assert found is None or 0 <= found <= 1


def reference(quantiles: tuple[float, ...], columns: int = 1) -> ReferenceProfile:
    numbers: Reference = numeric_reference(quantiles, 0, 60)
    return ReferenceProfile("d", 60, {}, (numbers,) * columns)


def test_the_range_is_that_of_the_frozen_scores() -> None:
    scores = Numbers(50, 10, tuple(100 * q for q in QUANTILES))
    assert scale_of(reference(scores.quantiles)) == pytest.approx(90)
    assert scale_of(reference((7.0,) * len(QUANTILES))) == 0
    assert scale_of(reference(QUANTILES, columns=3)) == scale_of(None) == 0
    assert can_judge("regression", 90) and not can_judge("regression", 0)
    assert can_judge("binary", 0) and can_judge("multiclass", 0) and not can_judge("", 90)
