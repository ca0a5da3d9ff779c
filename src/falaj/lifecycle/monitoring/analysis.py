"""Is the challenger as good as the stable version on live traffic? Pure rules over sequential tests.

    error_rate   share of requests without an answer
    non_finite   share of requests whose answer is not a finite number
    slow         share of requests that took longer than `latency_ms`
    score_up, score_down   mean rank of the score in the stable version's reference, moved up or down
    label_loss   how wrong the answers were whose labels have come, see `losses`

Each asks whether the challenger's mean is at most a margin above the stable version's. One may look after every
request; see `falaj.statistics.sequential` for what that rests on. `alpha` is shared: of k metrics each may claim
'worse' at alpha / k, label_loss among them whether or not a label ever comes, so that nothing depends on that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import Verdict, worst
from falaj.lifecycle.rollout import strategy
from falaj.statistics.sequential import Arm, Comparison, Outcome, compare, comparison, merge, observe_all

_VERDICTS = {
    Outcome.BETTER_OR_EQUAL: Verdict.SUCCESSFUL,
    Outcome.UNDECIDED: Verdict.INCONCLUSIVE,
    Outcome.WORSE: Verdict.FAILED,
}
LABEL_LOSS = "label_loss"


class Answer(msgspec.Struct, frozen=True):
    """One request as the journal recorded it. `ranks` is its score by `ReferenceProfile.ranks`, the mean
    over its rows, one number a column; empty when there is no answer or nothing to rank it by."""

    arm: Arm
    seconds: float
    error: bool = False
    non_finite: bool = False
    ranks: tuple[float, ...] = ()


class Trial(msgspec.Struct, frozen=True):
    """A challenger beside the stable version, from the first request of a rollout to its last. Start with `trial`.

    `waits_for_labels`: it passes only once label_loss is shown to be within its margin too; else labels that come can
    only fail it.
    """

    stable: str  # digest
    challenger: str  # digest
    limits: strategy.Limits
    metrics: dict[str, Comparison]
    waits_for_labels: bool = False

    def add(self, answers: Iterable[Answer]) -> Trial:
        """The trial after more answers, in the order in which they came."""
        given = list(answers)
        metrics = dict(self.metrics)
        for name, state in metrics.items():
            if name != LABEL_LOSS:
                metrics[name] = observe_all(state, self._values(name, given))
        return msgspec.structs.replace(self, metrics=metrics)

    def labelled(self, losses: Iterable[tuple[Arm, float]]) -> Trial:
        """The trial after more labels, in the order in which they came: one loss, 0 … 1, an answered request."""
        if LABEL_LOSS not in self.metrics:
            return self
        compared = observe_all(self.metrics[LABEL_LOSS], losses)
        return msgspec.structs.replace(self, metrics={**self.metrics, LABEL_LOSS: compared})

    def __add__(self, other: Trial) -> Trial:
        """Two workers' trials of the same versions. Raises `Invalid` when they ask different questions."""
        mine, theirs = ((t.stable, t.challenger, t.limits, t.waits_for_labels, t.metrics.keys()) for t in (self, other))
        if mine != theirs:
            raise Invalid(
                "two trials of other versions or with other limits do not add up",
                hint="start every worker's trial with the versions and limits of the rollout",
                code="other_trial",
            )
        metrics = {name: merge(state, other.metrics[name]) for name, state in self.metrics.items()}
        return msgspec.structs.replace(self, metrics=metrics)

    def _values(self, name: str, answers: list[Answer]) -> Iterable[tuple[Arm, float]]:
        if name == "error_rate":
            return ((a.arm, float(a.error)) for a in answers)
        if name == "non_finite":
            return ((a.arm, float(a.non_finite)) for a in answers)
        if name == "slow":
            limit = self.limits.latency_ms / 1000
            return ((a.arm, float(a.seconds > limit)) for a in answers)
        way, column = _column(name)
        ranked = (
            (a.arm, a.ranks[column]) for a in answers if column < len(a.ranks) and not math.isnan(a.ranks[column])
        )
        return ranked if way == "score_up" else ((arm, 1 - rank) for arm, rank in ranked)


def trial(
    stable: str, challenger: str, limits: strategy.Limits, *, columns: int = 1, group: int = 1, labels: int | None = 0
) -> Trial:
    """Nothing seen yet. `columns` of the score are ranked (0: none); `group` is stable requests for one of
    the challenger, near the ratio of the traffic. `limits.shift` is the margin of the score, `limits.loss` that of
    label_loss, `limits.margin` that of every other metric. `labels` is how many a step waits for; with None, or
    without a `limits.loss`, labels are not compared."""
    names = dict.fromkeys(("error_rate", "non_finite", "slow"), limits.margin)
    for way in ("score_up", "score_down"):
        for column in range(columns):
            names[way if columns == 1 else f"{way}[{column}]"] = limits.shift
    judged = labels is not None and limits.loss is not None
    if judged and limits.loss is not None:
        names[LABEL_LOSS] = limits.loss
    metrics = {name: comparison(m, group) for name, m in names.items()}
    return Trial(stable, challenger, limits, metrics, judged and bool(labels))


class MetricVerdict(msgspec.Struct, frozen=True):
    """What is known of one metric. `worse` and `fine` are e-values: the evidence for each, at any time."""

    metric: str
    verdict: Verdict
    margin: float
    stable: float | None  # mean
    challenger: float | None
    requests: int  # the challenger's
    pairs: int
    worse: float
    fine: float


class TrialReport(msgspec.Struct, frozen=True):
    """All metrics and the worst verdict among them."""

    verdict: Verdict
    reason: str
    requests: int
    metrics: tuple[MetricVerdict, ...]

    def analysis(self) -> strategy.Analysis:
        """The report as rollout reads it."""
        detail: dict[str, float] = {}
        for m in self.metrics:
            if m.stable is not None and m.challenger is not None:
                detail |= {f"{m.metric}.stable": m.stable, f"{m.metric}.challenger": m.challenger}
        return strategy.Analysis(self.verdict, self.reason, self.requests, detail)


def judge(state: Trial) -> TrialReport:
    """Judge every metric now.

    Failed when any is worse: over all looks and metrics the chance of that is at most `limits.alpha` while none
    is. Successful when each is shown to be within its margin, label_loss only if the trial waits for labels.
    Otherwise Inconclusive.
    """
    limits, count = state.limits, len(state.metrics)
    found = tuple(
        MetricVerdict(
            name,
            _VERDICTS[compare(s, limits.alpha, count)],
            s.margin,
            s.stable.mean,
            s.challenger.mean,
            s.challenger.n,
            s.pairs,
            s.against_equal,
            s.against_worse,
        )
        for name, s in state.metrics.items()
    )
    decisive = tuple(
        m for m in found if m.metric != LABEL_LOSS or state.waits_for_labels or m.verdict is Verdict.FAILED
    )
    verdict = worst([m.verdict for m in decisive])
    requests = max((m.requests for m in found), default=0)
    return TrialReport(verdict, _reason(verdict, decisive, requests), requests, found)


def _reason(verdict: Verdict, found: tuple[MetricVerdict, ...], requests: int) -> str:
    if verdict is Verdict.SUCCESSFUL:
        return f"on {requests:,} requests it is within every margin of the stable version"
    if verdict is Verdict.FAILED:
        worse = [m for m in found if m.verdict is Verdict.FAILED]
        return "worse than the stable version: " + ", ".join(_against(m) for m in worse)
    waiting = ", ".join(_named(m) for m in found if m.verdict is Verdict.INCONCLUSIVE)
    return f"{requests:,} requests do not decide {waiting} yet"


def _against(m: MetricVerdict) -> str:
    counted = f" on {m.requests:,} labelled answers" if m.metric == LABEL_LOSS else ""
    return f"{_named(m)} {m.challenger or 0:.3g} against {m.stable or 0:.3g}{counted}"


def _named(m: MetricVerdict) -> str:
    return "label loss" if m.metric == LABEL_LOSS else m.metric


def _column(name: str) -> tuple[str, int]:
    """'score_up[2]' → ('score_up', 2)."""
    way, _, column = name.removesuffix("]").partition("[")
    return way, int(column or 0)
