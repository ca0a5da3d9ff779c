"""The year goes on: traffic, labels, drift, retraining, rollout, and a version that loses its traffic."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from falaj.entrypoints.cli.client import running_control_plane
from falaj.entrypoints.cli.commands.home import start
from falaj.entrypoints.cli.demo import flights, traffic
from falaj.entrypoints.cli.demo.rolling import ROUNDS, roll_out
from falaj.entrypoints.cli.demo.stage import MINUTES, MODEL, Followed, Stage
from falaj.entrypoints.cli.demo.story import LABELLED, LAST_DAY, ingest, morning, tell_build
from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.errors import FalajError, Unavailable
from falaj.lifecycle.serving.service import live_workers
from falaj.statistics.ranking import roc_auc

STEP_DAYS = 10
BIASED = {"scale_pos_weight": 3}
"""Late flights weigh three times as much: the order of the scores is as good as before, the scores are not."""
MEDIAN = {"objective": "quantile", "alpha": 0.5}
"""The median delay instead of the mean: a smaller absolute error, and answers a quarter of an hour lower."""


def year(stage: Stage) -> None:
    """One day in ten from April to December; what drifts opens an incident, and the platform trains again by itself."""
    stage.begin(
        "monitoring", "The year goes on", "traffic and labels → windows → drift → incident → retraining → rollout"
    )
    day = stage.now().date() + timedelta(days=1)
    days = [day + timedelta(days=n) for n in range((LAST_DAY - day).days + 1)]
    flights.write_data(stage.folder, [], days, into="timetable")
    landed = day - timedelta(days=1)
    while day <= LAST_DAY:
        _live_until(stage, landed, day)
        landed = day
        answered = traffic.ask_day(stage, day, day.isoformat())
        _tell_day(stage, day, answered)
        _follow_incidents(stage, day)
        day += timedelta(days=STEP_DAYS)


def _live_until(stage: Stage, landed: date, day: date) -> None:
    """Move the clock to the morning of `day`: what happened since lands in the lake, labels of the last answers arrive."""
    stage.set_clock(morning(day))
    since = landed
    while since < day:
        for name in ("flights", "weather"):
            source = stage.folder / "timetable" / f"{name}-{since}.csv"
            if source.exists():
                shutil.copyfile(source, stage.folder / "data" / source.name)
        since += timedelta(days=1)
    ingest(stage, "flights", "weather")
    stage.flow("/api/v1/features/materializations", {})
    waiting = stage.facts.pop("waiting", [])
    if waiting:
        stage.facts["labels"] = stage.facts.get("labels", 0) + traffic.push_labels(stage, waiting)["accepted"]


def _tell_day(stage: Stage, day: date, answered: traffic.Answered) -> None:
    stage.facts["waiting"] = stage.facts.get("waiting", []) + answered.labels(LABELLED)
    stage.facts["predictions"] += len(answered.answers)
    stage.facts["failed"] = stage.facts.get("failed", 0) + answered.failed
    stage.facts["prediction"] = answered.answers[-1][0]["parameters"]["prediction_id"]
    quality = roc_auc(answered.scored())
    stage.facts.setdefault("months", {}).setdefault(day.strftime("%Y-%m"), []).append(quality)
    shares = ", ".join(f"{n:,} by {who}" for who, n in answered.by_version.items())
    stage.note(f"{day}: {shares}; ROC AUC {quality:.3f}", roc_auc=quality, answered=answered.by_version)


def _follow_incidents(stage: Stage, day: date) -> None:
    """An incident that was opened since: tell it, wait for the retraining that it started, roll the result out."""
    for incident in stage.client().get("/api/v1/incidents"):
        if incident["state"] != "open" or incident["model"] != MODEL or incident["kind"] != "drift":
            continue
        if incident["id"] not in stage.facts.setdefault("incidents", []):
            stage.facts["incidents"].append(incident["id"])
            stage.done(f"drift opens {incident['id'][:12]}…: {incident['reason']}")
            _retrained(stage, incident, day)


def _retrained(stage: Stage, incident: dict[str, Any], day: date) -> None:
    flow = f"rtr_{incident['id'].partition('_')[2]}"
    try:
        events: list[dict[str, Any]] = []
        began = time.perf_counter()
        with stage.screen.progress() as show:

            def on_event(event: dict[str, Any]) -> None:
                events.append(event)
                show(event)

            result = stage.client().follow(flow, on_event)
    except FalajError as e:
        if e.kind == "not_found":
            stage.note("no retraining: the last one is within the cooldown")
        elif e.code == "gate_failed":
            stage.refused("the retrained version does not beat the champion", e)
        else:
            raise
        _resolve(stage, incident)
        return
    stage.done("the platform retrains by itself", seconds=time.perf_counter() - began)
    tell_build(stage, MODEL, Followed(result, tuple(events), time.perf_counter() - began))
    if result["state"] == "awaiting approval":
        roll_out(stage, result["version"], day)
    _resolve(stage, incident)


def _resolve(stage: Stage, incident: dict[str, Any]) -> None:
    stage.client("engineer").post(f"/api/v1/incidents/{incident['id']}/resolution")


def rollback(stage: Stage) -> None:
    """Two versions that pass every gate offline and answer differently live.

    One is seen while it is only mirrored. The other gets its share of the traffic at once, and loses it
    by the data plane's own guard while the control plane is stopped.
    """
    stage.begin("rollout", "Rollback", "two versions that passed offline answer differently live")
    day = stage.now().date()
    ended = _try(stage, MODEL, BIASED, day, None)
    if ended is not None:
        stage.facts.setdefault("refusals", []).append(
            ("a version with shifted answers", "shadow", ended["error"]["error"])
        )
    ended = _try(stage, MINUTES, MEDIAN, day, lambda: _without_control_plane(stage, day))
    trip = _trip(stage)
    if ended is not None and trip is not None:
        stage.facts.setdefault("refusals", []).append(
            ("a version with moved answers", "canary", ended["error"]["error"])
        )
        stage.done(
            f"bad answers served {trip['bad_answers']}; first bad answer → verdict {trip['to_verdict']:.2f} s; "
            f"verdict → no traffic {trip['to_zero']:.3f} s; failed requests {stage.facts.get('failed', 0)}",
            **trip,
        )


def _try(
    stage: Stage, model: str, params: dict[str, Any], day: date, between: Callable[[], None] | None
) -> dict[str, Any] | None:
    """Build with these parameters and roll out; returns how it was rolled back, None if the bytes were tried before."""
    built = stage.flow(f"/api/v1/models/{model}/builds", {"params": params, "as_of": iso(stage.now())})
    gates = [e for e in built.events if e.get("type") == "gate"]
    passed = sum(e["verdict"] == "Successful" for e in gates)
    version, state = built.result["version"], built.result["state"]
    stage.done(
        f"{version} with {params}: {passed} of {len(gates)} gates passed, it is {state}",
        built.result["digest"],
        built.seconds,
    )
    if state != "awaiting approval":
        stage.note("these very bytes were tried before")
        return None
    ended = roll_out(stage, version, day, between)
    if ended["state"] != "failed":
        raise Unavailable(f"{version} kept its traffic", hint="this is a fault: please report it")
    return ended


def _without_control_plane(stage: Stage, day: date) -> None:
    """Stop the control plane, go on asking until the guard has acted, start it again: it carries the rollout on."""
    running = running_control_plane(stage.settings.home)
    if running is None:
        raise Unavailable("the control plane is gone", hint="see its log in the home's run folder")
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while running_control_plane(stage.settings.home) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    stage.note("the control plane is stopped; requests go on")
    for turn in range(ROUNDS):
        asked = traffic.ask_day(stage, day, f"alone-{turn}", MINUTES)
        stage.facts["predictions"] += len(asked.answers)
        stage.facts["failed"] = stage.facts.get("failed", 0) + asked.failed
        if _trip(stage) is not None:
            stage.note(
                f"the data plane's own guard has acted: {', '.join(f'{n:,} by {w}' for w, n in asked.by_version.items())}"
            )
            break
    stage.reconnect(start(stage.settings)["control_plane"])
    stage.note("the control plane is back and carries the rollout on")


def _trip(stage: Stage) -> dict[str, Any] | None:
    """What the data plane's guard reports of its newest trip, with the seconds between its moments."""
    found = [g for w in live_workers(stage.settings.home / "plane") for g in w.guards]
    if not found:
        return None
    trip = max(found, key=lambda g: g.tripped_at)
    if not trip.zero_traffic_at:
        return None
    first, verdict, zero = (parse_iso(t) for t in (trip.first_bad_at, trip.verdict_at, trip.zero_traffic_at))
    return {
        "reason": trip.reason,
        "bad_answers": trip.bad_answers,
        "to_verdict": (verdict - first).total_seconds(),
        "to_zero": (zero - verdict).total_seconds(),
        "digest": trip.digest,
    }
