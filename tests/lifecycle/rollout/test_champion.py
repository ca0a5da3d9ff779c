"""Who is the champion: what answers, beside any challenger."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.lifecycle.rollout.model import Route, TrafficPlan, all_to, champion, withdrawn
from tests.lifecycle.house import House


@pytest.mark.parametrize(
    ("routes", "digest"),
    [
        ((), ""),
        ((Route("a", 100),), "a"),
        ((Route("a", 1), Route("b", 99, "canary")), "a"),
        ((Route("a", 100), Route("b", 100, "shadow")), "a"),
        ((Route("a", 40), Route("b", 60)), "b"),
        ((Route("b", 100, "shadow"),), ""),
    ],
)
def test_the_stable_version_is_the_champion(routes: tuple[Route, ...], digest: str) -> None:
    assert champion(TrafficPlan("m", routes)) == digest


@given(st.permutations([Route("a", 30), Route("b", 20, "canary"), Route("c", 50, "canary"), Route("d", 100, "shadow")]))
def test_the_order_of_routes_does_not_matter(routes: list[Route]) -> None:
    assert champion(TrafficPlan("m", tuple(routes))) == "a"


def test_each_model_and_environment_has_its_own(home: House) -> None:
    rollout = home.plane.rollout
    rollout.set_plan(all_to("mine", "a"), "risk", home.operation())
    rollout.set_plan(all_to("yours", "b"), "risk", home.operation())
    assert (rollout.champion("mine", "production"), rollout.champion("yours", "production")) == ("a", "b")
    assert rollout.champion("mine", "staging") == rollout.champion("nobody's", "production") == ""
    rollout.set_plan(withdrawn("mine"), "risk", home.operation())
    assert rollout.champion("mine", "production") == ""
