"""The pure rules of traffic plans: who gets which version, what a guard may say, when a trip holds."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.errors import Invalid
from falaj.lifecycle.rollout.model import (
    Guard,
    Route,
    TrafficPlan,
    certain_shift,
    check_plan,
    place,
    share,
    split,
    trip_holds,
)

CHALLENGED = (Route("a", 90), Route("b", 10, "canary"))


def chosen(routes: tuple[Route, ...], key: str) -> str:
    ordered = split(routes)
    return ordered[place([r.weight for r in ordered], share("m", key) * 100)].digest


@given(st.text(max_size=50), st.lists(st.integers(0, 100), min_size=2, max_size=6).map(sorted))
def test_a_canary_that_grows_keeps_every_key_it_had(key: str, weights: list[int]) -> None:
    on = [chosen((Route("a", 100 - w), Route("b", w, "canary")), key) == "b" for w in weights]
    assert all(later or not earlier for earlier, later in pairwise(on))
    assert chosen((Route("a", 0), Route("b", 100, "canary")), key) == "b"
    assert chosen((Route("a", 100), Route("b", 0, "canary")), key) == "a"


@given(st.text(max_size=50), st.integers(0, 40), st.integers(0, 30), st.integers(0, 30))
def test_of_several_canaries_the_last_one_may_grow(key: str, first: int, second: int, more: int) -> None:
    def plan(last: int) -> tuple[Route, ...]:
        return (Route("a", 100 - first - last), Route("b", first, "canary"), Route("c", last, "canary"))

    before, after = chosen(plan(second), key), chosen(plan(second + more), key)
    assert after == before or (before, after) == ("a", "c")


@given(st.text(), st.text())
def test_a_share_is_a_share_and_depends_on_nothing_else(scope: str, key: str) -> None:
    assert 0 <= share(scope, key) < 1
    assert share(scope, key) == share(scope, key)


def test_the_share_of_a_key_stays_what_it_was() -> None:
    """Whoever was on a version stays there when the software changes."""
    assert share("flight-delay", "customer-1") == pytest.approx(0.22659618963129446)


@pytest.mark.parametrize("weight", [1, 10, 50, 90])
def test_keys_are_spread_by_weight(weight: int) -> None:
    routes = (Route("a", 100 - weight), Route("b", weight, "canary"))
    count, expected = 20_000, weight / 100
    got = sum(chosen(routes, f"customer {i}") == "b" for i in range(count)) / count
    assert abs(got - expected) < 5 * (expected * (1 - expected) / count) ** 0.5


@given(st.lists(st.integers(0, 100), max_size=5), st.floats(0, 100, exclude_max=True))
def test_a_place_is_the_interval_that_holds_the_point(weights: list[int], point: float) -> None:
    at = place(weights, point)
    if at < 0:
        assert point >= sum(weights) or sum(weights) == 0
    else:
        assert sum(weights[:at]) <= point + 1e-9
        assert point < sum(weights[: at + 1]) + 1e-9


@pytest.mark.parametrize(
    "routes",
    [
        (Route("a", 50, "canary"), Route("b", 50, "canary")),
        (Route("a", 40), Route("b", 40), Route("c", 20, "canary")),
        (Route("a", 50), Route("b", 50), Route("c", 20, "shadow")),
        (Route("a", 100), Route("b", 101, "shadow")),
        (Route("a", 100), Route("b", -1, "shadow")),
        (Route("a", 100), Route("b", 0, "challenger")),
    ],
)
def test_what_is_no_plan_for_a_challenger(routes: tuple[Route, ...]) -> None:
    with pytest.raises(Invalid) as refusal:
        check_plan(TrafficPlan("m", routes))
    assert refusal.value.hint


@pytest.mark.parametrize(
    "guard",
    [
        Guard(max_error_share=1.5),
        Guard(max_score_shift=-0.1),
        Guard(max_error_share=float("nan")),
        Guard(max_latency_ms=50),
        Guard(max_slow_share=0.1),
        Guard(max_latency_ms=0, max_slow_share=0.1),
        Guard(max_latency_ms=float("inf"), max_slow_share=0.1),
        Guard(min_count=0),
        Guard(window=0),
        Guard(window=10**9),
        Guard(forgives=-1),
    ],
)
def test_a_guard_that_cannot_be_judged_is_refused(guard: Guard) -> None:
    with pytest.raises(Invalid) as refusal:
        check_plan(TrafficPlan("m", CHALLENGED, guard))
    assert refusal.value.hint


def test_a_guard_may_judge_anything_or_nothing() -> None:
    for guard in (None, Guard(), Guard(max_error_share=0), Guard(max_latency_ms=5, max_slow_share=0.5, min_count=900)):
        check_plan(TrafficPlan("m", CHALLENGED, guard))


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 60))
def test_a_trip_holds_until_a_later_generation_forgives_it(tripped: int, generation: int, forgives: int) -> None:
    assert trip_holds(tripped, generation, None)
    assert trip_holds(tripped, generation, Guard())
    holds = trip_holds(tripped, generation, Guard(forgives=forgives))
    assert holds == (generation <= tripped or forgives < tripped)


def test_chance_explains_no_shift_between_equal_samples() -> None:
    """Looked at after every pair, two equal samples stay at 0."""
    chance = random.Random(3)
    for pairs in (30, 100, 300):
        for _ in range(200):
            ours, theirs = (sorted(chance.random() for _ in range(pairs)) for _ in range(2))
            both = sorted(ours + theirs)
            distance = max(
                abs(sum(v <= x for v in ours) - sum(v <= x for v in theirs)) / pairs
                for x in both[:: max(1, pairs // 15)]
            )
            assert certain_shift(distance, pairs) <= 0
    assert certain_shift(1.0, 30) > 0.14
    assert certain_shift(0.4, 300) > 0.13
    assert certain_shift(1.0, 0) == 0
