"""What a watch counts and when it stops a challenger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.lifecycle.rollout.model import Guard, certain_shift
from falaj.lifecycle.serving.plane.watching import (
    ERROR,
    FINE,
    NON_FINITE,
    SERVED,
    SLOW,
    Challenger,
    Latest,
    Watch,
    Window,
    score_of,
)
from tests.lifecycle.serving.plane.fleet import flight_contract

CODES = (FINE, ERROR, NON_FINITE, SLOW, SERVED, SERVED | SLOW)


class Still:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def watch(
    guard: Guard | None, told: list[Watch] | None = None, before: Watch | None = None, role: str = "canary"
) -> Watch:
    challenger = Challenger("m", "m@2", "sha256:2", role, 4)
    return Watch(challenger, guard, Still(), (told if told is not None else []).append, before)


@given(st.lists(st.sampled_from(CODES), min_size=1, max_size=60), st.integers(1, 20))
def test_a_window_counts_the_last_requests(codes: list[int], size: int) -> None:
    window = Window(size)
    for moment, code in enumerate(codes):
        window.add(code, moment + 1)
    last = codes[-size:]
    assert window.count == len(last)
    for bit in (ERROR, NON_FINITE, SLOW, SERVED):
        having = [i for i, c in enumerate(codes, 1) if c & bit][-len(last) :]
        having = [i for i in having if i > len(codes) - len(last)]
        assert window.share(bit) == pytest.approx(len(having) / len(last))
        assert window.having(bit) == (len(having), min(having, default=0))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=60), st.integers(1, 40))
def test_the_shift_is_the_kolmogorov_smirnov_distance_less_chance(pairs: list[tuple[int, int]], size: int) -> None:
    window = Window(size)
    for ours, theirs in pairs:
        window.add_pair(ours, theirs)
    last = pairs[-size:]
    apart = [sum(a <= x for a, _ in last) - sum(b <= x for _, b in last) for pair in last for x in pair]
    distance = max(map(abs, apart)) / len(last)
    assert window.shift() == pytest.approx(certain_shift(distance, len(last)))


@pytest.mark.parametrize(
    ("code", "reason"),
    [(ERROR, "errors"), (NON_FINITE, "non_finite"), (SLOW, "slow"), (SLOW | SERVED, "slow")],
)
def test_a_broken_limit_stops_after_the_least_count_and_not_before(code: int, reason: str) -> None:
    told: list[Watch] = []
    guard = Guard(0.5, 0.5, 10, 0.5, 0.5, min_count=10, window=20)
    seen = watch(guard, told)
    for moment in range(1, 10):
        seen.add(code, moment * 1_000_000)
        assert seen.trip is None
    seen.add(code, 10_000_000)
    assert told == [seen]
    assert seen.trip is not None
    assert (seen.trip.reason, seen.trip.observed, seen.trip.limit, seen.trip.count) == (reason, 1.0, 0.5, 10)
    assert seen.trip.first_bad_at == "1970-01-01T00:00:01.000Z"
    assert (seen.trip.model, seen.trip.generation, seen.trip.zero_traffic_at) == ("m", 4, "")
    seen.add(code, 11_000_000)
    assert told == [seen]  # once
    assert seen.bad()[0] == (11 if reason == "slow" else 0)


def test_exactly_the_limit_is_fine_and_old_requests_are_forgotten() -> None:
    seen = watch(Guard(max_error_share=0.5, min_count=2, window=10))
    for moment in range(100):
        seen.add(ERROR if moment % 2 else SERVED, moment)
    assert seen.trip is None
    seen.add(ERROR, 101)
    assert seen.trip is not None


def test_a_limit_that_is_not_given_is_not_judged() -> None:
    for guard in (None, Guard()):
        seen = watch(guard)
        for moment in range(1000):
            seen.add(ERROR | NON_FINITE | SLOW, moment)
            seen.pair(1.0, 0.0)
        assert seen.trip is None


def test_equal_scores_stay_quiet_and_another_spread_or_a_constant_does_not() -> None:
    random = np.random.default_rng(5)
    guard = Guard(max_score_shift=0.2, min_count=50, window=500)

    def after(scores: Any, requests: int = 3000) -> Watch:
        seen = watch(guard)
        for moment in range(requests):
            seen.pair(float(scores()), float(random.normal()))
            seen.add(SERVED, moment)
        return seen

    for _ in range(5):
        assert after(random.normal).trip is None
    for scores in (lambda: random.normal(3), lambda: random.normal(0, 30), lambda: 0.0):
        stopped = after(scores)
        assert stopped.trip is not None
        assert stopped.trip.reason == "score_shift"
        assert stopped.trip.count <= 300
        assert stopped.bad()[0] >= stopped.trip.count  # whatever it answered


def test_a_pair_is_made_once_of_each_score_of_the_stable_version() -> None:
    seen, latest = watch(Guard(max_score_shift=0.1)), Latest()
    assert seen.unused(latest) is None
    latest.put(0.5)
    assert [seen.unused(latest), seen.unused(latest)] == [0.5, None]
    latest.put(None)
    assert seen.unused(latest) is None


def test_a_window_goes_on_under_the_same_guard_only() -> None:
    guard = Guard(max_error_share=0.1)
    first = watch(guard)
    assert watch(guard, before=first).window is first.window
    assert watch(guard, before=first, role="shadow").window is not first.window
    assert watch(Guard(max_error_share=0.2), before=first).window is not first.window
    assert watch(Guard(max_error_share=0.1, forgives=4), before=first).window is not first.window


def test_no_answer_of_a_shadow_reached_a_caller() -> None:
    seen = watch(Guard(max_latency_ms=1, max_slow_share=0.1, min_count=5), role="shadow")
    for moment in range(5):
        seen.add(SLOW, moment + 1)
    assert seen.trip is not None
    assert seen.bad()[0] == 0


def test_one_number_stands_for_an_answer() -> None:
    contract = flight_contract()
    assert score_of(contract, {"probability": [0.25, 0.9]}) == 0.25
    assert score_of(contract, {"probability": [[0.1, 0.7, 0.2]]}) == pytest.approx(1.7)
    assert score_of(contract, {"probability": [[0.0, 1.0]]}) == pytest.approx(1.999999)
    nothing: tuple[dict[str, Any], ...] = (
        {},
        {"probability": []},
        {"probability": ["a"]},
        {"probability": [[]]},
        {"probability": [["a"]]},
    )
    for outputs in nothing:
        assert score_of(contract, outputs) is None
