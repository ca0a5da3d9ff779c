"""Traffic plans: which version of a model gets which share. Frozen types and pure rules."""

from __future__ import annotations

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid

PLAN_SET = Action("rollout.set_plan", "system", "Model", "decide which version gets which share of the traffic")
ACTIONS = (PLAN_SET,)


class Route(msgspec.Struct, frozen=True):
    """A version and its share of the traffic, in percent."""

    digest: str
    weight: int
    role: str = "stable"  # stable | canary | shadow


class TrafficPlan(msgspec.Struct, frozen=True):
    """How one model's traffic is split."""

    model: str
    routes: tuple[Route, ...]


def all_to(model: str, digest: str) -> TrafficPlan:
    """The plan that sends everything to one version."""
    return TrafficPlan(model, (Route(digest, 100),))


def withdrawn(model: str) -> TrafficPlan:
    """The plan of a model that takes no traffic."""
    return TrafficPlan(model, ())


def check_plan(plan: TrafficPlan) -> TrafficPlan:
    """Return the plan if it is withdrawn, or its weights sum to 100; raise `Invalid` otherwise."""
    if not plan.routes:
        return plan
    weights = [r.weight for r in plan.routes if r.role != "shadow"]
    if any(w < 0 for w in weights) or sum(weights) != 100:
        raise Invalid(
            f"the weights of {plan.model} sum to {sum(weights)}, not 100",
            hint="give every version a share ≥ 0, 100 in all",
        )
    if len({r.digest for r in plan.routes}) != len(plan.routes):
        raise Invalid(f"a version stands twice in the plan of {plan.model}", hint="name each version once")
    return plan
