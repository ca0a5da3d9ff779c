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
from falaj.lifecycle.rollout.model import MAX_WINDOW

ROLLOUT_READ = Action("rollout.read", "read", "Model", "see a rollout")
ROLLOUT_START = Action("rollout.start", "risk", "Model", "give a version traffic in steps")
ROLLOUT_STEER = Action("rollout.steer", "risk", "Model", "promote or abort a rollout by hand, or roll back")
ROLLOUT_STEP = Action("rollout.step", "system", "Model", "move a rollout on, or end it")
ACTIONS = (ROLLOUT_READ, ROLLOUT_START, ROLLOUT_STEER, ROLLOUT_STEP)

MOST_REQUESTS = 10_000_000
"""What a step may ask for at the most."""


class Limits(msgspec.Struct, frozen=True):
    """What a challenger may not exceed. Shares are of requests, from 0 to 1.

    `margin` is how much worse than the stable version a share may be; `alpha` the chance, over the
    whole rollout and all looks, to abort a challenger that is no worse; it is shared among all that is
    compared. The data plane's own guard uses `errors`, `slow`, `latency_ms` and `shift` at once, after
    `least` requests.

    `loss` is how much worse the challenger may be on labels that come while the rollout runs: a difference of
    mean losses between 0 and 1, as `monitoring.losses` counts them; None: labels are not looked at.
    """

    errors: float = 0.05
    latency_ms: float = 250.0
    slow: float = 0.20
    shift: float = 0.25
    margin: float = 0.02
    alpha: float = 0.05
    least: int = 50
    loss: float | None = 0.05


class Strategy(msgspec.Struct, frozen=True):
    """`shadow`: requests to mirror before any is answered (0: no shadow). `steps`: percent of the traffic, ascending.

    `requests`: how many a step needs of the challenger before it may pass. `labels`: how many of the challenger's
    answers of a canary step must have their label by then, and its loss be shown to be within the limit; with 0 no
    step waits for labels, and those that come can only end the rollout.
    """

    shadow: int = 0
    steps: tuple[int, ...] = (10, 50)
    requests: int = 200
    limits: Limits = Limits()
    labels: int = 0


class Rollout(msgspec.Struct, frozen=True):
    """One challenger on its way. `step` is the index of the canary step; `order` what a person asked for.

    `stage` is shadow or canary while it is on its way, and at its end promoted or aborted.

    `forgives` is the newest generation from before it: a challenger that the data plane's guard stopped then is
    given another try now.
    """

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
    forgives: int = 0

    @property
    def weight(self) -> int:
        """The challenger's share of the answers now, in percent."""
        if self.stage == "canary":
            return self.strategy.steps[self.step]
        return 100 if self.stage == "promoted" else 0

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.stage in ("promoted", "aborted")


class Analysis(msgspec.Struct, frozen=True):
    """One judging of a challenger: how it did, on how many requests since the step began, how many of them labelled."""

    verdict: Verdict
    reason: str
    requests: int
    detail: dict[str, float] = {}
    labels: int = 0


def check_strategy(strategy: Strategy) -> Strategy:
    """Return the strategy if it can be followed; raise `Invalid` otherwise."""
    steps = strategy.steps
    ascending = all(a < b for a, b in pairwise(steps))
    if not steps or not ascending or not all(1 <= s <= 99 for s in steps):
        raise Invalid(
            "the steps of a canary ascend from 1 to 99 percent",
            hint="such as fj.Canary(steps=[5, 25, 50])",
            code="bad_canary_steps",
        )
    if not (1 <= strategy.requests <= MOST_REQUESTS and 0 <= strategy.shadow <= MOST_REQUESTS):
        raise Invalid(
            f"a step needs 1 to {MOST_REQUESTS:,} requests, a shadow 0 to as many",
            hint="such as fj.Canary(steps=[10, 50], requests=200)",
            code="bad_strategy",
        )
    check_limits(strategy.limits)
    if not 0 <= strategy.labels <= MOST_REQUESTS or (strategy.labels and strategy.limits.loss is None):
        raise Invalid(
            "a step cannot wait for these labels",
            hint="give labels=100, say, and fj.Limits(loss=0.05) to judge them by",
            code="bad_strategy",
        )
    return strategy


def check_limits(limits: Limits) -> Limits:
    """Return the limits if each can be judged; raise `Invalid` otherwise."""
    margins = (limits.shift, limits.margin, 0.0 if limits.loss is None else limits.loss)
    if not all(0 <= s <= 1 for s in (limits.errors, limits.slow)) or not all(0 <= m < 1 for m in margins):
        raise Invalid(
            "a limit of a rollout is no share",
            hint="0.05 is five percent; errors and slow are at most 1, margin, shift and loss less than 1",
            code="bad_limits",
        )
    fits = 1 <= limits.least <= MAX_WINDOW  # the data plane's guard looks back no further
    if not (fits and 0 < limits.alpha < 1 and 0 < limits.latency_ms < float("inf")):
        raise Invalid(
            "alpha, latency_ms or least of a rollout's limits is out of range",
            hint=f"such as fj.Limits(alpha=0.05, latency_ms=250, least=50); least is at most {MAX_WINDOW:,}",
            code="bad_limits",
        )
    return limits


def first_stage(strategy: Strategy) -> tuple[str, int]:
    """Where a rollout begins: (stage, step)."""
    return ("shadow", 0) if strategy.shadow else ("canary", 0)


def decide(rollout: Rollout, analysis: Analysis) -> tuple[str, int] | None:
    """Where the rollout goes now: (stage, step), or None to stay and look again.

    A person's order comes first; then a failed analysis aborts; a step passes when its analysis is
    Successful on enough requests, and on enough labels where the strategy asks for some. Inconclusive and Error
    never pass, however long it takes.
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
    if rollout.stage == "shadow":  # nobody got its answers, so nobody sends their labels
        return "canary", 0
    if analysis.labels < rollout.strategy.labels:
        return None
    if rollout.step + 1 < len(rollout.strategy.steps):
        return "canary", rollout.step + 1
    return "promoted", rollout.step
