"""Build: from the lake to a registered version that awaits approval.

    start → train → package → admit for measuring → measure → record evidence → register → staging

Each step takes ids and digests and leaves blobs and rows, so each can be run again alone. The flow
ends in “awaiting approval”; it never waits for a person.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from falaj.governance.identity.ports import Principals
from falaj.governance.privacy.model import allowed_purposes
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import Clock, iso
from falaj.kernel.digests import FileEntry, canonical_json
from falaj.kernel.environments import MEASUREMENT
from falaj.kernel.errors import FalajError, Integrity
from falaj.kernel.ids import new_id
from falaj.lifecycle.data.service import DataService
from falaj.lifecycle.evidence.model import (
    CHAMPION,
    Baseline,
    BuildFacts,
    EvidenceOutcome,
    EvidenceTask,
    asks_champion,
    findings,
)
from falaj.lifecycle.evidence.ports import ServingProbe
from falaj.lifecycle.evidence.service import EvidenceService, Measured
from falaj.lifecycle.features.model import FrameTask
from falaj.lifecycle.loop.flows.staging import StagingFlow
from falaj.lifecycle.loop.model import ModelDefinition
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.registry.model import UNDECIDED, ModelVersion, PackageOutcome
from falaj.lifecycle.registry.ports import Blobs, Champions
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.training.model import DatasetUse, Run, TrainOutcome, TrainTask
from falaj.lifecycle.training.service import Allowed, TrainingService
from falaj.workflow.flow import FlowRun, Payload, operation
from falaj.workflow.steps import StepResult, StepRunner, StepTask

_MODEL, _HOLDOUT, _PARITY = "model", "holdout.parquet", "parity.parquet"


class Stages(msgspec.Struct, frozen=True):
    """The stages and tools that a build goes through."""

    definitions: DefinitionService
    data: DataService
    training: TrainingService
    evidence: EvidenceService
    registry: RegistryService
    staging: StagingFlow
    champions: Champions
    probe: ServingProbe
    blobs: Blobs
    steps: StepRunner
    principals: Principals
    clock: Clock
    environment: str  # where the champion serves
    runtime: str  # digest of the locked dependencies
    model_key: str  # path of the key that signs models
    approvals: int


class Plan(msgspec.Struct, frozen=True):
    """What a build works from; it stands in the first step's result."""

    run: Run
    definition: ModelDefinition
    task: TrainTask
    frame: FrameTask
    code: str


class Trained(msgspec.Struct, frozen=True):
    """What training left: its outcome, and the blobs of the model's files and of the other artifacts."""

    outcome: TrainOutcome
    artifacts: dict[str, str]


class BuildFlow:
    """From data to a registered version, or to a refusal with its reason."""

    def __init__(self, stages: Stages) -> None:
        self._s = stages

    async def build(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: `model`, `params`, `as_of`, `actor`. Result: the registered version.

        Raises `Denied`: gate_failed when a gate does not pass, rehearsal_failed when staging's requests are not answered.
        """
        s, author = self._s, payload["actor"]
        plan = msgspec.convert(await run.step("start", lambda: self._start(run, payload)), Plan)
        try:
            trained = msgspec.convert(await run.step("train", lambda: self._train(run, plan)), Trained)
            finished = operation(run, "finish")
            await run.step("finish", lambda: s.training.finish(plan.run, trained.outcome, trained.artifacts, finished))
        except FalajError as e:
            error = e
            await run.step("fail", lambda: s.training.fail(plan.run, error, operation(run, "fail")))
            raise
        finally:
            s.steps.clean(run.id)
        try:
            digest = await run.step("package", lambda: self._package(run, plan, trained))
            await run.step("admit", lambda: self._admit(run, digest))
            outcome = msgspec.convert(
                await run.step("measure", lambda: self._measure(run, plan, trained, digest)), EvidenceOutcome
            )
            await run.step("evidence", lambda: self._evidence(run, plan, trained, outcome))
            result: Payload = await run.step(
                "register", lambda: s.registry.register(digest, author, operation(run, "register"))
            )
        finally:
            s.steps.clean(run.id)
        if result["state"] == "registered":
            result = {**result, **await s.staging.carry_on(run, digest, author)}
        return {**result, "run": plan.run.id, "metrics": trained.outcome.metrics}

    def allowed(self, model: ModelDefinition) -> Allowed:
        """The purpose that a model serves and those that its sources allow."""
        definition = self._s.definitions.definition()
        used = _sources(model, {v.name: v.source for v in definition.views})
        return Allowed(model.purpose, allowed_purposes(x.purposes for x in definition.sources if x.name in used))

    def check(self, actor: Principal, model: str) -> None:
        """Authorise a build before it starts. Raises `Denied`, `NotFound`."""
        definition = self._s.definitions.model(model)
        self._s.training.check_start(actor, model, self.allowed(definition))

    def _start(self, run: FlowRun, payload: Payload) -> dict[str, Any]:
        s = self._s
        model = s.definitions.model(payload["model"])
        project = s.definitions.definition()
        views = tuple(v for v in project.views if v.name in {u.name for u in model.views})
        heads = {name: s.data.head(name) for name in sorted({model.spine, *(v.source for v in views)})}
        params = {**model.params, **payload["params"]}
        datasets = tuple(DatasetUse(h.name, h.version, h.digest) for h in heads.values())
        versions = {h.name: h.version for h in heads.values()}
        task = TrainTask(model.training(), "", params, datasets, payload["as_of"], model.seed)
        record = Run(
            id=new_id("run", s.clock.now()),
            model=model.name,
            state="running",
            author=payload["actor"],
            params=params,
            training_set="",
            datasets=versions,
            views={v.name: v.digest for v in views},
            project=project.code,
            runtime=s.runtime,
            as_of=payload["as_of"],
            metrics={},
            artifacts={},
            started_at=iso(s.clock.now()),
        )
        actor = s.principals.principal(payload["actor"])
        record = s.training.start(actor, record, self.allowed(model), operation(run, "start"))
        known_at = s.definitions.source(model.spine).known_at
        tables = {name: str(s.data.table(name)) for name in versions}
        frame = FrameTask(
            model.spine, model.at, known_at, payload["as_of"], views, tables, versions, model.history_seconds
        )
        run.emit({"type": "run", "run": record.id})
        plan: dict[str, Any] = msgspec.to_builtins(Plan(record, model, task, frame, s.definitions.code()))
        return plan

    async def _train(self, run: FlowRun, plan: Plan) -> dict[str, Any]:
        workspace = self._s.steps.workspace(run.id, "train")
        task = msgspec.structs.replace(plan.task, workspace=str(workspace))
        body = {"task": msgspec.to_builtins(task), "frame": msgspec.to_builtins(plan.frame)}
        result = await self._step(run, StepTask("train", body, str(workspace), plan.code), plan.run.id)
        outcome = msgspec.convert(result.value, TrainOutcome)
        for file in outcome.files:
            self._keep(workspace / _MODEL / file.path, file.sha256)
        for name, digest in outcome.artifacts.items():
            self._keep(workspace / name, digest)
        trained: dict[str, Any] = msgspec.to_builtins(Trained(outcome, outcome.artifacts))
        return trained

    async def _package(self, run: FlowRun, plan: Plan, trained: Trained) -> str:
        s = self._s
        workspace = s.steps.workspace(run.id, "package")
        self._lay_out(workspace / _MODEL, trained.outcome.files)
        body = {"model": str(workspace / _MODEL), "key": s.model_key, "expected": trained.outcome.digest}
        outcome = msgspec.convert(
            (await self._step(run, StepTask("package", body, str(workspace)))).value, PackageOutcome
        )
        version = ModelVersion(
            model=plan.definition.name,
            number=0,
            digest=outcome.digest,
            state="candidate",
            author=plan.run.author,
            run=plan.run.id,
            files=outcome.files,
            signature=s.blobs.put(canonical_json(outcome.signature)),
            gates=tuple(g.name for g in plan.definition.gates),
            approvals=max(s.approvals, len(plan.definition.approvals)),
            approver_roles=plan.definition.approvals,
            created_at=iso(s.clock.now()),
        )
        return s.registry.package(version, plan.run.author, operation(run, "package"))

    def _admit(self, run: FlowRun, digest: str) -> str:
        return self._s.registry.admit(digest, MEASUREMENT, SYSTEM, operation(run, "admit")).expires_at

    async def _measure(self, run: FlowRun, plan: Plan, trained: Trained, digest: str) -> dict[str, Any]:
        s = self._s
        workspace = s.steps.workspace(run.id, "evidence")
        self._lay_out(workspace / _MODEL, trained.outcome.files)
        for name in (_HOLDOUT, _PARITY):
            (workspace / name).write_bytes(s.blobs.get(trained.artifacts[name]))
        with s.probe.serve(digest, run.id) as probe:
            task = EvidenceTask(
                model=str(workspace / _MODEL),
                holdout=str(workspace / _HOLDOUT),
                parity=str(workspace / _PARITY),
                gates=plan.definition.gates,
                facts=_facts(plan, trained),
                baseline=self._champion(plan.definition, workspace / CHAMPION),
                at=plan.definition.at,
                plane=probe.address,
            )
            step = StepTask("evidence", msgspec.to_builtins(task), str(workspace), secrets={"token": probe.token})
            outcome = msgspec.convert((await self._step(run, step)).value, EvidenceOutcome)
        if outcome.digest != digest:
            raise Integrity("another model was measured than was packaged", hint="train again", code="measured_another")
        measured: dict[str, Any] = msgspec.to_builtins(outcome)
        return measured

    def _champion(self, model: ModelDefinition, folder: Path) -> Baseline | None:
        """The version that serves the model now, with its files laid out, if a gate compares with it."""
        s = self._s
        digest = s.champions.champion(model.name, s.environment) if asks_champion(g.name for g in model.gates) else ""
        if not digest:
            return None
        version = s.registry.by_digest(digest)
        self._lay_out(folder, version.files)
        return Baseline(digest, version.alias, str(folder))

    def _evidence(self, run: FlowRun, plan: Plan, trained: Trained, outcome: EvidenceOutcome) -> str:
        s = self._s
        version = s.registry.by_digest(outcome.digest)
        found = findings(plan.definition.gates, outcome.measurements)
        for finding in found:
            run.emit(
                {"type": "gate", "gate": finding.gate.name, "verdict": finding.verdict.value, "reason": finding.reason}
            )
        if version.state not in UNDECIDED:  # the decision was made on the evidence that there is
            return version.evidence
        measured = Measured(
            alias=version.alias,
            digest=outcome.digest,
            findings=found,
            facts=_facts(plan, trained),
            started=plan.run.started_at,
            finished=iso(s.clock.now()),
        )
        return s.evidence.record(measured, plan.run.author, operation(run, "evidence"))

    async def _step(self, run: FlowRun, task: StepTask, points_of: str = "") -> StepResult:
        """Run a step process; metrics become points of the run's curves, the rest is news."""

        def on_event(event: dict[str, Any]) -> None:
            run.emit({**event, "run": points_of} if event.get("type") == "metric" else event)

        result = await self._s.steps.run(task, on_event)
        run.emit({"type": "step", "step": task.kind, "seconds": result.seconds, "peak_mb": result.peak_mb})
        return result

    def _keep(self, path: Path, digest: str) -> None:
        if self._s.blobs.put(path.read_bytes()) != digest:
            raise Integrity(f"{path.name} changed while it was stored", hint="train again", code="model_changed")

    def _lay_out(self, folder: Path, files: tuple[FileEntry, ...]) -> None:
        for file in files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_bytes(self._s.blobs.get(file.sha256))


def _facts(plan: Plan, trained: Trained) -> BuildFacts:
    return BuildFacts(
        project=plan.run.project,
        datasets=plan.task.datasets,
        views=plan.run.views,
        runtime=plan.run.runtime,
        training_set=trained.outcome.training_set,
        as_of=plan.run.as_of,
        run=plan.run.id,
        params=plan.run.params,
    )


def _sources(model: ModelDefinition, source_of: dict[str, str]) -> set[str]:
    return {model.spine, *(source_of[v.name] for v in model.views if v.name in source_of)}
