"""Compare a challenger with the stable version while both run, looking as often as one likes.

A test made for one look, taken after every observation, is wrong far more often than its alpha says.
Here the evidence is the wealth of a gambler who bets against a claim: if the claim is true, wealth is a
nonnegative supermartingale that starts at 1, so it *ever* reaches 1/alpha with probability at most alpha
(Ville, 1939). Stopping early, late, or because of what was seen changes nothing.

    d = challenger's value − mean of `group` stable values      values in [0, 1], paired as they arrive
    worse   bets against 'the challenger's mean is at most `margin` above':   × (1 + λ·(d − margin))
    fine    bets against 'it is `margin` or more above':                      × (1 − λ·(d − margin))

Each is a fixed mixture over λ of bets on a bounded mean (Waudby-Smith and Ramdas, Estimating means of bounded
random variables by betting, JRSSB 2024; mixtures: Robbins, 1970; Cover, 1991). Both tests are one-sided: higher
values are worse. A bet uses no variance estimate and no normal approximation, and the numbers add up
across workers because every λ is fixed beforehand.

Holds when who gets a request does not depend on how it will go (random, sticky by key, as traffic plans
do it), and each pair's expected difference is on the claimed side whatever came before. The base rate may
wander with the hour, for both arms together, and the split may change. Requests of one sticky key that
rise and fall together make the evidence look stronger than it is: let one key count once where that matters.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from falaj.kernel.errors import Invalid

BETS = tuple(0.9 / 2**k for k in range(8))
"""λ as a part of the largest that cannot go bankrupt: from rare errors (large) to small shifts of noisy scores (small)."""
WEIGHTS = tuple(1 / (k + 1) / sum(1 / (i + 1) for i in range(len(BETS))) for k in range(len(BETS)))
"""How the first unit of wealth is spread over the bets: more on the large ones, which decide early."""
WAITING = 32
"""Values of one arm that wait for the other; older ones are let go, which no value has a say in."""

_RICH = 1e300  # far beyond any 1/alpha; infinity would travel as null


class Arm(enum.StrEnum):
    """Whose value it is."""

    STABLE = "stable"
    CHALLENGER = "challenger"


class Outcome(enum.StrEnum):
    """What is known of 'the challenger's mean is at most `margin` above that of the stable version'."""

    BETTER_OR_EQUAL = "better_or_equal"
    WORSE = "worse"
    UNDECIDED = "undecided"


class Tally(msgspec.Struct, frozen=True):
    """How many values, and their sum."""

    n: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float | None:
        """Their mean; None of no values."""
        return self.total / self.n if self.n else None

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.n + other.n, self.total + other.total)


class Comparison(msgspec.Struct, frozen=True):
    """The state of a comparison: some numbers, whatever the number of observations. Start with `comparison`.

    `worse` and `fine` hold the wealth of each bet. `group` is how many stable values make one side
    of a pair: set it near the ratio of the traffic (19 for a canary of 5 %) to use them all; any choice is valid.
    """

    margin: float
    group: int = 1
    worse: tuple[float, ...] = WEIGHTS
    fine: tuple[float, ...] = WEIGHTS
    pairs: int = 0
    stable: Tally = Tally()
    challenger: Tally = Tally()
    started: Tally = Tally()  # a group that is not full yet
    waiting_stable: tuple[float, ...] = ()
    waiting_challenger: tuple[float, ...] = ()

    @property
    def against_equal(self) -> float:
        """Evidence that the challenger is worse: an e-value, whose inverse is a p-value at any time."""
        return sum(self.worse)

    @property
    def against_worse(self) -> float:
        """Evidence that the challenger is better, equal, or worse by less than the margin."""
        return sum(self.fine)


def comparison(margin: float, group: int = 1) -> Comparison:
    """Nothing seen yet. Raises `Invalid` unless −1 < margin < 1 and group ≥ 1."""
    if not -1 < margin < 1 or group < 1:
        raise Invalid(
            f"a comparison cannot have the margin {margin:g} and groups of {group}",
            hint="a margin is a difference of shares, such as 0.02; a group has one value or more",
            code="bad_comparison",
        )
    return Comparison(margin, group)


def observe(state: Comparison, arm: Arm, value: float) -> Comparison:
    """The state after one more value in [0, 1]; 1 is worst. Raises `Invalid` for any other value."""
    return observe_all(state, ((arm, value),))


def observe_all(state: Comparison, observations: Iterable[tuple[Arm, float]]) -> Comparison:
    """The state after more values, in the order in which they came. Raises `Invalid` for one outside [0, 1]."""
    up, down = _bets(state.margin)
    margin, group = state.margin, state.group
    worse, fine = list(state.worse), list(state.fine)
    old, new = list(state.waiting_stable), list(state.waiting_challenger)
    stable, stable_sum = state.stable.n, state.stable.total
    challenger, challenger_sum = state.challenger.n, state.challenger.total
    started, started_sum, pairs = state.started.n, state.started.total, state.pairs
    for arm, value in observations:
        if not 0 <= value <= 1:
            raise _outside(value)
        if arm == Arm.CHALLENGER:
            challenger, challenger_sum = challenger + 1, challenger_sum + value
            new.append(value)
        else:
            stable, stable_sum = stable + 1, stable_sum + value
            started, started_sum = started + 1, started_sum + value
            if started >= group:
                old.append(started_sum / started)
                started, started_sum = 0, 0.0
        while old and new:
            excess = new.pop(0) - old.pop(0) - margin
            worse = [w * (1 + bet * excess) for w, bet in zip(worse, up, strict=True)]
            fine = [w * (1 - bet * excess) for w, bet in zip(fine, down, strict=True)]
            pairs += 1
        del old[:-WAITING], new[:-WAITING]
    return Comparison(
        margin,
        group,
        _bounded(worse),
        _bounded(fine),
        pairs,
        Tally(stable, stable_sum),
        Tally(challenger, challenger_sum),
        Tally(started, started_sum),
        tuple(old),
        tuple(new),
    )


def merge(a: Comparison, b: Comparison) -> Comparison:
    """Both workers' evidence on the same question. Raises `Invalid` when margin or group differ.

    Wealth multiplies, bet by bet. What waits in either goes on waiting.
    """
    if (a.margin, a.group) != (b.margin, b.group):
        raise Invalid(
            "two comparisons with different margins or groups do not merge",
            hint="start every worker's comparison with the same margin and group",
            code="other_comparison",
        )
    return Comparison(
        a.margin,
        a.group,
        _bounded([x * y / w for x, y, w in zip(a.worse, b.worse, WEIGHTS, strict=True)]),
        _bounded([x * y / w for x, y, w in zip(a.fine, b.fine, WEIGHTS, strict=True)]),
        a.pairs + b.pairs,
        a.stable + b.stable,
        a.challenger + b.challenger,
        a.started + b.started,
        (a.waiting_stable + b.waiting_stable)[-WAITING:],
        (a.waiting_challenger + b.waiting_challenger)[-WAITING:],
    )


def compare(state: Comparison, alpha: float, metrics: int = 1) -> Outcome:
    """What is known now. `alpha` bounds each error over *all* looks together.

    Of `metrics` comparisons that abort when any is worse, each may use alpha/metrics (union bound). That all
    are fine is claimed only when each is, so there each may use alpha whole (intersection–union test,
    Berger, 1982).
    """
    if state.against_equal >= metrics / alpha:
        return Outcome.WORSE
    return Outcome.BETTER_OR_EQUAL if state.against_worse >= 1 / alpha else Outcome.UNDECIDED


@lru_cache(maxsize=256)
def _bets(margin: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """λ upwards and downwards: d − margin lies in [−1 − margin, 1 − margin]."""
    return tuple(b / (1 + margin) for b in BETS), tuple(b / (1 - margin) for b in BETS)


def _bounded(wealth: list[float]) -> tuple[float, ...]:
    """No bet above _RICH; less wealth is always allowed."""
    return tuple(min(w, _RICH) for w in wealth)


def _outside(value: float) -> Invalid:
    return Invalid(
        f"{value!r} is no value between 0 and 1",
        hint="compare shares, 0/1 outcomes, or scores ranked by the reference",
        code="not_a_share",
    )
