"""Models that exist already, put together: their import, the waivers that admit them, and what follows when those end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from fastapi import APIRouter

from falaj.governance.door import Door
from falaj.governance.identity.guard import Guard
from falaj.governance.identity.service import IdentityService
from falaj.governance.lineage.service import LineageService
from falaj.governance.signing.service import KeyService
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.clock import Clock
from falaj.kernel.environments import ENVIRONMENTS
from falaj.kernel.lookout import Lookout
from falaj.kernel.settings import Settings
from falaj.lifecycle.evidence.service import EvidenceService
from falaj.lifecycle.loop.deciding import DecisionService
from falaj.lifecycle.loop.flows.defined import Defined
from falaj.lifecycle.loop.flows.importing import ImportFlow, Stages
from falaj.lifecycle.loop.flows.measuring import Measuring
from falaj.lifecycle.loop.waiving import Ports as WaivingPorts
from falaj.lifecycle.loop.waiving import WaivingService
from falaj.lifecycle.loop.withdrawing import Withdrawing
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.registry import routes as registry_routes
from falaj.lifecycle.registry import waivers
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.registry.store import SqlWaiverStore
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.training import imports
from falaj.lifecycle.training import routes as training_routes
from falaj.lifecycle.training.foreign import IMPORT_FLOW
from falaj.lifecycle.training.store import SqlImportStore
from falaj.storage.blobs.local import LocalBlobs
from falaj.storage.sql.sqlite import SqliteDatabase
from falaj.workflow.child import ChildRunner
from falaj.workflow.engine import DbosWorkflows

_LOOK_SECONDS = 5.0


class Around(msgspec.Struct, frozen=True):
    """The parts of an open home that these stand on. `rollouts` by environment; `also` is looked after with the waivers."""

    settings: Settings
    database: SqliteDatabase
    door: Door
    blobs: LocalBlobs
    identity: IdentityService
    lineage: LineageService
    defined: Defined
    measuring: Measuring
    evidence: EvidenceService
    registry: RegistryService
    waivers: waivers.WaiverService
    rollouts: Mapping[str, RolloutService]
    withdrawing: Withdrawing
    incidents: IncidentService
    steps: ChildRunner
    workflows: DbosWorkflows
    clock: Clock
    also: Callable[[], None]


class Intake:
    """Registers its flow when it is made; `routers` gives its routes, and between `start` and `stop` it looks at waivers."""

    def __init__(self, around: Around) -> None:
        a = self._a = around
        ports = imports.Ports(a.database, SqlImportStore(), a.blobs, a.lineage)
        self.imports = imports.ImportService(a.door, ports)
        self.flow = ImportFlow(self._stages())
        a.workflows.register(IMPORT_FLOW, self.flow.bring_in)
        self.waiving = WaivingService(
            WaivingPorts(
                a.registry, a.waivers, a.evidence, a.rollouts, a.withdrawing, a.workflows, a.incidents, a.clock
            )
        )
        self._watch = Lookout("lookout", _LOOK_SECONDS, "lookout_failed", self.waiving.look, a.also)

    def start(self) -> None:
        """Begin to look after waivers."""
        self._watch.start()

    def stop(self) -> None:
        """End, and wait for the look that is under way."""
        self._watch.stop()

    def routers(self, guard: Guard, decisions: DecisionService) -> list[APIRouter]:
        """The routes of these parts."""
        a = self._a
        ports = training_routes.ImportPorts(self.imports, self.flow, a.workflows, a.clock, decisions.check_model)
        return [
            training_routes.build_imports(ports, guard),
            registry_routes.build_waivers(a.registry, self.waiving, guard),
        ]

    def _stages(self) -> Stages:
        a = self._a
        return Stages(
            defined=a.defined,
            imports=self.imports,
            evidence=a.evidence,
            registry=a.registry,
            measuring=a.measuring,
            steps=a.steps,
            principals=a.identity,
            clock=a.clock,
            memory_mb=a.settings.step_memory_mb,
            hidden=(str(a.settings.home),),
        )


def waiver_service(
    door: Door, database: SqliteDatabase, blobs: LocalBlobs, evidence: EvidenceService, lineage: LineageService,
    signing: tuple[Mapping[str, EnvelopeSigner], KeyService], days: int,
) -> waivers.WaiverService:  # fmt: skip
    """Waivers, signed with the key of each environment, so that each data plane can read them."""
    signers, keys = signing
    public = tuple(keys.keys(name) for name in ENVIRONMENTS)
    own = tuple(signers[name] for name in ENVIRONMENTS)
    ports = waivers.Ports(database, SqlWaiverStore(), blobs, evidence, lineage, own, public, days)
    return waivers.WaiverService(door, ports)
