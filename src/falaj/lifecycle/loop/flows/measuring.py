"""From a model's files to figures about them: what a build and an import have in common.

package (sign, describe) → admit for measuring → measure through a private data plane
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from falaj.governance.signing.signer import ModelSigner
from falaj.kernel.access import SYSTEM
from falaj.kernel.clock import Clock, iso
from falaj.kernel.digests import FileEntry, canonical_json
from falaj.kernel.environments import MEASUREMENT
from falaj.kernel.errors import Integrity
from falaj.lifecycle.evidence.model import (
    CHAMPION,
    Baseline,
    BuildFacts,
    EvidenceOutcome,
    EvidenceTask,
    Finding,
    GateSpec,
    asks_champion,
)
from falaj.lifecycle.evidence.ports import ServingProbe
from falaj.lifecycle.registry.model import ModelVersion, PackageOutcome
from falaj.lifecycle.registry.ports import Blobs, Champions
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.training.model import HOLDOUT_FILE, PARITY_FILE
from falaj.workflow.flow import FlowRun, operation
from falaj.workflow.steps import StepResult, StepRunner, StepTask

MODEL_FOLDER = "model"


class Tools(msgspec.Struct, frozen=True):
    """What measuring works with."""

    registry: RegistryService
    champions: Champions
    probe: ServingProbe
    blobs: Blobs
    steps: StepRunner
    clock: Clock
    environment: str  # where the champion serves
    signer: ModelSigner
    approvals: int  # the least that any version needs


class Candidate(msgspec.Struct, frozen=True):
    """A model that is to become a version. `digest` is what its files must add up to; `artifacts` are blobs by file name."""

    model: str
    author: str
    made_by: str  # the run or the import
    digest: str
    files: tuple[FileEntry, ...]
    artifacts: dict[str, str]
    gates: tuple[GateSpec, ...]
    unmeasured: tuple[str, ...] = ()  # gates for which there is nothing to measure
    roles: tuple[str, ...] = ()  # whose approval it needs, each
    at: str = ""  # the column of time
    facts: BuildFacts = BuildFacts()


class Measuring:
    """Packs, admits and measures; each call is the body of one step of a flow and may be repeated."""

    def __init__(self, tools: Tools) -> None:
        self._t = tools

    async def package(self, run: FlowRun, candidate: Candidate) -> str:
        """Sign the files and write the version down, without a number yet. Returns its digest."""
        t = self._t
        workspace = t.steps.workspace(run.id, "package")
        self.lay_out(workspace / MODEL_FOLDER, candidate.files)
        body = {"model": str(workspace / MODEL_FOLDER), "key": t.signer.path, "expected": candidate.digest}
        result = await self.step(run, StepTask("package", body, str(workspace)))
        outcome = msgspec.convert(result.value, PackageOutcome)
        version = ModelVersion(
            model=candidate.model,
            number=0,
            digest=outcome.digest,
            state="candidate",
            author=candidate.author,
            run=candidate.made_by,
            files=outcome.files,
            signature=t.blobs.put(canonical_json(t.signer.signed(outcome.signature, outcome.files))),
            gates=tuple(g.name for g in candidate.gates),
            approvals=max(t.approvals, len(candidate.roles)),
            approver_roles=candidate.roles,
            created_at=iso(t.clock.now()),
        )
        return t.registry.package(version, candidate.author, operation(run, "package"))

    def admit(self, run: FlowRun, digest: str) -> str:
        """Admit it to where models are measured. Returns until when."""
        return self._t.registry.admit(digest, MEASUREMENT, SYSTEM, operation(run, "admit")).expires_at

    async def measure(self, run: FlowRun, candidate: Candidate, digest: str) -> dict[str, Any]:
        """An `EvidenceOutcome` of exactly these bytes. Raises `Integrity` when others were measured."""
        t = self._t
        workspace = t.steps.workspace(run.id, "evidence")
        self.lay_out(workspace / MODEL_FOLDER, candidate.files)
        for name in (HOLDOUT_FILE, PARITY_FILE):
            (workspace / name).write_bytes(t.blobs.get(candidate.artifacts[name]))
        gates = tuple(g for g in candidate.gates if g.name not in candidate.unmeasured)
        with t.probe.serve(digest, run.id) as probe:
            task = EvidenceTask(
                model=str(workspace / MODEL_FOLDER),
                holdout=str(workspace / HOLDOUT_FILE),
                parity=str(workspace / PARITY_FILE),
                gates=gates,
                facts=candidate.facts,
                baseline=self._champion(candidate.model, gates, workspace / CHAMPION),
                at=candidate.at,
                plane=probe.address,
            )
            step = StepTask("evidence", msgspec.to_builtins(task), str(workspace), secrets={"token": probe.token})
            outcome = msgspec.convert((await self.step(run, step)).value, EvidenceOutcome)
        if outcome.digest != digest:
            raise Integrity("another model was measured than was packaged", hint="start again", code="measured_another")
        measured: dict[str, Any] = msgspec.to_builtins(outcome)
        return measured

    def _champion(self, model: str, gates: tuple[GateSpec, ...], folder: Path) -> Baseline | None:
        """The version that serves the model now, with its files laid out, if a gate compares with it."""
        t = self._t
        digest = t.champions.champion(model, t.environment) if asks_champion(g.name for g in gates) else ""
        if not digest:
            return None
        version = t.registry.by_digest(digest)
        self.lay_out(folder, version.files)
        return Baseline(digest, version.alias, str(folder))

    # what each step needs

    async def step(self, run: FlowRun, task: StepTask, points_of: str = "") -> StepResult:
        """Run a step process; metrics become points of the curves of the run `points_of`, the rest is news."""

        def on_event(event: dict[str, Any]) -> None:
            run.emit({**event, "run": points_of} if points_of and event.get("type") == "metric" else event)

        result = await self._t.steps.run(task, on_event)
        run.emit({"type": "step", "step": task.kind, "seconds": result.seconds, "peak_mb": result.peak_mb})
        return result

    def keep(self, workspace: Path, files: tuple[FileEntry, ...], artifacts: dict[str, str]) -> None:
        """Store what a step left in its workspace. Raises `Integrity` when a file is not what the step said."""
        model = workspace / MODEL_FOLDER
        for path, digest in [
            *((model / f.path, f.sha256) for f in files),
            *((workspace / name, d) for name, d in artifacts.items()),
        ]:
            if self._t.blobs.put(path.read_bytes()) != digest:
                raise Integrity(f"{path.name} changed while it was stored", hint="start again", code="model_changed")

    def lay_out(self, folder: Path, files: tuple[FileEntry, ...]) -> None:
        """Write a model's files where a step process finds them. Raises `Integrity` for one of another size."""
        for file in files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            data = self._t.blobs.get(file.sha256)
            if len(data) != file.size:  # of an import, somebody else said how large it is, and limits go by that
                raise Integrity(
                    f"{file.path[:80]} has {len(data)} bytes and not {file.size}",
                    hint="start again",
                    code="size_differs",
                )
            path.write_bytes(data)


def tell(run: FlowRun, found: Iterable[Finding]) -> None:
    """Each gate's verdict as news of the flow."""
    for f in found:
        run.emit({"type": "gate", "gate": f.gate.name, "verdict": f.verdict.value, "reason": f.reason})
