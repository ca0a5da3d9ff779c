"""Has live data moved away from what the model was trained on? Pure rules.

A `Window` counts live values in the bins of the version's frozen reference; workers' windows add up. Its
size depends on the number of features, never on that of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from falaj.kernel.digests import digest_of
from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring.health import Health
from falaj.lifecycle.monitoring.policy import MonitorPolicy
from falaj.lifecycle.training.model import FeatureProfile, ModelContract, Numbers, Profile, read_profile
from falaj.statistics.bins import Counts, Reference, category_reference, numeric_reference
from falaj.statistics.distances import (
    PART_SECONDS,
    PARTS_A_DAY,
    Days,
    js_distance,
    ks_distance,
    noise,
    psi,
    psi_p_value,
    with_slack,
)

ALPHA = 0.01
"""Chance that a window of unchanged data goes beyond the noise floor anywhere; shared among features and scores."""
DAY_US = 86_400_000_000
PART_US = PART_SECONDS * 1_000_000


class ReferenceProfile(msgspec.Struct, frozen=True):
    """What live data is compared with: one reference a feature, and one a column of the score.

    `digest` is that of `profile.json`, so windows that were counted with other bins are told apart. `days` are those
    of its rows; 0 for a profile that says nothing of days, beside which rows count as independent.
    """

    digest: str
    rows: int
    features: dict[str, Reference]
    score: tuple[Reference, ...]
    days: int = 0

    def ranks(self, score: Sequence[float]) -> tuple[float, ...]:
        """Each column of a score as its rank in the reference, 0 … 1; NaN for NaN and without a reference."""
        return tuple(reference.rank(s) for reference, s in zip(self.score, score, strict=True))


def read_reference(data: bytes, contract: ModelContract) -> ReferenceProfile:
    """The reference in `profile.json` of the model with this contract.

    Raises `Invalid`: bad_profile when it is none, bad_reference when its figures contradict each other.
    """
    return reference_of(read_profile(data, contract))


def reference_of(profile: Profile) -> ReferenceProfile:
    """The reference that a profile describes. Raises `Invalid` (bad_reference).

    Where the profile does not count the rows behind the score, which are those that the contract accepts, they are
    taken to be all.
    """
    return ReferenceProfile(
        digest_of(profile),
        profile.rows,
        {name: _reference(feature, profile.rows) for name, feature in profile.features.items()},
        tuple(_of_numbers(s, 0, sum(s.binned) or profile.rows) for s in profile.score),
        profile.days,
    )


def _reference(feature: FeatureProfile, rows: int) -> Reference:
    if feature.type not in ("category", "boolean"):
        return _of_numbers(feature, feature.nulls, rows)
    found = category_reference(feature.counts or {}, feature.nulls, rows, boolean=feature.type == "boolean")
    return msgspec.structs.replace(found, spread=feature.spread, directions=feature.directions, within=feature.within)


def _of_numbers(numbers: FeatureProfile | Numbers, nulls: int, rows: int) -> Reference:
    found = numeric_reference(numbers.quantiles, nulls, rows, numbers.binned)
    return msgspec.structs.replace(found, spread=numbers.spread, directions=numbers.directions, within=numbers.within)


class Window(msgspec.Struct, frozen=True):
    """Live rows of one model version from `start_us` until `end_us` (µs since 1970), counted. Start with `window`.

    `days` are the UTC days that rows came on, as day numbers since 1970, ascending; `parts` the parts of days.
    """

    digest: str  # the model version
    reference: str  # digest of the profile whose bins are counted
    start_us: int
    end_us: int
    rows: int
    features: dict[str, Counts]
    score: tuple[Counts, ...]
    days: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    health: Health = Health()

    def add(
        self, reference: ReferenceProfile, at_us: int, columns: Mapping[str, Sequence[Any]], scores: Sequence[Any] = ()
    ) -> Window:
        """The window with more rows of one moment: one sequence a feature, all of one length, as the journal keeps them.

        `scores` has one entry for each row that was answered: a number, or one for each column of the score. A
        feature without a column is null in every row; other columns, such as join keys, are ignored. Raises
        `Invalid` (other_reference, uneven_rows).
        """
        self._check(reference.digest)
        known = {name: columns[name] for name in self.features if name in columns}
        lengths = {len(values) for values in known.values()}
        if len(lengths) > 1:
            raise Invalid(
                f"the features have {min(lengths)} to {max(lengths)} rows",
                hint="give every feature one value a row, None where there is none",
                code="uneven_rows",
            )
        rows = lengths.pop() if lengths else len(scores)
        missing = (None,) * rows
        features = {
            name: counts + reference.features[name].bins.count(known.get(name, missing))
            for name, counts in self.features.items()
        }
        vectors = [s if isinstance(s, Sequence) else (s,) for s in scores]
        score = tuple(
            counts + reference.score[i].bins.count(v[i] if i < len(v) else None for v in vectors)
            for i, counts in enumerate(self.score)
        )
        days = _union(self.days, (at_us // DAY_US,)) if rows else self.days
        parts = _union(self.parts, (at_us // PART_US,)) if rows else self.parts
        return msgspec.structs.replace(
            self, rows=self.rows + rows, features=features, score=score, days=days, parts=parts
        )

    def __add__(self, other: Window) -> Window:
        """Both windows' rows, in the span of both. Raises `Invalid` for another version or reference."""
        if self.digest != other.digest:
            raise Invalid(
                "windows of two model versions do not add up",
                hint="add up the windows of each version",
                code="other_model_version",
            )
        self._check(other.reference)
        return Window(
            self.digest,
            self.reference,
            min(self.start_us, other.start_us),
            max(self.end_us, other.end_us),
            self.rows + other.rows,
            {name: counts + other.features[name] for name, counts in self.features.items()},
            tuple(a + b for a, b in zip(self.score, other.score, strict=True)),
            _union(self.days, other.days),
            _union(self.parts, other.parts),
            self.health + other.health,
        )

    def _check(self, reference: str) -> None:
        if self.reference != reference:
            raise Invalid(
                "the window was counted with the bins of another reference",
                hint="start a new window with the reference of the version that serves",
                code="other_reference",
            )


def _parts(live: Window) -> tuple[int, ...]:
    """How many parts of each of its days a window's rows came on."""
    held = Counter(part // PARTS_A_DAY for part in live.parts)
    return tuple(held[day] or 1 for day in live.days)


def _union(days: tuple[int, ...], more: tuple[int, ...]) -> tuple[int, ...]:
    return days if set(more) <= set(days) else tuple(sorted({*days, *more}))


def window(digest: str, reference: ReferenceProfile, start_us: int, end_us: int) -> Window:
    """A window of a model version without rows yet."""
    return Window(
        digest,
        reference.digest,
        start_us,
        end_us,
        0,
        {name: r.bins.none() for name, r in reference.features.items()},
        tuple(r.bins.none() for r in reference.score),
    )


class Shift(msgspec.Struct, frozen=True):
    """How far one feature, or one column of the score, has moved.

    PSI over `labels`, the bins of the frozen reference; no share is taken to be less than half an observation, and
    where days are unlike each other an observation is worth up to a day of rows.
    state: drifted when `psi` > `threshold`; unresolved when it is not, and chance alone exceeds the
    policy's limit in so few rows or days; steady otherwise. `expected` is the mean PSI of unchanged data, `between` its
    part that comes from days being unlike each other, `critical` what chance exceeds with the `alpha` of one feature,
    `p_value` how probable this PSI would be. `days` counts the days of the rows.
    """

    name: str
    state: str
    rows: int
    psi: float
    threshold: float
    expected: float
    critical: float
    p_value: float
    js: float  # Jensen–Shannon distance, base 2
    ks: float | None  # Kolmogorov–Smirnov distance at the edges, nulls aside; None for categories
    labels: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    days: int = 0
    between: float = 0.0


class DriftReport(msgspec.Struct, frozen=True):
    """A window beside its reference.

    Failed: it drifted. Inconclusive: too few rows or days to say so or to rule it out. Successful: it did not.
    """

    verdict: Verdict
    reason: str
    digest: str
    start_us: int
    end_us: int
    rows: int
    features: tuple[Shift, ...]
    score: tuple[Shift, ...]

    @property
    def drifted(self) -> tuple[str, ...]:
        """What moved, the farthest first."""
        moved = [s for s in (*self.features, *self.score) if s.state == "drifted"]
        return tuple(s.name for s in sorted(moved, key=lambda s: -s.psi))


def drift(reference: ReferenceProfile, live: Window, policy: MonitorPolicy, alpha: float = ALPHA) -> DriftReport:
    """Judge a window by the policy: `psi` is the limit for each feature and for the score.

    The window drifts when the score does, or `features` of its features do (all, when the model has fewer). A
    PSI counts only beyond the noise floor for the rows and days behind it. Raises `Invalid` for a window of another
    reference.
    """
    live._check(reference.digest)
    each = alpha / max(1, len(live.features) + len(live.score))
    days = Days(live.days, reference.days, parts=_parts(live))
    features = tuple(
        _shift(name, reference.features[name], counts, days, (policy.psi, each))
        for name, counts in sorted(live.features.items())
    )
    score = tuple(
        _shift("score" if len(live.score) == 1 else f"score[{i}]", reference.score[i], counts, days, (policy.psi, each))
        for i, counts in enumerate(live.score)
    )
    verdict, reason = _judge(features, score, live, reference.days, policy)
    return DriftReport(verdict, reason, live.digest, live.start_us, live.end_us, live.rows, features, score)


def _shift(name: str, reference: Reference, counts: Counts, days: Days, limits: tuple[float, float]) -> Shift:
    """`limits` are the policy's PSI and the alpha of one feature."""
    p, q, n, m = reference.shares, counts.shares, reference.rows, counts.total
    labels, (limit, alpha) = reference.bins.labels, limits
    if not m:
        return Shift(name, "unresolved", 0, 0.0, limit, 0.0, 0.0, 1.0, 0.0, None, labels, p, q)
    known = msgspec.structs.replace(
        days, spread=reference.spread, directions=reference.directions, within=reference.within
    )
    chance = noise(p, n, m, alpha, known if days.reference else None)
    value = psi(p, q, chance.floor)
    threshold = max(limit, with_slack(chance.critical, p, reference.slack, chance.floor))
    return Shift(
        name=name,
        state="drifted" if value > threshold else "unresolved" if chance.critical > limit else "steady",
        rows=m,
        psi=value,
        threshold=threshold,
        expected=chance.expected,
        critical=chance.critical,
        p_value=psi_p_value(value, chance),
        js=js_distance(p, q),
        ks=ks_distance(p[:-1], q[:-1]) if reference.bins.kind == "numeric" else None,
        labels=labels,
        reference=p,
        current=q,
        days=len(days.live),
        between=chance.between,
    )


def _judge(
    features: tuple[Shift, ...], score: tuple[Shift, ...], live: Window, reference_days: int, policy: MonitorPolicy
) -> tuple[Verdict, str]:
    if live.rows < policy.min_rows:
        return Verdict.INCONCLUSIVE, f"{live.rows:,} rows are too few; {policy.min_rows:,} are needed"
    needed = max(1, min(policy.features, len(features)))
    moved = [s for s in features if s.state == "drifted"]
    open_ = [s for s in features if s.state == "unresolved"]
    scores = [s for s in score if s.state == "drifted"]
    dim = [s for s in score if s.state == "unresolved"]
    if scores or len(moved) >= needed:
        told = sorted((*scores, *moved), key=lambda s: -s.psi)[:3]
        names = ", ".join(f"{s.name} (PSI {s.psi:.3g})" for s in told)
        return (
            Verdict.FAILED,
            f"{len(moved)} of {len(features)} features {'and the score ' if scores else ''}drifted: {names}",
        )
    if dim or len(moved) + len(open_) >= needed:
        seen = f"{live.rows:,} rows"
        if any(2 * s.between > s.expected for s in (*open_, *dim)):
            seen = f"{_count(len(live.days), 'day')}, beside {reference_days:,} of the reference"
        return Verdict.INCONCLUSIVE, f"in {seen}, chance alone can exceed a PSI of {policy.psi:g}"
    return Verdict.SUCCESSFUL, f"{len(moved)} of {len(features)} features drifted; {needed} would be too many"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
