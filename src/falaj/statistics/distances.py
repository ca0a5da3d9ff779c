"""How far apart two distributions over the same bins are, and how far chance alone would put them.

p is the reference, q the current one, both as shares of the same bins. State bins, edges and the zero
rule with every PSI: bins and edges are those of `bins`, the zero rule is `half_count`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import msgspec

Shares = Sequence[float]


def half_count(n: int, m: int) -> float:
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


class Noise(msgspec.Struct, frozen=True):
    """What the PSI does when nothing has changed: its mean, and the value that chance exceeds with `alpha`."""

    cells: int
    expected: float
    critical: float


def cells(p: Shares, floor: float) -> int:
    """How many bins count: those of the reference that hold the floor or more, and one for all the others; two at least."""
    held = sum(share >= floor for share in p)
    return min(len(p), max(held, 1) + 1)


def noise(p: Shares, n: int, m: int, alpha: float) -> Noise:
    """The noise floor of `psi` between samples of n and of m that have the distribution p.

    Without a change PSI / (1/n + 1/m) is, for large samples, χ² with B−1 degrees of freedom, so its mean is
    (B−1)·(1/n + 1/m) (Yurdakul, Statistical Properties of Population Stability Index, 2018). B counts the bins
    as `cells` does. An approximation: simulated from 200 rows on, chance exceeds the critical value at most
    1.5 times as often as an alpha of 0.01 says in ten bins, 3.3 times in fifty.
    """
    count, scale = cells(p, half_count(n, m)), 1 / n + 1 / m
    return Noise(count, (count - 1) * scale, chi_square_critical(alpha, count - 1) * scale)


def psi_p_value(value: float, count: int, n: int, m: int) -> float:
    """How probable a PSI of `value` or more is by chance alone, over `count` cells; see `noise`."""
    return chi_square_tail(value / (1 / n + 1 / m), count - 1)


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
