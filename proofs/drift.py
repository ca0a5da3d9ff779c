"""Drift that knows days raises no more false alarms than its alpha says, and still finds a real shift.

    python proofs/drift.py [--sample] [--windows 500] [--seed 1]

A model with five features and a score, none of which changes. Each is made of a part that all rows of a day share,
an autoregression from day to day, and a part of its own in every row: constant within a day, half and half, a tenth.
References of 54 and 90 days; windows of 5 days, of 28, and of every fourth of 28, that begin 30 days later; at three
autocorrelations; judged with the default policy. Counted are windows with the verdict 'Failed', and windows in which any PSI goes beyond
its noise floor, whatever the policy's limit. The negative control is the same window beside the same profile without
its days, so that rows count as independent. Then one feature, half of it shared by the day, moves by one standard
deviation for 28 days.

Exits 1 when false alarms are more frequent than 1.5 times alpha (lower end of the 95 % interval, together or in any
setting), when the control is not: then the simulation could not have seen it, or when the shift is missed too often.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from falaj.lifecycle.evidence.model import Verdict  # noqa: E402  the path comes first
from falaj.lifecycle.monitoring.drift import ALPHA, DAY_US, DriftReport, drift, reference_of, window  # noqa: E402
from falaj.lifecycle.monitoring.policy import MonitorPolicy  # noqa: E402
from falaj.lifecycle.training.model import FeatureProfile, Profile  # noqa: E402
from falaj.lifecycle.training.steps.profile import numbers  # noqa: E402
from falaj.statistics.distances import PARTS_A_DAY  # noqa: E402

SHARED = {"day": 1.0, "half": 0.5, "other": 0.5, "tenth": 0.1, "alone": 0.0, "score": 0.5}
"""How much of the variance the rows of a day share."""
ROWS, GAP, ALLOWED = 60, 30, 1.5 * ALPHA
POWER = {0.0: 0.9, 0.4: 0.6}
"""How often the shift must be found at least, by autocorrelation, in 28 days beside 90."""

Setting = tuple[
    int, tuple[int, int], float
]  # days of the reference; days of the window, how far apart; autocorrelation
SETTINGS: tuple[Setting, ...] = tuple(product((54, 90), ((5, 1), (28, 1), (7, 4)), (0.0, 0.4, 0.7)))
Columns = dict[str, NDArray[np.float64]]


class Look(NamedTuple):
    """What one unchanged window was taken for."""

    failed: bool
    beyond: bool
    control: bool


def days(count: int, again: float, chance: np.random.Generator) -> Columns:
    """Rows of consecutive days, [days, rows] each, in standard deviations; `again` is the autocorrelation of days."""
    found: Columns = {}
    for name, shared in SHARED.items():
        moves = chance.standard_normal(count)
        for day in range(1, count):
            moves[day] = again * moves[day - 1] + np.sqrt(1 - again**2) * moves[day]
        own = chance.standard_normal((count, ROWS))
        found[name] = np.sqrt(shared) * moves[:, None] + np.sqrt(1 - shared) * own
    return found


def profile(columns: Columns) -> Profile:
    """What training writes of such rows."""
    count = len(columns["score"])
    when = np.repeat(np.arange(count), ROWS) * PARTS_A_DAY
    features = {}
    for name, values in columns.items():
        n = numbers(values.ravel(), when)
        features[name] = FeatureProfile(
            "float", 0, None, n.mean, n.deviation, n.quantiles, n.binned, n.spread, n.directions, n.within
        )
    features.pop("score")
    return Profile(len(when), features, (numbers(columns["score"].ravel(), when),), count)


def without_days(of: Profile) -> Profile:
    """The same profile as if nothing were known of days."""
    plain = {name: msgspec.structs.replace(f, spread=(), directions=0.0) for name, f in of.features.items()}
    score = tuple(msgspec.structs.replace(s, spread=(), directions=0.0) for s in of.score)
    return msgspec.structs.replace(of, features=plain, score=score, days=0)


def judged(reference: Profile, live: Columns, apart: int) -> DriftReport:
    """The window of these rows, of days that are so far apart, judged with the default policy."""
    known = reference_of(reference)
    seen = window("sha256:model", known, 0, 10_000 * DAY_US)
    for day in range(len(live["score"])):
        rows: dict[str, list[Any]] = {name: values[day].tolist() for name, values in live.items()}
        seen = seen.add(known, (1_000 + apart * day) * DAY_US, rows, rows["score"])
    return drift(known, seen, MonitorPolicy())


def unchanged(setting: Setting, seed: int) -> Look:
    """One window of unchanged data."""
    frozen, (length, apart), again = setting
    rows = days(frozen + GAP + length * apart, again, np.random.default_rng([seed, frozen, length, int(again * 10)]))
    reference = profile({name: values[:frozen] for name, values in rows.items()})
    live = {name: values[frozen + GAP :: apart] for name, values in rows.items()}
    found, control = judged(reference, live, apart), judged(without_days(reference), live, apart)
    beyond = any(s.psi > s.critical for s in (*found.features, *found.score))
    return Look(found.verdict is Verdict.FAILED, beyond, control.verdict is Verdict.FAILED)


def shifted(again: float, seed: int) -> bool:
    """Whether a shift of one standard deviation in one feature is found in 28 days, beside 90."""
    rows = days(90 + GAP + 28, again, np.random.default_rng([seed, int(again * 10)]))
    live = {name: values[-28:] for name, values in rows.items()}
    live["half"] = live["half"] + 1.0
    found = judged(profile({name: values[:90] for name, values in rows.items()}), live, 1)
    return "half" in found.drifted


def verdict(looks: dict[Setting, list[Look]], found: dict[float, list[bool]]) -> tuple[str, list[str]]:
    """The line about false alarms and power, and what is wrong with it."""
    every = [look for some in looks.values() for look in some]
    told, wrong = [], []
    for what, name in (("failed", "false alarms"), ("beyond", "beyond the floor anywhere")):
        parts = {"all": every, **{str(setting): some for setting, some in looks.items()}}
        rates = {where: _rate([getattr(look, what) for look in some]) for where, some in parts.items()}
        told.append(f"{name} {_said(rates['all'])}, worst {max(r[0] for r in rates.values()):.4f}")
        wrong += [f"too many {name} in {w}" for w, (_, low, _) in rates.items() if low > ALLOWED]
    control = _rate([look.control for look in every])
    told.append(f"rows taken as independent {_said(control)}")
    if control[1] <= ALLOWED:
        wrong.append("the control kept its alpha, so this proof sees nothing")
    for again, hits in found.items():
        rate = _rate(hits)
        told.append(f"one deviation in 28 days at {again:g}: {rate[0]:.2f}")
        if rate[2] < POWER.get(again, 0.0):
            wrong.append(f"the shift is found too rarely at {again:g}")
    return f"nominal {ALPHA:g}, {len(every):,} unchanged windows: {'; '.join(told)}", wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="seconds instead of minutes: fewer windows and settings")
    parser.add_argument("--windows", type=int, default=500, help="of unchanged data, in each setting")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    if given.sample:
        return _prove(map, given.seed, ((54, (5, 1), 0.4), (54, (28, 1), 0.7)), 25)
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        return _prove(partial(pool.map, chunksize=10), given.seed, SETTINGS, given.windows)


def _prove(run: Callable[..., Iterator[Any]], seed: int, settings: tuple[Setting, ...], windows: int) -> int:
    seeds = range(seed * 1_000_000, seed * 1_000_000 + windows)
    looks = {setting: list(run(partial(unchanged, setting), seeds)) for setting in settings}
    found = {again: list(run(partial(shifted, again), seeds[:200])) for again in (0.0, 0.4, 0.7)}
    line, wrong = verdict(looks, found)
    print(line + (f"; BROKEN: {'; '.join(wrong)}" if wrong else ""))
    return 1 if wrong else 0


def _rate(hits: list[bool]) -> tuple[float, float, float]:
    """The share of hits with its exact 95 % interval (Clopper and Pearson, 1934)."""
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci()
    return sum(hits) / len(hits), float(interval.low), float(interval.high)


def _said(rate: tuple[float, float, float]) -> str:
    return f"{rate[0]:.4f} [{rate[1]:.4f}, {rate[2]:.4f}]"


if __name__ == "__main__":
    sys.exit(main())
