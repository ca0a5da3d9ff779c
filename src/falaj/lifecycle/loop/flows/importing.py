"""Import: a model that exists already becomes a registered version, with what nobody can know of it shown as missing.

    start → convert → package → admit for measuring → measure → record evidence → register

It ends there: staging and production ask for a waiver first. A model that the project defines gets its gates, and is measured on
the project's own holdout where its data are loaded; any other gets the mandatory gates and one of latency.
"""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.identity.ports import Principals
from falaj.kernel.access import Principal
from falaj.kernel.clock import Clock, iso
from falaj.kernel.errors import FalajError
from falaj.lifecycle.evidence.model import (
    CHAMPION,
    MANDATORY,
    BuildFacts,
    EvidenceOutcome,
    Finding,
    GateSpec,
    Origin,
    Verdict,
    findings,
)
from falaj.lifecycle.evidence.service import EvidenceService, Measured
from falaj.lifecycle.features.model import FrameTask
from falaj.lifecycle.loop.flows.defined import Defined
from falaj.lifecycle.loop.flows.measuring import Candidate, Measuring, tell
from falaj.lifecycle.loop.model import ModelDefinition
from falaj.lifecycle.registry.model import UNDECIDED, check_name
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.training.foreign import IMPORT_FLOW, UNKNOWN, Import, ImportOutcome, ImportTask
from falaj.lifecycle.training.imports import ImportService, new_import
from falaj.workflow.flow import FlowRun, Payload, operation
from falaj.workflow.steps import StepRunner, StepTask

_NO_FACTS = BuildFacts()
_SOURCE = "source"


class Stages(msgspec.Struct, frozen=True):
    """The stages and tools that an import goes through. `hidden` are the folders that no sandbox may see."""

    defined: Defined
    imports: ImportService
    evidence: EvidenceService
    registry: RegistryService
    measuring: Measuring
    steps: StepRunner
    principals: Principals
    clock: Clock
    memory_mb: int
    hidden: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True):
    """What an import works from; it stands in the first step's result. `frame` is None where there are no data to measure on."""

    record: Import
    kind: str
    gates: tuple[GateSpec, ...]
    definition: ModelDefinition | None = None
    frame: FrameTask | None = None
    code: str = ""
    unlabelled: str = ""


class ImportFlow:
    """Brings in what was trained elsewhere."""

    def __init__(self, stages: Stages) -> None:
        self._s = stages

    def check(self, actor: Principal, model: str) -> None:
        """Authorise an import before it starts. Raises `Denied`, `Invalid`."""
        defined = self._s.defined
        self._s.imports.check(actor, check_name(model), defined.allowed(defined.model(model)))

    async def bring_in(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: see `training.routes`. Result: the registered version, and what it is missing.

        Raises `Denied` with the code gate_failed when a gate that could be measured does not pass.
        """
        s = self._s
        plan = msgspec.convert(await run.step("start", lambda: self._start(run, payload)), Plan)
        author = plan.record.author
        try:
            outcome = msgspec.convert(await run.step("convert", lambda: self._convert(run, plan)), ImportOutcome)
            finished = operation(run, "finish")
            await run.step("finish", lambda: msgspec.to_builtins(s.imports.finish(plan.record, outcome, finished)))
        except FalajError as e:
            error, failed = e, operation(run, "fail")
            await run.step("fail", lambda: msgspec.to_builtins(s.imports.fail(plan.record, error, failed)))
            raise
        finally:
            s.steps.clean(run.id)
        try:
            candidate = _candidate(plan, outcome)
            digest = await run.step("package", lambda: s.measuring.package(run, candidate))
            await run.step("admit", lambda: s.measuring.admit(run, digest))
            measured = msgspec.convert(
                await run.step("measure", lambda: s.measuring.measure(run, candidate, digest)), EvidenceOutcome
            )
            await run.step("evidence", lambda: self._evidence(run, plan, outcome, measured))
            registered = operation(run, "register")
            result: Payload = await run.step("register", lambda: s.registry.register(digest, author, registered))
        finally:
            s.steps.clean(run.id)
        found = {"format": outcome.format, "library": outcome.library, "conversion": outcome.how, "rows": outcome.rows}
        return {**result, **found, "import": plan.record.id, "source": plan.record.source, "missing": outcome.missing}

    # what is asked

    def _start(self, run: FlowRun, payload: Payload) -> dict[str, Any]:
        s = self._s
        model = s.defined.model(payload["model"])
        record = new_import(run.id, payload, payload["at"])
        actor = s.principals.principal(payload["actor"])
        record = s.imports.start(actor, record, s.defined.allowed(model), operation(run, "start"))
        run.emit({"type": "import", "import": record.id, "source": record.source})
        if model is None:
            latency = GateSpec("latency", "p99_ms", at_most=record.contract.p99_ms)
            plan = Plan(record, payload["kind"], (*MANDATORY, latency), unlabelled="no project defines the model")
        else:
            rows = s.defined.rows(model, iso(s.clock.now()))
            plan = Plan(record, payload["kind"], model.gates, model, rows.frame, rows.code, rows.problem)
        found: dict[str, Any] = msgspec.to_builtins(plan)
        return found

    # the steps

    async def _convert(self, run: FlowRun, plan: Plan) -> dict[str, Any]:
        s = self._s
        workspace = s.steps.workspace(run.id, "convert")
        given = workspace / "given"
        s.measuring.lay_out(given / _SOURCE, plan.record.files)
        task = ImportTask(
            model=plan.record.model,
            kind=plan.kind,
            folder=str(given),
            workspace=str(workspace),
            declared=plan.record.contract,
            gates=tuple(g.name for g in plan.gates),
            definition=plan.definition.training() if plan.definition else None,
            unlabelled=plan.unlabelled,
            hidden=s.hidden,
            memory_mb=s.memory_mb,
            seed=plan.definition.seed if plan.definition else 0,
        )
        body = {"task": msgspec.to_builtins(task), "frame": msgspec.to_builtins(plan.frame)}
        result = await s.measuring.step(run, StepTask(IMPORT_FLOW, body, str(workspace), plan.code))
        outcome = msgspec.convert(result.value, ImportOutcome)
        s.measuring.keep(workspace, outcome.files, outcome.artifacts)
        found: dict[str, Any] = msgspec.to_builtins(outcome)
        return found

    def _evidence(self, run: FlowRun, plan: Plan, outcome: ImportOutcome, measured: EvidenceOutcome) -> str:
        s = self._s
        version = s.registry.by_digest(measured.digest)
        found = tuple(map(_unsure, findings(plan.gates, measured.measurements, outcome.missing)))
        tell(run, found)
        if version.state not in UNDECIDED:  # the decision was made on the evidence that there is
            return version.evidence
        record = plan.record
        return s.evidence.record(
            Measured(
                alias=version.alias,
                digest=measured.digest,
                findings=found,
                facts=_NO_FACTS,
                started=record.started_at,
                finished=iso(s.clock.now()),
                origin=Origin(
                    record.id, record.uri, record.source, outcome.format, outcome.how,
                    {**record.claims, **outcome.claims}, UNKNOWN,
                ),
            ),
            record.author,
            operation(run, "evidence"),
        )  # fmt: skip


def _unsure(finding: Finding) -> Finding:
    """A figure of quality with what is not known of it: the rows may be those that the model was trained on."""
    if finding.gate.kind not in ("metric", "slice", CHAMPION) or finding.verdict is Verdict.MISSING:
        return finding
    return msgspec.structs.replace(finding, reason=f"{finding.reason}; it may have been trained on these rows")


def _candidate(plan: Plan, outcome: ImportOutcome) -> Candidate:
    return Candidate(
        model=plan.record.model,
        author=plan.record.author,
        made_by=plan.record.id,
        digest=outcome.digest,
        files=outcome.files,
        artifacts=outcome.artifacts,
        gates=plan.gates,
        unmeasured=tuple(outcome.missing),
        roles=plan.definition.approvals if plan.definition else (),
        at=plan.definition.at if plan.definition else "",
    )
