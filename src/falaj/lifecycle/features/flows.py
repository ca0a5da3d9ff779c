"""Materialisation as a durable flow: plan → compute and fill (step process) → commit."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.identity.ports import Principals
from falaj.kernel.errors import FalajError
from falaj.lifecycle.features.model import MaterializeOutcome
from falaj.lifecycle.features.service import FeatureService
from falaj.workflow.flow import FlowRun, Payload, operation
from falaj.workflow.steps import StepRunner, StepTask


class FeatureFlows:
    """Filling the online store as a durable flow."""

    def __init__(self, service: FeatureService, steps: StepRunner, principals: Principals) -> None:
        self._service = service
        self._steps = steps
        self._principals = principals

    async def materialize(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: `as_of`, `actor`. Result: what was filled, view by view."""
        actor = self._principals.principal(payload["actor"])

        async def fill() -> dict[str, Any]:
            task, code = self._service.plan(payload["as_of"], operation(run, "fill"))
            workspace = self._steps.workspace(run.id, "materialize")
            step = StepTask("materialize", msgspec.to_builtins(task), str(workspace), code, fresh=False)
            result = await self._steps.run(step, run.emit)
            run.emit({"type": "step", "step": "materialize", "seconds": result.seconds, "peak_mb": result.peak_mb})
            return result.value

        try:
            outcome = msgspec.convert(await run.step("fill", fill), MaterializeOutcome)
            views = await run.step("commit", lambda: self._service.commit(actor, outcome, operation(run, "commit")))
        except FalajError as e:
            error = e
            await run.step("refuse", lambda: self._service.refuse(actor, error, operation(run, "refuse")))
            raise
        finally:
            self._steps.clean(run.id)
        return {"as_of": outcome.as_of, "views": views}
