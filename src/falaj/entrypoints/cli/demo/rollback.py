"""Rollback: versions that pass every gate offline, answer differently live, and lose their traffic."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from falaj.entrypoints.cli.client import running_control_plane
from falaj.entrypoints.cli.commands.home import start
from falaj.entrypoints.cli.demo import traffic
from falaj.entrypoints.cli.demo.rolling import ROUNDS, roll_out
from falaj.entrypoints.cli.demo.stage import MINUTES, MODEL, Stage
from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.errors import FalajError, Unavailable
from falaj.lifecycle.serving.service import live_workers

BIASED = {"scale_pos_weight": 4, "n_estimators": 240}
"""Late flights weigh four times as much: the order of the scores is as good as before, the scores are not."""
HIGH = {"objective": "quantile", "alpha": 0.7}
"""The delay that seven flights in ten stay below, instead of the mean: the errors are as small, the answers far higher."""


def rollback(stage: Stage) -> None:
    """Two versions that pass every gate offline and answer differently live.

    One is seen while it is only mirrored. The other gets its share of the traffic at once, and loses it
    by the data plane's own guard while the control plane is stopped.
    """
    stage.begin("rollout", "Rollback", "two versions that passed offline answer differently live")
    ended = _try(stage, MODEL, BIASED, None)
    if ended is not None:
        stage.keep_refusal("a version with shifted answers", "shadow", ended["error"]["error"])
    ended = _try(stage, MINUTES, HIGH, lambda: _without_control_plane(stage))
    trip = _trip(stage)
    if ended is not None and trip is not None:
        stage.keep_refusal("a version with moved answers", "canary", ended["error"]["error"])
        stage.done(
            f"bad answers served {trip['bad_answers']}; first bad answer → verdict {trip['to_verdict']:.2f} s; "
            f"verdict → no traffic {trip['to_zero']:.3f} s; failed requests {stage.counted['failed']}",
            **trip,
        )


def _try(stage: Stage, model: str, params: dict[str, Any], between: Callable[[], None] | None) -> dict[str, Any] | None:
    """Build with these parameters and roll out; returns how it was rolled back.

    None if the bytes were tried before, or a gate stopped them already: on other data than the usual they may be worse.
    """
    try:
        built = stage.flow(f"/api/v1/models/{model}/builds", {"params": params, "as_of": iso(stage.now())})
    except FalajError as e:
        if e.code != "gate_failed":
            raise
        stage.refused(f"{model} with {params} gets no further than its gates", e)
        return None
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
    ended = roll_out(stage, version, stage.last_flights(), between)
    if ended["state"] != "failed":  # on other data than the usual it may not be different enough
        stage.note(f"{version} answers no differently than its limits allow, and keeps the traffic")
        return None
    return ended


def _without_control_plane(stage: Stage) -> None:
    """Stop the control plane, go on asking until the guard has acted, start it again: it carries the rollout on."""
    flights = stage.last_flights()  # while there is a control plane to say which day it is
    running = running_control_plane(stage.settings.home)
    if running is None:
        raise Unavailable(
            "the control plane is gone", hint="see its log in the home's run folder", code="server_unreachable"
        )
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while running_control_plane(stage.settings.home) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    stage.note("the control plane is stopped; requests go on")
    shares: Counter[str] = Counter()
    for turn in range(ROUNDS):
        asked = traffic.ask(stage, flights, f"alone-{turn}", MINUTES)
        shares.update(asked.by_version)
        if _trip(stage) is not None:
            told = ", ".join(f"{n:,} by {who}" for who, n in sorted(shares.items()))
            stage.note(f"the data plane's own guard has acted: {told}")
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
