"""A backtest as a durable flow: measure (step process) → record."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from falaj.governance.identity.ports import Principals
from falaj.kernel.errors import FalajError
from falaj.lifecycle.monitoring.backtest import BacktestService
from falaj.lifecycle.monitoring.model import BACKTEST, BacktestAsk, BacktestOutcome
from falaj.workflow.flow import FlowRun, Payload, operation
from falaj.workflow.steps import StepRunner, StepTask


class BacktestFlow:
    def __init__(self, service: BacktestService, steps: StepRunner, principals: Principals) -> None:
        self._service = service
        self._steps = steps
        self._principals = principals

    async def backtest(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: `ask`, `actor`. Result: a `BacktestOutcome`."""
        actor = self._principals.principal(payload["actor"])
        ask = msgspec.convert(payload["ask"], BacktestAsk)

        async def measure() -> dict[str, Any]:
            workspace = self._steps.workspace(run.id, BACKTEST)
            task = await asyncio.to_thread(self._service.lay_out, ask, workspace)
            step = StepTask(BACKTEST, msgspec.to_builtins(task), str(workspace), fresh=False)
            result = await self._steps.run(step, run.emit)
            run.emit({"type": "step", "step": BACKTEST, "seconds": result.seconds, "peak_mb": result.peak_mb})
            return result.value

        try:
            outcome = msgspec.convert(await run.step("measure", measure), BacktestOutcome)
            recorded = operation(run, "record")
            result: Payload = await run.step("record", lambda: self._service.record(actor, ask, outcome, recorded))
        except FalajError as e:
            error = e
            await run.step("refuse", lambda: self._service.refuse(actor, ask, error, operation(run, "refuse")))
            raise
        finally:
            self._steps.clean(run.id)
        return result
