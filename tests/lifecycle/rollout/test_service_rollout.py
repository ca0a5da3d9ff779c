"""Traffic plans: what can be one, which one holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.errors import Conflict, Invalid
from falaj.lifecycle.rollout.model import Guard, Route, TrafficPlan, all_to, check_plan, withdrawn
from tests.lifecycle.house import House

BAD = {
    "too little": (Route("a", 99),),
    "too much": (Route("a", 60), Route("b", 50)),
    "negative": (Route("a", 110), Route("b", -10)),
    "a shadow has no share": (Route("a", 50), Route("b", 50, "shadow")),
    "only a shadow": (Route("a", 100, "shadow"),),
    "twice": (Route("a", 50), Route("a", 50, "canary")),
    "twice, once as a shadow": (Route("a", 100), Route("a", 0, "shadow")),
}
GOOD = {
    "all to one": (Route("a", 100),),
    "a canary": (Route("a", 95), Route("b", 5, "canary")),
    "a share of nothing": (Route("a", 100), Route("b", 0, "canary")),
    "a shadow": (Route("a", 100), Route("b", 10, "shadow")),
    "withdrawn": (),
}


@pytest.mark.parametrize("routes", BAD.values(), ids=BAD)
def test_what_is_no_plan(routes: tuple[Route, ...]) -> None:
    with pytest.raises(Invalid) as refusal:
        check_plan(TrafficPlan("m", routes))
    assert refusal.value.hint


@pytest.mark.parametrize("routes", GOOD.values(), ids=GOOD)
def test_what_is_a_plan(routes: tuple[Route, ...]) -> None:
    plan = TrafficPlan("m", routes)
    assert check_plan(plan) is plan


@given(st.lists(st.integers(-20, 120), min_size=1, max_size=5))
def test_weights_sum_to_a_hundred_or_are_refused(weights: list[int]) -> None:
    plan = TrafficPlan("m", tuple(Route(str(i), w) for i, w in enumerate(weights)))
    if sum(weights) == 100 and min(weights) >= 0:
        check_plan(plan)
    else:
        with pytest.raises(Invalid):
            check_plan(plan)


def test_the_newest_plan_holds_and_a_withdrawn_model_takes_none(home: House) -> None:
    rollout = home.plane.rollout
    rollout.set_plan(all_to("m", "a"), "risk", home.operation())
    rollout.set_plan(all_to("n", "x"), "risk", home.operation())
    rollout.set_plan(all_to("m", "b"), "risk", home.operation())
    assert [(p.model, p.routes[0].digest) for p in rollout.plans()] == [("m", "b"), ("n", "x")]
    rollout.set_plan(withdrawn("m"), "risk", home.operation())
    assert rollout.plan("m") is None
    entry = home.log(action="rollout.set_plan", resource_id="m")[0].entry
    assert entry.detail == {"environment": "production", "on_behalf_of": "risk", "routes": []}


def test_a_wrong_plan_changes_nothing_and_a_repeated_step_sets_it_once(home: House) -> None:
    rollout, operation = home.plane.rollout, home.operation()
    rollout.set_plan(all_to("k", "a"), "risk", operation)
    rollout.set_plan(all_to("k", "b"), "risk", home.operation())
    assert rollout.set_plan(all_to("k", "a"), "risk", operation) == all_to("k", "a")
    with pytest.raises(Invalid):
        rollout.set_plan(TrafficPlan("k", (Route("a", 1),)), "risk", home.operation())
    assert rollout.plan("k") == all_to("k", "b")


def test_a_plan_takes_the_place_of_the_one_that_was_looked_at_and_of_no_other(home: House) -> None:
    """Two are admitted beside the same champion; the one that comes second finds another champion there."""
    rollout = home.plane.rollout
    rollout.set_plan(all_to("q", "a"), "risk", home.operation())
    seen = rollout.present("q")
    first, operation = all_to("q", "b"), home.operation()
    rollout.set_plan(first, "risk", operation, seen)
    with pytest.raises(Conflict) as refusal:
        rollout.set_plan(all_to("q", "c"), "risk", home.operation(), seen)
    assert refusal.value.code == "plan_changed" and "falaj rollout start q@N" in refusal.value.hint
    assert rollout.plan("q") == first
    assert rollout.set_plan(first, "risk", operation, seen) == first  # a repeated step is not its own rival
    entry = home.log(action="rollout.set_plan", resource_id="q", outcome="refused")[0].entry
    assert entry.detail["code"] == "plan_changed"


def test_only_who_has_a_part_counts_and_nobody_is_a_part_too(home: House) -> None:
    rollout = home.plane.rollout
    nobody = rollout.present("r")
    assert nobody == withdrawn("r")
    ten, fifty = (
        TrafficPlan("r", (Route("a", 100 - weight), Route("b", weight, "canary")), Guard(forgives=weight))
        for weight in (10, 50)
    )
    rollout.set_plan(all_to("r", "a"), "risk", home.operation(), nobody)
    with pytest.raises(Conflict):
        rollout.set_plan(all_to("r", "z"), "risk", home.operation(), nobody)
    rollout.set_plan(ten, "risk", home.operation(), all_to("r", "a"))
    rollout.set_plan(fifty, "risk", home.operation(), ten)
    rollout.set_plan(all_to("r", "b"), "risk", home.operation(), ten)
    assert rollout.plan("r") == all_to("r", "b")
