"""Evidence that may be looked at at any time. The error rate over all looks is proven in proofs/sequential.py."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from falaj.kernel.errors import Invalid
from falaj.statistics.sequential import (
    BETS,
    WAITING,
    WEIGHTS,
    Arm,
    Comparison,
    Outcome,
    compare,
    comparison,
    merge,
    observe,
    observe_all,
)
from tests.scripts import loaded

PROOF = Path(__file__).resolve().parents[2] / "proofs" / "sequential.py"
values = st.floats(0, 1)
observations = st.lists(st.tuples(st.sampled_from(Arm), values), max_size=120)
states = st.builds(lambda o: observe_all(comparison(0.05, 2), o), observations)


def alternating(base: float, shift: float, n: int, seed: int) -> list[tuple[Arm, float]]:
    chance = random.Random(seed)
    rates = {Arm.STABLE: base, Arm.CHALLENGER: base + shift}
    return [(arm, float(chance.random() < rates[arm])) for _ in range(n) for arm in Arm]


def test_nothing_seen_decides_nothing() -> None:
    start = comparison(0.0)
    assert start.against_equal == pytest.approx(1) and start.against_worse == pytest.approx(1)
    assert compare(start, 0.05) is Outcome.UNDECIDED
    assert start.stable.mean is None


@given(st.lists(st.tuples(values, values), max_size=60), st.floats(-0.5, 0.5))
def test_wealth_is_the_product_of_the_bets(pairs: list[tuple[float, float]], margin: float) -> None:
    state = observe_all(comparison(margin), [o for s, c in pairs for o in ((Arm.STABLE, s), (Arm.CHALLENGER, c))])
    excess = np.array([c - s for s, c in pairs]) - margin
    up = [w * np.prod(1 + b / (1 + margin) * excess) for b, w in zip(BETS, WEIGHTS, strict=True)]
    down = [w * np.prod(1 - b / (1 - margin) * excess) for b, w in zip(BETS, WEIGHTS, strict=True)]
    assert state.worse == pytest.approx(up, rel=1e-6) and state.fine == pytest.approx(down, rel=1e-6)
    assert state.pairs == len(pairs) and min(state.worse + state.fine) >= 0


@given(st.integers(0, 20), st.integers(0, 20), st.floats(0, 0.5))
def test_no_bet_gains_on_average_while_its_claim_is_true(ones: int, others: int, margin: float) -> None:
    """The definition of a fair bet, over every outcome of one pair: E[wealth] ≤ 1 at the border and inside."""
    stable, challenger = ones / 20, min(others / 20, 1.0)
    expected = {"worse": 0.0, "fine": 0.0}
    for s, p in ((0.0, 1 - stable), (1.0, stable)):
        for c, q in ((0.0, 1 - challenger), (1.0, challenger)):
            state = observe_all(comparison(margin), [(Arm.STABLE, s), (Arm.CHALLENGER, c)])
            expected["worse"] += p * q * state.against_equal
            expected["fine"] += p * q * state.against_worse
    true = "worse" if challenger - stable <= margin else "fine"
    assert expected[true] <= 1 + 1e-9


@given(observations, st.integers(0, 120))
def test_one_by_one_or_in_parts_is_the_same(seen: list[tuple[Arm, float]], cut: int) -> None:
    whole = observe_all(comparison(0.02, 3), seen)
    assert observe_all(observe_all(comparison(0.02, 3), seen[:cut]), seen[cut:]) == whole
    single = comparison(0.02, 3)
    for arm, value in seen:
        single = observe(single, arm, value)
    assert single == whole


def same(a: Comparison, b: Comparison) -> bool:
    left, right = msgspec.structs.asdict(a), msgspec.structs.asdict(b)
    for name in ("worse", "fine"):
        assert left.pop(name) == pytest.approx(right.pop(name), rel=1e-9)
    for name in ("stable", "challenger", "started"):
        x, y = left.pop(name), right.pop(name)
        assert (x.n, x.total) == (y.n, pytest.approx(y.total))
    return left == right


@given(states, states, states)
def test_merging_is_associative_and_has_a_neutral_start(a: Comparison, b: Comparison, c: Comparison) -> None:
    assert same(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert same(merge(a, comparison(0.05, 2)), a) and same(merge(comparison(0.05, 2), a), a)
    assert merge(a, b).against_equal == pytest.approx(merge(b, a).against_equal)


def test_workers_together_know_more_than_each() -> None:
    halves = [observe_all(comparison(0.0), alternating(0.1, 0.1, 90, seed)) for seed in (1, 2, 3)]
    assert all(compare(h, 0.05) is not Outcome.BETTER_OR_EQUAL for h in halves)
    together = merge(merge(halves[0], halves[1]), halves[2])
    assert together.pairs == 270 and compare(together, 0.05) is Outcome.WORSE


def test_a_worse_challenger_is_found_and_an_equal_one_is_passed() -> None:
    worse = observe_all(comparison(0.02), alternating(0.02, 0.10, 1_500, 4))
    equal = observe_all(comparison(0.02), alternating(0.01, 0.0, 1_500, 4))
    assert compare(worse, 0.05) is Outcome.WORSE
    assert compare(equal, 0.05) is Outcome.BETTER_OR_EQUAL
    assert compare(observe_all(comparison(0.0), alternating(0.1, 0.0, 3_000, 4)), 0.05) is Outcome.UNDECIDED


def test_more_metrics_need_more_evidence_to_abort_but_not_to_pass() -> None:
    state = observe_all(comparison(0.0), [(Arm.STABLE, 0.0), (Arm.CHALLENGER, 1.0)] * 7)
    assert 20 < state.against_equal < 200
    assert compare(state, 0.05) is Outcome.WORSE and compare(state, 0.05, metrics=10) is Outcome.UNDECIDED
    state = observe_all(comparison(0.0), [(Arm.STABLE, 1.0), (Arm.CHALLENGER, 0.0)] * 7)
    assert compare(state, 0.05, metrics=10) is Outcome.BETTER_OR_EQUAL


def test_a_group_is_compared_by_its_mean() -> None:
    seen = [*((Arm.STABLE, x) for x in (0.0, 0.5, 1.0)), (Arm.CHALLENGER, 0.5)]
    state = observe_all(comparison(0.0, 3), seen)
    assert state.pairs == 1 and state.worse == pytest.approx(WEIGHTS)


def test_a_twentieth_of_the_traffic_uses_all_of_the_rest() -> None:
    chance = random.Random(6)
    seen = [(arm, float(chance.random() < (0.3 if arm is Arm.CHALLENGER else 0.1)))
            for _ in range(150) for arm in (*[Arm.STABLE] * 19, Arm.CHALLENGER)]  # fmt: skip
    single, grouped = (observe_all(comparison(0.0, group), seen) for group in (1, 19))
    assert grouped.against_equal > single.against_equal > 1


def test_what_waits_is_bounded_and_is_paired_later() -> None:
    state = observe_all(comparison(0.0), [(Arm.STABLE, 0.0)] * 10_000)
    assert len(state.waiting_stable) == WAITING and state.stable.n == 10_000 and state.pairs == 0
    state = observe_all(state, [(Arm.CHALLENGER, 0.0)] * 40)
    assert state.pairs == WAITING and len(state.waiting_challenger) == 40 - WAITING


def test_the_state_travels_as_json_whatever_was_seen() -> None:
    sure = observe_all(comparison(0.0), [(Arm.STABLE, 0.0), (Arm.CHALLENGER, 1.0)] * 20_000)
    assert all(math.isfinite(w) for w in sure.worse)
    both = merge(sure, sure)
    back = msgspec.json.decode(msgspec.json.encode(both), type=Comparison)
    assert back == both and compare(back, 1e-9) is Outcome.WORSE and len(msgspec.json.encode(both)) < 2_000
    assert same(observe(back, Arm("stable"), 0.5), observe(both, Arm.STABLE, 0.5))


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_values_outside_0_to_1_are_refused(value: float) -> None:
    with pytest.raises(Invalid) as e:
        observe(comparison(0.0), Arm.STABLE, value)
    assert e.value.code == "not_a_share"


@pytest.mark.parametrize(("margin", "group"), [(1.0, 1), (-1.0, 1), (math.nan, 1), (0.0, 0)])
def test_impossible_comparisons_are_refused(margin: float, group: int) -> None:
    with pytest.raises(Invalid) as e:
        comparison(margin, group)
    assert e.value.code == "bad_comparison"


def test_different_questions_do_not_merge() -> None:
    for other in (comparison(0.01), comparison(0.0, 2)):
        with pytest.raises(Invalid) as e:
            merge(comparison(0.0), other)
        assert e.value.code == "other_comparison"


# ── The proof ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def proof() -> Iterator[ModuleType]:
    with loaded(PROOF) as module:
        yield module


def test_the_proof_holds_on_a_sample() -> None:
    done = subprocess.run([sys.executable, str(PROOF), "--sample"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("nominal 0.05; false 'worse' ") and done.stdout.count("\n") == 1


@pytest.mark.parametrize(("worse", "naive", "says"), [(16, 40, "more often"), (2, 5, "sees nothing"), (2, 40, "")])
def test_the_proof_can_fail(proof: Any, worse: int, naive: int, says: str) -> None:
    looks = [proof.Looks(i < worse, False, i < naive) for i in range(100)]
    _, wrong = proof.verdict({"errors 10 %": looks})
    assert bool(wrong) == bool(says) and all(says in w for w in wrong)


@pytest.mark.parametrize(("hits", "of"), [(0, 50), (27, 2000), (400, 1200), (50, 50)])
def test_the_proofs_interval_is_exact(proof: Any, hits: int, of: int) -> None:
    low = stats.beta.ppf(0.025, hits, of - hits + 1) if hits else 0
    high = stats.beta.ppf(0.975, hits + 1, of - hits) if hits < of else 1
    assert proof.Rate(hits, of).interval == pytest.approx((low, high), abs=1e-9)
