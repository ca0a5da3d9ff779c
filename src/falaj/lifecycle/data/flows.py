"""Ingestion as a durable flow: plan → load (step process) → commit."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.identity.ports import Principals
from falaj.kernel.errors import FalajError
from falaj.lifecycle.data.model import IngestOutcome
from falaj.lifecycle.data.service import DataService
from falaj.workflow.flow import FlowRun, Payload, operation
from falaj.workflow.steps import StepRunner, StepTask


class DataFlows:
    """Loading as a durable flow."""

    def __init__(self, service: DataService, steps: StepRunner, principals: Principals) -> None:
        self._service = service
        self._steps = steps
        self._principals = principals

    async def ingest(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: `source`, `actor`. Result: the dataset version, with what the load added."""
        name, actor = payload["source"], self._principals.principal(payload["actor"])

        async def load() -> dict[str, Any]:
            task, code = self._service.plan(name, operation(run, "load"))
            workspace = self._steps.workspace(run.id, "ingest")
            step = StepTask("ingest", msgspec.to_builtins(task), str(workspace), code, fresh=False)
            result = await self._steps.run(step, run.emit)
            run.emit({"type": "step", "step": "ingest", "seconds": result.seconds, "peak_mb": result.peak_mb})
            return result.value

        try:
            outcome = msgspec.convert(await run.step("load", load), IngestOutcome)
            committed = operation(run, "commit")
            result: Payload = await run.step("commit", lambda: self._service.commit(actor, outcome, committed))
        except FalajError as e:
            error = e
            await run.step("refuse", lambda: self._service.refuse(actor, name, error, operation(run, "refuse")))
            raise
        finally:
            self._steps.clean(run.id)
        return result
