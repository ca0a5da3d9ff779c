"""Where each model stands in the loop: what serves, what is on its way, what is wrong, what comes next."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.changes.service import ChangeService
from falaj.kernel.errors import NotFound
from falaj.lifecycle.loop.ports import Retrainings
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.model import EVERY_MODEL, Incident, WindowView
from falaj.lifecycle.monitoring.quality import QualityService
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.training.service import TrainingService
from falaj.workflow.flow import Workflows

_LOOKED_AT = 20  # incidents of drift, newest first, that may have started a retraining


class Named(msgspec.Struct, frozen=True):
    """A version: its name for people and its digest."""

    alias: str
    digest: str


class OnItsWay(msgspec.Struct, frozen=True):
    """The rollout that runs: the challenger's stage and its percent of the answers."""

    id: str
    challenger: Named
    stage: str
    weight: int
    started_at: str
    reason: str


class Retrained(msgspec.Struct, frozen=True):
    """The last retraining that an incident started. state: running | done | failed."""

    flow: str
    incident: str
    state: str
    opened_at: str
    version: str
    reason: str


class Awaiting(msgspec.Struct, frozen=True):
    """A version that people have to decide about."""

    alias: str
    digest: str
    approvals: int
    needed: int


class Standing(msgspec.Struct, frozen=True):
    """One model in the loop. `window` is the newest of the version that serves.

    `retrains` says whether drift starts a retraining, `retrain_from` when the next may start: the end of the
    cooldown, or empty when it may start now, or never does.
    """

    model: str
    serving: Named | None
    rollout: OnItsWay | None
    window: WindowView | None
    incidents: tuple[Incident, ...]
    retraining: Retrained | None
    retrains: bool
    retrain_from: str
    awaiting: tuple[Awaiting, ...]


class Loop(msgspec.Struct, frozen=True):
    """Every model, and the open incidents that concern all of them."""

    models: tuple[Standing, ...]
    incidents: tuple[Incident, ...]


class Ports(msgspec.Struct, frozen=True):
    """Whom the overview asks."""

    registry: RegistryService
    definitions: DefinitionService
    changes: ChangeService
    rollout: RolloutService
    training: TrainingService
    quality: QualityService
    incidents: IncidentService
    retraining: Retrainings
    flows: Workflows


class OverviewService:
    """Where each model stands in the loop."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    def loop(self) -> Loop:
        """Where everything stands now."""
        applied = self._p.definitions.newest()
        defined = [m.name for m in applied.definition.models] if applied else []
        names = sorted({*self._p.registry.models(), *defined})
        incidents = self._p.incidents.all()
        general = tuple(i for i in incidents if i.model == EVERY_MODEL and i.state != "resolved")
        return Loop(tuple(self._standing(name, incidents) for name in names), general)

    def _standing(self, model: str, incidents: list[Incident]) -> Standing:
        p = self._p
        versions = p.registry.versions(model)
        serving = next((v for v in versions if v.state == "serving"), None)
        retrains, retrain_from = p.retraining.next_of(model)
        return Standing(
            model=model,
            serving=_named(serving) if serving else None,
            rollout=self._rollout(model, versions),
            window=p.quality.window(model, serving.digest) if serving else None,
            incidents=tuple(i for i in incidents if i.model == model and i.state != "resolved"),
            retraining=self._retraining([i for i in incidents if i.model == model and i.kind == "drift"]),
            retrains=retrains,
            retrain_from=retrain_from,
            awaiting=tuple(self._awaiting(v) for v in versions if v.state == "awaiting approval"),
        )

    def _rollout(self, model: str, versions: list[ModelVersion]) -> OnItsWay | None:
        running = self._p.rollout.running(model)
        if running is None:
            return None
        challenger = next((_named(v) for v in versions if v.digest == running.challenger), None)
        return OnItsWay(
            id=running.id,
            challenger=challenger or Named("", running.challenger),
            stage=running.stage,
            weight=running.weight,
            started_at=running.started_at,
            reason=running.reason,
        )

    def _retraining(self, drifts: list[Incident]) -> Retrained | None:
        """The newest retraining of these incidents; most of them start none."""
        for incident in drifts[:_LOOKED_AT]:
            flow = self._p.retraining.flow_of(incident.id)
            try:
                state = self._p.flows.state(flow)
            except NotFound:
                continue
            result: dict[str, Any] = state.result or {}
            why = str((state.error or {}).get("error", ""))
            return Retrained(flow, incident.id, state.state, incident.opened_at, str(result.get("version", "")), why)
        return None

    def _awaiting(self, version: ModelVersion) -> Awaiting:
        count = len(self._p.changes.counting(self._p.registry.subject(version)))
        return Awaiting(version.alias, version.digest, count, self._p.registry.asked(version)[0])


def _named(version: ModelVersion) -> Named:
    return Named(version.alias, version.digest)
