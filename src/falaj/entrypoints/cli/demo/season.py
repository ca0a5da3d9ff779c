"""The year goes on: traffic, labels, drift, retraining, rollout.

Every second day, at an hour that takes turns, the clock moves on: what has landed since comes in, the online
store is filled, labels arrive, and the flights of the next three hours are asked for. What the platform makes of
that, it makes by itself; only the approvals are people's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from falaj.entrypoints.cli.demo import traffic
from falaj.entrypoints.cli.demo.flights import LAST_DAY
from falaj.entrypoints.cli.demo.rolling import Rollout, approve
from falaj.entrypoints.cli.demo.stage import MODEL, Followed, Stage
from falaj.entrypoints.cli.demo.story import live, tell_build
from falaj.kernel.errors import FalajError
from falaj.statistics.ranking import roc_auc

STEP_DAYS = 2
HOURS = (8, 17, 11, 20, 14, 23)
"""Hours in UTC at which flights are asked for, taking turns from one stop to the next: together the whole day."""
ASKED_AHEAD = timedelta(hours=3)


def year(stage: Stage) -> None:
    """From April to December: what drifts opens an incident, and the platform trains again by itself."""
    stage.begin(
        "monitoring", "The year goes on", "traffic and labels → windows → drift → incident → retraining → rollout"
    )
    season, began = _Season(stage), time.perf_counter()
    for moment in visits(stage.now().date() + timedelta(days=1)):
        season.visit(moment)
    season.end()
    if len(stage.months) > 1:
        _with_and_without(stage)
    if not season.visits:
        stage.note(f"the record ends on {LAST_DAY}: the year is over on this home")
    else:
        counted = stage.counted
        stage.done(
            f"{season.visits} times the clock moved on: {season.asked:,} flights asked for, {counted['labels']:,} labels "
            f"joined by prediction id, {counted['failed']} requests failed",
            seconds=time.perf_counter() - began,
            incidents=counted["incidents"],
            retrainings=counted["retrainings"],
            failed=counted["failed"],
        )


def _with_and_without(stage: Stage) -> None:
    """By month: the quality of what was answered, and what the first version would have had on the very same questions."""
    done = stage.flow(f"/api/v1/models/{MODEL}/versions/1/backtests", {"by": "month"})
    rows, events = [], []
    for period in done.result["periods"]:
        (auc,) = (f for f in period["figures"] if f["metric"] == "roc_auc")
        if auc["served"] is None or auc["version"] is None:
            continue
        who = ", ".join(f"{n:,} by @{alias.rpartition('@')[2]}" for alias, n in period["answered_by"].items())
        change = auc["served"] - auc["version"]
        rows.append(
            [period["start"][:7], f"{auc['served']:.3f}", f"{auc['version']:.3f}", f"{change:+.3f}", f"answered {who}"]
        )
        events.append({"month": period["start"][:7], "served": auc["served"], "without": auc["version"]})
    stage.done(
        "ROC AUC by month: as served, if @1 had gone on alone, and what retraining made of it",
        seconds=done.seconds,
        lines=["   ".join(row) for row in rows],
        months=events,
        reproduced=done.result["reproduced"],
    )


def visits(first: date) -> Iterator[datetime]:
    """When the clock stops, from `first` to the end of the record."""
    for n in range((LAST_DAY - first).days // STEP_DAYS + 1):
        day = first + timedelta(days=n * STEP_DAYS)
        yield datetime(day.year, day.month, day.day, HOURS[n % len(HOURS)], tzinfo=UTC)


class _Season:
    """What is under way while the year goes on."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._month = ""
        self._shares: dict[str, int] = defaultdict(int)
        self._rollout: Rollout | None = None
        self._known: set[str] = set()
        self.visits = 0
        self.asked = 0

    def visit(self, moment: datetime) -> None:
        """One stop of the clock."""
        stage = self._stage
        live(stage, moment)
        if self._rollout and self._rollout.ended():
            self._rollout = None
        self._follow_incidents()
        self._turn_month(moment)
        answered = traffic.ask(stage, stage.timetable.between(moment, moment + ASKED_AHEAD), moment.isoformat())
        self._keep(moment, answered)

    def end(self) -> None:
        """The rest of a rollout, and of the last month."""
        if self._rollout:
            self._rollout.ride(self._stage.timetable.of_day(self._stage.now().date()))
        self._turn_month(None)

    def _keep(self, moment: datetime, answered: traffic.Answered) -> None:
        stage = self._stage
        traffic.keep(stage, moment, answered)
        self.visits += 1
        self.asked += len(answered.answers)
        for who, count in answered.by_version.items():
            self._shares[who] += count
            if self._rollout:
                self._rollout.count(who, count)
        if self._rollout:
            self._rollout.failed += answered.failed

    def _turn_month(self, moment: datetime | None) -> None:
        """When a month is over, say how it went."""
        month = f"{moment:%Y-%m}" if moment else ""
        if self._month and month != self._month:
            pairs = self._stage.months.get(self._month, [])
            quality, late = roc_auc(pairs), sum(late for _, late in pairs) / max(1, len(pairs))
            shares = ", ".join(f"{n:,} by {who}" for who, n in sorted(self._shares.items()))
            self._stage.note(
                f"{self._month}: {shares}; ROC AUC {quality:.3f}, {late:.0%} late", roc_auc=quality, late=late
            )
            self._shares.clear()
        self._month = month

    def _follow_incidents(self) -> None:
        """An incident that was opened since: tell it, and wait for the retraining that it started."""
        stage = self._stage
        for incident in stage.client().get("/api/v1/incidents"):
            if incident["state"] == "open" and incident["model"] == MODEL and incident["id"] not in self._known:
                self._known.add(incident["id"])
                stage.count("incidents", 1)
                stage.done(f"{incident['kind']} opens {incident['id'][:12]}…: {incident['reason']}")
                if incident["kind"] == "drift":
                    self._retrained(incident)
                stage.client("engineer").post(f"/api/v1/incidents/{incident['id']}/resolution")

    def _retrained(self, incident: dict[str, Any]) -> None:
        stage, began = self._stage, time.perf_counter()
        events: list[dict[str, Any]] = []
        try:
            result = stage.follow(f"rtr_{incident['id'].partition('_')[2]}", events.append)
        except FalajError as e:
            if e.kind == "not_found":
                stage.note("no retraining: the last one is within the cooldown")
            elif e.code == "gate_failed":
                stage.count("retrainings", 1)
                stage.refused("the retrained version does not beat the champion", e)
            else:
                raise
            return
        stage.count("retrainings", 1)
        followed = Followed(result, tuple(events), time.perf_counter() - began)
        stage.done(f"the platform trains again by itself, on the 120 days before {stage.now():%d %B}")
        tell_build(stage, MODEL, followed)
        if result["state"] == "awaiting approval" and self._rollout is None:
            self._rollout = approve(stage, result["version"], "evidence read, compared with the champion")
