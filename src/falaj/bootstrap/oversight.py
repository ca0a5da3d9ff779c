"""Oversight, put together: the inventory and what follows from it, the kill switch, change records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from fastapi import APIRouter

from falaj.governance.audit.service import AuditService
from falaj.governance.audit.veil import Veil
from falaj.governance.changes import oversight
from falaj.governance.changes.breaking import GlassService
from falaj.governance.changes.glass import Glass
from falaj.governance.changes.holding import QuarantineService
from falaj.governance.changes.killing import KillService
from falaj.governance.changes.oversight import InventoryService
from falaj.governance.changes.ports import Declarations
from falaj.governance.changes.service import ChangeService
from falaj.governance.changes.store import SqlGlassStore, SqlHoldStore, SqlInventoryStore, SqlKillStore, SqlReviewStore
from falaj.governance.changes.tiers import tier_of
from falaj.governance.door import Door
from falaj.governance.identity.guard import Guard
from falaj.governance.identity.service import IdentityService
from falaj.governance.policy.informed import InformedDecider
from falaj.governance.policy.service import PolicyService
from falaj.kernel.clock import Clock, SystemClock
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.settings import Settings
from falaj.lifecycle.data.service import DataService
from falaj.lifecycle.loop import holding, inventory, overseeing, restrictions, tenants
from falaj.lifecycle.loop.deciding import DecisionService
from falaj.lifecycle.loop.holding import HoldingService
from falaj.lifecycle.loop.inventory import InventoryView
from falaj.lifecycle.loop.overseeing import OverseeingService
from falaj.lifecycle.loop.records import home
from falaj.lifecycle.loop.records import service as records
from falaj.lifecycle.loop.records.home import HomeRecords
from falaj.lifecycle.loop.records.service import RecordService
from falaj.lifecycle.loop.restrictions import DataFacts
from falaj.lifecycle.loop.routes import glass as glass_routes
from falaj.lifecycle.loop.routes import oversight as routes
from falaj.lifecycle.loop.routes import quarantine as quarantine_routes
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.loop.tenants import ProjectFacts
from falaj.lifecycle.loop.withdrawing import Withdrawing
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.model import EVERY_MODEL
from falaj.lifecycle.monitoring.quality import QualityService
from falaj.lifecycle.monitoring.reviews import routes as review_routes
from falaj.lifecycle.monitoring.reviews.service import ReviewService
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.registry.waivers import WaiverService
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.serving import killing
from falaj.lifecycle.serving.killing import Fallbacks
from falaj.lifecycle.serving.plane.journal import read_record
from falaj.lifecycle.serving.service import ServingService
from falaj.lifecycle.training.service import TrainingService
from falaj.lifecycle.training.store import SqlImportStore
from falaj.storage.sql.sqlite import SqliteDatabase
from falaj.workflow.flow import Workflows


def inventory_service(
    door: Door, database: SqliteDatabase, declarations: Declarations, settings: Settings
) -> InventoryService:
    """The inventory, for the stages that ask it. Raises `Invalid` for a default tier that does not exist."""
    default = tier_of(settings.default_tier).name
    ports = oversight.Ports(
        database, SqlInventoryStore(), SqlKillStore(), declarations, default, settings.approval_days
    )
    return InventoryService(door, ports)


def kill_service(door: Door, database: SqliteDatabase) -> KillService:
    """The kill switch."""
    return KillService(database, SqlKillStore(), door)


def fallbacks(kills: KillService, registry: RegistryService, rollout: RolloutService, clock: Clock) -> Fallbacks:
    """What answers in place of killed models, where callers are answered."""
    return Fallbacks(killing.Ports(kills, registry, rollout.champion, rollout.served_last, PRODUCTION, clock))


class Around(msgspec.Struct, frozen=True):
    """The parts of an open home that oversight stands on. `rollouts` and `serving` by environment."""

    database: SqliteDatabase
    door: Door
    audit: AuditService
    inventory: InventoryService
    kills: KillService
    fallbacks: Fallbacks
    changes: ChangeService
    waivers: WaiverService
    definitions: DefinitionService
    registry: RegistryService
    training: TrainingService
    rollouts: Mapping[str, RolloutService]
    serving: Mapping[str, ServingService]
    quality: QualityService
    reviews: ReviewService
    incidents: IncidentService
    withdrawing: Withdrawing
    clock: Clock
    data: DataService
    informed: InformedDecider
    region: str
    journal: Path
    veil: Veil
    flows: Workflows
    policy: PolicyService
    identity: IdentityService


class Oversight:
    """`routers` gives its routes; `look` is to be called now and then."""

    def __init__(self, a: Around) -> None:
        self._a = a
        self.overseeing = OverseeingService(
            overseeing.Ports(
                a.registry, a.inventory, a.kills, a.changes, a.fallbacks, a.rollouts, a.serving, a.withdrawing, a.clock
            )
        )
        quarantine = QuarantineService(a.database, SqlHoldStore(), a.door)
        self.restrictions = DataFacts(
            restrictions.Ports(quarantine, a.definitions, a.data, a.registry, a.training, a.region)
        )
        self.tenants = ProjectFacts(
            tenants.Ports(
                a.definitions, a.registry, a.training, a.incidents, quarantine, a.audit, a.veil, a.flows, self._imported,
                self._predicted, self._reviewed, self._rolled,
            )
        )  # fmt: skip
        a.informed.learn_from(self.restrictions, whose=self.tenants)
        self.glass = GlassService(a.database, SqlGlassStore(), a.door, SystemClock(), self._alert)
        a.informed.allow_in_emergencies(self.glass.of)
        self.holding = HoldingService(
            holding.Ports(
                quarantine, self.restrictions, a.data, a.registry, a.withdrawing, self.overseeing.take_out, a.door
            )
        )
        self.records = RecordService(
            a.door,
            records.Ports(
                a.database, SqlReviewStore(), a.audit, a.registry, a.rollouts[PRODUCTION], a.changes, a.waivers,
                a.inventory, a.kills,
                HomeRecords(
                    home.Ports(
                        a.audit, a.policy, a.identity, self.glass, quarantine, a.registry, a.definitions,
                        lambda model: a.inventory.governed(model).tier.name,
                    )
                ),
            ),
        )  # fmt: skip
        self.view = InventoryView(
            inventory.Ports(
                a.inventory, a.definitions, a.registry, a.training, a.rollouts, a.quality, a.incidents, a.fallbacks
            )
        )

    def look(self) -> None:
        """Carry out what a crash cut short."""
        self.overseeing.look()
        self.holding.look()
        self.glass.look()

    def _imported(self, name: str) -> str:
        """The model of an import; empty when there is none of this id."""
        found = self._a.database.read(lambda tx: SqlImportStore().get(tx, name))
        return found.model if found else ""

    def _rolled(self, name: str) -> str:
        """The model of a rollout. Raises `NotFound`."""
        return self._a.rollouts[PRODUCTION].rollout(name).model

    def _predicted(self, name: str) -> str:
        """The model of a prediction. Raises `NotFound`."""
        return read_record(self._a.journal, name).model

    def _reviewed(self, name: str) -> str:
        """The model of a review; empty when there is none of this id."""
        found = self._a.reviews.find(name)
        return found.model if found else ""

    def _alert(self, glass: Glass) -> str:
        """An incident of its own for each, which nobody but a person resolves."""
        reason = f"break-glass: {glass.words}: {glass.reason}"
        return self._a.incidents.open(EVERY_MODEL, f"break_glass {glass.id}", "", reason).id

    def routers(self, guard: Guard, decisions: DecisionService) -> list[APIRouter]:
        """The routes of these parts."""
        ports = routes.Ports(
            self._a.registry,
            self._a.inventory,
            self.view,
            self.overseeing,
            self.records,
            decisions.check_model,
            self._a.door,
            self._a.veil,
        )
        return [
            routes.build(ports, guard),
            quarantine_routes.build(self.holding, guard),
            glass_routes.build(self.glass, guard),
            review_routes.build(self._a.reviews, guard),
        ]
