"""Traffic plans: which version of a model gets which share. Frozen types and pure rules."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid

PLAN_SET = Action("rollout.set_plan", "system", "Model", "decide which version gets which share of the traffic")
ACTIONS = (PLAN_SET,)

ROLES = ("stable", "canary", "shadow")
MAX_WINDOW = 100_000


class Route(msgspec.Struct, frozen=True):
    """A version and its weight in percent: its share of the answers or, for a shadow, of the requests mirrored to it."""

    digest: str
    weight: int
    role: str = "stable"  # stable | canary | shadow


class Guard(msgspec.Struct, frozen=True):
    """What a challenger may not exceed. The data plane takes its traffic away by itself when it does.

    Judged by each worker on the last `window` requests that the plan sent to the challenger (at least
    `min_count`), never on requests that name a version. A limit of None is not judged; a share of
    exactly the limit is fine.

    - `max_error_share`: it raised, or refused a request that the stable version took.
    - `max_non_finite_share`: its answer was not a finite number.
    - `max_slow_share`: it took longer than `max_latency_ms`, waiting for its turn included. A canary that
      has not answered by then is not waited for: the stable version answers instead.
    - `max_score_shift`: the Kolmogorov–Smirnov distance, from 0 to 1, between its scores and the stable
      version's, each taken beside the other in time, less what chance explains (see `certain_shift`).
      It sees any change of the scores' distribution, whatever their scale, and needs no label. Routing
      keys that are few and unlike can make an equal model look shifted: then judge on a shadow.

    A trip is remembered for the version and the generation of the plan, and holds in later generations
    too, until one forgives it: `forgives` is a generation, and trips up to it no longer hold (`trip_holds`).
    """

    max_error_share: float | None = None
    max_non_finite_share: float | None = None
    max_latency_ms: float | None = None
    max_slow_share: float | None = None
    max_score_shift: float | None = None
    min_count: int = 50
    window: int = 500  # at least min_count is looked at
    forgives: int = 0


class TrafficPlan(msgspec.Struct, frozen=True):
    """How one model's traffic is split. The guard holds for each of its challengers, canary or shadow."""

    model: str
    routes: tuple[Route, ...]
    guard: Guard | None = None


def all_to(model: str, digest: str) -> TrafficPlan:
    """The plan that sends everything to one version."""
    return TrafficPlan(model, (Route(digest, 100),))


def withdrawn(model: str) -> TrafficPlan:
    """The plan of a model that takes no traffic."""
    return TrafficPlan(model, ())


def champion(plan: TrafficPlan) -> str:
    """The version that challengers are compared with: the stable one, or what answers most; '' when none does."""
    answering = [r for r in plan.routes if r.role != "shadow"]
    return max(answering, key=lambda r: (r.role == "stable", r.weight)).digest if answering else ""


def standing(plan: TrafficPlan | None) -> tuple[tuple[str, str], ...]:
    """Who has a part in a model's traffic, and in which role; how much of it does not matter."""
    return tuple(sorted((r.digest, r.role) for r in plan.routes)) if plan else ()


def check_plan(plan: TrafficPlan) -> TrafficPlan:
    """Return the plan if it is withdrawn, or can be followed; raise `Invalid` otherwise.

    The weights of stable and canary versions sum to 100, a shadow's is 0 to 100, and beside a
    challenger there is exactly one stable version: where its traffic goes when it fails.
    """
    if not plan.routes:
        return plan
    if any(r.role not in ROLES for r in plan.routes):
        raise Invalid(
            f"a role in the plan of {plan.model} is unknown", hint=f"the roles are {', '.join(ROLES)}", code="bad_plan"
        )
    weights = [r.weight for r in plan.routes if r.role != "shadow"]
    if any(w < 0 for w in weights) or sum(weights) != 100:
        raise Invalid(
            f"the weights of {plan.model} sum to {sum(weights)}, not 100",
            hint="give every version a share ≥ 0, 100 in all",
            code="bad_plan",
        )
    if any(not 0 <= r.weight <= 100 for r in plan.routes):
        raise Invalid(
            f"a shadow of {plan.model} mirrors no percentage",
            hint="a shadow's weight is the share mirrored, 0 to 100",
            code="bad_plan",
        )
    if len({r.digest for r in plan.routes}) != len(plan.routes):
        raise Invalid(
            f"a version stands twice in the plan of {plan.model}", hint="name each version once", code="bad_plan"
        )
    stable = sum(r.role == "stable" for r in plan.routes)
    if stable != 1 and stable != len(plan.routes):
        raise Invalid(
            f"{stable} stable versions stand beside a challenger of {plan.model}",
            hint="name exactly one: it answers when the challenger fails",
            code="bad_plan",
        )
    if plan.guard is not None:
        check_guard(plan.guard)
    return plan


def check_guard(guard: Guard) -> Guard:
    """Return the guard if each limit can be judged; raise `Invalid` otherwise."""
    shares = (guard.max_error_share, guard.max_non_finite_share, guard.max_slow_share, guard.max_score_shift)
    if any(s is not None and not 0 <= s <= 1 for s in shares):
        raise Invalid(
            "a share in a guard is not between 0 and 1",
            hint="0.05 is five percent; leave out what is fine",
            code="bad_guard",
        )
    latency = guard.max_latency_ms
    if latency is not None and not (latency > 0 and math.isfinite(latency)):
        raise Invalid("max_latency_ms of a guard is no time", hint="give milliseconds, more than 0", code="bad_guard")
    if (guard.max_slow_share is None) != (latency is None):
        raise Invalid(
            "a guard's max_slow_share and max_latency_ms go together", hint="give both or neither", code="bad_guard"
        )
    if not (1 <= guard.min_count <= MAX_WINDOW and 1 <= guard.window <= MAX_WINDOW) or guard.forgives < 0:
        raise Invalid(
            "min_count or window of a guard is out of range",
            hint=f"1 to {MAX_WINDOW}; forgives is a generation",
            code="bad_guard",
        )
    return guard


def trip_holds(tripped: int, generation: int, guard: Guard | None) -> bool:
    """Whether a trip in generation `tripped` keeps a challenger from traffic in `generation`.

    It holds for good, unless a later generation's guard forgives it in so many words.
    """
    return not (guard is not None and tripped < generation and tripped <= guard.forgives)


def share(scope: str, key: str) -> float:
    """Where a key lies in [0, 1): the first 53 bits of BLAKE2b-64(scope, 0x00, key) as a fraction.

    The scope of routing is the model's name. The key is the caller's `routing_key` or, without one, the
    id that the next prediction gets when the request is routed.
    """
    digest = hashlib.blake2b(f"{scope}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def split(routes: Sequence[Route]) -> tuple[Route, ...]:
    """The routes that answer, in the order in which they divide [0, 100): canaries first.

    So a canary whose weight grows keeps every key that it had. With several, let the last one grow.
    """
    canaries = [r for r in routes if r.role == "canary"]
    return (*canaries, *(r for r in routes if r.role == "stable"))


def place(weights: Sequence[int], point: float) -> int:
    """The index of the weight that `point` (0 ≤ point < 100) falls on, laid end to end from 0; −1 beyond them all."""
    for index, weight in enumerate(weights):
        if point < weight:
            return index
        point -= weight
    return -1


def certain_shift(distance: float, pairs: int) -> float:
    """The part of a distance between two samples of `pairs` scores each that chance does not explain.

    distance − √(ln(e / 10⁻⁹) / pairs). By the two-sample Dvoretzky–Kiefer–Wolfowitz inequality for samples
    of one size (Wei and Dudley, 2012) two equal distributions exceed 0 less than once in 10⁹ looks, so
    one may look as often as one likes.
    """
    return distance - math.sqrt((1 + math.log(1e9)) / pairs) if pairs else 0.0
