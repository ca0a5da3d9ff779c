"""What a stage has to say about a model, in a few words: pure rules over what the services know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from falaj.entrypoints.console.views import Curve, Gate, Line, Slice, StageFact
from falaj.kernel.digests import short
from falaj.kernel.errors import FalajError
from falaj.lifecycle.data.model import DatasetVersion
from falaj.lifecycle.evidence.model import MANDATORY, Finding, GateSpec, Measurement, Statement, Verdict, judge
from falaj.lifecycle.features.model import Materialization
from falaj.lifecycle.monitoring.drift import DriftReport
from falaj.lifecycle.monitoring.model import PlaneHealth
from falaj.lifecycle.registry.model import ModelVersion, unpassed
from falaj.lifecycle.rollout.model import TrafficPlan
from falaj.lifecycle.rollout.strategy import Rollout
from falaj.lifecycle.serving.model import LATENCY_SECONDS, Killed, VersionCounts
from falaj.lifecycle.training.model import METRICS, Run, ViewUse

TOO_MANY_ERRORS = 0.01
"""The share of failed requests above which a model needs attention."""
TOO_STALE = 0.5
"""The share of feature look-ups without a fresh value above which a model needs attention."""
MANDATORY_NAMES = frozenset(g.name for g in MANDATORY)
PARTS = ("train", "validation", "valid", "test", "holdout")
"""How a curve's name begins when it tells which part of the data it was measured on."""


class Traffic(msgspec.Struct, frozen=True):
    """What a data plane's workers have counted together since they loaded a version."""

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = ()
    features: dict[str, int] = {}


class Judged(msgspec.Struct, frozen=True):
    """A version with the verdicts of its verified statements, how many approvals count, and how many it needs."""

    version: ModelVersion
    verdicts: dict[str, Verdict]
    approvals: int
    needed: int = 0


def traffic(counts: Iterable[VersionCounts], digests: set[str]) -> Traffic:
    """The counts of these versions, all workers together."""
    requests = errors = 0
    latency = [0] * (len(LATENCY_SECONDS) + 1)
    features: dict[str, int] = {}
    for c in counts:
        if c.digest not in digests:
            continue
        requests, errors = requests + c.requests, errors + c.errors
        latency = [a + b for a, b in zip(latency, c.latency, strict=True)]
        for status, n in c.features.items():
            features[status] = features.get(status, 0) + n
    return Traffic(requests, errors, tuple(latency), features)


def quantile_ms(latency: tuple[int, ...], q: float) -> float | None:
    """The q-quantile of a latency histogram in milliseconds, linear within its bucket.

    What is slower than the last bound counts as that bound, as in Prometheus' `histogram_quantile`
    (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile).
    """
    total = sum(latency)
    if not total:
        return None
    rank, below, low = q * total, 0, 0.0
    for bound, count in zip(LATENCY_SECONDS, latency, strict=False):
        if count and below + count >= rank:
            return 1000 * (low + (bound - low) * (rank - below) / count)
        below, low = below + count, bound
    return 1000 * LATENCY_SECONDS[-1]


def model_health(plan: TrafficPlan | None, plane: PlaneHealth, seen: Traffic) -> tuple[str, str]:
    """well, attention, down or idle, and why."""
    if plan is None:
        return "idle", ""
    if not plane.workers:
        return "down", plane.reason
    digests = {r.digest for r in plan.routes}
    reports = [r for w in plane.workers for r in w.releases if r.digest in digests]
    refused = next((r for r in reports if r.state != "loaded"), None)
    if refused is not None:
        return ("attention" if any(r.state == "loaded" for r in reports) else "down"), refused.reason
    if plane.state != "current":
        return "attention", plane.reason
    if seen.errors > TOO_MANY_ERRORS * seen.requests:
        return "attention", f"{seen.errors:,} of {seen.requests:,} requests failed"
    looked_up = sum(seen.features.values())
    stale = looked_up - seen.features.get("present", 0)
    if stale > TOO_STALE * looked_up:
        return (
            "attention",
            f"{100 * stale / looked_up:.3g} % of the feature look-ups found no fresh value: materialise the views",
        )
    return "well", ""


def curves(points: Mapping[str, list[tuple[int, float]]]) -> tuple[Curve, ...]:
    """One curve a metric. `train_auc` and `validation_auc` are two lines of `auc`; any other name is its own."""
    grouped: dict[str, list[Line]] = {}
    for key, line in points.items():
        part, _, metric = key.partition("_")
        known = part in PARTS and metric
        grouped.setdefault(metric if known else key, []).append(Line(part if known else key, tuple(line)))
    return tuple(Curve(metric, tuple(lines)) for metric, lines in grouped.items())


def main_curve(all_curves: tuple[Curve, ...]) -> Curve | None:
    """The first curve that compares parts of the data, else the first."""
    return next((c for c in all_curves if len(c.lines) > 1), all_curves[0] if all_curves else None)


def gate(filed: Statement, content: Finding | FalajError) -> Gate:
    """A gate with the finding of its statement, or with what is wrong with that."""
    if isinstance(content, FalajError):
        problem = f"its signed statement does not hold: {content.message}"
        content = judge(GateSpec(filed.gate), Measurement(filed.gate, None, problem=problem))
        return Gate(content, filed.envelope, filed.predicate_type, filed.created_at, filed.gate in MANDATORY_NAMES)
    measured = content.measurement
    by_slice = measured.detail.get("slices") if content.gate.kind == "slice" else None
    slices = _slices(content.gate, by_slice) if isinstance(by_slice, dict) else ()
    detail = {k: v for k, v in measured.detail.items() if k != "slices" or not slices}
    shown = msgspec.structs.replace(content, measurement=msgspec.structs.replace(measured, detail=detail))
    mandatory = content.gate.name in MANDATORY_NAMES
    return Gate(shown, filed.envelope, filed.predicate_type, filed.created_at, mandatory, slices)


def _slices(spec: GateSpec, measured: dict[str, dict[str, object]]) -> tuple[Slice, ...]:
    """The slices of a slice gate, largest first, each judged by the gate's own limit."""
    slices = []
    for name, entry in measured.items():
        value, judged = entry.get("value"), bool(entry.get("judged"))
        number = float(value) if isinstance(value, int | float) else None
        verdict: Verdict | None = judge(spec, Measurement(spec.name, number)).verdict if judged else None
        rows = entry.get("rows")
        slices.append(Slice(name, rows if isinstance(rows, int) else 0, number, judged, verdict))
    return tuple(sorted(slices, key=lambda s: (-s.rows, s.name)))


# the channel, stage by stage


def data_fact(sources: tuple[str, ...], heads: Mapping[str, DatasetVersion]) -> StageFact:
    """The datasets that a model reads, at their newest versions."""
    there = [heads[name] for name in sources if name in heads]
    missing = [name for name in sources if name not in heads]
    if not there:
        return StageFact("data", f"{_words(sources)} not loaded yet" if sources else "", state="dry")
    rows = f"{sum(h.rows for h in there):,} rows"
    headline = ", ".join(f"{h.name} v{h.version}" for h in there)
    if missing:
        return StageFact("data", headline, f"{rows}; {_words(missing)} not loaded yet", "waiting")
    return StageFact("data", headline, rows)


def features_fact(views: tuple[ViewUse, ...], requested: int, filled: Mapping[str, Materialization]) -> StageFact:
    """The views that a model looks up, and whether the online store has these very versions of them."""
    own = f"{requested} from the request"
    if not views:
        return StageFact("features", own, "no feature view", "flowing" if requested else "dry")
    headline = f"{_count(len(views), 'view')}, {own}"
    there = [filled[v.name] for v in views if v.name in filled and filled[v.name].digest == v.digest]
    missing = [v.name for v in views if v.name not in filled or filled[v.name].digest != v.digest]
    if missing:
        return StageFact("features", headline, f"not materialised: {_words(missing)}", "waiting")
    keys = sum(m.keys for m in there)
    return StageFact(
        "features", headline, f"{keys:,} keys online, as of {min(m.as_of for m in there)[:16].replace('T', ' ')}"
    )


def training_fact(task: str, runs: list[Run]) -> StageFact:
    """The newest training run; `runs` come newest first."""
    if not runs:
        return StageFact("training", "", state="dry")
    newest, headline = runs[0], _count(len(runs), "training run")
    if newest.state == "failed":
        return StageFact("training", headline, f"the newest failed: {newest.reason}", "stopped")
    if newest.state == "running":
        return StageFact("training", headline, "one is running", "waiting")
    metric = next((m for m in METRICS.get(task, ()) if f"validation_{m}" in newest.metrics), "")
    value = newest.metrics.get(f"validation_{metric}")
    return StageFact("training", headline, f"{metric} {value:.4g} on validation" if value is not None else "")


def evidence_fact(newest: Judged | None) -> StageFact:
    """How many gates the newest version passes, by statements that were verified now."""
    if newest is None:
        return StageFact("evidence", "", state="dry")
    gates, version = newest.version.gates, newest.version
    failing = unpassed(gates, newest.verdicts)
    headline = f"{len(gates) - len(failing) if gates else 0} of {_count(len(gates), 'gate')} passed"
    if version.state == "candidate" and not newest.verdicts:
        return StageFact("evidence", f"{_at(version)} is being measured", _count(len(gates), "gate"), "waiting")
    return StageFact("evidence", headline, "; ".join([_at(version), *failing]), "stopped" if failing else "flowing")


def registry_fact(registered: list[ModelVersion], newest: Judged | None) -> StageFact:
    """The newest version that has a number: does it wait for people, and what did they say."""
    if not registered or newest is None:
        return StageFact("registry", "", state="dry")
    version, headline = newest.version, _count(len(registered), "version")
    if version.state == "awaiting approval":
        count = f"{newest.approvals} of {_count(newest.needed or version.approvals, 'approval')}"
        return StageFact("registry", headline, f"{_at(version)} awaits approval: {count}", "waiting")
    if version.state == "registered":
        return StageFact("registry", headline, f"{_at(version)} is before staging", "waiting")
    if version.state in ("rejected", "refused"):
        return StageFact("registry", headline, f"{_at(version)} was {version.state}", "stopped")
    return StageFact("registry", headline, f"{_at(version)} has {_count(newest.approvals, 'approval')}")


def rollout_fact(
    plan: TrafficPlan | None,
    names: Mapping[str, str],
    newest: ModelVersion | None,
    last: Rollout | None = None,
) -> StageFact:
    """Who gets which share of the traffic; `names` are references by digest, `last` is the newest rollout."""
    if last is not None and not last.ended:
        challenger = f"@{names.get(last.challenger, short(last.challenger))}"
        stable = f"@{names.get(last.stable, short(last.stable))}"
        headline = f"{challenger} as a shadow" if last.stage == "shadow" else f"canary {challenger} at {last.weight} %"
        return StageFact("rollout", headline, f"{100 - last.weight} % to {stable}", "waiting")
    planned = {r.digest for r in plan.routes} if plan else set()
    under_way = f"{_at(newest)} is approved and not released" if newest and newest.state == "approved" else ""
    if under_way and newest and newest.digest in planned:
        under_way = f"{_at(newest)} is being released"
    if plan is None:
        return StageFact("rollout", under_way, state="waiting" if under_way else "dry")
    shares = (f"{r.weight} % to @{names.get(r.digest, short(r.digest))}" for r in plan.routes if r.role != "shadow")
    shadows = [f"shadow @{names.get(r.digest, short(r.digest))}" for r in plan.routes if r.role == "shadow"]
    rolled_back = newest is not None and newest.state == "rolled back"
    back = [f"{_at(newest)} was rolled back"] if newest is not None and rolled_back else []
    detail = "; ".join([*shadows, *([under_way] if under_way else []), *back])
    state = "stopped" if rolled_back else "waiting" if under_way else "flowing"
    return StageFact("rollout", ", ".join(shares), detail, state)


def answering(version: ModelVersion, weight: int | None, killed: Killed | None) -> tuple[str, int | None]:
    """A version's state and share as callers see them: of a killed model only what was declared answers, if anything."""
    if killed is None:
        return version.state, weight
    if killed.digest == version.digest:
        return "in its place", 100
    return (version.state, None) if weight is None else ("killed", 0)


def serving_fact(plan: TrafficPlan | None, plane: PlaneHealth, seen: Traffic) -> StageFact:
    """Whether the data plane has loaded what the plan says."""
    if plan is None:
        return StageFact("serving", "", state="dry")
    state, reason = model_health(plan, plane, seen)
    if not plane.workers:
        return StageFact("serving", "no data plane runs", "it loads the version when it starts", "waiting")
    if state == "down":
        return StageFact("serving", "the data plane refused it", reason, "stopped")
    slow = quantile_ms(seen.latency, 0.99)
    headline = _count(seen.requests, "request") + (f", p99 {slow:.3g} ms" if slow is not None else "")
    workers = f"{_count(len(plane.workers), 'worker')}, generation {plane.generation}"
    if plane.state != "current":
        return StageFact("serving", headline, plane.reason, "waiting")
    return StageFact("serving", headline, workers)


def monitoring_fact(
    plan: TrafficPlan | None, plane: PlaneHealth, seen: Traffic, window: tuple[str, str, DriftReport] | None = None
) -> StageFact:
    """The verdict of the serving version's newest `window` (its first day, the day after its last, its report).

    Without one, what the data plane counts: failed requests, and look-ups that found no fresh value.
    """
    if window is not None:
        start, end, report = window
        words = {Verdict.FAILED: "drifted", Verdict.SUCCESSFUL: "no drift"}.get(report.verdict, "not decided")
        parts = [report.reason]
        if plan is not None and plane.workers and seen.requests:
            parts.append(f"{_count(seen.errors, 'error')} in {_count(seen.requests, 'request')}")
        state = "flowing" if report.verdict is Verdict.SUCCESSFUL else "waiting"
        return StageFact("monitoring", f"{words}, {start[:10]} to {end[:10]}", "; ".join(parts), state)
    if plan is None or not plane.workers or not seen.requests:
        return StageFact("monitoring", "", state="dry")
    state, _ = model_health(plan, plane, seen)
    looked_up = sum(seen.features.values())
    parts = [f"{100 * n / looked_up:.3g} % {status}" for status, n in sorted(seen.features.items(), reverse=True) if n]
    detail = f"feature look-ups: {', '.join(parts)}" if parts else ""
    return StageFact(
        "monitoring",
        f"{_count(seen.errors, 'error')} in {_count(seen.requests, 'request')}",
        detail,
        "waiting" if state == "attention" else "flowing",
    )


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _words(names: Iterable[str]) -> str:
    return ", ".join(names)


def _at(version: ModelVersion) -> str:
    """A version on its own model's page, where the model's name says nothing new."""
    return "@" + version.alias.rpartition("@")[2]
