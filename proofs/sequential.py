"""Looking after every request does not raise the error rate of the rollout analysis above its alpha.

    python proofs/sequential.py [--sample] [--replications 2000] [--seed 1]

Two versions that are the same (A/A, margin 0) are compared after every single observation, up to 5,000 a version:
errors at three base rates, scores, and errors whose rate wanders with the hour while the challenger gets a tenth
of the traffic. At the margin both claims are tested where they are hardest, so 'worse' and 'fine' each count as a
false verdict. The negative control is the test that one would do once, a z-test of two shares, done after every
observation from 30 a version on. Then shifts of 2, 5 and 10 percentage points from a rate of 10 % (margin 0, stop
at 'worse'), and no shift with a margin of 2 points (stop at 'better or equal').

Exits 1 when a false verdict is more frequent than alpha (lower end of the 95 % interval, together or in any
setting), or when the control is not: then the simulation could not have seen it.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from falaj.statistics.sequential import Arm, Outcome, compare, comparison, observe  # noqa: E402  the path comes first

ALPHA, LONGEST, LEAST, Z = 0.05, 5000, 30, 1.6449
SHIFTS = (0.02, 0.05, 0.10)
SETTINGS = ("errors 1 %", "errors 10 %", "errors 50 %", "scores", "wandering")
RATES = {"errors 1 %": 0.01, "errors 10 %": 0.10, "errors 50 %": 0.50}


class Looks(NamedTuple):
    """What one replication came to, looked at after every observation."""

    worse: bool
    fine: bool
    naive: bool


class Rate(NamedTuple):
    """So many of so many, with the exact 95 % interval (Clopper and Pearson, 1934)."""

    hits: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        low = 0.0 if not self.hits else _solve(lambda p: 1 - _at_most(self.hits - 1, self.of, p), 0.025)
        high = 1.0 if self.hits == self.of else _solve(lambda p: -_at_most(self.hits, self.of, p), -0.025)
        return low, high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.hits / self.of:.4f} [{low:.4f}, {high:.4f}]"


def stream(setting: str, longest: int, chance: random.Random) -> Iterator[tuple[Arm, float]]:
    """Observations of two equal versions until each has `longest`, or the busier one does."""
    share = 0.1 if setting == "wandering" else 0.5
    seen = {Arm.STABLE: 0, Arm.CHALLENGER: 0}
    while max(seen.values()) < longest:
        arm = Arm.CHALLENGER if chance.random() < share else Arm.STABLE
        seen[arm] += 1
        if setting == "scores":
            yield arm, chance.random()
        else:
            hour = math.sin(sum(seen.values()) / 500)
            yield arm, float(chance.random() < RATES.get(setting, 0.1 + 0.09 * hour))


def alike(setting: str, longest: int, seed: int) -> Looks:
    """One A/A comparison, and the naive test of the same observations."""
    state = comparison(0.0, group=9 if setting == "wandering" else 1)
    worse = fine = naive = False
    n, hits = [0, 0], [0.0, 0.0]
    for arm, value in stream(setting, longest, random.Random(f"{setting} {seed}")):
        state = observe(state, arm, value)
        worse = worse or compare(state, ALPHA) is Outcome.WORSE
        fine = fine or state.against_worse >= 1 / ALPHA
        side = arm is Arm.CHALLENGER
        n[side] += 1
        hits[side] += value
        naive = naive or (setting in RATES and min(n) >= LEAST and _z(n, hits) > Z)
    return Looks(worse, fine, naive)


def decided(base: float, shift: float, margin: float, longest: int, seed: int) -> int:
    """Observations a version until the verdict that is true; 0 when it has not come by `longest`."""
    chance, state = random.Random(f"{base} {shift} {seed}"), comparison(margin)
    wanted = Outcome.WORSE if shift > margin else Outcome.BETTER_OR_EQUAL
    for i in range(2 * longest):
        arm = Arm.CHALLENGER if i % 2 else Arm.STABLE
        state = observe(state, arm, float(chance.random() < base + (shift if i % 2 else 0)))
        if compare(state, ALPHA) is wanted:
            return i // 2 + 1
    return 0


def verdict(looks: dict[str, list[Looks]]) -> tuple[str, list[str]]:
    """The line about false verdicts, and what is wrong with it."""
    wrong: list[str] = []
    every = [look for found in looks.values() for look in found]
    told = []
    for claim in ("worse", "fine"):
        rate = Rate(sum(getattr(look, claim) for look in every), len(every))
        told.append(f"false '{claim}' {rate}")
        parts = {name: Rate(sum(getattr(look, claim) for look in found), len(found)) for name, found in looks.items()}
        over = [name for name, r in {"all": rate, **parts}.items() if r.interval[0] > ALPHA]
        wrong += [f"'{claim}' is false more often than {ALPHA} in {name}" for name in over]
    binary = [look for name, found in looks.items() if name in RATES for look in found]
    control = Rate(sum(look.naive for look in binary), len(binary))
    if control.interval[0] <= ALPHA:
        wrong.append("the naive test under peeking kept its alpha, so this proof sees nothing")
    return f"nominal {ALPHA}; {'; '.join(told)} of {len(every):,} A/A; naive z-test {control}", wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="seconds instead of minutes: fewer and shorter runs")
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    each, longest, tries = -(-given.replications // len(SETTINGS)), LONGEST, 200
    if given.sample:
        each, longest, tries = 20, 600, 5
    run: Callable[..., Iterator[object]] = map
    if given.sample:
        return _prove(run, given.seed, each, longest, tries)
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        return _prove(partial(pool.map, chunksize=10), given.seed, each, longest, tries)


def _prove(run: Callable[..., Iterator[object]], seed: int, each: int, longest: int, tries: int) -> int:
    seeds = range(seed * 1_000_000, seed * 1_000_000 + max(each, tries))
    looks = {s: [x for x in run(partial(alike, s, longest), seeds[:each]) if isinstance(x, Looks)] for s in SETTINGS}
    line, wrong = verdict(looks)
    for base, shift, margin in (*((0.10, shift, 0.0) for shift in SHIFTS), (0.01, 0.0, 0.02)):
        found = run(partial(decided, base, shift, margin, longest), seeds[:tries])
        when = [n for n in found if isinstance(n, int)]
        reached = sorted(n or math.inf for n in when)
        median = statistics.median_low(reached)
        what = f"+{shift:.0%} at {base:.0%}" if shift else f"equal at {base:.0%} within {margin:.0%}"
        line += f"; {what}: power {sum(n > 0 for n in when) / len(when):.2f}, median n {median:,.0f}"
    print(line + (f"; BROKEN: {'; '.join(wrong)}" if wrong else ""))
    return 1 if wrong else 0


def _z(n: list[int], hits: list[float]) -> float:
    pooled = sum(hits) / sum(n)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1]))
    return (hits[1] / n[1] - hits[0] / n[0]) / error if error else 0.0


def _at_most(k: int, n: int, p: float) -> float:
    """P(X ≤ k) of a binomial."""
    if not 0 < p < 1:
        return float(p <= 0)
    logs = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def _solve(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


if __name__ == "__main__":
    sys.exit(main())
