"""What monitoring does as durable flows: a backtest, the reference of a model that somebody else serves."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from falaj.governance.identity.ports import Principals
from falaj.kernel.errors import FalajError
from falaj.lifecycle.monitoring.backtest import BacktestService
from falaj.lifecycle.monitoring.external import ExternalService
from falaj.lifecycle.monitoring.model import (
    BACKTEST,
    EXTERNAL,
    BacktestAsk,
    BacktestOutcome,
    ExternalModel,
    ReferenceOutcome,
)
from falaj.workflow.flow import FlowRun, Payload, operation
from falaj.workflow.steps import StepRunner, StepTask


class BacktestFlow:
    """A backtest as a durable flow."""

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


class ExternalFlow:
    """Declaring a model that somebody else serves: freeze its reference (step process) → declare."""

    def __init__(self, service: ExternalService, steps: StepRunner, principals: Principals) -> None:
        self._service = service
        self._steps = steps
        self._principals = principals

    async def declare(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: `model`, `table`, `format`, `actor`. Result: the declaration that holds."""
        actor = self._principals.principal(payload["actor"])
        model = msgspec.convert(payload["model"], ExternalModel)

        async def freeze() -> dict[str, Any]:
            workspace = self._steps.workspace(run.id, EXTERNAL)
            task = self._service.lay_out(actor, model, payload["table"], payload["format"], workspace)
            step = StepTask(EXTERNAL, msgspec.to_builtins(task), str(workspace), fresh=False)
            result = await self._steps.run(step, run.emit)
            await asyncio.to_thread(self._service.keep, workspace)
            return result.value

        try:
            outcome = msgspec.convert(await run.step("freeze", freeze), ReferenceOutcome)
            told = operation(run, "declare")
            result: Payload = await run.step("declare", lambda: self._service.declare(actor, model, outcome, told))
        except FalajError as e:
            error = e
            refused = operation(run, "refuse")
            await run.step("refuse", lambda: self._service.refuse(actor, model.name, error, refused))
            raise
        finally:
            self._steps.clean(run.id)
        return result
