"""How a challenger is given traffic, and what happens next: frozen types and pure rules.

shadow → canary step by step → promoted
     ↘ any failed analysis, a tripped guard or a person: aborted, all traffic back to the stable version
"""

from __future__ import annotations

from itertools import pairwise

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import Verdict

ROLLOUT_READ = Action("rollout.read", "read", "Model", "see a rollout")
ROLLOUT_START = Action("rollout.start", "risk", "Model", "give a version traffic in steps")
ROLLOUT_STEER = Action("rollout.steer", "risk", "Model", "promote or abort a rollout by hand, or roll back")
ROLLOUT_STEP = Action("rollout.step", "system", "Model", "move a rollout on, or end it")
ACTIONS = (ROLLOUT_READ, ROLLOUT_START, ROLLOUT_STEER, ROLLOUT_STEP)

STAGES_OF_A_ROLLOUT = ("shadow", "canary", "promoted", "aborted")


class Limits(msgspec.Struct, frozen=True):
    """What a challenger may not exceed. Shares are of requests, from 0 to 1.

    `margin` is how much worse than the stable version a share may be; `alpha` the chance, over the
    whole rollout and all looks, to abort a challenger that is no worse. The data plane's own guard
    uses `errors`, `slow`, `latency_ms` and `shift` at once, after `least` requests.
    """

    errors: float = 0.05
    latency_ms: float = 250.0
    slow: float = 0.20
    shift: float = 0.25
    margin: float = 0.02
    alpha: float = 0.05
    least: int = 50


class Strategy(msgspec.Struct, frozen=True):
    """`shadow`: requests to mirror before any is answered (0: no shadow). `steps`: percent of the traffic, ascending.

    `requests`: how many a step needs of the challenger before it may pass.
    """

    shadow: int = 0
    steps: tuple[int, ...] = (10, 50)
    requests: int = 200
    limits: Limits = Limits()


class Rollout(msgspec.Struct, frozen=True):
    """One challenger on its way. `step` is the index of the canary step; `order` what a person asked for."""

    id: str
    model: str
    challenger: str  # digest
    stable: str  # digest
    strategy: Strategy
    stage: str
    step: int
    generation: int  # of the bundle that the present step began with
    actor: str
    reason: str
    started_at: str
    updated_at: str
    order: str = ""  # "" | promote | abort

    @property
    def weight(self) -> int:
        """The challenger's share of the answers now, in percent."""
        if self.stage == "canary":
            return self.strategy.steps[self.step]
        return 100 if self.stage == "promoted" else 0

    @property
    def ended(self) -> bool:
        return self.stage in ("promoted", "aborted")


class Analysis(msgspec.Struct, frozen=True):
    """One judging of a challenger: how it did, on how many requests, since the step began."""

    verdict: Verdict
    reason: str
    requests: int
    detail: dict[str, float] = {}


def check_strategy(strategy: Strategy) -> Strategy:
    """Return the strategy if it can be followed; raise `Invalid` otherwise."""
    steps = strategy.steps
    ascending = all(a < b for a, b in pairwise(steps))
    if not steps or not ascending or not all(1 <= s <= 99 for s in steps):
        raise Invalid("the steps of a canary ascend from 1 to 99 percent", hint="such as fj.Canary(steps=[5, 25, 50])")
    if strategy.requests < 1 or strategy.shadow < 0:
        raise Invalid("a step needs at least one request", hint="such as fj.Canary(steps=[10, 50], requests=200)")
    return strategy


def first_stage(strategy: Strategy) -> tuple[str, int]:
    """Where a rollout begins: (stage, step)."""
    return ("shadow", 0) if strategy.shadow else ("canary", 0)


def decide(rollout: Rollout, analysis: Analysis) -> tuple[str, int] | None:
    """Where the rollout goes now: (stage, step), or None to stay and look again.

    A person's order comes first; then a failed analysis aborts; a step passes when its analysis is
    Successful on enough requests. Inconclusive and Error never pass, however long it takes.
    """
    if rollout.order == "abort":
        return "aborted", rollout.step
    if rollout.order == "promote":
        return "promoted", rollout.step
    if analysis.verdict is Verdict.FAILED:
        return "aborted", rollout.step
    needed = rollout.strategy.shadow if rollout.stage == "shadow" else rollout.strategy.requests
    if analysis.verdict is not Verdict.SUCCESSFUL or analysis.requests < needed:
        return None
    if rollout.stage == "shadow":
        return "canary", 0
    if rollout.step + 1 < len(rollout.strategy.steps):
        return "canary", rollout.step + 1
    return "promoted", rollout.step
