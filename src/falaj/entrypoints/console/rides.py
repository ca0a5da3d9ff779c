"""A rollout as a picture needs it: its reaches, its figures, its curves. Pure rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from falaj.entrypoints.console.sights import Figure, Reach, Trip
from falaj.entrypoints.console.views import Curve, Line
from falaj.kernel.clock import parse_iso
from falaj.lifecycle.monitoring.analysis import TrialReport
from falaj.lifecycle.monitoring.model import Slot
from falaj.lifecycle.rollout.strategy import Limits, Rollout
from falaj.lifecycle.serving.model import GuardReport

WIDTHS = (1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400)
"""Seconds of one slot of a curve."""
MOST_SLOTS = 120
UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


class Move(msgspec.Struct, frozen=True):
    """An entry of the audit log about a rollout: when, and its detail."""

    at: str
    detail: dict[str, Any]


def reaches(rollout: Rollout, moves: Sequence[Move]) -> tuple[Reach, ...]:
    """The steps of a rollout in their order and how it ends; `moves` are those of the log, oldest first.

    The log tells when each step began and how it was judged; where the rollout stands it says itself.
    """
    strategy = rollout.strategy
    plan = [("shadow", 0, strategy.shadow)] if strategy.shadow else []
    plan += [("canary", weight, strategy.requests) for weight in strategy.steps]
    begun = [m for m in moves if "generation" in m.detail]
    judged = [m for m in moves if "verdict" in m.detail]
    here = 0 if rollout.stage == "shadow" else rollout.step + len(plan) - len(strategy.steps)
    reached = (len(begun) or here + 1) if rollout.ended else here
    drawn: list[Reach] = []
    before = 0
    for i, (stage, weight, needed) in enumerate(plan):
        state = "passed" if i < reached else "skipped" if rollout.ended else "here" if i == here else "ahead"
        told = judged[i].detail if i < len(judged) and state == "passed" else {}
        began = begun[i].at if i < len(begun) else ""
        requests = told.get("requests")
        kept = requests if isinstance(requests, int) else None
        drawn.append(Reach(stage, weight, before, state, needed, kept, str(told.get("reason", "")), began))
        before = weight if state in ("passed", "here") or not rollout.ended else before
    aborted = rollout.stage == "aborted"
    end = Reach(
        "aborted" if aborted else "promoted", 0 if aborted else 100, before, "here" if rollout.ended else "ahead"
    )
    if rollout.ended:
        end = msgspec.structs.replace(end, reason=rollout.reason, began_at=rollout.updated_at)
    return (*drawn, end)


def figures(report: TrialReport, limits: Limits) -> tuple[Figure, ...]:
    """Each metric with what its evidence has to reach: worse for any of them ends a rollout, so the chance is shared."""
    found = []
    for m in report.metrics:
        name, _, column = m.metric.removesuffix("]").partition("[")
        found.append(
            Figure(
                metric=name,
                column=int(column) if column.isdigit() else None,
                verdict=m.verdict,
                margin=m.margin,
                stable=m.stable,
                challenger=m.challenger,
                pairs=m.pairs,
                worse=m.worse,
                worse_needed=len(report.metrics) / limits.alpha,
                fine=m.fine,
                fine_needed=1 / limits.alpha,
            )
        )
    return tuple(found)


def width_of(seconds: float) -> int:
    """The narrowest slot, in seconds, that divides a span into `MOST_SLOTS` or fewer; a day at the most."""
    return next((w for w in WIDTHS if seconds <= w * MOST_SLOTS), WIDTHS[-1])


def unit_of(width: int) -> tuple[str, int]:
    """The largest unit of which a width is a multiple, and its seconds."""
    return next((name, seconds) for name, seconds in UNITS if width % seconds == 0)


def curves(slots: Iterable[Slot], names: Mapping[str, str], span_us: tuple[int, int], width: int) -> tuple[Curve, ...]:
    """Requests and mean scores of the versions in `names` (digest → name), in its order; nothing without requests.

    Iterations count the unit of `width` from the slot in which the span begins. A slot without requests is a zero;
    one without a score is left out.
    """
    known: dict[tuple[str, int], Slot] = {(s.digest, s.number): s for s in slots}
    if not known:
        return ()
    _, seconds = unit_of(width)
    first, last = span_us[0] // (width * 1_000_000), span_us[1] // (width * 1_000_000)
    numbers = range(first, last + 1)
    step = width // seconds
    asked, scored = [], []
    for digest, name in names.items():
        here = [(n, known.get((digest, n))) for n in numbers]
        asked.append(Line(name, tuple(((n - first) * step, float(s.requests if s else 0)) for n, s in here)))
        known_scores = tuple(((n - first) * step, s.score) for n, s in here if s and s.score is not None)
        if known_scores:
            scored.append(Line(name, known_scores))
    return (Curve("requests", tuple(asked)), *((Curve("score", tuple(scored)),) if scored else ()))


def trips(reports: Iterable[GuardReport], model: str) -> tuple[Trip, ...]:
    """A model's trips, newest first, each once: workers share their memory. The fullest account of a trip holds."""
    known: dict[tuple[str, int], GuardReport] = {}
    for r in reports:
        key = (r.digest, r.generation)
        if r.model == model and (key not in known or r.bad_answers >= known[key].bad_answers):
            known[key] = r
    found = sorted(known.values(), key=lambda r: (r.tripped_at, r.generation), reverse=True)
    return tuple(
        Trip(
            alias=r.alias,
            reason=r.reason,
            observed=r.observed,
            limit=r.limit,
            count=r.count,
            bad_answers=r.bad_answers,
            tripped_at=r.tripped_at,
            generation=r.generation,
            to_verdict_ms=between_ms(r.first_bad_at, r.verdict_at),
            to_zero_ms=between_ms(r.verdict_at, r.zero_traffic_at),
        )
        for r in found
    )


def between_ms(start: str, end: str) -> float | None:
    """Milliseconds from one time to another; None where one of them is none."""
    try:
        return (parse_iso(end) - parse_iso(start)).total_seconds() * 1000
    except ValueError:
        return None
