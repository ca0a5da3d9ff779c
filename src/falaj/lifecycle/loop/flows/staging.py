"""Staging: a registered version is rehearsed before people decide about production.

    admit to dev → admit to staging → plan, publish, load, ask (rehearse) → sign how it went

The same bytes go on, nothing is built again. The build ends with this, and it is a flow of its own for versions that
staging's approvals held up, or that a person carries on again. Staging's data plane is started for the rehearsal when none
runs. One version is rehearsed at a time: they share the data plane, and its traffic plan says who answers.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec

from falaj.kernel.access import SYSTEM
from falaj.kernel.clock import Clock, iso
from falaj.kernel.environments import DEV, STAGING
from falaj.kernel.errors import FalajError, Unavailable
from falaj.kernel.ids import new_id
from falaj.lifecycle.registry.model import ModelVersion, Rehearsal, asked
from falaj.lifecycle.registry.ports import Blobs
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.model import TrafficPlan, all_to, withdrawn
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.serving.model import REHEARSE, RehearseOutcome, RehearseTask
from falaj.lifecycle.serving.process import SharedPlane
from falaj.lifecycle.serving.service import ServingService
from falaj.lifecycle.training.model import HOLDOUT_FILE
from falaj.lifecycle.training.service import TrainingService
from falaj.workflow.flow import FlowRun, Payload, operation
from falaj.workflow.steps import StepRunner, StepTask

_LOAD_SECONDS = 30.0


class Stages(msgspec.Struct, frozen=True):
    """The stages that a version goes through here; `rollout`, `serving` and `plane` are staging's own.

    `journal` is the folder of production's prediction journal, `tls` that of certificates, and the trust domain.
    """

    registry: RegistryService
    training: TrainingService
    rollout: RolloutService
    serving: ServingService
    plane: SharedPlane
    blobs: Blobs
    steps: StepRunner
    clock: Clock
    journal: str
    tls: tuple[str, str]


class StagingFlow:
    """Admission to staging and a rehearsal there."""

    def __init__(self, stages: Stages) -> None:
        self._s = stages
        self._turn = asyncio.Lock()

    async def stage(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: `digest`, `actor`. Result: as `carry_on`."""
        digest, actor = payload["digest"], payload["actor"]
        reopened = operation(run, "reopen")
        await run.step("reopen", lambda: self._s.registry.reopen(digest, STAGING, actor, reopened).state)
        return await self.carry_on(run, digest, actor)

    async def carry_on(self, run: FlowRun, digest: str, actor: str) -> Payload:
        """Bring a version through staging, as far as it may go; what was done before is not done again.

        Result: `version`, `digest`, `state`, the `environments` that have admitted it, its `rehearsal`, and in
        `waits_for` the approvals that staging still asks for. Raises `Denied` (rehearsal_failed).
        """
        s = self._s
        await run.step("admit-dev", lambda: self._admit(run, digest, DEV))
        waits_for = await run.step("asked", lambda: self._waits_for(digest))
        if waits_for:
            return self._told(digest, [DEV], None, waits_for)
        await run.step("admit-staging", lambda: self._admit(run, digest, STAGING))
        async with self._turn:
            found = await run.step("rehearse", lambda: self._rehearse(run, digest, actor))
        rehearsal = msgspec.convert(found, Rehearsal)
        try:
            await run.step("rehearsed", lambda: s.registry.rehearsed(rehearsal, actor, operation(run, "rehearsed")))
        except FalajError:
            await run.step("return", lambda: self._return(digest, actor))
            raise
        return self._told(digest, [DEV, STAGING], rehearsal, {})

    def _admit(self, run: FlowRun, digest: str, environment: str) -> str:
        s = self._s
        admission = s.registry.admit(digest, environment, SYSTEM, operation(run, f"admit-{environment}"))
        run.emit({"type": "environment", "environment": environment, "version": admission.alias, "digest": digest})
        return admission.expires_at

    def _waits_for(self, digest: str) -> dict[str, Any]:
        """The approvals that staging still asks for; empty when it has them, or asks for none."""
        registry = self._s.registry
        version = registry.by_digest(digest)
        needed, _ = asked(registry.environment(STAGING), version)
        facts = registry.facts(version, STAGING)
        if len(facts.approvals) >= needed and not facts.missing_roles:
            return {}
        return {"environment": STAGING, "approvals": len(facts.approvals), "needed": needed}

    async def _rehearse(self, run: FlowRun, digest: str, actor: str) -> dict[str, Any]:
        """Let staging's data plane load the version and ask it; how that went, unsigned."""
        s = self._s
        began = time.perf_counter()
        version = await asyncio.to_thread(s.registry.by_digest, digest)
        with s.plane.guest("rehearsal") as token:
            await asyncio.to_thread(self._plan, all_to(version.model, digest), actor)
            generation = await asyncio.to_thread(s.serving.publish, actor)
            run.emit({"type": "progress", "text": "starting staging's data plane"})
            address = await asyncio.to_thread(s.plane.open)
            try:
                refusal = await asyncio.to_thread(self._loaded, generation, digest, actor)
                if refusal:
                    outcome = RehearseOutcome("", 0, 0, None, None, {}, refusal)
                else:
                    workspace = s.steps.workspace(run.id, REHEARSE)
                    body = msgspec.to_builtins(self._task(version, workspace, address))
                    task = StepTask(REHEARSE, body, str(workspace), secrets={"token": token})
                    result = await s.steps.run(task, run.emit)
                    run.emit({"type": "step", "step": REHEARSE, "seconds": result.seconds, "peak_mb": result.peak_mb})
                    outcome = msgspec.convert(result.value, RehearseOutcome)
                self._check_still_there(outcome)
            finally:
                await asyncio.shield(asyncio.to_thread(s.plane.close))
                s.steps.clean(run.id)
        rehearsal = self._rehearsal(version, outcome)
        seconds = round(time.perf_counter() - began, 3)
        told: dict[str, Any] = msgspec.to_builtins(rehearsal)
        run.emit({"type": "rehearsal", "seconds": seconds, **told})
        return told

    def _plan(self, plan: TrafficPlan, actor: str) -> None:
        """Make `plan` the model's in staging. A repeated step makes it so again: another version may have come between."""
        rollout = self._s.rollout
        if rollout.present(plan.model) != plan:
            rollout.set_plan(plan, actor, new_id("op", self._s.clock.now()))

    def _loaded(self, generation: int, digest: str, actor: str) -> str:
        """Why staging's data plane did not load the version; empty when it did. Raises `Unavailable`."""
        report = self._s.serving.observe(generation, digest, _LOAD_SECONDS)
        if report is None:
            raise _gone()
        if report.state == "loaded":
            return ""
        self._s.serving.record_refusal(report, generation, actor)
        return f"staging's data plane refused it: {report.reason}"

    def _task(self, version: ModelVersion, workspace: Path, address: str) -> RehearseTask:
        s = self._s
        try:
            holdout = s.training.artifacts(version.run).get(HOLDOUT_FILE, "")
        except FalajError:
            holdout = ""
        if holdout:
            (workspace / HOLDOUT_FILE).write_bytes(s.blobs.get(holdout))
        return RehearseTask(
            contract=s.registry.contract(version.digest),
            digest=version.digest,
            journal=s.journal,
            holdout=str(workspace / HOLDOUT_FILE) if holdout else "",
            plane=address,
            tls=s.tls[0],
            trust_domain=s.tls[1],
        )

    def _check_still_there(self, outcome: RehearseOutcome) -> None:
        """Failures of a data plane that somebody stopped meanwhile say nothing of the version. Raises `Unavailable`."""
        if outcome.failures and not self._s.serving.workers():
            raise _gone()

    def _rehearsal(self, version: ModelVersion, outcome: RehearseOutcome) -> Rehearsal:
        return Rehearsal(
            digest=version.digest,
            model=version.model,
            alias=version.alias,
            environment=STAGING,
            evidence=version.evidence,
            passed=not outcome.reason,
            requests=outcome.requests,
            failures=outcome.failures,
            at=iso(self._s.clock.now()),
            source=outcome.source,
            p50_ms=outcome.p50_ms,
            p99_ms=outcome.p99_ms,
            statuses=outcome.statuses,
            reason=outcome.reason,
        )

    def _return(self, digest: str, actor: str) -> int:
        """A version that failed answers nobody in staging either."""
        model = self._s.registry.by_digest(digest).model
        self._plan(withdrawn(model), actor)
        return self._s.serving.publish(actor)

    def _told(
        self, digest: str, environments: list[str], rehearsal: Rehearsal | None, waits_for: dict[str, Any]
    ) -> Payload:
        version = self._s.registry.by_digest(digest)
        return {
            "version": version.alias,
            "digest": digest,
            "state": version.state,
            "environments": environments,
            "rehearsal": msgspec.to_builtins(rehearsal) if rehearsal else None,
            "waits_for": waits_for,
        }


def _gone() -> FalajError:
    return Unavailable(
        "staging's data plane was stopped during the rehearsal",
        hint="carry the version on again: `falaj promote MODEL@N --to staging`",
        code="plane_stopped",
    )
