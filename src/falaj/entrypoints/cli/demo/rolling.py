"""Approval and rollout under traffic: what a version gets, and how it ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Any

from falaj.entrypoints.cli.demo import traffic
from falaj.entrypoints.cli.demo.stage import Stage
from falaj.kernel.errors import Unavailable, from_dict
from falaj.lifecycle.serving.service import live_workers

ROUNDS = 12
"""How many times a day's flights may be asked until a rollout ends."""


def roll_out(stage: Stage, version: str, day: date, between: Callable[[], None] | None = None) -> dict[str, Any]:
    """Approve a version and ask the day's flights, again and again, until its rollout has ended."""
    model, _, number = version.partition("@")
    path = f"/api/v1/models/{model}/versions/{number}/approvals"
    answer = stage.client("risk-officer").post(path, {"reason": "evidence read, compared with the champion"})
    if between is not None:
        _await_canary(stage, model)
        between()
    return ride(stage, version, answer["flow"], day)


def ride(stage: Stage, version: str, flow: str, day: date) -> dict[str, Any]:
    """Ask the day's flights, again and again, until the rollout `flow` of a version has ended."""
    model = version.partition("@")[0]
    began, answered, failed = time.perf_counter(), 0, 0
    shares: Counter[str] = Counter()
    state: dict[str, Any] = {"state": "running"}
    for turn in range(ROUNDS):
        asked = traffic.ask_day(stage, day, f"{version}-{turn}", model)
        answered, failed = answered + len(asked.answers), failed + asked.failed
        shares.update(asked.by_version)
        state = stage.client("risk-officer").get(f"/api/v1/flows/{flow}", wait=1.0)
        if state["state"] != "running":
            break
    stage.facts["predictions"] = stage.facts.get("predictions", 0) + answered
    stage.facts["failed"] = stage.facts.get("failed", 0) + failed
    told = ", ".join(f"{n:,} by {who}" for who, n in sorted(shares.items()))
    seconds = time.perf_counter() - began
    if state["state"] == "done":
        stage.done(f"{version}: promoted step by step ({told}; {failed} failed)", state["result"]["digest"], seconds)
    elif state["state"] == "failed":
        stage.refused(f"{version} lost its traffic ({told}; {failed} failed)", from_dict(state["error"]), seconds)
    else:
        raise Unavailable(f"the rollout of {version} did not end", hint="see `falaj rollout status`")
    return {"failed": failed, "state": state["state"], "error": state.get("error")}


def _await_canary(stage: Stage, model: str) -> None:
    """Until the challenger has a share of the answers on the data plane."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        (newest, *_) = stage.client("risk-officer").get(f"/api/v1/models/{model}/rollouts")
        workers = live_workers(stage.settings.home / "plane")
        if newest["stage"] == "canary" and all(w.generation >= newest["generation"] > 0 for w in workers):
            return
        time.sleep(0.05)
    raise Unavailable(f"the canary of {model} did not begin", hint=f"see `falaj rollout status {model}`")
