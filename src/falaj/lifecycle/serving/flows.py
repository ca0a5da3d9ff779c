"""Shipping a journal segment as a durable flow: load (step process) → seal."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.kernel.errors import FalajError
from falaj.lifecycle.serving.journals import JournalService
from falaj.lifecycle.serving.model import SHIP, ShipOutcome
from falaj.workflow.flow import FlowRun, Payload, operation
from falaj.workflow.steps import StepRunner, StepTask


class ShipFlow:
    def __init__(self, journals: JournalService, steps: StepRunner) -> None:
        self._journals = journals
        self._steps = steps

    async def ship(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: `segment`. Result: the segment as it was sealed."""
        segment = payload["segment"]

        async def load() -> dict[str, Any]:
            task = msgspec.to_builtins(self._journals.task(segment))
            step = StepTask(SHIP, task, str(self._steps.workspace(run.id, SHIP)), fresh=False)
            return (await self._steps.run(step, run.emit)).value

        try:
            outcome = msgspec.convert(await run.step("load", load), ShipOutcome)
            sealed: Payload = await run.step("seal", lambda: self._journals.seal(outcome))
        except FalajError as e:
            error = e
            await run.step("refuse", lambda: self._journals.refuse(segment, error, operation(run, "refuse")))
            raise
        finally:
            self._steps.clean(run.id)
        return sealed
