"""What serving does as durable flows: shipping a journal segment, scoring a table."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from falaj.governance.identity.ports import Principals
from falaj.kernel.errors import FalajError
from falaj.lifecycle.serving.journals import JournalService
from falaj.lifecycle.serving.model import SCORE, SHIP, ScoreAsk, ScoreOutcome, ShipOutcome
from falaj.lifecycle.serving.scoring import Scored, ScoreService
from falaj.workflow.flow import FlowRun, Payload, operation
from falaj.workflow.steps import StepRunner, StepTask


class ShipFlow:
    """Shipping a journal segment as a durable flow."""

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


class ScoreFlow:
    """Scoring a table: score (step process) → record → journal."""

    def __init__(self, service: ScoreService, steps: StepRunner, principals: Principals) -> None:
        self._service = service
        self._steps = steps
        self._principals = principals

    async def score(self, run: FlowRun, payload: Payload) -> Payload:
        """Payload: `ask`, `actor`. Result: a `ScoreOutcome`, with the names of the parcels that hold its files."""
        actor = self._principals.principal(payload["actor"])
        ask = msgspec.convert(payload["ask"], ScoreAsk)

        async def work() -> dict[str, Any]:
            workspace = self._steps.workspace(run.id, SCORE)
            laid = await asyncio.to_thread(self._service.lay_out, actor, ask, workspace)
            body: dict[str, Any] = msgspec.to_builtins(laid.task)
            step = StepTask(SCORE, body, str(workspace), laid.project, {"key": laid.key})
            result = await self._steps.run(step, run.emit)
            run.emit({"type": "step", "step": SCORE, "seconds": result.seconds, "peak_mb": result.peak_mb})
            outcome = msgspec.convert(result.value, ScoreOutcome)
            await asyncio.to_thread(self._service.collect, actor, ask, outcome, workspace, run.id)
            scored: dict[str, Any] = msgspec.to_builtins(Scored(ask, outcome, laid.task.versions))
            return {**scored, "seconds": result.seconds, "peak_mb": result.peak_mb}

        try:
            done = await run.step("score", work)
            scored = msgspec.convert(done, Scored)
            told = operation(run, "record")
            result: Payload = await run.step("record", lambda: self._service.record(actor, scored, told))
            recorded = await run.step("journal", lambda: self._service.journal(scored.outcome.segments))
        except FalajError as e:
            error = e
            await run.step("refuse", lambda: self._service.refuse(actor, ask, error, operation(run, "refuse")))
            raise
        finally:
            self._steps.clean(run.id)
        return {**result, "recorded": recorded, "seconds": done["seconds"], "peak_mb": done["peak_mb"]}
