"""Retraining: what follows from an incident of drift.

A retraining is a build like any other, started by the platform for the incident that asks for it.
One incident starts one (its id names the flow), and none starts within the cooldown of the last.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from falaj.kernel.access import SYSTEM
from falaj.kernel.clock import Clock, iso, parse_iso
from falaj.kernel.log import logger
from falaj.lifecycle.loop.model import BUILD_FLOW
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.monitoring.model import Incident
from falaj.lifecycle.monitoring.policy import RetrainPolicy
from falaj.lifecycle.training.service import TrainingService
from falaj.workflow.flow import Workflows

_log = logger(__name__)


def flow_of(incident: str) -> str:
    """The id of the flow that an incident starts, if it starts one."""
    return f"rtr_{incident.partition('_')[2]}"


class Retraining:
    """Drift becomes a build, at most one a cooldown."""

    def __init__(
        self,
        definitions: DefinitionService,
        training: TrainingService,
        flows: Workflows,
        clock: Clock,
        retrains: Callable[[str], bool],
    ) -> None:
        """`retrains`: whether a model's risk tier and inventory let the platform train it by itself."""
        self._retrains = retrains
        self._definitions = definitions
        self._training = training
        self._flows = flows
        self._clock = clock

    def consider(self, incident: Incident) -> str:
        """Start a retraining if the model's policy asks for one; returns the flow's id, empty for none."""
        if incident.kind != "drift":
            return ""
        policy = self._policy(incident.model)
        if policy is None or self._cooling(incident, policy.cooldown_seconds):
            return ""
        flow = flow_of(incident.id)
        payload = {"model": incident.model, "params": {}, "as_of": iso(self._clock.now()), "actor": SYSTEM.name}
        self._flows.start(BUILD_FLOW, flow, payload)
        _log.info("retraining_started", model=incident.model, incident=incident.id, flow=flow)
        return flow

    def flow_of(self, incident: str) -> str:
        """As the function of this name, for those who are handed this object."""
        return flow_of(incident)

    def next_of(self, model: str) -> tuple[bool, str]:
        """(whether drift starts a retraining of this model, when the next may start: empty for now, or for never)."""
        policy, last = self._policy(model), self._last(model)
        if policy is None:
            return False, ""
        until = last + timedelta(seconds=policy.cooldown_seconds) if last else None
        return True, iso(until) if until and until > self._clock.now() else ""

    def _policy(self, model: str) -> RetrainPolicy | None:
        """What the applied project asks for; None when it does not ask or does not define the model any more, or when the
        model's tier leaves that to a person."""
        applied = self._definitions.newest()
        found = [m.retrain for m in applied.definition.models if m.name == model] if applied else []
        return found[0] if found and found[0].on_drift and self._retrains(model) else None

    def _cooling(self, incident: Incident, seconds: int) -> bool:
        """Whether the platform itself trained this model within the cooldown."""
        last = self._last(incident.model)
        return last is not None and last > self._clock.now() - timedelta(seconds=seconds)

    def _last(self, model: str) -> datetime | None:
        """When the platform itself last began to train this model."""
        return max(
            (parse_iso(r.started_at) for r in self._training.runs(model) if r.author == SYSTEM.name), default=None
        )
