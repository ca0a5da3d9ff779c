"""How far apart two distributions over the same bins are, and how far chance alone would put them.

p is the reference, q the current one, both as shares of the same bins. State bins, edges and the zero
rule with every PSI: bins and edges are those of `bins`, the zero rule is `half_count`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import msgspec

Shares = Sequence[float]


LAGS = 8
"""How many lags a spread has: days that are 0 … 7 apart, so that a weekday meets itself."""


def half_count(n: float, m: float) -> float:
    """The zero rule: no share is taken to be less than half an observation of the smaller sample.

    A share of 0 says 'less than one in n', not 'never'. The half is the continuity correction of Haldane
    (1956) and Anscombe (1956), applied as a floor instead of a sum, so that equal shares stay at distance 0
    whatever the two sample sizes are.
    """
    return 0.5 / min(n, m)


def psi(p: Shares, q: Shares, floor: float) -> float:
    """Population stability index: Σ (p−q)·ln(p/q), with every share at least `floor` > 0.

    0 … ∞ (in practice < 2·ln(1/floor)); 0 exactly when the shares are equal, or both are below the floor,
    in every bin; symmetric. Folklore: < 0.1 steady, > 0.25 shifted; see `noise` for what samples
    of this size do by chance. It is the divergence of Jeffreys (1946); as PSI: Siddiqi, Credit Risk
    Scorecards (2006).
    """
    total = 0.0
    for x, y in zip(p, q, strict=True):
        a, b = max(x, floor), max(y, floor)
        total += (a - b) * math.log(a / b)
    return total


def js_distance(p: Shares, q: Shares) -> float:
    """Jensen–Shannon distance: √(½·KL(p‖m) + ½·KL(q‖m)), m = (p+q)/2, logarithms to base 2.

    0 … 1: 0 for equal shares, 1 when no bin holds both; a metric (Endres and Schindelin, 2003). It needs
    no zero rule.
    """
    total = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        for x in (a, b):
            if x > 0:
                total += x * math.log2(x / middle) / 2
    return math.sqrt(min(max(total, 0.0), 1.0))


def ks_distance(p: Shares, q: Shares) -> float:
    """Kolmogorov–Smirnov distance over ordered bins: max |P(x ≤ edge) − Q(x ≤ edge)|.

    0 … 1. A lower bound of the exact distance, which looks between the edges as well. Shares are first
    divided by their sum, so leave the bin of nulls out; when one side holds nothing the distance is 1.
    """
    left, right = sum(p), sum(q)
    if not left or not right:
        return 0.0 if left == right else 1.0
    steps = zip(accumulate(p), accumulate(q), strict=True)
    return max(abs(a / left - b / right) for a, b in steps)


PARTS_A_DAY = 8
PART_SECONDS = 86400 // PARTS_A_DAY
"""Rows may come on a part of a day only, and then have more in common than those of a whole one."""


class Days(msgspec.Struct, frozen=True):
    """The days that live and reference rows came on, and how unlike each other a reference's days are.

    Rows of one day have much in common, such as the weather, so they tell less than as many rows of different days.
    `live` are day numbers, ascending; `reference` counts its days. `spread` has for the lags of 0 … 7 days the
    autocovariance between days of a bin's daily share, divided by the bin's share and summed over the bins; at lag
    0 without what the sampling of a day's rows adds. `directions` is in how many directions the days move:
    1 when all bins follow one thing, as many as there are bins when each goes its own way. `within` is by how much
    parts of a day are more unlike each other than whole days are, and `parts` on how many of the `PARTS_A_DAY` parts
    of each live day rows came; without it, on all.
    """

    live: tuple[int, ...]
    reference: int
    spread: tuple[float, ...] = ()
    directions: float = 1.0
    within: float = 0.0
    parts: tuple[int, ...] = ()


class Noise(msgspec.Struct, frozen=True):
    """What the PSI does when nothing has changed: its mean, and the value that chance exceeds with `alpha`.

    `floor` is the least share, for `psi`. `between` is the part of `expected` that comes from days being unlike
    each other; `sampling`, `directions` and `degrees` say with it how the PSI is distributed, see `noise`.
    """

    cells: int
    expected: float
    critical: float
    floor: float
    sampling: float
    between: float = 0.0
    directions: float = 1.0
    degrees: float = math.inf


def cells(p: Shares, floor: float) -> int:
    """How many bins count: those of the reference that hold the floor or more, and one for all the others; two at least."""
    held = sum(share >= floor for share in p)
    return min(len(p), max(held, 1) + 1)


def noise(p: Shares, n: int, m: int, alpha: float, days: Days | None = None) -> Noise:
    """The noise floor of `psi` between n reference rows and m live ones that have the distribution p.

    Without `days` rows are independent. Then PSI / (1/n + 1/m) is, for large samples and no change, χ² with B−1
    degrees of freedom, so its mean is (B−1)·(1/n + 1/m) (Yurdakul, Statistical Properties of Population Stability
    Index, 2018). B counts the bins as `cells` does. An approximation: simulated from 200 rows on, chance exceeds the
    critical value at most 1.5 times as often as an alpha of 0.01 says in ten bins, 3.3 times in fifty.

    With `days` the mean has c(live days) + c(reference days) more, see `between_days`, and the PSI is a sum of
    weighted χ² (Rao and Scott, 1981): B−1 of 1/n + 1/m each, `directions` that share what days add. All of it is
    divided by a χ² over its degrees of freedom, because the spread was itself measured on few days: a quarter of
    the independent days behind it, in each direction. The quarter was found by simulation (proofs/drift.py).
    The least share is then half of what counts as one independent observation, which is up to a whole day of rows.
    A reference of one day says nothing of days: no PSI is then beyond chance.
    """
    sampling = 1 / n + 1 / m
    if days is None:
        floor = half_count(n, m)
        count = cells(p, floor)
        critical = chi_square_critical(alpha, count - 1) * sampling
        return Noise(count, (count - 1) * sampling, critical, floor, sampling)
    if not days.spread or days.reference < 2:
        floor = half_count(n, m)
        most = _most(floor)
        return Noise(cells(p, floor), most, most, floor, sampling, between=most)
    held = max(sum(share > 0 for share in p) - 1, 1)
    live, frozen = between_days(days.live, days), between_days(range(days.reference), days)
    live += days.within * sum(1 / count - 1 / PARTS_A_DAY for count in days.parts) / max(len(days.parts), 1) ** 2
    floor = min(half_count(m / (1 + m * live / held), n / (1 + n * frozen / held)), 0.5)
    count = cells(p, floor)
    between = live + frozen
    expected = (count - 1) * sampling + between
    directions = min(max(days.directions, 1.0), held)
    a_day = held * days.reference / n  # what the sampling of a day's rows adds to, and hides of, the spread at lag 0
    independent = (days.spread[0] + a_day) / (frozen + a_day / days.reference)
    unsure = between + a_day * (1 / days.reference + 1 / max(len(days.live), 1))
    degrees = max(max(independent * directions / 4, 1.0) * (expected / unsure) ** 2, 1.0)
    found = Noise(count, expected, 0.0, floor, sampling, between, directions, degrees)
    return msgspec.structs.replace(found, critical=_critical(alpha, found))


def between_days(days: Sequence[int], known: Days) -> float:
    """c(days) = (1/D²)·Σ spread(|a−b|) over all pairs of D days: what days add to the mean PSI, never below 0.

    Day numbers ascend; gaps count. The larger of two estimates. One weighs the measured lags as Bartlett does, by
    1 − lag/8, so that no sum is negative (Newey and West, 1987); it sees too little of days that resemble each other
    for long. The other takes the spread to decline from lag 0 as it does to lag 1 (an autoregression), with the
    correction of Kendall (1954) for what a short series hides.
    """
    given = days or (0,)  # not known: all rows may be of one day
    size, held, spread = len(given), set(given), known.spread
    weighted = spread[0] * size
    for lag in range(1, len(spread)):
        pairs = sum(day + lag in held for day in given)
        weighted += 2 * pairs * (1 - lag / len(spread)) * spread[lag]
    decline = spread[1] / spread[0] if spread[0] > 0 else 0.0
    decline = min(max(decline + (1 + 3 * decline) / known.reference, 0.0), 0.95)
    alike = so_far = 0.0
    for before, day in pairwise(given):
        so_far = decline ** (day - before) * (1 + so_far)
        alike += so_far
    return max(weighted, spread[0] * (size + 2 * alike), 0.0) / size**2


def psi_p_value(value: float, chance: Noise) -> float:
    """How probable a PSI of `value` or more is by chance alone; see `noise`."""
    if math.isinf(chance.degrees):
        return 1.0 if chance.between else chi_square_tail(value / chance.sampling, chance.cells - 1)
    parts = ((chance.sampling, chance.cells - 1.0), (chance.between / chance.directions, chance.directions))
    return mixture_tail(value, parts, chance.degrees)


def chi_square_tail(x: float, degrees: int) -> float:
    """P(χ² > x) for a whole number of degrees of freedom; with none, χ² is 0.

    A finite sum (Abramowitz and Stegun, 26.4.4 and 26.4.5), in logarithms so that no term overflows.
    """
    half, tail = x / 2, 0.0
    if half <= 0:
        return 1.0
    if degrees < 1:
        return 0.0
    if degrees % 2:
        tail = math.erfc(math.sqrt(half))
    for i in range(degrees // 2):
        power = i + (0.5 if degrees % 2 else 0.0)
        tail += math.exp(power * math.log(half) - half - math.lgamma(power + 1))
    return min(tail, 1.0)


def chi_square_critical(alpha: float, degrees: int) -> float:
    """The x that χ² exceeds with probability `alpha` (0 < alpha ≤ 1), by bisection."""
    if degrees < 1:
        return 0.0
    low, high = 0.0, float(degrees)
    while chi_square_tail(high, degrees) > alpha:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if chi_square_tail(middle, degrees) > alpha:
            low = middle
        else:
            high = middle
    return high


def mixture_tail(x: float, parts: Sequence[tuple[float, float]], degrees: float) -> float:
    """P(Σ wᵢ·χ²(dᵢ) > x·χ²(ν)/ν), all χ² independent, for `parts` of (wᵢ, dᵢ) and ν = `degrees`.

    The saddlepoint approximation of Lugannani and Rice (1980), for sums of χ² as in Kuonen (1999). Of one part it is
    the tail of F: within 5 % from 3 and 10 degrees on at 0.002, too large by a quarter at worst (1 and 1 degrees).
    """
    terms = [(w, d) for w, d in parts if w > 0 and d > 0]
    if x <= 0 or not terms:
        return 1.0 if x <= 0 else 0.0
    terms.append((-x / degrees, degrees))
    t = _saddle(terms)
    curve = 2 * sum(d * (w / (1 - 2 * w * t)) ** 2 for w, d in terms)
    u = t * math.sqrt(curve)
    if abs(u) < 1e-4:  # at the mean, where the formula below is 0/0
        bend = 8 * sum(d * w**3 for w, d in terms)
        return 0.5 - bend / (6 * math.sqrt(2 * math.pi) * math.pow(curve, 1.5))
    r = math.copysign(math.sqrt(max(sum(d * math.log1p(-2 * w * t) for w, d in terms), 1e-300)), t)
    tail = math.erfc(r / math.sqrt(2)) / 2 + math.exp(-r * r / 2) / math.sqrt(2 * math.pi) * (1 / u - 1 / r)
    return min(max(tail, 0.0), 1.0)


def with_slack(critical: float, p: Shares, slack: Shares, floor: float) -> float:
    """The critical value when each share of the reference may be off by up to its `slack`.

    √PSI behaves like a distance near equality, so the triangle inequality adds the roots: (√critical + √bias)².
    The bias is the PSI between p and p moved by slack/√3, the deviation of an error that is uniform in ± slack: what
    coarse quantiles usually cost, not the most that they can.
    """
    bias = 0.0
    for share, s in zip(p, slack, strict=True):
        error = s / math.sqrt(3)
        bias += max(psi((share,), (share - error,), floor), psi((share,), (share + error,), floor))
    return (math.sqrt(critical) + math.sqrt(bias)) ** 2


def _critical(alpha: float, chance: Noise) -> float:
    """The PSI that chance exceeds with `alpha`, or the most that a PSI can be: false position on logarithms."""

    def off(x: float) -> float:
        return math.log(max(psi_p_value(math.exp(x), chance), 1e-300) / alpha)

    if not chance.expected:
        return 0.0
    most = _most(chance.floor)
    low = high = math.log(chance.expected)
    at_low = at_high = off(low)
    while at_low < 0:
        low -= 1
        at_low = off(low)
    while at_high > 0:
        if math.exp(high) > most:
            return most
        high += 1
        at_high = off(high)
    while high - low > 1e-8 and at_low > at_high:
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        at = off(middle)
        if at > 0:  # halving the end that stays lets it move next time (the Illinois rule)
            low, at_low, at_high = middle, at, at_high / 2
        else:
            high, at_high, at_low = middle, at, at_low / 2
    return min(math.exp(high), most)


def _most(floor: float) -> float:
    """More than any PSI can be when no share is less than the floor."""
    return 2 * math.log(1 / floor)


def _saddle(terms: Sequence[tuple[float, float]]) -> float:
    """Where the cumulant function of Σ w·χ²(d) is flat: its slope rises from −∞ to ∞ between the two poles."""
    first, last = (1 / (2 * end(w for w, _ in terms)) for end in (min, max))
    low, high, t = first, last, 0.0
    for _ in range(100):
        slope = curve = 0.0
        for w, d in terms:
            share = w / (1 - 2 * w * t)
            slope += d * share
            curve += 2 * d * share * share
        if slope > 0:
            high = t
        else:
            low = t
        step = slope / curve
        if abs(step) <= 1e-10 * min(t - first, last - t):
            break
        t = t - step if low < t - step < high else (low + high) / 2
    return t
