"""Planted shifts are found, unchanged data is left alone, and too few rows decide nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.kernel.digests import canonical_json, sha256
from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring.drift import (
    DriftReport,
    ReferenceProfile,
    Window,
    drift,
    read_reference,
    reference_of,
    window,
)
from falaj.lifecycle.monitoring.policy import MonitorPolicy
from falaj.lifecycle.training.model import QUANTILES, FeatureProfile, Input, ModelContract, Numbers, Profile

POLICY = MonitorPolicy(features=1)
ROWS = 8_000
Columns = dict[str, list[Any]]


def rows(n: int, seed: int) -> Columns:
    """Four features with all that features have: nulls, ties, rare categories."""
    chance = np.random.default_rng(seed)
    size: list[Any] = chance.normal(50, 12, n).tolist()
    for i in np.flatnonzero(chance.random(n) < 0.1):
        size[i] = None
    return {
        "size": size,
        "rooms": chance.binomial(8, 0.4, n).tolist(),
        "colour": chance.choice(["red", "green", "blue", "rare"], n, p=[0.5, 0.3, 0.195, 0.005]).tolist(),
        "garden": (chance.random(n) < 0.3).tolist(),
    }


def scores(n: int, seed: int) -> list[float]:
    found: list[float] = np.random.default_rng(seed).beta(2, 5, n).tolist()
    return found


def numbers(values: list[Any]) -> Numbers:
    known = np.array([v for v in values if v is not None], dtype=float)
    return Numbers(float(known.mean()), float(known.std()), tuple(float(q) for q in np.quantile(known, QUANTILES)))


def profile(columns: Columns, score: list[float]) -> Profile:
    """What training writes of such rows."""
    features = {}
    for name, kind in (("size", "float"), ("rooms", "integer")):
        n = numbers(columns[name])
        features[name] = FeatureProfile(kind, columns[name].count(None), None, n.mean, n.deviation, n.quantiles)
    for name, kind in (("colour", "category"), ("garden", "boolean")):
        told = [str(v).lower() for v in columns[name]]
        features[name] = FeatureProfile(kind, 0, {v: told.count(v) for v in sorted(set(told))})
    return Profile(len(score), features, (numbers(score),))


REFERENCE = reference_of(profile(rows(ROWS, 1), scores(ROWS, 1)))


def live(columns: Columns, score: list[Any], reference: ReferenceProfile = REFERENCE) -> Window:
    return window("sha256:model", reference, 0, 10).add(reference, columns, score)


def judged(columns: Columns, score: list[Any], policy: MonitorPolicy = POLICY) -> DriftReport:
    return drift(REFERENCE, live(columns, score), policy)


@pytest.mark.parametrize("n", [500, 3_000, 40_000])
def test_unchanged_data_is_left_alone(n: int) -> None:
    for seed in range(2, 6):
        found = judged(rows(n, seed), scores(n, seed))
        assert found.verdict is Verdict.SUCCESSFUL and found.drifted == (), found.reason


def test_in_small_windows_of_unchanged_data_nothing_ever_drifts() -> None:
    policy = MonitorPolicy(features=1, min_rows=1)
    states = [
        s.state
        for n in (1, 7, 30, 100, 200)
        for seed in range(20)
        for s in (lambda r: (*r.features, *r.score))(judged(rows(n, 100 + seed), scores(n, 100 + seed), policy))
    ]
    assert "drifted" not in states and "unresolved" in states


def shifted(name: str, n: int = 3_000) -> tuple[Columns, list[float]]:
    columns, score = rows(n, 9), scores(n, 9)
    if name == "score":
        return columns, [min(s + 0.12, 1.0) for s in score]
    plants: dict[str, Callable[[Any], Any]] = {
        "size": lambda v: None if v is None else v + 8,
        "rooms": lambda v: v + 2,
        "colour": lambda v: "new" if v == "green" else v,
        "garden": lambda v: not v,
    }
    return {**columns, name: [plants[name](v) for v in columns[name]]}, score


@pytest.mark.parametrize("name", ["size", "rooms", "colour", "garden", "score"])
def test_a_planted_shift_is_found_and_named(name: str) -> None:
    found = judged(*shifted(name))
    assert found.verdict is Verdict.FAILED and found.drifted == (name,)
    assert name in found.reason
    shift = next(s for s in (*found.features, *found.score) if s.name == name)
    assert shift.psi > shift.threshold >= 0.2 > shift.critical > shift.expected > 0
    assert shift.p_value < 1e-6 and shift.js > 0.1 and (shift.ks is None) == (name in ("colour", "garden"))


def test_nulls_drift_too() -> None:
    columns = rows(2_000, 9)
    found = judged({**columns, "size": [None] * 2_000}, scores(2_000, 9))
    assert found.drifted == ("size",)
    assert found.features[-1].current[-1] == 1 and found.features[-1].ks == 1
    missing = {name: values for name, values in columns.items() if name != "size"}
    assert judged(missing, scores(2_000, 9)).features == found.features


def test_answers_that_are_no_numbers_are_a_shift_of_the_score() -> None:
    found = judged(rows(600, 9), [math.nan if i % 2 else s for i, s in enumerate(scores(600, 9))])
    assert found.verdict is Verdict.FAILED and found.drifted == ("score",)


def test_as_many_features_as_the_policy_says_make_a_window_drift() -> None:
    columns, score = shifted("size")
    two = {**columns, "garden": shifted("garden")[0]["garden"]}
    strict = MonitorPolicy(features=3)
    assert judged(columns, score, strict).verdict is Verdict.SUCCESSFUL
    assert judged(two, score, strict).verdict is Verdict.SUCCESSFUL
    three = {**two, "colour": shifted("colour")[0]["colour"]}
    assert judged(three, score, strict).verdict is Verdict.FAILED
    assert (
        judged({name: [None] * 3_000 for name in columns}, score, MonitorPolicy(features=99)).verdict is Verdict.FAILED
    )


def test_too_few_rows_decide_nothing_whatever_they_hold() -> None:
    columns, score = shifted("size", 199)
    found = judged(columns, score)
    assert found.verdict is Verdict.INCONCLUSIVE and "199 rows are too few; 200 are needed" in found.reason
    nothing = drift(REFERENCE, window("sha256:model", REFERENCE, 0, 10), MonitorPolicy(min_rows=0))
    assert nothing.verdict is Verdict.INCONCLUSIVE and {s.state for s in nothing.features} == {"unresolved"}


def test_rows_that_chance_could_explain_are_no_pass() -> None:
    found = judged(rows(60, 3), scores(60, 3), MonitorPolicy(features=1, min_rows=10))
    assert found.verdict is Verdict.INCONCLUSIVE and "chance alone" in found.reason


def test_a_constant_feature_is_judged() -> None:
    constant = FeatureProfile("float", 0, None, 3.0, 0.0, (3.0,) * 21)
    reference = reference_of(Profile(1_000, {"k": constant}, ()))
    for value, verdict in (
        (3.0, Verdict.SUCCESSFUL),
        (2.5, Verdict.FAILED),
        (3.5, Verdict.FAILED),
        (None, Verdict.FAILED),
    ):
        found = drift(reference, live({"k": [value] * 500}, [], reference), POLICY)
        assert found.verdict is verdict, found


def test_a_feature_that_was_always_null_is_judged() -> None:
    reference = reference_of(Profile(1_000, {"k": FeatureProfile("float", 1_000, None, 0.0, 0.0, ())}, ()))
    assert drift(reference, live({"k": [None] * 500}, [], reference), POLICY).verdict is Verdict.SUCCESSFUL
    assert drift(reference, live({"k": [1.0] * 500}, [], reference), POLICY).verdict is Verdict.FAILED


def test_a_window_does_not_grow_with_its_rows() -> None:
    few, many = (len(canonical_json(live(rows(n, 4), scores(n, 4)))) for n in (10, 20_000))
    assert many < few + 4 * 60
    unseen = live({**rows(5_000, 4), "colour": [f"c{i}" for i in range(5_000)]}, scores(5_000, 4))
    assert len(canonical_json(unseen)) <= many + 60


def test_windows_and_reports_travel_as_json() -> None:
    seen = live(*shifted("colour"))
    back = msgspec.json.decode(canonical_json(seen), type=Window)
    assert back == seen
    report = drift(REFERENCE, back, POLICY)
    assert msgspec.json.decode(canonical_json(report), type=DriftReport) == report
    assert msgspec.json.decode(canonical_json(REFERENCE), type=ReferenceProfile) == REFERENCE


parts = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 99)), min_size=3, max_size=3)


@given(parts)
@settings(max_examples=40, deadline=None)
def test_windows_add_up_in_any_order_to_the_window_of_all_rows(three: list[tuple[int, int]]) -> None:
    a, b, c = (live(rows(n, seed), scores(n, seed)) for n, seed in three)
    assert (a + b) + c == a + (b + c) == c + b + a
    together = window("sha256:model", REFERENCE, 0, 10)
    for n, seed in three:
        together = together.add(REFERENCE, rows(n, seed), scores(n, seed))
    assert together == a + b + c and together.rows == sum(n for n, _ in three)


def test_the_span_of_two_windows_is_that_of_both() -> None:
    both = window("m", REFERENCE, 50, 60) + window("m", REFERENCE, 10, 20)
    assert (both.start_us, both.end_us) == (10, 60)


def test_windows_of_other_versions_or_references_are_refused() -> None:
    other = reference_of(profile(rows(100, 5), scores(100, 5)))
    mine = window("m", REFERENCE, 0, 1)
    with pytest.raises(Invalid) as e:
        mine + window("another", REFERENCE, 0, 1)
    assert e.value.code == "other_version"
    for attempt in (
        lambda: mine + window("m", other, 0, 1),
        lambda: mine.add(other, rows(3, 1), scores(3, 1)),
        lambda: drift(other, mine, POLICY),
    ):
        with pytest.raises(Invalid) as e:
            attempt()
        assert e.value.code == "other_reference"


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(Invalid) as e:
        live({**rows(5, 1), "rooms": [1, 2]}, [])
    assert e.value.code == "uneven_rows"


def test_scores_may_have_columns() -> None:
    one = profile(rows(2_000, 1), scores(2_000, 1))
    three = reference_of(msgspec.structs.replace(one, score=one.score * 3))
    vectors = [[s, s, 1 - s] for s in scores(2_000, 8)]
    found = drift(three, live(rows(2_000, 8), vectors, three), POLICY)
    assert found.drifted == ("score[2]",)
    assert three.ranks([0.0, 1.0, math.nan])[:2] == (0.0, 1.0)


CONTRACT = ModelContract(
    "homes",
    "regression",
    (
        Input("size", "float"),
        Input("rooms", "integer"),
        Input("colour", "category", categories=("blue", "green", "rare", "red")),
        Input("garden", "boolean"),
    ),
    (),
    (),
    (),
    "value",
)


def test_a_reference_is_read_from_the_bytes_of_the_profile() -> None:
    data = canonical_json(profile(rows(ROWS, 1), scores(ROWS, 1)))
    assert read_reference(data, CONTRACT) == REFERENCE
    assert REFERENCE.digest == sha256(data)
    with pytest.raises(Invalid) as e:
        read_reference(data[:-1], CONTRACT)
    assert e.value.code == "bad_profile"


def test_a_profile_whose_quantiles_fall_is_refused() -> None:
    whole = profile(rows(200, 1), scores(200, 1))
    turned = msgspec.structs.replace(whole, score=(Numbers(0.0, 1.0, tuple(float(-i) for i in range(21))),))
    with pytest.raises(Invalid) as e:
        read_reference(canonical_json(turned), CONTRACT)
    assert e.value.code == "bad_reference"
