"""The console over a real home: what the pages show, from the services of an opened control plane."""

from __future__ import annotations

import re

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from falaj.bootstrap.control_plane import ControlPlane, actions
from falaj.entrypoints.console import facts
from falaj.entrypoints.console.cases import CaseReader
from falaj.entrypoints.console.logbook import LogBook
from falaj.entrypoints.console.sights import DriftPage, IncidentsPage, ReviewPage, ReviewsPage, RolloutPage
from falaj.entrypoints.console.views import (
    AdmissionFact,
    Approval,
    AuditPage,
    AuditQuery,
    Dataset,
    EvidencePage,
    Frame,
    Gate,
    Input,
    LatestRun,
    ModelPage,
    Overseen,
    Overview,
    Plane,
    RehearsalFact,
    Replay,
    RunPage,
    Served,
    Signature,
    StageFact,
    VerifyReport,
    Version,
)
from falaj.entrypoints.console.watch import WatchReader
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import iso, replay_of
from falaj.kernel.digests import sha256, short
from falaj.kernel.environments import PRODUCTION, STAGING
from falaj.kernel.errors import FalajError, NotFound
from falaj.lifecycle.evidence.model import GateSpec, judge, worst
from falaj.lifecycle.loop.model import ModelDefinition
from falaj.lifecycle.monitoring.model import Incident, PlaneHealth
from falaj.lifecycle.monitoring.reviews.model import Word
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.rollout.model import TrafficPlan, champion
from falaj.lifecycle.training.model import ModelContract, Run, ViewUse

RECENT = 8
"""Refusals on the overview, and on a model's page."""
ACTION_NAMES = tuple(sorted(a.name for a in actions()))
SIGNATURE = "OpenSSF model signature (Sigstore bundle, ECDSA P-256)"
_NUMBER = re.compile(r"[1-9]\d{0,8}\Z")
_START = re.compile(r"[0-9a-f]{7,64}\Z")


class HomeReader:
    """A `ConsoleReader` over the services of one home. Reads only; what it reads of the log is audited there."""

    def __init__(self, plane: ControlPlane) -> None:
        self._p = plane
        self._log = LogBook(plane.audit, plane.publisher, plane.door)
        self._watch = WatchReader(plane, self._log)
        self._cases = CaseReader(plane)

    def frame(self) -> Frame:
        """What every page shows around itself."""
        p = self._p
        applied, moved = p.definitions.newest(), replay_of(p.layout.home)
        return Frame(
            home=applied.definition.name if applied else p.layout.home.name,
            environment=PRODUCTION,
            now=iso(p.clock.now()),
            replay=Replay(iso(moved.shows), moved.rate) if moved else None,
            glass=tuple(g.words for g in p.oversight.glass.in_force()),
        )

    def overview(self, viewer: Principal) -> Overview:
        """What serves, and whether it is well."""
        health = self._p.monitoring.plane()
        names, incidents = self._models(), self._watch.open_incidents()
        served = [self._served(name, health, [i for i in incidents if i.model == name]) for name in sorted(names)]
        served.sort(key=lambda s: s.health == "idle")
        return Overview(
            models=tuple(served),
            plane=_plane(health),
            datasets=self._datasets(),
            refusals=self._log.refusals(viewer, RECENT, names),
            checkpoint=self._log.checkpoint(),
            incidents=len(incidents),
            reviews=self._cases.waiting(),
            watched=self._watch.watched(),
        )

    def model(self, viewer: Principal, name: str) -> ModelPage:
        """One model: its channel, versions and runs. Raises `NotFound`."""
        p = self._p
        self._check_model(name)
        versions, runs, plan = self._versions(name), p.training.runs(name), p.rollout.plan(name)
        definition = self._definition(name)
        contract = self._contract(versions[0]) if versions and definition is None else None
        about = definition or contract
        return ModelPage(
            name=name,
            task=about.task if about else "",
            label=about.label if about else "",
            purpose=about.purpose if about else "",
            stages=self._stages(name, versions, runs),
            versions=tuple(self._version(v, plan) for v in versions),
            refusals=self._log.refusals_of(viewer, name, RECENT),
            run=self._latest(runs[0]) if runs else None,
            overseen=self._overseen(name),
        )

    def evidence(self, name: str, reference: str) -> EvidencePage:
        """What speaks for one version, and against it. Raises `NotFound`."""
        version = self._found(name, reference)
        gates = self._gates(version)
        newest: dict[str, AdmissionFact] = {}
        for a, envelope in self._p.registry.admissions(version.digest):
            newest.setdefault(a.environment, AdmissionFact(a.environment, a.issued_at, a.expires_at, envelope))
        return EvidencePage(
            model=name,
            version=self._version(version, self._p.rollout.plan(name)),
            verdict=worst([g.finding.verdict for g in gates]),
            gates=gates,
            evidence=version.evidence or self._p.evidence.verdicts(version.digest)[1],
            signature=self._signature(version),
            admissions=tuple(newest.values()),
            files=version.files,
            contract=self._contract(version),
        )

    def run(self, run_id: str) -> RunPage:
        """One training run with its learning curves. Raises `NotFound`."""
        p = self._p
        run = p.training.run(run_id)
        plan = p.rollout.plan(run.model)
        inputs = []
        for name, number in run.datasets.items():
            digest = next((d.digest for d in p.data.versions(name) if d.version == number), "")
            inputs.append(Input(name, "dataset", digest, number))
        inputs += [Input(name, "view", digest) for name, digest in run.views.items()]
        became = [v for v in self._versions(run.model) if v.run == run.id]
        return RunPage(
            run=run,
            curves=facts.curves(p.training.curves(run.id)),
            inputs=tuple(inputs),
            versions=tuple(self._version(v, plan) for v in became),
        )

    def rollout(self, viewer: Principal, name: str) -> RolloutPage:
        """A model's rollouts, the running one drawn. Raises `NotFound`."""
        self._check_model(name)
        return self._watch.rollout(viewer, name)

    def order(self, viewer: Principal, name: str, rollout: str, what: str) -> None:
        """Promote or abort a rollout. Raises `NotFound`, `Denied`, `Conflict`."""
        self._check_model(name)
        self._watch.order(viewer, name, rollout, what)

    def drift(self, name: str, window: str) -> DriftPage:
        """A model's windows, one of them by feature, also of one that somebody else serves. Raises `NotFound`."""
        if name not in self._p.external.names():
            self._check_model(name)
        return self._watch.drift(name, window)

    def incidents(self, viewer: Principal) -> IncidentsPage:
        """What is not as it should be, and what was."""
        return self._watch.incidents(viewer, self._models())

    def resolve(self, viewer: Principal, incident: str) -> None:
        """Resolve an incident. Raises `NotFound`, `Denied`."""
        self._watch.resolve(viewer, incident)

    def reviews(self, viewer: Principal) -> ReviewsPage:
        """Which answers wait for a person, and what was decided."""
        return self._cases.all(viewer)

    def review(self, viewer: Principal, review: str) -> ReviewPage:
        """One of them, with what went into the answer. Raises `NotFound`, `Denied`."""
        return self._cases.one(viewer, review)

    def decide(self, viewer: Principal, review: str, word: Word) -> None:
        """Confirm or override. Raises `Denied`, `NotFound`, `Conflict`, `Invalid`."""
        self._cases.decide(viewer, review, word)

    def audit(self, viewer: Principal, query: AuditQuery) -> AuditPage:
        """A page of the audit log."""
        page = self._log.page(viewer, query)
        people = sorted({SYSTEM.name, *(p.name for p in self._p.identity.principals())})
        return msgspec.structs.replace(page, principals=tuple(people), actions=ACTION_NAMES)

    def verify(self) -> VerifyReport:
        """Check the whole log from its bytes."""
        return self._log.verify()

    # what several pages need

    def _models(self) -> frozenset[str]:
        """Every model that is defined or has a version."""
        applied = self._p.definitions.newest()
        defined = [m.name for m in applied.definition.models] if applied else []
        return frozenset((*self._p.registry.models(), *defined))

    def _check_model(self, name: str) -> None:
        if name not in self._models():
            raise NotFound(
                f"there is no model {name[:80]!r}",
                hint="the overview lists the models of this home",
                code="no_such_model",
            )

    def _definition(self, name: str) -> ModelDefinition | None:
        applied = self._p.definitions.newest()
        return next((m for m in applied.definition.models if m.name == name), None) if applied else None

    def _versions(self, name: str) -> list[ModelVersion]:
        """Newest first."""
        return self._p.registry.versions(name)[::-1]

    def _found(self, name: str, reference: str) -> ModelVersion:
        """A version by its number or by the start of its digest."""
        if name in self._models():
            versions = self._versions(name)
            if _NUMBER.match(reference):
                found = [v for v in versions if v.number == int(reference)]
            else:
                start = f"sha256:{reference}" if _START.match(reference) else "none"
                found = [v for v in versions if v.digest.startswith(start)]
            if len(found) == 1:
                return found[0]
        raise NotFound(
            f"there is no version {name[:80]}@{reference[:80]}",
            hint=f"`falaj versions {name[:80]}` lists them, and so does the model's page",
            code="no_such_version",
        )

    def _version(self, version: ModelVersion, plan: TrafficPlan | None) -> Version:
        route = next((r for r in plan.routes if r.digest == version.digest), None) if plan else None
        killed = self._p.fallbacks.killed().get(version.model)
        state, weight = facts.answering(version, route.weight if route else None, killed)
        decisions = [a for a in self._p.changes.of(version.digest) if a.evidence == version.evidence]
        return Version(
            alias=version.alias,
            reference=version.alias.rpartition("@")[2],
            digest=version.digest,
            state=state,
            author=version.author,
            created_at=version.created_at,
            run=version.run,
            approvals=tuple(Approval(a.principal, a.decision, a.at, a.reason, a.environment) for a in decisions),
            reason=version.reason,
            hint=self._log.hint_of(version.alias) if version.state == "refused" else "",
            role=route.role if route else "",
            weight=weight,
            environments=self._p.registry.let_in(version.digest),
            rehearsal=self._rehearsal(version),
            lacking=self._p.registry.lacking(version),
            marks=self._p.registry.marks(version.digest),
        )

    def _rehearsal(self, version: ModelVersion) -> RehearsalFact | None:
        found = self._p.registry.rehearsal(version.digest, STAGING)
        if found is None:
            return None
        r, statement = found
        return RehearsalFact(r.passed, r.requests, r.failures, r.at, r.p99_ms, r.reason, statement)

    def _contract(self, version: ModelVersion) -> ModelContract | None:
        """`signature.json` among the version's files; None when it is not there or cannot be read."""
        file = next((f for f in version.files if f.path == "signature.json"), None)
        if file is None:
            return None
        try:
            return msgspec.json.decode(self._p.blobs.get(file.sha256), type=ModelContract)
        except (FalajError, msgspec.MsgspecError):
            return None

    def _overseen(self, name: str) -> Overseen:
        """What the inventory has of a model, in the words of `falaj inventory show`."""
        record = self._p.oversight.view.record(name)
        force, kill = record.in_force, record.killed
        return Overseen(
            tier=force.tier,
            tier_from=force.tier_from,
            regulated=force.regulated,
            owner=record.owner,
            intended_use=record.intended_use,
            impact=record.impact,
            fallback=force.fallback,
            validate_by=force.validate_by,
            killed_by=kill.by if kill else "",
            killed_at=kill.at if kill else "",
            killed_why=kill.reason if kill else "",
            answers=kill.fallback.words if kill else "",
            retired=record.retired,
            frozen=force.frozen,
        )

    # overview

    def _served(self, name: str, health: PlaneHealth, incidents: list[Incident]) -> Served:
        plan = self._p.rollout.plan(name)
        versions = self._versions(name)
        definition = self._definition(name)
        contract = self._contract(versions[0]) if versions and definition is None else None
        about = definition or contract
        stable = next((r.digest for r in plan.routes if r.role == "stable"), "") if plan else ""
        serving = next((v for v in versions if v.digest == stable), None)
        seen = self._seen(plan, health)
        state, reason = facts.model_health(plan, health, seen)
        if state == "well" and incidents:
            state, reason = "attention", incidents[0].reason
        killed = self._p.kills.in_force().get(name)
        if killed is not None:
            state, reason = "down", f"killed by {killed.by}: {killed.reason}"
        # A version is called by its digest until it has a number, and by what serves things happen too.
        known = [v for v in (versions[0] if versions else None, serving) if v is not None]
        change, at = self._log.last_change(name, {a for v in known for a in (v.alias, f"{name}@{short(v.digest)}")})
        return Served(
            model=name,
            health=state,
            health_reason=reason,
            alias=serving.alias if serving and killed is None else "",
            digest=stable if killed is None else "",
            state=versions[0].state if versions else "",
            task=about.task if about else "",
            requests=seen.requests,
            errors=seen.errors,
            p50_ms=facts.quantile_ms(seen.latency, 0.5),
            p99_ms=facts.quantile_ms(seen.latency, 0.99),
            change=change,
            changed_at=at,
            incidents=len(incidents),
            instead=killed.fallback.words if killed else "",
        )

    @staticmethod
    def _seen(plan: TrafficPlan | None, health: PlaneHealth) -> facts.Traffic:
        digests = {r.digest for r in plan.routes} if plan else set()
        return facts.traffic((c for w in health.workers for c in w.versions), digests)

    def _datasets(self) -> tuple[Dataset, ...]:
        applied = self._p.definitions.newest()
        regions = {s.name: s.region for s in applied.definition.sources} if applied else {}
        shown = []
        for head in self._p.data.heads():
            versions = self._p.data.versions(head.name)
            reasons: dict[str, int] = {}
            for version in versions:
                for rule, rows in version.reasons.items():
                    reasons[rule] = reasons.get(rule, 0) + rows
            shown.append(
                Dataset(
                    name=head.name,
                    version=head.version,
                    versions=len(versions),
                    digest=head.digest,
                    rows=head.rows,
                    quarantined=sum(v.quarantined for v in versions),
                    reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
                    created_at=head.created_at,
                    region=regions.get(head.name, ""),
                )
            )
        return tuple(shown)

    # model

    def _stages(self, name: str, versions: list[ModelVersion], runs: list[Run]) -> tuple[StageFact, ...]:
        p = self._p
        definition = self._definition(name)
        heads = {h.name: h for h in p.data.heads()}
        filled = {m.view: m for m in p.features.newest()}
        views: tuple[ViewUse, ...] = definition.views if definition else ()
        requested = sum(i.source == "request" for i in definition.inputs) if definition else 0
        registered = [v for v in versions if v.number]
        plan, health = p.rollout.plan(name), p.monitoring.plane()
        seen = self._seen(plan, health)
        references = {v.digest: v.alias.rpartition("@")[2] for v in versions}
        last = next(iter(p.rollout.rollouts(name)), None)
        window = self._watch.newest_window(name, champion(plan)) if plan else None
        kill = p.kills.in_force().get(name)
        killed = StageFact("serving", "killed", f"in its place: {kill.fallback.words}", "stopped") if kill else None
        return (
            facts.data_fact(self._sources(definition, runs), heads),
            facts.features_fact(views, requested, filled),
            facts.training_fact(definition.task if definition else "", runs),
            facts.evidence_fact(self._judged(versions[0]) if versions else None),
            facts.registry_fact(registered, self._judged(registered[0]) if registered else None),
            facts.rollout_fact(plan, references, registered[0] if registered else None, last),
            killed or facts.serving_fact(plan, health, seen),
            facts.monitoring_fact(plan, health, seen, window),
        )

    def _sources(self, definition: ModelDefinition | None, runs: list[Run]) -> tuple[str, ...]:
        """What the model reads, by its definition, else by its newest run."""
        if definition is None:
            return tuple(runs[0].datasets) if runs else ()
        used = {v.name for v in definition.views}
        return tuple(
            dict.fromkeys((definition.spine, *(v.source for v in self._p.definitions.views() if v.name in used)))
        )

    def _judged(self, version: ModelVersion) -> facts.Judged:
        verdicts, _ = self._p.evidence.verdicts(version.digest)
        counting = self._p.changes.counting(self._p.registry.subject(version))
        return facts.Judged(version, verdicts, len(counting), self._p.registry.asked(version)[0])

    def _latest(self, run: Run) -> LatestRun:
        main = facts.main_curve(facts.curves(self._p.training.curves(run.id)))
        return LatestRun(run.id, run.state, run.started_at, run.metrics, main)

    # evidence

    def _gates(self, version: ModelVersion) -> tuple[Gate, ...]:
        """The version's gates in their order, each with the finding of a statement that was verified now."""
        examined = self._p.evidence.examined(version.digest)
        found = {s.gate: facts.gate(s, content) for s, content in examined if content is not None}
        missing = (g for g in version.gates if g not in found)
        found |= {g: Gate(judge(GateSpec(g), None), mandatory=g in facts.MANDATORY_NAMES) for g in missing}
        order = {g: i for i, g in enumerate(version.gates)}
        return tuple(found[g] for g in sorted(found, key=lambda g: order.get(g, len(order))))

    def _signature(self, version: ModelVersion) -> Signature | None:
        if not version.signature:
            return None
        wrong = self._p.registry.facts(version).signature
        public = self._p.keys.model.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Signature(SIGNATURE, sha256(public), version.signature, wrong is None, wrong.message if wrong else "")


def _plane(health: PlaneHealth) -> Plane:
    workers = health.workers
    return Plane(
        state=health.state,
        generation=health.generation,
        published=health.published,
        bundle_issued_at=min((w.bundle_issued_at for w in workers), default=""),
        heard_at=max((w.updated_at for w in workers), default=""),
        workers=len(workers),
        reason="" if health.state == "current" else health.reason,
    )
