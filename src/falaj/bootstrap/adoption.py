"""What one may adopt alone, put together: scoring whole tables, watching what somebody else serves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
from fastapi import APIRouter

from falaj.governance.audit.model import Conditions
from falaj.governance.audit.service import AuditService
from falaj.governance.changes.killing import KillService
from falaj.governance.door import Door
from falaj.governance.identity.guard import Guard
from falaj.governance.identity.service import IdentityService
from falaj.governance.lineage.service import LineageService
from falaj.governance.signing.service import KeyService
from falaj.kernel.clock import Clock
from falaj.lifecycle.data import routes as data_routes
from falaj.lifecycle.data.service import DataService
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.monitoring import model as monitoring_model
from falaj.lifecycle.monitoring.external import ExternalService
from falaj.lifecycle.monitoring.external import Ports as ExternalPorts
from falaj.lifecycle.monitoring.flows import ExternalFlow
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.observer import Observer
from falaj.lifecycle.monitoring.reviews import service as reviewing
from falaj.lifecycle.monitoring.reviews.model import OVERDUE, REVIEW_DECIDE, Decided
from falaj.lifecycle.monitoring.reviews.service import ReviewService
from falaj.lifecycle.monitoring.reviews.store import SqlReviewStore
from falaj.lifecycle.monitoring.store import SqlExternalStore
from falaj.lifecycle.monitoring.tail import Tail
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.serving import model as serving_model
from falaj.lifecycle.serving import routes as serving_routes
from falaj.lifecycle.serving import scoring
from falaj.lifecycle.serving.flows import ScoreFlow
from falaj.lifecycle.serving.plane.journal import Prediction, read_record
from falaj.lifecycle.serving.service import ServingService
from falaj.storage.blobs.local import LocalBlobs
from falaj.storage.keychain import keys_of
from falaj.storage.parcels import Parcels
from falaj.storage.sql.sqlite import SqliteDatabase
from falaj.workflow.child import ChildRunner
from falaj.workflow.engine import DbosWorkflows


class Around(msgspec.Struct, frozen=True):
    """The parts of an open home that these stand on. `journal` is the folder of production's journal."""

    parcels: Parcels
    external: ExternalService
    journal: Path
    blobs: Path
    database: SqliteDatabase
    door: Door
    keys: KeyService
    identity: IdentityService
    lineage: LineageService
    definitions: DefinitionService
    data: DataService
    registry: RegistryService
    rollout: RolloutService
    serving: ServingService
    steps: ChildRunner
    workflows: DbosWorkflows
    clock: Clock
    kills: KillService


class Adoption:
    """Registers its flows when it is made; `routers` gives its routes."""

    def __init__(self, around: Around) -> None:
        self._a = around
        self.scoring = scoring.ScoreService(around.door, self._scoring())
        flow = ScoreFlow(self.scoring, around.steps, around.identity)
        around.workflows.register(serving_model.SCORE, flow.score)
        declaring = ExternalFlow(around.external, around.steps, around.identity)
        around.workflows.register(monitoring_model.EXTERNAL, declaring.declare)

    def routers(self, guard: Guard) -> list[APIRouter]:
        """The routes of these parts."""
        a = self._a
        return [
            data_routes.tables(a.parcels, a.door, guard),
            serving_routes.scores(self.scoring, a.workflows, guard, a.clock),
        ]

    def _scoring(self) -> scoring.Ports:
        a = self._a
        return scoring.Ports(
            definitions=a.definitions,
            versions=a.registry,
            champion=a.rollout.champion,
            release=a.serving.release,
            datasets=a.data,
            database=a.database,
            lineage=a.lineage,
            parcels=a.parcels,
            trust=lambda name: serving_model.trust_file(name, a.keys.records(), keys_of(a.journal).reader),
            blobs=a.blobs,
            journal=a.journal,
            killed=a.kills.check,
        )


def external_models(
    door: Door,
    database: SqliteDatabase,
    metrics: SqliteDatabase,
    blobs: LocalBlobs,
    lineage: LineageService,
    parcels: Parcels,
    own: tuple[RegistryService, DefinitionService, IncidentService, Path],
) -> ExternalService:
    """What somebody else serves, beside the home's own: its registry, its definitions, its incidents, its journal."""
    registry, definitions, incidents, journal = own

    def names() -> list[str]:
        applied = definitions.newest()
        declared = applied.definition.models if applied else ()
        return [*registry.models(), *(m.name for m in declared)]

    ports = ExternalPorts(
        database=database,
        metrics=metrics,
        store=SqlExternalStore(),
        blobs=blobs,
        lineage=lineage,
        parcels=parcels,
        names=names,
        own=registry,
        policies=definitions,
        alarms=incidents,
        journal=journal,
    )
    return ExternalService(door, ports)


def answer_reviews(
    door: Door,
    database: SqliteDatabase,
    policies: DefinitionService,
    seen: tuple[ExternalService, IncidentService, AuditService],
    journal: Path,
) -> ReviewService:
    """People's look at answers: the home's own, and those that somebody else's endpoint gave."""
    external, incidents, audit = seen

    def alarmed() -> set[str]:
        return {i.model for i in incidents.all() if i.kind == OVERDUE and i.state != "resolved"}

    def logged(review_id: str) -> Decided | None:
        found = audit.search(
            Conditions(action=REVIEW_DECIDE.name, resource_type="Review", resource_id=review_id, outcome="done")
        )
        if not found:
            return None
        entry, told = found[0].entry, found[0].entry.detail
        where = (told["prediction"], told["row"], told["model"], told["digest"])
        return Decided(told["decision"], entry.principal, told["code"], told["commitment"], where)

    ports = reviewing.Ports(
        database=database,
        store=SqlReviewStore(),
        policies=policies,
        versions=external,
        authors=external,
        logged=logged,
        alarms=incidents,
        alarmed=alarmed,
        record=partial(read_record, journal),
    )
    return ReviewService(door, ports)


def watching(
    journal: Path,
    cursors: dict[str, int],
    observer: Observer,
    reviews: ReviewService,
    external: ExternalService,
    registry: RegistryService,
) -> Tail:
    """The reader of the journal, for the home's own answers and for those that somebody else's endpoint gave."""

    def take(batch: list[Prediction], segment: str, end: int) -> None:
        first = external.first_of(batch)
        reviews.take(first)  # before the observer, who moves the cursor on
        observer(first, segment, end)

    def then() -> None:
        observer.judge(lambda: {**external.answering(), **registry.serving()})
        external.listen()
        reviews.look()

    return Tail(journal, cursors, take, then)
