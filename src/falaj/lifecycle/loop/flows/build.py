"""Build: from the lake to a registered version that awaits approval.

    start → train → package → admit for measuring → measure → record evidence → register → staging

Each step takes ids and digests and leaves blobs and rows, so each can be run again alone. The flow
ends in “awaiting approval”; it never waits for a person.
"""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.identity.ports import Principals
from falaj.kernel.access import Principal
from falaj.kernel.clock import Clock, iso
from falaj.kernel.errors import FalajError
from falaj.kernel.ids import new_id
from falaj.lifecycle.evidence.model import BuildFacts, EvidenceOutcome, findings
from falaj.lifecycle.evidence.service import EvidenceService, Measured
from falaj.lifecycle.features.model import FrameTask
from falaj.lifecycle.loop.flows.defined import Defined
from falaj.lifecycle.loop.flows.measuring import Candidate, Measuring, tell
from falaj.lifecycle.loop.flows.staging import StagingFlow
from falaj.lifecycle.loop.model import ModelDefinition
from falaj.lifecycle.registry.model import UNDECIDED
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.training.model import Run, TrainOutcome, TrainTask
from falaj.lifecycle.training.service import TrainingService
from falaj.workflow.flow import FlowRun, Payload, operation
from falaj.workflow.steps import StepRunner, StepTask


class Stages(msgspec.Struct, frozen=True):
    """The stages and tools that a build goes through."""

    defined: Defined
    training: TrainingService
    evidence: EvidenceService
    registry: RegistryService
    measuring: Measuring
    staging: StagingFlow
    steps: StepRunner
    principals: Principals
    clock: Clock
    runtime: str  # digest of the locked dependencies


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
            candidate = _candidate(plan, trained)
            digest = await run.step("package", lambda: s.measuring.package(run, candidate))
            await run.step("admit", lambda: s.measuring.admit(run, digest))
            outcome = msgspec.convert(
                await run.step("measure", lambda: s.measuring.measure(run, candidate, digest)), EvidenceOutcome
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

    def check(self, actor: Principal, model: str) -> None:
        """Authorise a build before it starts. Raises `Denied`, `NotFound`."""
        defined = self._s.defined
        self._s.training.check_start(actor, model, defined.allowed(defined.needed(model)))

    def _start(self, run: FlowRun, payload: Payload) -> dict[str, Any]:
        s, as_of = self._s, payload["as_of"]
        model = s.defined.needed(payload["model"])
        reading = s.defined.reading(model, as_of)
        params = {**model.params, **payload["params"]}
        record = Run(
            id=new_id("run", s.clock.now()),
            model=model.name,
            state="running",
            author=payload["actor"],
            params=params,
            training_set="",
            datasets=reading.frame.versions,
            views={v.name: v.digest for v in reading.frame.views},
            project=reading.project,
            runtime=s.runtime,
            as_of=as_of,
            metrics={},
            artifacts={},
            started_at=iso(s.clock.now()),
        )
        actor = s.principals.principal(payload["actor"])
        record = s.training.start(actor, record, s.defined.allowed(model), operation(run, "start"))
        run.emit({"type": "run", "run": record.id})
        task = TrainTask(model.training(), "", params, reading.datasets, as_of, model.seed)
        plan: dict[str, Any] = msgspec.to_builtins(Plan(record, model, task, reading.frame, reading.code))
        return plan

    async def _train(self, run: FlowRun, plan: Plan) -> dict[str, Any]:
        workspace = self._s.steps.workspace(run.id, "train")
        task = msgspec.structs.replace(plan.task, workspace=str(workspace))
        body = {"task": msgspec.to_builtins(task), "frame": msgspec.to_builtins(plan.frame)}
        step = StepTask("train", body, str(workspace), plan.code)
        outcome = msgspec.convert((await self._s.measuring.step(run, step, plan.run.id)).value, TrainOutcome)
        self._s.measuring.keep(workspace, outcome.files, outcome.artifacts)
        trained: dict[str, Any] = msgspec.to_builtins(Trained(outcome, outcome.artifacts))
        return trained

    def _evidence(self, run: FlowRun, plan: Plan, trained: Trained, outcome: EvidenceOutcome) -> str:
        s = self._s
        version = s.registry.by_digest(outcome.digest)
        found = findings(plan.definition.gates, outcome.measurements)
        tell(run, found)
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


def _candidate(plan: Plan, trained: Trained) -> Candidate:
    return Candidate(
        model=plan.definition.name,
        author=plan.run.author,
        made_by=plan.run.id,
        digest=trained.outcome.digest,
        files=trained.outcome.files,
        artifacts=trained.artifacts,
        gates=plan.definition.gates,
        roles=plan.definition.approvals,
        at=plan.definition.at,
        facts=_facts(plan, trained),
    )
