"""Planted shifts are found, unchanged data is left alone, and too few rows decide nothing."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.kernel.digests import canonical_json, sha256
from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring.drift import (
    DAY_US,
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
from falaj.lifecycle.training.steps.profile import feature_profile
from falaj.lifecycle.training.steps.profile import numbers as numbers_of
from falaj.statistics.distances import PARTS_A_DAY
from tests.scripts import loaded

PROOF = Path(__file__).resolve().parents[3] / "proofs" / "drift.py"
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
    return window("sha256:model", reference, 0, 10).add(reference, 5, columns, score)


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
        together = together.add(REFERENCE, 5, rows(n, seed), scores(n, seed))
    assert together == a + b + c and together.rows == sum(n for n, _ in three)


def test_the_span_of_two_windows_is_that_of_both() -> None:
    both = window("m", REFERENCE, 50, 60) + window("m", REFERENCE, 10, 20)
    assert (both.start_us, both.end_us) == (10, 60)


def test_windows_of_other_versions_or_references_are_refused() -> None:
    other = reference_of(profile(rows(100, 5), scores(100, 5)))
    mine = window("m", REFERENCE, 0, 1)
    with pytest.raises(Invalid) as e:
        mine + window("another", REFERENCE, 0, 1)
    assert e.value.code == "other_model_version"
    for attempt in (
        lambda: mine + window("m", other, 0, 1),
        lambda: mine.add(other, 0, rows(3, 1), scores(3, 1)),
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


# ── Days ─────────────────────────────────────────────────────────────────────────────────────────

ROWS_A_DAY = 80
WEATHER = (Input("temp", "float"), Input("distance", "float"), Input("sky", "category", categories=("clear", "grey")))
Daily = dict[int, tuple[Columns, list[float]]]


def weather(days: range, seed: int, warmer: float = 0.0) -> Daily:
    """Rows by day: a temperature and a sky that a day's rows share in part, a distance that they do not, a score of both."""
    chance = np.random.default_rng(seed)
    found: Daily = {}
    for day in days:
        temp = chance.normal(warmer) + chance.normal(size=ROWS_A_DAY)
        distance = chance.normal(size=ROWS_A_DAY)
        grey = chance.random(ROWS_A_DAY) < chance.beta(2, 2)
        columns = {
            "temp": temp.tolist(),
            "distance": distance.tolist(),
            "sky": np.where(grey, "grey", "clear").tolist(),
        }
        found[day] = columns, (temp + distance).tolist()
    return found


def trained(daily: Daily) -> Profile:
    when = np.repeat(np.array(sorted(daily)), ROWS_A_DAY) * PARTS_A_DAY
    all_of = {i.name: pl.Series([v for day in sorted(daily) for v in daily[day][0][i.name]]) for i in WEATHER}
    score = numbers_of(np.array([v for day in sorted(daily) for v in daily[day][1]]), when)
    return Profile(len(when), {i.name: feature_profile(i, all_of[i.name], when) for i in WEATHER}, (score,), len(daily))


def lived(reference: ReferenceProfile, daily: Daily) -> Window:
    seen = window("sha256:model", reference, 0, 10**6 * DAY_US)
    for day, (columns, score) in daily.items():
        seen = seen.add(reference, day * DAY_US + 7, columns, score)
    return seen


TRAINED = trained(weather(range(60), 1))


def test_unchanged_days_are_left_alone_where_independent_rows_would_raise_an_alarm() -> None:
    plain = {n: msgspec.structs.replace(f, spread=(), directions=0.0) for n, f in TRAINED.features.items()}
    score = tuple(msgspec.structs.replace(s, spread=(), directions=0.0) for s in TRAINED.score)
    unaware = reference_of(msgspec.structs.replace(TRAINED, features=plain, score=score, days=0))
    aware, alarms = reference_of(TRAINED), 0
    for seed in range(10, 30):
        daily = weather(range(100, 105), seed)
        assert drift(aware, lived(aware, daily), POLICY).verdict is not Verdict.FAILED
        alarms += drift(unaware, lived(unaware, daily), POLICY).verdict is Verdict.FAILED
    assert alarms > 5


def test_what_moves_for_days_on_end_is_found_and_reported_with_its_days() -> None:
    reference = reference_of(TRAINED)
    found = drift(reference, lived(reference, weather(range(100, 128), 2, warmer=2.0)), POLICY)
    assert found.verdict is Verdict.FAILED and "temp" in found.drifted and "distance" not in found.drifted
    temp, distance = (next(s for s in found.features if s.name == name) for name in ("temp", "distance"))
    assert temp.days == distance.days == 28
    assert temp.psi > temp.threshold and temp.p_value < 0.001
    assert temp.between > 0.8 * temp.expected and temp.critical > 5 * distance.critical
    assert distance.state == "steady" and distance.between < distance.expected / 2


def test_too_few_days_decide_nothing_however_many_rows_they_have() -> None:
    reference = reference_of(TRAINED)
    found = drift(
        reference, lived(reference, weather(range(100, 102), 3)), MonitorPolicy(psi=0.1, features=1, min_rows=50)
    )
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == "in 2 days, beside 60 of the reference, chance alone can exceed a PSI of 0.1"


def test_a_reference_of_one_day_decides_nothing() -> None:
    reference = reference_of(trained(weather(range(1), 1)))
    found = drift(
        reference, lived(reference, weather(range(9, 12), 2, warmer=9.0)), MonitorPolicy(features=1, min_rows=1)
    )
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == "in 3 days, beside 1 of the reference, chance alone can exceed a PSI of 0.2"
    one = drift(reference, lived(reference, weather(range(9, 10), 2)), MonitorPolicy(features=1, min_rows=1))
    assert one.reason.startswith("in 1 day, beside 1 of")


def test_a_window_keeps_the_days_of_its_rows() -> None:
    reference = reference_of(TRAINED)
    daily = weather(range(100, 103), 4)
    seen = lived(reference, {day: daily[day] for day in (102, 100)}) + lived(
        reference, {102: daily[102], 101: daily[101]}
    )
    assert seen.days == (100, 101, 102)
    nothing: Columns = {name: [] for name in ("temp", "distance", "sky")}
    assert seen.add(reference, 500 * DAY_US, nothing).days == seen.days
    assert window("m", reference, 0, 1).add(reference, -1, *daily[100]).days == (-1,)


def test_a_window_that_was_kept_without_days_still_reads() -> None:
    reference = reference_of(TRAINED)
    old = msgspec.to_builtins(lived(reference, weather(range(100, 128), 5)))
    del old["days"], old["parts"]
    seen = msgspec.json.decode(canonical_json(old), type=Window)
    assert seen.days == () and seen.rows == 28 * ROWS_A_DAY
    found = drift(reference, seen, POLICY)  # all rows may be of one day
    temp, one = found.features[-1], drift(reference, msgspec.structs.replace(seen, days=(100,)), POLICY).features[-1]
    assert temp.critical == pytest.approx(one.critical)


def test_counts_of_the_profile_leave_no_slack() -> None:
    reference = reference_of(TRAINED)
    assert all(set(r.slack) == {0.0} for r in (*reference.features.values(), *reference.score))
    assert reference.score[0].rows == TRAINED.rows == 60 * ROWS_A_DAY
    fewer = msgspec.structs.replace(TRAINED.score[0], binned=tuple(c // 2 for c in TRAINED.score[0].binned))
    assert reference_of(msgspec.structs.replace(TRAINED, score=(fewer,))).score[0].rows == sum(fewer.binned)


# ── The proof ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def proof() -> Iterator[ModuleType]:
    with loaded(PROOF) as module:
        yield module


def test_the_proof_holds_on_a_sample() -> None:
    done = subprocess.run([sys.executable, str(PROOF), "--sample"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("nominal 0.01, 50 unchanged windows: false alarms ") and done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("failed", "beyond", "control", "found", "says"),
    [
        (9, 0, 60, 95, "too many false alarms"),
        (0, 9, 60, 95, "too many beyond the floor"),
        (1, 1, 2, 95, "sees nothing"),
        (1, 1, 60, 70, "found too rarely"),
        (1, 1, 60, 95, ""),
    ],
)
def test_the_proof_can_fail(proof: Any, failed: int, beyond: int, control: int, found: int, says: str) -> None:
    looks = [proof.Look(i < failed, i < beyond, i < control) for i in range(100)]
    _, wrong = proof.verdict({proof.SETTINGS[0]: looks}, {0.0: [i < found for i in range(100)]})
    assert bool(wrong) == bool(says) and all(says in w for w in wrong)
