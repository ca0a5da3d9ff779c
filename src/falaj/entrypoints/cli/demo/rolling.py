"""Approval and rollout under traffic: what a version gets, and how it ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from falaj.entrypoints.cli.demo import traffic
from falaj.entrypoints.cli.demo.flights import Asked
from falaj.entrypoints.cli.demo.stage import Stage
from falaj.kernel.errors import Unavailable, from_dict
from falaj.lifecycle.serving.service import live_workers

ROUNDS = 40
"""How many times the same flights may be asked for until a rollout ends."""


class Rollout:
    """A rollout that was started by an approval, and the answers that were given during it."""

    def __init__(self, stage: Stage, version: str, flow: str) -> None:
        self._stage = stage
        self._flow = flow
        self._heard = 0  # the number of the last event of it
        self._began = time.perf_counter()
        self._shares: Counter[str] = Counter()
        self._first_day = stage.now().date()
        self.version = version
        self.model = version.partition("@")[0]
        self.failed = 0
        self.state: dict[str, Any] = {"state": "running"}

    def count(self, who: str, answers: int) -> None:
        """Add answers by the version that gave them."""
        self._shares[who] += answers

    def ended(self, wait: float = 0.0) -> bool:
        """Whether it has ended, once there is news of it or after `wait` seconds; then says how."""
        path = f"/api/v1/flows/{self._flow}"
        self.state = self._stage.client("risk-officer").get(path, after=self._heard, wait=wait)
        self._heard = max([self._heard, *(int(e["number"]) for e in self.state["events"])])
        if self.state["state"] == "running":
            return False
        self._tell()
        return True

    def ride(self, flights: list[Asked]) -> Rollout:
        """Ask for these flights, again and again, until it has ended; one that stays undecided is aborted by a person."""
        for turn in range(ROUNDS):
            answered = traffic.ask(self._stage, flights, f"{self.version}-{turn}", self.model)
            self.failed += answered.failed
            self._shares.update(answered.by_version)
            if self.ended(1.0):
                return self
        self._stage.note(
            f"{self.version} lies at the margin, so that no number of requests decides: a person aborts it"
        )
        self._stage.client("risk-officer").post(f"/api/v1/models/{self.model}/rollouts/orders", {"order": "abort"})
        for _ in range(ROUNDS):
            if self.ended(1.0):
                return self
        raise Unavailable(
            f"the rollout of {self.version} did not end", hint="see `falaj rollout status`", code="rollout_not_ended"
        )

    def _tell(self) -> None:
        told = ", ".join(f"{n:,} by {who}" for who, n in sorted(self._shares.items()))
        days = (self._stage.now().date() - self._first_day).days
        span = f"in {days} days of traffic: " if days else ""
        seconds = time.perf_counter() - self._began
        if self.state["state"] == "done":
            text = f"{self.version}: promoted step by step ({span}{told}; {self.failed} failed)"
            self._stage.done(text, self.state["result"]["digest"], 0.0 if days else seconds)
        else:
            text = f"{self.version} lost its traffic ({span}{told}; {self.failed} failed)"
            self._stage.refused(text, from_dict(self.state["error"]), 0.0 if days else seconds)


def approve(stage: Stage, version: str, reason: str) -> Rollout:
    """A risk officer approves a version, which starts its rollout."""
    model, _, number = version.partition("@")
    path = f"/api/v1/models/{model}/versions/{number}/approvals"
    answer = stage.client("risk-officer").post(path, {"reason": reason})
    stage.note(f"{version} approved by risk-officer")
    return Rollout(stage, version, answer["flow"])


def roll_out(
    stage: Stage, version: str, flights: list[Asked], between: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Approve a version and ask for these flights until its rollout has ended; returns the flow's last state."""
    rollout = approve(stage, version, "evidence read, compared with the champion")
    if between is not None:
        _await_canary(stage, rollout.model)
        between()
    return rollout.ride(flights).state


def _await_canary(stage: Stage, model: str) -> None:
    """Until the challenger has a share of the answers on the data plane."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        (newest, *_) = stage.client("risk-officer").get(f"/api/v1/models/{model}/rollouts")
        workers = live_workers(stage.settings.home / "plane")
        if newest["stage"] == "canary" and all(w.generation >= newest["generation"] > 0 for w in workers):
            return
        time.sleep(0.05)
    raise Unavailable(
        f"the canary of {model} did not begin", hint=f"see `falaj rollout status {model}`", code="rollout_not_begun"
    )
