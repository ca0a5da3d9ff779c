"""The control plane, put together: one home, one SQL writer, the stages, the API.

Opening a home: take its lock → keys → database and its migration → door → stages → flows → routes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from falaj.bootstrap import encryption, scratch
from falaj.bootstrap.adoption import Adoption, Around, answer_reviews, external_models, watching
from falaj.bootstrap.intake import Around as IntakeAround
from falaj.bootstrap.intake import Intake, waiver_service
from falaj.bootstrap.keeping import assembly as keeping
from falaj.bootstrap.layout import Layout, check_database, keep_token, take_lock
from falaj.bootstrap.oversight import Around as OversightAround
from falaj.bootstrap.oversight import Oversight, fallbacks, inventory_service, kill_service
from falaj.bootstrap.runtime import runtime_list
from falaj.bootstrap.signing_in import sign_ins
from falaj.bootstrap.vouching import Vouching
from falaj.bootstrap.witnessed import origin_of, tell_refusals, witnesses_of
from falaj.governance.audit import model as audit_model
from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.rotating import LogKeyService
from falaj.governance.audit.rotating import settle as settle_log_key
from falaj.governance.audit.service import AuditService
from falaj.governance.audit.sharding import ShardService
from falaj.governance.audit.store import SqlAuditStore
from falaj.governance.audit.veil import Veil
from falaj.governance.changes import model as changes_model
from falaj.governance.changes.service import ChangeService
from falaj.governance.changes.store import SqlApprovalStore
from falaj.governance.door import Door
from falaj.governance.identity import model as identity_model
from falaj.governance.identity.guard import Guard
from falaj.governance.identity.service import IdentityService, SessionService
from falaj.governance.identity.store import SqlIdentityStore
from falaj.governance.lineage import model as lineage_model
from falaj.governance.lineage.service import LineageService
from falaj.governance.lineage.store import SqlLineageStore
from falaj.governance.policy import model as policy_model
from falaj.governance.policy.informed import InformedDecider
from falaj.governance.policy.service import PolicyInForce, PolicyService
from falaj.governance.policy.store import SqlPolicyStore
from falaj.governance.signing import model as signing_model
from falaj.governance.signing import storekeys
from falaj.governance.signing.keys import KeyRing, plane_key, public_pem
from falaj.governance.signing.service import KeyService, LiveFingerprints
from falaj.governance.signing.signer import EnvelopeSigner, ModelSigner
from falaj.governance.signing.store import SqlKeyStore
from falaj.kernel.access import SYSTEM, Action, Principal
from falaj.kernel.clock import HomeClock, SystemClock
from falaj.kernel.environments import DEV, ENVIRONMENTS, MEASUREMENT, PRODUCTION, STAGING
from falaj.kernel.errors import Integrity, Unavailable
from falaj.kernel.lookout import Lookout
from falaj.kernel.settings import Settings
from falaj.lifecycle.data import model as data_model
from falaj.lifecycle.data import service as data
from falaj.lifecycle.data.flows import DataFlows
from falaj.lifecycle.data.store import SqlDatasetStore
from falaj.lifecycle.evidence import model as evidence_model
from falaj.lifecycle.evidence import service as evidence
from falaj.lifecycle.evidence.store import SqlStatementStore
from falaj.lifecycle.features import model as features_model
from falaj.lifecycle.features import service as features
from falaj.lifecycle.features.flows import FeatureFlows
from falaj.lifecycle.features.store import SqlMaterializationStore
from falaj.lifecycle.loop import environments, starting, withdrawing
from falaj.lifecycle.loop import model as loop_model
from falaj.lifecycle.loop.cancelling import CancelService, cancelled
from falaj.lifecycle.loop.deciding import DecisionPorts, DecisionService
from falaj.lifecycle.loop.dossier import model as dossier_model
from falaj.lifecycle.loop.environments import EnvironmentService
from falaj.lifecycle.loop.flows import measuring
from falaj.lifecycle.loop.flows.build import BuildFlow, Stages
from falaj.lifecycle.loop.flows.defined import Defined
from falaj.lifecycle.loop.flows.release import ReleaseFlow
from falaj.lifecycle.loop.flows.retrain import Retraining
from falaj.lifecycle.loop.flows.rollout import RolloutFlow
from falaj.lifecycle.loop.flows.rollout import Stages as RolloutStages
from falaj.lifecycle.loop.flows.staging import Stages as StagingStages
from falaj.lifecycle.loop.flows.staging import StagingFlow
from falaj.lifecycle.loop.keeping import model as keeping_model
from falaj.lifecycle.loop.overseeing import Permissions
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.loop.starting import StartService
from falaj.lifecycle.loop.store import SqlDefinitionStore
from falaj.lifecycle.loop.withdrawing import Withdrawing
from falaj.lifecycle.monitoring import analyst, backtest, observer, quality
from falaj.lifecycle.monitoring import model as monitoring_model
from falaj.lifecycle.monitoring.flows import BacktestFlow
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.reviews import model as reviews_model
from falaj.lifecycle.monitoring.service import DeadMan, MonitoringService, Watch
from falaj.lifecycle.monitoring.store import SqlIncidentStore, SqlRecordStore
from falaj.lifecycle.registry import model as registry_model
from falaj.lifecycle.registry import service as registry
from falaj.lifecycle.registry.store import SqlVersionStore
from falaj.lifecycle.rollout import model as rollout_model
from falaj.lifecycle.rollout import strategy as rollout_strategy
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.rollout.service import Stores as RolloutStores
from falaj.lifecycle.rollout.store import SqlPlanStore, SqlRolloutStore
from falaj.lifecycle.serving import journals
from falaj.lifecycle.serving import model as serving_model
from falaj.lifecycle.serving import service as serving
from falaj.lifecycle.serving.flows import ShipFlow
from falaj.lifecycle.serving.journals import JournalService, Shipper
from falaj.lifecycle.serving.ports import NoKills, Tokens
from falaj.lifecycle.serving.process import (
    Guests,
    Measuring,
    MeasuringPlanes,
    PlaneFolders,
    SharedPlane,
    plane_folder,
)
from falaj.lifecycle.serving.store import SqlBundleStore, SqlSegmentStore
from falaj.lifecycle.training import foreign as foreign_model
from falaj.lifecycle.training import model as training_model
from falaj.lifecycle.training import service as training
from falaj.lifecycle.training.store import SqlImportStore, SqlRunStore
from falaj.storage.blobs.local import LocalBlobs
from falaj.storage.lake.places import check_place
from falaj.storage.parcels import Parcels
from falaj.storage.sql.migrate import migrate
from falaj.storage.sql.sqlite import SqliteDatabase, explained
from falaj.workflow.child import ChildRunner
from falaj.workflow.engine import DbosWorkflows
from falaj.workflow.events import EventLog

OWNER = "owner"
_LOOK_SECONDS = 10.0
_STAGES = (
    audit_model, signing_model, changes_model, identity_model, policy_model, lineage_model, data_model, features_model,
    training_model, evidence_model, registry_model, rollout_model, rollout_strategy, serving_model, monitoring_model, reviews_model,
    loop_model, keeping_model, foreign_model, dossier_model,
)  # fmt: skip


def actions() -> tuple[Action, ...]:
    """Every action that there is, with the stage that declares it."""
    return tuple(a for module in _STAGES for a in module.ACTIONS)


class ControlPlane:
    """An opened home. `close` ends its flows, publishes what is committed and gives the lock back."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.layout = Layout(check_place(settings.home))
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ExitStack() as undo:  # a home that cannot be opened is given back
            undo.callback(os.close, take_lock(self.layout.lock))
            self.clock = HomeClock(settings.home)
            keeping.check_keys(self.layout.keys, self.layout.database)
            self.keys = KeyRing(self.layout.keys, settings.signers)
            check_database(self.layout.database, self.layout.audit)
            self.database = SqliteDatabase(self.layout.database)
            undo.callback(self.database.close)
            migrate(self.database, keep=self.layout.database)
            self.store_keys = encryption.opened(self.keys, self.database, self.layout.home)
            self.metrics = SqliteDatabase(self.layout.metrics, durable=False)
            undo.callback(self.metrics.close)
            self._govern()
            self._stages()
            self._steps()
            self._flows()
            self.keeping = keeping.Keeping(self)
            self.vouching = Vouching(self)
            self._opened = undo.pop_all()

    def start(self) -> None:
        """Carry on what was under way, publish the log, create the first principal of a new home."""
        self.publisher.start()
        self._first_principal()
        try:
            self.workflows.launch()
        except DatabaseError as e:
            raise explained(e, self.layout.flows) from e
        self.vouching.revoking.resume()
        self._publish_anew()
        self._tell_of_policy()
        self.watch.start()
        self.turning.start()
        self.intake.start()
        self.observer.load([*self.registry.models(), *self.external.names()])
        self.tail.start()
        self.shipper.start()

    def close(self) -> None:
        """Stop everything in the order in which nothing is taken for a failure, and give the home back.

        What fails to stop does not keep the rest from it; it is raised at the end.
        """
        in_order: tuple[Callable[[], object], ...] = (
            self.keeping.stop,
            self.intake.stop,
            self.shipper.stop,
            self.watch.stop,
            self.turning.stop,
            self.tail.stop,
            self.external.close,
            self.steps.dismiss_all,  # while the loop that their pipes belong to runs
            self.workflows.close,  # before the children: one that is ended below is no failure of its flow
            self.steps.stop,
            self.staging_plane.close,
            partial(scratch.remove, self.layout.scratch),
            self.publisher.stop,
        )
        with self._opened as last:
            for stop in reversed(in_order):
                last.callback(stop)

    # putting together

    def _govern(self) -> None:
        settle_log_key(self.keys, self.layout.audit, self.database, SqlAuditStore())
        origin = origin_of(self.layout.audit, self.settings.audit_origin)
        self.witnesses = witnesses_of(self.settings.witnesses)
        self.publisher = Publisher(
            self.database, SqlAuditStore(), self.layout.audit, self.keys.log, origin, self.clock, self.witnesses
        )
        self.audit = AuditService(self.database, SqlAuditStore(), self.publisher)
        self.veil = Veil(self.keys.pepper)
        in_force = PolicyInForce(actions())
        self.informed = InformedDecider(in_force)
        self.door = Door(self.database, self.informed, self.audit, self.clock)
        self.identity = IdentityService(self.database, SqlIdentityStore(), self.door, self.keys.pepper, actions())
        self.policy = PolicyService(self.database, SqlPolicyStore(), self.door, in_force, self.identity.holders)
        self.sessions = SessionService(self.identity, SystemClock())
        self.sign_ins = sign_ins(self.settings, self.identity, self.door)
        self.lineage = LineageService(self.database, SqlLineageStore(), self.clock)
        self.changes = ChangeService(self.database, SqlApprovalStore(), self.door)
        self.guard = Guard(self.identity, self.door)
        self.signing = KeyService(self.keys, self.database, SqlKeyStore(), self.door)
        self.log_keys = LogKeyService(self.keys, self.publisher, self.database, SqlAuditStore(), self.door)
        self.shards = ShardService(
            self.publisher, self.database, SqlAuditStore(), self.door, self.settings.audit_shards
        )
        self.turning = Lookout("audit-shards", _LOOK_SECONDS, "audit_shard_failed", self.shards.turn)
        self.signer = EnvelopeSigner(lambda: self.keys.attestation)
        self.signers = {name: EnvelopeSigner(partial(self.keys.of, name)) for name in ENVIRONMENTS}
        self.blobs = LocalBlobs(self.layout.blobs, partial(self.store_keys.keys, storekeys.BLOBS))
        self.blobs.sweep()

    def _stages(self) -> None:
        database, door, lineage, layout = self.database, self.door, self.lineage, self.layout
        self.definitions = DefinitionService(database, SqlDefinitionStore(), door, layout.projects)
        self.data = data.DataService(
            door, data.Ports(database, SqlDatasetStore(), self.definitions, lineage, layout.lake, self.settings.project)
        )
        self.features = features.FeatureService(
            door,
            features.Ports(database, SqlMaterializationStore(), self.definitions, self.data, lineage, layout.online),
        )
        self.events = EventLog(self.metrics, self.clock)
        self.training = training.TrainingService(
            door, training.Ports(database, SqlRunStore(), lineage, self.events, SqlImportStore())
        )
        self.evidence = evidence.EvidenceService(
            door,
            evidence.Ports(
                database, SqlStatementStore(), self.blobs, lineage, self.signer,
                self.signing.keys("attestation"),
            ),
        )  # fmt: skip
        self.waivers = waiver_service(
            door, database, self.blobs, self.evidence, lineage, (self.signers, self.signing), self.settings.waiver_days
        )
        self.inventory = inventory_service(door, database, self.definitions, self.settings)
        self.kills = kill_service(door, database)
        self.permissions = Permissions(self.inventory)
        stores = RolloutStores(SqlPlanStore(), SqlRolloutStore())
        self.rollouts = {n: RolloutService(database, stores, door, n, self.permissions) for n in ENVIRONMENTS}
        self.rollout = self.rollouts[PRODUCTION]
        self.registry = registry.RegistryService(
            door,
            registry.Ports(
                database,
                SqlVersionStore(),
                self.blobs,
                self.evidence,
                self.changes,
                self.rollout,
                lineage,
                registry_model.environments(self.settings.approvals, self.settings.staging_approvals),
                self.signers,
                {name: self.signing.keys(name) for name in ENVIRONMENTS},
                self.signing.keys("model"),
                self.inventory,
                self.waivers,
            ),
        )
        self.fallbacks = fallbacks(self.kills, self.registry, self.rollout, self.clock)
        self._planes()
        self._monitoring()

    def _planes(self) -> None:
        """What tells each environment's data planes what to serve; dev's are private, each measures one candidate."""
        layout, keys = self.layout, self.keys
        layout.online.mkdir(exist_ok=True, mode=0o700)
        guests = Guests(self.identity, keys.pepper, self.clock)
        self.serving = self._serving(PRODUCTION, self._target(PRODUCTION), self.identity)
        self.staging = self._serving(STAGING, self._target(STAGING), guests)
        self.identity.on_change(self._publish_access)
        self.policy.on_change(self._publish_access)
        staged = PlaneFolders(plane_folder(layout.home, STAGING), layout.blobs, layout.online, layout.home)
        self.staging_plane = SharedPlane(self.staging, staged, guests)
        measuring = self._serving(DEV, serving_model.Target("", MEASUREMENT, ""), self.identity)
        folders = PlaneFolders(layout.plane, layout.blobs, layout.online, layout.home)
        trust = partial(self._trust, MEASUREMENT)
        self.probe = MeasuringPlanes(
            measuring, Measuring(layout.scratch, folders, trust, keys.pepper, self.clock, MEASUREMENT)
        )

    def _trust(self, name: str) -> serving_model.TrustFile:
        """Whom an environment's data planes trust now."""
        return serving_model.trust_file(name, self.signing.records(), self.store_keys.reader())

    def _target(self, name: str) -> serving_model.Target:
        """An environment's own data plane, with its trust root in its folder."""
        folder = plane_folder(self.layout.home, name)
        serving.prepare_folder(folder, self._trust(name))
        return serving_model.Target(str(folder), name, public_pem(plane_key(folder)))

    def _serving(self, name: str, target: serving_model.Target, tokens: Tokens) -> serving.ServingService:
        """Serving as an environment has it: its plans, its key, its policy."""
        ports = serving.Ports(
            self.database, SqlBundleStore(), self.rollouts[name], self.registry, self.blobs, tokens, self.signers[name],
            self.keys.pepper, partial(self.policy.layers, name), self.fallbacks if name == PRODUCTION else NoKills(),
            partial(self.store_keys.keys, storekeys.ONLINE),
            partial(self.definitions.owners, "models"),
        )  # fmt: skip
        return serving.ServingService(self.door, ports, target)

    def _monitoring(self) -> None:
        records, journal = SqlRecordStore(), self.layout.plane / "journal"
        self.metrics.change(records.create)
        self.monitoring = MonitoringService(self.serving)
        self.incidents = IncidentService(self.database, SqlIncidentStore(), self.door)
        if self.witnesses is not None:
            self.witnesses.trouble = partial(tell_refusals, self.incidents)
        self.parcels = Parcels(self.layout.home / "parcels", SystemClock())
        self.external = external_models(
            self.door, self.database, self.metrics, self.blobs, self.lineage, self.parcels,
            (self.registry, self.definitions, self.incidents, journal),
        )  # fmt: skip
        self.observer = observer.Observer(
            observer.Ports(self.metrics, records, self.external, self.external, self.incidents, self.clock)
        )
        self.reviews = answer_reviews(
            self.door,
            self.database,
            self.definitions,
            (self.external, self.incidents, self.audit),
            journal,
        )
        cursors = self.metrics.read(records.cursors)
        self.tail = watching(journal, cursors, self.observer, self.reviews, self.external, self.registry)
        dead_man = DeadMan(self.tail, self.incidents, self.settings.evaluator_seconds)
        self.watch = Watch(self.serving, dead_man)
        self.journals = JournalService(
            self.door, journals.Ports(self.database, SqlSegmentStore(), journal, self.layout.lake / "predictions")
        )
        self.analyst = analyst.JournalAnalyst(
            analyst.Ports(journal, self.observer, self.serving, self.tail, self.metrics, records, self.registry)
        )
        self.quality = quality.QualityService(
            self.door, quality.Ports(self.metrics, records, self.external, self.observer, self.external.claim)
        )
        self.backtests = backtest.BacktestService(
            self.door,
            backtest.Ports(
                self.metrics, records, self.registry, self.training, self.blobs, self.journals, journal,
                self.layout.lake / "predictions",
            ),
        )  # fmt: skip

    def set_clock(self, shows: datetime, rate: float) -> None:
        """Move the home's clock, and look at what is due by it before anything else happens."""
        self.clock.set(shows, rate)
        self.tail.catch_up(_LOOK_SECONDS)

    def _publish_access(self) -> None:
        """Tokens, roles or the policy changed: tell the data planes, and give them a moment to follow."""
        for environment in (self.serving, self.staging):
            environment.settle(environment.publish(SYSTEM.name), 2.0)

    def _publish_anew(self) -> None:
        """Each data plane finds a bundle that it can read; the home's first, or the first since its key was made anew.

        What such a bundle lacks, a signature that is gone perhaps, is told and does not keep the home from opening: a
        home must open to be mended, and without a bundle nothing takes traffic.
        """
        troubles = []
        for environment in (self.serving, self.staging):
            name, folder = environment.target.environment, Path(environment.target.folder)
            try:
                if environment.generation() == 0 or not environment.readable_with(plane_key(folder)):
                    environment.publish(SYSTEM.name)
                environment.project()
            except (Integrity, Unavailable) as e:  # a signature that is gone, or a signer that is away
                troubles.append(f"{name} has no bundle that its data plane can read: {e.message}")
        if troubles:
            self.incidents.open(monitoring_model.EVERY_MODEL, monitoring_model.BUNDLE, "", "; ".join(troubles))
        else:
            self.incidents.settle(monitoring_model.EVERY_MODEL, monitoring_model.BUNDLE)

    def _tell_of_policy(self) -> None:
        """A home's policy that this release cannot hold: somebody must see it, for only administrators can act."""
        if self.policy.trouble:
            self.incidents.open(monitoring_model.EVERY_MODEL, monitoring_model.POLICY, "", self.policy.trouble)
        else:
            self.incidents.settle(monitoring_model.EVERY_MODEL, monitoring_model.POLICY)

    def _steps(self) -> None:
        limits = {"memory_mb": self.settings.step_memory_mb, "seconds": self.settings.step_seconds}
        self.steps = ChildRunner(self.layout.scratch, **limits, keys=partial(encryption.for_step, self))
        self.steps.sweep()
        scratch.lay_out(self.layout.scratch, self.settings.scratch)  # empty: every step begins anew

    def _flows(self) -> None:
        self.workflows = DbosWorkflows(self.layout.flows, self.events, partial(cancelled, self.door))
        self.cancelling = CancelService(self.door, self.workflows, self.steps)
        staging = self._staging_flow()
        self.defined = Defined(self.definitions, self.data)
        self.measuring = self._measuring()
        self.build = BuildFlow(
            Stages(
                defined=self.defined,
                training=self.training,
                evidence=self.evidence,
                registry=self.registry,
                measuring=self.measuring,
                staging=staging,
                steps=self.steps,
                principals=self.identity,
                clock=self.clock,
                runtime=self.blobs.put(runtime_list()),
            )
        )
        self.workflows.register(data_model.INGEST, DataFlows(self.data, self.steps, self.identity).ingest)
        materialize = FeatureFlows(self.features, self.steps, self.identity).materialize
        self.workflows.register(features_model.MATERIALIZE, materialize)
        self.workflows.register(loop_model.BUILD_FLOW, self.build.build)
        self.workflows.register(loop_model.STAGING_FLOW, staging.stage)
        self.environments = self._environments()
        release = ReleaseFlow(self.registry, self.rollout, self.serving).release
        self.workflows.register(loop_model.RELEASE_FLOW, release)
        stages = RolloutStages(self.registry, self.rollout, self.serving, self.analyst, self.permissions)
        self.workflows.register(loop_model.ROLLOUT_FLOW, RolloutFlow(stages).roll_out)
        self.retraining = Retraining(
            self.definitions, self.training, self.workflows, self.clock, self.permissions.retrains
        )
        self.incidents.on_open(self.retraining.consider)
        self.workflows.register(serving_model.SHIP, ShipFlow(self.journals, self.steps).ship)
        self.shipper = Shipper(self.journals, self.workflows, self.incidents)
        flow = BacktestFlow(self.backtests, self.steps, self.identity)
        self.workflows.register(monitoring_model.BACKTEST, flow.backtest)
        self.adoption = self._adopted()
        planes = {STAGING: self.staging, PRODUCTION: self.serving}
        self.withdrawing = Withdrawing(withdrawing.Ports(self.registry, self.rollouts, planes, self.clock))
        self.oversight = self._oversight(planes)
        self.intake = self._intake()
        self.starts = StartService(
            starting.Ports(self.registry, self.rollout, self.definitions, self.workflows, self.clock)
        )
        self.decisions = DecisionService(
            DecisionPorts(
                registry=self.registry,
                changes=self.changes,
                flows=self.workflows,
                definitions=self.definitions,
                rollout=self.rollout,
                starts=self.starts,
                clock=self.clock,
                promotions=self.permissions,
            )
        )

    def _measuring(self) -> measuring.Measuring:
        return measuring.Measuring(
            measuring.Tools(
                registry=self.registry,
                champions=self.rollout,
                probe=self.probe,
                blobs=self.blobs,
                steps=self.steps,
                clock=self.clock,
                environment=PRODUCTION,
                signer=ModelSigner(self.keys),
                approvals=self.settings.approvals,
            )
        )

    def _adopted(self) -> Adoption:
        """What one may adopt alone."""
        return Adoption(
            Around(
                self.parcels, self.external, self.layout.plane / "journal", self.layout.blobs, self.database, self.door, self.signing,
                self.identity, self.lineage, self.definitions, self.data, self.registry, self.rollout, self.serving,
                self.steps, self.workflows, self.clock, self.kills,
            )
        )  # fmt: skip

    def _oversight(self, planes: dict[str, serving.ServingService]) -> Oversight:
        return Oversight(
            OversightAround(
                self.database, self.door, self.audit, self.inventory, self.kills, self.fallbacks, self.changes,
                self.waivers, self.definitions, self.registry, self.training, self.rollouts, planes, self.quality,
                self.reviews, self.incidents, self.withdrawing, self.clock, self.data, self.informed, self.settings.region,
                self.layout.plane / "journal", self.veil, self.workflows, self.policy, self.identity,
            )
        )  # fmt: skip

    def _intake(self) -> Intake:
        return Intake(
            IntakeAround(
                self.settings, self.database, self.door, self.blobs, self.identity, self.lineage, self.defined,
                self.measuring, self.evidence, self.registry, self.waivers, self.rollouts,
                self.withdrawing, self.incidents, self.steps, self.workflows, self.clock, self.oversight.look,
            )
        )  # fmt: skip

    def _environments(self) -> EnvironmentService:
        return EnvironmentService(
            environments.Ports(
                registry=self.registry,
                changes=self.changes,
                flows=self.workflows,
                rollouts=self.rollouts,
                serving={STAGING: self.staging, PRODUCTION: self.serving},
                keys=LiveFingerprints(self.signing, ENVIRONMENTS),
                policy=self.policy.layers,
                door=self.door,
                clock=self.clock,
            )
        )

    def _staging_flow(self) -> StagingFlow:
        return StagingFlow(
            StagingStages(
                registry=self.registry,
                training=self.training,
                rollout=self.rollouts[STAGING],
                serving=self.staging,
                plane=self.staging_plane,
                blobs=self.blobs,
                steps=self.steps,
                clock=self.clock,
                journal=str(self.layout.plane / "journal"),
                tls=(self.settings.tls, self.settings.trust_domain),
            )
        )

    def _first_principal(self) -> None:
        """A new home gets one administrator: whoever owns the folder. Its token lies in the home, for its owner only.

        The token is written down before it is granted and gets its name after it, at this start or the next.
        """
        promised = self.layout.tokens / f".{OWNER}.new"
        if not self.identity.principals():
            self.layout.tokens.mkdir(exist_ok=True, mode=0o700)
            owner = Principal(OWNER, "person", ("platform-admin",))
            self.identity.grant(SYSTEM, owner, 366, "first-principal", partial(keep_token, promised))
        if promised.exists():
            promised.replace(self.layout.tokens / OWNER)
