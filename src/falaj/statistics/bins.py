"""A distribution as shares of bins. The bins are cut once, from a frozen reference, and never from live data.

numeric    (−∞, e₀] (e₀, e₁] … (eₖ, ∞) null     edges: deciles, and both sides of a value that holds ≥ 5 %
category   the most frequent categories, other, null
boolean    false, true, other, null
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec

from falaj.kernel.errors import Invalid

MAX_CATEGORIES = 50
"""Categories with a bin of their own; the rarer ones share 'other', so that memory and noise stay bounded."""


class Counts(msgspec.Struct, frozen=True):
    """How many values fell into each bin. Counts of the same bins add up, in any order."""

    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Each bin's share of all; zeros when nothing was counted."""
        total = self.total
        return tuple(c / total if total else 0.0 for c in self.counts)

    def __add__(self, other: Counts) -> Counts:
        if len(self.counts) != len(other.counts):
            raise Invalid(
                f"counts of {len(self.counts)} and of {len(other.counts)} bins do not add up",
                hint="count both with the bins of the same reference",
                code="other_bins",
            )
        return Counts(tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))


class Bins(msgspec.Struct, frozen=True):
    """Where each value belongs. kind: numeric | category | boolean. The last bin is that of nulls."""

    kind: str
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many bins, with that of nulls."""
        return len(self.edges) + 2 if self.kind == "numeric" else len(self.categories) + 2

    @property
    def labels(self) -> tuple[str, ...]:
        """What each bin holds, for people: '≤ 3', '3 … 5', '> 5', 'null'."""
        if self.kind != "numeric":
            return (*self.categories, "other", "null")
        if not self.edges:
            return ("any number", "null")
        inner = (f"{a:.6g} … {b:.6g}" for a, b in pairwise(self.edges))
        return (f"≤ {self.edges[0]:.6g}", *inner, f"> {self.edges[-1]:.6g}", "null")

    def index(self, value: Any) -> int:
        """The bin of one value. None, NaN and, among numbers, what is no number are null; ±∞ lie in the end bins."""
        null = self.size - 1
        if self.kind == "numeric":
            return bisect_left(self.edges, value) if _is_number(value) else null
        if value is None or value != value:
            return null
        try:
            return self.categories.index(self._name(value))
        except ValueError:
            return null - 1

    def count(self, values: Iterable[Any]) -> Counts:
        """How many of the values fall into each bin: `index` of each, in one pass."""
        counts = [0] * self.size
        if self.kind == "numeric":
            given = list(values)
            numbers = [v for v in given if _is_number(v)]
            for i, n in Counter(map(partial(bisect_left, self.edges), numbers)).items():
                counts[i] = n
            counts[-1] = len(given) - len(numbers)
            return Counts(tuple(counts))
        index = {name: i for i, name in enumerate(self.categories)}
        for value in values:
            if value is None or value != value:
                counts[-1] += 1
            else:
                counts[index.get(self._name(value), -2)] += 1
        return Counts(tuple(counts))

    def none(self) -> Counts:
        """Nothing counted yet."""
        return Counts((0,) * self.size)

    def _name(self, value: Any) -> str:
        if self.kind == "boolean" and not isinstance(value, str):
            return str(value == 1).lower() if value in (0, 1) else str(value)
        return str(value)


class Reference(msgspec.Struct, frozen=True):
    """A frozen distribution: bins, the share of `rows` in each, and by how much a share may be misjudged.

    `slack` is 0 where the share is exact (up to the reference's own sampling). It is positive beside values
    that repeat, because quantiles tell only between which two levels a repeated value ends. `spread` and
    `directions` and `within` say how unlike each other its days are, see `distances.Days`; empty where that is not known.
    """

    bins: Bins
    shares: tuple[float, ...]
    slack: tuple[float, ...]
    rows: int
    quantiles: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    directions: float = 0.0
    within: float = 0.0

    def rank(self, value: float) -> float:
        """The share of the reference's numbers below `value`, ties counting half: 0 … 1, linear between quantiles.

        The probability integral transform with the frozen reference; NaN for NaN.
        """
        if math.isnan(value) or not self.quantiles:
            return math.nan
        q, steps = self.quantiles, len(self.quantiles) - 1
        if value < q[0] or value > q[-1]:
            return 0.0 if value < q[0] else 1.0
        low = bisect_left(q, value)
        if q[low] == value:
            high = low
            while high < steps and q[high + 1] == value:
                high += 1
            return (low + high) / 2 / steps
        width = q[low] - q[low - 1]
        inside = (value - q[low - 1]) / width if math.isfinite(width) else 0.5
        return (low - 1 + inside) / steps


def category_reference(counts: Mapping[str, int], nulls: int, rows: int, *, boolean: bool = False) -> Reference:
    """The reference of a category from its counts by value. Raises `Invalid` (bad_reference)."""
    if rows < 1 or nulls < 0 or any(c < 0 for c in counts.values()) or sum(counts.values()) + nulls != rows:
        raise _bad("its counts and nulls are not those of its rows")
    if boolean:
        names: list[str] = ["false", "true"]
    else:
        names = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_CATEGORIES]
    kept = [counts.get(name, 0) for name in names]
    full = (*kept, rows - nulls - sum(kept), nulls)
    bins = Bins("boolean" if boolean else "category", categories=tuple(names))
    return Reference(bins, tuple(c / rows for c in full), (0.0,) * len(full), rows)


def numeric_reference(quantiles: Sequence[float], nulls: int, rows: int, counts: Sequence[int] = ()) -> Reference:
    """The reference of a number from its quantiles at equal steps from the smallest to the largest value.

    Edges are every other quantile (deciles of 21). A value v that fills two or more quantiles gets a bin
    of its own, from just below v up to v, so that a constant feature is seen to move either way.

    `counts` are the numbers of the reference in the bins between `edges_of(quantiles)`; with them every share is
    exact. Without them a share is the distance of its quantiles. Where a value ends that repeats, or a whole number
    among whole numbers, lies between two quantiles: the middle is taken and the rest is `slack`. Other values that
    repeat, such as tenths, are not recognised when each fills one quantile; a share beside one may be off by 0.05.

    Without quantiles every row must be null. Raises `Invalid` (bad_reference).
    """
    if rows < 1 or not 0 <= nulls <= rows:
        raise _bad("its nulls are not those of its rows")
    if (len(quantiles) < 3 or nulls == rows) and not (not quantiles and nulls == rows):
        raise _bad("it has no quantiles of its numbers")
    if not all(map(math.isfinite, quantiles)) or any(a > b for a, b in pairwise(quantiles)):
        raise _bad("its quantiles are not finite numbers in ascending order")
    cuts = _cuts(quantiles)
    levels = [0.0, *(level for _, level, _ in cuts), 1.0]
    doubt = [0.0, *(d for _, _, d in cuts), 0.0]
    known = 1 - nulls / rows
    shares = [known * (b - a) for a, b in pairwise(levels)]
    slack = [known * (a + b) for a, b in pairwise(doubt)]
    if counts:
        if len(counts) != len(shares) or any(c < 0 for c in counts) or sum(counts) + nulls != rows:
            raise _bad("its counts and nulls are not those of its bins and rows")
        shares, slack = [c / rows for c in counts], [0.0] * len(shares)
    bins = Bins("numeric", edges=edges_of(quantiles))
    return Reference(bins, (*shares, nulls / rows), (*slack, 0.0), rows, tuple(quantiles))


def edges_of(quantiles: Sequence[float]) -> tuple[float, ...]:
    """Where `numeric_reference` cuts: a bin holds what is above one edge, up to and with the next."""
    return tuple(edge for edge, _, _ in _cuts(quantiles))


def _cuts(quantiles: Sequence[float]) -> list[tuple[float, float, float]]:
    """(edge, share of the numbers ≤ edge, by how much that may be wrong), ascending in the edge."""
    steps = len(quantiles) - 1
    runs = _runs(quantiles)
    whole = 4 * sum(q == math.floor(q) for q in quantiles) >= 3 * len(quantiles)  # the others lie between two
    cuts: list[tuple[float, float, float]] = []
    repeated_before = -2  # the last level of the last repeated value
    for n, (value, first, last) in enumerate(runs):
        if last > first:
            if first == 0:
                cuts.append((math.nextafter(value, -math.inf), 0.0, 0.0))
            elif first - repeated_before > 1:
                cuts.append((math.nextafter(value, -math.inf), (first - 0.5) / steps, 0.5 / steps))
            half = 0.0 if last == steps else 0.5
            cuts.append((value, (last + half) / steps, half / steps))
            repeated_before = last
        elif 0 < first < steps and first % 2 == 0 and first - repeated_before > 1 and _single(runs, n + 1):
            half = min(1.0, 2 / (runs[n + 1][0] - runs[n - 1][0])) / 2 if whole else 0.0
            cuts.append((value, (first + half) / steps, half / steps))
    return cuts


def _runs(quantiles: Sequence[float]) -> list[tuple[float, int, int]]:
    """Each distinct quantile with its first and last level."""
    runs: list[tuple[float, int, int]] = []
    for level, value in enumerate(quantiles):
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1], level)
        else:
            runs.append((value, level, level))
    return runs


def _single(runs: list[tuple[float, int, int]], n: int) -> bool:
    return runs[n][1] == runs[n][2]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value


def _bad(why: str) -> Invalid:
    return Invalid(f"the reference cannot be used: {why}", hint="train the model again", code="bad_reference")
